//! Roles: what a pod prints of itself, and which pod may carry it as its label.
//!
//! A probe prints one line, `ROLE` or `ROLE VERSION`. The version makes the role one that a single pod holds: of two that claim it, the higher
//! version (a term, an epoch, a timeline) has it, and the other, which has not noticed yet, loses its label. A role without a version is held by
//! whoever prints it, as replicas are. What cannot be decided changes no label.

use std::collections::BTreeMap;
use std::time::Duration;

use guardian_hook::protocol::Sample;
use jiff::{SignedDuration, Timestamp};

use crate::{probe, reason};

/// A pod that has not told its role for three intervals of its probe loses it, and never before this: one that fails once is not silent, and a
/// node that is busy for some seconds is not gone.
const LEAST_SILENCE: SignedDuration = SignedDuration::from_secs(15);

/// What a pod says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// The role: 1 to 63 letters, digits, `-`, `_` and `.`, beginning and ending with a letter or digit, as a label value must be.
    pub role: String,
    /// Orders the claims of one role.
    pub version: Option<u64>,
}

/// Why the output of a role probe is no claim.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// Nothing, or blanks.
    #[error("it printed nothing, where one line `ROLE` or `ROLE VERSION` is expected")]
    Nothing,
    /// More than one line.
    #[error("it printed {0} lines, where one is expected: `ROLE` or `ROLE VERSION`")]
    Lines(usize),
    /// More than two words.
    #[error("it printed {0} words, where `ROLE` or `ROLE VERSION` is expected")]
    Words(usize),
    /// A role that cannot be the value of a label.
    #[error("{0:?} is no role: 1 to 63 letters, digits, `-`, `_`, `.`, a letter or digit at both ends")]
    Role(String),
    /// A version that is no number.
    #[error("{0:?} is no version: a whole number from 0 to {max}", max = u64::MAX)]
    Version(String),
}

impl Claim {
    /// Reads the standard output of a role probe.
    ///
    /// # Errors
    /// Whatever is not exactly one claim.
    pub fn parse(output: &str) -> Result<Self, Malformed> {
        let mut lines = output.lines().map(str::trim).filter(|line| !line.is_empty());
        let line = lines.next().ok_or(Malformed::Nothing)?;
        match lines.count() {
            0 => {}
            more => return Err(Malformed::Lines(more + 1)),
        }
        let words: Vec<&str> = line.split_whitespace().collect();
        let (role, version) = match words[..] {
            [role] => (role, None),
            [role, version] => (role, Some(version)),
            _ => return Err(Malformed::Words(words.len())),
        };
        if !is_label_value(role) {
            return Err(Malformed::Role(cut(role)));
        }
        let number = |text: &str| {
            let digits = text.bytes().all(|b| b.is_ascii_digit());
            text.parse().ok().filter(|_| digits).ok_or_else(|| Malformed::Version(cut(text)))
        };
        Ok(Self { role: role.to_owned(), version: version.map(number).transpose()? })
    }
}

/// So much of a word as fits into a sentence.
fn cut(word: &str) -> String {
    word.chars().take(64).collect()
}

/// A value that a label can have and that says something.
#[must_use]
pub fn is_label_value(text: &str) -> bool {
    let inner = text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'));
    let ends = |c: char| c.is_ascii_alphanumeric();
    (1..=63).contains(&text.len()) && inner && text.starts_with(ends) && text.ends_with(ends)
}

/// What is known of the role of one pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Witness {
    /// Since when it is known: before, silence means nothing.
    pub since: Timestamp,
    /// What it last said, and when.
    pub claim: Option<(Claim, Timestamp)>,
    /// `None`: its last word stands, also when nobody had the time to ask.
    pub silence: Option<Silence>,
}

/// A pod that says nothing that counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Silence {
    /// When it was first asked in vain, or could not be asked any more.
    pub since: Timestamp,
    /// What came in place of an answer, then; `None`: its container does not run.
    pub why: Option<String>,
}

/// What follows from all that is known of a set's roles.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ruling {
    /// Ordinals whose label has to change, and to what; `None`: it goes.
    pub changes: BTreeMap<u32, Option<String>>,
    /// What is wrong, in a word and a sentence.
    pub holds: Vec<(reason::Hold, String)>,
    /// When silence turns into a loss, if nothing comes before.
    pub wake: Option<Timestamp>,
}

/// A pod as it is ruled over.
#[derive(Clone, Copy, Debug)]
pub struct Candidate<'a> {
    /// Its name.
    pub name: &'a str,
    /// The label that it has.
    pub label: Option<&'a str>,
    /// What is known; `None`: nothing yet, so its label stays.
    pub witness: Option<&'a Witness>,
}

/// After how long a silent pod loses its role, where it is asked every so often: three intervals, at least 15 s.
#[must_use]
pub fn silence(every: Duration) -> SignedDuration {
    let three = SignedDuration::try_from(every.saturating_mul(3)).unwrap_or(SignedDuration::MAX);
    three.max(LEAST_SILENCE)
}

/// Which label each pod of a set should have.
#[must_use]
pub fn rule(pods: &BTreeMap<u32, Candidate<'_>>, every: Duration, now: Timestamp) -> Ruling {
    let mut ruling = Ruling::default();
    let mut claims: BTreeMap<u32, &Claim> = BTreeMap::new();
    let mut labels: BTreeMap<u32, Option<&str>> = BTreeMap::new();
    for (ordinal, pod) in pods {
        let Some(witness) = pod.witness else { continue };
        match witness.lost_at(every) {
            Some(at) if now >= at => {
                labels.insert(*ordinal, None);
                let why = witness.silence.as_ref().and_then(|silence| silence.why.as_ref());
                let hold = why.map(|why| (reason::Hold::RoleUnknown, format!("pod {} does not tell its role: {why}", pod.name)));
                ruling.holds.extend(hold);
                continue;
            }
            at => ruling.wake = ruling.wake.into_iter().chain(at).min(),
        }
        claims.extend(witness.claim.as_ref().map(|(claim, _)| (*ordinal, claim)));
    }
    for (ordinal, claim) in &claims {
        let rivals: Vec<u32> = claims.iter().filter(|(_, other)| other.role == claim.role).map(|(n, _)| *n).collect();
        let top = rivals.iter().filter_map(|n| claims.get(n)?.version).max();
        let equals: Vec<u32> = rivals.into_iter().filter(|n| claims.get(n).is_some_and(|c| c.version == top)).collect();
        if claim.version != top {
            // Another pod holds it by a higher version.
            labels.insert(*ordinal, None);
        } else if top.is_none() || equals.len() == 1 {
            labels.insert(*ordinal, Some(&claim.role));
        } else if equals.first() == Some(ordinal) {
            let names: Vec<&str> = equals.iter().filter_map(|n| Some(pods.get(n)?.name)).collect();
            let (role, version) = (&claim.role, top.unwrap_or_default());
            let why =
                format!("{} claim the role {role} with version {version}: their labels stay as they are", names.join(" and "));
            ruling.holds.push((reason::Hold::RoleContested, why));
        }
    }
    let differs = |(n, label): &(u32, Option<&str>)| pods.get(n).is_some_and(|pod| pod.label != *label);
    ruling.changes = labels.into_iter().filter(differs).map(|(n, label)| (n, label.map(str::to_owned))).collect();
    ruling
}

impl Witness {
    /// When its silence makes it lose its role: so long after its last word, and not before it was asked for one whole interval.
    fn lost_at(&self, every: Duration) -> Option<Timestamp> {
        let asked = self.silence.as_ref()?.since;
        let heard = self.claim.as_ref().map_or(self.since, |(_, at)| *at);
        let interval = SignedDuration::try_from(every).unwrap_or(SignedDuration::MAX);
        let later = |at: Timestamp, pause| at.saturating_add(pause).unwrap_or(Timestamp::MAX);
        Some(later(heard, silence(every)).max(later(asked, interval)))
    }
}

/// What the answer to a role probe says, or what it is instead. The sentence is the same as long as the probe fails in the same way.
///
/// # Errors
/// Whatever is no claim.
pub fn judge(answer: &Sample) -> Result<Claim, String> {
    let text = probe::output(answer).map_err(|failure| format!("its role probe {}", failure.why))?;
    Claim::parse(text).map_err(|why| why.to_string())
}

#[cfg(test)]
mod tests;
