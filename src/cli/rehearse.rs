//! `guardian rehearse`: what a policy would do when something happens, without a cluster.

mod asked;
mod report;

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use guardian_core::policy::Policy;
use guardian_core::rehearse::{self, Asked, Fails, Rehearsal, Report, Scenario, Script, Unfit};
use guardian_core::standing::{self, Standing, StandingError, State};
use serde_json::Value;

use super::inject::{self, InjectError, NAMESPACE};
use super::manifests::{Document, ManifestError};
use super::{cluster, diff};
use asked::{Scenarios, fails, lasts, role, time};

/// Play what happens to a StatefulSet under its policy, without a cluster: what runs where, when and why
///
/// The decisions are the controller's own, and so are the answers of the webhook; the pods, their kubelets and the clock are simulated. No hook is
/// executed: each takes 0.5 s and ends well, unless --fail or --hook-time says otherwise. What else is taken for granted is told at the end.
#[derive(Debug, clap::Args)]
#[command(after_help = "Exit codes: 0 nothing is left to do, 1 it cannot be rehearsed, 2 called wrongly,
3 something is left: a hook that failed, something that is held or still going on, a pod
that is not ready.

Examples:
  guardian rehearse -f examples/redis --scenario crash --pod 1
  guardian rehearse -f examples/redis --scenario crash --fail rejoin=2 --hook-time rejoin=20s
  guardian rehearse -f set.yaml --policy policy.yaml --scenario drain --role primary=0
  guardian rehearse -f set.yaml --policy policy.yaml --scenario rule:memory-pressure
  helm template redis ./chart | guardian rehearse -f - --policy policy.yaml --scenario first-start")]
pub(super) struct Args {
    /// The StatefulSet, where there are several among the manifests
    set: Option<String>,
    /// File or directory with manifests, `-` for standard input; may be given several times
    #[arg(short = 'f', long = "filename", value_name = "PATH", required = true)]
    files: Vec<PathBuf>,
    /// File with the policy ConfigMap; without it, policies among the manifests are used
    #[arg(long, value_name = "PATH")]
    policy: Vec<PathBuf>,
    /// What happens; `rule:NAME`: what this rule of the policy looks at is beyond its bound for a time
    #[arg(long, value_parser = Scenarios)]
    scenario: Scenario,
    /// To this pod, by its ordinal or name; may be given several times. By default the last one; of a zone the upper half of all; of a drain the one
    /// with the role that `switchover` moves
    #[arg(long = "pod", value_name = "N|POD")]
    pods: Vec<String>,
    /// Replicas at the beginning, in place of the manifest's
    #[arg(long, value_name = "N")]
    replicas: Option<u32>,
    /// Replicas after `scale-out` and `scale-in`; by default one more, or one less
    #[arg(long, value_name = "N")]
    to: Option<u32>,
    /// The pods that have this role at the beginning; may be given several times. By default the first pod has the one that `switchover` moves
    #[arg(long = "role", value_name = "ROLE=N[,N]", value_parser = role)]
    roles: Vec<(String, Vec<u32>)>,
    /// This hook or task fails the first N times that it runs; without a number, always
    #[arg(long, value_name = "HOOK[=N]", value_parser = fails)]
    fail: Vec<(String, Fails)>,
    /// This hook or task takes so long
    #[arg(long, value_name = "HOOK=DURATION", value_parser = time)]
    hook_time: Vec<(String, Duration)>,
    /// The pods fail so often (`crash`, `oom`, `liveness`)
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=i64::from(rehearse::MAX_TIMES)))]
    times: Option<u32>,
    /// The time between two failures; by default 1m
    #[arg(long, value_name = "DURATION", value_parser = lasts, requires = "times")]
    every: Option<Duration>,
    /// What a rule looks at is beyond its bound for so long; by default 5m
    #[arg(long, value_name = "DURATION", value_parser = lasts)]
    lasts: Option<Duration>,
    /// How to print it
    #[arg(short = 'o', long, value_enum, default_value_t = Output::Text)]
    output: Output,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Output {
    /// What happens in the order of time, and what is left, for people
    Text,
    /// One JSON document
    Json,
    /// One YAML document
    Yaml,
}

#[derive(Debug, thiserror::Error)]
pub(super) enum RehearseError {
    #[error(transparent)]
    Manifests(#[from] InjectError),
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    #[error("no StatefulSet of apps/v1 among the manifests")]
    NoSet,
    #[error("there is no StatefulSet {name} among the manifests: there is {}", .there.join(", "))]
    NotThisSet { name: String, there: Vec<String> },
    #[error("there are several StatefulSets among the manifests: say which, {}", .0.join(" or "))]
    SeveralSets(Vec<String>),
    #[error("StatefulSet {0}: {1}")]
    Set(String, #[source] StandingError),
    #[error("no policy guards StatefulSet {set}: {because}")]
    NotGuarded { set: String, because: String },
    #[error(transparent)]
    Unfit(#[from] Unfit),
    #[error("cannot write: {0}")]
    Output(#[from] io::Error),
}

impl RehearseError {
    /// Was it called wrongly?
    pub(super) fn is_usage(&self) -> bool {
        match self {
            Self::NotThisSet { .. } | Self::SeveralSets(_) => true,
            Self::Unfit(unfit) => unfit.is_usage(),
            _ => false,
        }
    }
}

/// The exit code where something is left that a person would have to look at.
const LEFT: u8 = 3;

pub(super) fn run(args: &Args) -> Result<u8, RehearseError> {
    let documents = inject::read_all(&args.files)?;
    let report = rehearse(args, &documents)?;
    let mut out = anstream::AutoStream::auto(io::stdout().lock());
    match args.output {
        Output::Text => report::text(&mut out, &report)?,
        Output::Json => report::json(&mut out, &report)?,
        Output::Yaml => report::yaml(&mut out, &report)?,
    }
    Ok(if report.is_quiet() { 0 } else { LEFT })
}

fn rehearse(args: &Args, documents: &[Document]) -> Result<Report, RehearseError> {
    let set = the_set(args.set.as_deref(), documents)?;
    let name = cluster::name(set);
    let policy_documents = inject::read_all(&args.policy)?;
    let policies = inject::policies(if args.policy.is_empty() { documents } else { &policy_documents })?;
    let snapshot = standing::snapshot(NAMESPACE, policies.clone());
    let settings = cluster::settings(None, &Value::Null);
    let standing = standing::of_new(set, NAMESPACE, &snapshot, &settings);
    let standing = standing.map_err(|error| RehearseError::Set(name.to_owned(), error))?;
    for warning in &standing.warnings {
        anstream::eprintln!("Warning: {name}: {warning}");
    }
    let of_kind = |kind: &str| -> Vec<Value> {
        let values = documents.iter().map(|document| &document.value);
        values.filter(|value| value.get("kind").and_then(Value::as_str) == Some(kind)).cloned().collect()
    };
    let rehearsal = Rehearsal {
        set: &standing.after,
        namespace: set.pointer("/metadata/namespace").and_then(Value::as_str).unwrap_or(NAMESPACE),
        policy: guard(name, &standing, policies.values())?,
        services: &of_kind("Service"),
        budgets: &of_kind("PodDisruptionBudget"),
    };
    Ok(rehearse::rehearse(&rehearsal, &args.asked())?)
}

/// The only one, or the one of this name.
fn the_set<'d>(name: Option<&str>, documents: &'d [Document]) -> Result<&'d Value, RehearseError> {
    let sets: Vec<&Value> = documents.iter().map(|document| &document.value).filter(|value| inject::is_set(value)).collect();
    let names = || sets.iter().map(|set| cluster::name(set).to_owned()).collect();
    match (name, sets.as_slice()) {
        (_, []) => Err(RehearseError::NoSet),
        (Some(name), _) => {
            let found = sets.iter().find(|set| cluster::name(set) == name);
            found.copied().ok_or_else(|| RehearseError::NotThisSet { name: name.to_owned(), there: names() })
        }
        (None, [set]) => Ok(set),
        (None, _) => Err(RehearseError::SeveralSets(names())),
    }
}

/// The policy that guards the set.
fn guard<'p>(
    set: &str,
    standing: &Standing,
    mut policies: impl Iterator<Item = &'p Arc<Policy>> + Clone,
) -> Result<&'p Policy, RehearseError> {
    let not = |because: String| RehearseError::NotGuarded { set: set.to_owned(), because };
    let Some((name, _)) = &standing.policy else {
        let names: Vec<&str> = policies.map(|policy| policy.name.as_str()).collect();
        return Err(not(format!("compare its labels with the selector of {}", names.join(", "))));
    };
    if standing.state == State::NotApplicable {
        return Err(not(standing.because()));
    }
    policies.find(|policy| policy.name == *name).map(AsRef::as_ref).ok_or_else(|| not(standing.because()))
}

impl Args {
    fn asked(&self) -> Asked {
        Asked {
            scenario: self.scenario.clone(),
            pods: self.pods.clone(),
            replicas: self.replicas,
            to: self.to,
            roles: self.roles.clone(),
            script: Script { fails: self.fail.iter().cloned().collect(), times: self.hook_time.iter().cloned().collect() },
            times: self.times,
            every: self.every,
            lasts: self.lasts,
        }
    }
}
