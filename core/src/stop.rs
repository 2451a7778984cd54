//! Why is this pod being stopped? Read when its deletion is seen, from what Kubernetes has recorded by then; its preStop is told.

use std::ops::Range;

use crate::reason::Stop;

/// A pod with a `metadata.deletionTimestamp`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Leaving {
    /// Its ordinal.
    pub ordinal: u32,
    /// Label `controller-revision-hash`, empty when it has none.
    pub revision: String,
    /// The reason of its true condition `DisruptionTarget` (KEP-3329).
    pub disruption: Option<String>,
    /// `status.reason`.
    pub reason: Option<String>,
}

/// The StatefulSet that the pod is of, read after the deletion was seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    /// It has a `metadata.deletionTimestamp`, or its namespace has.
    pub terminating: bool,
    /// The ordinals that its pods have.
    pub ordinals: Range<u32>,
    /// `status.updateRevision`.
    pub update_revision: String,
    /// `status.observedGeneration` is `metadata.generation`: the StatefulSet controller has dealt with the latest change. While it works on
    /// one, it deletes pods before it tells of the new revision.
    pub is_observed: bool,
}

/// One row: the reason, and when it applies.
struct Rule {
    reason: Stop,
    applies: fn(&Leaving, Option<&Owner>) -> bool,
}

/// The first that applies wins. Sources: the reasons of `DisruptionTarget` (KEP-3329), `status.reason` of pods that a kubelet ended (eviction
/// manager, graceful node shutdown), and what the StatefulSet controller does with a pod: of an ordinal that is not meant to be (scale-in),
/// of another revision than the one that is rolled out (update).
const RULES: &[Rule] = &[
    Rule { reason: Stop::Preemption, applies: |pod, _| pod.is_disrupted("PreemptionByScheduler") },
    Rule { reason: Stop::NodeShutdown, applies: |pod, _| pod.reason.as_deref() == Some("Terminated") },
    Rule { reason: Stop::NodePressure, applies: |pod, _| pod.is_disrupted("TerminationByKubelet") },
    Rule { reason: Stop::Drain, applies: |pod, _| pod.is_disrupted("EvictionByEvictionAPI") },
    Rule { reason: Stop::Drain, applies: |pod, _| pod.is_disrupted("DeletionByTaintManager") },
    Rule { reason: Stop::Delete, applies: |_, owner| owner.is_none_or(|owner| owner.terminating) },
    Rule { reason: Stop::ScaleIn, applies: |pod, owner| owner.is_some_and(|owner| !owner.ordinals.contains(&pod.ordinal)) },
    Rule { reason: Stop::Update, applies: |pod, owner| owner.is_some_and(|owner| owner.is_updating(pod)) },
];

/// Why the pod is stopped. `owner` is `None` when the set is gone.
#[must_use]
pub fn classify(pod: &Leaving, owner: Option<&Owner>) -> Stop {
    RULES.iter().find(|rule| (rule.applies)(pod, owner)).map_or(Stop::Delete, |rule| rule.reason)
}

impl Leaving {
    fn is_disrupted(&self, reason: &str) -> bool {
        self.disruption.as_deref() == Some(reason)
    }
}

impl Owner {
    fn is_updating(&self, pod: &Leaving) -> bool {
        !self.is_observed || !self.update_revision.is_empty() && self.update_revision != pod.revision
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(disruption: Option<&str>, reason: Option<&str>) -> Leaving {
        let (disruption, reason) = (disruption.map(Into::into), reason.map(Into::into));
        Leaving { ordinal: 1, revision: "r1".into(), disruption, reason }
    }

    fn at_rest() -> Owner {
        Owner { terminating: false, ordinals: 0..3, update_revision: "r1".into(), is_observed: true }
    }

    #[test]
    fn whoever_disrupts_the_pod_is_the_reason_whatever_happens_to_its_set() {
        let rows = [
            (pod(Some("PreemptionByScheduler"), None), Stop::Preemption),
            (pod(Some("EvictionByEvictionAPI"), None), Stop::Drain),
            (pod(Some("DeletionByTaintManager"), None), Stop::Drain),
            (pod(Some("TerminationByKubelet"), Some("Evicted")), Stop::NodePressure),
            (pod(Some("TerminationByKubelet"), Some("Terminated")), Stop::NodeShutdown),
        ];
        let updating = Owner { is_observed: false, ..at_rest() };
        for (pod, expected) in rows {
            for owner in [None, Some(at_rest()), Some(updating.clone())] {
                assert_eq!(classify(&pod, owner.as_ref()), expected, "{pod:?}");
            }
        }
    }

    #[test]
    fn the_set_tells_a_scale_in_from_an_update_and_both_from_a_deletion() {
        let pod = pod(None, None);
        let rows = [
            (Some(at_rest()), Stop::Delete),
            (Some(Owner { ordinals: 0..1, ..at_rest() }), Stop::ScaleIn),
            (Some(Owner { ordinals: 2..5, ..at_rest() }), Stop::ScaleIn),
            (Some(Owner { ordinals: 0..1, is_observed: false, ..at_rest() }), Stop::ScaleIn),
            (Some(Owner { update_revision: "r2".into(), ..at_rest() }), Stop::Update),
            (Some(Owner { is_observed: false, ..at_rest() }), Stop::Update),
            (Some(Owner { update_revision: String::new(), ..at_rest() }), Stop::Delete),
            (Some(Owner { terminating: true, ordinals: 0..0, ..at_rest() }), Stop::Delete),
            (None, Stop::Delete),
        ];
        for (owner, expected) in rows {
            assert_eq!(classify(&pod, owner.as_ref()), expected, "{owner:?}");
        }
    }

    #[test]
    fn a_disruption_that_this_version_does_not_know_is_judged_by_the_set() {
        assert_eq!(classify(&pod(Some("SomethingNew"), None), Some(&at_rest())), Stop::Delete);
    }
}
