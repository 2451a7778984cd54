//! Policies by themselves, and whom they guard.

use super::rule::{NOT_YET_ACTIVE, POLICY_SELECTS_NOTHING};
use super::{Finding, Guarded, Objects, Subject};

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
            let message = format!("policy {name} selects none of the {} StatefulSets given", objects.sets.len());
            findings.push(Finding { rule: POLICY_SELECTS_NOTHING, subject, path: Vec::new(), message });
        }
    }
    findings
}
