//! `guardian certs`.

use jiff::SignedDuration;
use prometheus::Registry;
use tokio_util::sync::CancellationToken;
use webhook_certs::{Config, Lives, Published};

use super::process::{self, Flags, Probes, ProcessError, Repeats};
use crate::server::probe::Probe;

/// Make the webhook's certificate, keep it in a Secret, tell the API server whom to trust
///
/// Renews the leaf and the CA before they expire; the old CA stays trusted until nothing presents a leaf of it any more.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  guardian certs                  # goes on for ever, as the Deployment guardian-certs does
  guardian certs --once           # one pass, for a pipeline
  guardian certs --leaf-life 720h --ca-life 4320h")]
pub(super) struct Args {
    #[command(flatten)]
    flags: Flags,
    /// Make one pass and end
    #[arg(long)]
    once: bool,
    /// Secret that holds CA and leaf
    #[arg(long, default_value = "guardian-webhook-certificates", value_name = "NAME")]
    secret: String,
    /// Service that the certificate is for
    #[arg(long, default_value = "guardian-webhook", value_name = "NAME")]
    service: String,
    /// The MutatingWebhookConfiguration and ValidatingWebhookConfiguration whose caBundle is kept
    #[arg(long, default_value = "stateful-guardian", value_name = "NAME")]
    webhooks: String,
    /// Life of the certificate, renewed at two thirds of it. A third must be longer than a Secret's volume lags: a minute
    #[arg(long, default_value = "2160h", value_name = "DURATION")]
    leaf_life: SignedDuration,
    /// Life of the CA, at least three times that of the certificate
    #[arg(long, default_value = "8760h", value_name = "DURATION")]
    ca_life: SignedDuration,
    /// From the publication of a new CA to the first certificate of it
    #[arg(long, default_value = "10m", value_name = "DURATION")]
    settle: SignedDuration,
}

pub(super) fn run(args: &Args) -> Result<(), ProcessError> {
    process::run(&args.flags, Repeats::Client, |client, shutdown| keep(client, args, shutdown))
}

async fn keep(client: kube::Client, args: &Args, shutdown: CancellationToken) -> Result<(), ProcessError> {
    let config = Config {
        namespace: args.flags.installation.clone(),
        secret: args.secret.clone(),
        service: args.service.clone(),
        mutating: args.webhooks.clone(),
        validating: args.webhooks.clone(),
        lives: Lives { ca: args.ca_life, leaf: args.leaf_life, settle: args.settle },
    };
    config.lives.check().map_err(|e| ProcessError::Ended(e.to_string()))?;
    if args.once {
        let pass =
            webhook_certs::ensure_once(client, config, process::now()).await.map_err(|e| ProcessError::Ended(e.to_string()))?;
        let missing = [(pass.mutating, "mutating"), (pass.validating, "validating")];
        if let Some((_, which)) = missing.into_iter().find(|(published, _)| *published == Published::Missing) {
            let name = &args.webhooks;
            return Err(ProcessError::Ended(format!(
                "there is no {which} webhook configuration {name}: install the manifests first"
            )));
        }
        tracing::info!(not_after = %pass.not_after, renewed = ?pass.renewed, "the certificate is in order");
        return Ok(());
    }
    let registry = Registry::new();
    let probe = Probe::new(registry.clone());
    let probes = Probes::bind(&args.flags, &registry)?;
    tokio::join!(webhook_certs::run(client, config, process::now, shutdown.clone()), probes.serve(probe, shutdown.clone()),);
    Ok(())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: Args,
    }

    #[test]
    fn the_lives_that_help_shows_are_the_librarys_own() {
        let Line { args } = Line::parse_from(["certs"]);
        let Lives { ca, leaf, settle } = Lives::default();
        assert_eq!((args.ca_life, args.leaf_life, args.settle), (ca, leaf, settle));
    }
}
