//! What the controller does to pods and what belongs to them, one file a kind. None of it fails a pass: what is refused is held, and comes again.

mod evict;
mod mark;
mod run_hook;

use guardian_core::lifecycle::{Decision, Held, Levels, Observed, Step};
use guardian_core::reason;
use jiff::SignedDuration;
use kube::Client;

use super::api::ApiError;
use super::queue;

pub(super) use run_hook::order;

/// Pause before what was refused is asked for again: a person, or a budget, has to change first.
pub(super) const ASK_AGAIN: SignedDuration = SignedDuration::from_mins(1);

/// Writes to workloads.
pub(super) struct Hands {
    client: Client,
}

impl Hands {
    pub(super) const fn new(client: Client) -> Self {
        Self { client }
    }

    /// Keeps the levels of a decision.
    pub(super) async fn keep(&self, observed: &Observed, levels: &Levels) -> Vec<Held> {
        let mut refused = Vec::new();
        for volume in &levels.marks {
            refused.extend(mark::volume(&self.client, observed, volume).await.err().and_then(|error| held("mark", &error)));
        }
        refused
    }

    /// Evicts the pods that a decision, which is written, wants made anew.
    pub(super) async fn evict(&self, observed: &Observed, decision: &Decision) -> Vec<Held> {
        let mut refused = Vec::new();
        for step in &decision.steps {
            if let Step::Recreate { pod, pod_uid, .. } = step {
                let asked = evict::pod(&self.client, &observed.namespace, pod, pod_uid).await;
                refused.extend(asked.err().and_then(|error| held("recreate", &error)));
            }
        }
        refused
    }
}

/// What a refusal means; `None`: what is known is out of date, and will be known soon.
fn held(scenario: &'static str, error: &ApiError) -> Option<Held> {
    let reason = match error.code() {
        Some(404 | 409 | 422) => return None,
        Some(403) => reason::Hold::Forbidden,
        Some(429) => reason::Hold::Budget,
        _ => reason::Hold::ApiUnavailable,
    };
    Some(Held { scenario, reason, why: queue::chain(error) })
}
