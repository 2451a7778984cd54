//! Policies by themselves, and whom they guard.

use super::rule::{NOT_YET_ACTIVE, POLICY_SELECTS_NOTHING};
use super::{Finding, Guarded, Objects, Subject};
use crate::policy::Policy;

pub(super) fn check(objects: &Objects<'_>) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (at, policy) in objects.policies.iter().enumerate() {
        let subject = Subject::Policy(at);
        findings.extend(policy.not_yet_active.iter().map(|path| Finding {
            rule: NOT_YET_ACTIVE,
            subject,
            path: Vec::new(),
            message: format!("NotYetActive: {path}"),
        }));
        let name = &policy.name;
        // A policy that is only second to another one is told with the set.
        let guards = |set: Guarded<'_>| set.policy.is_some_and(|p| p.name == *name) || set.others.contains(&name.as_str());
        let mut sets = objects.sets.iter().enumerate().map(|(at, set)| Guarded::new(at, set, objects));
        if !objects.sets.is_empty() && !sets.any(guards) {
            let by_its_pods = sets_by_their_pods(policy, objects);
            let message = format!("policy {name} selects none of the {} StatefulSets given{by_its_pods}", objects.sets.len());
            findings.push(Finding { rule: POLICY_SELECTS_NOTHING, subject, path: Vec::new(), message });
        }
    }
    findings
}

/// A usual slip, if it was made: the labels stand on the pods alone.
fn sets_by_their_pods(policy: &Policy, objects: &Objects<'_>) -> String {
    let mut sets = objects.sets.iter().enumerate().map(|(at, set)| Guarded::new(at, set, objects));
    match sets.find(|set| policy.selects(&set.pod_labels()) && !policy.selects(&set.labels())) {
        Some(set) => format!(": the pods of {} have its labels, and the set itself has not", set.name),
        None => String::new(),
    }
}
