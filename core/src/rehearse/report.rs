//! What a rehearsal comes to.

use serde::Serialize;

use super::cast::Cast;
use super::line::{Line, millis};
use super::world::World;
use super::{Asked, assumed};
use crate::lifecycle::{Pod, quorum};

/// What was rehearsed, what happened, and what was left.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// Name of the set.
    pub set: String,
    /// Name of the policy.
    pub policy: String,
    /// Its revision.
    pub revision: String,
    /// The scenario, as it is asked for.
    pub scenario: String,
    /// Replicas at the end.
    pub replicas: usize,
    /// What is taken for granted.
    pub assumptions: Vec<String>,
    /// What happened, in its order.
    pub lines: Vec<Line>,
    /// How it ended.
    pub ended: Ended,
    /// When something last happened, in milliseconds since the beginning.
    pub after_ms: u64,
    /// What was still going on.
    pub open: Vec<LeftOpen>,
    /// What was due, and not done.
    pub holds: Vec<LeftHeld>,
    /// The last failure of each pod's hooks, where no success came after it.
    pub failed: Vec<Failed>,
    /// Pods that were not ready.
    pub not_ready: Vec<String>,
    /// Pods that disruptive acts of the guardian leave ready, of the replicas at the beginning or at the end, whichever are fewer.
    pub quorum: usize,
    /// The least number of ready pods; none before a first start.
    pub least_ready: usize,
    /// When there were so few for the first time, in milliseconds since the beginning.
    pub least_ready_at_ms: u64,
    /// There were never fewer than the quorum.
    pub quorum_kept: bool,
    /// Since when all have been ready; `None`: not at the end.
    pub all_ready_at_ms: Option<u64>,
}

/// How a rehearsal ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Ended {
    /// Nothing more was due.
    Quiet,
    /// An hour of simulated time had passed.
    Time,
    /// The set had been looked at 10,000 times.
    Passes,
}

/// Something that was still going on.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct LeftOpen {
    /// The pod.
    pub pod: String,
    /// The hook, or the act.
    pub hook: String,
    /// The reason word.
    pub reason: String,
    /// Attempts so far.
    pub attempts: u32,
}

/// Something that was due, and not done.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct LeftHeld {
    /// The word.
    pub reason: String,
    /// A sentence.
    pub message: String,
}

/// A hook that failed.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Failed {
    /// The pod.
    pub pod: String,
    /// The hook.
    pub hook: String,
    /// How.
    pub message: String,
}

impl Report {
    /// It came to an end, and nothing is left that a person would have to look at.
    #[must_use]
    pub fn is_quiet(&self) -> bool {
        let nothing_left = self.open.is_empty() && self.holds.is_empty() && self.failed.is_empty() && self.not_ready.is_empty();
        self.ended == Ended::Quiet && nothing_left
    }
}

/// `before`: replicas at the beginning. Those that a scale-out adds have yet to become ready, and are not missed.
pub(super) fn report(world: World<'_>, asked: &Asked, cast: &Cast, (ended, before): (Ended, usize)) -> Report {
    let assumptions = assumed::assumed(&world, asked, cast);
    let (telling, observed, policy) = (world.telling, world.observed, world.policy);
    let open = world.ledger.state.episodes.into_values().map(|episode| LeftOpen {
        pod: episode.pod,
        hook: episode.hook,
        reason: episode.reason,
        attempts: episode.attempts,
    });
    let holds = telling.held.into_iter().map(|(reason, message)| LeftHeld { reason: reason.to_string(), message });
    let failed = telling.failed.into_values().map(|r| Failed { pod: r.pod, hook: r.hook, message: r.message });
    let is_ready = |ordinal: &u32| observed.pods.get(ordinal).is_some_and(Pod::serves);
    let not_ready = observed.set.ordinals.clone().filter(|ordinal| !is_ready(ordinal));
    let (least_ready, least_ready_at) = telling.least.unwrap_or((0, telling.began));
    let replicas = observed.set.ordinals.len();
    let mut fewest = observed.clone();
    fewest.set.ordinals = 0..u32::try_from(before.min(replicas)).unwrap_or(u32::MAX);
    let quorum = quorum(Some(policy), &fewest);
    Report {
        set: observed.set.name.clone(),
        policy: policy.name.clone(),
        revision: policy.revision.clone(),
        scenario: asked.scenario.to_string(),
        replicas,
        assumptions,
        after_ms: telling.lines.last().map_or(0, |line| line.at_ms),
        lines: telling.lines,
        ended,
        open: open.collect(),
        holds: holds.collect(),
        failed: failed.collect(),
        not_ready: not_ready.map(|ordinal| format!("{}-{ordinal}", observed.set.name)).collect(),
        quorum,
        least_ready,
        least_ready_at_ms: millis(telling.began, least_ready_at),
        quorum_kept: least_ready >= quorum,
        all_ready_at_ms: telling.whole.map(|at| millis(telling.began, at)),
    }
}
