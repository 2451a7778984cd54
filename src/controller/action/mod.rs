//! What the controller does to pods and what belongs to them, one file a kind. None of it fails a pass: what is refused is held, and comes again.

mod ask;
mod end_hand_over;
mod evict;
mod keep_budget;
mod label_role;
mod label_serving;
mod mark;
mod release;
mod resize;
mod run_hook;
mod select_serving;

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use guardian_core::lifecycle::{Decision, Held, Levels, Observed, Step};
use guardian_core::reason;
use jiff::SignedDuration;
use kube::Client;

use super::api::ApiError;
use super::{SetKey, queue};

pub(super) use ask::questions;
pub(crate) use run_hook::prepared;
pub(super) use run_hook::{order, surroundings};

/// Pause before what was refused is asked for again: a person, or a budget, has to change first.
pub(super) const ASK_AGAIN: SignedDuration = SignedDuration::from_mins(1);

/// Pause before a level is set again that could not be: one call of each set in so long is nothing to an API server that is not well.
const LABEL_AGAIN: SignedDuration = SignedDuration::from_secs(5);

/// What could not be kept as it should be.
#[derive(Default)]
pub(super) struct Refused {
    /// To be told.
    pub(super) holds: Vec<Held>,
    /// When it is tried again.
    pub(super) again: Option<SignedDuration>,
}

impl Refused {
    fn ask_again(&mut self, pause: SignedDuration) {
        self.again = self.again.into_iter().chain([pause]).min();
    }

    /// What was refused is held, and tried again.
    fn take(&mut self, scenario: &'static str, asked: Result<(), ApiError>) {
        if let Err(error) = asked {
            self.ask_again(if error.is_denied() { ASK_AGAIN } else { LABEL_AGAIN });
            self.holds.extend(held(scenario, &error));
        }
    }
}

/// Writes to workloads.
pub(super) struct Hands {
    client: Client,
    installation: String,
    /// What the API server has said to acts that it refuses for good, by set and episode; kept until the ledger has it.
    refused: Mutex<BTreeMap<SetKey, BTreeMap<String, String>>>,
}

impl Hands {
    pub(super) const fn new(client: Client, installation: String) -> Self {
        Self { client, installation, refused: Mutex::new(BTreeMap::new()) }
    }

    /// What was refused for good to a set, by episode.
    pub(super) fn refused(&self, set: &SetKey) -> BTreeMap<String, String> {
        self.lock().get(set).cloned().unwrap_or_default()
    }

    /// What the ledger has no more is forgotten.
    pub(super) fn keep_only(&self, set: &SetKey, is_open: impl Fn(&str) -> bool) {
        let mut refused = self.lock();
        if let Some(of_set) = refused.get_mut(set) {
            of_set.retain(|episode, _| is_open(episode));
            if of_set.is_empty() {
                refused.remove(set);
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<SetKey, BTreeMap<String, String>>> {
        self.refused.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps the levels of a decision.
    pub(super) async fn keep(&self, observed: &Observed, levels: &Levels) -> Refused {
        let mut refused = Refused::default();
        for volume in &levels.marks {
            refused.holds.extend(mark::volume(&self.client, observed, volume).await.err().and_then(|error| held("mark", &error)));
        }
        refused.again = (!refused.holds.is_empty()).then_some(ASK_AGAIN);
        for change in &levels.roles {
            let Err(error) = label_role::label_role(&self.client, &observed.namespace, change).await else { continue };
            tracing::warn!(
                namespace = observed.namespace,
                pod = change.pod,
                error = queue::chain(&error),
                "its role is not its label"
            );
            let again = if error.is_denied() { ASK_AGAIN } else { LABEL_AGAIN };
            refused.ask_again(again);
            refused.holds.extend(held("role", &error).filter(|_| error.is_denied()));
        }
        if let Some(change) = &levels.budget {
            refused.take("disruptionBudget", keep_budget::keep_budget(&self.client, observed, change).await);
        }
        for change in &levels.serving {
            refused.take("shed", label_serving::label_serving(&self.client, &observed.namespace, change).await);
        }
        for change in &levels.selectors {
            match select_serving::select_serving(&self.client, observed, change).await {
                Ok(None) => {}
                Ok(Some(why)) => {
                    refused.holds.push(Held { scenario: "shed", reason: reason::Hold::NotSelected, why });
                    refused.ask_again(ASK_AGAIN);
                }
                Err(error) => refused.take("shed", Err(error)),
            }
        }
        for hand_over in &levels.hand_overs {
            // Nobody waits for it: whoever evicts the pod looks at its role first, and the webhook sweeps.
            if let Err(error) = end_hand_over::end_hand_over(&self.client, &self.installation, hand_over).await {
                tracing::warn!(lease = hand_over.lease, error = queue::chain(&error), "the Lease of a hand-over stays for now");
            }
        }
        refused
    }

    /// Evicts the pods that a decision, which is written, wants made anew, deletes those that were fenced, and resizes those that are to have more.
    pub(super) async fn carry_out(&self, set: &SetKey, observed: &Observed, decision: &Decision) -> Vec<Held> {
        let mut refused = Vec::new();
        for step in &decision.steps {
            let (scenario, asked) = match step {
                Step::Recreate { pod, pod_uid, pod_version, .. } => {
                    ("recreate", evict::pod(&self.client, &observed.namespace, pod, pod_uid, pod_version).await)
                }
                Step::Release { pod, pod_uid, .. } => {
                    ("fence", release::pod(&self.client, &observed.namespace, pod, pod_uid).await)
                }
                Step::Resize { episode_id, pod, pod_uid, resize, .. } => {
                    let asked = resize::pod(&self.client, &observed.namespace, pod, pod_uid, resize).await;
                    let refusal = asked.as_ref().err().and_then(|error| resize::refusal(error, pod));
                    if let Some(why) = refusal {
                        self.lock().entry(set.clone()).or_default().insert(episode_id.clone(), why);
                        continue;
                    }
                    ("resize", asked)
                }
                _ => continue,
            };
            refused.extend(asked.err().and_then(|error| held(scenario, &error)));
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
