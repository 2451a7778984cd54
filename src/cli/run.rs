//! `guardian run`: a task or a hook of the policy, run on demand.
//!
//! read the set, its policy and its pods → find what is asked for, and where → claim it in the ledger → start it in the pod, under the caller's own
//! rights → pass on what it writes → write its end into the ledger. The controller does the last when this process is gone before.

mod printer;
mod report;
mod wait;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt as _;
use guardian_core::ledger::State;
use guardian_core::lifecycle::command::{self, Asked, Command, Refused};
use guardian_core::lifecycle::{Observed, Step};
use guardian_core::policy::{self, MAX_TIMEOUT, Policy};
use guardian_hook::protocol::Outcome;
use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

use super::cluster::{self, Cluster, ClusterError};
use super::ledger::{Held, HeldError};
use super::process;
use crate::controller::{Guard, Order, PodExec, Sight, prepared};
use printer::Printer;
use report::{Done, End};
use wait::Signals;

/// How often the ledger is read again because somebody else was first: each time somebody was, so a busy set has moved on by as many writes.
const TRIES: u32 = 5;

/// Run a task or a hook of the policy now, and pass on its output and exit code
///
/// In the pod that its `target` names, or in the one of --pod; with `target: all` in one pod after the other, up to the first failure. It runs in the
/// container as every hook does, with GUARDIAN_REASON=Requested, once: `retries` do not count. It is recorded who ran what (`guardian history`).
/// While it runs nothing else of the guardian runs in that pod; a pod in which something runs already is refused, and so is a set on hold.
///
/// An interrupted `guardian run` stops nothing: the command goes on in its pod, for as long as its time out lets it.
///
/// You need the right to exec into the pods, to read the set, its pods and policies and the approvals, and to write the ledger, a ConfigMap of the
/// namespace.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Exit codes: that of the command; 128 + N when signal N ended it, 124 at its time out, 126 when it cannot be executed, 127 when there
is no such program; 130 and 143 when `guardian run` itself was interrupted; 1 when it failed otherwise, 2 when it was called wrongly. A line on
standard error that begins with `guardian:` is ours, and -o json tells them apart.

Examples:
  guardian run -n shop redis nightly
  guardian run -n shop redis rejoin --pod redis-1
  guardian run -n shop redis dump --timeout 1h > dump.rdb
  guardian run -n shop redis nightly --dry-run"
)]
pub(super) struct Args {
    /// The StatefulSet
    set: String,
    /// A task or a hook of its policy; `tasks.NAME` or `hooks.NAME` where there are both
    #[arg(value_name = "TASK|HOOK")]
    name: String,
    /// In this pod, whatever its target says
    #[arg(long)]
    pod: Option<String>,
    /// Namespace; by default the kubeconfig's
    #[arg(short, long)]
    namespace: Option<String>,
    /// In place of the policy's time out
    #[arg(long, value_name = "DURATION", value_parser = timeout)]
    timeout: Option<Duration>,
    /// Say what would run and where; start and write nothing
    #[arg(long)]
    dry_run: bool,
    /// How to print it
    #[arg(short = 'o', long, value_enum, default_value_t = Output::Text)]
    output: Output,
    /// Namespace that the guardian itself runs in
    #[arg(long, env = "GUARDIAN_INSTALLATION", default_value = "stateful-guardian", value_name = "NAMESPACE")]
    installation: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Output {
    /// What the command writes, as it writes it
    Text,
    /// One JSON document, at the end
    Json,
    /// One YAML document, at the end
    Yaml,
}

#[derive(Debug, thiserror::Error)]
pub(super) enum RunError {
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    #[error(transparent)]
    Ledger(#[from] HeldError),
    #[error(transparent)]
    Refused(#[from] Refused),
    #[error("namespace {0} is not enabled, so nothing of the guardian runs there: `guardian enable {0}` enables it")]
    NotEnabled(String),
    #[error("no policy guards StatefulSet {0}: `guardian status` tells which set is guarded by what")]
    NoPolicy(String),
    #[error("{0}")]
    NotInForce(String),
    #[error("what the API server sent of {0} is not what it should be: {1}")]
    Unreadable(String, serde_json::Error),
    #[error("signals cannot be watched for: {0}")]
    Signals(io::Error),
    #[error("cannot write: {0}")]
    Output(#[from] io::Error),
}

impl RunError {
    /// Was it called wrongly?
    pub(super) fn is_usage(&self) -> bool {
        matches!(self, Self::Refused(refused) if refused.is_usage())
    }
}

/// The exit code to end with.
pub(super) fn run(args: &Args) -> Result<u8, RunError> {
    cluster::run(async |cluster| {
        let mut owner = Owner::new(args, cluster).await?;
        let ordinals = command::pods(owner.sight.observed(), &owner.policy, &owner.command, args.pod.as_deref())?;
        if args.dry_run {
            return owner.rehearse(&ordinals).await;
        }
        let mut done = Vec::new();
        let stopped = owner.run_all(&ordinals, &mut done).await;
        // What has run is told, whatever came after it.
        report::print(&owner, &done)?;
        Ok(stopped?.unwrap_or_else(|| done.last().map_or(1, Done::exit_code)))
    })
}

/// Whoever asks, and all that it is asked on.
struct Owner<'a> {
    args: &'a Args,
    cluster: Cluster,
    namespace: String,
    who: String,
    /// How far the API server's clock is ahead of ours.
    ahead: SignedDuration,
    sight: Sight,
    policy: Arc<Policy>,
    command: Command,
}

impl<'a> Owner<'a> {
    async fn new(args: &'a Args, cluster: Cluster) -> Result<Self, RunError> {
        let namespace = cluster.namespace_or_default(args.namespace.as_deref());
        let sight = look(args, &cluster, &namespace).await?;
        let approvals = cluster.known_approvals(&args.installation).await?;
        let (policies, _) = cluster.stored_policies(&namespace, approvals).await?;
        let policy = match sight.guard(&policies) {
            Guard::Policy(policy, _) => policy,
            Guard::Nobody => return Err(RunError::NoPolicy(args.set.clone())),
            Guard::Waits(why) | Guard::Invalid(why) => return Err(RunError::NotInForce(why)),
        };
        let command = command::find(&policy, &args.name)?;
        let who = cluster.whoami().await.unwrap_or_else(|| "somebody".to_owned());
        let ahead = cluster.ahead().await;
        Ok(Self { args, namespace, who, ahead, sight, policy, command, cluster })
    }

    fn observed(&self) -> &Observed {
        self.sight.observed()
    }

    fn now(&self) -> Timestamp {
        process::now().saturating_add(self.ahead).unwrap_or(Timestamp::MAX)
    }

    /// One pod after the other, up to the first failure, or until a signal comes in between: then the exit code that says so.
    async fn run_all(&mut self, ordinals: &[u32], done: &mut Vec<Done>) -> Result<Option<u8>, RunError> {
        let mut signals = Signals::new()?;
        for ordinal in ordinals {
            if let Some(number) = signals.recv().now_or_never() {
                return Ok(Some(128 + number));
            }
            if !done.is_empty() {
                // What was known of this pod is as old as the runs before it.
                self.sight = look(self.args, &self.cluster, &self.namespace).await?;
            }
            let ended = self.carry_out(*ordinal, ordinals.len() > 1, &mut signals).await?;
            let goes_on = ended.exit() == Some(0);
            done.push(ended);
            if !goes_on {
                break;
            }
        }
        Ok(None)
    }

    async fn carry_out(&self, ordinal: u32, is_one_of_several: bool, signals: &mut Signals) -> Result<Done, RunError> {
        let (state, run_id) = self.claim(ordinal).await?;
        let order = self.order(&state, &run_id)?;
        let mut printer = Printer::new(self.args.output == Output::Text, &self.command.name, &order, is_one_of_several);
        let end = wait::wait(&PodExec::new(self.cluster.client.clone()), &order, &mut printer, signals).await;
        let unwritten = match &end {
            End::Ended(outcome) => self.close(&run_id, outcome).await.err(),
            End::Lost(_) | End::Interrupted(_) => None,
        };
        printer.end(&end);
        let done = Done { order, end };
        report::complain(self, &done, unwritten.as_ref());
        Ok(done)
    }

    fn asked(&self) -> Asked<'_> {
        Asked { command: &self.command, who: &self.who, timeout: self.args.timeout, now: self.now() }
    }

    /// Writes down that it begins, before it does.
    async fn claim(&self, ordinal: u32) -> Result<(State, String), RunError> {
        for tries_left in (0..TRIES).rev() {
            let (held, run_id) = self.claimed(ordinal).await?;
            match held.write(&self.cluster, false).await {
                Err(HeldError::Conflict(_)) if tries_left > 0 => {}
                written => return Ok((written?.state, run_id)),
            }
        }
        Err(HeldError::Conflict(self.args.set.clone()).into())
    }

    /// The ledger with the claim in it, which is not written.
    async fn claimed(&self, ordinal: u32) -> Result<(Held, String), RunError> {
        let observed = self.observed();
        let mut held = Held::read(&self.cluster, &self.namespace, &self.args.set, &observed.set.uid).await?;
        let step = command::claim(observed, &self.policy, &held.ledger.state, ordinal, &self.asked())?;
        step.apply(&mut held.ledger);
        let run_id = step.starts().unwrap_or_default().to_owned();
        Ok((held, run_id))
    }

    fn order(&self, state: &State, run_id: &str) -> Result<Order, RunError> {
        let order = prepared(self.observed(), &self.policy, state, run_id, &self.command.hook);
        let mut order = order.ok_or_else(|| Refused::NotThere(run_id.to_owned()))?;
        order.request.stream = self.args.output == Output::Text;
        Ok(order)
    }

    /// Writes down how it ended, unless the controller has done so.
    async fn close(&self, run_id: &str, outcome: &Outcome) -> Result<(), RunError> {
        let observed = self.observed();
        for tries_left in (0..TRIES).rev() {
            let mut held = Held::read(&self.cluster, &self.namespace, &self.args.set, &observed.set.uid).await?;
            let step: Option<Step> = command::close(observed, &held.ledger.state, run_id, outcome, self.now());
            let Some(step) = step else { return Ok(()) };
            step.apply(&mut held.ledger);
            match held.write(&self.cluster, false).await {
                Err(HeldError::Conflict(_)) if tries_left > 0 => {}
                written => return written.map(drop).map_err(RunError::from),
            }
        }
        Ok(())
    }

    /// Says what would run and where, if nothing is in its way.
    async fn rehearse(&self, ordinals: &[u32]) -> Result<u8, RunError> {
        let mut orders = Vec::new();
        for ordinal in ordinals {
            let (held, run_id) = self.claimed(*ordinal).await?;
            orders.push(self.order(&held.ledger.state, &run_id)?);
        }
        report::rehearsed(self, &orders)?;
        Ok(0)
    }
}

/// The set as it is now, in a namespace that is enabled.
async fn look(args: &Args, cluster: &Cluster, namespace: &str) -> Result<Sight, RunError> {
    let place = cluster.place(namespace).await?;
    if !place.enabled {
        return Err(RunError::NotEnabled(namespace.to_owned()));
    }
    let set: Value = cluster.set(namespace, &args.set).await?;
    let pods = cluster.guarded_pods(namespace).await?;
    let sight = Sight::of(namespace, place.hold.as_deref(), &set, pods);
    sight.map_err(|error| RunError::Unreadable(format!("StatefulSet {} and its pods", args.set), error))
}

fn timeout(text: &str) -> Result<Duration, String> {
    match policy::duration(text) {
        Some(time) if time.is_zero() || time > MAX_TIMEOUT => Err("must be more than nothing, and at most 24h".to_owned()),
        Some(time) => Ok(time),
        None => Err("no duration: write a number and a unit, such as 300ms, 30s, 5m or 1h30m".to_owned()),
    }
}
