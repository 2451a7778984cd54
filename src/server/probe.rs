//! Plain HTTP for the kubelet and Prometheus: `/healthz`, `/readyz`, `/metrics`.

use std::sync::Arc;

use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};
use prometheus::{Registry, TextEncoder};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::http::Body;
use super::{Bounds, Metrics, accept};

/// Connections at once: some kubelets and a few scrapers. The least recently used one is closed for another.
const CONNECTIONS: usize = 32;

/// Serves the probe on `listener` until `shutdown`.
pub async fn serve(listener: TcpListener, probe: Probe, metrics: Metrics, shutdown: CancellationToken) {
    let probe = Arc::new(probe);
    let bounds = Bounds { connections: CONNECTIONS, ..Bounds::default() };
    accept::run(listener, bounds, metrics, shutdown, move |stream, connection| {
        let probe = Arc::clone(&probe);
        async move {
            let answer = |request| std::future::ready(probe.answer(&request));
            connection.drive(stream, answer).await;
        }
    })
    .await;
}

/// Families in the text format of Prometheus. It must not block.
type Text = Box<dyn Fn() -> String + Send + Sync>;

/// What the probe tells.
pub struct Probe {
    registry: Registry,
    more: Vec<Text>,
    checks: Vec<(&'static str, Check)>,
}

/// A check of readiness: the reason, in one sentence, why not. It must not block.
type Check = Box<dyn Fn() -> Result<(), String> + Send + Sync>;

impl Probe {
    /// A probe that is always ready; `/metrics` shows `registry`.
    #[must_use]
    pub fn new(registry: Registry) -> Self {
        Self { registry, more: Vec::new(), checks: Vec::new() }
    }

    /// `/metrics` shows these families too, of which none may be in the registry.
    #[must_use]
    pub fn also(mut self, text: impl Fn() -> String + Send + Sync + 'static) -> Self {
        self.more.push(Box::new(text));
        self
    }

    /// Ready only while this holds too.
    #[must_use]
    pub fn check(mut self, name: &'static str, check: impl Fn() -> Result<(), String> + Send + Sync + 'static) -> Self {
        self.checks.push((name, Box::new(check)));
        self
    }

    fn answer(&self, request: &Request<Incoming>) -> Response<Body> {
        if ![Method::GET, Method::HEAD].contains(request.method()) {
            return text(StatusCode::METHOD_NOT_ALLOWED, "only GET is answered here\n".into());
        }
        match request.uri().path() {
            "/healthz" => text(StatusCode::OK, "ok\n".into()),
            "/readyz" => self.ready(),
            "/metrics" => self.metrics(),
            _ => text(StatusCode::NOT_FOUND, "there is /healthz, /readyz and /metrics\n".into()),
        }
    }

    /// One line a check; 503 if any fails.
    fn ready(&self) -> Response<Body> {
        let (mut status, mut lines) = (StatusCode::OK, String::new());
        for (name, check) in &self.checks {
            let state = check().err();
            if state.is_some() {
                status = StatusCode::SERVICE_UNAVAILABLE;
            }
            lines += &format!("{name}: {}\n", state.as_deref().unwrap_or("ok"));
        }
        text(status, lines)
    }

    fn metrics(&self) -> Response<Body> {
        match TextEncoder::new().encode_to_string(&self.registry.gather()) {
            Ok(metrics) => text(StatusCode::OK, self.more.iter().fold(metrics, |all, more| all + &more())),
            Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")),
        }
    }
}

fn text(status: StatusCode, body: String) -> Response<Body> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    // The text format of Prometheus; the kubelet does not care.
    let plain = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    response.headers_mut().insert(CONTENT_TYPE, plain);
    response
}
