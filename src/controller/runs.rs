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
use tokio::time::{Instant, sleep_until};

use super::SetKey;
use super::brake::{Brakes, Metrics, PATIENCE, Said};
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

/// How runs of a set wait for a place.
pub(super) enum Wait {
    /// It is nothing as long as it is over by then.
    Short(Instant),
    /// For so long that it is told: what for.
    Long(String),
}

/// All runs at hand, of all sets. Each is claimed in a ledger, so there are never more than there are pods.
pub(super) struct Runs {
    exec: Arc<dyn Exec>,
    clock: Clock,
    bounds: Bounds,
    metrics: Metrics,
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
        since: Instant,
        order: Box<Order>,
    },
    Running {
        namespace: String,
        task: AbortHandle,
    },
    Ended(RunEnd),
}

impl Runs {
    pub(super) fn new(exec: Arc<dyn Exec>, clock: Clock, bounds: Bounds, metrics: Metrics) -> Self {
        Self { exec, clock, bounds, metrics, jobs: Mutex::default(), changed: Notify::new() }
    }

    /// How much goes on at once.
    pub(super) const fn bounds(&self) -> Bounds {
        self.bounds
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
        let stage = Stage::Queued { number, since: Instant::now(), order: Box::new(order) };
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

    /// How the runs of a set wait for a place, where any does.
    pub(super) fn wait_of(&self, set: &SetKey) -> Option<Wait> {
        let jobs = self.jobs();
        let since = jobs.values().filter(|job| job.set == *set).filter_map(Job::waits_since).min()?;
        let busy = Self::under_way(&jobs);
        let here = busy.get(set.namespace.as_str()).copied().unwrap_or_default();
        if here < self.bounds.per_namespace && busy.values().sum::<usize>() < self.bounds.global {
            // It is about to begin.
            return None;
        }
        let late = since + PATIENCE;
        let Bounds { global, per_namespace } = self.bounds;
        let why = format!(
            "hooks that are due wait for others to end: no more than {per_namespace} run at a time in namespace {}, and {global} in all",
            set.namespace
        );
        Some(if late > Instant::now() { Wait::Short(late) } else { Wait::Long(why) })
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

    /// Carries the runs out, and tells `finished` whose ended, `begun` whose began after a long wait, and `said` which namespaces are braked. Dropping it
    /// cuts all connections; the runners in the pods go on.
    pub(super) async fn drive(
        &self,
        mut finished: mpsc::Sender<SetKey>,
        mut begun: mpsc::Sender<SetKey>,
        said: mpsc::UnboundedSender<Said>,
    ) {
        let mut tasks = JoinSet::new();
        let mut names: BTreeMap<Id, String> = BTreeMap::new();
        let mut brakes = Brakes::default();
        loop {
            for set in self.start(&mut tasks, &mut names) {
                let _ = begun.send(set).await;
            }
            let again = self.look(&mut brakes, &said);
            tokio::select! {
                () = self.changed.notified() => {}
                () = sleep_until(again.unwrap_or_else(Instant::now)), if again.is_some() => {}
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

    /// Says which namespaces are braked; yields when to look again.
    fn look(&self, brakes: &mut Brakes, said: &mpsc::UnboundedSender<Said>) -> Option<Instant> {
        let (mut longest, mut waiting) = (BTreeMap::new(), 0);
        for (job, since) in self.jobs().values().filter_map(|job| Some((job, job.waits_since()?))) {
            waiting += 1;
            if longest.get(&job.set.namespace).is_none_or(|(first, _)| since < *first) {
                longest.insert(job.set.namespace.clone(), (since, job.set.clone()));
            }
        }
        let (fresh, again) = brakes.look(&longest, Instant::now());
        self.metrics.show(waiting, brakes);
        // Whoever tells lives as long as this.
        fresh.into_iter().for_each(|fresh| drop(said.unbounded_send(fresh)));
        again
    }

    /// Begins what there is a place for; yields the sets whose run has waited for long.
    fn start(&self, tasks: &mut JoinSet<Result<Outcome, ExecError>>, names: &mut BTreeMap<Id, String>) -> Vec<SetKey> {
        let (mut jobs, mut late) = (self.jobs(), Vec::new());
        while let Some((run_id, order)) = self.next(&jobs) {
            let Some(job) = jobs.get_mut(&run_id) else { return late };
            late.extend(job.waits_since().filter(|since| since.elapsed() >= PATIENCE).map(|_| job.set.clone()));
            let (exec, namespace) = (Arc::clone(&self.exec), order.namespace.clone());
            let task = tasks.spawn(async move { exec.run(&order).await });
            names.insert(task.id(), run_id);
            job.since.get_or_insert_with(|| self.clock.now());
            job.stage = Stage::Running { namespace, task };
        }
        late
    }

    /// How many are under way in each namespace.
    fn under_way(jobs: &BTreeMap<String, Job>) -> BTreeMap<&str, usize> {
        let mut busy = BTreeMap::new();
        for job in jobs.values() {
            if let Stage::Running { namespace, .. } = &job.stage {
                *busy.entry(namespace.as_str()).or_default() += 1;
            }
        }
        busy
    }

    /// Of those that wait, one of the namespace with the fewest under way; of several, the one that waits longest.
    fn next(&self, jobs: &BTreeMap<String, Job>) -> Option<(String, Box<Order>)> {
        let busy = Self::under_way(jobs);
        if busy.values().sum::<usize>() >= self.bounds.global {
            return None;
        }
        let waiting = jobs.iter().filter_map(|(id, job)| match &job.stage {
            Stage::Queued { number, order, .. } => {
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
    fn waits_since(&self) -> Option<Instant> {
        match self.stage {
            Stage::Queued { since, .. } => Some(since),
            _ => None,
        }
    }

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
