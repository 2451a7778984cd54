//! Connections that wait for the next questions to their container.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::Questions;
use super::spoken::Session;

/// Most connections that wait. One takes about 3.5 MB of resident memory in all (runner, container runtime, kubelet, API server; `make bench-collect`),
/// so these are at most 0.9 GB, over all nodes.
pub(super) const MOST: usize = 256;

/// A container of one pod, whoever has its name later.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    namespace: String,
    pod_uid: String,
    container: String,
}

/// Connections over which a container was asked, each as long as its runner waits.
#[derive(Default)]
pub(super) struct Kept {
    sessions: Mutex<BTreeMap<Place, (Session, Instant)>>,
}

impl Place {
    pub(super) fn of(questions: &Questions) -> Self {
        let Questions { namespace, container, request, .. } = questions;
        Self { namespace: namespace.clone(), pod_uid: request.pod_uid.clone(), container: container.clone() }
    }
}

impl Kept {
    /// Is there one?
    pub(super) fn has(&self, place: &Place) -> bool {
        self.sessions().contains_key(place)
    }

    /// Takes the one to this container, if its runner is there.
    pub(super) fn take(&self, place: &Place) -> Option<Session> {
        let (mut session, _) = self.sessions().remove(place)?;
        (!session.has_ended()).then_some(session)
    }

    /// Keeps a connection whose runner was told to wait for another request, unless there are too many, or another to this container.
    pub(super) fn put(&self, place: Place, session: Session, questions: &Questions) {
        let (now, waits) = (Instant::now(), Duration::from_millis(questions.request.wait_ms));
        let mut sessions = self.sessions();
        sessions.retain(|_, (session, until)| *until > now && !session.has_ended());
        if !waits.is_zero() && sessions.len() < MOST {
            sessions.entry(place).or_insert((session, now + waits));
        }
    }

    fn sessions(&self) -> MutexGuard<'_, BTreeMap<Place, (Session, Instant)>> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
