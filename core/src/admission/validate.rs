//! Validation of policy ConfigMaps: is this a policy that can be acted on, and may its author have commands run in pods?
//!
//! Who is judged is the author of this request. What the object says of an approval means nothing: an annotation that is set to a new
//! value only has its author judged like one who writes the policy anew.

use super::Snapshot;
use super::review::{ConfigMap, Review};
use super::verdict::{Question, Reason, Verdict};
use crate::names;
use crate::policy::{self, Approval, Policy};

/// May this ConfigMap be stored?
pub(super) fn policy(review: &Review<'_>, map: &ConfigMap, snapshot: &Snapshot) -> Verdict {
    // What cannot be read counts as something else than what comes.
    let old = review.old_object::<ConfigMap>().ok().flatten().filter(is_policy);
    if !is_policy(map) {
        let leaves = old.and_then(|old| author_may_not(review, &old, snapshot));
        return leaves.unwrap_or_else(|| Verdict::untouched(Reason::NotAPolicy));
    }
    if !map.binary_data.is_empty() {
        let keys: Vec<&str> = map.binary_data.keys().map(String::as_str).collect();
        let keys = keys.join(", ");
        return Verdict::deny(Reason::InvalidPolicy, 422, format!("binaryData is not read ({keys}): put text into `data`"));
    }
    let policy = match policy::parse(&map.metadata.name, &map.data) {
        Ok(policy) => policy,
        Err(invalid) => return Verdict::deny(Reason::InvalidPolicy, 422, invalid.to_string()),
    };
    let mut verdict = Verdict::untouched(Reason::ValidPolicy);
    if old.is_none_or(|old| is_to_be_approved(&old, map)) {
        verdict = author_may_not(review, map, snapshot).unwrap_or_else(|| approved(review, &policy));
    }
    verdict.warnings.extend(policy.warnings());
    verdict.policy = Some((policy.name, policy.revision));
    verdict
}

fn is_policy(map: &ConfigMap) -> bool {
    map.metadata.labels.get(names::POLICY).map(String::as_str) == Some("true")
}

/// Does a change of a policy make it another one, or ask for its approval?
fn is_to_be_approved(old: &ConfigMap, new: &ConfigMap) -> bool {
    let asks = |map: &ConfigMap| map.metadata.annotations.get(names::APPROVE).cloned();
    new.data != old.data || !old.binary_data.is_empty() || (asks(new).is_some() && asks(new) != asks(old))
}

fn approved(review: &Review<'_>, policy: &Policy) -> Verdict {
    let mut verdict = Verdict::untouched(Reason::ValidPolicy);
    if !review.dry_run {
        verdict.changes.push("approval");
        verdict.approval = Some(Approval {
            namespace: review.namespace.clone().into_owned(),
            policy: policy.name.clone(),
            digest: policy.digest.clone(),
            user: review.user.clone().into_owned(),
        });
    }
    verdict
}

/// The denial of a change by somebody who may not run commands in the namespace's pods himself, or of whom that is not known.
fn author_may_not(review: &Review<'_>, map: &ConfigMap, snapshot: &Snapshot) -> Option<Verdict> {
    let (name, user, namespace) = (&map.metadata.name, &review.user, &review.namespace);
    match snapshot.may_exec {
        Some(true) => None,
        Some(false) => {
            let message = format!(
                "policy {name} is code that runs in pods: to change it, {user} needs the right to create pods/exec in namespace \
                 {namespace}, which is missing: get it, or have somebody who has it apply the policy"
            );
            Some(Verdict::deny(Reason::NotApproved, 403, message))
        }
        None => {
            let message = format!(
                "policy {name} is code that runs in pods: whether {user} may create pods/exec in namespace {namespace} could not be \
                 found out in time: try again"
            );
            let mut verdict = Verdict::deny(Reason::NotAnswered, 503, message);
            verdict.question = Some(Question::MayExec);
            Some(verdict)
        }
    }
}
