//! What lasts for a time: what is undone then, and what waits.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{Rest, State};
use crate::lifecycle::Held;

/// Most holds that are kept of a set: as many as a person reads. With [`MAX_WHY`] they take 12 KiB of the state at most.
const MAX_HOLDS: usize = 20;
/// Most bytes of the sentence of a hold, of which few take more than one in JSON.
const MAX_WHY: usize = 512;

/// Most failures of an ordinal that are kept: a rule by cause waits for no more. With their reasons they take 0.3 KiB.
pub const MAX_FAILURES: usize = 5;

/// The failures of the pods of an ordinal, where a rule counts them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Failures {
    /// `metadata.uid` of the pod whose start was looked at last.
    pub pod_uid: String,
    /// `containerID` of that start.
    pub container_id: String,
    /// `restartCount` then.
    pub restarts: u32,
    /// The newest of them, oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub recent: Vec<Failure>,
    /// When each rule set in for them last: what was before counts for it no more.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub spent: BTreeMap<String, Timestamp>,
    /// What a newer guardian added.
    #[serde(flatten)]
    pub rest: Rest,
}

/// One failure.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Failure {
    /// When it was seen.
    pub at: Timestamp,
    /// The reason word.
    pub reason: String,
}

/// Something that is due and not done.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Hold {
    /// The scenario that wants it; empty: all of them.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub scenario: String,
    /// The word.
    pub reason: String,
    /// A sentence.
    pub why: String,
    /// Since when.
    pub since: Timestamp,
    /// What a newer guardian added.
    #[serde(flatten)]
    pub rest: Rest,
}

impl Hold {
    fn of(held: &Held, since: Timestamp) -> Self {
        let mut why = held.why.clone();
        why.truncate(why.floor_char_boundary(MAX_WHY));
        let (scenario, reason) = (held.scenario.to_owned(), held.reason.to_string());
        Self { scenario, reason, why, since, rest: Rest::new() }
    }

    fn is(&self, other: &Self) -> bool {
        (&self.scenario, &self.reason, &self.why) == (&other.scenario, &other.reason, &other.why)
    }
}

impl State {
    /// Notes what is due and not done now; what was so before keeps its time. Did anything change?
    pub fn keep_holds(&mut self, held: &[Held], now: Timestamp) -> bool {
        let mut holds: Vec<Hold> = Vec::new();
        for mut hold in held.iter().map(|held| Hold::of(held, now)) {
            if let Some(before) = self.holds.iter().find(|before| before.is(&hold)) {
                hold.since = before.since;
            }
            if holds.len() < MAX_HOLDS && !holds.iter().any(|other| other.is(&hold)) {
                holds.push(hold);
            }
        }
        let same = holds.len() == self.holds.len() && holds.iter().all(|hold| self.holds.iter().any(|before| before.is(hold)));
        if !same {
            self.holds = holds;
        }
        !same
    }
}

/// A pod that no Service of `traffic` sends to, for a time.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Shed {
    /// Name of the pod.
    pub pod: String,
    /// When it began.
    pub since: Timestamp,
    /// When it ends, whatever happens; `None`: with its rule.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Timestamp>,
    /// Key of the rule that has shed it; `None`: a person.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
    /// Why, in the words of whoever asked for it.
    #[serde(default)]
    pub why: String,
    /// The hook that ends the connections which were there has run.
    #[serde(default)]
    pub drained: bool,
    /// What a newer guardian added.
    #[serde(flatten)]
    pub rest: Rest,
}

/// A rule that has set in for a pod.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Fired {
    /// Its name.
    pub rule: String,
    /// Name of the pod.
    pub pod: String,
    /// `metadata.uid` of the pod.
    pub pod_uid: String,
    /// When.
    pub since: Timestamp,
    /// Actions that had their turn.
    #[serde(default)]
    pub actions: u32,
    /// When the last one had.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub acted: Option<Timestamp>,
    /// Since when it is over, and being undone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub over: Option<Timestamp>,
    /// The tasks that undo it, as they were named when it set in.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub undo: Vec<String>,
    /// Of which so many had their turn.
    #[serde(default)]
    pub undone: u32,
    /// A task or a hook was run for it.
    #[serde(default)]
    pub ran: bool,
    /// What a newer guardian added.
    #[serde(flatten)]
    pub rest: Rest,
}
