//! Asks the runner in a pod to carry out one run, and waits for its outcome.

use std::time::Duration;

use futures::future::BoxFuture;
use guardian_core::policy::MAX_METRICS;
use guardian_core::{lifecycle, metric, names};
use guardian_hook::protocol::{
    Collect, Collected, MAX_COMPLAINT, MAX_OUTCOME, MAX_PROBES, NO_SUCH_COMMAND, Noted, Outcome, PROTOCOL, Request, RunResult,
    StopReason, Tail, frame,
};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Status;
use kube::api::{AttachParams, AttachedProcess};
use kube::{Api, Client};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::watch;
use tokio::time::timeout;

/// How long the connection to a container may take: API server and kubelet each have a few seconds for it on a busy node.
const CONNECT: Duration = Duration::from_secs(10);
/// How long beyond the hook's own time out the runner may take to kill what it started, to reap it and to answer.
const SLACK: Duration = Duration::from_secs(20);
/// How long the output may lag behind the status: both come over one connection.
const DRAIN: Duration = Duration::from_millis(200);
/// Most bytes that are read of the runner's standard output: one line of outcome, and as much again of a misplaced message.
const MAX_STDOUT: usize = 2 * MAX_OUTCOME;
/// What a policy can ask at once fits into one request, and the answers into what is read: each byte escaped as six, and names.
const _: () =
    assert!(MAX_METRICS < MAX_PROBES && (MAX_METRICS + 1) * (6 * (metric::MAX_OUTPUT + MAX_COMPLAINT) + 1024) <= MAX_STDOUT);
/// Most bytes that are read of its standard error: a few sentences.
const MAX_STDERR: usize = 4 * 1024;
/// Size of the pipe to the runner's standard input: fewer, larger frames on the wire.
const STDIN_PIPE: usize = 64 * 1024;

/// One run, addressed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Order {
    /// Namespace of the pod.
    pub namespace: String,
    /// Name of the pod. The request carries the uid that is meant.
    pub pod: String,
    /// The container in which it runs.
    pub container: String,
    /// What the runner is asked.
    pub request: Request,
}

/// Questions that change nothing, addressed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Questions {
    /// Namespace of the pod.
    pub namespace: String,
    /// Name of the pod. The request carries the uid that is meant.
    pub pod: String,
    /// The container in which they are asked.
    pub container: String,
    /// What the runner is asked, once.
    pub request: Collect,
}

/// Why a pod is being stopped, addressed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    /// Namespace of the pod.
    pub namespace: String,
    /// Name of the pod. The reason carries the uid that is meant.
    pub pod: String,
    /// The container in which its preStop runs.
    pub container: String,
    /// The reason.
    pub reason: StopReason,
}

/// No outcome. Whether the run was started is not known, unless it says otherwise.
#[derive(Debug, thiserror::Error)]
pub enum ExecError {
    /// The API server does not let us.
    #[error("no right to exec in the pod")]
    Denied(#[source] kube::Error),
    /// The exec was not begun, as far as we know.
    #[error("no connection to the container")]
    Unreachable(#[source] kube::Error),
    /// Nobody answered in time.
    #[error("no answer from the runner within {} s", .0.as_secs())]
    Silent(Duration),
    /// The connection ended without a word on how the runner ended.
    #[error("the connection to the runner was lost")]
    Cut,
    /// The runner, or what was in its place, ended without an outcome.
    #[error("the runner ended without an outcome: {0}")]
    NoOutcome(String),
    /// It was started with an older version of the runner, which cannot do this. It stays so as long as the pod lives.
    #[error("the runner of this pod is from before probes: its next template change brings a newer one")]
    Unsupported,
    /// There is none.
    #[error("the pod has no runner: it was made without the guardian, or its init container has not run")]
    NoRunner,
    /// It refused.
    #[error("the runner refused: {0}")]
    Refused(String),
    /// The request cannot be sent.
    #[error("the request is too large")]
    Request(#[from] guardian_hook::protocol::FrameError),
}

/// Whoever is told the lines of an answer.
pub type Heard<'a> = &'a mut (dyn FnMut(Collected) + Send);

/// Carries out runs in pods. The same run id may be asked for as often as one likes: it is started once.
pub trait Exec: Send + Sync {
    /// Asks for one run and waits for its outcome.
    fn run<'a>(&'a self, order: &'a Order) -> BoxFuture<'a, Result<Outcome, ExecError>>;

    /// Asks questions once, tells each answer as it comes, and ends when all have come.
    fn collect<'a>(&'a self, questions: &'a Questions, heard: Heard<'a>) -> BoxFuture<'a, Result<(), ExecError>>;

    /// Tells a pod why it is being stopped.
    fn tell<'a>(&'a self, notice: &'a Notice) -> BoxFuture<'a, Result<(), ExecError>>;
}

/// The runner in a real pod, through `pods/exec`.
pub struct PodExec {
    client: Client,
}

impl PodExec {
    /// Through this client.
    #[must_use]
    pub const fn new(client: Client) -> Self {
        Self { client }
    }
}

impl Exec for PodExec {
    fn run<'a>(&'a self, order: &'a Order) -> BoxFuture<'a, Result<Outcome, ExecError>> {
        Box::pin(async move {
            let limit = CONNECT + Duration::from_millis(order.request.timeout_ms) + SLACK;
            let Order { namespace, pod, container, request } = order;
            let at = Address { namespace, pod, container };
            let spoken = timeout(limit, converse(&self.client, at, "run", frame(request)?, &mut |_| {})).await;
            spoken.unwrap_or(Err(ExecError::Silent(limit)))?.outcome(&request.run_id)
        })
    }

    fn collect<'a>(&'a self, questions: &'a Questions, heard: Heard<'a>) -> BoxFuture<'a, Result<(), ExecError>> {
        Box::pin(async move {
            let Questions { namespace, pod, container, request } = questions;
            let times = || request.probes.iter().map(|probe| Duration::from_millis(probe.timeout_ms));
            let limit = CONNECT + times().sum::<Duration>() + SLACK;
            // Answers come one by one: a connection that died is noticed as soon as one of them is overdue.
            let silence = CONNECT + times().max().unwrap_or_default() + SLACK;
            let (answered, mut answers) = watch::channel(());
            let at = Address { namespace, pod, container };
            let mut lines = Lines { told: 0, heard };
            let mut listener = |stdout: &[u8]| {
                if lines.tell(stdout) {
                    answered.send_replace(());
                }
            };
            let spoken = timeout(limit, converse(&self.client, at, "collect", frame(request)?, &mut listener));
            let overdue = async { while let Ok(Ok(())) = timeout(silence, answers.changed()).await {} };
            tokio::select! {
                spoken = spoken => spoken.unwrap_or(Err(ExecError::Silent(limit)))?.collected(),
                () = overdue => Err(ExecError::Silent(silence)),
            }
        })
    }

    fn tell<'a>(&'a self, notice: &'a Notice) -> BoxFuture<'a, Result<(), ExecError>> {
        Box::pin(async move {
            let Notice { namespace, pod, container, reason } = notice;
            let at = Address { namespace, pod, container };
            let spoken = timeout(TELL, converse(&self.client, at, "reason", frame(reason)?, &mut |_| {})).await;
            spoken.unwrap_or(Err(ExecError::Silent(TELL)))?.noted()
        })
    }
}

/// How long a pod may take that is told why it stops. It is a write of a hundred bytes.
const TELL: Duration = Duration::from_secs(5);

/// A container.
#[derive(Clone, Copy)]
struct Address<'a> {
    namespace: &'a str,
    pod: &'a str,
    container: &'a str,
}

/// Told what has come on standard output so far, whenever more has come.
type Listener<'a> = &'a mut (dyn FnMut(&[u8]) + Send);

/// Tells each line of an answer once it is whole.
struct Lines<'a> {
    told: usize,
    heard: Heard<'a>,
}

impl Lines<'_> {
    /// Says whether there was any.
    fn tell(&mut self, stdout: &[u8]) -> bool {
        let before = self.told;
        while let Some(line) = stdout.get(self.told..).and_then(|rest| rest.split_inclusive(|b| *b == b'\n').next())
            && line.ends_with(b"\n")
        {
            self.told += line.len();
            if let Ok(line) = serde_json::from_slice(line) {
                (self.heard)(line);
            }
        }
        self.told > before
    }
}

/// Starts a command of the runner, sends it a message, and waits until it has ended.
async fn converse(
    client: &Client,
    at: Address<'_>,
    command: &str,
    message: Vec<u8>,
    listener: Listener<'_>,
) -> Result<Spoken, ExecError> {
    let pods: Api<Pod> = Api::namespaced(client.clone(), at.namespace);
    let params = AttachParams {
        container: Some(at.container.to_owned()),
        stdin: true,
        stdout: true,
        stderr: true,
        tty: false,
        max_stdin_buf_size: Some(STDIN_PIPE),
        ..AttachParams::default()
    };
    let connecting = pods.exec(at.pod, [names::RUNNER, command], &params);
    let process = match timeout(CONNECT, connecting).await {
        Ok(Ok(process)) => process,
        Ok(Err(error)) => return Err(refused(error)),
        Err(_) => return Err(ExecError::Silent(CONNECT)),
    };
    listen(process, &message, listener).await
}

/// What came from the runner.
struct Spoken {
    stdout: Vec<u8>,
    stderr: Vec<u8>,
    status: Status,
}

/// Sends the request and reads to the end. Only the status tells that it is the end: the streams may close early, late, or never.
async fn listen(mut process: AttachedProcess, message: &[u8], listener: Listener<'_>) -> Result<Spoken, ExecError> {
    let status = process.take_status().ok_or(ExecError::Cut)?;
    let mut stdin = process.stdin();
    let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
    let (out, err) = (process.stdout(), process.stderr());
    let status = {
        let talk = async {
            // The pipe stays open to the end: with the older protocol, to close it is to hang up. A failure shows in the status.
            let send = async {
                if let Some(stdin) = &mut stdin {
                    let _ = stdin.write_all(message).await;
                }
            };
            let mut nobody = |_: &[u8]| {};
            tokio::join!(send, drain(out, &mut stdout, MAX_STDOUT, listener), drain(err, &mut stderr, MAX_STDERR, &mut nobody))
        };
        let (mut talk, mut status) = (std::pin::pin!(talk), std::pin::pin!(status));
        tokio::select! {
            status = &mut status => {
                let _ = timeout(DRAIN, talk).await;
                status
            }
            _ = &mut talk => status.await,
        }
    };
    let status = status.ok_or(ExecError::Cut)?;
    Ok(Spoken { stdout, stderr, status })
}

/// Reads to the end, keeps the first `most` bytes, and tells what is kept.
async fn drain(reader: Option<impl AsyncRead + Unpin>, kept: &mut Vec<u8>, most: usize, listener: Listener<'_>) {
    let Some(mut reader) = reader else { return };
    let mut buffer = vec![0; 16 * 1024];
    while let Ok(n @ 1..) = reader.read(&mut buffer).await {
        let room = most.saturating_sub(kept.len());
        kept.extend(buffer.iter().take(n.min(room)));
        listener(kept);
    }
}

impl Spoken {
    fn outcome(&self, run_id: &str) -> Result<Outcome, ExecError> {
        let text = String::from_utf8_lossy(&self.stdout);
        let outcome = text.lines().rev().find_map(|line| serde_json::from_str::<Outcome>(line).ok());
        match outcome {
            Some(outcome) if outcome.run_id == run_id || outcome.run_id.is_empty() => Ok(outcome),
            Some(other) => Err(ExecError::NoOutcome(format!("it answered for run {:?}", other.run_id))),
            None if self.is_missing() => Ok(missing(run_id)),
            None => Err(ExecError::NoOutcome(self.complaint())),
        }
    }

    fn noted(&self) -> Result<(), ExecError> {
        let text = String::from_utf8_lossy(&self.stdout);
        match text.lines().rev().find_map(|line| serde_json::from_str::<Noted>(line).ok()) {
            Some(Noted { refused: None, .. }) => Ok(()),
            Some(Noted { refused: Some(why), .. }) => Err(ExecError::Refused(lifecycle::refusal(&why))),
            None if self.is_missing() => Err(ExecError::NoRunner),
            None => Err(ExecError::NoOutcome(self.complaint())),
        }
    }

    /// Has it answered? Each answer was told before.
    fn collected(&self) -> Result<(), ExecError> {
        let lines = self.stdout.split(|b| *b == b'\n').filter_map(|line| serde_json::from_slice(line).ok());
        let lines: Vec<Collected> = lines.collect();
        let refusal = lines.iter().find_map(|line| match line {
            Collected::Refused { why } => Some(why),
            _ => None,
        });
        match refusal {
            Some(why) => Err(ExecError::Refused(lifecycle::refusal(why))),
            None if !lines.is_empty() => Ok(()),
            None if self.is_missing() => Err(ExecError::NoRunner),
            None if String::from_utf8_lossy(&self.stderr).contains(NO_SUCH_COMMAND) => Err(ExecError::Unsupported),
            None => Err(ExecError::NoOutcome(self.complaint())),
        }
    }

    /// The runtime could not find the runner, so nothing was started. Container runtimes tell it in words only.
    fn is_missing(&self) -> bool {
        let message = self.status.message.as_deref().unwrap_or_default();
        message.contains("no such file or directory") || message.contains("executable file not found")
    }

    fn complaint(&self) -> String {
        let stderr = String::from_utf8_lossy(&self.stderr);
        let said = stderr.lines().rfind(|line| !line.trim().is_empty());
        let said = said.or(self.status.message.as_deref()).unwrap_or("it said nothing");
        said.chars().map(|c| if c.is_control() { ' ' } else { c }).take(256).collect()
    }
}

fn missing(run_id: &str) -> Outcome {
    Outcome {
        version: PROTOCOL,
        run_id: run_id.to_owned(),
        result: RunResult::NotFound { what: names::RUNNER.to_owned() },
        duration_ms: 0,
        stdout: Tail::default(),
        stderr: Tail::default(),
        survivors: 0,
    }
}

fn refused(error: kube::Error) -> ExecError {
    match &error {
        kube::Error::Api(status) if status.code == 403 => ExecError::Denied(error),
        _ => ExecError::Unreachable(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spoken(stdout: &str, stderr: &str, message: &str) -> Spoken {
        let status = Status { message: Some(message.into()), ..Status::default() };
        Spoken { stdout: stdout.into(), stderr: stderr.into(), status }
    }

    const EXITED: &str = r#"{"version":1,"runId":"r-1","result":{"kind":"exited","code":3},"durationMs":5}"#;

    #[test]
    fn the_outcome_is_the_last_line_that_is_one() {
        let spoken = spoken(&format!("a login banner\n{EXITED}\n\n"), "", "");
        assert_eq!(spoken.outcome("r-1").unwrap().result, RunResult::Exited { code: 3 });
    }

    #[test]
    fn an_answer_for_another_run_is_no_outcome() {
        let error = spoken(EXITED, "", "").outcome("r-2").unwrap_err();
        assert_eq!(error.to_string(), "the runner ended without an outcome: it answered for run \"r-1\"");
    }

    #[test]
    fn a_status_without_an_outcome_is_not_a_success() {
        let error = spoken("", "panicked\u{1b}[0m\n", "command terminated with exit code 101").outcome("r-1").unwrap_err();
        assert_eq!(error.to_string(), "the runner ended without an outcome: panicked [0m");
        assert!(matches!(spoken("", "", "").outcome("r-1"), Err(ExecError::NoOutcome(_))));
    }

    #[test]
    fn a_pod_without_a_runner_is_told_at_once() {
        for message in [
            "exec: \"/guardian/guardian-hook\": stat /guardian/guardian-hook: no such file or directory",
            "executable file not found in $PATH",
        ] {
            let outcome = spoken("", "", message).outcome("r-1").unwrap();
            assert_eq!(outcome.result, RunResult::NotFound { what: "/guardian/guardian-hook".into() });
        }
    }

    #[test]
    fn answers_are_the_lines_that_are_some_and_each_is_told_once_it_is_whole() {
        let usage = r#"{"kind":"usage","memoryBytes":1}"#;
        let text = format!("a login banner\n{usage}\n\n{{\"kind\":\"disk\"}}\n{usage}");
        assert!(spoken(&text, "", "").collected().is_ok());
        let mut told = Vec::new();
        let mut hear = |line| told.push(line);
        let mut lines = Lines { told: 0, heard: &mut hear };
        let news = (0..=text.len()).filter(|end| lines.tell(&text.as_bytes()[..*end])).count();
        assert_eq!(news, 4, "lines");
        assert_eq!(told, [serde_json::from_str::<Collected>(usage).unwrap(), Collected::Unknown]);
    }

    #[test]
    fn a_runner_that_does_not_answer_questions_says_why() {
        let old = spoken("", "guardian-hook: no such command, see guardian-hook --help\n", "command terminated with exit code 2");
        assert!(matches!(old.collected(), Err(ExecError::Unsupported)));
        let none = spoken("", "", "stat /guardian/guardian-hook: no such file or directory");
        assert!(matches!(none.collected(), Err(ExecError::NoRunner)));
        let other = spoken(r#"{"kind":"refused","why":{"kind":"otherPod","uid":"x"}}"#, "", "").collected().unwrap_err();
        assert_eq!(other.to_string(), "the runner refused: the pod of this name is another (x)");
        assert!(matches!(spoken("", "", "").collected(), Err(ExecError::NoOutcome(_))));
    }

    #[tokio::test]
    async fn output_beyond_the_cap_is_read_and_dropped() {
        let endless = tokio::io::repeat(b'x').take(5_000_000);
        let mut kept = Vec::new();
        drain(Some(endless), &mut kept, 1000, &mut |_| {}).await;
        assert_eq!(kept.len(), 1000);
    }
}
