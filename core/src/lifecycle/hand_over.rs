//! A pod that holds a role is to be evicted: its `switchover` hook runs in it, once for each hand-over that the webhook has begun.
//!
//! The eviction waits for the role to leave the pod, for [`HAND_OVER`] at most. So nothing here is tried for longer than that, and a hand-over whose
//! hook has ended, however it ended, is not begun again: the ledger keeps its time until it is long over.

use std::collections::BTreeMap;

use super::attempt::{self, Course, Progress, later, step};
use super::decide::{Next, Scenario, View};
use super::observed::{HandOver, Pod};
use super::step::{Settles, Step};
use crate::admission::HAND_OVER;
use crate::ledger::{Episode, Scope, Verdict};
use crate::policy::{Hook, Target};
use crate::reason;

pub(super) const SCENARIO: Scenario = Scenario { name: NAME, next };

const NAME: &str = "handOver";
const SWITCHOVER: &str = "switchover";

fn next(view: &View<'_>) -> Vec<Next> {
    let (mut all, mut busy) = (Vec::new(), Vec::new());
    for course in attempt::open(view, NAME) {
        busy.push(course.start.pod_uid.as_str());
        all.extend(advance(&course));
    }
    let asked = view.observed.hand_overs.iter().filter(|asked| !busy.contains(&asked.pod_uid.as_str()));
    all.extend(asked.filter_map(|asked| begin(view, asked)));
    all
}

/// The hook, and the role that it moves.
fn switchover<'v>(view: &View<'v>) -> Option<(&'v Hook, &'v str)> {
    let hook = view.policy?.hooks.switchover.as_ref()?;
    match &hook.target {
        Some(Target::Role(role)) => Some((hook, role)),
        _ => None,
    }
}

/// A hand-over without an episode: does it need one?
fn begin(view: &View<'_>, asked: &HandOver) -> Option<Next> {
    let (hook, role) = switchover(view)?;
    let (ordinal, pod) = view.observed.pods.iter().find(|(_, pod)| pod.uid == asked.pod_uid)?;
    let until = later(asked.began, HAND_OVER);
    let is_over = view.now >= until || view.ledger.handed_over.get(&asked.pod_uid) == Some(&asked.began);
    if is_over || pod.role.as_deref() != Some(role) || !pod.serves() {
        return None;
    }
    if !view.observed.pods.values().any(|other| other.uid != pod.uid && view.is_steady(other)) {
        let why = format!("pod {} is to be evicted with the role {role}, and no other pod is ready to take it", pod.name);
        return Some(Next::Hold { until: Some(until), reason: reason::Hold::Quorum, why });
    }
    let start = view.start(*ordinal, pod).filter(|_| view.takes(hook, pod))?;
    let episode = Episode {
        scenario: NAME.to_owned(),
        hook: SWITCHOVER.to_owned(),
        then: None,
        scope: Scope::Pod(pod.uid.clone()),
        reason: reason::Start::Drained.to_string(),
        why: format!("the pod is to be evicted, and holds the role {role}"),
        pod: pod.name.clone(),
        ordinal: Some(*ordinal),
        old_ip: None,
        start: Some(start.clone()),
        opened: asked.began,
        attempts: 0,
        next: None,
        resize: None,
        rest: BTreeMap::new(),
    };
    // One for each hand-over: the same pod may get the role back, and be drained again.
    let id = format!("{NAME}-{}-{}", start.short(), asked.began.as_millisecond());
    Some(attempt::attempt(view, &id, &episode, hook, pod))
}

fn advance(course: &Course<'_>) -> Option<Next> {
    let view = course.view;
    let under_way = view.ledger.runs.values().any(|run| run.episode == course.id);
    let holds = |pod: &Pod| switchover(view).is_some_and(|(_, role)| pod.role.as_deref() == Some(role));
    let held = view.observed.pods.get(&course.ordinal).is_some_and(holds);
    // Another attempt, in whichever pod has the role by now, would take it away from there.
    let record = if !under_way && !held {
        course.tell(None, Verdict::Superseded, "the role is not its any more")
    } else if !under_way && view.now >= later(course.episode.opened, HAND_OVER) {
        course.tell(None, Verdict::Failed, "the time for its hand-over has passed, and it goes with its role")
    } else {
        match course.advance()? {
            Progress::On(next) => return Some(next),
            Progress::Over(over) => over.record,
        }
    };
    let settles = Settles::HandOver { pod_uid: course.start.pod_uid.clone(), began: course.episode.opened };
    Some(step(Step::Close { episode_id: course.id.to_owned(), record, settles }))
}

/// The hand-overs that nothing has to wait for any more: another pod has the role, or the pod is another by now. A role that only went away may come
/// back, and the wait for it must not begin anew.
pub(super) fn ended(view: &View<'_>) -> Vec<HandOver> {
    let observed = view.observed;
    let Some((_, role)) = switchover(view) else { return Vec::new() };
    let has_role = |pod: &&Pod| pod.role.as_deref() == Some(role);
    let has_moved = |asked: &&HandOver| match observed.pods.values().find(|pod| pod.name == asked.pod) {
        Some(pod) if pod.uid == asked.pod_uid => !has_role(&pod) && observed.pods.values().any(|other| has_role(&other)),
        Some(pod) => pod.created > asked.began,
        None => false,
    };
    observed.hand_overs.iter().filter(has_moved).cloned().collect()
}

#[cfg(test)]
mod tests;
