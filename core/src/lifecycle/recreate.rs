//! A pod whose hook failed is made anew (`onFailure: recreate`), and so is one for which a rule says so: evicted, with its uid as the precondition, so that budgets of others count too.
//!
//! The first is not done for ever: a pod that was made anew [`MOST`] times without a success in between is left as it is, and that is said.

use jiff::SignedDuration;

use super::attempt::{Course, LOST, later, step};
use super::decide::{Next, View};
use super::observed::Pod;
use super::room::quorum;
use super::step::{Settles, Step};
use crate::ledger::{Record, Verdict};
use crate::policy::OnFailure;
use crate::reason;

/// The act, in place of a hook's name.
pub(super) const NAME: &str = "recreate";

/// How often in a row a pod is made anew. The third new pod that fails at the same hook shows that it is not the pod.
const MOST: u32 = 3;

/// Pause before an eviction that was refused is asked for again: a PodDisruptionBudget changes when a pod becomes ready.
const ASK_AGAIN: SignedDuration = SignedDuration::from_secs(10);

/// The last attempt of its hook failed: the next is to make the pod anew, or not.
pub(super) fn begin(course: &Course<'_>, mut record: Record) -> Next {
    let episode_id = course.id.to_owned();
    let times = course.view.ledger.recreated.get(&course.ordinal).copied().unwrap_or_default();
    if times < MOST {
        record.message.push_str("; the pod is made anew");
        return step(Step::Proceed { episode_id, hook: NAME.to_owned(), record });
    }
    record.message.push_str(&format!("; it was made anew {times} times in a row, which did not help: it is left as it is"));
    step(Step::Close { episode_id, record, settles: Settles::Start })
}

/// The pod is to go. `made` is settled by that, `stays` where it turns out that it need not.
pub(super) fn advance(course: &Course<'_>, made: Settles, stays: Settles) -> Option<Next> {
    let (view, episode_id) = (course.view, course.id.to_owned());
    let pod = view.observed.pods.get(&course.ordinal);
    let Some(pod) = pod.filter(|pod| pod.uid == course.start.pod_uid) else {
        let record = course.tell(None, Verdict::Succeeded, "the pod was made anew");
        return Some(step(Step::Close { episode_id, record, settles: made }));
    };
    if course.is_lost() {
        let record = course.tell(None, Verdict::Superseded, LOST);
        return Some(step(Step::Close { episode_id, record, settles: made }));
    }
    if pod.terminating() {
        return None;
    }
    if course.is_replaced() {
        let record = course.tell(None, Verdict::Superseded, "the container was restarted meanwhile, so the pod stays");
        return Some(step(Step::Close { episode_id, record, settles: stays }));
    }
    let stays = |other: &&Pod| other.uid != pod.uid && view.is_steady(other) && !goes_first(course, other);
    let ready = view.observed.pods.values().filter(stays).count();
    let needed = quorum(view.policy, view.observed);
    if pod.ready && ready < needed {
        let why = format!("pod {} is to be made anew, and {ready} others are ready of the {needed} that must be", pod.name);
        return Some(Next::Hold { until: None, reason: reason::Hold::Quorum, why });
    }
    match course.episode.next {
        Some(until) if view.now < until => Some(Next::Wait { until }),
        _ => Some(step(Step::Recreate {
            pod: pod.name.clone(),
            pod_uid: pod.uid.clone(),
            pod_version: pod.version.clone(),
            again: later(view.now, ASK_AGAIN),
            episode_id,
        })),
    }
}

/// Is this pod made anew before that of the course? One whose eviction was asked for may go at any moment; of the others each waits for those before
/// it, since together they could take the quorum away.
fn goes_first(course: &Course<'_>, pod: &Pod) -> bool {
    let place = (course.episode.next.is_none(), course.id);
    course.view.ledger.episodes.iter().any(|(id, other)| {
        let is_about_it = other.hook == NAME && other.start.as_ref().is_some_and(|start| start.pod_uid == pod.uid);
        is_about_it && (other.next.is_none(), id.as_str()) < place
    })
}

/// The pods that are not made anew any more, until their hook succeeds: those that the set is meant to have, while its policy makes any anew.
pub(super) fn holds(view: &View<'_>) -> impl Iterator<Item = Next> {
    let hooks = view.policy.into_iter().flat_map(|policy| [&policy.hooks.join, &policy.hooks.rejoin]).flatten();
    let recreates = hooks.into_iter().any(|hook| hook.on_failure == OnFailure::Recreate);
    let set = &view.observed.set;
    let given_up = move |(ordinal, times): &(&u32, &u32)| recreates && **times >= MOST && set.ordinals.contains(*ordinal);
    view.ledger.recreated.iter().filter(given_up).map(|(ordinal, times)| {
        let why = format!("pod {}-{ordinal} was made anew {times} times in a row, which did not help", set.name);
        Next::Hold { until: None, reason: reason::Hold::BreakerOpen, why }
    })
}

#[cfg(test)]
mod tests;
