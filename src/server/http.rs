//! One request: what is refused before its body is read, the body, the handler behind a panic guard.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::FutureExt;
use http_body_util::{BodyExt, Full};
use hyper::body::{Body as _, Bytes, Incoming};
use hyper::header::{ALLOW, CONNECTION, CONTENT_TYPE, EXPECT, HeaderValue, RETRY_AFTER};
use hyper::http::request::Parts;
use hyper::{Method, Request, Response, StatusCode};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::{Answer, Bounds, Handler, Metrics};

/// The body of an answer: one piece.
pub(super) type Body = Full<Bytes>;

/// Bodies are accounted for in pieces of this size: 8 MiB are 8,192 permits, and a small one costs one.
const PERMIT: usize = 1 << 10;

/// Answers the requests of all connections of one server.
pub(super) struct Requests<H> {
    handler: Arc<H>,
    bounds: Bounds,
    metrics: Metrics,
    in_flight: Arc<Semaphore>,
}

impl<H: Handler> Requests<H> {
    pub(super) fn new(handler: Arc<H>, bounds: Bounds, metrics: Metrics) -> Self {
        // One body of the largest size must always fit.
        let bytes = bounds.in_flight_bytes.max(bounds.max_body);
        let in_flight = Arc::new(Semaphore::new(bytes.div_ceil(PERMIT)));
        Self { handler, bounds, metrics, in_flight }
    }

    pub(super) async fn answer(self: Arc<Self>, request: Request<Incoming>) -> Response<Body> {
        let began = Instant::now();
        let response = match self.accept(request).await {
            Ok((path, body, held)) => {
                let answer = self.guarded(path, body).await;
                drop(held);
                answer.into_response()
            }
            Err(refusal) => refusal.into_response(),
        };
        self.metrics.requests.with_label_values(&[response.status().as_str()]).inc();
        self.metrics.seconds.observe(began.elapsed().as_secs_f64());
        response
    }

    /// The path and the whole body of a request that is worth the handler's time.
    async fn accept(&self, request: Request<Incoming>) -> Result<(&'static str, Bytes, Held), Refusal> {
        let (head, body) = request.into_parts();
        let path = self.check(&head)?;
        let length = match body.size_hint().exact() {
            None => return Err(Refusal::NoLength),
            Some(0) => return Err(Refusal::Empty),
            Some(length) => usize::try_from(length).unwrap_or(usize::MAX),
        };
        if length > self.bounds.max_body {
            return Err(Refusal::TooLarge { length, max: self.bounds.max_body });
        }
        let read = tokio::time::timeout(self.bounds.body, self.read(body, length));
        let (body, held) = read.await.unwrap_or(Err(Refusal::SlowBody(self.bounds.body)))?;
        Ok((path, body, held))
    }

    fn check(&self, head: &Parts) -> Result<&'static str, Refusal> {
        let path = self.handler.paths().iter().find(|path| **path == head.uri.path());
        let path = path.ok_or(Refusal::Path { known: self.handler.paths() })?;
        if head.method != Method::POST {
            return Err(Refusal::Method);
        }
        if head.headers.get(EXPECT).is_some_and(|expect| !expect.as_bytes().eq_ignore_ascii_case(b"100-continue")) {
            return Err(Refusal::Expectation);
        }
        let content_type = head.headers.get(CONTENT_TYPE).map_or(&b""[..], HeaderValue::as_bytes);
        let essence = content_type.split(|byte| *byte == b';').next().unwrap_or_default();
        if !essence.trim_ascii().eq_ignore_ascii_case(b"application/json") {
            return Err(Refusal::ContentType(String::from_utf8_lossy(content_type).into_owned()));
        }
        Ok(path)
    }

    /// Reads `length` bytes. Memory follows what has come, not what was announced: a body in one piece is taken as it
    /// is, another one goes into a buffer that doubles up to `length`.
    async fn read(&self, mut body: Incoming, length: usize) -> Result<(Bytes, Held), Refusal> {
        let mut held = Held { permit: None, bytes: self.metrics.bytes.clone() };
        let mut buffer = Vec::new();
        while let Some(frame) = body.frame().await {
            let Ok(piece) = frame.map_err(Refusal::Broken)?.into_data() else { continue };
            if buffer.is_empty() && piece.len() == length {
                held.grow(&self.in_flight, length)?;
                return Ok((piece, held));
            }
            let needed = buffer.len() + piece.len();
            if needed > buffer.capacity() {
                let capacity = needed.max(2 * buffer.capacity()).min(length.max(needed));
                held.grow(&self.in_flight, capacity)?;
                buffer.reserve_exact(capacity - buffer.len());
            }
            buffer.extend_from_slice(&piece);
        }
        Ok((buffer.into(), held))
    }

    /// The handler's answer; a panic costs this request a 500, and nobody else anything.
    async fn guarded(&self, path: &str, body: Bytes) -> Answer {
        let answer = AssertUnwindSafe(async { self.handler.handle(path, body).await }).catch_unwind();
        match tokio::time::timeout(self.bounds.handle, answer).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(panic)) => {
                let message = panic.downcast_ref::<String>().map(String::as_str);
                let message = message.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no message");
                tracing::error!(path, message, "a request ended in a panic and was answered 500");
                self.metrics.panics.inc();
                Answer::error(
                    StatusCode::INTERNAL_SERVER_ERROR,
                    "this request made the server panic; its log has the place. Other requests are served",
                )
            }
            Err(_elapsed) => {
                let sentence = format!("no answer within {:?}; try again", self.bounds.handle);
                Answer::error(StatusCode::SERVICE_UNAVAILABLE, &sentence)
            }
        }
    }
}

/// Bytes in flight that a request holds, given back when it is dropped.
struct Held {
    permit: Option<OwnedSemaphorePermit>,
    bytes: prometheus::IntGauge,
}

impl Held {
    /// Holds `bytes` in all.
    fn grow(&mut self, in_flight: &Arc<Semaphore>, bytes: usize) -> Result<(), Refusal> {
        let held = self.permit.as_ref().map_or(0, OwnedSemaphorePermit::num_permits);
        let more = bytes.div_ceil(PERMIT).saturating_sub(held);
        let permits = u32::try_from(more).unwrap_or(u32::MAX);
        let permit = Arc::clone(in_flight).try_acquire_many_owned(permits).map_err(|_full| Refusal::Busy)?;
        self.bytes.add(gauge(more));
        match &mut self.permit {
            Some(held) => held.merge(permit),
            none => *none = Some(permit),
        }
        Ok(())
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.bytes.sub(gauge(self.permit.as_ref().map_or(0, OwnedSemaphorePermit::num_permits)));
    }
}

fn gauge(permits: usize) -> i64 {
    i64::try_from(permits * PERMIT).unwrap_or(i64::MAX)
}

/// Why a request did not come to the handler.
#[derive(Debug, thiserror::Error)]
enum Refusal {
    #[error("no such path; there is {}", known.join(" and "))]
    Path { known: &'static [&'static str] },
    #[error("only POST is answered here")]
    Method,
    #[error("the only expectation that can be met is 100-continue")]
    Expectation,
    #[error("Content-Type must be application/json, not `{0}`")]
    ContentType(String),
    #[error("the body must be sent with Content-Length, without Transfer-Encoding")]
    NoLength,
    #[error("the body is empty; an AdmissionReview as JSON belongs there")]
    Empty,
    #[error("the body has {length} bytes, and at most {max} are taken")]
    TooLarge { length: usize, max: usize },
    #[error("the body was not there within {0:?}")]
    SlowBody(Duration),
    #[error("the body ended early: {0}")]
    Broken(#[source] hyper::Error),
    #[error("too many bytes of requests are in flight; try again in a second")]
    Busy,
}

impl Refusal {
    fn status(&self) -> StatusCode {
        match self {
            Self::Path { .. } => StatusCode::NOT_FOUND,
            Self::Method => StatusCode::METHOD_NOT_ALLOWED,
            Self::Expectation => StatusCode::EXPECTATION_FAILED,
            Self::ContentType(_) => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::NoLength => StatusCode::LENGTH_REQUIRED,
            Self::Empty | Self::Broken(_) => StatusCode::BAD_REQUEST,
            Self::TooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
            Self::SlowBody(_) => StatusCode::REQUEST_TIMEOUT,
            Self::Busy => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    /// The rest of the request is unread: the connection cannot be used again.
    fn into_response(self) -> Response<Body> {
        let mut response = Answer::error(self.status(), &self.to_string()).into_response();
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        if matches!(self, Self::Method) {
            response.headers_mut().insert(ALLOW, HeaderValue::from_static("POST"));
        }
        response
    }
}

impl Answer {
    fn into_response(self) -> Response<Body> {
        let mut response = Response::new(Full::new(self.body));
        *response.status_mut() = self.status;
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if self.status == StatusCode::SERVICE_UNAVAILABLE {
            response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
        }
        response
    }
}
