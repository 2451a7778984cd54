//! What the StatefulSet controller, the kubelets and the node controllers do with pods.

use std::collections::BTreeMap;

use guardian_hook::protocol::{Outcome, RunResult};
use jiff::SignedDuration;

use super::figures::{INIT_AGAIN, MAX_INIT_AGAIN, NODE_DELETED, NOT_READY, START, STOP, TOLERATED};
use super::line::{What, seconds};
use super::world::{End, Event, Id, World};
use crate::lifecycle::{Container, Departed, Node, Pod, Resources, Volume, in_words};
use crate::policy::OnFailure;
use crate::stop::{self, Leaving, Owner};

impl World<'_> {
    /// What the StatefulSet controller does next, as often as something has changed.
    pub(super) fn own(&mut self) {
        for ordinal in self.observed.set.ordinals.clone() {
            let is_there = match self.observed.pods.get(&ordinal) {
                None => {
                    self.make(ordinal);
                    false
                }
                Some(pod) => pod.serves(),
            };
            if !is_there && self.subject.ordered {
                return;
            }
        }
        let surplus = self.observed.pods.iter().filter(|(ordinal, _)| !self.observed.set.ordinals.contains(ordinal));
        let surplus: Vec<(u32, bool)> = surplus.map(|(ordinal, pod)| (*ordinal, pod.terminating())).rev().collect();
        for (ordinal, terminating) in &surplus {
            if !terminating {
                self.goes(*ordinal, None);
            }
            if self.subject.ordered {
                return;
            }
        }
        if surplus.is_empty() {
            self.roll();
        }
    }

    /// The next pod of a rollout, once all others are ready.
    fn roll(&mut self) {
        let Some(first) = self.subject.rolls_from else { return };
        let revision = self.revision();
        let old = self.observed.pods.iter().rfind(|(ordinal, pod)| **ordinal >= first && pod.revision != revision);
        let all_ready =
            self.observed.pods.values().all(Pod::serves) && self.observed.pods.len() == self.observed.set.ordinals.len();
        if let Some(ordinal) = old.map(|(ordinal, _)| *ordinal).filter(|_| all_ready) {
            self.goes(ordinal, None);
        }
    }

    fn revision(&self) -> String {
        format!("r{}", self.revision)
    }

    /// A new pod at this ordinal, on the volume that is there or on a new one.
    fn make(&mut self, ordinal: u32) {
        let (name, uid, created) = (self.name(ordinal), self.next_id(), self.now);
        if let Some(template) = self.subject.claim.clone().filter(|_| !self.observed.volumes.contains_key(&ordinal)) {
            let claim = format!("{template}-{name}");
            let volume = Volume { claim, uid: self.next_id(), created, is_member: false };
            self.observed.volumes.insert(ordinal, volume);
        }
        let made = |resources: &Resources| Container { resources: resources.clone(), ..Container::default() };
        let containers: BTreeMap<String, Container> =
            self.subject.resources.iter().map(|(name, resources)| (name.clone(), made(resources))).collect();
        let pod = Pod {
            name: name.clone(),
            uid: uid.clone(),
            version: "1".to_owned(),
            created,
            revision: self.revision(),
            ip: None,
            ready: false,
            deleted: None,
            node: Some(Node { name: format!("node-of-{name}"), boot: "1".to_owned(), silent_since: None }),
            role: None,
            serving: self.observed.set.serves.then_some(true),
            shed: None,
            toggles: None,
            first_container: self.subject.containers.first().cloned().unwrap_or_default(),
            containers,
            agent: None,
            resize: None,
        };
        self.observed.pods.insert(ordinal, pod);
        self.tell(What::Cluster, Some(&name), "the pod is made".to_owned());
        self.after(START, Event::Init { pod: Id { ordinal, uid }, tries: 0 });
    }

    pub(super) fn init(&mut self, pod: Id, tries: u32) {
        if self.lost.contains(&pod.uid) || self.pod(&pod).is_none_or(|pod| pod.terminating()) {
            return;
        }
        let Some(hook) = &self.policy.hooks.init else { return self.after(SignedDuration::ZERO, Event::Start { pod }) };
        let timeout = hook.timeout;
        let outcome = Box::new(self.script.play("init", timeout));
        let takes = SignedDuration::from_millis(i64::try_from(outcome.duration_ms).unwrap_or(i64::MAX));
        let name = self.name(pod.ordinal);
        self.tell(What::Cluster, Some(&name), format!("init starts in its init container, time out {} s", timeout.as_secs()));
        self.after(takes, Event::InitEnded { pod, tries, outcome });
    }

    pub(super) fn init_ended(&mut self, pod: Id, tries: u32, outcome: &Outcome) {
        let blocks = self.policy.hooks.init.as_ref().is_some_and(|hook| hook.on_failure == OnFailure::Block);
        let name = self.name(pod.ordinal);
        let words = in_words("init", outcome);
        if !blocks || matches!(outcome.result, RunResult::Exited { code: 0 }) {
            self.tell(What::Cluster, Some(&name), words);
            return self.after(SignedDuration::ZERO, Event::Start { pod });
        }
        let pause = INIT_AGAIN.saturating_mul(2_i32.saturating_pow(tries)).min(MAX_INIT_AGAIN);
        let told = format!("{words}: it blocks the start of the pod, and is tried again after {}", seconds(pause));
        self.tell(What::Cluster, Some(&name), told);
        self.after(pause, Event::Init { pod, tries: tries + 1 });
    }

    pub(super) fn deleted(&mut self, ordinal: u32) {
        self.goes(ordinal, None);
    }

    /// A pod is being deleted. Its kubelet, where there is one, runs its preStop, and it stops.
    pub(super) fn goes(&mut self, ordinal: u32, disruption: Option<&str>) {
        let main = self.main();
        let owner = self.owner();
        let by = self.now.saturating_add(self.subject.grace).unwrap_or(self.now);
        let Some(id) = self.id(ordinal) else { return };
        let Some(pod) = self.pod(&id).filter(|pod| !pod.terminating()) else { return };
        pod.deleted = Some(by);
        let node_lost = pod.node.as_ref().is_some_and(|node| node.silent_since.is_some());
        let runs = pod.containers.get(&main).is_some_and(|status| status.running_since.is_some());
        let disruption = disruption.map(str::to_owned);
        let leaving = Leaving { ordinal, revision: pod.revision.clone(), disruption: disruption.clone(), reason: None };
        let departed = Departed { uid: id.uid.clone(), disruption, reason: None, node_lost };
        self.observed.departed.insert(ordinal, departed);
        let (name, reason) = (self.name(ordinal), stop::classify(&leaving, Some(&owner)));
        if self.lost.contains(&id.uid) {
            return self.tell(What::Cluster, Some(&name), format!("the pod is deleted ({reason}), and its node does not answer"));
        }
        let hook = self.policy.hooks.pre_stop.as_ref().filter(|_| runs).map(|hook| hook.timeout);
        let pre_stop = hook.map(|timeout| Box::new(self.script.play("preStop", timeout)));
        let told = match hook {
            Some(timeout) => format!("the pod stops ({reason}): preStop starts, time out {} s", timeout.as_secs()),
            None => format!("the pod stops ({reason})"),
        };
        self.tell(What::Cluster, Some(&name), told);
        let takes = pre_stop.as_ref().map_or(0, |outcome| i64::try_from(outcome.duration_ms).unwrap_or(i64::MAX));
        self.after(SignedDuration::from_millis(takes).saturating_add(STOP), Event::Gone { pod: id, pre_stop });
    }

    /// What a pod that stops is judged by.
    fn owner(&self) -> Owner {
        let set = &self.observed.set;
        Owner { terminating: false, ordinals: set.ordinals.clone(), update_revision: self.revision(), is_observed: true }
    }

    pub(super) fn gone(&mut self, id: &Id, pre_stop: Option<&Outcome>) {
        if self.pod(id).is_none() || self.lost.contains(&id.uid) {
            return;
        }
        let words = pre_stop.map(|outcome| format!("; {}", in_words("preStop", outcome))).unwrap_or_default();
        self.removed(id, format!("the pod is gone{words}"));
    }

    pub(super) fn removed(&mut self, id: &Id, told: String) {
        self.lose_runs(id, "the pod is gone");
        let name = self.name(id.ordinal);
        self.observed.pods.remove(&id.ordinal);
        self.observed.roles.remove(&id.ordinal);
        self.observed.gauges.retain(|key, _| !key.ends_with(&id.uid));
        self.lost.remove(&id.uid);
        self.tell(What::Cluster, Some(&name), told);
    }

    pub(super) fn node_lost(&mut self, ordinal: u32) {
        let Some(id) = self.id(ordinal) else { return };
        let (name, now) = (self.name(ordinal), self.now);
        self.lost.insert(id.uid.clone());
        self.tell(What::Cluster, Some(&name), "its node does not answer any more".to_owned());
        self.lose_runs(&id, "its node does not answer");
        self.silent(ordinal, now, Some("its node does not answer"));
        self.after(NOT_READY, Event::NotReady { pod: id });
    }

    pub(super) fn not_ready(&mut self, id: &Id) {
        let (is_lost, now) = (self.lost.contains(&id.uid), self.now);
        let Some(pod) = self.pod(id).filter(|_| is_lost) else { return };
        pod.ready = false;
        if let Some(node) = &mut pod.node {
            node.silent_since = Some(now);
        }
        let name = pod.name.clone();
        self.tell(What::Cluster, Some(&name), format!("not ready: its node has not answered for {}", seconds(NOT_READY)));
        self.after(TOLERATED, Event::Tainted { pod: id.clone() });
        self.after(NODE_DELETED - NOT_READY, Event::NodeDeleted { pod: id.clone() });
    }

    pub(super) fn tainted(&mut self, id: &Id) {
        if self.lost.contains(&id.uid) && self.pod(id).is_some() {
            self.goes(id.ordinal, Some("DeletionByTaintManager"));
        }
    }

    pub(super) fn node_deleted(&mut self, id: &Id) {
        if !self.lost.contains(&id.uid) || self.pod(id).is_none() {
            return;
        }
        let disruption = Some("DeletionByPodGC".to_owned());
        let departed = Departed { uid: id.uid.clone(), disruption, reason: None, node_lost: true };
        self.observed.departed.insert(id.ordinal, departed);
        self.removed(id, "its node is deleted, and the pod with it".to_owned());
    }

    /// The node of a zone has its power back: all containers ended with it.
    pub(super) fn node_back(&mut self, id: &Id) {
        if !self.lost.remove(&id.uid) || self.pod(id).is_none() {
            return;
        }
        let name = self.name(id.ordinal);
        self.tell(What::Cluster, Some(&name), "its node is back".to_owned());
        if let Some(node) = self.pod(id).and_then(|pod| pod.node.as_mut()) {
            (node.silent_since, node.boot) = (None, format!("{}+", node.boot));
        }
        for container in self.subject.containers.clone() {
            self.stops(id, &container, End { reason: "Unknown", exit_code: 255, by_probe: false });
        }
        self.after(SignedDuration::ZERO, Event::Start { pod: id.clone() });
    }

    pub(super) fn rollout(&mut self) {
        self.revision += 1;
        self.observed.set.unchanged = false;
        let told = match self.subject.rolls_from {
            Some(_) => format!("the template is changed: revision {}", self.revision()),
            None => "the template is changed; by its strategy OnDelete no pod is replaced".to_owned(),
        };
        self.tell(What::Cluster, None, told);
    }
}
