//! `guardian webhook`.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use guardian_core::admission::Settings;
use prometheus::Registry;
use tokio_util::sync::CancellationToken;

use super::process::{self, Flags, Probes, ProcessError, Repeats};
use crate::audit::Audit;
use crate::server::clients::Clients;
use crate::server::tls::{self, Certificates, Oldest};
use crate::server::{self, Bounds, probe::Probe};
use crate::store::Store;
use crate::webhook::Webhook;

/// After SIGTERM new requests still come until every API server has seen that this endpoint is gone; they are served.
const LINGER: Duration = Duration::from_secs(3);

/// Serve the admission webhook: rewrite StatefulSets, check policies
#[derive(Debug, clap::Args)]
#[command(after_help = "Example, outside a pod, with a certificate made by hand:
  guardian webhook --certificates ./certs --listen 127.0.0.1:8443 --image stateful-guardian:dev

Standard output carries the audit trail, one JSON line a decision; standard error the log.")]
pub(super) struct Args {
    #[command(flatten)]
    flags: Flags,
    /// Address to serve HTTPS on
    #[arg(long, default_value = "0.0.0.0:8443", value_name = "ADDRESS")]
    listen: SocketAddr,
    /// Directory with tls.crt and tls.key, read again when they change
    #[arg(long, default_value = "/certificates", value_name = "DIRECTORY")]
    certificates: PathBuf,
    /// DNS name that the certificate must have; by default the Service's
    #[arg(long, value_name = "NAME")]
    server_name: Option<String>,
    /// Serve only clients with a certificate of a CA in this file, read again when it changes
    #[arg(long, value_name = "FILE")]
    client_ca: Option<PathBuf>,
    /// And of those only the ones with this common name or DNS name; may be repeated
    #[arg(long, value_name = "NAME", requires = "client_ca")]
    client_name: Vec<String>,
    /// Accept TLS 1.2 too
    #[arg(long)]
    tls12: bool,
    /// Image of the init container that installs the runner
    #[arg(long, env = "GUARDIAN_IMAGE")]
    image: String,
}

pub(super) fn run(args: &Args) -> Result<(), ProcessError> {
    process::run(&args.flags, Repeats::Client, |client, shutdown| serve(client, args, shutdown))
}

async fn serve(client: kube::Client, args: &Args, shutdown: CancellationToken) -> Result<(), ProcessError> {
    let registry = Registry::new();
    let probes = Probes::bind(&args.flags, &registry)?;
    let store = Store::new(client, &args.flags.installation, &registry)?;
    let audit = Audit::start(std::io::stdout(), &registry)?;
    let settings = Settings { image: args.image.clone() };
    let handler = Arc::new(Webhook::new(Arc::clone(&store), settings, audit, process::now, &registry)?);

    let name = args.server_name.clone().unwrap_or_else(|| format!("guardian-webhook.{}.svc", args.flags.installation));
    let certificates = Certificates::new(&args.certificates, &[name], &registry).map_err(|e| ProcessError::Tls(e.to_string()))?;
    let oldest = if args.tls12 { Oldest::Tls12 } else { Oldest::Tls13 };
    let clients = args.client_ca.as_ref().map(|file| Clients::new(file, &args.client_name));
    let tls = tls::config(Arc::clone(&certificates), oldest, clients.clone()).map_err(|e| ProcessError::Tls(e.to_string()))?;
    let listener = server::bind(args.listen)?;
    tracing::info!(listen = %args.listen, image = args.image, "serving admission");

    let probe = {
        let (store, certificates, shutdown) = (Arc::clone(&store), Arc::clone(&certificates), shutdown.clone());
        let clients = clients.clone();
        Probe::new(registry.clone())
            .check("store", move || store.ready())
            .check("certificate", move || certificates.ready(process::now()))
            .check("clients", move || clients.as_ref().map_or(Ok(()), |clients| clients.ready()))
            .check("running", move || if shutdown.is_cancelled() { Err("shutting down".to_owned()) } else { Ok(()) })
    };
    let metrics = server::Metrics::new(&registry, "webhook")?;
    // Until the endpoint is out of every API server's sight, all parts go on.
    let stop = CancellationToken::new();
    let linger = async {
        shutdown.cancelled().await;
        tokio::time::sleep(LINGER).await;
        stop.cancel();
    };
    let clients = async {
        if let Some(clients) = clients {
            clients.watch(tls::POLL, stop.clone()).await;
        }
    };
    tokio::join!(
        linger,
        clients,
        store.watch(stop.clone()),
        store.sweep(process::now, stop.clone()),
        certificates.watch(tls::POLL, process::now, stop.clone()),
        server::serve(listener, tls, handler, Bounds::default(), metrics, stop.clone()),
        probes.serve(probe, stop.clone()),
    );
    Ok(())
}
