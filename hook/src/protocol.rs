//! What passes between the controller, the webhook and the runner.
//!
//! A pod keeps the runner that it was started with for months, while the controller moves on: fields and variants are only ever added, unknown
//! fields are ignored, and [`PROTOCOL`] is raised only when an old runner would do the wrong thing with a new request.
//!
//! On standard input a message is a frame: its length as four bytes, big endian, then that many bytes of JSON ([`frame`]). On standard output an
//! answer is one line of JSON; what a run writes may come before it, in lines of its own ([`Streamed`]).

mod agent;
mod collect;
mod stream;

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

pub use agent::{AGENDA, AGENT_PORT, Agenda, COLLECT_PATH, Family, METRICS_PATH, Repeated};
pub use collect::{Collect, Collected, MAX_ANSWER, MAX_COMPLAINT, MAX_PROBE_MEMORY, MAX_PROBES, Probe, Sample, Usage, Working};
pub use stream::Streamed;

/// The version of requests that this build understands.
pub const PROTOCOL: u32 = 1;

/// The most bytes of JSON in one frame. A script is at most 64 KiB and becomes at most 6 times that when every byte is escaped (384 KiB); the
/// environment carries the names of the peers, 1,000 pods at up to 317 bytes each in two variables (620 KiB at most); 1 MiB holds both.
pub const MAX_REQUEST: usize = 1024 * 1024;

/// The most bytes in one line of outcome: two tails of 64 KiB, each byte escaped as six (768 KiB), and under 64 KiB of everything else.
pub const MAX_OUTCOME: usize = 1024 * 1024;

/// The bytes that are kept of each of a hook's two output streams: enough for a stack trace, and 128 KiB of memory per run in all.
pub const MAX_TAIL: usize = 64 * 1024;

/// The longest timeout of one run, in milliseconds: a day. A run that waits longer than that is lost, and holds its pod's scope for nothing.
pub const MAX_TIMEOUT_MS: u64 = 24 * 60 * 60 * 1000;

/// An answer to a request comes at most this long after its timeout, in milliseconds: five seconds for killing all descendants, one for reading what
/// they wrote, six for a slow disk. Whoever waits for an answer waits for timeout and this, and for the way there and back.
pub const ANSWER_AFTER_MS: u64 = 12_000;

/// The environment variable of the init container that carries [`Installed`], encoded by [`Installed::encode`].
pub const SPEC_VARIABLE: &str = "GUARDIAN_SPEC";

/// The most bytes of an encoded [`Installed`]. The kernel refuses to start a program with a string of 128 KiB or more in its environment
/// (`MAX_ARG_STRLEN`, 32 pages), and the string is name, `=`, value and a zero byte.
pub const MAX_SPEC: usize = 128 * 1024 - SPEC_VARIABLE.len() - 2;

/// The files that `guardian-hook put` writes.
pub const PUT_FILES: [&str; 2] = [MEMBERS, AGENDA];

/// The file that names the members of the set of a pod.
pub const MEMBERS: &str = "members.json";

/// What `guardian-hook put` says on standard error, and what it takes, where it is given something else.
pub const PUT_TAKES: &str = "put takes";

/// The environment variable that carries what `guardian-hook put` writes.
pub const PUT_CONTENT: &str = "GUARDIAN_CONTENT";

/// The most bytes of it: under the 128 KiB that the kernel takes for one string, with its name (`MAX_ARG_STRLEN`).
pub const MAX_PUT: usize = 120 * 1024;

/// What a runner that does not know a command says on standard error; it ends with status 2 and prints nothing else.
pub const NO_SUCH_COMMAND: &str = "no such command";

/// What is missing ([`RunResult::NotFound`]) when a command has no words. No policy has such a one: a request with it asks for what became of a run,
/// and sees to it that it is not started any more if it never was. So does every older runner.
pub const EMPTY_COMMAND: &str = "the command is empty";

/// What `guardian-hook run` reads: start one hook, once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Request {
    /// [`PROTOCOL`] of the sender.
    pub version: u32,
    /// `metadata.uid` of the pod that is meant. An exec addresses a pod by name; a pod of the same name with another uid refuses.
    pub pod_uid: String,
    /// Names this attempt ([`valid_run_id`]). The same id never starts a second process: it attaches to the first, or learns its outcome.
    pub run_id: String,
    /// The hook or task, for the record: `rejoin`.
    pub hook: String,
    /// What to start.
    pub program: Program,
    /// Added to the environment of the exec, and stronger than it.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// After this many milliseconds the process and all its descendants are killed; 1 to [`MAX_TIMEOUT_MS`].
    pub timeout_ms: u64,
    /// Whether what it writes is wanted as it comes, in lines before the outcome ([`Streamed`]). Only who starts the run gets them.
    #[serde(default, skip_serializing_if = "is_false")]
    pub stream: bool,
}

/// A program in either of the two shapes of a policy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Program {
    /// The argument vector. The first is looked up in `PATH` unless it has a slash. There is no implicit shell.
    Command(Vec<String>),
    /// A text that is written to a file and run by its shebang.
    Script {
        /// The key of the ConfigMap.
        name: String,
        /// The text, its first line `#!interpreter`.
        text: String,
    },
}

/// What `guardian-hook run` prints: how a run ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Outcome {
    /// [`PROTOCOL`] of the runner.
    pub version: u32,
    /// That of the request; empty when the request could not be read.
    pub run_id: String,
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
    /// Descendants that were still there after every effort to kill them: of another user, or stuck in the kernel.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub survivors: u32,
}

/// The end of an output stream.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Tail {
    /// The last [`MAX_TAIL`] bytes, invalid UTF-8 replaced.
    pub text: String,
    /// How many bytes came before those.
    pub dropped: u64,
}

/// How a run ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum RunResult {
    /// It ended by itself.
    Exited {
        /// Its exit status, 0 to 255.
        code: i32,
    },
    /// A signal ended it.
    Signaled {
        /// The number of the signal.
        signal: i32,
    },
    /// It was killed at its deadline.
    TimedOut,
    /// There is no such program, or no such interpreter of the script.
    NotFound {
        /// What is missing.
        what: String,
    },
    /// The program is there and cannot be executed.
    NotExecutable {
        /// What, and the kernel's word on it.
        what: String,
    },
    /// No process could be made: no memory, no process ids, no space for the script.
    NotStarted {
        /// What failed.
        message: String,
    },
    /// An earlier runner claimed this id and ended without an outcome: how far the hook came is unknown.
    Interrupted,
    /// Nothing was started for this request.
    Refused {
        /// The reason.
        why: Refusal,
    },
    /// A result of a newer runner.
    #[serde(other)]
    Unknown,
}

/// Why a request was not carried out. The runner started nothing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum Refusal {
    /// The request is meant for another pod of this name.
    OtherPod {
        /// The uid of the pod that answers.
        uid: String,
    },
    /// The request is incomplete, oversized, not JSON, or has an impossible value.
    BadRequest {
        /// What is wrong.
        message: String,
    },
    /// The request has a version that this runner does not understand.
    UnsupportedVersion {
        /// The version of the request.
        asked: u32,
        /// The newest version that this runner understands.
        supported: u32,
    },
    /// The pod has no readable installation: its init container has not run.
    NotInstalled {
        /// What could not be read.
        message: String,
    },
    /// The claim could not be written, so nothing was started.
    Unwritable {
        /// What could not be written.
        message: String,
    },
    /// The runner of this id is alive beyond the deadline of this request. Ask again.
    StillRunning,
    /// A refusal of a newer runner.
    #[serde(other)]
    Unknown,
}

/// What `guardian-hook reason` reads: why the pod is being stopped.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StopReason {
    /// [`PROTOCOL`] of the sender.
    pub version: u32,
    /// `metadata.uid` of the pod that is meant.
    pub pod_uid: String,
    /// A word, as in `ScaleIn`: 1 to 64 letters and digits.
    pub reason: String,
    /// Added to the environment of preStop.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// The set or its namespace is on hold: the hook is not run, and the set's own preStop follows at once. Older runners run the hook.
    #[serde(default, skip_serializing_if = "core::ops::Not::not")]
    pub on_hold: bool,
}

/// What `guardian-hook reason` prints.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Noted {
    /// [`PROTOCOL`] of the runner.
    pub version: u32,
    /// Absent when the reason was taken.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<Refusal>,
}

/// What the init container installs: everything that the pod's own hooks need to run with no controller.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Installed {
    /// The format of this structure: 1.
    pub format: u32,
    /// `spec.serviceName` of the set, empty when it has none.
    pub service: String,
    /// The name of the set.
    pub set: String,
    /// The pod's own hooks, by name: `init`, `preStop`.
    #[serde(default)]
    pub hooks: BTreeMap<String, InPodHook>,
    /// The user's own preStop, which comes after the guardian's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub chained: Option<Chained>,
    /// How long preStop waits for its reason, in milliseconds; 0: not at all.
    #[serde(default)]
    pub reason_wait_ms: u64,
}

/// A hook that the pod runs by itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct InPodHook {
    /// What to start.
    pub program: Program,
    /// After this many milliseconds it is killed; 1 to [`MAX_TIMEOUT_MS`].
    pub timeout_ms: u64,
    /// Added to the environment of the container, and stronger than it.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// What a failure of `init` means for the pod. A preStop cannot hold anything up, so there it has no meaning.
    #[serde(default)]
    pub on_failure: OnFailure,
}

/// What a failed hook of the pod means for its start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum OnFailure {
    /// The pod goes on.
    #[default]
    Continue,
    /// The init container fails, and the kubelet tries again.
    Block,
}

/// The user's own `lifecycle.preStop`, which the guardian's replaces in the template.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Chained {
    /// `exec.command`.
    Exec(Vec<String>),
    /// `sleep.seconds` (KEP-3960).
    Sleep {
        /// How long.
        seconds: u64,
    },
}

/// Why an [`Installed`] cannot be carried by an environment variable, or read from one.
#[derive(Debug, thiserror::Error)]
pub enum SpecError {
    /// Over the kernel's limit.
    #[error("the hooks of a pod take {bytes} bytes encoded, at most {MAX_SPEC} fit: shorten the scripts of init and preStop")]
    TooLarge {
        /// The size, encoded.
        bytes: usize,
    },
    /// Not base64.
    #[error("{SPEC_VARIABLE} is not base64: {0}")]
    Encoding(base64::DecodeError),
    /// Not the JSON of an [`Installed`].
    #[error("{SPEC_VARIABLE} does not hold the hooks of a pod")]
    Content(#[from] serde_json::Error),
    /// Written by a newer webhook.
    #[error("{SPEC_VARIABLE} has format {0}, this runner reads format 1")]
    Format(u32),
}

impl Installed {
    /// As the value of [`SPEC_VARIABLE`]: base64, because the kubelet rewrites `$$` and `$(NAME)` in values.
    ///
    /// # Errors
    /// When it is longer than [`MAX_SPEC`].
    pub fn encode(&self) -> Result<String, SpecError> {
        let text = STANDARD.encode(serde_json::to_vec(self)?);
        if text.len() > MAX_SPEC {
            return Err(SpecError::TooLarge { bytes: text.len() });
        }
        Ok(text)
    }

    /// Back from the value of [`SPEC_VARIABLE`].
    ///
    /// # Errors
    /// When it is not base64 of the JSON of format 1.
    pub fn decode(value: &[u8]) -> Result<Self, SpecError> {
        let json = STANDARD.decode(value).map_err(SpecError::Encoding)?;
        let installed: Self = serde_json::from_slice(&json)?;
        match installed.format {
            1 => Ok(installed),
            other => Err(SpecError::Format(other)),
        }
    }
}

/// A message as it goes to standard input: its length in four bytes, then its JSON.
///
/// # Errors
/// When it is longer than [`MAX_REQUEST`].
pub fn frame(message: &impl Serialize) -> Result<Vec<u8>, FrameError> {
    let json = serde_json::to_vec(message)?;
    if json.len() > MAX_REQUEST {
        return Err(FrameError::TooLarge { bytes: json.len() });
    }
    let length = u32::try_from(json.len()).map_err(|_| FrameError::TooLarge { bytes: json.len() })?;
    let mut bytes = Vec::with_capacity(4 + json.len());
    bytes.extend_from_slice(&length.to_be_bytes());
    bytes.extend_from_slice(&json);
    Ok(bytes)
}

/// Why a message cannot be framed.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// Over [`MAX_REQUEST`].
    #[error("a request of {bytes} bytes is over the limit of {MAX_REQUEST}")]
    TooLarge {
        /// The size of the JSON.
        bytes: usize,
    },
    /// The message does not serialise.
    #[error("the message cannot be written as JSON")]
    Json(#[from] serde_json::Error),
}

/// What every message has in every version.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Address {
    version: u32,
    pod_uid: String,
}

/// The most bytes of a parse error that are sent back.
const MAX_FAULT: usize = 300;

/// Reads the JSON of a message to a pod that has this uid, in a version that is understood.
///
/// # Errors
/// What is answered to it instead.
pub fn read<T: DeserializeOwned>(json: &[u8], pod_uid: impl FnOnce() -> Result<String, Refusal>) -> Result<T, Refusal> {
    let address: Address = parse(json)?;
    if address.version == 0 || address.version > PROTOCOL {
        return Err(Refusal::UnsupportedVersion { asked: address.version, supported: PROTOCOL });
    }
    let uid = pod_uid()?;
    if address.pod_uid != uid {
        return Err(Refusal::OtherPod { uid });
    }
    parse(json)
}

fn parse<T: DeserializeOwned>(json: &[u8]) -> Result<T, Refusal> {
    serde_json::from_slice(json).map_err(|e| {
        let fault: String = e.to_string().chars().take(MAX_FAULT).collect();
        Refusal::BadRequest { message: format!("not a request: {fault}") }
    })
}

impl Request {
    /// What is impossible in it, if anything is.
    #[must_use]
    pub fn fault(&self) -> Option<String> {
        if !valid_run_id(&self.run_id) {
            return Some("runId must be 1 to 100 of A-Z a-z 0-9 . _ - with no dot in front".into());
        }
        impossible(self.timeout_ms, &self.env)
    }
}

fn impossible(timeout_ms: u64, env: &BTreeMap<String, String>) -> Option<String> {
    if timeout_ms == 0 || timeout_ms > MAX_TIMEOUT_MS {
        return Some(format!("timeoutMs must be 1 to {MAX_TIMEOUT_MS}"));
    }
    let bad = |name: &&String| name.is_empty() || name.contains(['=', '\0']);
    env.keys().find(bad).map(|name| format!("{name:?} cannot name a variable"))
}

/// Whether this can name a run: 1 to 100 of `A-Z a-z 0-9 . _ -`, no dot in front. Such a name is a file name in every file system.
#[must_use]
pub fn valid_run_id(id: &str) -> bool {
    let word = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
    (1..=100).contains(&id.len()) && !id.starts_with('.') && id.bytes().all(word)
}

/// Whether this can be a stop reason: 1 to 64 letters and digits.
#[must_use]
pub fn valid_reason(reason: &str) -> bool {
    (1..=64).contains(&reason.len()) && reason.bytes().all(|b| b.is_ascii_alphanumeric())
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes the field by reference")]
fn is_zero(n: &u32) -> bool {
    *n == 0
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes the field by reference")]
fn is_false(flag: &bool) -> bool {
    !*flag
}
