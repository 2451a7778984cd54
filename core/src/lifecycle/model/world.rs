//! A set, its ledger and those who guard it, at one moment: small, and equal where nothing tells two of them apart.

use std::collections::BTreeMap;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use super::super::Decision;
use super::happens::Faults;
use crate::ledger::{Scope, State};

/// Pods of the set: with three, a majority is not all of them.
pub(super) const PODS: usize = 3;

/// Id of a run.
pub(super) type Id = Arc<str>;

/// Where a run takes place: in the pod of an ordinal, and which of those that had this ordinal.
pub(super) type Place = (u8, u8);

/// The pod with this `metadata.uid`.
pub(super) fn place(pod_uid: &str) -> Place {
    let (ordinal, generation) = pod_uid.trim_start_matches('o').split_once('g').unwrap();
    (ordinal.parse().unwrap(), generation.parse().unwrap())
}

/// Everything that there is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct World {
    /// Seconds since the beginning.
    pub(super) now: u32,
    pub(super) members: [Member; PODS],
    pub(super) book: Book,
    /// What the runners in the pods have claimed, ever.
    pub(super) claims: BTreeMap<(Id, Place), Claim>,
    /// In order, since nothing tells two of them apart but what they know.
    pub(super) guardians: Vec<Guardian>,
    /// What may still go wrong.
    pub(super) left: Faults,
}

/// The pod of an ordinal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Member {
    pub(super) generation: u8,
    pub(super) restarts: u8,
    pub(super) created: u32,
    pub(super) started: u32,
    pub(super) is: Condition,
    /// A guardian has evicted it.
    pub(super) evicted: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Condition {
    Runs,
    /// Its container has ended.
    Waits,
    Terminates,
    Gone,
}

impl Member {
    pub(super) fn takes_exec(&self) -> bool {
        matches!(self.is, Condition::Runs | Condition::Terminates)
    }

    pub(super) fn serves(&self) -> bool {
        self.is == Condition::Runs
    }

    /// Another one after each change.
    pub(super) fn version(&self) -> String {
        format!("{}{:?}", self.restarts, self.is)
    }
}

/// The state of a ledger as it is written.
#[derive(Clone)]
pub(super) struct Book {
    pub(super) text: Arc<str>,
    pub(super) state: Arc<State>,
}

impl Book {
    /// Written, and read back: what does not survive that is gone.
    pub(super) fn new(state: &State) -> Self {
        let text = serde_json::to_string(state).unwrap();
        let state = serde_json::from_str(&text).unwrap();
        Self { text: text.into(), state: Arc::new(state) }
    }

    /// No two open episodes hold one pod, and one that holds the set is alone.
    pub(super) fn is_without_clash(&self) -> bool {
        let scopes: Vec<&Scope> = self.state.episodes.values().map(|episode| &episode.scope).collect();
        let whole = scopes.contains(&&Scope::Set);
        let twice = scopes.iter().enumerate().any(|(n, scope)| scopes.iter().skip(n + 1).any(|other| other == scope));
        !twice && (!whole || scopes.len() == 1)
    }
}

impl std::fmt::Debug for Book {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.text)
    }
}

impl PartialEq for Book {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for Book {}

impl PartialOrd for Book {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Book {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.text.cmp(&other.text)
    }
}

impl Hash for Book {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        self.text.hash(hasher);
    }
}

/// What a runner keeps of an id.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Claim {
    /// Processes that it has started for it.
    pub(super) starts: u8,
    /// How it ended; `None`: it goes on.
    pub(super) end: Option<End>,
}

/// How a run ended, as whoever asked hears it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum End {
    Succeeded,
    Failed,
    /// With its container.
    Interrupted,
    /// The pod of this name is another.
    Refused,
    /// Nobody answered, at this time.
    Lost(u32),
}

/// A controller that believes that it leads.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Guardian {
    /// The pods as it saw them last.
    pub(super) view: [Member; PODS],
    pub(super) jobs: BTreeMap<Id, Job>,
    pub(super) phase: Phase,
}

/// Between any two of these anything may happen, for as long as it likes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Phase {
    Idle,
    /// It has read the ledger and decided. `is_newest`: the ledger is still what it read.
    Decided {
        plan: Arc<Plan>,
        is_newest: bool,
    },
    /// What it decided is written.
    Written(Arc<Plan>),
    /// The runs are handed over; so many of the evictions are asked for.
    Evicts(Arc<Plan>, usize),
}

/// A pod and its version.
pub(super) type Seen = (Place, String);

/// What is to be written, and to be done then.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    pub(super) decision: Decision,
    pub(super) book: Book,
    /// Runs to be asked for, and where.
    pub(super) runs: Vec<(Id, Place)>,
    /// Pods to be evicted, if they have this version still.
    pub(super) evictions: Vec<Seen>,
}

impl Plan {
    fn told_by(&self) -> (&Book, &[(Id, Place)], &[Seen]) {
        (&self.book, &self.runs, &self.evictions)
    }
}

impl PartialEq for Plan {
    fn eq(&self, other: &Self) -> bool {
        self.told_by() == other.told_by()
    }
}

impl Eq for Plan {}

impl PartialOrd for Plan {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Plan {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.told_by().cmp(&other.told_by())
    }
}

impl Hash for Plan {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        self.told_by().hash(hasher);
    }
}

/// A run that a controller has at hand.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Job {
    pub(super) place: Place,
    /// When it was first tried to reach the runner.
    pub(super) since: Option<u32>,
    pub(super) stage: Stage,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Stage {
    Queued,
    /// The runner has been asked, and answers when the run ends.
    Asked,
    Ended(End),
}

impl Guardian {
    /// Drops the runs that the ledger does not have open. Were there any?
    pub(super) fn keep_only(&mut self, book: &Book) -> bool {
        let before = self.jobs.len();
        self.jobs.retain(|id, _| book.state.runs.contains_key(&**id));
        self.jobs.len() != before
    }

    /// What is written is taken up: a run that is at hand already goes on as it is.
    pub(super) fn hand_over(&mut self) {
        let Phase::Written(plan) = self.phase.clone() else { return };
        self.keep_only(&plan.book);
        for (id, place) in &plan.runs {
            let since = match self.jobs.get(id) {
                Some(Job { stage: Stage::Ended(_), since, .. }) => *since,
                Some(_) => continue,
                None => None,
            };
            self.jobs.insert(Arc::clone(id), Job { place: *place, since, stage: Stage::Queued });
        }
        self.phase = if plan.evictions.is_empty() { Phase::Idle } else { Phase::Evicts(plan, 0) };
    }
}

impl World {
    pub(super) fn starts_nothing_twice(&self) -> bool {
        let mut starts: BTreeMap<&Id, u8> = BTreeMap::new();
        self.claims.iter().for_each(|((id, _), claim)| *starts.entry(id).or_default() += claim.starts);
        starts.into_values().all(|starts| starts <= 1)
    }

    /// A run ends in its pod, and whoever waits for it hears that.
    pub(super) fn end(&mut self, id: &Id, place: Place, end: End) {
        if let Some(claim) = self.claims.get_mut(&(Arc::clone(id), place)) {
            claim.end = Some(end);
        }
        self.tell(|job_id, job| job_id == id && job.place == place, end);
    }

    /// A container ends, with all that runs in it.
    pub(super) fn stops(&mut self, n: usize, is: Condition) {
        let member = &mut self.members[n];
        member.is = is;
        let at = (u8::try_from(n).unwrap(), member.generation);
        for (_, claim) in self.claims.iter_mut().filter(|((_, place), claim)| *place == at && claim.end.is_none()) {
            claim.end = Some(End::Interrupted);
        }
        self.tell(|_, job| job.place == at, End::Lost(self.now));
    }

    /// A pod is evicted, where nothing forbids it.
    pub(super) fn evict(&mut self, (ordinal, generation): Place, version: &str, has_budget: bool) {
        let n = usize::from(ordinal);
        let others_serve = self.members.iter().enumerate().all(|(other, member)| other == n || member.serves());
        let member = &mut self.members[n];
        let is_as_seen = member.generation == generation && member.version() == version;
        let is_there = is_as_seen && matches!(member.is, Condition::Runs | Condition::Waits);
        if !is_there || (has_budget && member.serves() && !others_serve) {
            return;
        }
        member.evicted = true;
        member.is = if member.serves() { Condition::Terminates } else { Condition::Gone };
    }

    /// Another container runs, or another pod: a second later at least, as their times tell them apart.
    pub(super) fn starts(&mut self, n: usize, next: impl Fn(Member) -> Member) {
        self.now += 1;
        let (now, before) = (self.now, self.members[n]);
        let next = next(before);
        let created = if next.generation == before.generation { before.created } else { now };
        self.members[n] = Member { created, started: now, is: Condition::Runs, evicted: false, ..next };
    }

    fn tell(&mut self, who: impl Fn(&Id, &Job) -> bool, end: End) {
        let jobs = self.guardians.iter_mut().flat_map(|guardian| &mut guardian.jobs);
        for (_, job) in jobs.filter(|(id, job)| job.stage == Stage::Asked && who(id, job)) {
            job.stage = Stage::Ended(end);
        }
    }
}
