//! What may go on at once: each episode holds its scope until it closes.

use std::collections::BTreeMap;

use super::observed::Observed;
use super::step::Step;
use crate::ledger::{Scope, State};
use crate::policy::{Policy, Quorum};

/// How many pods must stay ready. Below three replicas it is at most one less than there are: else nothing could ever be done.
pub(crate) fn quorum(policy: Option<&Policy>, observed: &Observed) -> usize {
    let replicas = observed.set.ordinals.len();
    let asked = policy.and_then(|policy| policy.protect.quorum).unwrap_or(Quorum::Majority);
    let asked = usize::try_from(asked.of(u64::try_from(replicas).unwrap_or(u64::MAX))).unwrap_or(usize::MAX);
    if replicas < 3 { asked.min(replicas.saturating_sub(1)) } else { asked }
}

/// The scopes that are held, and by which episode.
pub(super) struct Room {
    whole_set: Option<String>,
    pods: BTreeMap<String, String>,
}

impl Room {
    pub(super) fn new(ledger: &State) -> Self {
        let mut room = Self { whole_set: None, pods: BTreeMap::new() };
        for (id, episode) in &ledger.episodes {
            room.hold(id, &episode.scope);
        }
        room
    }

    /// Takes the scope that a step needs, or says who holds it.
    pub(super) fn take(&mut self, step: &Step) -> Result<(), String> {
        let (Step::Run { episode_id, episode, .. } | Step::Open { episode_id, episode }) = step else {
            return Ok(());
        };
        match self.holder(&episode.scope, episode_id) {
            Some(id) => Err(format!("{id} is not finished")),
            None => {
                self.hold(episode_id, &episode.scope);
                Ok(())
            }
        }
    }

    /// The other episode that holds what this one needs.
    pub(super) fn holder(&self, scope: &Scope, episode_id: &str) -> Option<&str> {
        let holder = self.whole_set.as_ref().or_else(|| match scope {
            Scope::Pod(uid) => self.pods.get(uid),
            Scope::Set => self.pods.values().find(|id| *id != episode_id),
        });
        holder.map(String::as_str).filter(|id| *id != episode_id)
    }

    fn hold(&mut self, id: &str, scope: &Scope) {
        match scope {
            Scope::Set => self.whole_set = Some(id.to_owned()),
            Scope::Pod(uid) => {
                self.pods.insert(uid.clone(), id.to_owned());
            }
        }
    }
}
