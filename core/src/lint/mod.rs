//! Lint: combinations of a StatefulSet, its policy and what surrounds them that are known to end badly.
//!
//! [`check`] looks at the objects of one namespace together. Each finding belongs to a [`Rule`], whose name never changes: people silence
//! and search by it, and `docs/lint.md` has a section for each. A rule is an error where what it says is certain, a warning where it
//! depends on what cannot be seen in a manifest, and a note where nothing is wrong but something could not be looked at.

mod availability;
mod network;
mod ordering;
mod policies;
pub mod rule;
mod template;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use serde_json::Value;

use crate::names;
use crate::policy::Policy;

pub use rule::{Level, RULES, Rule};

/// The objects of one namespace, as far as they are given. What is not given may still be in the cluster.
#[derive(Clone, Debug, Default)]
pub struct Objects<'a> {
    /// Its policies; all of them valid.
    pub policies: Vec<&'a Policy>,
    /// Its StatefulSets.
    pub sets: Vec<&'a Value>,
    /// Its Services.
    pub services: Vec<&'a Value>,
    /// Its PodDisruptionBudgets.
    pub budgets: Vec<&'a Value>,
    /// The names of the PriorityClasses of the cluster, which belong to no namespace.
    pub classes: Vec<&'a str>,
}

/// What a finding is about: an index into the list of [`Objects`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Subject {
    /// A policy.
    Policy(usize),
    /// A StatefulSet.
    Set(usize),
    /// A Service.
    Service(usize),
    /// A PodDisruptionBudget.
    Budget(usize),
}

/// Something that a rule has to say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// By which rule.
    pub rule: &'static Rule,
    /// About what.
    pub subject: Subject,
    /// Where in it, from the outermost member in; empty for the object as a whole.
    pub path: Vec<String>,
    /// What was found, with names and numbers.
    pub message: String,
}

/// Everything that the rules have to say about these objects, in the order of the objects.
#[must_use]
pub fn check(objects: &Objects<'_>) -> Vec<Finding> {
    let mut findings = policies::check(objects);
    for (at, set) in objects.sets.iter().enumerate() {
        let guarded = Guarded::new(at, set, objects);
        findings.extend(ordering::check(&guarded));
        findings.extend(network::check(&guarded, objects));
        findings.extend(template::check(&guarded, &objects.classes));
        findings.extend(availability::check(&guarded, objects));
    }
    findings.sort_by_key(|finding| finding.subject);
    findings
}

/// A StatefulSet and the policy that guards it, if one does.
struct Guarded<'a> {
    at: usize,
    set: &'a Value,
    name: &'a str,
    policy: Option<&'a Policy>,
    /// The other policies that would guard it.
    others: Vec<&'a str>,
}

impl<'a> Guarded<'a> {
    fn new(at: usize, set: &'a Value, objects: &Objects<'a>) -> Self {
        let annotations = strings(set, "/metadata/annotations");
        let out = annotations.get(names::INJECT).is_some_and(|inject| inject == "false");
        let named = annotations.get(names::POLICY).map(String::as_str);
        let policies = objects.policies.iter().copied().filter(|_| !out);
        let chosen = Policy::choose(policies, named, &strings(set, "/metadata/labels"));
        let (policy, others) = chosen.map_or((None, Vec::new()), |(policy, others)| (Some(policy), others));
        Self { at, set, name: name(set), policy, others }
    }

    fn find(&self, rule: &'static Rule, path: &[&str], message: String) -> Finding {
        Finding { rule, subject: Subject::Set(self.at), path: path.iter().map(ToString::to_string).collect(), message }
    }

    /// Pods that it shall have; the API server writes 1 where the user says nothing.
    fn replicas(&self) -> u64 {
        self.set.pointer("/spec/replicas").and_then(Value::as_u64).unwrap_or(1)
    }

    /// Is each pod made only once the one before it is ready? That is what the API server writes where the user says nothing.
    fn is_ordered(&self) -> bool {
        self.set.pointer("/spec/podManagementPolicy").and_then(Value::as_str).is_none_or(|policy| policy == "OrderedReady")
    }

    /// The containers of its template, each with its place in the list.
    fn containers(&self) -> impl Iterator<Item = (String, &'a Value)> + use<'a> {
        list(self.set, "/spec/template/spec/containers").iter().enumerate().map(|(at, container)| (at.to_string(), container))
    }

    /// The container in which a hook runs that names `own`; `None` when the template lacks it.
    fn hook_container(&self, own: Option<&String>) -> Option<(String, &'a Value)> {
        let wanted = own.or(self.policy.and_then(|policy| policy.container.as_ref()));
        self.containers().find(|(_, container)| wanted.is_none_or(|wanted| name_of(container) == wanted))
    }

    /// Its own labels, by which policies select.
    fn labels(&self) -> BTreeMap<String, String> {
        strings(self.set, "/metadata/labels")
    }

    /// The labels of its pods.
    fn pod_labels(&self) -> BTreeMap<String, String> {
        strings(self.set, "/spec/template/metadata/labels")
    }
}

/// The path of a container's member in a StatefulSet.
fn in_container<'p>(at: &'p str, rest: &[&'p str]) -> Vec<&'p str> {
    [&["spec", "template", "spec", "containers", at], rest].concat()
}

fn name(object: &Value) -> &str {
    object.get("metadata").map_or("", name_of)
}

fn name_of(item: &Value) -> &str {
    item.get("name").and_then(Value::as_str).unwrap_or_default()
}

fn list<'v>(object: &'v Value, pointer: &str) -> &'v [Value] {
    object.pointer(pointer).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

fn strings(object: &Value, pointer: &str) -> BTreeMap<String, String> {
    let members = object.pointer(pointer).and_then(Value::as_object).into_iter().flatten();
    members.filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned()))).collect()
}
