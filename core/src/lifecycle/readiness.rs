//! Readiness that keeps changing: a pod is not counted on because it is ready at the moment.
//!
//! Kubernetes keeps only when the condition `Ready` changed last, so changes are counted by whoever watches, and that is forgotten with him. Changes of
//! which each comes within [`SETTLED`] of the one before make one sequence; a pod flaps from the [`MANY`]th of a sequence on, and until nothing has
//! changed for [`SETTLED`]. So it takes `(MANY - 1) * SETTLED` = 10 minutes at most, and a pod cannot stop and begin to flap by one change more.
//!
//! Of a sequence that reaches back to before anybody watched, nobody knows how long it is. The pod does not flap then for all that is known, and all
//! the same nothing is done on the strength of it before it has settled: `lastTransitionTime` tells since when, and a new controller learns it from there.

use jiff::{SignedDuration, Timestamp};

use super::decide::{Decision, View};
use super::observed::Pod;
use crate::reason;

const NAME: &str = "readiness";

/// Three times not ready and back. Starting, a pod changes once; a restarted container changes twice, and once more each way where its hook makes it so.
const MANY: u32 = 6;

/// Twelve probes in a row, ten seconds apart, which is how often a kubelet makes them where a template does not say.
const SETTLED: SignedDuration = SignedDuration::from_secs(120);

/// Changes of the readiness of a pod, each within two minutes of the one before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Toggles {
    /// The first, as far as it is known.
    pub began: Timestamp,
    /// The last.
    pub last: Timestamp,
    /// How many are known.
    pub changes: u32,
    /// There were none before the first.
    pub whole: bool,
}

impl Toggles {
    /// Of a pod that has been there for longer than anybody watches, and whose readiness changed last at `since`.
    #[must_use]
    pub const fn unwatched(since: Timestamp) -> Self {
        Self { began: since, last: since, changes: 1, whole: false }
    }

    /// Its readiness has changed so many times more, `at` last.
    #[must_use]
    pub fn changed(before: Option<&Self>, changes: u32, at: Timestamp) -> Self {
        match before.filter(|before| !before.is_over(at)) {
            Some(before) => Self { last: at, changes: before.changes.saturating_add(changes), ..before.clone() },
            None => Self { began: at, last: at, changes, whole: true },
        }
    }

    /// Has nothing changed for so long that it means nothing any more?
    #[must_use]
    pub fn is_over(&self, now: Timestamp) -> bool {
        now >= self.settles()
    }

    /// Does the pod become ready and not ready again and again?
    #[must_use]
    pub fn flaps(&self, now: Timestamp) -> bool {
        self.changes >= MANY && !self.is_over(now)
    }

    fn settles(&self) -> Timestamp {
        self.last.saturating_add(SETTLED).unwrap_or(Timestamp::MAX)
    }
}

impl View<'_> {
    /// Is it ready, and to be counted on when something is done to another pod?
    pub(super) fn is_steady(&self, pod: &Pod) -> bool {
        let settled = |toggles: &Toggles| toggles.is_over(self.now) || toggles.whole && toggles.changes < MANY;
        pod.serves() && pod.toggles.as_ref().is_none_or(settled)
    }
}

/// Says which pods flap, and looks again when one may have settled.
pub(super) fn keep(view: &View<'_>, decision: &mut Decision) {
    if view.policy.is_none() || view.observed.set.hold.is_some() {
        return;
    }
    for pod in view.observed.pods.values().filter(|pod| !pod.terminating()) {
        let Some(toggles) = pod.toggles.as_ref().filter(|toggles| !toggles.is_over(view.now)) else { continue };
        if toggles.flaps(view.now) {
            let (since, seconds) = (toggles.began.strftime("%Y-%m-%dT%H:%M:%SZ"), SETTLED.as_secs());
            let why = format!(
                "pod {} has become ready and not ready again and again since {since}: before anything is done to another pod it counts as not ready, until \
                 that has not changed for {seconds} s",
                pod.name
            );
            decision.hold(NAME, reason::Hold::Flapping, why);
        }
        if toggles.flaps(view.now) || !toggles.whole {
            decision.look_again(toggles.settles());
        }
    }
}

#[cfg(test)]
mod tests;
