//! What the pods say of the metrics of their policies, for Prometheus.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use guardian_core::lifecycle::{Gauge, Pod, rule_key};
use guardian_core::metric::{Place, Served, Wanted, judge, windows};
use guardian_core::policy::{Condition, Metric, Policy};
use guardian_core::probe::Failure;
use guardian_hook::protocol::{Sample, Usage};

use super::SetKey;
use super::clock::Clock;
use super::collect::{Asking, Container, Subject};
use super::roles::before;

/// All metrics, with their last values. Clones are the same. It is empty in a process that does not lead.
#[derive(Clone)]
pub struct Samples {
    clock: Clock,
    served: Arc<Mutex<Served>>,
    /// What rules look at, by set.
    gauges: Arc<Mutex<BTreeMap<SetKey, BTreeMap<String, Gauge>>>>,
}

impl Samples {
    /// None yet.
    #[must_use]
    pub fn new(clock: Clock) -> Self {
        Self { clock, served: Arc::default(), gauges: Arc::default() }
    }

    /// All that is served, in the text format of Prometheus; no family of it is in a registry.
    #[must_use]
    pub fn text(&self) -> String {
        self.served().text(self.clock.now())
    }

    /// What is asked of the pods of a set from now on.
    pub(super) fn keep(&self, set: &SetKey, policy: Option<&Policy>, asked: &BTreeMap<Container, Asking>) {
        let mut wanted = Wanted {
            policy: policy.map(|policy| policy.name.clone()).unwrap_or_default(),
            metrics: policy.iter().flat_map(|policy| &policy.metrics).map(|m| (m.name.clone(), Arc::clone(m))).collect(),
            windows: policy.map(|policy| windows(&policy.rules)).unwrap_or_default(),
            pods: BTreeMap::new(),
        };
        for (container, asking) in asked {
            let pod = wanted.pods.entry(container.pod_uid.clone()).or_default();
            pod.name.clone_from(&asking.pod);
            pod.containers.insert(container.name.clone());
            pod.metrics.extend(asking.subjects.iter().filter_map(|subject| match subject {
                Subject::Metric(metric) => Some(metric.name.clone()),
                Subject::Role(_) | Subject::Usage(_) | Subject::Members(..) => None,
            }));
        }
        if wanted.pods.is_empty() {
            self.gauges.lock().unwrap_or_else(PoisonError::into_inner).remove(set);
        }
        self.served().keep(&set.namespace, &set.name, wanted);
    }

    /// Takes the answer to a command. What goes wrong for the first time is logged, and that it is over.
    pub(super) fn hear(&self, set: &SetKey, (pod_uid, pod): (&str, &str), metric: &Metric, answer: Result<&Sample, Failure>) {
        let took = answer.as_ref().map_or(Duration::ZERO, |sample| Duration::from_millis(sample.duration_ms));
        let at = before(self.clock.now(), answer.as_ref().ok().and_then(|sample| sample.age_ms));
        let reading = answer.and_then(|sample| judge(metric, sample));
        let why = reading.as_ref().err().map(|failure| failure.why.clone());
        let place = Place { namespace: &set.namespace, set: &set.name, pod_uid };
        let is_news = self.served().take(place, &metric.name, reading, took, at);
        let (namespace, set, metric) = (&set.namespace, &set.name, &metric.name);
        match why {
            Some(why) if is_news => tracing::warn!(namespace, set, pod, metric, why, "a metric is not measured"),
            None if is_news => tracing::info!(namespace, set, pod, metric, "a metric is measured again"),
            _ => {}
        }
    }

    /// Takes what a container uses, which is asked every so often.
    pub(super) fn uses(&self, set: &SetKey, container: &Container, usage: Usage, every: Duration) {
        let place = Place { namespace: &set.namespace, set: &set.name, pod_uid: &container.pod_uid };
        self.served().takes_usage(place, &container.name, usage, every, self.clock.now());
    }

    /// What the rules of the policy look at in these pods now.
    pub(super) fn gauges(&self, set: &SetKey, pods: &BTreeMap<u32, Pod>, policy: Option<&Policy>) -> BTreeMap<String, Gauge> {
        let served = self.served();
        let mut all = self.gauges.lock().unwrap_or_else(PoisonError::into_inner);
        let rules = policy.map_or(&[][..], |policy| &policy.rules);
        if rules.is_empty() {
            all.remove(set);
            return BTreeMap::new();
        }
        let before = all.remove(set).unwrap_or_default();
        let mut gauges = BTreeMap::new();
        for (rule, pod) in rules.iter().flat_map(|rule| pods.values().map(move |pod| (rule, pod))) {
            let key = rule_key(&rule.name, &pod.uid);
            let place = Place { namespace: &set.namespace, set: &set.name, pod_uid: &pod.uid };
            let last = before.get(&key);
            let gauge = match &rule.when {
                Condition::Absent { name, .. } => served.absence(place, name).map(|(since, at)| Gauge::absent(since, at)),
                _ => served.measured(place, rule).map_or_else(|| last.copied(), |measured| Gauge::read(last, rule, measured)),
            };
            gauges.extend(gauge.map(|gauge| (key, gauge)));
        }
        all.insert(set.clone(), gauges.clone());
        gauges
    }

    fn served(&self) -> MutexGuard<'_, Served> {
        self.served.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
