//! The policy document as it is written: typed, every key known, every value with its place in the text.
//!
//! These types are only what a YAML parser can check. [`super::parse`] turns them into a [`super::Policy`]. What is said of a field here is
//! what editors show and what the reference in `docs/policy.md` says: the JSON Schema is made from these types.

use std::borrow::Cow;
use std::collections::BTreeMap;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer};
use serde_saphyr::Location;

use super::{API_VERSION, KIND};

/// The JSON Schema of the document (draft 2020-12), for editors. It checks shapes; what it cannot say, such as that a name is declared,
/// [`super::parse`] does.
#[must_use]
pub fn json_schema() -> serde_json::Value {
    schemars::schema_for!(Document).to_value()
}

/// A value and where it stands.
#[derive(Debug)]
pub(super) struct Spanned<T> {
    pub(super) value: T,
    pub(super) referenced: Location,
}

/// A time: one or more of a number and a unit, such as 300ms, 30s, 5m or 1h30m.
#[derive(Debug, Deserialize)]
#[serde(transparent)]
pub(super) struct Time(pub(super) String);

/// A text that may look like a number.
#[derive(Debug, Deserialize)]
#[serde(transparent)]
pub(super) struct Scalar(pub(super) String);

/// What a team wants done for its StatefulSets.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
#[schemars(title = "GuardianPolicy")]
pub(super) struct Document {
    /// `stateful-guardian.io/v1alpha1`
    #[schemars(extend("const" = API_VERSION))]
    pub(super) api_version: Spanned<String>,
    /// `GuardianPolicy`
    #[schemars(extend("const" = KIND))]
    pub(super) kind: Spanned<String>,
    /// The StatefulSets of this namespace that the policy guards, by their labels; absent: all of them
    pub(super) selector: Option<LabelSelector>,
    /// Where hooks run; absent: the first container of the template
    pub(super) container: Option<Spanned<String>>,
    /// Protection that needs no hook
    pub(super) protect: Option<Protect>,
    /// How the guardian's parts are fitted into the pod template
    pub(super) inject: Option<Inject>,
    /// Pods become ready only once `join` or `rejoin` has run in them
    pub(super) ready_after: Option<Spanned<ReadyAfter>>,
    /// What runs, and when
    pub(super) hooks: Option<Hooks>,
    /// A command that prints the role of its pod, optionally with a version: `primary 17`
    pub(super) role: Option<Spanned<Role>>,
    /// Values of the application, measured by commands
    pub(super) metrics: Option<Vec<Spanned<Metric>>>,
    /// Who asks role and metrics. `exec` (the default): the controller, by a command in the pod each time. `agent`: a sidecar `guardian-agent` in each pod, which the controller and Prometheus read on port 9188. Hooks, tasks, `members` and rules on `usage` go on by exec
    pub(super) collect: Option<Collect>,
    /// What is done when something is observed; at most 200
    #[schemars(length(max = 200))]
    pub(super) rules: Option<Spanned<Vec<Spanned<Rule>>>>,
    /// Commands that rules, the clock and people run, by name
    pub(super) tasks: Option<BTreeMap<String, Spanned<Task>>>,
    /// Services that send only to pods that are serving
    pub(super) traffic: Option<Traffic>,
    /// `true`: `/guardian/members.json` in each pod names all members of the set, with address, role and state, and follows every change
    pub(super) members: Option<bool>,
    /// How the set is updated; absent: by the StatefulSet's own strategy
    pub(super) update: Option<Update>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct LabelSelector {
    /// Labels that must have exactly this value
    pub(super) match_labels: Option<BTreeMap<String, String>>,
    /// Requirements beyond equality
    pub(super) match_expressions: Option<Vec<Expression>>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct Expression {
    /// Key of the label
    pub(super) key: String,
    /// How its value is compared
    pub(super) operator: Spanned<Operator>,
    /// The values of `In` and `NotIn`
    pub(super) values: Option<Vec<String>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
pub(super) enum Operator {
    In,
    NotIn,
    Exists,
    DoesNotExist,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct Protect {
    /// PriorityClass of the pods. The set's own wins. One that does not exist, or begins with `system-`, is not written, and a warning says so
    pub(super) priority_class_name: Option<Spanned<String>>,
    /// `true`: the set's own `priorityClassName`, `terminationGracePeriodSeconds` and `preStop` give way to the policy's. Absent: they win, and a warning names each one kept
    #[serde(rename = "override")]
    pub(super) overrides: Option<bool>,
    /// What disruptive acts must leave ready: `majority`, a number of pods, or a percentage
    pub(super) quorum: Option<Spanned<Scalar>>,
    /// A PodDisruptionBudget `guardian-SET` that lets as many pods go at a time as `quorum` leaves, and always one. None where another one selects pods of the set
    pub(super) disruption_budget: Option<Spanned<bool>>,
    /// A request that lowers the replicas below is denied
    #[schemars(range(min = 1))]
    pub(super) min_replicas: Option<Spanned<u32>>,
    /// `deny`: a request to delete the set is denied unless an annotation allows it first
    pub(super) deletion: Option<Deletion>,
    /// Topology keys over which the pods are spread where that is possible (`topologySpreadConstraints` with `ScheduleAnyway`). The set's own win
    pub(super) spread: Option<Spanned<Vec<Spanned<String>>>>,
}

#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(super) enum Deletion {
    Deny,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct Inject {
    /// Where the guardian's init containers stand: `first` (the default), `last`, `before:NAME` or `after:NAME`
    #[schemars(regex(pattern = "^(first|last|(before|after):.+)$"))]
    pub(super) init_order: Option<Spanned<String>>,
    /// What becomes of the set's own `preStop` beside the policy's hook. `chain` (the default): it runs after the hook; an HTTP or TCP handler cannot, and is kept. `keep`: it stays, and the hook does not run. `replace` (the default under `protect.override`): the hook runs in its place
    pub(super) own_pre_stop: Option<OwnPreStop>,
}

#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(super) enum OwnPreStop {
    Keep,
    Chain,
    Replace,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(super) enum ReadyAfter {
    Join,
}

#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(super) enum Collect {
    Exec,
    Agent,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct Hooks {
    /// Runs in an init container before every start of the pod, with the application's image, environment and volumes
    pub(super) init: Option<Spanned<Hook>>,
    /// Runs in that init container when the set may have lost all its members; prints `<lineage> <integer>`
    pub(super) position: Option<Spanned<Position>>,
    /// Runs in the init container of the member with the highest position, before it starts
    pub(super) restart: Option<Spanned<Hook>>,
    /// Runs in one pod, the first unless its `target` says another, once in the life of the volumes, when all pods are ready; with `when: running`, or under `readyAfter`, when all run. Nothing joins before
    pub(super) bootstrap: Option<Spanned<Hook>>,
    /// Runs in a new pod, at the first start of an ordinal on a new volume, once the cluster is there. Not in the pod in which `bootstrap` ran
    pub(super) join: Option<Spanned<Hook>>,
    /// Runs in the pod that came back, once for each start of its container that follows a failure, a restart or a replacement
    pub(super) rejoin: Option<Spanned<Hook>>,
    /// Runs in the pod before every stop; the set's own `preStop` follows it
    pub(super) pre_stop: Option<Spanned<Hook>>,
    /// Runs in the pod that leaves at a scale-in, afterwards on a peer if it did not. With it, a direct scale-in by more than one is denied
    pub(super) leave: Option<Spanned<Hook>>,
    /// Runs in the pod that holds the role of its `target`, before that pod is evicted, updated or left. An eviction waits until the role has moved, for 100 s at most
    pub(super) switchover: Option<Spanned<Hook>>,
    /// Runs in each pod before its update
    pub(super) before_update: Option<Spanned<Hook>>,
    /// Runs in each pod after its update
    pub(super) after_update: Option<Spanned<Hook>>,
    /// Runs when the whole set goes down on purpose
    pub(super) shutdown: Option<Spanned<Hook>>,
    /// Runs after a crash or a lost node, when no `preStop` has run, before the `rejoin` of the pod: in the pod itself, or with `target: any` on a ready peer if there is one
    pub(super) post_mortem: Option<Spanned<Hook>>,
    /// Runs before a snapshot of the volumes
    pub(super) freeze: Option<Spanned<Freeze>>,
    /// Runs after it
    pub(super) thaw: Option<Spanned<Hook>>,
    /// Runs on a ready peer when a node is lost: success is proof that the old pod cannot write
    pub(super) fence: Option<Spanned<Hook>>,
}

/// The keys that all hooks and tasks have, and some of its own.
macro_rules! hook {
    ($(#[$doc:meta])* $name:ident { $($(#[$key_doc:meta])* $key:ident: $type:ty,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Deserialize, JsonSchema)]
        #[serde(deny_unknown_fields, rename_all = "camelCase")]
        pub(super) struct $name {
            /// A key of this ConfigMap. Its first line names the interpreter: `#!/bin/sh`
            pub(super) script: Option<Spanned<String>>,
            /// An argument list. There is no implicit shell
            pub(super) command: Option<Spanned<Vec<String>>>,
            /// `self`, `any`, `all`, `ordinal:N` or `role:NAME`; absent: the pod that the occasion is about
            #[schemars(regex(pattern = "^(self|any|all|ordinal:[0-9]+|role:.+)$"))]
            pub(super) target: Option<Spanned<String>>,
            /// Where it runs; absent: the policy's container
            pub(super) container: Option<Spanned<String>>,
            /// What must hold of the pod before: `running` (the default, but for `bootstrap`) or `ready`
            pub(super) when: Option<Spanned<When>>,
            /// After this long it is killed, with everything that it started; 30s
            pub(super) timeout: Option<Spanned<Time>>,
            /// Attempts beyond the first; 0
            #[schemars(range(max = 100))]
            pub(super) retries: Option<Spanned<u32>>,
            /// Pause before the second attempt; doubles with each further one; 5s
            pub(super) backoff: Option<Spanned<Time>>,
            /// May an attempt whose outcome is unknown be made again? Absent: `true` for `rejoin` and `join`, else `false`
            pub(super) idempotent: Option<Spanned<bool>>,
            /// `continue` (the default): it is recorded and life goes on. `block`: an `init` hook keeps the pod from starting. `recreate`: the pod is made anew
            pub(super) on_failure: Option<Spanned<OnFailure>>,
            /// Added to its environment
            pub(super) env: Option<BTreeMap<String, Spanned<String>>>,
            $($(#[$key_doc])* pub(super) $key: Option<$type>,)*
        }
    };
}

/// Takes the keys that all hooks have out of one that has more.
macro_rules! into_hook {
    ($($name:ident),+) => {
        $(
            impl $name {
                /// The keys that all have; they are taken out.
                pub(super) fn hook(&mut self) -> Hook {
                    Hook {
                        script: self.script.take(),
                        command: self.command.take(),
                        target: self.target.take(),
                        container: self.container.take(),
                        when: self.when.take(),
                        timeout: self.timeout.take(),
                        retries: self.retries.take(),
                        backoff: self.backoff.take(),
                        idempotent: self.idempotent.take(),
                        on_failure: self.on_failure.take(),
                        env: self.env.take(),
                    }
                }
            }
        )+
    };
}

hook! {
    Hook {}
}

hook! {
    Position {
        /// Run while the pod waits: success says that the cluster is up
        alive: Spanned<Probe>,
    }
}

hook! {
    Freeze {
        /// `true`: the process keeps the freeze, and thaws by ending
        hold: Spanned<bool>,
        /// The line of its output that says that the freeze is in force
        ready: Spanned<String>,
        /// Longest freeze; 60s
        max: Spanned<Time>,
    }
}

hook! {
    Task {
        /// When it runs by itself: minute, hour, day of month, month, day of week
        schedule: Spanned<String>,
        /// IANA time zone of the schedule; UTC
        time_zone: Spanned<String>,
    }
}

into_hook!(Position, Freeze, Task);

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(super) enum When {
    Running,
    Ready,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(super) enum OnFailure {
    Continue,
    Block,
    Recreate,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct Probe {
    /// A key of this ConfigMap
    pub(super) script: Option<Spanned<String>>,
    /// An argument list
    pub(super) command: Option<Spanned<Vec<String>>>,
    /// Where it runs; absent: the policy's container
    pub(super) container: Option<Spanned<String>>,
    /// After this long it is killed; 30s
    pub(super) timeout: Option<Spanned<Time>>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct Role {
    /// A key of this ConfigMap
    pub(super) script: Option<Spanned<String>>,
    /// An argument list
    pub(super) command: Option<Spanned<Vec<String>>>,
    /// Where it runs; absent: the policy's container
    pub(super) container: Option<Spanned<String>>,
    /// After this long it is killed; 30s
    pub(super) timeout: Option<Spanned<Time>>,
    /// How often it runs; 5s
    pub(super) every: Option<Spanned<Time>>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct Metric {
    /// Its name for Prometheus
    pub(super) name: Spanned<String>,
    /// `gauge` or `counter`
    #[serde(rename = "type")]
    pub(super) kind: MetricKind,
    /// What it means
    pub(super) help: Option<String>,
    /// A key of this ConfigMap
    pub(super) script: Option<Spanned<String>>,
    /// An argument list
    pub(super) command: Option<Spanned<Vec<String>>>,
    /// Where it runs; absent: the policy's container
    pub(super) container: Option<Spanned<String>>,
    /// After this long it is killed; 30s
    pub(super) timeout: Option<Spanned<Time>>,
    /// How often it runs; 15s
    pub(super) every: Option<Spanned<Time>>,
    /// Names of its labels, beside `namespace`, `set` and `pod`, which every metric has
    pub(super) labels: Option<Vec<Spanned<String>>>,
    /// In which pods: `role:NAME`, those that have this role; absent: in all
    #[schemars(regex(pattern = "^role:.+$"))]
    pub(super) on: Option<Spanned<String>>,
}

#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(super) enum MetricKind {
    Gauge,
    Counter,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct Rule {
    /// Its name, once in a policy
    pub(super) name: Spanned<String>,
    /// What sets it off: a `usage`, a `metric` or a `cause`
    pub(super) when: Spanned<Condition>,
    /// What ends it; absent: that `when` holds no more
    pub(super) until: Option<Spanned<Until>>,
    /// What is done, in order
    #[serde(rename = "do")]
    pub(super) actions: Spanned<Vec<Spanned<Action>>>,
    /// Tasks that are run once it has ended
    pub(super) undo: Option<Vec<Undo>>,
    /// How far `resize` in `do` raises the limits of the policy's container
    pub(super) resize: Option<Spanned<Resize>>,
    /// How many pods it may act on, and how often
    pub(super) budget: Option<Budget>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct Condition {
    /// What a container uses: `cpu`, `memory`, `throttling` (by its CPU limit) or `disk` (of its data volume)
    pub(super) usage: Option<Spanned<Usage>>,
    /// A metric of this policy
    pub(super) metric: Option<Spanned<String>>,
    /// A pod failed for one of these reasons, such as `Crash` or `OOMKilled`
    pub(super) cause: Option<Spanned<Vec<Spanned<String>>>>,
    /// More than this: for a usage a percentage of the limit (of `disk`: of the volume, of `throttling`: of the time) or a quantity such as `512Mi`, for a metric a number
    pub(super) above: Option<Spanned<Scalar>>,
    /// Less than this
    pub(super) below: Option<Spanned<Scalar>>,
    /// Of a counter: what it grows by in a second, on the average over this time, 30s to 15m
    pub(super) rate: Option<Spanned<Time>>,
    /// `true`: the metric has no value, because its command fails or prints none
    pub(super) absent: Option<Spanned<bool>>,
    /// For so long without a break; absent: at once
    #[serde(rename = "for")]
    pub(super) during: Option<Spanned<Time>>,
    /// How often it must have failed; 1
    #[schemars(range(min = 1, max = 5))]
    pub(super) times: Option<Spanned<u32>>,
    /// Within this time; 10m
    pub(super) within: Option<Spanned<Time>>,
}

#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(super) enum Usage {
    Cpu,
    Memory,
    Throttling,
    Disk,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct Until {
    /// More than this
    pub(super) above: Option<Spanned<Scalar>>,
    /// Less than this
    pub(super) below: Option<Spanned<Scalar>>,
    /// For so long without a break; absent: at once
    #[serde(rename = "for")]
    pub(super) during: Option<Spanned<Time>>,
}

/// `shed`, `rejoin`, `recreate`, `resize`, `switchover`, `freeze`, or `run` with the name of a task
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(super) enum Action {
    Shed,
    Rejoin,
    Recreate,
    Resize,
    Switchover,
    Freeze,
    Run(Spanned<String>),
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct Undo {
    /// Name of a task
    pub(super) run: Spanned<String>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct Resize {
    /// Its CPU limit
    pub(super) cpu: Option<Spanned<Growth>>,
    /// Its memory limit
    pub(super) memory: Option<Spanned<Growth>>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct Growth {
    /// How much more each time: a whole percentage of the limit, or a quantity such as `256Mi`; 25%
    pub(super) by: Option<Spanned<Scalar>>,
    /// Never beyond this, such as `2Gi`
    pub(super) max: Spanned<Scalar>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct Budget {
    /// At most so many pods,
    #[schemars(range(min = 1))]
    pub(super) pods: Spanned<u32>,
    /// in so much time
    pub(super) every: Spanned<Time>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct Traffic {
    /// Names of the Services
    pub(super) services: Spanned<Vec<Spanned<String>>>,
    /// Runs in a pod that is taken out: ends the connections that it still has
    pub(super) drain: Option<Spanned<Hook>>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct Update {
    /// `guarded`
    #[expect(dead_code, reason = "it has one value, and must be written")]
    pub(super) strategy: Strategy,
    /// The pods that come last: `role:NAME` or `ordinal:N`
    #[schemars(regex(pattern = "^(ordinal:[0-9]+|role:.+)$"))]
    pub(super) last: Option<Spanned<String>>,
    /// When updates may run: days, times and a time zone, such as `Sat 02:00-05:00 UTC`
    pub(super) window: Option<Spanned<String>>,
}

#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(super) enum Strategy {
    Guarded,
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Spanned<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let serde_saphyr::Spanned { value, referenced, .. } = serde_saphyr::Spanned::deserialize(deserializer)?;
        Ok(Self { value, referenced })
    }
}

/// Where a value stands is no part of the document.
impl<T: JsonSchema> JsonSchema for Spanned<T> {
    fn inline_schema() -> bool {
        T::inline_schema()
    }

    fn schema_name() -> Cow<'static, str> {
        T::schema_name()
    }

    fn schema_id() -> Cow<'static, str> {
        T::schema_id()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        T::json_schema(generator)
    }
}

impl JsonSchema for Time {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Time".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "string", "pattern": "^([0-9]+(ms|s|m|h))+$"})
    }
}

impl JsonSchema for Scalar {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Scalar".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": ["string", "number"]})
    }
}
