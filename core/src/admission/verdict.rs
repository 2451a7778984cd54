//! What is answered to a review.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;

use super::patch::Patch;
use super::tree::push_string;
use crate::policy::Approval;

/// Bytes of one warning. The API server cuts every warning at 256 bytes once all of a response are over 4 KiB, and `kubectl` prints each
/// in a line: this much is shown whole, and is read.
const MAX_WARNING: usize = 200;
/// Bytes of the message of a denial: ten errors of a policy with their places take 3 KiB at most, and what a parser quotes of an object that
/// it cannot read has no bound of its own.
const MAX_MESSAGE: usize = 4 << 10;
/// After how many seconds whoever is told to wait (429) may ask again. Clients built on client-go do so by themselves, ten times and
/// silently, before their user sees the message: so after 10 s. A role that moves faster than that, no user need hear of.
const RETRY_AFTER: u32 = 1;

/// The answer to one request, before it becomes JSON.
#[derive(Clone, Debug)]
pub struct Verdict {
    /// What was decided.
    pub decision: Decision,
    /// Why, in one word of a closed list.
    pub reason: Reason,
    /// What is changed; empty unless the decision is [`Decision::Patched`].
    pub patch: Patch,
    /// Shown to the user by `kubectl`.
    pub warnings: Vec<String>,
    /// Names of the changes made, for the audit line.
    pub changes: Vec<&'static str>,
    /// Name and revision of the policy that took part.
    pub policy: Option<(String, String)>,
    /// What was looked for in the snapshot and not found there. The object may be younger than the snapshot, since policy, PriorityClass
    /// and set often come in one `kubectl apply`: whoever can ask the cluster does, and judges again.
    pub question: Option<Question>,
    /// What has to be written down before this denial is given, unless the request is a dry run.
    pub hand_over: Option<HandOver>,
    /// What is to be recorded before the answer is given; where it cannot be, the answer is no.
    pub approval: Option<Approval>,
}

/// The hand-over of a role that begins with this request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HandOver {
    /// Of the pod that has the role.
    pub pod_uid: String,
    /// Its namespace and name, with a slash between.
    pub holder: String,
}

/// What the cluster may know better than a snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Question {
    /// Is there a policy in the set's namespace that guards it, and is it approved?
    Policies,
    /// Is there a PriorityClass of this name?
    PriorityClass(String),
    /// What is stored of the StatefulSet of this name? The request tells only how many replicas it shall have.
    Set(String),
    /// Is the request's namespace being deleted, or on hold?
    Namespace,
    /// What is stored of the pod of this name?
    Pod(String),
    /// Has the hand-over of the pod with this uid begun, and when?
    HandOver(String),
    /// May whoever asks run commands in the pods of the request's namespace?
    MayExec,
}

/// What was decided about a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Goes through as it came.
    Allowed,
    /// Goes through, changed.
    Patched,
    /// Refused.
    Denied {
        /// HTTP status that the API server gives to its client.
        code: u16,
        /// What is wrong and what to do about it.
        message: String,
    },
}

/// Why it was decided so. Part of the audit trail's schema.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub enum Reason {
    /// A kind, a verb or a subresource that the guardian does not act on.
    NotOurs,
    /// No policy of the namespace guards this set, and nothing of an earlier one was in it.
    NoPolicy,
    /// The object is being deleted, or for an eviction its set or namespace.
    Terminating,
    /// The object could not be read; it was let through.
    Unreadable,
    /// The template is what it was, so nothing in it is changed.
    TemplateUnchanged,
    /// Everything that would be written is there already.
    AlreadyInjected,
    /// Another revision's parts are complete: an undo, or a second call of one admission.
    PinnedByRecord,
    /// The user's part of the template is what it was: the written parts were put back as they were. Of a Service: so was the label that it asks for.
    Restored,
    /// The policy's parts were written into the template.
    Injected,
    /// No policy guards the set any more: the written parts were taken out.
    Removed,
    /// The policy is not applicable to this set; the warnings say why.
    NotApplicable,
    /// A policy that is in order.
    ValidPolicy,
    /// A ConfigMap without the policy label.
    NotAPolicy,
    /// A policy with errors.
    InvalidPolicy,
    /// A policy by somebody who may not run commands in the pods of its namespace.
    NotApproved,
    /// A policy by somebody of whom nobody said in time whether he may.
    NotAnswered,
    /// A policy whose approval could not be written down.
    NotRecorded,
    /// The policy that would guard the set is not approved; the set goes through as it came.
    AwaitsApproval,
    /// No guard of the policy has anything against it.
    NothingToGuard,
    /// Fewer replicas than the policy's `minReplicas`.
    BelowMinReplicas,
    /// Several pods would leave at once, and the policy has a `leave` hook, which runs for one.
    ScaleInByMany,
    /// The policy denies the deletion.
    DeletionDenied,
    /// It would be denied, were not the set or its namespace on hold.
    Held,
    /// A deletion that no policy denies: the pods stay, or Kubernetes itself deletes what its owner's deletion has left.
    Exempt,
    /// A scale-in or an eviction that was let through, since nobody could say what is stored of the set.
    UnknownSet,
    /// What switches guards, an annotation or the label that opts a namespace in, was put on, changed or taken off; the line's changes
    /// say which.
    SwitchChanged,
    /// The eviction of a pod that no StatefulSet of ours has.
    NotGuarded,
    /// The eviction of a pod that is not ready: it serves nobody who would notice.
    NotReady,
    /// The eviction of a pod without the role that the policy's `switchover` hook moves.
    WithoutRole,
    /// The eviction of a pod with the role, and the set has no other that could take it over.
    OnlyReplica,
    /// The eviction of a pod that is gone, or of which nobody could say what is stored.
    UnknownPod,
    /// The eviction waits until the role has moved.
    HandingOver,
    /// The role has not moved in time: the pod is evicted with it.
    HandOverExpired,
    /// Nobody could say whether a hand-over has begun, or write down that it has: the pod is evicted with its role.
    HandOverUnknown,
}

impl Verdict {
    /// Goes through as it came.
    #[must_use]
    pub fn untouched(reason: Reason) -> Self {
        Self {
            decision: Decision::Allowed,
            reason,
            patch: Patch::default(),
            warnings: Vec::new(),
            changes: Vec::new(),
            policy: None,
            question: None,
            hand_over: None,
            approval: None,
        }
    }

    /// Refused, with an HTTP status for the client and a sentence that says what to do.
    #[must_use]
    pub fn deny(reason: Reason, code: u16, mut message: String) -> Self {
        cut(&mut message, MAX_MESSAGE);
        Self { decision: Decision::Denied { code, message }, ..Self::untouched(reason) }
    }

    /// With one more warning.
    #[must_use]
    pub fn warn(mut self, warning: String) -> Self {
        self.warnings.push(warning);
        self
    }

    /// With its warnings cut to [`MAX_WARNING`].
    pub(super) fn with_short_warnings(mut self) -> Self {
        self.warnings.iter_mut().for_each(|warning| cut(warning, MAX_WARNING));
        self
    }

    /// The `AdmissionReview` that answers request `uid`, as bytes.
    #[must_use]
    pub fn to_response(&self, uid: &str) -> Vec<u8> {
        let patch = self.patch.to_bytes();
        let mut answer = String::with_capacity(512 + patch.len() / 3 * 4);
        answer.push_str(r#"{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","response":{"uid":"#);
        push_string(uid, &mut answer);
        answer.push_str(r#","allowed":"#);
        answer.push_str(if matches!(self.decision, Decision::Denied { .. }) { "false" } else { "true" });
        if !self.patch.is_empty() {
            // Most of the answer, and base64 needs no escapes: so it is put together by hand.
            answer.push_str(r#","patchType":"JSONPatch","patch":""#);
            STANDARD.encode_string(patch, &mut answer);
            answer.push('"');
        }
        if let Decision::Denied { code, message } = &self.decision {
            let details = (*code == 429).then_some(Details { retry_after_seconds: RETRY_AFTER });
            push_json("status", &Status { code: *code, message, reason: status_reason(*code), details }, &mut answer);
        }
        if !self.warnings.is_empty() {
            push_json("warnings", &self.warnings, &mut answer);
        }
        answer.push_str("}}");
        answer.into_bytes()
    }
}

/// Appends a member that is not the first one.
fn push_json(name: &str, value: &impl Serialize, out: &mut String) {
    let json = serde_json::to_string(value).unwrap_or_default(); // strings and numbers: serialising them cannot fail
    out.extend([",\"", name, "\":", &json]);
}

/// Cuts a text to so many bytes, and shows that it was cut.
fn cut(text: &mut String, most: usize) {
    if text.len() > most {
        text.truncate(text.floor_char_boundary(most - '…'.len_utf8()));
        text.push('…');
    }
}

/// `metav1.StatusReason` that belongs to a code, so that clients treat the denial rightly.
fn status_reason(code: u16) -> &'static str {
    match code {
        422 => "Invalid",
        429 => "TooManyRequests",
        503 => "ServiceUnavailable",
        _ => "Forbidden",
    }
}

#[derive(Serialize)]
struct Status<'a> {
    code: u16,
    message: &'a str,
    reason: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    details: Option<Details>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Details {
    retry_after_seconds: u32,
}

#[cfg(test)]
mod tests {
    use super::super::tree::Tree;
    use super::*;

    #[test]
    fn an_answer_has_what_was_decided_and_nothing_else() {
        let answer = |verdict: &Verdict| String::from_utf8(verdict.to_response("u\"1")).unwrap();
        let start = r#"{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","response":{"uid":"u\"1","allowed":"#;
        let allowed = Verdict::untouched(Reason::NoPolicy);
        assert_eq!(answer(&allowed), format!("{start}true}}}}"));

        let mut patched = allowed.warn("one\n".to_owned()).warn("two".to_owned());
        patched.patch.add("/spec", &Tree::text("1"));
        let patch = STANDARD.encode(r#"[{"op":"add","path":"/spec","value":1}]"#);
        let warnings = r#""warnings":["one\n","two"]"#;
        assert_eq!(answer(&patched), format!(r#"{start}true,"patchType":"JSONPatch","patch":"{patch}",{warnings}}}}}"#));

        let denied = Verdict::deny(Reason::HandingOver, 429, "\"later\"".to_owned()).warn("why".to_owned());
        let status = r#"{"code":429,"message":"\"later\"","reason":"TooManyRequests","details":{"retryAfterSeconds":1}}"#;
        assert_eq!(answer(&denied), format!(r#"{start}false,"status":{status},"warnings":["why"]}}}}"#));
    }
}
