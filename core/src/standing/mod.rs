//! How a set stands to its policy: what was written into it, what would be written now, and what waits for its next template change.
//!
//! Nothing is worked out here a second time: [`judge`] is asked, as the API server asks the webhook, what it would do with a change that
//! leaves everything as it is but the template's restart mark, which is what `kubectl rollout restart` sets.

mod change;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::{Value, json};

pub use change::Change;

use crate::admission::{self, Decision, Reason, Record, Review, ReviewError, Settings, Snapshot, Verdict};
use crate::names;

/// What `kubectl rollout restart` changes in a template.
const RESTARTED: &str = "kubectl.kubernetes.io/restartedAt";

/// How a set stands to its policy.
#[derive(Clone, Debug)]
pub struct Standing {
    /// In one word.
    pub state: State,
    /// Name and revision of the policy in force that guards it.
    pub policy: Option<(String, String)>,
    /// Name and revision of the policy that would guard it, were it approved; none is in force then.
    pub awaits: Option<(String, String)>,
    /// What was written into its template.
    pub record: Option<Record>,
    /// The set is on hold, and why.
    pub hold: Option<String>,
    /// What its next template change will take up, field by field; where it awaits an approval, the next one after that.
    pub next: Vec<Change>,
    /// What its owner will be told then.
    pub warnings: Vec<String>,
    /// The set as its next template change leaves it, the restart mark aside.
    pub after: Value,
}

/// How a set stands to its policy, in one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum State {
    /// What the policy in force wants is in the template.
    Guarded,
    /// Its next template change takes up another revision, or another form of this one.
    Pending,
    /// A policy guards it, and nothing is written: it was admitted before the policy, or while the webhook was away.
    Unguarded,
    /// A policy guards it that cannot be applied to it.
    NotApplicable,
    /// The policy that selects it is not approved: nothing is written, and what was written stays.
    AwaitsApproval,
    /// No policy guards it any more; its next template change takes out what was written.
    Leaving,
    /// No policy guards it.
    NoPolicy,
}

/// Why nothing can be said about a set.
#[derive(Debug, thiserror::Error)]
pub enum StandingError {
    /// It cannot be asked about.
    #[error(transparent)]
    Review(#[from] ReviewError),
    /// It is not of the shape of a StatefulSet.
    #[error("{0}")]
    Unreadable(String),
    /// The patch that was decided on does not fit.
    #[error("the patch does not fit: {0}")]
    Patch(#[from] json_patch::PatchError),
    /// The patch that was decided on cannot be read.
    #[error("the patch cannot be read: {0}")]
    Operations(#[from] serde_json::Error),
}

/// Decides about `object` as the webhook does when somebody creates it, or, with what is stored of it, updates it.
///
/// # Errors
/// When the object cannot be put into a review.
pub fn rehearse(
    object: &Value,
    old: Option<&Value>,
    namespace: &str,
    snapshot: &Snapshot,
    settings: &Settings,
) -> Result<Verdict, ReviewError> {
    let review = json!({
        "apiVersion": "admission.k8s.io/v1",
        "kind": "AdmissionReview",
        "request": {
            "uid": "offline",
            "kind": {"group": "apps", "version": "v1", "kind": "StatefulSet"},
            "resource": {"group": "apps", "version": "v1", "resource": "statefulsets"},
            "operation": if old.is_some() { "UPDATE" } else { "CREATE" },
            "namespace": namespace,
            "name": object.pointer("/metadata/name"),
            "object": object,
            "oldObject": old,
        },
    })
    .to_string();
    Ok(admission::judge(&Review::parse(&review)?, snapshot, settings))
}

/// `object` with what `verdict` writes into it.
///
/// # Errors
/// When the patch does not fit, which would be an error of ours.
pub fn patched(object: &Value, verdict: &Verdict) -> Result<Value, StandingError> {
    let patch: json_patch::Patch = serde_json::from_slice(&verdict.patch.to_bytes())?;
    let mut object = object.clone();
    json_patch::patch(&mut object, &patch)?;
    Ok(object)
}

/// What a set that is made new would get, field by field.
///
/// # Errors
/// When it is not a StatefulSet that can be read.
pub fn of_new(set: &Value, namespace: &str, snapshot: &Snapshot, settings: &Settings) -> Result<Standing, StandingError> {
    let verdict = rehearse(set, None, namespace, snapshot, settings)?;
    standing(set, set, verdict, snapshot, namespace)
}

/// How a set that is stored stands.
///
/// # Errors
/// When it is not a StatefulSet that can be read.
pub fn of_stored(set: &Value, namespace: &str, snapshot: &Snapshot, settings: &Settings) -> Result<Standing, StandingError> {
    let mut restarted = set.clone();
    let before = mark(&mut restarted, Some(json!("rehearsed")));
    let verdict = rehearse(&restarted, Some(set), namespace, snapshot, settings)?;
    let awaits = verdict.reason == Reason::AwaitsApproval;
    let mut told = standing(&restarted, set, verdict, snapshot, namespace)?;
    if awaits {
        let approved = Snapshot { policies: snapshot.waiting.clone(), waiting: BTreeMap::new(), ..snapshot.clone() };
        let verdict = rehearse(&restarted, Some(set), namespace, &approved, settings)?;
        let mut once = standing(&restarted, set, verdict, &approved, namespace)?;
        once.awaits = once.policy.take();
        once.state = State::AwaitsApproval;
        once.warnings.splice(0..0, told.warnings);
        told = once;
    }
    mark(&mut told.after, before);
    Ok(told)
}

fn standing(
    object: &Value,
    set: &Value,
    verdict: Verdict,
    snapshot: &Snapshot,
    namespace: &str,
) -> Result<Standing, StandingError> {
    if verdict.reason == Reason::Unreadable || matches!(verdict.decision, Decision::Denied { .. }) {
        return Err(StandingError::Unreadable(verdict.warnings.join("; ")));
    }
    let record = record(set);
    let policy = verdict.policy.clone();
    let state = match (&policy, &record, verdict.patch.is_empty()) {
        (None, None, _) => State::NoPolicy,
        (None, Some(_), _) => State::Leaving,
        (Some(_), _, _) if verdict.reason == Reason::NotApplicable => State::NotApplicable,
        (Some(_), Some(_), true) => State::Guarded,
        (Some(_), None, true) => State::NotApplicable,
        (Some(_), Some(_), false) if verdict.reason == Reason::Removed => State::NotApplicable,
        (Some(_), Some(_), false) => State::Pending,
        (Some(_), None, false) => State::Unguarded,
    };
    let policies = snapshot.policies.get(namespace);
    let in_force = policy.as_ref().and_then(|(name, _)| policies?.get(name)).map(AsRef::as_ref);
    Ok(Standing {
        state,
        next: change::changes(object, &verdict.patch, in_force)?,
        after: patched(object, &verdict)?,
        hold: annotation(set, names::HOLD),
        policy,
        awaits: None,
        record,
        warnings: verdict.warnings,
    })
}

impl Standing {
    /// Why it stands so, in one sentence for whoever looks at it.
    #[must_use]
    pub fn because(&self) -> String {
        let own = self.record.as_ref();
        let next = "at the next change of its template, such as `kubectl rollout restart`";
        match self.state {
            State::Guarded => String::new(),
            State::Pending => match (own, &self.policy) {
                (Some(own), Some((name, _))) if own.policy != *name => {
                    format!("policy {name} guards it now, {} did before: taken up {next}", own.policy)
                }
                (Some(own), Some((_, revision))) if own.revision != *revision => {
                    format!("the policy was edited: taken up {next}")
                }
                _ => format!("the guardian writes this policy in another form now, or the template was altered: taken up {next}"),
            },
            State::Unguarded => format!("admitted before its policy, or while the webhook was away: guarded {next}"),
            State::NotApplicable => self.warnings.first().cloned().unwrap_or_else(|| "the policy cannot be applied".to_owned()),
            State::AwaitsApproval => self.warnings.first().cloned().unwrap_or_else(|| "its policy is not approved".to_owned()),
            State::Leaving => format!("no policy guards it any more: what was written goes {next}"),
            State::NoPolicy => "no policy selects it".to_owned(),
        }
    }
}

/// What was written into the set's template; `None` where there is no record that can be read.
#[must_use]
pub fn record(set: &Value) -> Option<Record> {
    serde_json::from_str(set.pointer("/spec/template/metadata/annotations")?.get(names::INJECTED)?.as_str()?).ok()
}

fn annotation(set: &Value, name: &str) -> Option<String> {
    Some(set.pointer("/metadata/annotations")?.get(name)?.as_str()?.to_owned())
}

/// Sets the restart mark of the template, or takes it away, and gives what stood there.
fn mark(set: &mut Value, value: Option<Value>) -> Option<Value> {
    let template = set.pointer_mut("/spec/template")?.as_object_mut()?;
    let metadata = template.entry("metadata").or_insert_with(|| json!({}));
    if metadata.is_null() {
        *metadata = json!({});
    }
    let annotations = metadata.as_object_mut()?.entry("annotations").or_insert_with(|| json!({}));
    if annotations.is_null() {
        *annotations = json!({});
    }
    let annotations = annotations.as_object_mut()?;
    match value {
        Some(value) => annotations.insert(RESTARTED.to_owned(), value),
        None => annotations.remove(RESTARTED),
    }
}

/// The policies of one namespace as a snapshot, with nothing else known: every PriorityClass is believed to exist.
#[must_use]
pub fn snapshot(namespace: &str, policies: BTreeMap<String, std::sync::Arc<crate::policy::Policy>>) -> Snapshot {
    Snapshot { policies: BTreeMap::from([(namespace.to_owned(), policies)]), ..Snapshot::default() }
}
