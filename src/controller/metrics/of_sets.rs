//! Series of sets, kept as small as they can be: 3,000 sets have some 15,000. What the registry's own kind of metric keeps of each is
//! 1.5 kB, for the most part the same words again; here they are made when somebody asks, and dropped again.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use prometheus::Opts;
use prometheus::core::{Collector, Desc, Describer as _};
use prometheus::proto::{Counter, Gauge, LabelPair, Metric, MetricFamily, MetricType};

use super::SetKey;

/// The values of the labels after `namespace` and `set`.
type Labels = Box<[Box<str>]>;

/// A metric whose first labels are the namespace and the name of a set. Clones are the same.
#[derive(Clone)]
pub(super) struct OfSets {
    desc: Desc,
    /// A gauge, or else a counter.
    kind: MetricType,
    series: Arc<Mutex<BTreeMap<SetKey, BTreeMap<Labels, i64>>>>,
}

impl OfSets {
    /// Without series. `labels` are those after `namespace` and `set`.
    pub(super) fn new(name: &str, help: &str, kind: MetricType, labels: &[&str]) -> Result<Self, prometheus::Error> {
        let labels = ["namespace", "set"].iter().chain(labels).map(|&label| label.to_owned()).collect();
        let desc = Opts::new(name, help).variable_labels(labels).describe()?;
        Ok(Self { desc, kind, series: Arc::default() })
    }

    /// One more of the series with these other labels.
    pub(super) fn add<const N: usize>(&self, set: &SetKey, labels: [&str; N]) {
        *self.series().entry(set.clone()).or_default().entry(kept(labels)).or_default() += 1;
    }

    /// These are the series of a set from now on, by their other labels.
    pub(super) fn show<'l, const N: usize>(&self, set: &SetKey, now: impl IntoIterator<Item = ([&'l str; N], i64)>) {
        let now: BTreeMap<Labels, i64> = now.into_iter().map(|(labels, value)| (kept(labels), value)).collect();
        let mut series = self.series();
        if now.is_empty() {
            series.remove(set);
        } else {
            series.insert(set.clone(), now);
        }
    }

    /// All series of a set go.
    pub(super) fn forget(&self, set: &SetKey) {
        self.series().remove(set);
    }

    fn series(&self) -> MutexGuard<'_, BTreeMap<SetKey, BTreeMap<Labels, i64>>> {
        self.series.lock().unwrap_or_else(PoisonError::into_inner)
    }

    #[expect(clippy::cast_precision_loss, reason = "Prometheus counts in doubles; they are exact up to 2^53")]
    fn metric(&self, set: &SetKey, labels: &[Box<str>], value: i64) -> Metric {
        let values = [set.namespace.as_str(), &set.name].into_iter().chain(labels.iter().map(AsRef::as_ref));
        let mut pairs: Vec<LabelPair> =
            self.desc.variable_labels.iter().zip(values).map(|(name, value)| pair(name, value)).collect();
        // As the registry has those of its own.
        pairs.sort_by(|one, other| one.name().cmp(other.name()));
        let mut metric = Metric::from_label(pairs);
        if self.kind == MetricType::COUNTER {
            let mut counter = Counter::default();
            counter.set_value(value as f64);
            metric.set_counter(counter);
        } else {
            let mut gauge = Gauge::default();
            gauge.set_value(value as f64);
            metric.set_gauge(gauge);
        }
        metric
    }
}

impl Collector for OfSets {
    fn desc(&self) -> Vec<&Desc> {
        vec![&self.desc]
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let mut family = MetricFamily::default();
        family.set_name(self.desc.fq_name.clone());
        family.set_help(self.desc.help.clone());
        family.set_field_type(self.kind);
        let series = self.series();
        let all = series.iter().flat_map(|(set, own)| own.iter().map(move |(labels, value)| self.metric(set, labels, *value)));
        family.set_metric(all.collect());
        vec![family]
    }
}

fn kept<const N: usize>(labels: [&str; N]) -> Labels {
    labels.map(Box::from).into()
}

fn pair(name: &str, value: &str) -> LabelPair {
    let mut pair = LabelPair::default();
    pair.set_name(name.to_owned());
    pair.set_value(value.to_owned());
    pair
}
