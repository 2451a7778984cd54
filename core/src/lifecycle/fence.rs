//! A pod on a node that nobody hears of cannot be stopped, and may go on writing. Kubernetes leaves it there, terminating, and makes no other
//! under its name: there could be two of them at one volume (kubernetes.io, "Force Delete StatefulSet Pods"). So the set stays one short until
//! somebody proves that the old one cannot write.
//!
//! The `fence` hook is that proof. It runs in a ready peer and cuts the old pod off, in the application's own terms: its lock, its grant, its
//! storage. Once it has succeeded the pod is deleted without waiting for its kubelet. Nothing else ever leads there: no time that has passed,
//! and no number of failed attempts.

use std::collections::BTreeMap;

use jiff::SignedDuration;

use super::attempt::{self, Course, Progress, later, step};
use super::decide::{Next, Scenario, View};
use super::observed::{Observed, Pod};
use super::step::{Settles, Step};
use crate::ledger::{Episode, Scope, Verdict};
use crate::policy::{Hook, Target};
use crate::reason;

pub(super) const SCENARIO: Scenario = Scenario { name: NAME, next };

/// The scenario, and its hook.
pub(super) const NAME: &str = "fence";
/// The act that follows, in place of a hook's name.
const RELEASE: &str = "release";

/// Beyond the time that a pod has to stop: the kubelet tells the API server last.
const MARGIN: SignedDuration = SignedDuration::from_secs(5);
/// A pod that should have stopped is looked at this often: nothing happens when the silence of its node begins, or is heard of.
const LOOK: SignedDuration = SignedDuration::from_secs(15);
/// Pause before a hook that proved nothing is run again: storage and lock services take minutes to let go of a client that is gone.
const AGAIN: SignedDuration = SignedDuration::from_mins(5);
/// Pause before a deletion that was refused is asked for again.
const ASK_AGAIN: SignedDuration = SignedDuration::from_secs(10);

fn next(view: &View<'_>) -> Vec<Next> {
    let (mut all, mut busy) = (Vec::new(), Vec::new());
    for course in attempt::open(view, NAME) {
        busy.push(course.start.pod_uid.as_str());
        all.extend(advance(&course));
    }
    let others = view.observed.pods.iter().filter(|(_, pod)| !busy.contains(&pod.uid.as_str()));
    all.extend(others.filter_map(|(ordinal, pod)| begin(view, *ordinal, pod)));
    all
}

/// A pod without an episode: does it keep its place though it should have gone?
fn begin(view: &View<'_>, ordinal: u32, pod: &Pod) -> Option<Next> {
    let (policy, deleted) = (view.policy?, pod.deleted?);
    let overdue = later(deleted, MARGIN);
    if view.now < overdue {
        return Some(Next::Wait { until: overdue });
    }
    let Some((node, since)) = pod.node.as_ref().and_then(|node| Some((node, node.silent_since?))) else {
        return Some(Next::Wait { until: later(view.now, LOOK) });
    };
    let lost = format!(
        "pod {} should have stopped by {deleted}, and nobody has heard of its node {} since {since}: it may still write",
        pod.name, node.name
    );
    let hold = |until, why: &str| Some(Next::Hold { until, reason: reason::Hold::NotFenced, why: format!("{lost}; {why}") });
    let Some(hook) = &policy.hooks.fence else {
        let taint = "node.kubernetes.io/out-of-service=nodeshutdown:NoExecute";
        return hold(
            None,
            &format!("policy {} has no fence hook. If the machine is off: kubectl taint node {} {taint}", policy.name, node.name),
        );
    };
    let again = view.ledger.unfenced.get(&pod.uid).map(|ended| later(*ended, AGAIN));
    if let Some(again) = again.filter(|again| view.now < *again) {
        return hold(Some(again), "its fence hook has proven nothing, and is run again in a while");
    }
    let Some(start) = view.start(ordinal, pod) else { return hold(None, "what has run in it is not known") };
    let Some(peer) = peer(view, hook, ordinal) else { return hold(None, "no other pod is ready to run its fence hook") };
    let episode = Episode {
        scenario: NAME.to_owned(),
        hook: NAME.to_owned(),
        then: None,
        scope: Scope::Pod(pod.uid.clone()),
        reason: reason::Start::NodeLost.to_string(),
        why: lost,
        pod: pod.name.clone(),
        ordinal: Some(ordinal),
        old_ip: None,
        start: Some(start.clone()),
        opened: view.now,
        attempts: 0,
        next: None,
        resize: None,
        rest: BTreeMap::new(),
    };
    // One for each time that it is tried: a runner starts nothing twice under one id.
    let id = format!("{NAME}-{}-{}", start.short(), view.now.as_millisecond());
    Some(attempt::attempt(view, &id, &episode, hook, peer))
}

/// Should the pod have stopped, and does nobody hear of its node? Only a fence makes it go then, or its node that comes back.
pub(super) fn is_lost(view: &View<'_>, pod: &Pod) -> bool {
    let is_overdue = pod.deleted.is_some_and(|deleted| view.now >= later(deleted, MARGIN));
    is_overdue && pod.node.as_ref().is_some_and(|node| node.silent_since.is_some())
}

/// The pod in which the hook runs: never the one that it is about, nor one of a silent node.
pub(super) fn peer<'v>(view: &View<'v>, hook: &Hook, about: u32) -> Option<&'v Pod> {
    let observed: &'v Observed = view.observed;
    let mut peers = super::target::pods(observed, Some(hook.target.as_ref().unwrap_or(&Target::Any)), about);
    let is_heard_of = |pod: &Pod| pod.node.as_ref().is_none_or(|node| node.silent_since.is_none());
    peers.find(|pod| observed.ordinal_of(pod) != Some(about) && pod.serves() && is_heard_of(pod) && view.takes(hook, pod))
}

fn advance(course: &Course<'_>) -> Option<Next> {
    if course.episode.hook == RELEASE {
        return Some(release(course));
    }
    let mut record = match course.advance()? {
        Progress::On(next) => return Some(next),
        Progress::Over(over) => over.record,
    };
    let episode_id = course.id.to_owned();
    if record.verdict == Verdict::Succeeded {
        record.message.push_str("; the pod is deleted without waiting for its node");
        return Some(step(Step::Proceed { episode_id, hook: RELEASE.to_owned(), record }));
    }
    let settles = match record.verdict {
        Verdict::Failed => Settles::Unfenced { pod_uid: course.start.pod_uid.clone(), at: course.view.now },
        _ => Settles::Nothing,
    };
    Some(step(Step::Close { episode_id, record, settles }))
}

/// The pod cannot write: its place is made free.
fn release(course: &Course<'_>) -> Next {
    let (view, episode_id) = (course.view, course.id.to_owned());
    let pod = view.observed.pods.get(&course.ordinal).filter(|pod| pod.uid == course.start.pod_uid);
    let Some(pod) = pod else {
        let record = course.tell(None, Verdict::Succeeded, "the pod is gone, and another can take its place");
        return step(Step::Close { episode_id, record, settles: Settles::Nothing });
    };
    match course.episode.next {
        Some(until) if view.now < until => Next::Wait { until },
        _ => {
            step(Step::Release { pod: pod.name.clone(), pod_uid: pod.uid.clone(), again: later(view.now, ASK_AGAIN), episode_id })
        }
    }
}

#[cfg(test)]
mod tests;
