//! The ledger of a set: what the guardian has answered, what it is doing, and what it did.
//!
//! It lives in the ConfigMap `guardian-ledger-<set>`, under two keys. `state` is one JSON document, on which decisions are based. `history`
//! is one JSON record a line, for people; no decision reads it. Whatever a newer guardian of the same format has added survives a read and
//! a write by this one; a newer format is not touched.

mod history;
mod lasting;
mod resize;
mod start;

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

pub use history::{MAX_RECORD, MAX_RECORDS, Record, Verdict};
pub use lasting::{Failure, Failures, Fired, Hold, MAX_FAILURES, Shed};
pub use resize::Resize;
pub use start::Start;

/// The format that this version reads and writes.
pub const FORMAT: u32 = 1;

/// Most bytes of `state` and `history` together: half of what the API server takes for one ConfigMap (1 MiB), which leaves room for
/// metadata and for the keys of others.
pub const MAX_BYTES: usize = 512 * 1024;

/// Most bytes of `state`. One ordinal takes at most 0.5 KiB at rest and 1.5 KiB during an episode, so 300 pods of one set can fail at once,
/// and 64 KiB stay for the history.
pub const MAX_STATE: usize = MAX_BYTES - 64 * 1024;

/// Name of the ConfigMap: this, and the set's name.
pub const NAME_PREFIX: &str = "guardian-ledger-";
/// Key of the ConfigMap that holds the state.
pub const STATE_KEY: &str = "state";
/// Key of the ConfigMap that holds the history.
pub const HISTORY_KEY: &str = "history";

/// Fields that a newer guardian wrote.
pub type Rest = BTreeMap<String, Value>;

/// All that is kept of a set.
#[derive(Clone, Debug, PartialEq)]
pub struct Ledger {
    /// What decisions are based on.
    pub state: State,
    /// One JSON record a line, oldest first.
    history: Vec<String>,
}

/// What decisions are based on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct State {
    /// [`FORMAT`].
    pub format: u32,
    /// `metadata.uid` of the set that was seen last.
    pub set_uid: String,
    /// There is a cluster in these volumes: the `bootstrap` hook has run, or members were there before there was such a hook.
    #[serde(default)]
    pub bootstrapped: bool,
    /// What a person has said of volumes whose history is unknown, by `metadata.uid` of the claim; by that of the set where it has no volumes.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub volumes: BTreeMap<String, Adopted>,
    /// The ordinal after the last one that was seen: a start beyond it is a scale-out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replicas: Option<u32>,
    /// What was tried and is not tried again before something changes, by scenario.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub given_up: BTreeMap<String, GivenUp>,
    /// Pods that were made anew because their hook failed, by ordinal, since it last succeeded.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub recreated: BTreeMap<u32, u32>,
    /// Hand-overs whose hook has ended, by `metadata.uid` of the pod: when each began.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub handed_over: BTreeMap<String, Timestamp>,
    /// Pods of lost nodes whose `fence` hook did not prove that they cannot write, by `metadata.uid`: when it ended.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub unfenced: BTreeMap<String, Timestamp>,
    /// Pods that no Service of `traffic` sends to, by `metadata.uid`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub sheds: BTreeMap<String, Shed>,
    /// The last start of each ordinal that needs nothing more. A start needs an answer if and only if it differs from this.
    #[serde(default)]
    pub answered: BTreeMap<u32, Start>,
    /// What is going on, by id.
    #[serde(default)]
    pub episodes: BTreeMap<String, Episode>,
    /// Attempts that are claimed and whose end is not known, by run id.
    #[serde(default)]
    pub runs: BTreeMap<String, Run>,
    /// The rules that have set in and are not undone yet, by `RULE/POD UID`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub rules: BTreeMap<String, Fired>,
    /// What rules by cause count, by ordinal.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub failures: BTreeMap<u32, Failures>,
    /// Whether and why the guardian has stopped trying.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub breaker: Option<Value>,
    /// When each rule that has a budget set in, as long as that counts.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub budgets: BTreeMap<String, Vec<Timestamp>>,
    /// What is due and not done, for whoever asks. Nothing is decided on it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub holds: Vec<Hold>,
    /// What a newer guardian added.
    #[serde(flatten)]
    pub rest: Rest,
}

/// What a person has said of a volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Adopted {
    /// It holds the data of a member of the cluster.
    Member,
    /// It holds nothing that matters.
    New,
}

/// Something that was tried in vain.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GivenUp {
    /// Revision of the policy that it was tried with. Another one is tried.
    pub revision: String,
    /// It is not known how far it came: then another revision is not tried either.
    #[serde(default)]
    pub unknown: bool,
    /// What happened.
    pub why: String,
    /// What a newer guardian added.
    #[serde(flatten)]
    pub rest: Rest,
}

/// Something that goes on over several passes, and holds a scope until it closes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Episode {
    /// The scenario that advances it.
    pub scenario: String,
    /// The hook, or the act, at which it is.
    #[serde(default)]
    pub hook: String,
    /// The hook that follows, however this one ends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub then: Option<String>,
    /// What it holds.
    pub scope: Scope,
    /// The reason word that opened it.
    pub reason: String,
    /// The same in a sentence.
    #[serde(default)]
    pub why: String,
    /// Name of the pod, where it is about one.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub pod: String,
    /// Ordinal of the pod, where it is about one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ordinal: Option<u32>,
    /// The start that it answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start: Option<Start>,
    /// The pod's IP before that start, where it was another.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub old_ip: Option<String>,
    /// When it was opened.
    pub opened: Timestamp,
    /// Attempts that were claimed so far.
    #[serde(default)]
    pub attempts: u32,
    /// Not before this is the next attempt made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<Timestamp>,
    /// What a container is to have, where that is its act.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resize: Option<Resize>,
    /// What a newer guardian added.
    #[serde(flatten)]
    pub rest: Rest,
}

/// What an episode holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Scope {
    /// One pod, by uid.
    Pod(String),
    /// The whole set.
    Set,
}

/// A claimed attempt.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Run {
    /// The episode it belongs to.
    pub episode: String,
    /// Name of the hook.
    pub hook: String,
    /// Name of the pod in which it runs.
    pub pod: String,
    /// `metadata.uid` of that pod.
    pub pod_uid: String,
    /// Container in which it runs.
    pub container: String,
    /// 1 for the first.
    pub attempt: u32,
    /// When it was claimed.
    pub claimed: Timestamp,
    /// The time out it was claimed with, in milliseconds.
    pub timeout_ms: u64,
    /// What a newer guardian added.
    #[serde(flatten)]
    pub rest: Rest,
}

/// Why a ledger cannot be used. Nothing is done for its set as long as that lasts.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// Written by a newer guardian.
    #[error("the ledger has format {found}, this guardian knows {FORMAT}: run the newer guardian that wrote it")]
    TooNew {
        /// The format found.
        found: u32,
    },
    /// No `state`.
    #[error("the ledger has no key {STATE_KEY}: delete the ConfigMap to begin anew, every ordinal then counts as never seen")]
    Missing,
    /// Damaged.
    #[error("the ledger cannot be read: mend it, or delete the ConfigMap to begin anew, every ordinal then counts as never seen")]
    Unreadable(#[source] serde_json::Error),
    /// No room.
    #[error("the state of the set takes {bytes} bytes, at most {MAX_STATE} fit into its ledger")]
    Full {
        /// What it takes.
        bytes: usize,
    },
    /// It cannot be written as JSON.
    #[error("the ledger cannot be written as JSON")]
    Unwritable(#[source] serde_json::Error),
}

/// Name of the ConfigMap that holds a set's ledger. A set's name has at most 63 characters in practice (its pods carry it in a label), so
/// this stays below the 253 of a ConfigMap.
#[must_use]
pub fn name_for(set: &str) -> String {
    format!("{NAME_PREFIX}{set}")
}

impl Ledger {
    /// The ledger of a set that is seen for the first time.
    #[must_use]
    pub fn new(set_uid: &str) -> Self {
        Self { state: State::new(set_uid), history: Vec::new() }
    }

    /// From the data of its ConfigMap.
    ///
    /// # Errors
    /// When it is of a newer format, or damaged.
    pub fn read(data: &BTreeMap<String, String>) -> Result<Self, LedgerError> {
        #[derive(Deserialize)]
        struct Format {
            format: u32,
        }
        let text = data.get(STATE_KEY).ok_or(LedgerError::Missing)?;
        let Format { format } = serde_json::from_str(text).map_err(LedgerError::Unreadable)?;
        if format > FORMAT {
            return Err(LedgerError::TooNew { found: format });
        }
        let history = data.get(HISTORY_KEY).map(String::as_str).unwrap_or_default();
        Ok(Self {
            state: serde_json::from_str(text).map_err(LedgerError::Unreadable)?,
            history: history.lines().map(str::to_owned).collect(),
        })
    }

    /// Into the data of its ConfigMap, beside whatever else it holds. The oldest records give way to the state.
    ///
    /// # Errors
    /// When the state alone is over [`MAX_STATE`].
    pub fn write(&self, data: &mut BTreeMap<String, String>) -> Result<(), LedgerError> {
        let state = serde_json::to_string(&self.state).map_err(LedgerError::Unwritable)?;
        if state.len() > MAX_STATE {
            return Err(LedgerError::Full { bytes: state.len() });
        }
        let room = MAX_BYTES - state.len();
        data.insert(HISTORY_KEY.to_owned(), history::join_newest(&self.history, room));
        data.insert(STATE_KEY.to_owned(), state);
        Ok(())
    }

    /// Adds a record; beyond [`MAX_RECORDS`] the oldest goes.
    pub fn record(&mut self, record: &Record) {
        self.history.push(record.line());
        let surplus = self.history.len().saturating_sub(MAX_RECORDS);
        self.history.drain(..surplus);
    }

    /// The records that this version can read, oldest first.
    pub fn records(&self) -> impl Iterator<Item = Record> {
        self.history.iter().filter_map(|line| serde_json::from_str(line).ok())
    }
}

impl State {
    /// Nothing is known of the set yet.
    #[must_use]
    pub fn new(set_uid: &str) -> Self {
        Self {
            format: FORMAT,
            set_uid: set_uid.to_owned(),
            bootstrapped: false,
            volumes: BTreeMap::new(),
            replicas: None,
            given_up: BTreeMap::new(),
            recreated: BTreeMap::new(),
            handed_over: BTreeMap::new(),
            unfenced: BTreeMap::new(),
            sheds: BTreeMap::new(),
            answered: BTreeMap::new(),
            episodes: BTreeMap::new(),
            runs: BTreeMap::new(),
            rules: BTreeMap::new(),
            failures: BTreeMap::new(),
            breaker: None,
            budgets: BTreeMap::new(),
            holds: Vec::new(),
            rest: Rest::new(),
        }
    }

    /// Notes what is there now of the set: its identity, and how many pods it is meant to have. An ordinal that it is not meant to have begins anew
    /// when it comes back. Part of every write.
    pub fn sees(&mut self, set_uid: &str, ordinals: &std::ops::Range<u32>) {
        set_uid.clone_into(&mut self.set_uid);
        self.replicas = Some(self.replicas.map_or(ordinals.end, |seen| seen.min(ordinals.end)));
        self.recreated.retain(|ordinal, _| ordinals.contains(ordinal));
    }

    /// Notes that a start needs nothing more. Whatever was answered is part of a cluster that is there.
    pub(crate) fn answer(&mut self, ordinal: u32, start: Start) {
        self.bootstrapped = true;
        self.replicas = self.replicas.map(|seen| seen.max(ordinal.saturating_add(1)));
        self.answered.insert(ordinal, start);
    }

    /// A person has looked at volumes whose history is unknown, and says what they are. What was given up may be tried.
    pub fn adopt(&mut self, volumes: impl IntoIterator<Item = String>, what: Adopted) {
        self.volumes.extend(volumes.into_iter().map(|uid| (uid, what)));
        self.given_up.clear();
    }

    /// Notes that the hook of a hand-over has ended. Those that began an hour earlier are forgotten: their Leases live for 11 minutes.
    pub(crate) fn hand_over(&mut self, pod_uid: &str, began: Timestamp) {
        self.handed_over.retain(|_, other| began.duration_since(*other) < jiff::SignedDuration::from_hours(1));
        self.handed_over.insert(pod_uid.to_owned(), began);
    }

    /// Forgets what was known of older data under the same name.
    pub(crate) fn begin_anew(&mut self) {
        self.bootstrapped = false;
        self.replicas = None;
        self.answered.clear();
        self.given_up.clear();
        self.recreated.clear();
        self.failures.clear();
    }
}

#[cfg(test)]
mod tests;
