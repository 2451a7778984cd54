//! Questions to a pod that change nothing, and their answers.

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use super::{MAX_TAIL, MAX_TIMEOUT_MS, Program, Refusal, RunResult, Tail, impossible};

/// What `guardian-hook collect` reads: questions that change nothing. They are asked one after the other, and nothing is kept of them.
///
/// Who asks keeps standard input open until he has what he wants: its end, or that of a reader of standard output, ends the runner and whatever it
/// has started. Another request may follow the last answer, where this one says so.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Collect {
    /// [`PROTOCOL`] of the sender.
    pub version: u32,
    /// `metadata.uid` of the pod that is meant.
    pub pod_uid: String,
    /// What is asked, in this order; at most [`MAX_PROBES`].
    pub probes: Vec<Probe>,
    /// Wait so many milliseconds for another request once all is answered; 0: end then. At most [`MAX_TIMEOUT_MS`].
    #[serde(default, skip_serializing_if = "is_no_time")]
    pub wait_ms: u64,
    /// Where the data volume of the container is mounted, if it has one: the usage tells how full it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disk: Option<String>,
}

/// One question.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Probe {
    /// Names it in its answer: `role`.
    pub name: String,
    /// What to start.
    pub program: Program,
    /// Added to the environment of the exec, and stronger than it.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// After this many milliseconds the process and all its descendants are killed; 1 to [`MAX_TIMEOUT_MS`].
    pub timeout_ms: u64,
    /// The last so many bytes of its standard output are answered: [`MAX_ANSWER`] unless it says less or more, at most [`MAX_TAIL`].
    #[serde(default = "max_answer")]
    pub max_output: usize,
}

/// What is answered of a probe's standard output, where nothing else is asked for: a role and its version have at most 84 bytes.
pub const MAX_ANSWER: usize = 4 * 1024;

/// What is answered of a probe's standard error: its last words.
pub const MAX_COMPLAINT: usize = 1024;

/// Most probes of one request: each is a line of at most 391 KiB (a tail of 64 KiB with each byte escaped, and the rest).
pub const MAX_PROBES: usize = 64;

/// The most memory that a process started for a probe may ask for, in bytes (`RLIMIT_DATA`). It is charged to the application's own cgroup, whose
/// processes the kernel kills together (`memory.oom.group`) once that is full: a probe that grows must fail alone, and before.
pub const MAX_PROBE_MEMORY: u64 = 256 * 1024 * 1024;

/// A line that `guardian-hook collect` prints: one for each probe, then one of usage. A refusal is the only line. An agent serves such lines too: first
/// what it works on, then one for each question, a sample or that there is none yet, and no usage, which would be its own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "camelCase")]
pub enum Collected {
    /// The answer to one probe.
    Probe(Sample),
    /// What the container uses: the last line of an answer.
    Usage(Usage),
    /// Nothing was asked.
    Refused {
        /// The reason.
        why: Refusal,
    },
    /// Who answers, and what it works on.
    Agent(Working),
    /// A question that was not answered yet.
    Waits {
        /// That of the probe.
        name: String,
        /// For how many milliseconds it is on the agenda.
        #[serde(rename = "ageMs")]
        age_ms: u64,
    },
    /// A line of a newer runner.
    #[serde(other)]
    Unknown,
}

/// The agent of a pod.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Working {
    /// `metadata.uid` of its pod.
    pub pod_uid: String,
    /// That of its agenda; empty while it has none.
    pub revision: String,
}

/// The answer to one probe.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Sample {
    /// That of the probe.
    pub name: String,
    /// How it ended.
    pub result: RunResult,
    /// From the start of the process to its end, in milliseconds.
    pub duration_ms: u64,
    /// Standard output.
    #[serde(default)]
    pub stdout: Tail,
    /// Standard error.
    #[serde(default)]
    pub stderr: Tail,
    /// How many milliseconds ago it ended, where the answer was kept; absent: just now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub age_ms: Option<u64>,
}

/// What a container uses, as its cgroup tells. What the cgroup does not tell is absent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Usage {
    /// Bytes of memory, page cache included.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_bytes: Option<u64>,
    /// Bytes of page cache that the kernel gives back first (`inactive_file`). Without them it is what the kubelet calls the working set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reclaimable_bytes: Option<u64>,
    /// The limit in bytes; absent when there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_limit_bytes: Option<u64>,
    /// CPU time since the container was made, in microseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_usage_us: Option<u64>,
    /// Thousandths of a CPU that it may use; absent when there is no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_limit_millis: Option<u64>,
    /// How long its processes were held back by that limit, in microseconds, since it was made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub throttled_us: Option<u64>,
    /// Bytes that are used on the file system of its data volume.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disk_bytes: Option<u64>,
    /// Bytes that it may have used there: what is used, and what is left to a user who is not root.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disk_limit_bytes: Option<u64>,
}

impl Collect {
    /// What is impossible in it, if anything is.
    #[must_use]
    pub fn fault(&self) -> Option<String> {
        if self.wait_ms > MAX_TIMEOUT_MS {
            return Some(format!("waitMs must be 0 to {MAX_TIMEOUT_MS}"));
        }
        if self.probes.is_empty() || self.probes.len() > MAX_PROBES {
            return Some(format!("probes must be 1 to {MAX_PROBES}"));
        }
        let of_probe = |probe: &Probe| {
            let over = format!("maxOutput must be 1 to {MAX_TAIL}");
            let output = (probe.max_output == 0 || probe.max_output > MAX_TAIL).then_some(over);
            output.or_else(|| impossible(probe.timeout_ms, &probe.env)).map(|fault| format!("probe {:?}: {fault}", probe.name))
        };
        self.probes.iter().find_map(of_probe)
    }
}

const fn max_answer() -> usize {
    MAX_ANSWER
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes the field by reference")]
fn is_no_time(ms: &u64) -> bool {
    *ms == 0
}
