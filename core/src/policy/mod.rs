//! A policy: what a team wants done for its StatefulSets, at each occasion.
//!
//! [`Policy`] is valid by construction: [`parse`] is the only way to make one from text, and it leaves no reference unresolved, no
//! bound unchecked and no key unread. What is kept here is what the rest of the product acts on.

mod approval;
mod hook;
mod in_force;
mod parse;
mod problem;
mod programs;
#[cfg(test)]
mod reference;
mod rule;
mod schema;
mod selector;
#[cfg(test)]
mod tests;
mod yaml;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

pub use approval::{Approval, Approvals, Full};
pub use guardian_hook::metric::MetricKind;
pub use guardian_hook::protocol::Program;
pub use hook::{Freeze, Held, Hook, Hooks, OnFailure, Position, Probe, Schedule, Target, Task, When};
pub use in_force::{ByNamespace, Policies, Revisions};
pub use parse::{digest, duration, parse};
pub use problem::{Invalid, PolicyError, Problem};
pub use rule::{Action, Amount, Budget, Condition, Growth, Resource, Rule, Stride, Threshold, Until, Usage};
pub use schema::json_schema;
pub use selector::{Requirement, Selector};
pub(crate) use yaml::nearest;

/// `apiVersion` of the policy document.
pub const API_VERSION: &str = "stateful-guardian.io/v1alpha1";
/// `kind` of the policy document.
pub const KIND: &str = "GuardianPolicy";

/// Bytes of one policy ConfigMap, keys and values together: a quarter of the API server's own limit for a ConfigMap (1 MiB), so that
/// a watch of all policies of 1,000 namespaces stays below 256 MiB in the worst case.
pub const MAX_POLICY_BYTES: usize = 256 * 1024;
/// Bytes of one script. The runner's protocol counts on it: a request of 1 MiB holds a script of this size with each byte escaped.
pub const MAX_SCRIPT_BYTES: usize = 64 * 1024;
/// Longest time out of a hook.
pub const MAX_TIMEOUT: Duration = Duration::from_secs(24 * 3600);
/// Most attempts beyond the first.
pub const MAX_RETRIES: u32 = 100;
/// Most rules of one policy: each is looked at whenever something about a set changes.
pub const MAX_RULES: usize = 200;
/// Most metrics of one policy. With the role they are 51 probes, which is fewer than one request of the runner may have
/// ([`MAX_PROBES`](guardian_hook::protocol::MAX_PROBES), 64), and their answers are at most 1.6 MiB together: see [`metric::MAX_OUTPUT`](crate::metric::MAX_OUTPUT).
pub const MAX_METRICS: usize = 50;
/// Time out of a hook that names none.
pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(30);
/// Longest wait of a pod for its `join` or `rejoin`, from the start of its container; then it is ready all the same. A controller answers within
/// a second, so nearly all of it is for the hook; liveness and readiness probes wait as long.
pub const READY_WITHIN: Duration = Duration::from_secs(60);
/// How long a preStop that asks why the pod is stopped waits for the answer, which takes an exec (55 ms) after the deletion was seen. Without a
/// controller it goes on with `Unknown`.
pub const REASON_WAIT: Duration = Duration::from_millis(500);
/// Pause before the second attempt of a hook that names none; it doubles with each further one.
pub const DEFAULT_BACKOFF: Duration = Duration::from_secs(5);

/// One team's policy.
#[derive(Clone, Debug, PartialEq)]
pub struct Policy {
    /// Name of its ConfigMap.
    pub name: String,
    /// Identity of its content: a SHA-256 over all keys and values, in hexadecimal digits. What is approved.
    pub digest: String,
    /// The digest's first 16 digits: enough to tell one revision of a policy from another, and short enough to be read.
    pub revision: String,
    /// Which StatefulSets of its namespace it guards.
    pub selector: Selector,
    /// Where hooks run; `None`: the first container of the template.
    pub container: Option<String>,
    /// Protection that needs no hook.
    pub protect: Protect,
    /// How our parts are fitted into the pod template.
    pub inject: Inject,
    /// Pods become ready only once this has run in them.
    pub ready_after: Option<ReadyAfter>,
    /// What runs, and when.
    pub hooks: Hooks,
    /// How the role of a pod is found out. Shared, as metrics are, with all that asks for it again and again.
    pub role: Option<Arc<Role>>,
    /// What is measured.
    pub metrics: Vec<Arc<Metric>>,
    /// Who asks role and metrics.
    pub collect: Collect,
    /// What is done when something is observed.
    pub rules: Vec<Rule>,
    /// Commands that rules, the clock and people run, by name.
    pub tasks: BTreeMap<String, Task>,
    /// Which Services send only to pods that are serving.
    pub traffic: Option<Traffic>,
    /// Each pod has a file that names all members of the set.
    pub members: bool,
    /// How the set is updated; `None`: as the StatefulSet says.
    pub update: Option<Update>,
    /// JSON paths of what was checked and is kept, but not acted on by this version. See [`Policy::warnings`].
    pub not_yet_active: Vec<String>,
}

/// Protection that needs no hook.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Protect {
    /// PriorityClass for the pods; the user's own wins unless [`Protect::overrides`].
    pub priority_class_name: Option<String>,
    /// `override`: what the user set in the template himself is replaced by what the policy says.
    pub overrides: bool,
    /// What disruptive acts must leave ready.
    pub quorum: Option<Quorum>,
    /// A PodDisruptionBudget from the quorum.
    pub disruption_budget: bool,
    /// A request that lowers the replicas below is denied.
    pub min_replicas: Option<u32>,
    /// What becomes of a request to delete the set.
    pub deletion: Deletion,
    /// Topology keys over which the pods are spread as far as possible.
    pub spread: Vec<String>,
}

/// Pods that must stay ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Quorum {
    /// More than half of the replicas.
    Majority,
    /// So many.
    Number(u32),
    /// So many of a hundred, rounded up; 1 to 100.
    Percent(u32),
}

impl Quorum {
    /// How many pods that is, of so many replicas. It may be more than there are.
    #[must_use]
    pub fn of(self, replicas: u64) -> u64 {
        match self {
            Self::Majority => replicas / 2 + 1,
            Self::Number(number) => number.into(),
            Self::Percent(percent) => replicas.saturating_mul(percent.into()).div_ceil(100),
        }
    }
}

/// What becomes of a request to delete the set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Deletion {
    /// It goes through.
    #[default]
    Allow,
    /// It is denied unless the set was marked for it before.
    Deny,
}

/// How our parts are fitted into the pod template.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Inject {
    /// Where our init containers stand.
    pub init_order: InitOrder,
    /// What becomes of the user's own preStop handler; `None`: chained, or replaced under [`Protect::overrides`].
    pub own_pre_stop: Option<OwnPreStop>,
}

/// Where our init containers stand among the user's.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum InitOrder {
    /// Before all others.
    #[default]
    First,
    /// After all others.
    Last,
    /// Right before the one of this name.
    Before(String),
    /// Right after the one of this name.
    After(String),
}

/// What becomes of the user's own preStop handler.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OwnPreStop {
    /// It stays, and the policy's preStop hook does not run.
    Keep,
    /// It runs after the policy's hook, where it is a command or a sleep; another kind stays as under [`OwnPreStop::Keep`].
    Chain,
    /// The policy's hook runs in its place.
    Replace,
}

/// What must have run in a pod before it becomes ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadyAfter {
    /// `join` or `rejoin`.
    Join,
}

/// How the role of a pod is found out: it prints a role, optionally a version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Role {
    /// What prints it.
    pub probe: Probe,
    /// How often.
    pub every: Duration,
}

/// A value of the application, measured by a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Metric {
    /// Its name for Prometheus, once in a policy.
    pub name: String,
    /// Does it only grow?
    pub kind: MetricKind,
    /// What it means.
    pub help: String,
    /// What prints it.
    pub probe: Probe,
    /// How often.
    pub every: Duration,
    /// Names of its labels, beside those of [`metric::OWN_LABELS`](crate::metric::OWN_LABELS).
    pub labels: Vec<String>,
    /// The role of the pods in which it is measured; `None`: in all.
    pub on: Option<String>,
}

/// Who asks the role and the metrics of a pod.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Collect {
    /// The controller, by an exec each time.
    #[default]
    Exec,
    /// A sidecar, where the pod has one.
    Agent,
}

/// Services that send only to pods that are serving.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Traffic {
    /// Their names; at least one.
    pub services: Vec<String>,
    /// Run in a pod that is taken out: ends the connections that it still has.
    pub drain: Option<Hook>,
}

/// A guarded update.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Update {
    /// The pods that come last: an ordinal or a role.
    pub last: Option<Target>,
    /// When updates may run; `None`: at any time.
    pub window: Option<Window>,
}

/// A time of the week.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Window {
    /// Its days: Monday is 0, and each at most once, in order. It begins on one of these.
    pub days: Vec<u8>,
    /// First minute of the day.
    pub start: u16,
    /// The minute that is not in it any more; not after `start` when it ends on the next day.
    pub end: u16,
    /// IANA time zone.
    pub time_zone: String,
}

impl Policy {
    /// What the controller runs in a running pod under this name.
    #[must_use]
    pub fn run_by_controller(&self, name: &str) -> Option<&Hook> {
        if let Some(task) = name.strip_prefix("tasks.") {
            return self.tasks.get(task).map(|task| &task.hook);
        }
        match name {
            "drain" => self.traffic.as_ref()?.drain.as_ref(),
            _ => self.hooks.started_by_controller(name),
        }
    }

    /// What its author must be told although it is in order: a warning for each path of [`Policy::not_yet_active`], and one for what
    /// waits for something of these.
    pub fn warnings(&self) -> impl Iterator<Item = String> {
        let waits = self.ready_after.filter(|_| self.hooks.join.is_none()).map(|ReadyAfter::Join| {
            let within = READY_WITHIN.as_secs();
            format!("without hooks.join nothing runs at the first start of a pod, so there readyAfter waits its {within} s")
        });
        let later = self.not_yet_active.iter();
        let later = later.map(|path| format!("NotYetActive: {path} is checked, and not acted on by this version"));
        later.chain(waits).chain(self.asked_by_exec_all_the_same())
    }

    /// What an agent cannot ask although the policy has one.
    fn asked_by_exec_all_the_same(&self) -> Vec<String> {
        if self.collect != Collect::Agent {
            return Vec::new();
        }
        let role = self.role.iter().map(|role| ("role".to_owned(), &role.probe));
        let metrics = self.metrics.iter().map(|metric| (format!("the metric {}", metric.name), &metric.probe));
        let elsewhere = role.chain(metrics).filter(|(_, probe)| probe.container.is_some() && probe.container != self.container);
        let elsewhere = elsewhere.map(|(what, _)| {
            format!("{what} has a container of its own, where it is asked by exec: collect: agent asks in `container`")
        });
        let uses = self.rules.iter().any(|rule| matches!(rule.when, Condition::Usage { .. }));
        let usage = "a sidecar does not see what the application uses: for rules on usage pods are asked by exec, also with collect: agent";
        elsewhere.chain(uses.then(|| usage.to_owned())).collect()
    }

    /// Does it guard a StatefulSet with these labels?
    #[must_use]
    pub fn selects(&self, labels: &BTreeMap<String, String>) -> bool {
        self.selector.matches(labels)
    }

    /// Of several policies of one namespace, the one that guards a set with these labels: the one that `named` names, else the first
    /// by name that selects it. The second value lists the others that select it too.
    pub fn choose<'p>(
        policies: impl IntoIterator<Item = &'p Policy>,
        named: Option<&str>,
        labels: &BTreeMap<String, String>,
    ) -> Option<(&'p Policy, Vec<&'p str>)> {
        let mut candidates: Vec<&Policy> =
            policies.into_iter().filter(|p| named.map_or_else(|| p.selects(labels), |name| p.name == name)).collect();
        candidates.sort_by(|a, b| a.name.cmp(&b.name));
        let (first, others) = candidates.split_first()?;
        Some((first, others.iter().map(|p| p.name.as_str()).collect()))
    }
}
