//! A rule gives the policy's container of a pod more of a resource, in place (`pods/resize`, KEP-1287).
//!
//! What it is to have is written down first, so that asking twice asks for the same. Requests grow by the factor of their limit, rounded down, and stay equal
//! where they were equal: so the QoS class of the pod, which may never change, stays. The kubelet does it, or says that it cannot; it is not undone.

use std::collections::BTreeMap;

use jiff::SignedDuration;

use super::attempt::{Course, later, step};
use super::decide::{Next, View};
use super::observed::{Node, Pod};
use super::resources::{Amounts, Resizing, Resources};
use super::step::{Settles, Step};
use crate::ledger::{Resize, Verdict};
use crate::policy::{Growth, Resource, Stride};
use crate::quantity;

/// The act, in place of a hook's name.
pub(super) const NAME: &str = "resize";

/// How long a kubelet has for it, from the decision on. It gives what it has room for within seconds; what it defers it tries again whenever a pod of the
/// node ends or shrinks, which nobody can wait for while a container runs towards its limit.
const WITHIN: SignedDuration = SignedDuration::from_mins(2);
/// Pause before it is asked for again where there was no answer. Asking twice changes nothing.
const ASK_AGAIN: SignedDuration = SignedDuration::from_secs(10);
/// Memory is given in multiples of this: the largest page of the machines that Kubernetes runs on. The kernel rounds a limit down to whole pages.
const PAGE: u64 = 64 << 10;

/// What a pod's container is to have next, or why that is of no use.
pub(super) fn plan(view: &View<'_>, pod: &Pod, growths: &BTreeMap<Resource, Growth>) -> Result<Resize, String> {
    let container = view.policy.and_then(|policy| policy.container.as_deref()).unwrap_or(&pod.first_container);
    let status = pod.containers.get(container).ok_or_else(|| format!("container {container} was never started"))?;
    if let Some(node) = lost(pod) {
        return Err(format!("nobody hears of node {}", node.name));
    }
    let mut asked = Resize {
        container: container.to_owned(),
        from: BTreeMap::new(),
        limits: BTreeMap::new(),
        requests: BTreeMap::new(),
        rest: BTreeMap::new(),
    };
    let mut why = Vec::new();
    for (resource, growth) in growths {
        match raised(&status.resources, *resource, *growth) {
            Ok(Raised { from, to, request }) => {
                asked.from.insert(*resource, from);
                asked.limits.insert(*resource, to);
                asked.requests.extend(request.map(|request| (*resource, request)));
            }
            Err(reason) => why.push(reason),
        }
    }
    if asked.limits.is_empty() { Err(format!("of no use: {}", why.join("; "))) } else { Ok(asked) }
}

/// Why these resources of a container that has just started cannot be raised, in sentences.
pub(crate) fn obstacles(resources: &Resources, growths: &BTreeMap<Resource, Growth>) -> Vec<String> {
    growths.iter().filter_map(|(of, growth)| raised(resources, *of, *growth).err()).collect()
}

/// One resource of a container.
struct Raised {
    /// The limit that it has.
    from: u64,
    /// The limit that it is to have.
    to: u64,
    /// The request that it is to have, where it has one.
    request: Option<u64>,
}

fn raised(resources: &Resources, of: Resource, growth: Growth) -> Result<Raised, String> {
    let name = of.as_str();
    let request = resources.requests.get(of);
    let limit = resources.limits.get(of).ok_or_else(|| format!("the container has no limit of {name}"))?;
    if resources.restarts_for.contains(&of) {
        return Err(format!("its resizePolicy restarts the container when {name} changes"));
    }
    // What was asked for before, by whomever, and is not given yet comes first.
    if let Some(given) = resources.given.get(of).filter(|given| *given < limit) {
        return Ok(Raised { from: given, to: limit, request });
    }
    let more = match growth.by {
        Stride::Percent(percent) => share(limit, u64::from(percent), 100),
        Stride::Absolute(amount) => amount,
    };
    let whole = |amount: u64| if of == Resource::Memory { amount - amount % PAGE } else { amount };
    let to = whole(limit.saturating_add(more.max(1)).min(growth.max));
    let at = quantity::text(limit, of);
    if to > limit {
        return Ok(Raised { from: limit, to, request: request.map(|request| in_proportion(request, limit, to)) });
    }
    Err(if limit >= whole(growth.max) {
        format!("{name} is at {at}, and its max is {}", quantity::text(growth.max, of))
    } else {
        format!("{name} is at {at}, and {} more are less than a page", quantity::text(more, of))
    })
}

/// A request that is its limit stays its limit.
fn in_proportion(request: u64, from: u64, to: u64) -> u64 {
    if request >= from { to } else { share(request, to, from) }
}

/// `amount * part / whole`, rounded down.
fn share(amount: u64, part: u64, whole: u64) -> u64 {
    let exact = u128::from(amount) * u128::from(part) / u128::from(whole.max(1));
    u64::try_from(exact).unwrap_or(u64::MAX)
}

/// It is to be asked for, was asked for, or is over.
pub(super) fn advance(course: &Course<'_>, settles: Settles) -> Next {
    go_on(course).unwrap_or_else(|(verdict, message)| {
        let (episode_id, record) = (course.id.to_owned(), course.tell(None, verdict, &message));
        step(Step::Close { episode_id, record, settles })
    })
}

/// What comes next; or how it has ended, and why.
fn go_on(course: &Course<'_>) -> Result<Next, (Verdict, String)> {
    let (view, episode) = (course.view, course.episode);
    let failed = |why: String| Err((Verdict::Failed, why));
    let Some(asked) = &episode.resize else { return failed("nobody knows what was to be asked for".to_owned()) };
    let pod = view.observed.pods.get(&course.ordinal).filter(|pod| pod.uid == course.start.pod_uid);
    let Some(pod) = pod.filter(|pod| !pod.terminating()) else {
        return Err((Verdict::Superseded, "the pod goes, and the next one has what its template says".to_owned()));
    };
    let resources = pod.containers.get(&asked.container).map(|status| &status.resources);
    let has = |amounts: fn(&Resources) -> &Amounts| {
        asked.limits.iter().all(|(of, amount)| resources.and_then(|all| amounts(all).get(*of)) == Some(*amount))
    };
    let what = words(asked);
    let end = later(episode.opened, WITHIN);
    let (is_late, seconds) = (view.now >= end, WITHIN.as_secs());
    if has(|all| &all.limits) {
        if has(|all| &all.given) {
            return Err((Verdict::Succeeded, format!("{what}, in place")));
        }
        return match &pod.resize {
            Some(Resizing::Infeasible(why)) => failed(format!("{what}: its node cannot give it: Infeasible: {why}")),
            _ if !is_late => Ok(Next::Wait { until: end }),
            Some(Resizing::Deferred(why)) => {
                failed(format!("{what}: its node had no room for it for {seconds} s: Deferred: {why}"))
            }
            Some(Resizing::InProgress(why)) => {
                failed(format!("{what}: its kubelet was still at it after {seconds} s: InProgress: {why}"))
            }
            None => failed(format!("{what}: its kubelet has not done it within {seconds} s")),
        };
    }
    if is_changed(resources, asked) {
        return Err((Verdict::Superseded, format!("{what}: somebody else has changed its limits meanwhile")));
    }
    if let Some(why) = view.observed.refused.get(course.id) {
        return failed(format!("{what}: the API server refuses it: {why}"));
    }
    if let Some(node) = lost(pod) {
        return failed(format!("{what}: nobody hears of node {}", node.name));
    }
    if is_late {
        return failed(format!("{what}: the API server did not take it within {seconds} s"));
    }
    Ok(match episode.next {
        Some(until) if view.now < until => Next::Wait { until },
        _ => step(Step::Resize {
            episode_id: course.id.to_owned(),
            pod: pod.name.clone(),
            pod_uid: pod.uid.clone(),
            resize: Box::new(asked.clone()),
            again: later(view.now, ASK_AGAIN),
        }),
    })
}

/// Its node, if nobody hears of that.
fn lost(pod: &Pod) -> Option<&Node> {
    pod.node.as_ref().filter(|node| node.silent_since.is_some())
}

/// Are its limits neither what they were nor what they are to be?
fn is_changed(resources: Option<&Resources>, asked: &Resize) -> bool {
    asked.limits.iter().any(|(of, amount)| {
        let limit = resources.and_then(|all| all.limits.get(*of));
        limit != Some(*amount) && limit != asked.from.get(of).copied()
    })
}

fn words(asked: &Resize) -> String {
    let each = asked.limits.iter().map(|(of, to)| {
        let from = asked.from.get(of).map(|from| quantity::text(*from, *of)).unwrap_or_default();
        format!("{} of container {} from {from} to {}", of.as_str(), asked.container, quantity::text(*to, *of))
    });
    each.collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests;
