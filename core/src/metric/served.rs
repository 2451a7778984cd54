//! What is known of all metrics, and what of it is served.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use guardian_hook::protocol::Usage;
use jiff::Timestamp;

use super::growth::Growth;
use super::{MAX_SERIES_IN_ALL, MAX_SERIES_OF_NAMESPACE, MAX_SERIES_OF_SET, Reading};
use crate::lifecycle::Measured;
use crate::policy::{self, Condition, Metric, Rule, Threshold};
use crate::probe::{End, Failure};
use crate::role::silence;

/// A pod of a set.
#[derive(Clone, Copy, Debug)]
pub struct Place<'a> {
    /// The namespace.
    pub namespace: &'a str,
    /// The set.
    pub set: &'a str,
    /// `metadata.uid` of the pod.
    pub pod_uid: &'a str,
}

/// What is measured in a set, from now on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// The policy that says so.
    pub policy: String,
    /// Its metrics, by name.
    pub metrics: BTreeMap<String, Arc<Metric>>,
    /// The longest window over which its rules look at the growth of each metric.
    pub windows: BTreeMap<String, Duration>,
    /// The pods that are asked for anything, by uid.
    pub pods: BTreeMap<String, WantedPod>,
}

/// What is measured in a pod.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WantedPod {
    /// Its name.
    pub name: String,
    /// Names of metrics.
    pub metrics: BTreeSet<String>,
    /// Names of containers in which something is asked.
    pub containers: BTreeSet<String>,
}

/// All metrics of all sets, with their last values.
#[derive(Debug, Default)]
pub struct Served {
    /// By namespace and name.
    pub(super) sets: BTreeMap<(String, String), Set>,
}

#[derive(Debug, Default)]
pub(super) struct Set {
    pub(super) policy: String,
    pub(super) metrics: BTreeMap<String, Arc<Metric>>,
    windows: BTreeMap<String, Duration>,
    /// By uid.
    pub(super) pods: BTreeMap<String, Pod>,
    /// How often each metric ended in each way.
    pub(super) runs: BTreeMap<(String, End), u64>,
    /// How many series its answers have.
    series: usize,
}

#[derive(Debug, Default)]
pub(super) struct Pod {
    pub(super) name: String,
    pub(super) metrics: BTreeMap<String, Answer>,
    pub(super) containers: BTreeMap<String, Used>,
}

/// The last answers of one command in one pod.
#[derive(Debug, Default)]
pub(super) struct Answer {
    /// The last one that was in order, and when.
    pub(super) read: Option<(Reading, Timestamp)>,
    /// How the last one ended, and after how long.
    pub(super) end: End,
    pub(super) took: Duration,
    /// How it grows, where rules look at that.
    growth: Growth,
    /// Since when it has no value although its command runs.
    valueless: Option<Timestamp>,
    /// When that was last known.
    known: Option<Timestamp>,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Used {
    pub(super) usage: Usage,
    pub(super) at: Timestamp,
    pub(super) every: Duration,
    /// Cores, on the average since the time before.
    cores: Option<f64>,
    /// Seconds in a second for which it was held back, in the same way.
    throttled: Option<f64>,
}

impl Served {
    /// This is measured in the set from now on. What is measured no more, or was changed, is forgotten at once.
    pub fn keep(&mut self, namespace: &str, set: &str, wanted: Wanted) {
        let key = (namespace.to_owned(), set.to_owned());
        if wanted.pods.is_empty() {
            self.sets.remove(&key);
            return;
        }
        let Set { policy, metrics, windows, pods, runs, .. } = self.sets.entry(key.clone()).or_default();
        let same = |name: &String| wanted.metrics.get(name).is_some_and(|metric| metrics.get(name) == Some(metric));
        runs.retain(|(name, _), _| same(name));
        pods.retain(|uid, _| wanted.pods.contains_key(uid));
        for (uid, WantedPod { name, metrics, containers }) in wanted.pods {
            let pod = pods.entry(uid).or_default();
            pod.name = name;
            pod.metrics.retain(|name, _| metrics.contains(name) && same(name));
            pod.containers.retain(|name, _| containers.contains(name));
        }
        *windows = wanted.windows;
        *policy = wanted.policy;
        *metrics = wanted.metrics;
        self.count(&key);
    }

    /// What one run of a command has said. Says whether it ended in another way than the time before, a success before the first.
    pub fn take(
        &mut self,
        place: Place<'_>,
        metric: &str,
        answer: Result<Reading, Failure>,
        took: Duration,
        now: Timestamp,
    ) -> bool {
        let key = (place.namespace.to_owned(), place.set.to_owned());
        let before = self.reading(&key, place.pod_uid, metric).map_or(0, |reading| reading.series.len());
        let room = self.room(&key, before);
        let Some(set) = self.sets.get_mut(&key).filter(|set| set.metrics.contains_key(metric)) else { return false };
        let Some(pod) = set.pods.get_mut(place.pod_uid) else { return false };
        let (end, read) = match answer {
            Ok(mut reading) => {
                reading.limit(room);
                (End::Succeeded, Some((reading, now)))
            }
            Err(failure) => (failure.end, None),
        };
        *set.runs.entry((metric.to_owned(), end)).or_default() += 1;
        let mut last = pod.metrics.remove(metric).unwrap_or_default();
        let was = last.end;
        let has_value = read.as_ref().is_some_and(|(reading, _)| !reading.series.is_empty());
        if has_value || read.is_some() || end.is_of_command() {
            last.known = Some(now);
            last.valueless = if has_value { None } else { last.valueless.or(Some(now)) };
        }
        match (&read, set.windows.get(metric)) {
            (Some((reading, at)), Some(longest)) => last.growth.take(&reading.series, *longest, *at),
            (_, None) => last.growth = Growth::default(),
            (None, Some(_)) => {}
        }
        let read =
            read.or_else(|| last.read.filter(|(_, at)| set.metrics.get(metric).is_some_and(|m| !stale(*at, m.every, now))));
        let after = read.as_ref().map_or(0, |(reading, _)| reading.series.len());
        set.series = (set.series + after).saturating_sub(before);
        pod.metrics.insert(metric.to_owned(), Answer { read, end, took, ..last });
        was != end
    }

    /// What a container uses; it is asked every so often.
    pub fn takes_usage(&mut self, place: Place<'_>, container: &str, usage: Usage, every: Duration, now: Timestamp) {
        let key = (place.namespace.to_owned(), place.set.to_owned());
        if let Some(pod) = self.sets.get_mut(&key).and_then(|set| set.pods.get_mut(place.pod_uid)) {
            let before = pod.containers.get(container);
            let since = |of: fn(&Usage) -> Option<u64>| before.and_then(|before| seconds_per_second(before, &usage, of, now));
            let (cores, throttled) = (since(|usage| usage.cpu_usage_us), since(|usage| usage.throttled_us));
            pod.containers.insert(container.to_owned(), Used { usage, at: now, every, cores, throttled });
        }
    }

    /// What a rule looks at in a pod: of several series the one that is furthest beyond its bound, of several containers the one nearest to its limit.
    #[must_use]
    pub fn measured(&self, place: Place<'_>, rule: &Rule) -> Option<Measured> {
        let pod = self.sets.get(&(place.namespace.to_owned(), place.set.to_owned()))?.pods.get(place.pod_uid)?;
        match &rule.when {
            Condition::Usage { usage, .. } => {
                let all = pod.containers.values().filter_map(|used| used.measured(*usage));
                all.max_by(|a, b| a.share().total_cmp(&b.share()))
            }
            Condition::Metric { name, rate, threshold, .. } => {
                let answer = pod.metrics.get(name)?;
                let (reading, at) = answer.read.as_ref()?;
                let value = match rate {
                    None => furthest(reading.series.values().copied(), threshold),
                    Some(window) => furthest(answer.growth.rates(*window), threshold),
                };
                Some(Measured { value: value?, limit: None, at: *at })
            }
            Condition::Absent { .. } | Condition::Cause { .. } => None,
        }
    }

    /// Since when a metric has no value in a pod although its command runs there, and when that was last known. `None` where nobody could ask.
    #[must_use]
    pub fn absence(&self, place: Place<'_>, metric: &str) -> Option<(Option<Timestamp>, Timestamp)> {
        let pod = self.sets.get(&(place.namespace.to_owned(), place.set.to_owned()))?.pods.get(place.pod_uid)?;
        let answer = pod.metrics.get(metric)?;
        Some((answer.valueless, answer.known?))
    }

    fn reading(&self, key: &(String, String), pod_uid: &str, metric: &str) -> Option<&Reading> {
        let answer = self.sets.get(key)?.pods.get(pod_uid)?.metrics.get(metric)?;
        answer.read.as_ref().map(|(reading, _)| reading)
    }

    /// For how many series of an answer there is room, once `before` of them are gone.
    fn room(&self, key: &(String, String), before: usize) -> usize {
        let of = |within: &dyn Fn(&(String, String)) -> bool, most: usize| {
            let there: usize = self.sets.iter().filter(|(key, _)| within(key)).map(|(_, set)| set.series).sum();
            most.saturating_sub(there.saturating_sub(before))
        };
        let of_set = of(&|other| other == key, MAX_SERIES_OF_SET);
        let of_namespace = of(&|other| other.0 == key.0, MAX_SERIES_OF_NAMESPACE);
        of_set.min(of_namespace).min(of(&|_| true, MAX_SERIES_IN_ALL))
    }

    fn count(&mut self, key: &(String, String)) {
        if let Some(set) = self.sets.get_mut(key) {
            let answers = set.pods.values().flat_map(|pod| pod.metrics.values());
            set.series = answers.filter_map(|answer| Some(answer.read.as_ref()?.0.series.len())).sum();
        }
    }
}

/// The longest window over which rules look at the growth of each metric.
#[must_use]
pub fn windows(rules: &[Rule]) -> BTreeMap<String, Duration> {
    let mut windows: BTreeMap<String, Duration> = BTreeMap::new();
    for rule in rules {
        if let Condition::Metric { name, rate: Some(window), .. } = &rule.when {
            let longest = windows.entry(name.clone()).or_default();
            *longest = (*longest).max(*window);
        }
    }
    windows
}

fn furthest(values: impl Iterator<Item = f64>, bound: &Threshold<f64>) -> Option<f64> {
    match bound {
        Threshold::Above(_) => values.max_by(f64::total_cmp),
        Threshold::Below(_) => values.min_by(f64::total_cmp),
    }
}

/// What a count of microseconds grew by in a second since the container was asked before.
fn seconds_per_second(before: &Used, usage: &Usage, of: fn(&Usage) -> Option<u64>, now: Timestamp) -> Option<f64> {
    let microseconds = of(usage)?.checked_sub(of(&before.usage)?)?;
    let time = now.duration_since(before.at).as_secs_f64();
    // Exact up to 2^53 microseconds, which are 285 years of one core.
    #[expect(clippy::cast_precision_loss, reason = "see above")]
    let seconds = microseconds as f64 / 1e6;
    (time > 0.0).then(|| seconds / time)
}

impl Used {
    #[expect(clippy::cast_precision_loss, reason = "bytes are exact up to 2^53, which are 8 PiB")]
    fn measured(&self, of: policy::Usage) -> Option<Measured> {
        let usage = &self.usage;
        let (value, limit) = match of {
            policy::Usage::Memory => {
                let bytes = usage.memory_bytes?.saturating_sub(usage.reclaimable_bytes.unwrap_or_default());
                (bytes as f64, usage.memory_limit_bytes.map(|bytes| bytes as f64))
            }
            policy::Usage::Cpu => (self.cores?, usage.cpu_limit_millis.map(|millis| millis as f64 / 1000.0)),
            policy::Usage::Throttling => (self.throttled?, Some(1.0)),
            policy::Usage::Disk => (usage.disk_bytes? as f64, usage.disk_limit_bytes.map(|bytes| bytes as f64)),
        };
        Some(Measured { value, limit, at: self.at })
    }
}

impl Reading {
    /// Keeps the first of so many series, and counts the others.
    fn limit(&mut self, most: usize) {
        while self.series.len() > most {
            self.series.pop_last();
            self.dropped += 1;
        }
    }
}

pub(super) fn stale(at: Timestamp, every: Duration, now: Timestamp) -> bool {
    now.duration_since(at) > silence(every)
}
