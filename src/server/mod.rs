//! The HTTPS server of the webhook: HTTP/1.1 over TLS, by hand on hyper and rustls.
//!
//! ```text
//! bind -> accept -> TLS handshake -> connection (deadlines) -> http (checks, body, panic guard) -> Handler
//! ```
//!
//! It answers one kind of request: `POST` of a JSON document whose length is announced, on a path that the [`Handler`]
//! names. Everything else is refused with a JSON object `{"error": "..."}` and the connection is closed:
//!
//! | request | answer |
//! |---|---|
//! | another path | 404 |
//! | another method | 405, with `Allow` |
//! | an `Expect` other than `100-continue` | 417 |
//! | a `Content-Type` other than `application/json` | 415 |
//! | `Transfer-Encoding`, with or without `Content-Length` | 411: no API server sends one, and so no request can be smuggled |
//! | no body | 400 |
//! | a body over [`Bounds::max_body`] | 413, before a byte of it is read |
//! | a body not there within [`Bounds::body`] | 408 |
//! | more bytes in flight than [`Bounds::in_flight_bytes`] | 503, with `Retry-After` |
//! | no answer within [`Bounds::handle`] | 503, with `Retry-After` |
//! | a panic in the handler | 500, for this request alone |
//! | a head that is not there within [`Bounds::header`], or is none | the connection is closed |
//!
//! While [`Bounds::connections`] are open, further ones wait in the listen queue, and the connection that has been idle
//! longest is closed for each of them.

mod accept;
mod bind;
pub mod clients;
mod connection;
mod http;
mod metrics;
pub mod probe;
pub mod tls;

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use hyper::StatusCode;
use hyper::body::Bytes;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

pub use bind::{BindError, bind};
pub use metrics::Metrics;

/// Serves HTTPS on `listener` until `shutdown` is cancelled; then accepts no more, lets what is in flight finish, closes
/// what is idle, and returns after at most [`Bounds::drain`].
///
/// A pod is still sent requests for a moment after it was told to stop: cancel `shutdown` only once its endpoint has had
/// the time to go (readiness off, then some seconds).
pub async fn serve<H: Handler>(
    listener: TcpListener,
    tls: Arc<rustls::ServerConfig>,
    handler: Arc<H>,
    bounds: Bounds,
    metrics: Metrics,
    shutdown: CancellationToken,
) {
    let acceptor = TlsAcceptor::from(tls);
    let requests = Arc::new(http::Requests::new(handler, bounds.clone(), metrics.clone()));
    accept::run(listener, bounds, metrics, shutdown, move |stream, connection| {
        let (acceptor, requests) = (acceptor.clone(), Arc::clone(&requests));
        async move {
            let Some(stream) = connection.handshake(acceptor.accept(stream)).await else { return };
            connection.drive(stream, move |request| Arc::clone(&requests).answer(request)).await;
        }
    })
    .await;
}

/// What answers the requests.
pub trait Handler: Send + Sync + 'static {
    /// The paths that it answers; any other gets 404.
    fn paths(&self) -> &'static [&'static str];

    /// Answers one request. `path` is one of [`Handler::paths`], without the query (the API server appends
    /// `?timeout=`); `body` is never empty. The future is dropped when [`Bounds::handle`] has passed.
    fn handle(&self, path: &str, body: Bytes) -> impl Future<Output = Answer> + Send;
}

/// Bytes of the sentence of an error; ours take a third of it.
const MAX_SENTENCE: usize = 500;

/// An answer; it is always `application/json`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The HTTP status.
    pub status: StatusCode,
    /// A JSON document.
    pub body: Bytes,
}

impl Answer {
    /// 200 with a JSON document.
    pub fn ok(body: impl Into<Bytes>) -> Self {
        Self { status: StatusCode::OK, body: body.into() }
    }

    /// `{"error": "..."}` with a status. Of the sentence [`MAX_SENTENCE`] bytes are told: what a parser quotes of a body has no bound of its
    /// own.
    pub fn error(status: StatusCode, sentence: &str) -> Self {
        let sentence = sentence.get(..sentence.floor_char_boundary(MAX_SENTENCE)).unwrap_or_default();
        let body = serde_json::json!({ "error": sentence }).to_string();
        Self { status, body: body.into() }
    }
}

/// What one server may take: 512 connections of 44 KiB (22 MiB), 12 MiB of bodies, as much again for the answers to them,
/// and 10 MiB for the process itself, make 56 MiB. What a handler needs besides is its own to bound.
#[derive(Debug, Clone)]
pub struct Bounds {
    /// From the accept to the end of the TLS handshake. 5 s: two round trips, and twice the 2 s after which the API
    /// server has given up on the call anyway.
    pub handshake: Duration,
    /// From the first byte of a request (or the end of the handshake, for the first one) to the end of its head.
    /// 5 s, for the same reason.
    pub header: Duration,
    /// From the end of the head to the end of the body. 10 s: 8 MiB at 7 Mbit/s.
    pub body: Duration,
    /// From the end of the body to the handler's answer. 10 s: the longest `timeoutSeconds` of our webhooks.
    pub handle: Duration,
    /// From the answer until the client has taken it. 5 s: an answer is at most some hundred KiB.
    pub answer: Duration,
    /// A connection without a request is closed after this. 120 s: longer than the 90 s of the API server's own pool
    /// (`IdleConnTimeout` of Go's default transport), so that it is the client that closes, and no request is lost in
    /// a race with the close.
    pub idle: Duration,
    /// What is in flight at the shutdown may take this long to finish. 10 s: as `handle`, well within the default
    /// `terminationGracePeriodSeconds` of 30.
    pub drain: Duration,
    /// The largest body in bytes. 8 MiB: an API request is at most 3 MiB (`MaxRequestBodyBytes` of the API server),
    /// a review of an UPDATE holds the object twice, and JSON escaping may add to it.
    pub max_body: usize,
    /// Connections open at once. 512: two API servers that run 200 mutating requests each, their default, need 400. One
    /// holds 33 KiB (measured, idle after a body of 4 KiB) to 44 KiB (200 KiB), most of it buffers of TLS and HTTP.
    pub connections: usize,
    /// Bytes of request bodies held at once, over all connections; at least `max_body` in effect. 12 MiB: one of the
    /// largest and 4 MiB of others, or 3,000 of the usual 4 KiB.
    pub in_flight_bytes: usize,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            handshake: Duration::from_secs(5),
            header: Duration::from_secs(5),
            body: Duration::from_secs(10),
            handle: Duration::from_secs(10),
            answer: Duration::from_secs(5),
            idle: Duration::from_secs(120),
            drain: Duration::from_secs(10),
            max_body: 8 << 20,
            connections: 512,
            in_flight_bytes: 12 << 20,
        }
    }
}
