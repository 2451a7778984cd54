//! What was measured, as lines for machines and as tables for people.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use crate::load::Load;
use crate::server::{Kind, Memory};

/// One server in one round.
pub(crate) struct Sample {
    /// Answers in a second.
    rate: f64,
    p50: Duration,
    p99: Duration,
    /// Seconds of the server's CPU for an answer.
    cpu: f64,
    memory: Memory,
    /// Part of the requests that were refused.
    refused: f64,
}

impl Sample {
    pub(crate) fn new(load: &Load, cpu: f64, memory: Memory) -> Self {
        let answers = load.latencies.len() as f64;
        Self {
            rate: answers / load.took.as_secs_f64(),
            p50: percentile(&load.latencies, 50),
            p99: percentile(&load.latencies, 99),
            cpu: cpu / answers,
            memory,
            refused: load.refused as f64 / (answers + load.refused as f64),
        }
    }
}

/// Of values in order, the one that so many of a hundred do not exceed.
pub(crate) fn percentile(sorted: &[Duration], percent: usize) -> Duration {
    let rank = (sorted.len() * percent).div_ceil(100);
    sorted.get(rank.saturating_sub(1)).copied().unwrap_or_default()
}

/// One case at one number of connections.
pub(crate) struct Row {
    pub(crate) case: &'static str,
    pub(crate) connections: usize,
    pub(crate) samples: BTreeMap<Kind, Vec<Sample>>,
}

/// A median and what it is the median of.
struct Spread {
    median: f64,
    low: f64,
    high: f64,
}

impl Spread {
    fn of(values: impl Iterator<Item = f64>) -> Self {
        let mut values: Vec<f64> = values.collect();
        values.sort_by(f64::total_cmp);
        let at = |index: usize| values.get(index).copied().unwrap_or(f64::NAN);
        Self { median: at(values.len() / 2), low: at(0), high: at(values.len().saturating_sub(1)) }
    }

    fn text(&self) -> String {
        format!("{:.2}({:.2}..{:.2})", self.median, self.low, self.high)
    }
}

impl Row {
    fn median(&self, kind: Kind, of: impl Fn(&Sample) -> f64) -> f64 {
        Spread::of(self.samples.get(&kind).into_iter().flatten().map(of)).median
    }

    /// Ours to another's, round by round: what disturbs one round disturbs both.
    fn ratio(&self, other: Kind, of: impl Fn(&Sample) -> f64) -> Spread {
        let samples = |kind| self.samples.get(&kind).map_or(&[][..], Vec::as_slice);
        Spread::of(samples(Kind::Ours).iter().zip(samples(other)).map(|(ours, theirs)| of(ours) / of(theirs)))
    }

    /// One line of `key=value`.
    pub(crate) fn line(&self) -> String {
        let rate = |kind| self.median(kind, |sample| sample.rate);
        let micros = |of: fn(&Sample) -> Duration| self.median(Kind::Ours, |sample| of(sample).as_secs_f64() * 1e6);
        let mut line = format!(
            "admission/{}/{} ours={:.0}/s echo={:.0}/s go={:.0}/s ratio_echo={} ratio_go={} cpu_ratio={} cpu={:.0}us p50={:.0}us p99={:.0}us \
             rss={:.1}MB rss_after={:.1}MB",
            self.case,
            self.connections,
            rate(Kind::Ours),
            rate(Kind::Echo),
            rate(Kind::Go),
            self.ratio(Kind::Echo, |sample| sample.rate).text(),
            self.ratio(Kind::Go, |sample| sample.rate).text(),
            self.ratio(Kind::Echo, |sample| sample.cpu).text(),
            self.median(Kind::Ours, |sample| sample.cpu * 1e6),
            micros(|sample| sample.p50),
            micros(|sample| sample.p99),
            self.median(Kind::Ours, |sample| megabytes(sample.memory.peak)),
            self.median(Kind::Ours, |sample| megabytes(sample.memory.now)),
        );
        let refused = self.median(Kind::Ours, |sample| sample.refused);
        if refused > 0.0 {
            let _ = write!(line, " refused={:.0}%", refused * 100.0);
        }
        line
    }
}

/// Each server's own figures, then ours beside the others'.
pub(crate) fn markdown(rows: &[Row]) -> String {
    let mut text = "| review / connections | server | answers/s | p50 ms | p99 ms | CPU ms | peak MB | after MB |\n".to_owned();
    text += "|---|---|---:|---:|---:|---:|---:|---:|\n";
    for row in rows {
        for kind in row.samples.keys().copied() {
            let milliseconds = |of: fn(&Sample) -> Duration| row.median(kind, |sample| of(sample).as_secs_f64() * 1e3);
            let _ = writeln!(
                text,
                "| {} / {} | {} | {:.0} | {:.2} | {:.2} | {:.3} | {:.1} | {:.1} |",
                row.case,
                row.connections,
                kind.name(),
                row.median(kind, |sample| sample.rate),
                milliseconds(|sample| sample.p50),
                milliseconds(|sample| sample.p99),
                row.median(kind, |sample| sample.cpu * 1e3),
                row.median(kind, |sample| megabytes(sample.memory.peak)),
                row.median(kind, |sample| megabytes(sample.memory.now)),
            );
        }
    }
    text += "\n| review / connections | rate to echo | CPU to echo | rate to Go | CPU to Go | refused |\n|---|---:|---:|---:|---:|---:|\n";
    for row in rows {
        let _ = writeln!(
            text,
            "| {} / {} | {} | {} | {} | {} | {:.0} % |",
            row.case,
            row.connections,
            row.ratio(Kind::Echo, |sample| sample.rate).text(),
            row.ratio(Kind::Echo, |sample| sample.cpu).text(),
            row.ratio(Kind::Go, |sample| sample.rate).text(),
            row.ratio(Kind::Go, |sample| sample.cpu).text(),
            row.median(Kind::Ours, |sample| sample.refused) * 100.0,
        );
    }
    text
}

fn megabytes(kib: u64) -> f64 {
    kib as f64 * 1024.0 / 1e6
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_percentile_is_the_value_that_so_many_do_not_exceed() {
        let values: Vec<Duration> = (1..=200).map(Duration::from_millis).collect();
        assert_eq!(percentile(&values, 50), Duration::from_millis(100));
        assert_eq!(percentile(&values, 99), Duration::from_millis(198));
        assert_eq!(percentile(&values[..1], 99), Duration::from_millis(1));
        assert_eq!(percentile(&[], 99), Duration::ZERO);
    }

    #[test]
    fn a_ratio_compares_neighbours_in_time_and_not_medians() {
        let sample = |rate| Sample {
            rate,
            p50: Duration::ZERO,
            p99: Duration::ZERO,
            cpu: 1.0,
            memory: Memory { peak: 0, now: 0 },
            refused: 0.0,
        };
        // The machine was twice as fast in the second round, for both.
        let samples = BTreeMap::from([
            (Kind::Ours, vec![sample(50.0), sample(100.0), sample(60.0)]),
            (Kind::Echo, vec![sample(100.0), sample(200.0), sample(100.0)]),
        ]);
        let row = Row { case: "x", connections: 1, samples };
        assert_eq!(row.ratio(Kind::Echo, |sample| sample.rate).text(), "0.50(0.50..0.60)");
    }
}
