//! Metrics of the application: what a command of the policy prints becomes series for Prometheus.
//!
//! The answer of a command is [read](judge) whole or refused whole; what was read is [kept and served](Served) until it is stale, or until nobody
//! measures it any more. The bounds:
//!
//! | of | most | because |
//! |---|---|---|
//! | bytes of an answer | [`MAX_OUTPUT`], 4 KiB | the answers of one exec, 51 of at most 31 KiB as JSON, are under the 2 MiB that are read of one |
//! | series of an answer | [`MAX_SERIES`], 100 | 4 KiB are 100 lines of 40 bytes |
//! | series of a set | [`MAX_SERIES_OF_SET`], 1,000 | a twentieth of all: no set takes more |
//! | series of a namespace | [`MAX_SERIES_OF_NAMESPACE`], 5,000 | a quarter of all, as of everything that namespaces share |
//! | series in all | [`MAX_SERIES_IN_ALL`], 20,000 | about 150 bytes each while they are kept (3 MB) and 200 as text (4 MB) |

mod exposed;
mod growth;
mod served;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use guardian_hook::metric::Expected;
use guardian_hook::protocol::Sample;

use crate::policy::Metric;
use crate::probe::{self, End, Failure};

pub use guardian_hook::metric::{MAX_OUTPUT, MAX_SERIES, Malformed};
pub use served::{Place, Served, Wanted, WantedPod, windows};

/// Labels that every series of an application has.
pub const OWN_LABELS: [&str; 3] = ["namespace", "set", "pod"];
/// Labels that no policy may use: our own, and those that Prometheus adds to whatever it scrapes.
pub const RESERVED_LABELS: [&str; 5] = ["namespace", "set", "pod", "job", "instance"];

/// Most series of one set. What is over it is dropped and counted, as over the next two.
pub const MAX_SERIES_OF_SET: usize = 1_000;
/// Most series of the sets of one namespace.
pub const MAX_SERIES_OF_NAMESPACE: usize = 5_000;
/// Most series in all.
pub const MAX_SERIES_IN_ALL: usize = 20_000;

/// What one run of a command has said.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Reading {
    /// Values by the values of the labels, these in the order of [`Metric::labels`].
    pub series: BTreeMap<Vec<String>, f64>,
    /// Series that are over a bound.
    pub dropped: usize,
}

/// Reads the standard output of the command of a metric, see [`guardian_hook::metric::parse`].
///
/// # Errors
/// At the first line that is refused: nothing of the answer counts then.
pub fn parse(metric: &Metric, output: &str) -> Result<Reading, Malformed> {
    let Metric { name, kind, labels, .. } = metric;
    let read = guardian_hook::metric::parse(Expected { name, kind: *kind, labels }, output)?;
    // Of a finite decimal number parsing makes one; and an infinite one would be stopped here.
    let series =
        read.series.into_iter().filter_map(|(labels, value)| Some((labels, value.parse().ok().filter(|v: &f64| v.is_finite())?)));
    Ok(Reading { series: series.collect(), dropped: read.dropped })
}

/// What the answer to the command of a metric says, or why it says nothing.
///
/// # Errors
/// When the command failed, or what it printed is refused.
pub fn judge(metric: &Metric, answer: &Sample) -> Result<Reading, Failure> {
    let text = probe::output(answer)?;
    let text = if answer.stdout.dropped > 0 { Err(Malformed::TooLong) } else { Ok(text) };
    let refused = |why: Malformed| Failure { end: End::Malformed, why: format!("is refused: {why}") };
    text.and_then(|text| parse(metric, text)).map_err(refused)
}
