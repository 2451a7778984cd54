//! What is known of all metrics, and what of it is served.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use guardian_hook::protocol::Usage;
use jiff::Timestamp;

use super::{MAX_SERIES_IN_ALL, MAX_SERIES_OF_NAMESPACE, MAX_SERIES_OF_SET, Reading};
use crate::lifecycle::Measured;
use crate::policy::{Condition, Metric, Resource, Rule, Threshold};
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
#[derive(Debug)]
pub(super) struct Answer {
    /// The last one that was in order, and when.
    pub(super) read: Option<(Reading, Timestamp)>,
    /// How the last one ended, and after how long.
    pub(super) end: End,
    pub(super) took: Duration,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Used {
    pub(super) usage: Usage,
    pub(super) at: Timestamp,
    pub(super) every: Duration,
    /// Cores, on the average since the time before.
    cores: Option<f64>,
}

impl Served {
    /// This is measured in the set from now on. What is measured no more, or was changed, is forgotten at once.
    pub fn keep(&mut self, namespace: &str, set: &str, wanted: Wanted) {
        let key = (namespace.to_owned(), set.to_owned());
        if wanted.pods.is_empty() {
            self.sets.remove(&key);
            return;
        }
        let Set { policy, metrics, pods, runs, .. } = self.sets.entry(key.clone()).or_default();
        let same = |name: &String| wanted.metrics.get(name).is_some_and(|metric| metrics.get(name) == Some(metric));
        runs.retain(|(name, _), _| same(name));
        pods.retain(|uid, _| wanted.pods.contains_key(uid));
        for (uid, WantedPod { name, metrics, containers }) in wanted.pods {
            let pod = pods.entry(uid).or_default();
            pod.name = name;
            pod.metrics.retain(|name, _| metrics.contains(name) && same(name));
            pod.containers.retain(|name, _| containers.contains(name));
        }
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
        let last = pod.metrics.remove(metric);
        let was = last.as_ref().map_or(End::Succeeded, |last| last.end);
        let read =
            read.or_else(|| last?.read.filter(|(_, at)| set.metrics.get(metric).is_some_and(|m| !stale(*at, m.every, now))));
        let after = read.as_ref().map_or(0, |(reading, _)| reading.series.len());
        set.series = (set.series + after).saturating_sub(before);
        pod.metrics.insert(metric.to_owned(), Answer { read, end, took });
        was != end
    }

    /// What a container uses; it is asked every so often.
    pub fn takes_usage(&mut self, place: Place<'_>, container: &str, usage: Usage, every: Duration, now: Timestamp) {
        let key = (place.namespace.to_owned(), place.set.to_owned());
        if let Some(pod) = self.sets.get_mut(&key).and_then(|set| set.pods.get_mut(place.pod_uid)) {
            let before = pod.containers.get(container);
            let cores = before.and_then(|before| cores(before, usage, now));
            pod.containers.insert(container.to_owned(), Used { usage, at: now, every, cores });
        }
    }

    /// What a rule looks at in a pod: of several series the one that is furthest beyond its bound, of several containers the one nearest to its limit.
    #[must_use]
    pub fn measured(&self, place: Place<'_>, rule: &Rule) -> Option<Measured> {
        let pod = self.sets.get(&(place.namespace.to_owned(), place.set.to_owned()))?.pods.get(place.pod_uid)?;
        match &rule.when {
            Condition::Usage { resource, .. } => {
                let all = pod.containers.values().filter_map(|used| used.measured(*resource));
                all.max_by(|a, b| a.share().total_cmp(&b.share()))
            }
            Condition::Metric { name, threshold, .. } => {
                let (reading, at) = pod.metrics.get(name)?.read.as_ref()?;
                let values = reading.series.values().copied();
                let value = match threshold {
                    Threshold::Above(_) => values.max_by(f64::total_cmp),
                    Threshold::Below(_) => values.min_by(f64::total_cmp),
                };
                Some(Measured { value: value?, limit: None, at: *at })
            }
            Condition::Cause { .. } => None,
        }
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

/// Cores that a container used since it was asked before.
fn cores(before: &Used, usage: Usage, now: Timestamp) -> Option<f64> {
    let microseconds = usage.cpu_usage_us?.checked_sub(before.usage.cpu_usage_us?)?;
    let time = now.duration_since(before.at).as_secs_f64();
    // Exact up to 2^53 microseconds, which are 285 years of one core.
    #[expect(clippy::cast_precision_loss, reason = "see above")]
    let seconds = microseconds as f64 / 1e6;
    (time > 0.0).then(|| seconds / time)
}

impl Used {
    #[expect(clippy::cast_precision_loss, reason = "bytes are exact up to 2^53, which are 8 PiB")]
    fn measured(&self, resource: Resource) -> Option<Measured> {
        let usage = &self.usage;
        let (value, limit) = match resource {
            Resource::Memory => {
                let bytes = usage.memory_bytes?.saturating_sub(usage.reclaimable_bytes.unwrap_or_default());
                (bytes as f64, usage.memory_limit_bytes.map(|bytes| bytes as f64))
            }
            Resource::Cpu => (self.cores?, usage.cpu_limit_millis.map(|millis| millis as f64 / 1000.0)),
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
