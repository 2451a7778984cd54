//! `guardian controller`.

use prometheus::Registry;
use tokio_util::sync::CancellationToken;

use super::process::{self, Flags, Probes, ProcessError, Repeats};
use crate::controller::{self, Bounds, Clock, Config, Samples};
use crate::server::probe::Probe;

/// Watch guarded pods, run hooks, record what was done
///
/// Several may run; the one that holds the Lease acts. Whoever loses it ends.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example, outside a pod:\n  guardian controller --identity \"$HOSTNAME\"")]
pub(super) struct Args {
    #[command(flatten)]
    flags: Flags,
    /// Names this process in the Lease and in Events
    #[arg(long, env = "GUARDIAN_IDENTITY", value_name = "NAME")]
    identity: String,
}

pub(super) fn run(args: &Args) -> Result<(), ProcessError> {
    process::run(&args.flags, Repeats::Caller, |client, shutdown| control(client, args, shutdown))
}

async fn control(client: kube::Client, args: &Args, shutdown: CancellationToken) -> Result<(), ProcessError> {
    let registry = Registry::new();
    let samples = Samples::new(Clock::system());
    let config = Config {
        identity: args.identity.clone(),
        namespace: args.flags.installation.clone(),
        bounds: Bounds::default(),
        clock: Clock::system(),
        samples: samples.clone(),
        exec: None,
    };
    let probe = Probe::new(registry.clone()).also(move || samples.text());
    let probes = Probes::bind(&args.flags, &registry)?;
    // Its end takes the probes with it; at a shutdown each ends in its own time: the Lease is let go, a probe is answered.
    let stop = shutdown.child_token();
    let control = async {
        let ended = controller::run(client, config, &registry, stop.clone()).await;
        stop.cancel();
        ended.map_err(|error| ProcessError::Ended(error.to_string()))
    };
    let (ended, ()) = tokio::join!(control, probes.serve(probe, stop.clone()));
    ended
}
