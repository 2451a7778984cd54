//! Own metrics of the controller. A series that names a set goes when the set goes, or what it tells of is over.

mod of_sets;

use std::collections::BTreeMap;
use std::time::Duration;

use guardian_core::ledger::{Record, State};
use prometheus::core::Collector;
use prometheus::proto::MetricType::{COUNTER, GAUGE};
use prometheus::{HistogramOpts, HistogramVec, IntCounterVec, IntGauge, Opts, Registry};

use super::SetKey;
use of_sets::OfSets;

/// What is counted of the work on the sets.
pub(super) struct Metrics {
    pub(super) leader: IntGauge,
    pub(super) open_runs: IntGauge,
    errors: IntCounterVec,
    durations: HistogramVec,
    holds: IntCounterVec,
    /// By hook, reason and verdict.
    runs: OfSets,
    /// By reason.
    held: OfSets,
    /// By scenario.
    episodes: OfSets,
    /// By scenario.
    opened: OfSets,
    guarded: OfSets,
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
        let of_sets = |name: &str, help: &str, kind, labels| kept(registry, OfSets::new(name, help, kind, labels)?);
        let metrics = Self {
            leader: gauge("guardian_leader", "1 while this process leads")?,
            open_runs: gauge("guardian_open_runs", "Runs of hooks that wait or are under way")?,
            errors: counters("guardian_reconcile_errors_total", "Passes over a set that failed and are repeated", &["reason"])?,
            durations: kept(registry, HistogramVec::new(durations, &["hook"])?)?,
            holds: counters("guardian_holds_total", "Things that were due and not done, each counted once", &["reason"])?,
            runs: of_sets(
                "guardian_hook_runs_total",
                "Records of hooks, why they were due and what came of them",
                COUNTER,
                &["hook", "reason", "verdict"],
            )?,
            held: of_sets("guardian_held", "Things that are due and not done", GAUGE, &["reason"])?,
            episodes: of_sets("guardian_episodes", "Episodes that are open", GAUGE, &["scenario"])?,
            opened: of_sets(
                "guardian_episode_opened_timestamp_seconds",
                "When the oldest open episode was opened",
                GAUGE,
                &["scenario"],
            )?,
            guarded: of_sets(
                "guardian_set_guarded",
                "Of sets that a policy guards: 1 where it is written into the template, 0 where nothing is",
                GAUGE,
                &[],
            )?,
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
        self.runs.add(set, [record.hook.as_str(), &record.reason, record.verdict.as_str()]);
        if let Some(took) = took {
            self.durations.with_label_values(&[&record.hook]).observe(took.as_secs_f64());
        }
    }

    /// These reasons hold a set now; of them, these are new.
    pub(super) fn held<'r>(&self, set: &SetKey, now: impl Iterator<Item = &'r str>, fresh: impl Iterator<Item = &'r str>) {
        let mut counts = BTreeMap::new();
        for reason in now {
            *counts.entry([reason]).or_default() += 1;
        }
        self.held.show(set, counts);
        for reason in fresh {
            self.holds.with_label_values(&[reason]).inc();
        }
    }

    /// What a set's ledger has open.
    pub(super) fn open(&self, set: &SetKey, state: &State) {
        let (mut counts, mut opened) = (BTreeMap::new(), BTreeMap::new());
        for episode in state.episodes.values() {
            let scenario = [episode.scenario.as_str()];
            *counts.entry(scenario).or_default() += 1;
            let at = episode.opened.as_second();
            opened.entry(scenario).and_modify(|oldest: &mut i64| *oldest = at.min(*oldest)).or_insert(at);
        }
        self.episodes.show(set, counts);
        self.opened.show(set, opened);
    }

    /// Whether a set is guarded; `None`: no policy guards it.
    pub(super) fn guards(&self, set: &SetKey, guarded: Option<bool>) {
        self.guarded.show(set, guarded.map(|guarded| ([], i64::from(guarded))));
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

/// Registers a metric, and gives it back.
fn kept<M: Collector + Clone + 'static>(registry: &Registry, metric: M) -> Result<M, prometheus::Error> {
    registry.register(Box::new(metric.clone()))?;
    Ok(metric)
}
