//! Why did this container start? Read from what Kubernetes recorded, never from an exit code alone: 137 is an OOM kill, a liveness kill and
//! a person's `kill -9`.

use crate::ledger::Start;
use crate::lifecycle::{Container, Departed, Pod, Terminated};
use crate::reason;

/// What there is to judge by.
#[derive(Clone, Copy, Debug)]
pub struct Evidence<'a> {
    /// The pod that runs.
    pub pod: &'a Pod,
    /// The container that runs in it.
    pub container: &'a Container,
    /// The start of this ordinal that was dealt with last.
    pub answered: Option<&'a Start>,
    /// What was last seen of the pod before this one.
    pub departed: Option<&'a Departed>,
    /// The set was meant to have fewer pods when it was seen last.
    pub scaled_out: bool,
}

/// A reason, and what it was read from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cause {
    /// The word.
    pub reason: reason::Start,
    /// A sentence.
    pub why: String,
}

/// One row: the reason, and when it applies.
struct Rule {
    reason: reason::Start,
    applies: fn(&Evidence<'_>) -> bool,
}

/// The first that applies wins. Sources: `DisruptionTarget` and its reasons (KEP-3329, `podutil` and the eviction API), `status.reason`
/// (kubelet eviction manager), `lastState.terminated.reason` (kubelet `convertToAPIContainerStatuses`, CRI runtimes).
const RULES: &[Rule] = &[
    Rule { reason: reason::Start::Preempted, applies: |e| e.disrupted("PreemptionByScheduler") },
    Rule { reason: reason::Start::Drained, applies: |e| e.disrupted("EvictionByEvictionAPI") },
    Rule {
        reason: reason::Start::NodeLost,
        applies: |e| e.disrupted("DeletionByPodGC") || e.left().is_some_and(|d| d.node_lost),
    },
    Rule { reason: reason::Start::Evicted, applies: |e| e.disrupted("DeletionByTaintManager") },
    Rule { reason: reason::Start::Evicted, applies: |e| e.disrupted("TerminationByKubelet") },
    Rule { reason: reason::Start::Evicted, applies: |e| e.left().is_some_and(|d| d.reason.as_deref() == Some("Evicted")) },
    Rule { reason: reason::Start::Updated, applies: |e| e.of_another_revision() },
    Rule { reason: reason::Start::Deleted, applies: |e| e.left().is_some() },
    Rule { reason: reason::Start::Unknown, applies: |e| e.of_another_pod() },
    Rule { reason: reason::Start::ScaleOut, applies: |e| e.answered.is_none() && e.container.restarts == 0 && e.scaled_out },
    Rule { reason: reason::Start::FirstStart, applies: |e| e.answered.is_none() && e.container.restarts == 0 },
    Rule { reason: reason::Start::NodeRebooted, applies: |e| e.on_another_boot() },
    Rule { reason: reason::Start::OOMKilled, applies: |e| e.ended("OOMKilled") },
    Rule { reason: reason::Start::LivenessFailed, applies: |e| e.container.last.as_ref().is_some_and(|last| last.by_probe) },
    Rule { reason: reason::Start::Completed, applies: |e| e.ended("Completed") },
    Rule { reason: reason::Start::Crash, applies: |e| e.ended("Error") },
];

/// Why the container runs.
#[must_use]
pub fn classify(evidence: &Evidence<'_>) -> Cause {
    let reason = RULES.iter().find(|rule| (rule.applies)(evidence)).map_or(reason::Start::Unknown, |rule| rule.reason);
    Cause { reason, why: sentence(reason, evidence) }
}

impl Evidence<'_> {
    fn of_another_pod(&self) -> bool {
        self.answered.is_some_and(|a| a.pod_uid != self.pod.uid)
    }

    fn of_another_revision(&self) -> bool {
        self.answered.is_some_and(|a| a.pod_uid != self.pod.uid && !a.revision.is_empty() && a.revision != self.pod.revision)
    }

    /// The node was started anew since, and the container with it.
    fn on_another_boot(&self) -> bool {
        let boot = self.pod.node.as_ref().map(|node| node.boot.as_str()).unwrap_or_default();
        self.answered.is_some_and(|a| !a.boot.is_empty() && !boot.is_empty() && a.boot != boot)
    }

    /// What was last seen of the pod before this one. It need not be the answered one: a pod may have come and gone in between.
    fn left(&self) -> Option<&Departed> {
        self.departed.filter(|d| d.uid != self.pod.uid && self.of_another_pod())
    }

    fn disrupted(&self, reason: &str) -> bool {
        self.left().is_some_and(|d| d.disruption.as_deref() == Some(reason))
    }

    fn ended(&self, reason: &str) -> bool {
        self.container.last.as_ref().is_some_and(|last| last.reason == reason)
    }
}

fn sentence(reason: reason::Start, e: &Evidence<'_>) -> String {
    use reason::Start;
    match (reason, &e.container.last) {
        (Start::FirstStart, _) => "first start that the guardian has seen".to_owned(),
        (Start::ScaleOut, _) => "the set was given more replicas".to_owned(),
        (Start::Preempted, _) => "the pod before it was preempted by one of higher priority".to_owned(),
        (Start::Drained, _) => "the pod before it was evicted through the API".to_owned(),
        (Start::Evicted, _) => "the pod before it was evicted by its node".to_owned(),
        (Start::NodeLost, _) => "the node of the pod before it is gone".to_owned(),
        (Start::Updated, _) => "the pod before it had another revision".to_owned(),
        (Start::Deleted, _) => "the pod before it was deleted".to_owned(),
        (Start::LivenessFailed, _) => "the kubelet ended the container before it, because its probe failed".to_owned(),
        (Start::NodeRebooted, _) => "the node of the pod was restarted".to_owned(),
        (_, _) if e.of_another_pod() => "the pod was replaced while nobody looked".to_owned(),
        (_, Some(last)) => ended(last),
        (_, None) => "the container was restarted, and nothing tells why".to_owned(),
    }
}

fn ended(last: &Terminated) -> String {
    let word = if last.reason.is_empty() { "no reason" } else { &last.reason };
    match last.signal {
        Some(signal) => format!("the container before it ended by signal {signal} ({word})"),
        None => format!("the container before it ended with exit code {} ({word})", last.exit_code),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::lifecycle::Node;
    use reason::Start as R;

    fn pod(uid: &str, revision: &str) -> Pod {
        Pod {
            name: "redis-1".into(),
            uid: uid.into(),
            version: "1".into(),
            created: jiff::Timestamp::UNIX_EPOCH,
            revision: revision.into(),
            ip: None,
            ready: true,
            deleted: None,
            node: None,
            role: None,
            serving: None,
            shed: None,
            toggles: None,
            first_container: "redis".into(),
            containers: BTreeMap::new(),
            agent: None,
            resize: None,
        }
    }

    fn container(restarts: u32, last: Option<(&str, i32, Option<i32>)>) -> Container {
        Container {
            id: "containerd://c".into(),
            running_since: Some(jiff::Timestamp::UNIX_EPOCH),
            restarts,
            last: last.map(|(reason, exit_code, signal)| Terminated {
                reason: reason.into(),
                exit_code,
                signal,
                ..Terminated::default()
            }),
            ..Container::default()
        }
    }

    fn departed(uid: &str, disruption: Option<&str>, reason: Option<&str>) -> Departed {
        Departed { uid: uid.into(), disruption: disruption.map(Into::into), reason: reason.map(Into::into), node_lost: false }
    }

    fn start(uid: &str, revision: &str) -> Start {
        let mut pod = pod(uid, revision);
        pod.containers.insert("redis".into(), container(0, None));
        pod.start("redis").unwrap()
    }

    #[test]
    fn a_restarted_container_is_judged_by_the_word_of_the_kubelet() {
        let rows = [
            (1, Some(("OOMKilled", 137, None)), R::OOMKilled),
            (1, Some(("Error", 137, None)), R::Crash),
            (1, Some(("Error", 137, Some(9))), R::Crash),
            (1, Some(("Error", 1, None)), R::Crash),
            (1, Some(("Completed", 0, None)), R::Completed),
            (1, Some(("ContainerStatusUnknown", 137, None)), R::Unknown),
            (1, Some(("", 137, None)), R::Unknown),
            (1, None, R::Unknown),
        ];
        let pod = pod("a", "r1");
        for (restarts, last, expected) in rows {
            let container = container(restarts, last);
            for answered in [None, Some(start("a", "r1"))] {
                let evidence =
                    Evidence { pod: &pod, container: &container, answered: answered.as_ref(), departed: None, scaled_out: false };
                assert_eq!(classify(&evidence).reason, expected, "{last:?}");
            }
        }
    }

    /// Why a pod of this revision runs, which came after that of uid `a`.
    fn of_another_pod(departed: &Departed, revision: &str) -> R {
        let (pod, container, answered) = (pod("b", revision), container(0, None), start("a", "r1"));
        let evidence =
            Evidence { pod: &pod, container: &container, answered: Some(&answered), departed: Some(departed), scaled_out: false };
        classify(&evidence).reason
    }

    #[test]
    fn a_replaced_pod_is_judged_by_what_was_seen_of_the_one_before() {
        let rows = [
            (departed("a", Some("PreemptionByScheduler"), None), "r1", R::Preempted),
            (departed("a", Some("EvictionByEvictionAPI"), None), "r1", R::Drained),
            (departed("a", Some("DeletionByTaintManager"), None), "r1", R::Evicted),
            (departed("a", Some("TerminationByKubelet"), Some("Evicted")), "r1", R::Evicted),
            (departed("a", Some("DeletionByPodGC"), None), "r1", R::NodeLost),
            (departed("a", None, Some("Evicted")), "r1", R::Evicted),
            (departed("a", None, None), "r1", R::Deleted),
            (departed("a", None, None), "r2", R::Updated),
            (departed("a", Some("EvictionByEvictionAPI"), None), "r2", R::Drained),
            (departed("a", Some("SomethingNew"), None), "r1", R::Deleted),
        ];
        for (departed, revision, expected) in rows {
            assert_eq!(of_another_pod(&departed, revision), expected, "{departed:?}");
        }
    }

    #[test]
    fn a_pod_that_went_with_its_silent_node_was_lost_with_it_unless_it_was_sent_away_before() {
        let rows = [
            (Some("DeletionByTaintManager"), R::NodeLost),
            (None, R::NodeLost),
            (Some("EvictionByEvictionAPI"), R::Drained),
            (Some("PreemptionByScheduler"), R::Preempted),
        ];
        for (disruption, expected) in rows {
            let departed = Departed { node_lost: true, ..departed("a", disruption, None) };
            assert_eq!(of_another_pod(&departed, "r1"), expected, "{disruption:?}");
        }
    }

    #[test]
    fn a_container_that_a_probe_has_ended_did_not_crash_however_it_ended() {
        for (last, expected) in [
            (("Error", 137, None), R::LivenessFailed),
            (("Error", 143, None), R::LivenessFailed),
            (("Completed", 0, None), R::LivenessFailed),
            (("OOMKilled", 137, None), R::OOMKilled),
        ] {
            let mut container = container(1, Some(last));
            container.last.as_mut().unwrap().by_probe = true;
            let (pod, answered) = (pod("a", "r1"), start("a", "r1"));
            let evidence =
                Evidence { pod: &pod, container: &container, answered: Some(&answered), departed: None, scaled_out: false };
            assert_eq!(classify(&evidence).reason, expected, "{last:?}");
        }
    }

    #[test]
    fn a_container_that_came_back_on_another_boot_of_its_node_was_restarted_with_it() {
        let container = container(1, Some(("Error", 255, None)));
        for (before, now, expected) in [
            ("boot-1", "boot-2", R::NodeRebooted),
            ("boot-1", "boot-1", R::Crash),
            ("", "boot-2", R::Crash),
            ("boot-1", "", R::Crash),
        ] {
            let mut pod = pod("a", "r1");
            pod.node = Some(Node { name: "node-1".into(), boot: now.into(), silent_since: None });
            let answered = Start { boot: before.into(), ..start("a", "r1") };
            let evidence =
                Evidence { pod: &pod, container: &container, answered: Some(&answered), departed: None, scaled_out: false };
            assert_eq!(classify(&evidence).reason, expected, "{before} {now}");
        }
    }

    #[test]
    fn a_pod_replaced_while_nobody_looked_is_unknown_unless_its_revision_tells() {
        let answered = start("a", "r1");
        for (revision, restarts, last, expected) in
            [("r1", 0, None, R::Unknown), ("r1", 2, Some(("OOMKilled", 137, None)), R::Unknown), ("r2", 0, None, R::Updated)]
        {
            let (pod, container) = (pod("b", revision), container(restarts, last));
            let evidence =
                Evidence { pod: &pod, container: &container, answered: Some(&answered), departed: None, scaled_out: false };
            assert_eq!(classify(&evidence).reason, expected);
        }
    }

    #[test]
    fn the_first_sight_of_an_ordinal_is_a_first_start_only_without_a_restart() {
        let pod = pod("a", "r1");
        let fresh = container(0, None);
        let evidence = Evidence { pod: &pod, container: &fresh, answered: None, departed: None, scaled_out: false };
        assert_eq!(classify(&evidence), Cause { reason: R::FirstStart, why: "first start that the guardian has seen".into() });
    }

    #[test]
    fn the_sentence_names_what_the_reason_was_read_from() {
        let pod = pod("a", "r1");
        let container = container(1, Some(("Error", 137, None)));
        let evidence = Evidence { pod: &pod, container: &container, answered: None, departed: None, scaled_out: false };
        assert_eq!(classify(&evidence).why, "the container before it ended with exit code 137 (Error)");
    }
}
