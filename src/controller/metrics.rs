//! Own metrics of the controller. A series that names a set goes when the set goes, or what it tells of is over.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use guardian_core::ledger::{Record, State};
use prometheus::core::{Collector, MetricVec, MetricVecBuilder};
use prometheus::{HistogramOpts, HistogramVec, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry};

use super::SetKey;

/// What is counted of the work on the sets.
pub(super) struct Metrics {
    pub(super) leader: IntGauge,
    pub(super) open_runs: IntGauge,
    errors: IntCounterVec,
    durations: HistogramVec,
    holds: IntCounterVec,
    /// By hook, reason and verdict. A set has a series for each way in which one of its hooks ended: a handful, of about 0.4 kB each.
    runs: OfSets<IntCounterVec>,
    /// By reason.
    held: OfSets<IntGaugeVec>,
    /// By scenario.
    episodes: OfSets<IntGaugeVec>,
    /// By scenario.
    opened: OfSets<IntGaugeVec>,
    guarded: OfSets<IntGaugeVec>,
}

/// Why a pass failed, for those who watch the numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Trouble {
    /// The ledger cannot be used as it is.
    Ledger,
    /// Somebody else wrote the ledger meanwhile.
    Conflict,
    /// The API server does not let us.
    Denied,
    /// The API server did not answer, or not well.
    Unavailable,
}

impl Trouble {
    const ALL: [Self; 4] = [Self::Ledger, Self::Conflict, Self::Denied, Self::Unavailable];

    const fn as_str(self) -> &'static str {
        match self {
            Self::Ledger => "ledger",
            Self::Conflict => "conflict",
            Self::Denied => "denied",
            Self::Unavailable => "unavailable",
        }
    }
}

impl Metrics {
    pub(super) fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        // 0.1 s, which is an exec, to the hour that a backup takes; the longest time out of a hook is a day.
        let buckets = vec![0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0, 3600.0];
        let durations = HistogramOpts::new("guardian_hook_duration_seconds", "How long hooks ran").buckets(buckets);
        let gauge = |name: &str, help: &str| kept(registry, IntGauge::new(name, help)?);
        let counters =
            |name: &str, help: &str, labels: &[&str]| kept(registry, IntCounterVec::new(Opts::new(name, help), labels)?);
        let gauges = |name: &str, help: &str, labels: &[&str]| kept(registry, IntGaugeVec::new(Opts::new(name, help), labels)?);
        let of_runs = ["namespace", "set", "hook", "reason", "verdict"];
        let of_scenarios = ["namespace", "set", "scenario"];
        let metrics = Self {
            leader: gauge("guardian_leader", "1 while this process leads")?,
            open_runs: gauge("guardian_open_runs", "Runs of hooks that wait or are under way")?,
            errors: counters("guardian_reconcile_errors_total", "Passes over a set that failed and are repeated", &["reason"])?,
            durations: kept(registry, HistogramVec::new(durations, &["hook"])?)?,
            holds: counters("guardian_holds_total", "Things that were due and not done, each counted once", &["reason"])?,
            runs: OfSets::new(counters(
                "guardian_hook_runs_total",
                "Records of hooks, why they were due and what came of them",
                &of_runs,
            )?),
            held: OfSets::new(gauges("guardian_held", "Things that are due and not done", &["namespace", "set", "reason"])?),
            episodes: OfSets::new(gauges("guardian_episodes", "Episodes that are open", &of_scenarios)?),
            opened: OfSets::new(gauges(
                "guardian_episode_opened_timestamp_seconds",
                "When the oldest open episode was opened",
                &of_scenarios,
            )?),
            guarded: OfSets::new(gauges(
                "guardian_set_guarded",
                "Of sets that a policy guards: 1 where it is written into the template, 0 where nothing is",
                &["namespace", "set"],
            )?),
        };
        for trouble in Trouble::ALL {
            let _ = metrics.errors.with_label_values(&[trouble.as_str()]);
        }
        Ok(metrics)
    }

    /// A pass failed.
    pub(super) fn failed(&self, trouble: Trouble) {
        self.errors.with_label_values(&[trouble.as_str()]).inc();
    }

    /// A record was written, of a run that took so long, where there was one that ended.
    pub(super) fn written(&self, set: &SetKey, record: &Record, took: Option<Duration>) {
        self.runs.of(set, &[&record.hook, &record.reason, record.verdict.as_str()]).inc();
        if let Some(took) = took {
            self.durations.with_label_values(&[&record.hook]).observe(took.as_secs_f64());
        }
    }

    /// These reasons hold a set now; of them, these are new.
    pub(super) fn held<'r>(&self, set: &SetKey, now: impl Iterator<Item = &'r str>, fresh: impl Iterator<Item = &'r str>) {
        let mut counts = BTreeMap::<_, i64>::new();
        for reason in now {
            *counts.entry(vec![reason.to_owned()]).or_default() += 1;
        }
        self.held.show(set, &counts);
        for reason in fresh {
            self.holds.with_label_values(&[reason]).inc();
        }
    }

    /// What a set's ledger has open.
    pub(super) fn open(&self, set: &SetKey, state: &State) {
        let (mut counts, mut opened) = (BTreeMap::<_, i64>::new(), BTreeMap::<_, i64>::new());
        for episode in state.episodes.values() {
            let scenario = vec![episode.scenario.clone()];
            *counts.entry(scenario.clone()).or_default() += 1;
            let at = episode.opened.as_second();
            opened.entry(scenario).and_modify(|oldest| *oldest = at.min(*oldest)).or_insert(at);
        }
        self.episodes.show(set, &counts);
        self.opened.show(set, &opened);
    }

    /// Whether a set is guarded; `None`: no policy guards it.
    pub(super) fn guards(&self, set: &SetKey, guarded: Option<bool>) {
        self.guarded.show(set, &guarded.map(|guarded| (Vec::new(), i64::from(guarded))).into_iter().collect());
    }

    /// A set has no pods, or is not ours any more: nothing goes on. What was counted stays.
    pub(super) fn rests(&self, set: &SetKey) {
        for gauges in [&self.held, &self.episodes, &self.opened, &self.guarded] {
            gauges.forget(set);
        }
    }

    /// A set is gone.
    pub(super) fn forget(&self, set: &SetKey) {
        self.rests(set);
        self.runs.forget(set);
    }
}

/// Metrics whose first labels are the namespace and the name of a set.
struct OfSets<F> {
    family: F,
    /// The other labels of what is shown of each set.
    shown: Mutex<BTreeMap<SetKey, BTreeSet<Vec<String>>>>,
}

impl<F> OfSets<F> {
    fn new(family: F) -> Self {
        Self { family, shown: Mutex::default() }
    }

    fn shown(&self) -> MutexGuard<'_, BTreeMap<SetKey, BTreeSet<Vec<String>>>> {
        self.shown.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<B: MetricVecBuilder> OfSets<MetricVec<B>> {
    /// The series of a set with these other labels.
    fn of(&self, set: &SetKey, more: &[&str]) -> B::M {
        let labels = more.iter().map(|&label| label.to_owned()).collect();
        self.shown().entry(set.clone()).or_default().insert(labels);
        self.family.with_label_values(&values(set, more.iter().copied()))
    }

    /// All series of a set go.
    fn forget(&self, set: &SetKey) {
        let gone = self.shown().remove(set).unwrap_or_default();
        gone.iter().for_each(|labels| self.remove(set, labels));
    }

    fn remove(&self, set: &SetKey, labels: &[String]) {
        // It cannot fail: `shown` has nothing that was not made.
        let _ = self.family.remove_label_values(&values(set, labels.iter().map(String::as_str)));
    }
}

impl OfSets<IntGaugeVec> {
    /// These are the series of a set from now on, by their other labels.
    fn show(&self, set: &SetKey, now: &BTreeMap<Vec<String>, i64>) {
        let labels: BTreeSet<Vec<String>> = now.keys().cloned().collect();
        let before = if now.is_empty() { self.shown().remove(set) } else { self.shown().insert(set.clone(), labels.clone()) };
        before.unwrap_or_default().difference(&labels).for_each(|labels| self.remove(set, labels));
        for (labels, value) in now {
            self.family.with_label_values(&values(set, labels.iter().map(String::as_str))).set(*value);
        }
    }
}

fn values<'l>(set: &'l SetKey, more: impl Iterator<Item = &'l str>) -> Vec<&'l str> {
    [set.namespace.as_str(), set.name.as_str()].into_iter().chain(more).collect()
}

/// Registers a metric, and gives it back.
fn kept<M: Collector + Clone + 'static>(registry: &Registry, metric: M) -> Result<M, prometheus::Error> {
    registry.register(Box::new(metric.clone()))?;
    Ok(metric)
}
