//! Connections, as many as there is room for, until the end.

use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::routes::Site;

/// Connections at once: a browser opens six at most, so ten of them. Whoever comes then waits until one is closed.
const CONNECTIONS: usize = 64;
/// A request's head must be there within this time; what is idle for so long is closed.
const HEAD: Duration = Duration::from_secs(15);
/// What is under way at the end may take this long.
const LAST: Duration = Duration::from_secs(2);

/// Serves until `shutdown`.
pub(super) async fn until(listener: TcpListener, site: Site, shutdown: CancellationToken) {
    let port = listener.local_addr().map(|address| address.port()).unwrap_or_default();
    let service = TowerToHyperService::new(site.router(port));
    let room = Arc::new(Semaphore::new(CONNECTIONS));
    let mut connections = JoinSet::new();
    loop {
        let next = async {
            let place = Arc::clone(&room).acquire_owned().await;
            (place, listener.accept().await)
        };
        tokio::select! {
            (place, accepted) = next => {
                if let Ok((stream, _)) = accepted {
                    let (service, shutdown) = (service.clone(), shutdown.clone());
                    connections.spawn(async move {
                        one(stream, service, shutdown).await;
                        drop(place);
                    });
                } else {
                    // No file is left for a connection: that passes.
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
            Some(_) = connections.join_next() => {}
            () = shutdown.cancelled() => break,
        }
    }
    let _ = tokio::time::timeout(LAST, async { while connections.join_next().await.is_some() {} }).await;
}

async fn one(stream: TcpStream, service: TowerToHyperService<axum::Router>, shutdown: CancellationToken) {
    let mut http = http1::Builder::new();
    let connection = http.timer(TokioTimer::new()).header_read_timeout(HEAD).serve_connection(TokioIo::new(stream), service);
    let mut connection = std::pin::pin!(connection);
    // How it ends is the caller's affair.
    tokio::select! {
        _ = connection.as_mut() => {}
        () = shutdown.cancelled() => {
            connection.as_mut().graceful_shutdown();
            let _ = connection.await;
        }
    }
}
