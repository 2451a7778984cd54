//! What a rehearsal has told, and counted.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;

use super::line::{Line, What, millis};
use super::world::World;
use crate::ledger::Record;
use crate::lifecycle::{Held, Pod};
use crate::reason;

/// What was told so far.
#[derive(Default)]
pub(super) struct Telling {
    pub(super) began: Timestamp,
    pub(super) lines: Vec<Line>,
    /// The holds that last.
    pub(super) held: BTreeSet<(reason::Hold, String)>,
    /// The last failure of each pod's hooks, where no success came after it.
    pub(super) failed: BTreeMap<String, Record>,
    /// The least number of ready pods, and when there were so few for the first time.
    pub(super) least: Option<(usize, Timestamp)>,
    /// Since when all have been ready.
    pub(super) whole: Option<Timestamp>,
}

impl World<'_> {
    pub(super) fn tell(&mut self, what: What, pod: Option<&str>, message: String) {
        self.line(Line::plain(what, pod, message));
    }

    pub(super) fn line(&mut self, line: Line) {
        self.telling.lines.push(Line { at_ms: millis(self.telling.began, self.now), ..line });
    }

    /// Counts the pods that are ready.
    pub(super) fn count(&mut self) {
        let ready = self.observed.pods.values().filter(|pod| pod.serves()).count();
        if self.telling.least.is_none_or(|(least, _)| ready < least) {
            self.telling.least = Some((ready, self.now));
        }
        let ordinals = &self.observed.set.ordinals;
        let all = ordinals.clone().all(|ordinal| self.observed.pods.get(&ordinal).is_some_and(Pod::serves));
        let is_whole = all && self.observed.pods.len() == ordinals.len();
        self.telling.whole = if is_whole { self.telling.whole.or(Some(self.now)) } else { None };
    }

    /// Tells of the holds that are new, and of those that are over.
    pub(super) fn tell_holds(&mut self, holds: &[Held]) {
        let now: BTreeSet<_> = holds.iter().map(|held| (held.reason, held.why.clone())).collect();
        let before = std::mem::replace(&mut self.telling.held, now.clone());
        let ended = before.difference(&now).map(|held| (What::Released, held));
        let changes: Vec<_> = ended.chain(now.difference(&before).map(|held| (What::Hold, held))).collect();
        for (what, (reason, why)) in changes {
            self.tell_hold(what, *reason, why);
        }
    }

    pub(super) fn tell_hold(&mut self, what: What, reason: reason::Hold, why: &str) {
        let line = Line { reason: Some(reason.to_string()), ..Line::plain(what, None, why.to_owned()) };
        self.line(line);
    }
}
