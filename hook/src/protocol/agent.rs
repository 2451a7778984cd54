//! What `guardian-hook agent` works on.

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use super::{MAX_ANSWER, MAX_PROBES, MAX_TIMEOUT_MS, PROTOCOL, Probe, impossible};
use crate::metric::MetricKind;

/// The name of the file in `/guardian` that holds an [`Agenda`]; at most [`MAX_PUT`](super::MAX_PUT) bytes of JSON.
pub const AGENDA: &str = "agent.json";

/// The TCP port on which the agent answers, on every address of its pod.
pub const AGENT_PORT: u16 = 9188;

/// Its path for the controller: lines of [`Collected`](super::Collected), the first of them an [`Agent`](super::Collected::Agent).
pub const COLLECT_PATH: &str = "/collect";

/// Its path for Prometheus.
pub const METRICS_PATH: &str = "/metrics";

/// Questions that are asked again and again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Agenda {
    /// [`PROTOCOL`] of the sender.
    pub version: u32,
    /// Differs from that of any other agenda.
    pub revision: String,
    /// Added to the environment of every command, below what its probe adds.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// At most [`MAX_PROBES`], each of another name.
    pub questions: Vec<Repeated>,
}

/// A question, and how often it is asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Repeated {
    /// What is asked; at most [`MAX_ANSWER`] bytes are answered.
    pub probe: Probe,
    /// Milliseconds from one time to the next; 1 to [`MAX_TIMEOUT_MS`].
    pub every_ms: u64,
    /// What its answer is served as at [`METRICS_PATH`]; absent: it is not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metric: Option<Family>,
}

/// A family of series.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Family {
    /// Its name.
    pub name: String,
    /// Its type.
    #[serde(rename = "type")]
    pub kind: MetricKind,
    /// What it means.
    #[serde(default)]
    pub help: String,
    /// Names of its labels, beside those that say where it was measured.
    #[serde(default)]
    pub labels: Vec<String>,
}

impl Agenda {
    /// What is impossible in it, if anything is.
    #[must_use]
    pub fn fault(&self) -> Option<String> {
        if self.version == 0 || self.version > PROTOCOL {
            return Some(format!("version {} is not understood, {PROTOCOL} is", self.version));
        }
        if self.questions.len() > MAX_PROBES {
            return Some(format!("questions must be at most {MAX_PROBES}"));
        }
        let of_question = |Repeated { probe, every_ms, .. }: &Repeated| {
            let output =
                (probe.max_output == 0 || probe.max_output > MAX_ANSWER).then(|| format!("maxOutput must be 1 to {MAX_ANSWER}"));
            let every = (*every_ms == 0 || *every_ms > MAX_TIMEOUT_MS).then(|| format!("everyMs must be 1 to {MAX_TIMEOUT_MS}"));
            let fault = output.or(every).or_else(|| impossible(probe.timeout_ms, &probe.env));
            fault.map(|fault| format!("probe {:?}: {fault}", probe.name))
        };
        self.questions.iter().find_map(of_question)
    }
}
