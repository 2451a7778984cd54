//! What the long-running subcommands share: the runtime, the log, the signals, the client, the probes.

use std::future::Future;
use std::net::SocketAddr;

use kube::{Client, Config};
use prometheus::Registry;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;

use crate::controller::Clock;
use crate::server::{self, BindError, probe};

/// The most threads that work, however many processors a node has: each may hold the tree of a review.
const THREADS: usize = 4;

/// Flags of every long-running subcommand.
#[derive(Debug, clap::Args)]
pub(super) struct Flags {
    /// Address for /healthz, /readyz and /metrics, plain HTTP
    #[arg(long, default_value = "0.0.0.0:8080", value_name = "ADDRESS")]
    pub(super) probe_listen: SocketAddr,
    /// Namespace that the guardian itself runs in
    #[arg(long, env = "GUARDIAN_INSTALLATION", default_value = "stateful-guardian", value_name = "NAMESPACE")]
    pub(super) installation: String,
    /// What is logged: error, warn, info, debug, trace, or a filter by module
    #[arg(long, env = "GUARDIAN_LOG", default_value = "info", value_name = "FILTER")]
    log: String,
}

/// Why a process could not start or go on.
#[derive(Debug, thiserror::Error)]
pub(super) enum ProcessError {
    #[error("the log filter is not one: {0}")]
    Filter(#[from] tracing_subscriber::filter::ParseError),
    #[error("no runtime: {0}")]
    Runtime(#[source] std::io::Error),
    #[error("no way to the API server: {0}")]
    Client(#[source] Box<dyn std::error::Error + Send + Sync>),
    #[error(transparent)]
    Bind(#[from] BindError),
    #[error("a metric cannot be registered: {0}")]
    Metrics(#[from] prometheus::Error),
    #[error("{0}")]
    Tls(String),
    #[error("{0}")]
    Ended(String),
}

/// Who comes back to what an API server that is busy has refused (429, 503, 504).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Repeats {
    /// kube's client, up to 15 times, within the time that the caller has for it.
    Client,
    /// Whoever called: he is told at once, and for how long he is to stay away. A refusal by a PodDisruptionBudget looks the same, and is an answer.
    Caller,
}

/// Runs `body` to its end, or until SIGTERM or SIGINT cancels the token that it is given.
pub(super) fn run<F>(
    flags: &Flags,
    repeats: Repeats,
    body: impl FnOnce(Client, CancellationToken) -> F,
) -> Result<(), ProcessError>
where
    F: Future<Output = Result<(), ProcessError>>,
{
    let filter = EnvFilter::try_new(&flags.log)?;
    tracing_subscriber::fmt().json().flatten_event(true).with_env_filter(filter).with_writer(std::io::stderr).init();
    let threads = std::thread::available_parallelism().map_or(1, |processors| processors.get().min(THREADS));
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(threads)
        .enable_all()
        .build()
        .map_err(ProcessError::Runtime)?;
    runtime.block_on(async {
        let config = Config::infer().await.map_err(|e| ProcessError::Client(Box::new(e)))?;
        let client = client(config, repeats)?;
        let shutdown = CancellationToken::new();
        let mut terminate = signal(SignalKind::terminate()).map_err(ProcessError::Runtime)?;
        let mut interrupt = signal(SignalKind::interrupt()).map_err(ProcessError::Runtime)?;
        let body = body(client, shutdown.clone());
        tokio::pin!(body);
        tokio::select! {
            result = &mut body => return result,
            _ = terminate.recv() => tracing::info!("SIGTERM: shutting down"),
            _ = interrupt.recv() => tracing::info!("SIGINT: shutting down"),
        }
        shutdown.cancel();
        body.await
    })
}

fn client(mut config: Config, repeats: Repeats) -> Result<Client, ProcessError> {
    config.default_retry = repeats == Repeats::Client;
    Client::try_from(config).map_err(|e| ProcessError::Client(Box::new(e)))
}

/// The probes and the metrics. Their port is taken before anything else is begun, so that a process that cannot have it ends and says so.
pub(super) struct Probes {
    listener: TcpListener,
    metrics: server::Metrics,
}

impl Probes {
    /// # Errors
    /// When the address is taken, or a metric is registered already.
    pub(super) fn bind(flags: &Flags, registry: &Registry) -> Result<Self, ProcessError> {
        Ok(Self { listener: server::bind(flags.probe_listen)?, metrics: server::Metrics::new(registry, "probe")? })
    }

    /// Serves them until `shutdown`.
    pub(super) async fn serve(self, probe: probe::Probe, shutdown: CancellationToken) {
        probe::serve(self.listener, probe, self.metrics, shutdown).await;
    }
}

/// The time of day.
pub(super) fn now() -> jiff::Timestamp {
    Clock::system().now()
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::Pod;
    use kube::Api;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    /// An API server that refuses everything, as one that is busy does; how often it was asked.
    async fn refuse(listener: TcpListener, asked: &std::cell::Cell<u32>) {
        let body =
            r#"{"kind":"Status","status":"Failure","reason":"TooManyRequests","code":429,"details":{"retryAfterSeconds":30}}"#;
        let answer = format!(
            "HTTP/1.1 429 Too Many Requests\r\nContent-Type: application/json\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            asked.set(asked.get() + 1);
            let _ = stream.read(&mut [0; 4096]).await;
            stream.write_all(answer.as_bytes()).await.unwrap();
        }
    }

    #[tokio::test]
    async fn the_controller_hears_a_refusal_at_once_and_how_long_to_stay_away() {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let asked = std::cell::Cell::new(0);
        let client = client(Config::new(url.parse().unwrap()), Repeats::Caller).unwrap();
        let pods: Api<Pod> = Api::namespaced(client, "shop");
        let error = tokio::select! {
            error = pods.get("redis-0") => error.unwrap_err(),
            () = refuse(listener, &asked) => unreachable!(),
        };
        let kube::Error::Api(status) = error else { panic!("{error:?}") };
        assert_eq!((status.code, status.details.unwrap().retry_after_seconds, asked.get()), (429, 30, 1));
    }
}
