//! What is known of one set at one moment: Kubernetes' side of it, and the runs that this process has at hand.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use guardian_hook::protocol::{Outcome, Refusal, RunResult};
use jiff::Timestamp;
use serde_json::Value;

use super::budget::Budget;
use super::gauge::Gauge;
use super::readiness::Toggles;
use super::resources::{Resizing, Resources};
use super::traffic::{Service, ShedRequest};
use crate::ledger::Start;
use crate::role::Witness;

/// One StatefulSet, its pods, and the runs at hand.
#[derive(Clone, Debug, PartialEq)]
pub struct Observed {
    /// Namespace of the set.
    pub namespace: String,
    /// The set itself.
    pub set: Set,
    /// Its pods by ordinal: those whose controller it is, guarded, and there.
    pub pods: BTreeMap<u32, Pod>,
    /// What was last seen of pods that went away, by ordinal. A restarted controller has forgotten it.
    pub departed: BTreeMap<u32, Departed>,
    /// Its volume claims, by ordinal: the first claim of each pod, where the set has claims.
    pub volumes: BTreeMap<u32, Volume>,
    /// What this process has heard of their roles, by ordinal.
    pub roles: BTreeMap<u32, Witness>,
    /// What the rules of its policy look at, by `RULE/POD UID`.
    pub gauges: BTreeMap<String, Gauge>,
    /// Since when this process watches.
    pub watched: Timestamp,
    /// The evictions of its pods that wait until a role was handed over.
    pub hand_overs: Vec<HandOver>,
    /// The PodDisruptionBudgets of the namespace that select pods of it, or are ours for it.
    pub budgets: Vec<Budget>,
    /// The Services of the namespace that select pods of it.
    pub services: Vec<Service>,
    /// Ids of the runs that this process is carrying out.
    pub running: BTreeSet<String>,
    /// How the runs ended that this process carried out, by id; kept until the ledger has it.
    pub ends: BTreeMap<String, RunEnd>,
    /// What the API server has said to acts of open episodes that it refuses for good, by their ids, as this process heard it.
    pub refused: BTreeMap<String, String>,
}

/// An eviction that the webhook keeps waiting, as its Lease tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HandOver {
    /// Name of the Lease.
    pub lease: String,
    /// `metadata.uid` of the Lease.
    pub uid: String,
    /// `metadata.resourceVersion` of the Lease.
    pub version: String,
    /// Name of the pod.
    pub pod: String,
    /// `metadata.uid` of the pod.
    pub pod_uid: String,
    /// When the eviction was first asked for.
    pub began: Timestamp,
}

/// A StatefulSet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Set {
    /// `metadata.name`.
    pub name: String,
    /// `metadata.uid`.
    pub uid: String,
    /// `metadata.creationTimestamp`.
    pub created: Timestamp,
    /// It was never changed since it was made: `metadata.generation` is 1.
    pub unchanged: bool,
    /// It has volume claims.
    pub has_volumes: bool,
    /// Where its containers mount the first of these that they mount, by their names.
    pub data: BTreeMap<String, String>,
    /// `spec.serviceName`, empty when it has none.
    pub service: String,
    /// The ordinals that its pods have: `spec.replicas` of them, from `spec.ordinals.start`.
    pub ordinals: Range<u32>,
    /// `spec.selector`.
    pub selector: Value,
    /// Its template has the label `stateful-guardian.io/serving`.
    pub serves: bool,
    /// The reason given by the annotation `stateful-guardian.io/hold` of the set, else of the namespace.
    pub hold: Option<String>,
}

/// A volume claim.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Volume {
    /// `metadata.name`.
    pub claim: String,
    /// `metadata.uid`.
    pub uid: String,
    /// `metadata.creationTimestamp`.
    pub created: Timestamp,
    /// It has the mark that the guardian leaves: it holds the data of a member of this set.
    pub is_member: bool,
}

/// A pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pod {
    /// `metadata.name`.
    pub name: String,
    /// `metadata.uid`.
    pub uid: String,
    /// `metadata.resourceVersion`: another one after each change.
    pub version: String,
    /// `metadata.creationTimestamp`.
    pub created: Timestamp,
    /// Label `controller-revision-hash`, empty when it has none.
    pub revision: String,
    /// `status.podIP`.
    pub ip: Option<String>,
    /// The condition `Ready`.
    pub ready: bool,
    /// How often that has changed lately; `None`: it has not, while anybody watched.
    pub toggles: Option<Toggles>,
    /// `metadata.deletionTimestamp`: it is being deleted, and by then it should have stopped (the API server adds the grace period).
    pub deleted: Option<Timestamp>,
    /// Where it runs; `None`: nowhere yet, or on a node that is not known.
    pub node: Option<Node>,
    /// Label `stateful-guardian.io/role`.
    pub role: Option<String>,
    /// Label `stateful-guardian.io/serving`: whether its value is `true`.
    pub serving: Option<bool>,
    /// Annotation `stateful-guardian.io/shed`, where it can be read.
    pub shed: Option<ShedRequest>,
    /// `spec.containers[0].name`.
    pub first_container: String,
    /// `status.containerStatuses` by name.
    pub containers: BTreeMap<String, Container>,
    /// Whether its sidecar runs that asks role and metrics; `None`: it has none.
    pub agent: Option<bool>,
    /// What its kubelet says of a resize that is not done yet.
    pub resize: Option<Resizing>,
}

/// The node of a pod.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Node {
    /// `metadata.name`.
    pub name: String,
    /// `status.nodeInfo.bootID`: another one after each start of the machine. Empty where it is not told.
    pub boot: String,
    /// Since when nobody hears of it: `lastTransitionTime` of its condition `Ready`, while that is `Unknown`, which is what the node
    /// controller makes of it then.
    pub silent_since: Option<Timestamp>,
}

/// One of `status.containerStatuses`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Container {
    /// `containerID`; empty as long as it never ran. It stays that of the last run while the container waits for its next.
    pub id: String,
    /// `state.running.startedAt`; `None` when it is not running.
    pub running_since: Option<Timestamp>,
    /// `restartCount`.
    pub restarts: u32,
    /// `lastState.terminated`: how the run before this one ended.
    pub last: Option<Terminated>,
    /// What it may use.
    pub resources: Resources,
}

/// `ContainerStateTerminated`, as far as it is evidence.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Terminated {
    /// The kubelet's or the runtime's word: `OOMKilled`, `Error`, `Completed`, `StartError`, `ContainerStatusUnknown`.
    pub reason: String,
    /// Exit code, 128 + signal after a signal.
    pub exit_code: i32,
    /// The signal, where the runtime tells.
    pub signal: Option<i32>,
    /// `startedAt`.
    pub began: Option<Timestamp>,
    /// The kubelet has ended it because a probe of it failed, as an Event tells.
    pub by_probe: bool,
}

/// What was last seen of a pod that is going or gone.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Departed {
    /// `metadata.uid`.
    pub uid: String,
    /// The reason of its true condition `DisruptionTarget` (KEP-3329).
    pub disruption: Option<String>,
    /// `status.reason`: `Evicted` when the kubelet gave it up.
    pub reason: Option<String>,
    /// Nobody heard of its node when it was seen to go.
    pub node_lost: bool,
}

/// How a run ended, as this process saw it.
#[derive(Clone, Debug, PartialEq)]
pub enum RunEnd {
    /// The runner's word.
    Outcome(Box<Outcome>),
    /// No word from the runner: the hook may have ended, be going on, or never have been started. Asking again under the same id tells.
    Lost {
        /// When this process first tried to reach the runner.
        since: Timestamp,
        /// When it gave up, this time.
        at: Timestamp,
        /// The API server did not let us: asking again soon is of no use.
        denied: bool,
        /// What went wrong.
        why: String,
    },
}

impl Observed {
    /// The DNS name of the pod with this ordinal: it resolves in every pod of the cluster, whatever its domain is. Without a governing Service
    /// there is none, and this is the pod's own name.
    #[must_use]
    pub fn dns_name(&self, ordinal: u32) -> String {
        let set = &self.set;
        match set.service.as_str() {
            "" => format!("{}-{ordinal}", set.name),
            service => format!("{}-{ordinal}.{service}.{}.svc", set.name, self.namespace),
        }
    }

    /// The ordinal of one of its pods.
    #[must_use]
    pub fn ordinal_of(&self, pod: &Pod) -> Option<u32> {
        self.pods.iter().find(|(_, other)| other.uid == pod.uid).map(|(ordinal, _)| *ordinal)
    }
}

impl RunEnd {
    /// What the runner answered, asked at `since` for the first time and `now` for the last.
    #[must_use]
    pub fn answer(outcome: Outcome, since: Timestamp, now: Timestamp) -> Self {
        match &outcome.result {
            RunResult::Refused { why: Refusal::StillRunning } => {
                Self::Lost { since, at: now, denied: false, why: "the runner was still at it after its time out".to_owned() }
            }
            _ => Self::Outcome(Box::new(outcome)),
        }
    }
}

impl Pod {
    /// The latest start of a container; `None` when it never ran.
    #[must_use]
    pub fn start(&self, container: &str) -> Option<Start> {
        let status = self.containers.get(container)?;
        (!status.id.is_empty()).then(|| Start {
            pod_uid: self.uid.clone(),
            container_id: status.id.clone(),
            container: container.to_owned(),
            restarts: status.restarts,
            created: self.created,
            started: status.running_since,
            revision: self.revision.clone(),
            ip: self.ip.clone(),
            boot: self.node.as_ref().map(|node| node.boot.clone()).unwrap_or_default(),
            volume: None,
            rest: BTreeMap::new(),
        })
    }

    /// Is it on its way out?
    #[must_use]
    pub const fn terminating(&self) -> bool {
        self.deleted.is_some()
    }

    /// Is it ready, and not on its way out?
    #[must_use]
    pub const fn serves(&self) -> bool {
        self.ready && !self.terminating()
    }

    /// Can a hook run in this container now?
    #[must_use]
    pub fn takes_hooks(&self, container: &str) -> bool {
        !self.terminating() && self.containers.get(container).is_some_and(|c| c.running_since.is_some())
    }
}
