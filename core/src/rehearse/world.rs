//! A simulated cluster: the clock, what is due on it, and what its own parts do. No more of it than the guardian looks at.

use std::collections::{BTreeMap, BTreeSet};

use guardian_hook::protocol::{Outcome, RunResult};
use jiff::{SignedDuration, Timestamp};

use super::figures::{READY, RESTART};
use super::line::What;
use super::measure::Crossed;
use super::script::{Script, outcome};
use super::subject::Subject;
use super::tell::Telling;
use crate::ledger::Ledger;
use crate::lifecycle::{Observed, Pod, RunEnd, Terminated};
use crate::policy::{Policy, READY_WITHIN, Target};
use crate::role::{Claim, Silence, Witness};

/// The cluster, and the guardian's memory of it.
pub(super) struct World<'p> {
    pub(super) policy: &'p Policy,
    pub(super) subject: Subject,
    pub(super) script: Script,
    /// What there is, as the guardian sees it: at once.
    pub(super) observed: Observed,
    pub(super) ledger: Ledger,
    pub(super) now: Timestamp,
    /// Passes over the set so far.
    pub(super) passes: u32,
    /// When something last changed.
    pub(super) changed: Timestamp,
    pub(super) telling: Telling,
    /// What each ordinal says of its role while it runs.
    pub(super) claims: BTreeMap<u32, Claim>,
    /// Uids of the pods whose node does not answer.
    pub(super) lost: BTreeSet<String>,
    /// Containers in whose life `join` or `rejoin` has ended well.
    pub(super) joined: BTreeSet<String>,
    /// What a rule looks at, where one is rehearsed.
    pub(super) crossed: Option<Crossed>,
    /// Of the template.
    pub(super) revision: u32,
    due: BTreeMap<(Timestamp, u64), Event>,
    scheduled: u64,
    born: u32,
}

/// One pod, and no later one of its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Id {
    pub(super) ordinal: u32,
    pub(super) uid: String,
}

/// What comes by itself.
#[derive(Clone, Debug)]
pub(super) enum Event {
    /// The set is made.
    Made,
    /// An application ends.
    Ends { ordinal: u32, how: End },
    /// The containers of a pod that has none yet are to be started; the init hook first.
    Init { pod: Id, tries: u32 },
    /// The init hook has ended.
    InitEnded { pod: Id, tries: u32, outcome: Box<Outcome> },
    /// Its containers start.
    Start { pod: Id },
    /// They would be ready.
    Ready { pod: Id, container: String },
    /// A run has ended.
    RunEnded { run_id: String, end: Box<RunEnd> },
    /// Somebody deletes a pod.
    Delete { ordinal: u32 },
    /// Somebody wants a pod evicted, and was told before why not.
    Evict { pod: Id, told: String },
    /// A pod has stopped.
    Gone { pod: Id, pre_stop: Option<Box<Outcome>> },
    /// The node of a pod does not answer any more.
    NodeLost { ordinal: u32 },
    /// It has not for so long that its pods are not ready.
    NotReady { pod: Id },
    /// Nor for so long that they are evicted.
    Tainted { pod: Id },
    /// Its object is deleted.
    NodeDeleted { pod: Id },
    /// It runs again.
    NodeBack { pod: Id },
    /// The set is asked to have so many replicas.
    Scale { to: u32 },
    /// Its template is changed.
    Rollout,
    /// What a rule looks at is beyond its bound; and is back.
    Crosses { back: bool },
}

/// How an application ends.
#[derive(Clone, Copy, Debug)]
pub(super) struct End {
    /// The kubelet's word.
    pub(super) reason: &'static str,
    pub(super) exit_code: i32,
    /// Its probe has failed.
    pub(super) by_probe: bool,
}

impl<'p> World<'p> {
    pub(super) fn new(policy: &'p Policy, subject: Subject, namespace: &str, claims: BTreeMap<u32, Claim>) -> Self {
        let now = subject.set.created;
        let observed = Observed {
            namespace: namespace.to_owned(),
            set: subject.set.clone(),
            pods: BTreeMap::new(),
            departed: BTreeMap::new(),
            volumes: BTreeMap::new(),
            roles: BTreeMap::new(),
            gauges: BTreeMap::new(),
            watched: now,
            hand_overs: Vec::new(),
            budgets: subject.budgets.iter().map(super::subject::OtherBudget::observed).collect(),
            services: subject.services.clone(),
            running: BTreeSet::new(),
            ends: BTreeMap::new(),
            refused: BTreeMap::new(),
        };
        Self {
            policy,
            script: Script::default(),
            ledger: Ledger::new(&subject.set.uid),
            observed,
            subject,
            now,
            passes: 0,
            changed: now,
            telling: Telling { began: now, ..Telling::default() },
            claims,
            lost: BTreeSet::new(),
            joined: BTreeSet::new(),
            crossed: None,
            revision: 1,
            due: BTreeMap::new(),
            scheduled: 0,
            born: 0,
        }
    }

    /// It happens so much later.
    pub(super) fn after(&mut self, pause: SignedDuration, event: Event) {
        let at = self.now.saturating_add(pause).unwrap_or(Timestamp::MAX);
        self.scheduled += 1;
        self.due.insert((at, self.scheduled), event);
    }

    /// When the next thing happens.
    pub(super) fn next(&self) -> Option<Timestamp> {
        self.due.keys().next().map(|(at, _)| *at)
    }

    /// Lets happen what is due now; says whether anything was.
    pub(super) fn happen(&mut self) -> bool {
        let mut any = false;
        while let Some(entry) = self.due.first_entry().filter(|entry| entry.key().0 <= self.now) {
            let event = entry.remove();
            self.apply(event);
            any = true;
        }
        any
    }

    fn apply(&mut self, event: Event) {
        match event {
            Event::Made => self.tell(What::Cluster, None, format!("StatefulSet {} is made", self.observed.set.name)),
            Event::Ends { ordinal, how } => self.ends(ordinal, how),
            Event::Init { pod, tries } => self.init(pod, tries),
            Event::InitEnded { pod, tries, outcome } => self.init_ended(pod, tries, &outcome),
            Event::Start { pod } => self.starts(&pod),
            Event::Ready { pod, container } => self.ready(&pod, &container),
            Event::RunEnded { run_id, end } => self.run_ended(&run_id, *end),
            Event::Delete { ordinal } => self.deleted(ordinal),
            Event::Evict { pod, told } => self.asks_eviction(pod, &told),
            Event::Gone { pod, pre_stop } => self.gone(&pod, pre_stop.as_deref()),
            Event::NodeLost { ordinal } => self.node_lost(ordinal),
            Event::NotReady { pod } => self.not_ready(&pod),
            Event::Tainted { pod } => self.tainted(&pod),
            Event::NodeDeleted { pod } => self.node_deleted(&pod),
            Event::NodeBack { pod } => self.node_back(&pod),
            Event::Scale { to } => self.asks_scale(to),
            Event::Rollout => self.rollout(),
            Event::Crosses { back } => self.crosses(back),
        }
    }

    /// Something that is not there yet gets a number.
    pub(super) fn next_id(&mut self) -> String {
        self.born += 1;
        format!("{:08x}", self.born)
    }

    pub(super) fn pod(&mut self, id: &Id) -> Option<&mut Pod> {
        self.observed.pods.get_mut(&id.ordinal).filter(|pod| pod.uid == id.uid)
    }

    pub(super) fn id(&self, ordinal: u32) -> Option<Id> {
        self.observed.pods.get(&ordinal).map(|pod| Id { ordinal, uid: pod.uid.clone() })
    }

    /// The container in which hooks run.
    pub(super) fn main(&self) -> String {
        let hooks = [&self.policy.hooks.rejoin, &self.policy.hooks.join];
        let named = hooks.into_iter().flatten().next().and_then(|hook| hook.container.clone());
        let first = || self.subject.containers.first().cloned().unwrap_or_default();
        named.or_else(|| self.policy.container.clone()).unwrap_or_else(first)
    }

    /// The application of a pod ends by itself, and its kubelet starts it again.
    fn ends(&mut self, ordinal: u32, how: End) {
        let main = self.main();
        let Some(id) = self.id(ordinal).filter(|id| !self.lost.contains(&id.uid)) else { return };
        if self.pod(&id).is_none_or(|pod| !pod.takes_hooks(&main)) {
            return;
        }
        self.stops(&id, &main, how);
        let (name, End { reason, exit_code, by_probe }) = (self.name(ordinal), how);
        let probe = if by_probe { ", since its liveness probe failed" } else { "" };
        self.tell(What::Cluster, Some(&name), format!("container {main} ends: {reason}, exit code {exit_code}{probe}"));
        self.after(RESTART, Event::Start { pod: id });
    }

    /// A container runs no longer; what runs in it neither.
    pub(super) fn stops(&mut self, id: &Id, container: &str, how: End) {
        let now = self.now;
        let Some(pod) = self.pod(id) else { return };
        pod.ready = false;
        if let Some(status) = pod.containers.get_mut(container) {
            let (began, End { reason, exit_code, by_probe }) = (status.running_since.take(), how);
            status.last = Some(Terminated { reason: reason.to_owned(), exit_code, signal: None, began, by_probe });
        }
        self.lose_runs(id, "its container has ended");
        self.silent(id.ordinal, now, None);
    }

    /// Nothing is heard any more of what runs in a pod.
    pub(super) fn lose_runs(&mut self, id: &Id, why: &str) {
        let (now, runs) = (self.now, &self.ledger.state.runs);
        let mut there: Vec<String> = self.observed.running.iter().cloned().collect();
        there.retain(|run| runs.get(run).is_some_and(|run| run.pod_uid == id.uid));
        for run in there {
            self.observed.running.remove(&run);
            self.observed.ends.insert(run, RunEnd::Lost { since: now, at: now, denied: false, why: why.to_owned() });
        }
    }

    pub(super) fn silent(&mut self, ordinal: u32, since: Timestamp, why: Option<&str>) {
        if let Some(witness) = self.observed.roles.get_mut(&ordinal) {
            if let Some((_, heard)) = &mut witness.claim {
                *heard = since;
            }
            witness.silence = Some(Silence { since, why: why.map(str::to_owned) });
        }
    }

    /// What it says of its role, if it runs.
    pub(super) fn hear(&mut self, ordinal: u32) {
        let runs = self.observed.pods.get(&ordinal).is_some_and(|pod| pod.takes_hooks(&self.main()));
        if let Some(claim) = self.claims.get(&ordinal).filter(|_| runs) {
            let witness = Witness { since: self.now, claim: Some((claim.clone(), self.now)), silence: None };
            self.observed.roles.insert(ordinal, witness);
        }
    }

    /// All containers of a pod that do not run start.
    fn starts(&mut self, id: &Id) {
        let (now, main) = (self.now, self.main());
        let ids: Vec<String> =
            self.subject.containers.clone().iter().map(|_| format!("containerd://{}", self.next_id())).collect();
        let address = format!("10.0.0.{}", self.born % 250 + 1);
        let is_lost = self.lost.contains(&id.uid);
        let Some(pod) = self.pod(id).filter(|pod| !is_lost && !pod.terminating()) else { return };
        let name = pod.name.clone();
        pod.ip.get_or_insert(address);
        for (status, id) in pod.containers.values_mut().filter(|status| status.running_since.is_none()).zip(ids) {
            let restarts = status.restarts + u32::from(!status.id.is_empty());
            (status.id, status.running_since, status.restarts) = (id, Some(now), restarts);
        }
        let container = pod.containers.get(&main).map(|status| status.id.clone()).unwrap_or_default();
        self.tell(What::Cluster, Some(&name), format!("container {main} starts"));
        self.hear(id.ordinal);
        self.after(READY, Event::Ready { pod: id.clone(), container: container.clone() });
        if self.subject.waits_for_join {
            let within = SignedDuration::try_from(READY_WITHIN).unwrap_or(SignedDuration::ZERO);
            self.after(within, Event::Ready { pod: id.clone(), container });
        }
    }

    /// Its probes succeed, unless it waits for a hook.
    fn ready(&mut self, id: &Id, container: &str) {
        let (now, main) = (self.now, self.main());
        let waits = self.subject.waits_for_join && !self.joined.contains(container);
        let is_lost = self.lost.contains(&id.uid);
        let Some(pod) = self.pod(id).filter(|pod| !pod.ready && !pod.terminating()) else { return };
        let Some(status) = pod.containers.get(&main).filter(|status| status.id == container) else { return };
        let Some(since) = status.running_since.filter(|_| !is_lost) else { return };
        if waits && now.duration_since(since).unsigned_abs() < READY_WITHIN {
            return;
        }
        pod.ready = true;
        let name = pod.name.clone();
        let late = if waits { ": neither join nor rejoin ended well in time" } else { "" };
        self.tell(What::Cluster, Some(&name), format!("ready{late}"));
    }

    fn run_ended(&mut self, run_id: &str, end: RunEnd) {
        if !self.observed.running.remove(run_id) {
            return;
        }
        let Some(run) = self.ledger.state.runs.get(run_id).cloned() else { return };
        let went_well = matches!(&end, RunEnd::Outcome(outcome) if outcome.result == RunResult::Exited { code: 0 });
        self.observed.ends.insert(run_id.to_owned(), end);
        let Some(ordinal) = self.observed.pods.iter().find(|(_, pod)| pod.uid == run.pod_uid).map(|(ordinal, _)| *ordinal) else {
            return;
        };
        let Some(id) = self.id(ordinal).filter(|_| went_well) else { return };
        match run.hook.as_str() {
            "bootstrap" | "join" | "rejoin" => {
                let container = self.pod(&id).and_then(|pod| pod.containers.get(&run.container)).map(|status| status.id.clone());
                let Some(container) = container else { return };
                self.joined.insert(container.clone());
                let started = self.pod(&id).and_then(|pod| pod.containers.get(&run.container)?.running_since);
                let ready_at = started.and_then(|since| since.checked_add(READY).ok()).unwrap_or(self.now);
                let pause = ready_at.max(self.now).duration_since(self.now);
                self.after(pause, Event::Ready { pod: id, container });
            }
            "switchover" => self.hands_over(ordinal),
            _ => {}
        }
    }

    /// The role that `switchover` moves goes to the first other pod that is ready.
    fn hands_over(&mut self, from: u32) {
        let target = self.policy.hooks.switchover.as_ref().and_then(|hook| hook.target.as_ref());
        let (Some(Target::Role(role)), Some(mut claim)) = (target, self.claims.get(&from).cloned()) else { return };
        let to = self.observed.pods.iter().find(|(ordinal, pod)| **ordinal != from && pod.serves()).map(|(ordinal, _)| *ordinal);
        let Some(to) = to.filter(|_| claim.role == *role) else { return };
        // Above every version there was: a holder that was replaced in between knows of one that is newer than this holder's own.
        let newest = self.claims.values().filter_map(|claim| claim.version).max();
        claim.version = claim.version.and(newest).map(|version| version.saturating_add(1));
        // The old holder takes the role of the new one; where that had none, it goes on with its older claim, which counts no more.
        if let Some(other) = self.claims.insert(to, claim) {
            self.claims.insert(from, other);
        }
        let name = self.name(to);
        self.tell(What::Cluster, Some(&name), format!("has the role {role}"));
        self.hear(from);
        self.hear(to);
    }

    pub(super) fn name(&self, ordinal: u32) -> String {
        format!("{}-{ordinal}", self.observed.set.name)
    }

    /// An outcome of a run whose runner was lost with its container.
    pub(super) fn interrupted() -> RunEnd {
        RunEnd::Outcome(Box::new(outcome(RunResult::Interrupted, std::time::Duration::ZERO)))
    }
}
