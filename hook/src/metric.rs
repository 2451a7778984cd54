//! Metrics of the application as text, in and out: what a command printed becomes a [`Reading`], and readings become the text format of Prometheus.
//!
//! One reader and one writer for the controller, which asks through the API server, and for the runner's `agent`, which asks by itself. Numbers stay text
//! here: what parses and prints doubles is 30 KiB of code, a thirtieth of a runner.

mod parse;
mod text;

use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

pub use parse::{Malformed, parse};
pub use text::{Family, Text};

use crate::protocol::MAX_ANSWER;

/// Most bytes of an answer. As JSON it is at most 31 KiB: each byte escaped as six, and as much of 1 KiB of standard error, and names.
pub const MAX_OUTPUT: usize = MAX_ANSWER;
/// Most series of one answer; those that are printed later are dropped and counted.
pub const MAX_SERIES: usize = 100;

/// Whether a metric is measured.
pub const UP: Family<'static> = (
    "guardian_metric_up",
    MetricKind::Gauge,
    "1 while the last run of the command of a metric in a pod was in order, is not stale, and is served",
);

/// Type of a metric, as Prometheus has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum MetricKind {
    /// Goes up and down.
    Gauge,
    /// Only grows.
    Counter,
}

/// What is expected of the output of a command.
#[derive(Clone, Copy, Debug)]
pub struct Expected<'m> {
    /// Name of the metric.
    pub name: &'m str,
    /// Does it only grow?
    pub kind: MetricKind,
    /// Names of its labels.
    pub labels: &'m [String],
}

/// What one run of a command has said.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reading<'t> {
    /// Values by the values of the labels, these in the order in which they are declared. A value is as it was printed: a decimal number below 1e308.
    pub series: BTreeMap<Vec<String>, &'t str>,
    /// Series that are over [`MAX_SERIES`].
    pub dropped: usize,
}
