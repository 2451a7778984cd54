//! What a rehearsal tells, line by line.

use jiff::{SignedDuration, Timestamp};
use serde::Serialize;

use crate::ledger::{Record, Verdict};

/// Something that happens.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Line {
    /// Simulated milliseconds since the beginning.
    pub at_ms: u64,
    /// What kind of thing it is.
    pub what: What,
    /// Name of the pod; `None` where it is about the set.
    pub pod: Option<String>,
    /// The hook or task that starts, or that a record is about.
    pub hook: Option<String>,
    /// The reason word, of a start or of a hold.
    pub reason: Option<String>,
    /// 1 for the first attempt, where there is one.
    pub attempt: Option<u32>,
    /// What came of it, in a record.
    pub verdict: Option<Verdict>,
    /// A sentence.
    pub message: String,
}

/// The kinds of lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum What {
    /// The cluster does it, whether there is a guardian or not.
    Cluster,
    /// A hook starts.
    Run,
    /// What the history would have.
    Record,
    /// The guardian sets something right that it keeps: a label, a selector, a budget.
    Level,
    /// Something is due, and not done.
    Hold,
    /// That lasts no longer.
    Released,
}

impl Line {
    /// A line that says no more than its sentence.
    pub(super) fn plain(what: What, pod: Option<&str>, message: String) -> Self {
        let pod = pod.map(str::to_owned);
        Self { at_ms: 0, what, pod, hook: None, reason: None, attempt: None, verdict: None, message }
    }

    pub(super) fn of_record(record: &Record) -> Self {
        Self {
            at_ms: 0,
            what: What::Record,
            pod: Some(record.pod.clone()).filter(|pod| !pod.is_empty()),
            hook: Some(record.hook.clone()),
            reason: Some(record.reason.clone()),
            attempt: record.attempt,
            verdict: Some(record.verdict),
            message: record.message.clone(),
        }
    }

    /// For people, without the time and the pod.
    #[must_use]
    pub fn sentence(&self) -> String {
        let text = |word: &Option<String>| word.clone().unwrap_or_default();
        match self.what {
            What::Cluster | What::Level | What::Run => self.message.clone(),
            What::Record => {
                let verdict = self.verdict.map_or("", Verdict::as_str);
                format!("{} {verdict} ({}): {}", text(&self.hook), text(&self.reason), self.message)
            }
            What::Hold => format!("HOLD {}: {}", text(&self.reason), self.message),
            What::Released => format!("no longer held: {}", text(&self.reason)),
        }
    }
}

/// Milliseconds from one time to another.
pub(super) fn millis(from: Timestamp, to: Timestamp) -> u64 {
    u64::try_from(to.duration_since(from).as_millis()).unwrap_or_default()
}

/// A time in words, to the tenth of a second.
pub(super) fn seconds(time: SignedDuration) -> String {
    let tenths = time.as_millis() / 100;
    if tenths % 10 == 0 { format!("{} s", tenths / 10) } else { format!("{}.{} s", tenths / 10, tenths % 10) }
}
