//! `guardian dashboard`.

use std::io::{self, Write as _};
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::cluster::{self, Cluster, ClusterError};
use crate::controller::Clock;
use crate::dashboard::{self, Config, Scope, Secret, SecretError};

/// Serve a web page on this machine that shows the sets as `status` and `history` do, and follows what happens
///
/// Read only, with your own rights: what you may not read is not shown, and a notice says so. The address that is printed has a secret in it:
/// whoever has it sees what you see, as long as this runs. It is served on 127.0.0.1 alone, until Ctrl-C.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  guardian dashboard -n shop
  guardian dashboard -A --port 8090
  ssh -L 8090:127.0.0.1:8090 jump-host guardian dashboard -n shop --port 8090")]
pub(super) struct Args {
    /// Namespace; by default the kubeconfig's
    #[arg(short, long)]
    namespace: Option<String>,
    /// Every enabled namespace
    #[arg(short = 'A', long, conflicts_with = "namespace")]
    all_namespaces: bool,
    /// Port on 127.0.0.1; 0 is one that is free
    #[arg(long, default_value_t = 0)]
    port: u16,
    /// How often the controller's metrics are read, in seconds; the last 60 readings are kept
    #[arg(long, default_value_t = 15, value_parser = clap::value_parser!(u64).range(1..=60), value_name = "SECONDS")]
    every: u64,
    /// Namespace that the guardian itself runs in
    #[arg(long, env = "GUARDIAN_INSTALLATION", default_value = "stateful-guardian", value_name = "NAMESPACE")]
    installation: String,
}

#[derive(Debug, thiserror::Error)]
pub(super) enum DashboardError {
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    #[error("cannot listen on {address}: {error}; --port 0 takes a port that is free")]
    Listen { address: SocketAddr, error: io::Error },
    #[error("cannot watch for signals: {0}")]
    Signal(#[source] io::Error),
    #[error(transparent)]
    Secret(#[from] SecretError),
    #[error("cannot write: {0}")]
    Output(#[from] io::Error),
}

pub(super) fn run(args: &Args) -> Result<(), DashboardError> {
    cluster::run(async |cluster| serve(args, cluster).await)
}

async fn serve(args: &Args, cluster: Cluster) -> Result<(), DashboardError> {
    let mut interrupted = signal(SignalKind::interrupt()).map_err(DashboardError::Signal)?;
    let mut terminated = signal(SignalKind::terminate()).map_err(DashboardError::Signal)?;
    let scope = scope(args, &cluster).await?;
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, args.port));
    let listener = TcpListener::bind(address).await.map_err(|error| DashboardError::Listen { address, error })?;
    let secret = Secret::new()?;
    let mut out = io::stdout().lock();
    writeln!(out, "http://{}/{}/", listener.local_addr()?, secret.as_str())?;
    out.flush()?;
    let config =
        Config { scope, installation: args.installation.clone(), every: Duration::from_secs(args.every), clock: Clock::system() };
    let shutdown = CancellationToken::new();
    let serving = dashboard::run(cluster.client, config, listener, secret, shutdown.clone());
    let ending = async {
        tokio::select! { _ = interrupted.recv() => {} _ = terminated.recv() => {} }
        shutdown.cancel();
    };
    tokio::join!(serving, ending);
    Ok(())
}

/// What is shown. A namespace that is not there is a slip of the pen; one that may not be read is not.
async fn scope(args: &Args, cluster: &Cluster) -> Result<Scope, DashboardError> {
    if args.all_namespaces {
        return Ok(Scope::Enabled);
    }
    let namespace = cluster.namespace_or_default(args.namespace.as_deref());
    match cluster.place(&namespace).await {
        Ok(_) => {}
        Err(error) if error.code() == Some(403) => {}
        Err(error) => return Err(error.into()),
    }
    Ok(Scope::Namespace(namespace))
}
