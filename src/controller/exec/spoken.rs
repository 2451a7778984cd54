//! What the runner says over one exec.

use std::time::Duration;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use guardian_core::policy::MAX_METRICS;
use guardian_core::{lifecycle, metric, names};
use guardian_hook::protocol::{
    Collected, MAX_COMPLAINT, MAX_OUTCOME, MAX_PROBES, NO_SUCH_COMMAND, Noted, Outcome, PROTOCOL, RunResult, Tail,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Status;
use kube::api::AttachedProcess;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _, ReadHalf, SimplexStream, WriteHalf};
use tokio::time::timeout;

use super::ExecError;

/// How long the output may lag behind the status: both come over one connection.
const DRAIN: Duration = Duration::from_millis(200);
/// Most bytes that are read of the runner's standard output: one line of outcome, and as much again of a misplaced message.
const MAX_STDOUT: usize = 2 * MAX_OUTCOME;
/// What a policy can ask at once fits into one request, and the answers into what is read: each byte escaped as six, and names.
const _: () =
    assert!(MAX_METRICS < MAX_PROBES && (MAX_METRICS + 1) * (6 * (metric::MAX_OUTPUT + MAX_COMPLAINT) + 1024) <= MAX_STDOUT);
/// Most bytes that are read of its standard error: a few sentences.
const MAX_STDERR: usize = 4 * 1024;

/// An exec of the runner, as long as it lasts.
pub(super) struct Session {
    stdin: Option<WriteHalf<SimplexStream>>,
    stdout: Option<ReadHalf<SimplexStream>>,
    stderr: Option<ReadHalf<SimplexStream>>,
    status: BoxFuture<'static, Option<Status>>,
    /// Carries the streams, and hangs up when it goes.
    _process: Option<AttachedProcess>,
}

/// What came from a runner that has ended.
pub(super) struct Spoken {
    stdout: Vec<u8>,
    stderr: Vec<u8>,
    status: Status,
}

/// Told each line of standard output once it is whole; says whether it is to be kept.
pub(super) type Listener<'h> = &'h mut (dyn FnMut(&[u8]) -> bool + Send);

impl Session {
    pub(super) fn new(mut process: AttachedProcess) -> Result<Self, ExecError> {
        let status = process.take_status().ok_or(ExecError::Cut)?.boxed();
        let (stdin, stdout, stderr) = (process.stdin(), process.stdout(), process.stderr());
        Ok(Self { stdin, stdout, stderr, status, _process: Some(process) })
    }

    #[cfg(test)]
    pub(super) fn over(
        stdin: WriteHalf<SimplexStream>,
        stdout: ReadHalf<SimplexStream>,
        status: BoxFuture<'static, Option<Status>>,
    ) -> Self {
        Self { stdin: Some(stdin), stdout: Some(stdout), stderr: None, status, _process: None }
    }

    /// Has the runner ended?
    pub(super) fn has_ended(&mut self) -> bool {
        (&mut self.status).now_or_never().is_some()
    }

    /// Sends a message and reads until the runner has ended, or until what was heard is enough: then nothing is given. Only the status tells that it
    /// has ended: the streams may close early, late, or never.
    pub(super) async fn converse(
        &mut self,
        message: &[u8],
        listener: Listener<'_>,
        enough: impl Future<Output = ()>,
    ) -> Result<Option<Spoken>, ExecError> {
        let Self { stdin, stdout: out, stderr: err, status, .. } = self;
        let mut all = |_: &[u8]| true;
        let (mut stdout, mut stderr) = (Kept::new(MAX_STDOUT, listener), Kept::new(MAX_STDERR, &mut all));
        let status = {
            let talk = async {
                // The pipe stays open to the end: to close it is to hang up. A failure shows in the status.
                let send = async {
                    if let Some(stdin) = stdin {
                        let _ = stdin.write_all(message).await;
                    }
                };
                tokio::join!(send, drain(out.as_mut(), &mut stdout), drain(err.as_mut(), &mut stderr))
            };
            let mut talk = std::pin::pin!(talk);
            tokio::select! {
                () = enough => return Ok(None),
                status = &mut *status => {
                    let _ = timeout(DRAIN, talk).await;
                    status
                }
                _ = &mut talk => status.await,
            }
        };
        let status = status.ok_or(ExecError::Cut)?;
        Ok(Some(Spoken { stdout: stdout.end(), stderr: stderr.end(), status }))
    }
}

/// Reads to the end.
async fn drain(reader: Option<impl AsyncRead + Unpin>, kept: &mut Kept<'_>) {
    let Some(mut reader) = reader else { return };
    let mut buffer = vec![0; 16 * 1024];
    while let Ok(n @ 1..) = reader.read(&mut buffer).await {
        kept.take(buffer.get(..n).unwrap_or_default());
    }
}

/// The first bytes of a stream, but for the lines that whoever listens does not keep.
struct Kept<'h> {
    bytes: Vec<u8>,
    most: usize,
    /// The line that has begun.
    line: Vec<u8>,
    listener: Listener<'h>,
}

impl<'h> Kept<'h> {
    const fn new(most: usize, listener: Listener<'h>) -> Self {
        Self { bytes: Vec::new(), most, line: Vec::new(), listener }
    }

    fn take(&mut self, read: &[u8]) {
        for piece in read.split_inclusive(|b| *b == b'\n') {
            keep(&mut self.line, self.most, piece);
            if piece.ends_with(b"\n") {
                let line = std::mem::take(&mut self.line);
                if (self.listener)(&line) {
                    keep(&mut self.bytes, self.most, &line);
                }
            }
        }
    }

    fn end(mut self) -> Vec<u8> {
        keep(&mut self.bytes, self.most, &self.line);
        self.bytes
    }
}

fn keep(bytes: &mut Vec<u8>, most: usize, more: &[u8]) {
    let room = most.saturating_sub(bytes.len());
    bytes.extend(more.iter().take(room));
}

impl Spoken {
    pub(super) fn outcome(&self, run_id: &str) -> Result<Outcome, ExecError> {
        let text = String::from_utf8_lossy(&self.stdout);
        let outcome = text.lines().rev().find_map(|line| serde_json::from_str::<Outcome>(line).ok());
        match outcome {
            Some(outcome) if outcome.run_id == run_id || outcome.run_id.is_empty() => Ok(outcome),
            Some(other) => Err(ExecError::NoOutcome(format!("it answered for run {:?}", other.run_id))),
            None if self.is_missing() => Ok(missing(run_id)),
            None => Err(ExecError::NoOutcome(self.complaint())),
        }
    }

    pub(super) fn noted(&self) -> Result<(), ExecError> {
        let text = String::from_utf8_lossy(&self.stdout);
        match text.lines().rev().find_map(|line| serde_json::from_str::<Noted>(line).ok()) {
            Some(Noted { refused: None, .. }) => Ok(()),
            Some(Noted { refused: Some(why), .. }) => Err(ExecError::Refused(lifecycle::refusal(&why))),
            None if self.is_missing() => Err(ExecError::NoRunner),
            None => Err(ExecError::NoOutcome(self.complaint())),
        }
    }

    /// Has it answered? Each answer was told before.
    pub(super) fn collected(&self) -> Result<(), ExecError> {
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

#[cfg(test)]
mod tests {
    use guardian_hook::protocol::Streamed;

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
        let (mut news, mut told) = (0, Vec::new());
        let mut hear = |line: &[u8]| {
            news += 1;
            told.extend(serde_json::from_slice::<Collected>(line));
            true
        };
        let mut kept = Kept::new(MAX_STDOUT, &mut hear);
        text.as_bytes().chunks(1).for_each(|byte| kept.take(byte));
        assert_eq!(kept.end(), text.as_bytes());
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
        let mut all = |_: &[u8]| true;
        let mut kept = Kept::new(1000, &mut all);
        drain(Some(endless), &mut kept).await;
        assert_eq!(kept.end().len(), 1000);
    }

    #[test]
    fn the_lines_of_a_stream_are_told_as_they_are_complete_and_the_outcome_is_kept() {
        let text = format!("a login banner\n{{\"kind\":\"stdout\",\"data\":\"YQ==\"}}\n{{\"kind\":\"newer\"}}\n{EXITED}\n");
        let mut told = Vec::new();
        let mut heard = |line: &[u8]| serde_json::from_slice::<Streamed>(line).map(|streamed| told.push(streamed)).is_err();
        let mut kept = Kept::new(MAX_STDOUT, &mut heard);
        text.as_bytes().chunks(7).for_each(|chunk| kept.take(chunk));
        let spoken = Spoken { stdout: kept.end(), stderr: Vec::new(), status: Status::default() };
        assert_eq!(told, [Streamed::of(false, b"a"), Streamed::Unknown]);
        assert_eq!(spoken.outcome("r-1").unwrap().result, RunResult::Exited { code: 3 });
    }
}
