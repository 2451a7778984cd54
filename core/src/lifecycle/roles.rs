//! The roles of a set: a level, kept as what its pods say of themselves.

use super::decide::{Decision, Relabel, View};
use super::observed::{Observed, Pod};
use crate::policy::{Policy, Target};
use crate::role::{self, Candidate};

const NAME: &str = "role";

/// Roles that mean the pod which takes writes, where the policy does not say.
const USUAL: [&str; 2] = ["primary", "master"];

/// Which labels have to change. Where no policy guards the set, or it is on hold, all stay; where its policy asks for no role, they go.
pub(super) fn keep(view: &View<'_>, decision: &mut Decision) {
    let observed = view.observed;
    let Some(policy) = view.policy.filter(|_| observed.set.hold.is_none()) else { return };
    let relabel = |pod: &Pod, role| Relabel { pod: pod.name.clone(), pod_uid: pod.uid.clone(), role };
    let Some(asked) = &policy.role else {
        let labelled = observed.pods.values().filter(|pod| pod.role.is_some());
        decision.levels.roles = labelled.map(|pod| relabel(pod, None)).collect();
        return;
    };
    let candidates = observed.pods.iter().map(|(ordinal, pod)| {
        let witness = observed.roles.get(ordinal);
        (*ordinal, Candidate { name: &pod.name, label: pod.role.as_deref(), witness })
    });
    let ruling = role::rule(&candidates.collect(), asked.every, view.now);
    let changes = ruling.changes.into_iter().filter_map(|(ordinal, role)| Some(relabel(observed.pods.get(&ordinal)?, role)));
    decision.levels.roles = changes.collect();
    ruling.holds.into_iter().for_each(|(reason, why)| decision.hold(NAME, reason, why));
    ruling.wake.into_iter().for_each(|at| decision.look_again(at));
}

/// Ordinal of the pod that is the primary: of those whose role is the one that `switchover` moves, else the one that an update leaves to the last,
/// else `primary` or `master`. `None` where no pod has it, or several.
#[must_use]
pub fn primary(observed: &Observed, policy: &Policy) -> Option<u32> {
    let moved = policy.hooks.switchover.as_ref().and_then(|hook| hook.target.as_ref());
    let last = policy.update.as_ref().and_then(|update| update.last.as_ref());
    let named = [moved, last].into_iter().flatten().find_map(|target| match target {
        Target::Role(role) => Some(role.as_str()),
        _ => None,
    });
    let only = |role: &str| {
        let mut holders = observed.pods.iter().filter(|(_, pod)| pod.role.as_deref() == Some(role)).map(|(ordinal, _)| *ordinal);
        holders.next().filter(|_| holders.next().is_none())
    };
    named.map_or_else(|| USUAL.iter().find_map(|role| only(role)), only)
}

#[cfg(test)]
mod tests;
