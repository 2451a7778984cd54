//! One connection: its phases, and a deadline for each.

use std::convert::Infallible;
use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::Notify;
use tokio::sync::futures::Notified;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::http::Body;
use super::{Bounds, Metrics};

/// The most that hyper reads ahead on one connection: a TLS record. A head must fit (the API server's is under 1 KiB), and
/// a body is handed on in pieces of at most this size.
const BUFFER: usize = 16 << 10;

/// What a connection needs of its server.
#[derive(Clone)]
pub(super) struct Connection {
    bounds: Bounds,
    metrics: Metrics,
    room: Arc<Notify>,
    shutdown: CancellationToken,
}

impl Connection {
    pub(super) fn new(bounds: Bounds, metrics: Metrics, room: Arc<Notify>, shutdown: CancellationToken) -> Self {
        Self { bounds, metrics, room, shutdown }
    }

    /// The stream that a TLS handshake gives, unless it fails, is too slow, or the server shuts down.
    pub(super) async fn handshake<S>(&self, handshake: impl Future<Output = io::Result<S>>) -> Option<S> {
        let ended = tokio::select! {
            ended = tokio::time::timeout(self.bounds.handshake, handshake) => ended,
            () = self.shutdown.cancelled() => return None,
        };
        let reason = match ended {
            Ok(Ok(stream)) => return Some(stream),
            // At debug: whoever reaches the port could fill the log otherwise.
            Ok(Err(error)) => {
                tracing::debug!(%error, "no TLS handshake");
                if is_about_the_client(&error) { "client" } else { "handshake" }
            }
            Err(_elapsed) => {
                tracing::debug!("the TLS handshake took too long");
                "handshake"
            }
        };
        self.closed(reason);
        None
    }

    /// Serves requests by `answer`, one at a time, until either side closes or a deadline passes.
    pub(super) async fn drive<S, F, Fut>(&self, stream: S, answer: F)
    where
        S: AsyncRead + AsyncWrite + Unpin,
        F: Fn(Request<Incoming>) -> Fut,
        Fut: Future<Output = Response<Body>>,
    {
        let progress = Arc::new(Progress::default());
        let service = service_fn(|request| {
            progress.enter(Phase::Request);
            let (answer, progress) = (answer(request), &progress);
            async move {
                let response = answer.await;
                progress.enter(Phase::Answer);
                Ok::<_, Infallible>(response)
            }
        });
        let io = TokioIo::new(Watched { stream, progress: Arc::clone(&progress) });
        let served = http1::Builder::new().max_buf_size(BUFFER).serve_connection(io, service);
        self.bounded(pin!(served), &progress).await;
    }

    /// Polls the connection, and after each poll sets the one timer to the deadline of the phase that it is in.
    async fn bounded<C: Closable>(&self, mut served: Pin<&mut C>, progress: &Progress) {
        let mut deadline = pin!(tokio::time::sleep(self.bounds.header));
        let mut room = pin!(None::<Notified<'_>>);
        let mut shutdown = pin!(self.shutdown.cancelled());
        let (mut seen, mut closing) = (progress.get(), false);
        poll_fn(|cx| {
            loop {
                if let Poll::Ready(ended) = served.as_mut().poll(cx) {
                    if let Err(error) = ended {
                        tracing::debug!(%error, "connection closed");
                    }
                    return Poll::Ready(());
                }
                if !closing && shutdown.as_mut().poll(cx).is_ready() {
                    closing = true;
                    served.as_mut().close_gracefully();
                    continue;
                }
                let now = progress.get();
                let phase = now.1;
                if now != seen {
                    seen = now;
                    deadline.as_mut().reset(Instant::now() + self.limit(phase));
                    room.set((phase == Phase::Idle).then(|| self.room.notified()));
                }
                if let Some(asked) = room.as_mut().as_pin_mut()
                    && asked.poll(cx).is_ready()
                {
                    room.set(None);
                    closing = true;
                    self.closed("room");
                    served.as_mut().close_gracefully();
                    continue;
                }
                if deadline.as_mut().poll(cx).is_ready() {
                    self.closed(phase.name());
                    return Poll::Ready(());
                }
                return Poll::Pending;
            }
        })
        .await;
    }

    fn limit(&self, phase: Phase) -> Duration {
        let bounds = &self.bounds;
        match phase {
            Phase::Head => bounds.header,
            // The request has its own, with an answer that says so; this is only the end of it all.
            Phase::Request => bounds.body + bounds.handle + bounds.answer,
            Phase::Answer => bounds.answer,
            Phase::Idle => bounds.idle,
        }
    }

    fn closed(&self, reason: &str) {
        self.metrics.closed.with_label_values(&[reason]).inc();
    }
}

/// What a connection is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// The head of a request is on its way, or that of the first one awaited.
    Head,
    /// The head is there: the body is read, the handler works.
    Request,
    /// The answer is on its way.
    Answer,
    /// Nothing is.
    Idle,
}

impl Phase {
    fn name(self) -> &'static str {
        match self {
            Self::Head => "header",
            Self::Request => "request",
            Self::Answer => "answer",
            Self::Idle => "idle",
        }
    }
}

/// The phase, and how often it has changed: one that was left and entered again has a new deadline. Written by the
/// stream and the service, read by the connection, all three in one task.
#[derive(Default)]
struct Progress(AtomicU64);

impl Progress {
    fn enter(&self, phase: Phase) {
        let changes = (self.0.load(Ordering::Relaxed) >> 2) + 1;
        self.0.store(changes << 2 | phase as u64, Ordering::Relaxed);
    }

    fn get(&self) -> (u64, Phase) {
        let value = self.0.load(Ordering::Relaxed);
        let phase = match value & 3 {
            0 => Phase::Head,
            1 => Phase::Request,
            2 => Phase::Answer,
            _ => Phase::Idle,
        };
        (value >> 2, phase)
    }
}

/// The stream under hyper; it sees the first byte of a head, and the last one of an answer.
struct Watched<S> {
    stream: S,
    progress: Arc<Progress>,
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, buf);
        if buf.filled().len() > before && self.progress.get().1 == Phase::Idle {
            self.progress.enter(Phase::Head);
        }
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bufs: &[io::IoSlice<'_>]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    /// hyper flushes once all of its buffer is written, and it buffers an answer of one piece whole: a flush that
    /// succeeds after the answer is its end.
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(cx);
        if matches!(flushed, Poll::Ready(Ok(()))) && self.progress.get().1 == Phase::Answer {
            self.progress.enter(Phase::Idle);
        }
        flushed
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// hyper's connection, whose own type cannot be written down.
trait Closable: Future<Output = hyper::Result<()>> {
    /// Ends after the request in flight, at once when there is none.
    fn close_gracefully(self: Pin<&mut Self>);
}

impl<I, S> Closable for http1::Connection<I, S>
where
    I: hyper::rt::Read + hyper::rt::Write + Unpin,
    S: hyper::service::HttpService<Incoming, ResBody = Body>,
    S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    fn close_gracefully(self: Pin<&mut Self>) {
        self.graceful_shutdown();
    }
}

/// Did the handshake fail because the client has no certificate, or one that is refused?
fn is_about_the_client(error: &io::Error) -> bool {
    let error = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    matches!(error, Some(rustls::Error::NoCertificatesPresented | rustls::Error::InvalidCertificate(_)))
}
