//! What a rule looks at in one pod: a value, and since when it has been beyond the rule's bounds without a break.

use jiff::Timestamp;

use crate::policy::{Amount, Condition, Rule, Threshold};

/// A value that a rule looks at, in one pod.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Gauge {
    /// As the rule counts it: in percent of the limit where its bound is one, else in the unit of the metric or resource.
    pub value: f64,
    /// When it was measured.
    pub at: Timestamp,
    /// Since when `when` holds, as far as this process has seen.
    pub when_since: Option<Timestamp>,
    /// The same of `until`; where the rule has none, since when `when` does not hold.
    pub until_since: Option<Timestamp>,
}

/// What was measured.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Measured {
    /// In its base unit.
    pub value: f64,
    /// The container's limit, where it has one.
    pub limit: Option<f64>,
    /// When.
    pub at: Timestamp,
}

impl Measured {
    /// How near it is to its limit; without one, how much it is.
    #[must_use]
    pub fn share(&self) -> f64 {
        self.limit.filter(|limit| *limit > 0.0).map_or(self.value, |limit| self.value / limit)
    }
}

impl Gauge {
    /// Of a metric that has had no value since then, or that has one; known at `at`.
    #[must_use]
    pub fn absent(since: Option<Timestamp>, at: Timestamp) -> Self {
        let value = since.map_or(0.0, |since| at.duration_since(since).as_secs_f64());
        Self { value, at, when_since: since, until_since: since.is_none().then_some(at) }
    }

    /// The gauge after a measurement. `None` where the rule counts in percent and there is no limit, or by causes.
    #[must_use]
    pub fn read(before: Option<&Self>, rule: &Rule, measured: Measured) -> Option<Self> {
        let Measured { at, .. } = measured;
        if let Some(before) = before.filter(|before| before.at >= at) {
            return Some(*before);
        }
        let (value, holds) = match &rule.when {
            Condition::Usage { threshold, .. } => {
                let (amount, above) = parts(*threshold);
                let value = counted(measured, amount)?;
                (value, beyond(value, bound(amount), above))
            }
            Condition::Metric { threshold, .. } => {
                let (bound, above) = parts(*threshold);
                (measured.value, beyond(measured.value, bound, above))
            }
            Condition::Absent { .. } | Condition::Cause { .. } => return None,
        };
        let over = match &rule.until {
            None => !holds,
            Some(until) => {
                let (amount, above) = parts(until.threshold);
                beyond(counted(measured, amount)?, bound(amount), above)
            }
        };
        let since = |holds: bool, before: Option<Timestamp>| holds.then(|| before.unwrap_or(at));
        Some(Self {
            value,
            at,
            when_since: since(holds, before.and_then(|before| before.when_since)),
            until_since: since(over, before.and_then(|before| before.until_since)),
        })
    }
}

/// The bound, and whether it is passed upwards.
fn parts<T>(threshold: Threshold<T>) -> (T, bool) {
    match threshold {
        Threshold::Above(bound) => (bound, true),
        Threshold::Below(bound) => (bound, false),
    }
}

fn beyond(value: f64, bound: f64, above: bool) -> bool {
    if above { value > bound } else { value < bound }
}

const fn bound(amount: Amount) -> f64 {
    match amount {
        Amount::Percent(n) | Amount::Absolute(n) => n,
    }
}

fn counted(measured: Measured, amount: Amount) -> Option<f64> {
    match amount {
        Amount::Absolute(_) => Some(measured.value),
        Amount::Percent(_) => measured.limit.filter(|limit| *limit > 0.0).map(|limit| measured.value / limit * 100.0),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::policy::{Action, Until, Usage};

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + second).unwrap()
    }

    fn rule(until: Option<Until>) -> Rule {
        let when = Condition::Usage {
            usage: Usage::Memory,
            threshold: Threshold::Above(Amount::Percent(85.0)),
            during: Duration::from_secs(30),
        };
        Rule { name: "pressure".into(), when, until, actions: vec![Action::Shed], undo: Vec::new(), budget: None }
    }

    fn read(rule: &Rule, values: &[(i64, f64)]) -> Option<Gauge> {
        values.iter().fold(None, |before, (second, value)| {
            Gauge::read(before.as_ref(), rule, Measured { value: *value, limit: Some(100.0), at: at(*second) })
        })
    }

    #[test]
    fn a_value_counts_from_its_first_measurement_beyond_the_bound_until_one_that_is_not() {
        let until = Until { threshold: Threshold::Below(Amount::Percent(75.0)), during: Duration::ZERO };
        type Case<'c> = (&'c [(i64, f64)], Option<i64>, Option<i64>);
        let cases: &[Case<'_>] = &[
            (&[(0, 80.0)], None, None),
            (&[(0, 86.0), (5, 90.0)], Some(0), None),
            (&[(0, 86.0), (5, 85.0), (10, 86.0)], Some(10), None),
            (&[(0, 90.0), (5, 74.0), (10, 70.0)], None, Some(5)),
            (&[(0, 90.0), (5, 74.0), (10, 75.0)], None, None),
            // The same measurement, heard of twice, or late.
            (&[(5, 90.0), (5, 10.0), (0, 10.0)], Some(5), None),
        ];
        for (values, when, over) in cases {
            let gauge = read(&rule(Some(until.clone())), values).unwrap();
            assert_eq!((gauge.when_since, gauge.until_since), (when.map(at), over.map(at)), "{values:?}");
        }
        assert_eq!(read(&rule(None), &[(0, 90.0), (5, 80.0)]).unwrap().until_since, Some(at(5)), "that it holds no more");
    }

    #[test]
    fn a_percentage_of_no_limit_is_nothing() {
        for limit in [None, Some(0.0)] {
            assert_eq!(Gauge::read(None, &rule(None), Measured { value: 1.0, limit, at: at(0) }), None);
        }
    }
}
