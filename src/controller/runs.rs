//! The runs that this process carries out: handed over by a reconcile, bounded, and kept with their end until the ledger has it.

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error as _;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures::SinkExt as _;
use futures::channel::mpsc;
use guardian_core::lifecycle::RunEnd;
use guardian_hook::protocol::Outcome;
use jiff::Timestamp;
use tokio::sync::Notify;
use tokio::task::{AbortHandle, Id, JoinError, JoinSet};

use super::SetKey;
use super::clock::Clock;
use super::exec::{Exec, ExecError, Order};

/// How much goes on at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Execs in all. One kept open takes 1.3 MB on the other side, so 32 are about 40 MB there.
    pub global: usize,
    /// Execs in one namespace: a quarter, so that no team's outage keeps another's pods waiting.
    pub per_namespace: usize,
}

impl Default for Bounds {
    fn default() -> Self {
        Self { global: 32, per_namespace: 8 }
    }
}

/// All runs at hand, of all sets. Each is claimed in a ledger, so there are never more than there are pods.
pub(super) struct Runs {
    exec: Arc<dyn Exec>,
    clock: Clock,
    bounds: Bounds,
    jobs: Mutex<BTreeMap<String, Job>>,
    changed: Notify,
}

struct Job {
    set: SetKey,
    /// When this process first tried to reach the runner.
    since: Option<Timestamp>,
    stage: Stage,
}

enum Stage {
    /// Waits for a place, in the order of the numbers.
    Queued {
        number: u64,
        order: Box<Order>,
    },
    Running {
        namespace: String,
        task: AbortHandle,
    },
    Ended(RunEnd),
}

impl Runs {
    pub(super) fn new(exec: Arc<dyn Exec>, clock: Clock, bounds: Bounds) -> Self {
        Self { exec, clock, bounds, jobs: Mutex::default(), changed: Notify::new() }
    }

    /// Carries a run out as soon as there is a place. One that is at hand already goes on as it is.
    pub(super) fn hand_over(&self, set: &SetKey, order: Order) {
        let mut jobs = self.jobs();
        let since = match jobs.get(&order.request.run_id) {
            Some(Job { stage: Stage::Ended(_), since, .. }) => *since,
            Some(_) => return,
            None => None,
        };
        let number = jobs.values().map(Job::number).max().map_or(0, |last| last + 1);
        let run_id = order.request.run_id.clone();
        let stage = Stage::Queued { number, order: Box::new(order) };
        jobs.insert(run_id, Job { set: set.clone(), since, stage });
        drop(jobs);
        self.changed.notify_one();
    }

    /// The runs of a set: those under way, and the ends of the others.
    pub(super) fn of(&self, set: &SetKey) -> (BTreeSet<String>, BTreeMap<String, RunEnd>) {
        let (mut running, mut ends) = (BTreeSet::new(), BTreeMap::new());
        for (id, job) in self.jobs().iter().filter(|(_, job)| job.set == *set) {
            match &job.stage {
                Stage::Ended(end) => drop(ends.insert(id.clone(), end.clone())),
                _ => drop(running.insert(id.clone())),
            }
        }
        (running, ends)
    }

    /// Drops the runs of a set that its ledger does not have open: settled, or superseded. Whatever still runs in a pod ends by itself.
    pub(super) fn keep_only(&self, set: &SetKey, open: impl Fn(&str) -> bool) {
        self.jobs().retain(|id, job| {
            let keep = job.set != *set || open(id);
            if let (false, Stage::Running { task, .. }) = (keep, &job.stage) {
                task.abort();
            }
            keep
        });
        self.changed.notify_one();
    }

    /// How many are waiting or under way.
    pub(super) fn open(&self) -> usize {
        self.jobs().values().filter(|job| !matches!(job.stage, Stage::Ended(_))).count()
    }

    /// Carries the runs out, and tells `finished` whose ended. Dropping it cuts all connections; the runners in the pods go on.
    pub(super) async fn drive(&self, mut finished: mpsc::Sender<SetKey>) {
        let mut tasks = JoinSet::new();
        let mut names: BTreeMap<Id, String> = BTreeMap::new();
        loop {
            self.start(&mut tasks, &mut names);
            tokio::select! {
                () = self.changed.notified() => {}
                Some(done) = tasks.join_next_with_id() => {
                    let id = done.as_ref().map_or_else(JoinError::id, |(id, _)| *id);
                    let ended = names.remove(&id).and_then(|run_id| self.end(&run_id, done.map(|(_, result)| result)));
                    if let Some(set) = ended {
                        // Full only while the queue is far behind; it is never closed before this ends.
                        let _ = finished.send(set).await;
                    }
                }
            }
        }
    }

    fn start(&self, tasks: &mut JoinSet<Result<Outcome, ExecError>>, names: &mut BTreeMap<Id, String>) {
        let mut jobs = self.jobs();
        while let Some((run_id, order)) = self.next(&jobs) {
            let Some(job) = jobs.get_mut(&run_id) else { return };
            let (exec, namespace) = (Arc::clone(&self.exec), order.namespace.clone());
            let task = tasks.spawn(async move { exec.run(&order).await });
            names.insert(task.id(), run_id);
            job.since.get_or_insert_with(|| self.clock.now());
            job.stage = Stage::Running { namespace, task };
        }
    }

    /// Of those that wait, one of the namespace with the fewest under way; of several, the one that waits longest.
    fn next(&self, jobs: &BTreeMap<String, Job>) -> Option<(String, Box<Order>)> {
        let mut busy: BTreeMap<&str, usize> = BTreeMap::new();
        for job in jobs.values() {
            if let Stage::Running { namespace, .. } = &job.stage {
                *busy.entry(namespace).or_default() += 1;
            }
        }
        if busy.values().sum::<usize>() >= self.bounds.global {
            return None;
        }
        let waiting = jobs.iter().filter_map(|(id, job)| match &job.stage {
            Stage::Queued { number, order } => {
                let under_way = busy.get(order.namespace.as_str()).copied().unwrap_or_default();
                (under_way < self.bounds.per_namespace).then_some((under_way, *number, id, order))
            }
            _ => None,
        });
        waiting.min_by_key(|(under_way, number, _, _)| (*under_way, *number)).map(|(_, _, id, order)| (id.clone(), order.clone()))
    }

    /// Keeps the end of a run; `None` when nobody waits for it any more.
    fn end(&self, run_id: &str, result: Result<Result<Outcome, ExecError>, JoinError>) -> Option<SetKey> {
        let now = self.clock.now();
        let mut jobs = self.jobs();
        let job = jobs.get_mut(run_id)?;
        let since = job.since.unwrap_or(now);
        let lost = |denied, why| RunEnd::Lost { since, at: now, denied, why };
        job.stage = Stage::Ended(match result {
            Ok(Ok(outcome)) => RunEnd::answer(outcome, since, now),
            Ok(Err(error)) => lost(matches!(error, ExecError::Denied(_)), sentence(&error)),
            Err(error) => lost(false, format!("carrying it out failed: {error}")),
        });
        Some(job.set.clone())
    }

    fn jobs(&self) -> MutexGuard<'_, BTreeMap<String, Job>> {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Job {
    fn number(&self) -> u64 {
        match self.stage {
            Stage::Queued { number, .. } => number,
            _ => 0,
        }
    }
}

/// An error and what it came from.
fn sentence(error: &ExecError) -> String {
    match error.source() {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}
