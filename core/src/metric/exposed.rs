//! What is served of all metrics: those of the applications, those about them, and what the containers use.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use guardian_hook::metric::{Family, Text, UP};
use guardian_hook::protocol::Usage;
use jiff::Timestamp;

use super::served::{Answer, Pod, Served, Set, stale};
use crate::policy::{Metric, MetricKind};
use crate::probe::End;

const DURATION: Family<'static> =
    gauge("guardian_metric_duration_seconds", "How long the last run of the command of a metric took in a pod");
const RUNS: Family<'static> = counter("guardian_metric_runs_total", "Runs of the command of a metric, by how they ended");
const DROPPED: Family<'static> = gauge(
    "guardian_metric_series_dropped",
    "Series that are measured and not served, because they are over a bound, or in conflict with the type that another policy gives the metric",
);

/// A value, in digits, or with an exponent where it is very small or very large.
struct Number(f64);

impl fmt::Display for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let value = self.0;
        if value != 0.0 && !(1e-6..1e17).contains(&value.abs()) { write!(f, "{value:e}") } else { write!(f, "{value}") }
    }
}

/// A label and its value.
type Label<'l> = (&'l str, &'l str);

impl Served {
    /// All of it that is not stale, for Prometheus.
    #[must_use]
    pub fn text(&self, now: Timestamp) -> String {
        let mut text = Text::default();
        let families = self.families();
        for ((namespace, name), set) in &self.sets {
            set.write(&mut text, [("namespace", namespace), ("set", name)], &families, now);
        }
        text.finish()
    }

    /// Who says the type and the help of each family: of several, the first by the name of its policy, then by namespace and set.
    fn families(&self) -> BTreeMap<&str, &Metric> {
        let mut sets: Vec<_> = self.sets.iter().map(|(key, set)| (&set.policy, key, set)).collect();
        sets.sort_by_key(|(policy, key, _)| (*policy, *key));
        let mut families: BTreeMap<&str, &Metric> = BTreeMap::new();
        for metric in sets.into_iter().flat_map(|(_, _, set)| set.metrics.values()) {
            families.entry(&metric.name).or_insert(metric);
        }
        families
    }
}

impl Set {
    fn write<'t>(&'t self, text: &mut Text<'t>, owner: [Label<'_>; 2], families: &BTreeMap<&'t str, &'t Metric>, now: Timestamp) {
        let (mut bound, mut conflict) = (0, 0);
        let mut pods: Vec<&Pod> = self.pods.values().collect();
        pods.sort_by_key(|pod| &pod.name);
        for pod in pods {
            let of_pod = [owner[0], owner[1], ("pod", pod.name.as_str())];
            let answers = pod.metrics.iter();
            for (metric, answer) in answers.filter_map(|(name, answer)| Some((self.metrics.get(name)?, answer))) {
                let first = families.get(metric.name.as_str()).filter(|first| first.kind == metric.kind);
                answer.write(text, of_pod, metric, first.copied(), now);
                let fresh = answer.fresh(metric, now);
                bound += fresh.map_or(0, |reading| reading.dropped);
                conflict += fresh.filter(|_| first.is_none()).map_or(0, |reading| reading.series.len());
            }
            for (container, used) in pod.containers.iter().filter(|(_, used)| !stale(used.at, used.every, now)) {
                write_usage(text, [of_pod[0], of_pod[1], of_pod[2], ("container", container)], &used.usage);
            }
        }
        for ((metric, end), count) in &self.runs {
            text.add(
                RUNS,
                owner.into_iter().chain([("metric", metric.as_str()), ("result", end.as_str())]),
                Number(number(*count)),
            );
        }
        let dropped = [("bound", bound), ("conflict", conflict)];
        for (reason, count) in dropped.into_iter().filter(|_| !self.metrics.is_empty()) {
            text.add(DROPPED, owner.into_iter().chain([("reason", reason)]), Number(number(count as u64)));
        }
    }
}

impl Answer {
    /// `first` says the type and the help; `None`: it says another type, so this is not served.
    fn write<'t>(&self, text: &mut Text<'t>, of_pod: [Label<'_>; 3], metric: &Metric, first: Option<&'t Metric>, now: Timestamp) {
        let fresh = self.fresh(metric, now);
        if let (Some(reading), Some(first)) = (fresh, first) {
            for (values, value) in &reading.series {
                let own = metric.labels.iter().map(String::as_str).zip(values.iter().map(String::as_str));
                text.add((&first.name, first.kind, &first.help), of_pod.into_iter().chain(own), Number(*value));
            }
        }
        let labels = || of_pod.into_iter().chain([("metric", metric.name.as_str())]);
        let up = self.end == End::Succeeded && fresh.is_some() && first.is_some();
        text.add(UP, labels(), u8::from(up));
        text.add(DURATION, labels(), Number(self.took.as_secs_f64()));
    }

    /// Its last value, unless that is stale.
    fn fresh(&self, metric: &Metric, now: Timestamp) -> Option<&super::Reading> {
        self.read.as_ref().filter(|(_, at)| !stale(*at, metric.every, now)).map(|(reading, _)| reading)
    }
}

/// What a container uses; what its cgroup does not tell is absent.
fn write_usage(text: &mut Text<'_>, labels: [Label<'_>; 4], usage: &Usage) {
    let seconds = |us: u64| Duration::from_micros(us).as_secs_f64();
    let reclaimable = usage.reclaimable_bytes.unwrap_or_default();
    let values = [
        (
            counter("guardian_container_cpu_seconds_total", "CPU time of a container since it was made"),
            usage.cpu_usage_us.map(seconds),
        ),
        (
            gauge("guardian_container_cpu_limit_cores", "CPUs that a container may use; absent without a limit"),
            usage.cpu_limit_millis.map(|millis| number(millis) / 1000.0),
        ),
        (
            counter(
                "guardian_container_cpu_throttled_seconds_total",
                "How long the processes of a container were held back by its CPU limit since it was made",
            ),
            usage.throttled_us.map(seconds),
        ),
        (
            gauge(
                "guardian_container_memory_bytes",
                "Memory of a container, without the page cache that the kernel gives back first",
            ),
            usage.memory_bytes.map(|bytes| number(bytes.saturating_sub(reclaimable))),
        ),
        (
            gauge("guardian_container_memory_reclaimable_bytes", "Page cache of a container that the kernel gives back first"),
            usage.reclaimable_bytes.map(number),
        ),
        (
            gauge("guardian_container_memory_limit_bytes", "Memory that a container may use; absent without a limit"),
            usage.memory_limit_bytes.map(number),
        ),
        (
            gauge("guardian_container_disk_bytes", "Bytes that are used on the file system of a container's data volume"),
            usage.disk_bytes.map(number),
        ),
        (
            gauge(
                "guardian_container_disk_limit_bytes",
                "Bytes that a container may have used on the file system of its data volume",
            ),
            usage.disk_limit_bytes.map(number),
        ),
    ];
    for (family, value) in values {
        value.into_iter().for_each(|value| text.add(family, labels, Number(value)));
    }
}

const fn gauge(name: &'static str, help: &'static str) -> Family<'static> {
    (name, MetricKind::Gauge, help)
}

const fn counter(name: &'static str, help: &'static str) -> Family<'static> {
    (name, MetricKind::Counter, help)
}

#[expect(clippy::cast_precision_loss, reason = "Prometheus counts in doubles; they are exact up to 2^53")]
const fn number(count: u64) -> f64 {
    count as f64
}
