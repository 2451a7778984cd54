//! How many pods may go: PodDisruptionBudgets, quorum, replicas, update strategy.

use std::collections::BTreeMap;

use serde_json::Value;

use super::rule::{
    BELOW_MIN_REPLICAS, BUDGET_ALLOWS_NOTHING, QUORUM_IMPOSSIBLE, QUORUM_WITHOUT_ROOM, TWO_BUDGETS, UPDATE_STRATEGY_SHADOWED,
};
use super::{Finding, Guarded, Objects, Subject, name};
use crate::policy::{Policy, Selector};

pub(super) fn check(set: &Guarded<'_>, objects: &Objects<'_>) -> Vec<Finding> {
    let mut findings = budgets(set, objects);
    let Some(policy) = set.policy else { return findings };
    findings.extend(quorum(set, policy));
    findings.extend(min_replicas(set, policy));
    findings.extend(update(set, policy));
    findings
}

fn budgets(set: &Guarded<'_>, objects: &Objects<'_>) -> Vec<Finding> {
    let labels = set.pod_labels();
    let selecting: Vec<(usize, &Value)> =
        objects.budgets.iter().copied().enumerate().filter(|(_, budget)| selects(budget, &labels)).collect();
    let mut findings = Vec::new();
    for (at, budget) in &selecting {
        if let Some((field, value)) = allows_nothing(budget, set.replicas()) {
            let message = format!(
                "PodDisruptionBudget {} lets no pod of StatefulSet {} go: {field} is {value} of {} replicas",
                name(budget),
                set.name,
                set.replicas()
            );
            let path = vec!["spec".to_owned(), field.to_owned()];
            findings.push(Finding { rule: BUDGET_ALLOWS_NOTHING, subject: Subject::Budget(*at), path, message });
        }
    }
    if selecting.len() > 1 {
        let names: Vec<&str> = selecting.iter().map(|(_, budget)| name(budget)).collect();
        let message =
            format!("the pods of StatefulSet {} are selected by the PodDisruptionBudgets {}", set.name, names.join(", "));
        findings.push(set.find(TWO_BUDGETS, &["spec", "template", "metadata", "labels"], message));
    }
    findings
}

/// Does a PodDisruptionBudget select pods with these labels? An empty selector selects all, an absent one none (`policy/v1`).
fn selects(budget: &Value, labels: &BTreeMap<String, String>) -> bool {
    budget.pointer("/spec/selector").and_then(Selector::read).is_some_and(|selector| selector.matches(labels))
}

/// The field that lets no pod go, and its value.
fn allows_nothing(budget: &Value, replicas: u64) -> Option<(&'static str, String)> {
    let field = |name: &str| budget.pointer(&format!("/spec/{name}"));
    let shown = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    if let Some(most) = field("maxUnavailable") {
        return (pods(most, replicas)? == 0).then(|| ("maxUnavailable", shown(most)));
    }
    let least = field("minAvailable")?;
    // A set of no pods has none that could be kept from going.
    (replicas > 0 && pods(least, replicas)? >= replicas).then(|| ("minAvailable", shown(least)))
}

/// A number of pods, or a percentage of all, rounded up as the disruption controller does.
fn pods(value: &Value, replicas: u64) -> Option<u64> {
    match value.as_str() {
        None => value.as_u64(),
        Some(text) => {
            let percent: u64 = text.strip_suffix('%')?.parse().ok()?;
            Some(replicas.checked_mul(percent)?.div_ceil(100))
        }
    }
}

fn quorum(set: &Guarded<'_>, policy: &Policy) -> Option<Finding> {
    let replicas = set.replicas();
    let quorum = policy.protect.quorum?.of(replicas);
    let rule = match quorum {
        // A set that is scaled to nothing has nothing to keep.
        _ if replicas == 0 => return None,
        more if more > replicas => QUORUM_IMPOSSIBLE,
        all if all == replicas => QUORUM_WITHOUT_ROOM,
        _ => return None,
    };
    let message = format!("policy {} wants {quorum} pods of StatefulSet {} ready, which has {replicas}", policy.name, set.name);
    Some(set.find(rule, &["spec", "replicas"], message))
}

fn min_replicas(set: &Guarded<'_>, policy: &Policy) -> Option<Finding> {
    let (min, replicas) = (u64::from(policy.protect.min_replicas?), set.replicas());
    (replicas < min).then(|| {
        let message = format!("StatefulSet {} has {replicas} replicas, policy {} wants {min} at least", set.name, policy.name);
        set.find(BELOW_MIN_REPLICAS, &["spec", "replicas"], message)
    })
}

fn update(set: &Guarded<'_>, policy: &Policy) -> Option<Finding> {
    policy.update.as_ref()?;
    let strategy = set.set.pointer("/spec/updateStrategy")?;
    let partition = strategy.pointer("/rollingUpdate/partition").and_then(Value::as_u64).filter(|n| *n > 0);
    let own = match (strategy.get("type").and_then(Value::as_str), partition) {
        (Some("OnDelete"), _) => "OnDelete".to_owned(),
        (_, Some(partition)) => format!("the partition {partition}"),
        _ => return None,
    };
    let message = format!("StatefulSet {} says {own}, and policy {} has `update`", set.name, policy.name);
    Some(set.find(UPDATE_STRATEGY_SHADOWED, &["spec", "updateStrategy"], message))
}
