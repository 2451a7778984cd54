//! What a rule looks at, in the pods that are rehearsed with: beyond its bound for a time, and then back.

use jiff::{SignedDuration, Timestamp};

use super::figures::{DISK, MEASURED, MEMORY};
use super::line::What;
use super::world::{Event, World};
use crate::lifecycle::{Gauge, Measured, rule_key};
use crate::policy::{Amount, Condition, Rule, Threshold, Usage};

/// A rule whose value moves.
#[derive(Clone, Debug)]
pub(super) struct Crossed {
    pub(super) rule: Rule,
    /// Ordinals of the pods in which it does.
    pub(super) pods: Vec<u32>,
    /// For how long.
    pub(super) lasts: SignedDuration,
    beyond: bool,
    measured: Option<Timestamp>,
}

impl Crossed {
    pub(super) fn new(rule: &Rule, pods: Vec<u32>, lasts: SignedDuration) -> Self {
        Self { rule: rule.clone(), pods, lasts, beyond: false, measured: None }
    }
}

impl World<'_> {
    /// The value passes the bound of its rule, or comes back.
    pub(super) fn crosses(&mut self, back: bool) {
        let now = self.now;
        let Some(crossed) = &mut self.crossed else { return };
        (crossed.beyond, crossed.measured) = (!back, None);
        let (pods, lasts, rule) = (crossed.pods.clone(), crossed.lasts, crossed.rule.clone());
        let what = match (&rule.when, back) {
            (Condition::Absent { name, .. }, false) => format!("{name}, which rule {} looks at, has no value", rule.name),
            (Condition::Absent { name, .. }, true) => format!("{name}, which rule {} looks at, has a value again", rule.name),
            (_, back) => {
                let shown = gauge(None, &rule, !back, now).map(|gauge| format!("{:.1}", gauge.value)).unwrap_or_default();
                let which = if back { "it is back" } else { "beyond its bound" };
                format!("what rule {} looks at goes to {shown}: {which}", rule.name)
            }
        };
        for ordinal in pods {
            let name = self.name(ordinal);
            self.tell(What::Cluster, Some(&name), what.clone());
        }
        if !back {
            self.after(lasts, Event::Crosses { back: true });
        }
    }

    /// Measures, where it is time to.
    pub(super) fn measure(&mut self) {
        let (now, main) = (self.now, self.main());
        let Some(crossed) = &mut self.crossed else { return };
        if crossed.measured.is_some_and(|at| now.duration_since(at) < MEASURED) {
            return;
        }
        crossed.measured = Some(now);
        for ordinal in &crossed.pods {
            let pod = self.observed.pods.get(ordinal).filter(|pod| pod.takes_hooks(&main) && !self.lost.contains(&pod.uid));
            let Some(pod) = pod else { continue };
            let key = rule_key(&crossed.rule.name, &pod.uid);
            if let Some(gauge) = gauge(self.observed.gauges.get(&key), &crossed.rule, crossed.beyond, now) {
                self.observed.gauges.insert(key, gauge);
            }
        }
    }
}

/// What the rule looks at after a measurement on the one or on the other side; `None` of a rule that looks at nothing.
fn gauge(before: Option<&Gauge>, rule: &Rule, beyond: bool, at: Timestamp) -> Option<Gauge> {
    if matches!(rule.when, Condition::Absent { .. }) {
        let since = before.and_then(|before| before.when_since).unwrap_or(at);
        return Some(Gauge::absent(beyond.then_some(since), at));
    }
    Gauge::read(before, rule, measured(rule, beyond, at)?)
}

/// A value on the one or on the other side; `None` of a rule that looks at none.
fn measured(rule: &Rule, beyond: bool, at: Timestamp) -> Option<Measured> {
    let (when, limit) = match &rule.when {
        Condition::Usage { usage, threshold, .. } => {
            let limit = match usage {
                Usage::Memory => MEMORY,
                Usage::Disk => DISK,
                Usage::Cpu | Usage::Throttling => 1.0,
            };
            (*threshold, Some(limit))
        }
        Condition::Metric { threshold, .. } => {
            let amount = match threshold {
                Threshold::Above(bound) => Threshold::Above(Amount::Absolute(*bound)),
                Threshold::Below(bound) => Threshold::Below(Amount::Absolute(*bound)),
            };
            (amount, None)
        }
        Condition::Absent { .. } | Condition::Cause { .. } => return None,
    };
    let side = match (beyond, &rule.until, when) {
        (true, ..) => when,
        (false, Some(until), _) => until.threshold,
        (false, None, Threshold::Above(bound)) => Threshold::Below(bound),
        (false, None, Threshold::Below(bound)) => Threshold::Above(bound),
    };
    Some(Measured { value: past(side, limit.unwrap_or(1.0)), limit, at })
}

/// A value past a bound: of a percentage the half of what is left, else a tenth more, or less, and at least one.
fn past(bound: Threshold<Amount>, limit: f64) -> f64 {
    let (amount, above) = match bound {
        Threshold::Above(amount) => (amount, true),
        Threshold::Below(amount) => (amount, false),
    };
    match (amount, above) {
        (Amount::Percent(bound), true) if bound < 100.0 => (bound + 100.0) / 200.0 * limit,
        (Amount::Percent(bound), true) => (bound + 10.0) / 100.0 * limit,
        (Amount::Percent(bound), false) => bound / 200.0 * limit,
        (Amount::Absolute(bound), true) => bound + (bound.abs() / 10.0).max(1.0),
        (Amount::Absolute(bound), false) => bound - (bound.abs() / 10.0).max(1.0),
    }
}
