//! What may go on at once: each episode holds its scope until it closes.

use std::collections::BTreeMap;

use super::step::Step;
use crate::ledger::{Scope, State};

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
        let Step::Run { episode_id, episode, .. } = step else {
            return Ok(());
        };
        let holder = self.whole_set.as_ref().or_else(|| match &episode.scope {
            Scope::Pod(uid) => self.pods.get(uid),
            Scope::Set => self.pods.values().find(|id| *id != episode_id),
        });
        match holder {
            Some(id) if id != episode_id => Err(format!("{id} is not finished")),
            _ => {
                self.hold(episode_id, &episode.scope);
                Ok(())
            }
        }
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
