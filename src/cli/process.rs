//! What the long-running subcommands share: the runtime, the log, the signals, the client, the probes.

use std::future::Future;
use std::net::SocketAddr;

use kube::Client;
use prometheus::Registry;
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

/// Runs `body` to its end, or until SIGTERM or SIGINT cancels the token that it is given.
pub(super) fn run<F>(flags: &Flags, body: impl FnOnce(Client, CancellationToken) -> F) -> Result<(), ProcessError>
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
        let client = Client::try_default().await.map_err(|e| ProcessError::Client(Box::new(e)))?;
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

/// Serves the probes and the metrics until `shutdown`.
pub(super) async fn probes(
    flags: &Flags,
    probe: probe::Probe,
    registry: &Registry,
    shutdown: CancellationToken,
) -> Result<(), ProcessError> {
    let listener = server::bind(flags.probe_listen)?;
    let metrics = server::Metrics::new(registry, "probe")?;
    probe::serve(listener, probe, metrics, shutdown).await;
    Ok(())
}

/// The time of day.
pub(super) fn now() -> jiff::Timestamp {
    Clock::system().now()
}
