//! What can happen next.

use std::sync::Arc;

use super::world::{Condition, Guardian, Id, Phase, Place, Stage, World};

/// One thing that happens. A controller, and a pod, by its number.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Action {
    /// A controller sees the pods as they are.
    Watch(usize),
    /// It reads the ledger, and decides.
    Pass(usize),
    Save(usize),
    HandOver(usize),
    Evict(usize),
    /// The runner is asked.
    Exec(usize, Id),
    Succeeds(Id, Place),
    RunsAgain(usize),
    Goes(usize),
    IsMade(usize),
    /// Nothing is to be done: the time comes at which somebody wants to look again.
    Wait,
    Stops(usize),
    IsDeleted(usize),
    Fails(Id, Place),
    Dies(usize),
    /// The ledger is written, and the controller does not hear of it.
    SavesUnheard(usize),
    /// Its connection to a runner is cut, or does not come about.
    IsCut(usize, Id),
    Delay,
}

/// How often what may happen that is not the guardian's doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Faults {
    /// Of all of the following together.
    pub(super) all: u8,
    /// A container ends.
    pub(super) stops: u8,
    /// A pod is deleted.
    pub(super) deletions: u8,
    /// A hook fails.
    pub(super) failures: u8,
    /// A controller dies and another begins in its place, its connection to a runner is cut, or the answer to its write is lost.
    pub(super) losses: u8,
    /// More time passes than anybody waits for.
    pub(super) delays: u8,
}

impl Faults {
    pub(super) const NONE: Self = Self { all: 0, stops: 0, deletions: 0, failures: 0, losses: 0, delays: 0 };

    /// Counts it, if it is one.
    pub(super) fn take(&mut self, action: &Action) {
        let left = match action {
            Action::Stops(_) => &mut self.stops,
            Action::IsDeleted(_) => &mut self.deletions,
            Action::Fails(..) => &mut self.failures,
            Action::Dies(_) | Action::SavesUnheard(_) | Action::IsCut(..) => &mut self.losses,
            Action::Delay => &mut self.delays,
            Action::Watch(_)
            | Action::Pass(_)
            | Action::Save(_)
            | Action::HandOver(_)
            | Action::Evict(_)
            | Action::Exec(..)
            | Action::Succeeds(..)
            | Action::RunsAgain(_)
            | Action::Goes(_)
            | Action::IsMade(_)
            | Action::Wait => return,
        };
        *left -= 1;
        self.all -= 1;
    }
}

impl World {
    /// What may go wrong now.
    pub(super) fn faults(&self, next: &mut Vec<Action>) {
        let Faults { all, stops, deletions, failures, losses, delays } = self.left;
        if all == 0 {
            return;
        }
        for (n, _) in self.members.iter().enumerate().filter(|(_, member)| member.is == Condition::Runs) {
            next.extend((stops > 0).then_some(Action::Stops(n)));
            next.extend((deletions > 0).then_some(Action::IsDeleted(n)));
        }
        let running = self.claims.iter().filter(|(_, claim)| failures > 0 && claim.end.is_none());
        next.extend(running.map(|((id, place), _)| Action::Fails(Arc::clone(id), *place)));
        for (n, guardian) in self.guardians.iter().enumerate().filter(|_| losses > 0) {
            next.extend(guardian.has_something_to_lose().then_some(Action::Dies(n)));
            let is_to_save = matches!(guardian.phase, Phase::Decided { is_newest: true, .. });
            next.extend(is_to_save.then_some(Action::SavesUnheard(n)));
            let connected = guardian.jobs.iter().filter(|(_, job)| !matches!(job.stage, Stage::Ended(_)));
            next.extend(connected.map(|(id, _)| Action::IsCut(n, Arc::clone(id))));
        }
        let is_waited_for =
            !self.book.state.episodes.is_empty() || self.guardians.iter().any(|guardian| guardian.phase != Phase::Idle);
        next.extend((delays > 0 && is_waited_for).then_some(Action::Delay));
    }
}

impl Guardian {
    fn has_something_to_lose(&self) -> bool {
        !self.jobs.is_empty() || self.phase != Phase::Idle
    }
}
