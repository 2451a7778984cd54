//! The accept loop: at most so many connections, each in a task of its own, all of them ended with the loop.

use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio::task::{JoinError, JoinSet};
use tokio_util::sync::CancellationToken;

use super::connection::Connection;
use super::{Bounds, Metrics};

/// Wait before the next accept when the process has no descriptor or memory left for one: nothing tells when it has.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);

/// Accepts until `shutdown`, serves each connection by `connect`, then drains.
pub(super) async fn run<F, Fut>(listener: TcpListener, bounds: Bounds, metrics: Metrics, shutdown: CancellationToken, connect: F)
where
    F: Fn(TcpStream, Connection) -> Fut,
    Fut: Future<Output = ()> + Send + 'static,
{
    let drain = bounds.drain;
    let slots = Arc::new(Semaphore::new(bounds.connections));
    let room = Arc::new(Notify::new());
    let connection = Connection::new(bounds, metrics.clone(), Arc::clone(&room), shutdown.clone());
    let mut tasks = JoinSet::new();
    {
        let mut next = std::pin::pin!(next(&listener, &slots, &room));
        loop {
            tokio::select! {
                () = shutdown.cancelled() => break,
                Some(ended) = tasks.join_next() => report(ended),
                (stream, slot) = &mut next => {
                    next.set(self::next(&listener, &slots, &room));
                    let open = Open::new(slot, &metrics);
                    let serve = connect(stream, connection.clone());
                    tasks.spawn(async move {
                        let _open = open;
                        serve.await;
                    });
                }
            }
        }
    }
    drop(listener);
    let drained = tokio::time::timeout(drain, async {
        while let Some(ended) = tasks.join_next().await {
            report(ended);
        }
    });
    if drained.await.is_err() {
        tracing::warn!(connections = tasks.len(), "requests still in flight at the end of the drain are cut off");
        tasks.shutdown().await;
    }
}

/// The next connection and a slot for it. When there is none, the connection that is idle longest is asked to go
/// (`Notify` wakes in the order of waiting), and the new one waits: for the bounds of a request at most, all slots
/// being busy.
async fn next(listener: &TcpListener, slots: &Arc<Semaphore>, room: &Notify) -> (TcpStream, OwnedSemaphorePermit) {
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            // The client went away between its connect and our accept.
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionAborted => continue,
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(ACCEPT_RETRY).await;
                continue;
            }
        };
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "the connection is gone already");
            continue;
        }
        if slots.available_permits() == 0 {
            room.notify_one();
        }
        match Arc::clone(slots).acquire_owned().await {
            Ok(slot) => return (stream, slot),
            Err(_closed) => std::future::pending().await, // never: the semaphore is not closed
        }
    }
}

/// A slot and its place in the gauge, both given back when the connection ends, however it ends.
struct Open {
    _slot: OwnedSemaphorePermit,
    connections: prometheus::IntGauge,
}

impl Open {
    fn new(slot: OwnedSemaphorePermit, metrics: &Metrics) -> Self {
        metrics.connections.inc();
        Self { _slot: slot, connections: metrics.connections.clone() }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.connections.dec();
    }
}

fn report(ended: Result<(), JoinError>) {
    if let Err(error) = ended {
        tracing::error!(%error, "a connection ended in a panic; the others go on");
    }
}
