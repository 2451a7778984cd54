//! The history: one record a line, for people.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::Rest;

/// Most records that are kept.
pub const MAX_RECORDS: usize = 200;

/// Most bytes of one record: 200 of them are 400 KiB, which leaves 112 KiB of the ledger for the state before the history has to give way.
pub const MAX_RECORD: usize = 2 * 1024;

/// Something that the guardian did, or found that it need not do.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Record {
    /// When.
    pub at: Timestamp,
    /// The hook.
    pub hook: String,
    /// The reason word: why it was due.
    pub reason: String,
    /// What came of it.
    pub verdict: Verdict,
    /// Name of the pod.
    pub pod: String,
    /// `metadata.uid` of the pod.
    pub pod_uid: String,
    /// Id of the run, where there was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<String>,
    /// 1 for the first attempt, where there was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attempt: Option<u32>,
    /// A sentence.
    pub message: String,
    /// What a newer guardian added.
    #[serde(flatten)]
    pub rest: Rest,
}

/// What came of a start or an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Verdict {
    /// The hook ended with exit code 0.
    Succeeded,
    /// An attempt failed, and there will be another.
    Retrying,
    /// The last attempt failed.
    Failed,
    /// The pod or its container was replaced meanwhile: a new start, with its own answer.
    Superseded,
    /// The policy has nothing to run.
    Skipped,
    /// Nothing was due: a first start.
    Noted,
}

impl Verdict {
    /// The word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Succeeded => "Succeeded",
            Self::Retrying => "Retrying",
            Self::Failed => "Failed",
            Self::Superseded => "Superseded",
            Self::Skipped => "Skipped",
            Self::Noted => "Noted",
        }
    }
}

impl Record {
    /// One line of JSON of at most [`MAX_RECORD`] bytes: the sentence is cut until it fits.
    pub(super) fn line(&self) -> String {
        let mut record = self.clone();
        loop {
            let line = serde_json::to_string(&record).unwrap_or_default();
            if line.len() <= MAX_RECORD || record.message.is_empty() {
                return line;
            }
            // One byte of the message takes at most six in JSON, so a surplus of n bytes is gone after a few rounds.
            let surplus = (line.len() - MAX_RECORD).div_ceil(6).max(1);
            let keep = record.message.floor_char_boundary(record.message.len().saturating_sub(surplus));
            record.message.truncate(keep);
        }
    }
}

/// The newest lines that fit into `room` bytes, oldest first.
pub(super) fn join_newest(lines: &[String], room: usize) -> String {
    let mut used = 0;
    let fitting = lines.iter().rev().take_while(|line| {
        used += line.len() + 1;
        used <= room
    });
    let first = lines.len() - fitting.count();
    lines.get(first..).unwrap_or_default().join("\n")
}
