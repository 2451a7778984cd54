//! What is measured, where requests go, and how a set is updated.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use super::Check;
use crate::metric::RESERVED_LABELS;
use crate::policy::problem::Problem;
use crate::policy::schema::{self, Spanned};
use crate::policy::{MAX_METRICS, MAX_TIMEOUT, Metric, MetricKind, Role, Target, Traffic, Update};
use crate::role::is_label_value;

/// How often a role is asked for where the policy does not say.
const EVERY_ROLE: Duration = Duration::from_secs(5);
/// How often a metric is measured where the policy does not say.
const EVERY_METRIC: Duration = Duration::from_secs(15);

impl Check<'_> {
    pub(super) fn role(&mut self, role: Spanned<schema::Role>) -> Role {
        let Spanned { value: r, referenced: at } = role;
        Role {
            probe: self.probe("role", at, (r.script, r.command), r.container, r.timeout),
            every: self.duration("role.every".to_owned(), r.every, EVERY_ROLE, MAX_TIMEOUT),
        }
    }

    pub(super) fn metrics(&mut self, metrics: Option<Vec<Spanned<schema::Metric>>>) -> Vec<Arc<Metric>> {
        let metrics = metrics.unwrap_or_default();
        if let Some(beyond) = metrics.get(MAX_METRICS) {
            self.error("metrics", beyond.referenced, Problem::TooManyMetrics(metrics.len()));
        }
        let mut names = BTreeSet::new();
        let metrics = metrics.into_iter().enumerate();
        metrics.map(|(n, m)| Arc::new(self.metric(&format!("metrics[{n}]"), m, &mut names))).collect()
    }

    fn metric(&mut self, path: &str, metric: Spanned<schema::Metric>, names: &mut BTreeSet<String>) -> Metric {
        let Spanned { value: m, referenced: at } = metric;
        let name = m.name.value;
        let problem = if !is_identifier(&name, ":") {
            Some(Problem::NotAMetric(name.clone()))
        } else if name.starts_with("guardian_") {
            Some(Problem::ReservedMetric(name.clone()))
        } else if !names.insert(name.clone()) {
            Some(Problem::Twice { what: "metric", name: name.clone() })
        } else {
            None
        };
        problem.into_iter().for_each(|p| self.error(format!("{path}.name"), m.name.referenced, p));
        Metric {
            name,
            kind: match m.kind {
                schema::MetricKind::Gauge => MetricKind::Gauge,
                schema::MetricKind::Counter => MetricKind::Counter,
            },
            help: m.help.unwrap_or_default(),
            probe: self.probe(path, at, (m.script, m.command), m.container, m.timeout),
            every: self.duration(format!("{path}.every"), m.every, EVERY_METRIC, MAX_TIMEOUT),
            labels: self.metric_labels(path, m.labels.unwrap_or_default()),
            on: m.on.and_then(|on| self.metric_on(&format!("{path}.on"), &on)),
        }
    }

    fn metric_on(&mut self, path: &str, on: &Spanned<String>) -> Option<String> {
        let role = on.value.strip_prefix("role:").filter(|role| is_label_value(role));
        if role.is_some() {
            let needed = "`role`: a command that prints the role of its pod";
            self.needs(path, on.referenced, self.declared.role, &on.value, needed);
        } else {
            let problem = Problem::Variant { found: on.value.clone(), expected: "role:NAME".to_owned() };
            self.error(path, on.referenced, problem);
        }
        role.map(str::to_owned)
    }

    fn metric_labels(&mut self, path: &str, labels: Vec<Spanned<String>>) -> Vec<String> {
        let mut known = BTreeSet::new();
        for (n, label) in labels.iter().enumerate() {
            let path = format!("{path}.labels[{n}]");
            if !is_identifier(&label.value, "") || label.value.starts_with("__") {
                self.error(path, label.referenced, Problem::NotAMetricLabel(label.value.clone()));
            } else if RESERVED_LABELS.contains(&label.value.as_str()) {
                self.error(path, label.referenced, Problem::ReservedMetricLabel(label.value.clone()));
            } else if !known.insert(label.value.clone()) {
                self.error(path, label.referenced, Problem::Twice { what: "label", name: label.value.clone() });
            }
        }
        labels.into_iter().map(|label| label.value).collect()
    }

    pub(super) fn traffic(&mut self, traffic: schema::Traffic) -> Traffic {
        self.not_empty("traffic.services", &traffic.services);
        let mut services = Vec::new();
        for (n, service) in traffic.services.value.into_iter().enumerate() {
            let (path, at) = (format!("traffic.services[{n}]"), service.referenced);
            let name = self.label(path.clone(), service);
            if services.contains(&name) {
                self.error(path, at, Problem::Twice { what: "Service", name: name.clone() });
            }
            services.push(name);
        }
        Traffic { services, drain: traffic.drain.map(|drain| self.drain(drain)) }
    }

    pub(super) fn update(&mut self, update: schema::Update) -> Update {
        self.later("update");
        let last = update.last.and_then(|last| {
            let target = self.target("update.last", &last)?;
            if !matches!(target, Target::Ordinal(_) | Target::Role(_)) {
                let problem = Problem::Variant { found: last.value, expected: "ordinal:N, role:NAME".to_owned() };
                self.error("update.last", last.referenced, problem);
            }
            Some(target)
        });
        Update { last, window: update.window.and_then(|window| self.window("update.window", &window)) }
    }
}

/// A name as Prometheus allows it for metrics and, without more than letters, digits and `_`, for labels.
fn is_identifier(text: &str, also: &str) -> bool {
    let inner = text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || also.contains(c));
    !text.is_empty() && inner && !text.starts_with(|c: char| c.is_ascii_digit())
}
