//! Guards: what a policy has denied for its sets.
//!
//! What counts is what is stored. A set is under the policy that guarded it before the request, so that nobody gets past a guard by
//! taking off, in one and the same request, the label that it stands on. The hold alone is believed from the new object: whoever may
//! write it may as well have written it before.

use std::collections::BTreeMap;

use super::review::{Metadata, Review, Scale, StatefulSet, Stored, Verb};
use super::verdict::{Question, Reason, Verdict};
use super::{Known, Snapshot, choose, is_out};
use crate::names;
use crate::policy::{Deletion, Policy};

/// Who deletes what the deletion of something else has left: that was decided before. Where the controllers of Kubernetes have no
/// ServiceAccounts of their own, all of them are the controller manager (its flag `--use-service-account-credentials`).
const COLLECTORS: [&str; 3] = [
    "system:serviceaccount:kube-system:generic-garbage-collector",
    "system:serviceaccount:kube-system:namespace-controller",
    "system:kube-controller-manager",
];
/// Annotations that switch guards, with the word that the audit trail has for each.
const SWITCHES: [(&str, &str); 4] =
    [(names::HOLD, "hold"), (names::ALLOW_DELETION, "allow-deletion"), (names::INJECT, "inject"), (names::POLICY, "policy")];

/// May this be done to the set?
pub(super) fn judge(review: &Review<'_>, snapshot: &Snapshot) -> Verdict {
    let request = match Request::read(review) {
        Ok(request) => request,
        // The webhook fails open: what it cannot read, the API server will judge.
        Err(error) => return Verdict::untouched(Reason::Unreadable).warn(format!("no guard looked at this: {error}")),
    };
    let mut verdict = request.judge(review, snapshot);
    // That a guard is switched on or off is written down, whatever else becomes of the request.
    verdict.changes = request.switches();
    if verdict.reason == Reason::NothingToGuard && !verdict.changes.is_empty() {
        verdict.reason = Reason::SwitchChanged;
    }
    verdict
}

/// Nothing is denied to a namespace. That it is opted in or out, or put on hold, is written down.
pub(super) fn namespace(review: &Review<'_>) -> Verdict {
    let (Ok(old), Ok(Some(new))) = (review.old_object::<Stored>(), review.object::<Stored>()) else {
        return Verdict::untouched(Reason::Unreadable);
    };
    // One that is made had nothing before.
    let (old, new) = (old.map(|old| old.metadata).unwrap_or_default(), new.metadata);
    let enabled = old.labels.get(names::ENABLED) != new.labels.get(names::ENABLED);
    let hold = old.annotations.get(names::HOLD) != new.annotations.get(names::HOLD);
    let changes: Vec<_> =
        [(enabled, "enabled"), (hold, "hold")].into_iter().filter_map(|(is, word)| is.then_some(word)).collect();
    let reason = if changes.is_empty() { Reason::NothingToGuard } else { Reason::SwitchChanged };
    Verdict { changes, ..Verdict::untouched(reason) }
}

/// What is asked of a set.
struct Request {
    /// The set's name. A deletion of a whole collection names it only in the object.
    name: String,
    act: Act,
    /// What is stored of the set; `None` where the request does not bring it along.
    stored: Option<Known>,
    /// What it will have; `None` where the request changes none of it.
    annotations: Option<BTreeMap<String, String>>,
}

#[derive(Clone, Copy)]
enum Act {
    Scale { from: i64, to: i64 },
    Delete,
}

/// What the policy has against a request.
struct Denial {
    reason: Reason,
    message: String,
}

impl Request {
    fn read(review: &Review<'_>) -> Result<Self, GuardError> {
        if review.subresource.is_some() {
            let (old, new) = (review.old_object::<Scale>()?, review.object::<Scale>()?);
            let (from, to) = (old.ok_or(GuardError::NoObject)?.replicas(), new.ok_or(GuardError::NoObject)?.replicas());
            let name = review.name.clone().into_owned();
            return Ok(Self { name, act: Act::Scale { from, to }, stored: None, annotations: None });
        }
        let old = review.old_object::<StatefulSet<'_>>()?.ok_or(GuardError::NoObject)?;
        let name = old.metadata.name.clone();
        if review.verb == Verb::Delete {
            return Ok(Self { name, act: Act::Delete, stored: Some(old.metadata.into()), annotations: None });
        }
        let new = review.object::<StatefulSet<'_>>()?.ok_or(GuardError::NoObject)?;
        let act = Act::Scale { from: old.replicas(), to: new.replicas() };
        Ok(Self { name, act, stored: Some(old.metadata.into()), annotations: Some(new.metadata.annotations) })
    }

    fn judge(&self, review: &Review<'_>, snapshot: &Snapshot) -> Verdict {
        if matches!(self.act, Act::Scale { from, to } if to >= from) {
            return Verdict::untouched(Reason::NothingToGuard);
        }
        let known = || snapshot.sets.get(review.namespace.as_ref())?.get(&self.name);
        let Some(stored) = self.stored.as_ref().or_else(known) else {
            let mut verdict = Verdict::untouched(Reason::UnknownSet)
                .warn(format!("no guard looked at this: what is stored of StatefulSet {} could not be read", self.name));
            verdict.question = Some(Question::Set(self.name.clone()));
            return verdict;
        };
        if stored.terminating {
            return Verdict::untouched(Reason::Terminating);
        }
        let deletion = matches!(self.act, Act::Delete);
        if deletion && (COLLECTORS.contains(&review.user.as_ref()) || review.delete_options().orphans()) {
            return Verdict::untouched(Reason::Exempt);
        }
        let Some((policy, _others)) = choose(&review.namespace, &stored.labels, &stored.annotations, snapshot) else {
            let mut verdict = Verdict::untouched(Reason::NoPolicy);
            verdict.question = (!is_out(&stored.annotations)).then_some(Question::Policies);
            return verdict;
        };
        let mut verdict = match self.denial(policy, stored, &review.namespace) {
            Some(denial) => self.deny(denial, stored, snapshot.namespaces.get(review.namespace.as_ref())),
            None => Verdict::untouched(Reason::NothingToGuard),
        };
        verdict.policy = Some((policy.name.clone(), policy.revision.clone()));
        verdict
    }

    fn denial(&self, policy: &Policy, stored: &Known, namespace: &str) -> Option<Denial> {
        let (set, name) = (&self.name, &policy.name);
        match self.act {
            Act::Scale { from, to } => {
                let min = policy.protect.min_replicas.map_or(0, i64::from);
                if to < min {
                    let message = format!(
                        "policy {name} keeps StatefulSet {set} at {min} replicas at least: ask for {min} or more, or annotate the \
                         set with {}=REASON first",
                        names::HOLD
                    );
                    return Some(Denial { reason: Reason::BelowMinReplicas, message });
                }
                (policy.hooks.leave.is_some() && from - to > 1).then(|| Denial {
                    reason: Reason::ScaleInByMany,
                    message: format!(
                        "policy {name} has a leave hook, so the pods of StatefulSet {set} leave one at a time: lower replicas by \
                         one, from {from} to {}, and go on once that pod is gone",
                        from - 1
                    ),
                })
            }
            Act::Delete => {
                let allowed = stored.annotations.get(names::ALLOW_DELETION).is_some_and(|allow| allow == "true");
                (policy.protect.deletion == Deletion::Deny && !allowed).then(|| Denial {
                    reason: Reason::DeletionDenied,
                    message: format!(
                        "policy {name} denies the deletion of StatefulSet {set}: first run `kubectl -n {namespace} annotate \
                         statefulset {set} {}=true`, or keep its pods with --cascade=orphan",
                        names::ALLOW_DELETION
                    ),
                })
            }
        }
    }

    /// Denies, unless the set or its namespace is on hold, or all of the namespace goes. The namespace is asked for only now: it matters
    /// to a denial alone, and one that is not known excuses nothing.
    fn deny(&self, denial: Denial, stored: &Known, namespace: Option<&Known>) -> Verdict {
        let annotations = self.annotations.as_ref().unwrap_or(&stored.annotations);
        let on_hold = |annotations: &BTreeMap<String, String>| annotations.contains_key(names::HOLD);
        if on_hold(annotations) || namespace.is_some_and(|namespace| on_hold(&namespace.annotations)) {
            return Verdict::untouched(Reason::Held).warn(format!("on hold, or it would be denied: {}", denial.message));
        }
        if namespace.is_some_and(|namespace| namespace.terminating) {
            return Verdict::untouched(Reason::Terminating);
        }
        let mut verdict = Verdict::deny(denial.reason, 403, denial.message);
        verdict.question = namespace.is_none().then_some(Question::Namespace);
        verdict
    }

    /// The switches that it changes.
    fn switches(&self) -> Vec<&'static str> {
        let (Some(old), Some(new)) = (&self.stored, &self.annotations) else { return Vec::new() };
        let changed = SWITCHES.iter().filter(|(key, _)| old.annotations.get(*key) != new.get(*key));
        changed.map(|(_, word)| *word).collect()
    }
}

impl From<Metadata> for Known {
    fn from(metadata: Metadata) -> Self {
        let terminating = metadata.is_terminating();
        Self { labels: metadata.labels, annotations: metadata.annotations, terminating, replicas: None }
    }
}

/// Why no guard can look at a request.
#[derive(Debug, thiserror::Error)]
enum GuardError {
    #[error("the object cannot be read: {0}")]
    Object(#[from] serde_json::Error),
    #[error("the request has no object, or no old object")]
    NoObject,
}
