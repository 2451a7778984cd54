//! How fast the series of a counter grow.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use jiff::Timestamp;

/// Points that are kept of a series, of 24 bytes each: 20,000 series, which is all that is served, are 15 MB.
const POINTS: u32 = 32;
/// A rate is known once so much of its window was seen: one over the whole.
const SEEN: u32 = 4;

/// The series of a counter in one pod, over a time.
#[derive(Debug, Default)]
pub(super) struct Growth {
    series: BTreeMap<Vec<String>, Climb>,
}

/// One series. A counter that starts anew goes on where it was: what it shows then was added since.
#[derive(Debug)]
struct Climb {
    shown: f64,
    /// All that was added since the first value.
    total: f64,
    at: Timestamp,
    points: VecDeque<(Timestamp, f64)>,
}

impl Growth {
    /// Takes the values of an answer; those of the last `longest` count from now on, and a series that is not in it is forgotten.
    pub(super) fn take(&mut self, values: &BTreeMap<Vec<String>, f64>, longest: Duration, at: Timestamp) {
        self.series.retain(|labels, _| values.contains_key(labels));
        for (labels, value) in values {
            match self.series.get_mut(labels) {
                Some(climb) => climb.take(*value, longest, at),
                None => {
                    let first = Climb { shown: *value, total: 0.0, at, points: [(at, 0.0)].into() };
                    self.series.insert(labels.clone(), first);
                }
            }
        }
    }

    /// What each series grew by in a second, on the average of the last `window`; nothing of one that is not known for long enough.
    pub(super) fn rates(&self, window: Duration) -> impl Iterator<Item = f64> {
        self.series.values().filter_map(move |climb| climb.rate(window))
    }
}

impl Climb {
    fn take(&mut self, value: f64, longest: Duration, at: Timestamp) {
        if at <= self.at {
            return;
        }
        self.total += if value >= self.shown { value - self.shown } else { value };
        (self.shown, self.at) = (value, at);
        if self.points.back().is_none_or(|(last, _)| elapsed(*last, at) >= longest / POINTS) {
            self.points.push_back((at, self.total));
        }
        while self.points.front().is_some_and(|(first, _)| elapsed(*first, at) > longest) {
            self.points.pop_front();
        }
    }

    fn rate(&self, window: Duration) -> Option<f64> {
        let (first, before) = self.points.iter().find(|(at, _)| elapsed(*at, self.at) <= window)?;
        let time = elapsed(*first, self.at);
        (time >= window / SEEN).then(|| (self.total - before) / time.as_secs_f64())
    }
}

fn elapsed(from: Timestamp, to: Timestamp) -> Duration {
    Duration::try_from(to.duration_since(from)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + second).unwrap()
    }

    /// One series with these values.
    fn growth(values: &[(i64, f64)]) -> Growth {
        let mut growth = Growth::default();
        for (second, value) in values {
            growth.take(&BTreeMap::from([(Vec::new(), *value)]), MINUTE, at(*second));
        }
        growth
    }

    fn rate(values: &[(i64, f64)]) -> Option<f64> {
        growth(values).rates(MINUTE).next()
    }

    #[test]
    fn a_rate_is_the_average_over_the_window_and_known_after_a_quarter_of_it() {
        type Case<'c> = (&'c [(i64, f64)], Option<f64>);
        let cases: [Case<'_>; 8] = [
            (&[], None),
            (&[(0, 5.0)], None),
            (&[(0, 5.0), (10, 105.0)], None),
            (&[(0, 5.0), (15, 155.0)], Some(10.0)),
            (&[(0, 0.0), (30, 0.0), (60, 600.0)], Some(10.0)),
            // What came before the window does not count.
            (&[(0, 0.0), (30, 6000.0), (60, 6000.0), (90, 6000.0)], Some(0.0)),
            // The application was started anew at 20 s, and counts from nothing.
            (&[(0, 1000.0), (20, 1100.0), (40, 100.0)], Some(5.0)),
            // Heard late, or twice.
            (&[(0, 0.0), (30, 300.0), (30, 900.0), (20, 0.0)], Some(10.0)),
        ];
        for (values, expected) in cases {
            assert_eq!(rate(values), expected, "{values:?}");
        }
    }

    #[test]
    fn a_series_that_was_not_in_an_answer_begins_anew() {
        let mut growth = growth(&[(0, 0.0), (30, 300.0)]);
        growth.take(&BTreeMap::new(), MINUTE, at(40));
        growth.take(&BTreeMap::from([(Vec::new(), 900.0)]), MINUTE, at(50));
        assert_eq!(growth.rates(MINUTE).next(), None);
    }

    #[test]
    fn what_is_kept_is_bounded_however_often_it_is_measured() {
        let values: Vec<(i64, f64)> = (0..10_000).map(|second| (second, second as f64)).collect();
        let growth = growth(&values);
        assert!(growth.series[&Vec::<String>::new()].points.len() <= 60);
        assert!((growth.rates(MINUTE).next().unwrap() - 1.0).abs() < 1e-9);
        let mut often = Growth::default();
        for tick in 0..60_000 {
            let at = at(0) + jiff::SignedDuration::from_millis(tick * 10);
            often.take(&BTreeMap::from([(Vec::new(), tick as f64)]), MINUTE, at);
        }
        assert!(often.series[&Vec::<String>::new()].points.len() <= POINTS as usize + 1);
    }
}
