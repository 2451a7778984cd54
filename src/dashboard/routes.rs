//! Who may have which page: only whoever knows the secret, which is part of every address, and only under a name of this machine, so that a
//! page of another site whose name was made to point here gets nothing.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{Path, Request, State};
use axum::http::header::{self, HeaderName, HeaderValue};
use axum::http::{HeaderMap, StatusCode};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use tokio::sync::{Semaphore, watch};
use tokio_util::sync::CancellationToken;

use super::live;
use super::page::{self, Page};
use super::view::View;
use crate::controller::Clock;

/// Pages that are kept current at once. Each is made anew when something changes, at most once a second: 16 pages a second.
pub(super) const VIEWERS: usize = 16;

/// Somebody who asks before everything was read waits so long at most.
const FIRST: Duration = Duration::from_secs(5);

/// What a caller must know: 128 random bits, as text that an address can hold.
#[derive(Clone)]
pub(crate) struct Secret(String);

/// The machine has no random numbers.
#[derive(Debug, thiserror::Error)]
#[error("no random numbers for the secret in the address")]
pub(crate) struct SecretError;

/// What all handlers share.
#[derive(Clone)]
pub(super) struct Site {
    pub(super) secret: Secret,
    pub(super) views: watch::Receiver<Arc<View>>,
    pub(super) viewers: Arc<Semaphore>,
    pub(super) clock: Clock,
    pub(super) shutdown: CancellationToken,
    /// Names under which it may be called; none is checked before the port is known.
    hosts: Vec<String>,
}

impl Secret {
    /// A new one.
    pub(crate) fn new() -> Result<Self, SecretError> {
        let mut bytes = [0; 16];
        rustls::crypto::ring::default_provider().secure_random.fill(&mut bytes).map_err(|_| SecretError)?;
        Ok(Self(bytes.iter().map(|byte| format!("{byte:02x}")).collect()))
    }

    /// The text.
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    /// In a time that does not tell how much of it is right.
    fn is(&self, other: &str) -> bool {
        let differs = self.0.bytes().zip(other.bytes()).fold(0, |differs, (a, b)| differs | (a ^ b));
        self.0.len() == other.len() && differs == 0
    }
}

impl Site {
    pub(super) fn new(secret: Secret, views: watch::Receiver<Arc<View>>, clock: Clock, shutdown: CancellationToken) -> Self {
        Self { secret, views, viewers: Arc::new(Semaphore::new(VIEWERS)), clock, shutdown, hosts: Vec::new() }
    }

    /// The pages, as they are served on this port.
    pub(super) fn router(mut self, port: u16) -> Router {
        self.hosts = ["127.0.0.1", "localhost"].map(|name| format!("{name}:{port}")).to_vec();
        Router::new()
            .route("/{secret}/", get(start))
            .route("/{secret}/sets/{namespace}/{name}", get(set))
            .route("/{secret}/live/", get(live_start))
            .route("/{secret}/live/sets/{namespace}/{name}", get(live_set))
            .route("/{secret}/icon.svg", get(icon))
            .layer(middleware::from_fn_with_state(self.clone(), admit))
            .with_state(self)
    }

    /// Where everything begins.
    fn base(&self) -> String {
        format!("/{}/", self.secret.as_str())
    }

    /// A page as of now. Right after the start, as soon as everything was read once.
    async fn whole(&self, page: &Page) -> Response {
        let mut views = self.views.clone();
        let _ = tokio::time::timeout(FIRST, views.wait_for(|view| view.settled)).await;
        let view = Arc::clone(&views.borrow());
        let Ok(nonce) = Secret::new() else { return StatusCode::INTERNAL_SERVER_ERROR.into_response() };
        let now = self.clock.now();
        let status = if page.is_there(&view) { StatusCode::OK } else { StatusCode::NOT_FOUND };
        let html = page::whole(&view, page, &self.base(), nonce.as_str(), now);
        let nonce = nonce.as_str();
        let policy = format!(
            "default-src 'none'; script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'; img-src 'self'; connect-src 'self'; \
             base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
        );
        let kind = (header::CONTENT_TYPE, "text/html; charset=utf-8".to_owned());
        (status, [kind, (header::CONTENT_SECURITY_POLICY, policy)], html).into_response()
    }
}

async fn start(State(site): State<Site>) -> Response {
    site.whole(&Page::Start).await
}

async fn set(State(site): State<Site>, Path((_, namespace, name)): Path<(String, String, String)>) -> Response {
    site.whole(&Page::Set { namespace, name }).await
}

async fn live_start(State(site): State<Site>) -> Response {
    live::stream(&site, Page::Start, site.base())
}

async fn live_set(State(site): State<Site>, Path((_, namespace, name)): Path<(String, String, String)>) -> Response {
    live::stream(&site, Page::Set { namespace, name }, site.base())
}

async fn icon() -> Response {
    ([(header::CONTENT_TYPE, "image/svg+xml")], page::ICON).into_response()
}

/// What every answer says: keep it nowhere, frame it nowhere, tell nobody where it came from.
const ALWAYS: [(HeaderName, &str); 6] = [
    (header::CACHE_CONTROL, "no-store"),
    (header::X_FRAME_OPTIONS, "DENY"),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::REFERRER_POLICY, "no-referrer"),
    (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
];

/// Lets through whoever asks under a name of this machine and knows the secret.
async fn admit(State(site): State<Site>, request: Request, next: Next) -> Response {
    let secret = request.uri().path().split('/').nth(1).unwrap_or_default();
    let mut response = if !site.is_called(request.headers()) {
        let said = "this is a dashboard of somebody on this machine: ask under the address that it printed\n";
        (StatusCode::MISDIRECTED_REQUEST, said).into_response()
    } else if !site.secret.is(secret) {
        (StatusCode::NOT_FOUND, "not found: `guardian dashboard` prints the whole address\n").into_response()
    } else {
        next.run(request).await
    };
    for (name, value) in ALWAYS {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    let policy = HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'");
    response.headers_mut().entry(header::CONTENT_SECURITY_POLICY).or_insert(policy);
    response
}

impl Site {
    fn is_called(&self, headers: &HeaderMap) -> bool {
        let host = headers.get(header::HOST).and_then(|host| host.to_str().ok());
        host.is_some_and(|host| self.hosts.iter().any(|own| own.eq_ignore_ascii_case(host)))
    }
}
