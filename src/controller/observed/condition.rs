//! Conditions of a pod, and what they tell of a resize (KEP-1287).

use guardian_core::lifecycle::Resizing;
use jiff::Timestamp;
use serde::Deserialize;

/// What the conditions of a resize begin with.
const RESIZE: &str = "PodResize";

/// One of `status.conditions`.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Condition {
    #[serde(rename = "type")]
    pub(super) kind: String,
    pub(super) status: String,
    pub(super) reason: Option<String>,
    message: Option<String>,
    pub(super) last_transition_time: Option<Timestamp>,
    observed_generation: Option<i64>,
}

impl Condition {
    /// Drops what is never read.
    pub(super) fn slim(&mut self) {
        self.message = self.message.take().filter(|_| self.kind.starts_with(RESIZE));
    }

    /// Is it about the pod as it is now? What a kubelet has said of an earlier change is no answer to a later one. One of before Kubernetes 1.34 does not tell.
    fn is_current(&self, generation: Option<i64>) -> bool {
        self.observed_generation.is_none_or(|seen| generation.is_none_or(|now| seen >= now))
    }
}

/// What the kubelet of a pod of this generation says of a resize that is not done. Of a change that waits and one that is under way, the first came last.
pub(super) fn resizing(conditions: &[Condition], generation: Option<i64>) -> Option<Resizing> {
    let is_meant = |c: &&Condition| c.kind.starts_with(RESIZE) && c.status == "True" && c.is_current(generation);
    let find = |kind: &str| conditions.iter().filter(is_meant).find(|c| c.kind == kind);
    let message = |c: &Condition| c.message.clone().unwrap_or_default();
    if let Some(pending) = find("PodResizePending") {
        let is_for_good = pending.reason.as_deref() == Some("Infeasible");
        return Some(if is_for_good { Resizing::Infeasible(message(pending)) } else { Resizing::Deferred(message(pending)) });
    }
    find("PodResizeInProgress").map(|c| Resizing::InProgress(message(c)))
}
