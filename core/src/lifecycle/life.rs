//! Lives belong to volumes: whether the data of a pod is new, or that of a member of a cluster that was there before. A set that is deleted and
//! made again on its old volumes goes on where it was; `bootstrap` and `join` are for data that is new.
//!
//! What is known of a volume: the ledger, which has no owner and outlives the set; the mark on the claim, which outlives the ledger; and what a
//! person has said (`guardian adopt`). Of a volume without any of these, only its age tells, and never guess with data: what could be older than
//! the pod is of unknown history.

use jiff::SignedDuration;

use super::decide::View;
use super::observed::Pod;
use crate::ledger::Adopted;

/// How long after its claim a pod may have been made that is the first on it. The StatefulSet controller makes the claim and then the pod, in the
/// same second; a quota or an admission webhook that is away may hold up the pod for a few of its retries.
const FIRST_POD_WITHIN: SignedDuration = SignedDuration::from_secs(60);
/// The same in a set that was changed since it was made: it may have had other pods, and no pod stops, goes and is made again sooner.
const FIRST_POD_OF_CHANGED_SET_WITHIN: SignedDuration = SignedDuration::from_secs(1);

/// Whose data is it?
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Life {
    /// A member's: it goes on.
    GoesOn,
    /// Nobody's yet.
    New,
    /// The pod runs, and its claim was not seen yet. It will be.
    Unseen,
    /// Nothing tells; a sentence about why.
    Unknown(String),
}

/// Whose data does the pod of an ordinal have?
pub(super) fn of(view: &View<'_>, ordinal: u32, pod: &Pod) -> Life {
    let (set, ledger) = (&view.observed.set, view.ledger);
    let answered = ledger.answered.get(&ordinal);
    if !set.has_volumes {
        return of_a_set_without_volumes(view, answered.is_some());
    }
    let Some(volume) = view.observed.volumes.get(&ordinal) else {
        return Life::Unseen;
    };
    let is_known = answered.is_some_and(|a| match &a.volume {
        Some(uid) => *uid == volume.uid,
        // Answered before volumes were written down, or while the set had none.
        None => ledger.set_uid == set.uid,
    });
    let within = if set.unchanged { FIRST_POD_WITHIN } else { FIRST_POD_OF_CHANGED_SET_WITHIN };
    match ledger.volumes.get(&volume.uid) {
        _ if is_known || volume.is_member => Life::GoesOn,
        Some(Adopted::Member) => Life::GoesOn,
        Some(Adopted::New) => Life::New,
        None if volume.created < set.created => Life::Unknown(format!("claim {} is older than the set", volume.claim)),
        None if pod.created.duration_since(volume.created) > within => {
            Life::Unknown(format!("claim {} is older than pod {}, so another pod may have used it", volume.claim, pod.name))
        }
        None => Life::New,
    }
}

/// Without volumes, data lives as long as the members that copy it from each other: in one set.
fn of_a_set_without_volumes(view: &View<'_>, is_answered: bool) -> Life {
    let (set, ledger) = (&view.observed.set, view.ledger);
    match ledger.volumes.get(&set.uid) {
        _ if is_answered && ledger.set_uid == set.uid => Life::GoesOn,
        Some(Adopted::Member) => Life::GoesOn,
        Some(Adopted::New) => Life::New,
        None if set.unchanged || ledger.bootstrapped && ledger.set_uid == set.uid => Life::New,
        None => Life::Unknown("the set was changed since it was made, so it may have run before the guardian saw it".to_owned()),
    }
}

/// Is this another life of a set of the same name? The ledger is of an older set, and none of its data is left.
pub(super) fn is_another(view: &View<'_>) -> bool {
    let (observed, ledger) = (view.observed, view.ledger);
    let older = ledger.set_uid != observed.set.uid && (ledger.bootstrapped || !ledger.answered.is_empty());
    let mut lives = observed.pods.iter().map(|(ordinal, pod)| of(view, *ordinal, pod)).peekable();
    older && lives.peek().is_some() && lives.all(|life| life == Life::New)
}
