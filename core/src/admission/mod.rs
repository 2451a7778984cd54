//! Admission, from a review to a verdict:
//!
//! ```text
//! bytes -> Review -> Policy -> Plan -> Patch -> Verdict -> bytes
//! ```
//!
//! [`judge`] is that flow. What changes nothing but may be refused, policies and what guards stand against, takes a shorter way:
//! [`validate`]. Both are pure: what they know of the cluster is in the [`Snapshot`].

mod canonical;
mod editor;
mod guard;
mod hand_over;
mod patch;
mod pin;
mod plan;
mod review;
mod serving;
mod shape;
#[cfg(test)]
mod tests;
mod tree;
mod validate;
mod verdict;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::Value;

pub use hand_over::{HAND_OVER, unrecorded};
pub use patch::Patch;
pub use pin::{Record, Scalar};
pub use review::{Author, Resource, Review, ReviewError, Verb};
pub use verdict::{Decision, HandOver, Question, Reason, Verdict};

use crate::names;
use crate::policy::{ByNamespace, Policy};
use plan::SetFacts;
use review::{ConfigMap, Metadata, StatefulSet};

/// Time that is left for the application's own reaction to SIGTERM after the last preStop handler.
pub const STOP_TIME: Duration = Duration::from_secs(10);
/// Longest `terminationGracePeriodSeconds` that is ever written: a drain waits that long for a pod that hangs.
pub const MAX_GRACE: Duration = Duration::from_secs(600);

/// What admission knows of the cluster, at one moment.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// Policies in force.
    pub policies: ByNamespace,
    /// Policies that are stored and not approved; of one that is in force too, this is a later edit.
    pub waiting: ByNamespace,
    /// May whoever asks run commands in the pods of the request's namespace? `None`: nobody was asked yet.
    pub may_exec: Option<bool>,
    /// PriorityClasses that exist; `None` where the cluster cannot be asked, and then every name is believed.
    pub priority_classes: Option<BTreeSet<String>>,
    /// StatefulSets that were asked for, by namespace, then by name.
    pub sets: BTreeMap<String, BTreeMap<String, Known>>,
    /// Namespaces that were asked for.
    pub namespaces: BTreeMap<String, Known>,
    /// Pods that were asked for, by namespace, then by name.
    pub pods: BTreeMap<String, BTreeMap<String, Pod>>,
    /// Hand-overs that were asked for, by the uid of the pod that has the role: when they began; `None` where none has.
    pub hand_overs: BTreeMap<String, Option<Timestamp>>,
}

/// What is known of an object that a request does not bring along.
#[derive(Clone, Debug, Default)]
pub struct Known {
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Its annotations.
    pub annotations: BTreeMap<String, String>,
    /// It is being deleted.
    pub terminating: bool,
    /// Pods that it shall have, where it is a StatefulSet that says so.
    pub replicas: Option<i64>,
}

/// What is known of a pod.
#[derive(Clone, Debug, Default)]
pub struct Pod {
    /// Tells it from another pod of the same name.
    pub uid: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// It is being deleted.
    pub terminating: bool,
    /// It is ready, so it runs.
    pub ready: bool,
    /// Name of the StatefulSet that controls it.
    pub set: Option<String>,
}

/// What an installation decides once.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Image of `guardian-init`: this product's own, pinned by digest in production.
    pub image: String,
}

/// Decides what becomes of an object: the mutating webhook.
#[must_use]
pub fn judge(review: &Review<'_>, snapshot: &Snapshot, settings: &Settings) -> Verdict {
    let verdict = match (review.kind.as_str(), review.subresource.as_deref().unwrap_or_default(), review.verb) {
        ("apps/v1/StatefulSet", "", Verb::Create | Verb::Update) => {
            rewrite(review, snapshot, settings).unwrap_or_else(|error| {
                // The mutating webhook fails open: what it cannot read, the API server will judge.
                Verdict::untouched(Reason::Unreadable).warn(format!("not guarded: {error}"))
            })
        }
        ("v1/Service", "", Verb::Update) => serving::judge(review, snapshot),
        _ => Verdict::untouched(Reason::NotOurs),
    };
    verdict.with_short_warnings()
}

/// Decides whether a request may go through: the validating webhooks.
#[must_use]
pub fn validate(review: &Review<'_>, snapshot: &Snapshot, now: Timestamp) -> Verdict {
    let resource = (review.resource.group.as_ref(), review.resource.plural.as_ref());
    let (of_a_set, of_a_pod) = (resource == ("apps", "statefulsets"), resource == ("", "pods"));
    let verdict = match (review.kind.as_str(), review.subresource.as_deref().unwrap_or_default(), review.verb) {
        ("v1/ConfigMap", "", Verb::Create | Verb::Update) => match review.object::<ConfigMap>() {
            Ok(Some(map)) if !review.is_terminating() => validate::policy(review, &map, snapshot),
            Ok(Some(_)) => Verdict::untouched(Reason::Terminating),
            Ok(None) => Verdict::untouched(Reason::NotOurs),
            Err(error) => Verdict::deny(Reason::InvalidPolicy, 422, format!("the ConfigMap cannot be read: {error}")),
        },
        ("apps/v1/StatefulSet", "", Verb::Update | Verb::Delete) | ("autoscaling/v1/Scale", "scale", Verb::Update)
            if of_a_set =>
        {
            guard::judge(review, snapshot)
        }
        // Older versions of the kind come converted.
        ("policy/v1/Eviction", "eviction", Verb::Create) if of_a_pod => hand_over::judge(review, snapshot, now),
        ("v1/Namespace", "", Verb::Create | Verb::Update) => guard::namespace(review),
        _ => Verdict::untouched(Reason::NotOurs),
    };
    verdict.with_short_warnings()
}

/// What takes our part out of a stored StatefulSet, and gives the user's fields back; empty where there is nothing of ours.
#[must_use]
pub fn eject(set: &Value) -> Patch {
    set.pointer("/spec/template").map(pin::eject).unwrap_or_default()
}

/// What becomes of the template of a StatefulSet.
fn rewrite(review: &Review<'_>, snapshot: &Snapshot, settings: &Settings) -> Result<Verdict, RewriteError> {
    let old = review.old_object::<StatefulSet<'_>>();
    let terminating = match &old {
        Ok(old) => old.as_ref().is_some_and(|old| old.metadata.is_terminating()),
        // Its metadata alone may be readable.
        Err(_) => review.is_terminating(),
    };
    if terminating {
        return Ok(Verdict::untouched(Reason::Terminating));
    }
    let Some(set) = review.object::<StatefulSet<'_>>()? else { return Ok(Verdict::untouched(Reason::NotOurs)) };
    let Some(template) = set.template() else { return Ok(Verdict::untouched(Reason::NotOurs)) };
    let old = old?;
    if review.verb == Verb::Update && old.is_none() {
        return Err(RewriteError::NoOldObject);
    }
    let old_template = old.as_ref().and_then(StatefulSet::template);
    if old_template.is_some_and(|old| old.get() == template.get()) {
        return Ok(Verdict::untouched(Reason::TemplateUnchanged));
    }

    let Guard { policy, waiting, warnings } = guard(review, &set, snapshot);
    let facts = SetFacts { name: &set.metadata.name, service: set.service(), selector: set.selector() };
    let mut verdict = Verdict::from(pin::rewrite(template, old_template, facts, policy, (snapshot, settings))?);
    // What was written while a policy was approved is not taken out for an edit that is not: only a policy that is gone does that.
    let stays = verdict.reason == Reason::NoPolicy || (verdict.reason == Reason::Removed && old.is_some());
    if policy.is_none() && waiting.is_some() && stays {
        verdict = Verdict::untouched(Reason::AwaitsApproval);
    }
    verdict.policy = policy.or(waiting).map(|policy| (policy.name.clone(), policy.revision.clone()));
    verdict.warnings.extend(warnings);
    verdict.question = question(&set, policy, waiting, snapshot);
    Ok(verdict)
}

/// What the snapshot may be too old to know.
fn question(set: &StatefulSet<'_>, policy: Option<&Policy>, waiting: Option<&Policy>, snapshot: &Snapshot) -> Option<Question> {
    let Some(policy) = policy else {
        return (!is_out(&set.metadata.annotations)).then_some(Question::Policies);
    };
    let is_known = |class: &&String| snapshot.priority_classes.as_ref().is_none_or(|known| known.contains(*class));
    let class = policy.protect.priority_class_name.as_ref().filter(|class| !is_known(class));
    class.map(|class| Question::PriorityClass(class.clone())).or_else(|| waiting.map(|_| Question::Policies))
}

/// Who guards a set.
struct Guard<'s> {
    policy: Option<&'s Policy>,
    /// A later edit of that policy; without one, the policy that would guard the set. It is not approved.
    waiting: Option<&'s Policy>,
    /// What is to be said about it.
    warnings: Vec<String>,
}

fn guard<'s>(review: &Review<'_>, set: &StatefulSet<'_>, snapshot: &'s Snapshot) -> Guard<'s> {
    let Metadata { labels, annotations, .. } = &set.metadata;
    let namespace = review.namespace.as_ref();
    let approve = |name: &str| format!("run `guardian approve -n {namespace} {name}`");
    let Some((policy, others)) = choose(namespace, labels, annotations, snapshot) else {
        let waiting = choose_of(&snapshot.waiting, namespace, labels, annotations).map(|(policy, _)| policy);
        let named = annotations.get(names::POLICY).filter(|_| !is_out(annotations));
        let warning = match (waiting, named) {
            (Some(Policy { name, .. }), _) => Some(format!("not guarded: policy {name} is not approved: {}", approve(name))),
            (None, Some(name)) => {
                Some(format!("not guarded: the annotation {} names {name}, which is no policy here", names::POLICY))
            }
            (None, None) => choose(namespace, &set.pod_labels(), annotations, snapshot).map(|(Policy { name, .. }, _)| {
                format!("not guarded: policy {name} selects by labels that only the pods of this set have: give them to the set itself")
            }),
        };
        return Guard { policy: None, waiting, warnings: warning.into_iter().collect() };
    };
    let name = &policy.name;
    let others = match others.as_slice() {
        [] => None,
        [other] => Some((*other).to_owned()),
        [other, rest @ ..] => Some(format!("{other} and {} more", rest.len())),
    };
    let others = others
        .map(|others| format!("policy {name} guards this set, {others} would too: name one in the annotation {}", names::POLICY));
    let waiting = snapshot.waiting.get(namespace).and_then(|waiting| waiting.get(name)).map(Arc::as_ref);
    let edited = waiting.map(|_| {
        format!("the last edit of policy {name} is not approved, so revision {} is written: {}", policy.revision, approve(name))
    });
    Guard { policy: Some(policy), waiting, warnings: others.into_iter().chain(edited).collect() }
}

/// The policy that guards a set with these labels and annotations, and the names of those that would too.
fn choose<'s>(
    namespace: &str,
    labels: &BTreeMap<String, String>,
    annotations: &BTreeMap<String, String>,
    snapshot: &'s Snapshot,
) -> Option<(&'s Policy, Vec<&'s str>)> {
    choose_of(&snapshot.policies, namespace, labels, annotations)
}

fn choose_of<'s>(
    policies: &'s ByNamespace,
    namespace: &str,
    labels: &BTreeMap<String, String>,
    annotations: &BTreeMap<String, String>,
) -> Option<(&'s Policy, Vec<&'s str>)> {
    let named = annotations.get(names::POLICY).map(String::as_str);
    let policies = policies.get(namespace).into_iter().flat_map(BTreeMap::values).map(Arc::as_ref);
    if is_out(annotations) { None } else { Policy::choose(policies, named, labels) }
}

/// Has the owner of a set taken it out?
fn is_out(annotations: &BTreeMap<String, String>) -> bool {
    annotations.get(names::INJECT).is_some_and(|inject| inject == "false")
}

/// Why a StatefulSet goes through as it came.
#[derive(Debug, thiserror::Error)]
enum RewriteError {
    #[error("the StatefulSet cannot be read: {0}")]
    Set(#[from] serde_json::Error),
    #[error(transparent)]
    Template(#[from] shape::ShapeError),
    #[error("the request to update has no old object")]
    NoOldObject,
}
