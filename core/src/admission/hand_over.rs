//! The hand-over before an eviction. A pod that holds the role which its policy's `switchover` hook moves is not evicted before the role
//! has moved, for [`HAND_OVER`] at most.
//!
//! What is known of the hand-over is one Lease, named for the pod's uid. Whoever asks first for the eviction has it made; from its time on
//! every replica of the webhook counts alike. This can delay a drain and never stop one: whatever is not known lets the pod go.

use jiff::{SignedDuration, Timestamp};

use super::review::Review;
use super::verdict::{Decision, HandOver, Question, Reason, Verdict};
use super::{Known, Pod, Snapshot, choose};
use crate::names;
use crate::policy::{Policy, Target};

/// Longest wait for a role to move. Drainers wait longer for one pod: `kubectl drain` without end, the cluster autoscaler 2 minutes.
pub const HAND_OVER: SignedDuration = SignedDuration::from_secs(100);

/// May this pod be evicted now?
pub(super) fn judge(review: &Review<'_>, snapshot: &Snapshot, now: Timestamp) -> Verdict {
    let (namespace, name) = (review.namespace.as_ref(), review.name.as_ref());
    let Some(pod) = snapshot.pods.get(namespace).and_then(|pods| pods.get(name)) else {
        return unanswered(Reason::UnknownPod, Question::Pod(name.to_owned()), &format!("pod {name} is gone or"));
    };
    let (role, set_name) = match holder(pod) {
        Ok(found) => found,
        Err(reason) => return Verdict::untouched(reason),
    };
    let Some(set) = snapshot.sets.get(namespace).and_then(|sets| sets.get(set_name)) else {
        let question = Question::Set(set_name.to_owned());
        return unanswered(Reason::UnknownSet, question, &format!("what is stored of StatefulSet {set_name}"));
    };
    if set.terminating {
        return Verdict::untouched(Reason::Terminating);
    }
    let Some((policy, _others)) = choose(namespace, &set.labels, &set.annotations, snapshot) else {
        return Verdict::untouched(Reason::NoPolicy);
    };
    let eviction = Eviction { review, pod, role, set_name, set, policy };
    Verdict { policy: Some((policy.name.clone(), policy.revision.clone())), ..eviction.judge(snapshot, now) }
}

/// What becomes of a denial whose Lease could not be made: nobody would ever end it, so the pod goes.
#[must_use]
pub fn unrecorded(denied: Verdict) -> Verdict {
    Verdict {
        decision: Decision::Allowed,
        reason: Reason::HandOverUnknown,
        hand_over: None,
        ..denied.warn("evicted with its role: the hand-over could not be written down in time".to_owned())
    }
}

/// The role that the pod has and the set that it is of, or why it has nothing to hand over.
fn holder(pod: &Pod) -> Result<(&str, &str), Reason> {
    let set = pod.set.as_deref().filter(|_| pod.labels.get(names::GUARDED).is_some_and(|guarded| guarded == "true"));
    let set = set.ok_or(Reason::NotGuarded)?;
    if pod.terminating {
        return Err(Reason::Terminating);
    }
    if !pod.ready {
        return Err(Reason::NotReady);
    }
    let role = pod.labels.get(names::ROLE).ok_or(Reason::WithoutRole)?;
    Ok((role, set))
}

/// The eviction of a ready pod that has a role.
struct Eviction<'a> {
    review: &'a Review<'a>,
    pod: &'a Pod,
    role: &'a str,
    set_name: &'a str,
    set: &'a Known,
    policy: &'a Policy,
}

impl Eviction<'_> {
    fn judge(&self, snapshot: &Snapshot, now: Timestamp) -> Verdict {
        let (name, role) = (&self.review.name, self.role);
        let Some(switchover) = &self.policy.hooks.switchover else { return Verdict::untouched(Reason::NothingToGuard) };
        if !matches!(&switchover.target, Some(Target::Role(moved)) if moved == role) {
            return Verdict::untouched(Reason::WithoutRole);
        }
        // The API server writes 1 where the user says nothing.
        if self.set.replicas.unwrap_or(1) < 2 {
            let nobody =
                format!("pod {name} holds the role {role}, and StatefulSet {} has no other replica for it", self.set_name);
            return Verdict::untouched(Reason::OnlyReplica).warn(nobody);
        }
        if self.set.annotations.contains_key(names::HOLD) {
            return self.held();
        }
        let Some(namespace) = snapshot.namespaces.get(self.review.namespace.as_ref()) else {
            return unanswered(Reason::HandOverUnknown, Question::Namespace, "what is stored of the namespace");
        };
        if namespace.terminating {
            return Verdict::untouched(Reason::Terminating);
        }
        if namespace.annotations.contains_key(names::HOLD) {
            return self.held();
        }
        match snapshot.hand_overs.get(&self.pod.uid) {
            None => unanswered(Reason::HandOverUnknown, Question::HandOver(self.pod.uid.clone()), "the Lease of the hand-over"),
            Some(None) => {
                let holder = format!("{}/{name}", self.review.namespace);
                let hand_over = HandOver { pod_uid: self.pod.uid.clone(), holder };
                Verdict { hand_over: Some(hand_over), ..self.wait(HAND_OVER, now) }
            }
            Some(Some(began)) => self.begun(*began, now),
        }
    }

    fn held(&self) -> Verdict {
        Verdict::untouched(Reason::Held).warn(format!("on hold, or the role {} would be handed over first", self.role))
    }

    /// The clocks of two replicas may differ. A Lease of the near future counts as one of now; one that lies further ahead than any
    /// hand-over takes is not believed. So the longest wait is twice [`HAND_OVER`], where clocks are apart by that much.
    fn begun(&self, began: Timestamp, now: Timestamp) -> Verdict {
        let passed = now.duration_since(began);
        let left = HAND_OVER.saturating_sub(passed);
        if passed >= -HAND_OVER && left.is_positive() {
            return self.wait(left.min(HAND_OVER), now);
        }
        let (name, role, most) = (&self.review.name, self.role, HAND_OVER.as_secs());
        Verdict::untouched(Reason::HandOverExpired)
            .warn(format!("pod {name} is evicted with the role {role}: it was not handed over within {most} s"))
    }

    fn wait(&self, left: SignedDuration, now: Timestamp) -> Verdict {
        let (name, role, policy) = (&self.review.name, self.role, &self.policy.name);
        let seconds = left.as_secs() + i64::from(left.subsec_nanos() > 0);
        let until = now.saturating_add(SignedDuration::from_secs(seconds)).unwrap_or(Timestamp::MAX);
        let until = until.strftime("%Y-%m-%dT%H:%M:%SZ");
        let message = format!(
            "pod {name} holds the role {role}, which policy {policy} hands over first: try again until it has moved, or until {until} \
             (in {seconds} s), when the pod can be evicted with it"
        );
        Verdict::deny(Reason::HandingOver, 429, message)
    }
}

/// Lets the pod go, unless whoever can ask the cluster learns better.
fn unanswered(reason: Reason, question: Question, what: &str) -> Verdict {
    let verdict = Verdict::untouched(reason).warn(format!("no hand-over is waited for: {what} could not be read"));
    Verdict { question: Some(question), ..verdict }
}
