//! A probe is a command that is asked again and again and changes nothing. How it ended, in a word for counters and a sentence for people.

use guardian_hook::protocol::{RunResult, Sample};

/// How asking a probe ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum End {
    /// It answered as it should.
    #[default]
    Succeeded,
    /// Its exit code was not 0.
    Exit,
    /// A signal ended it.
    Signal,
    /// It was killed at its time out.
    TimedOut,
    /// There is no such program, or no process could be made.
    NotStarted,
    /// What it printed is refused.
    Malformed,
    /// Nobody answered: no connection to the pod, or it was lost.
    Unreachable,
    /// We may not run commands in the pod.
    Denied,
    /// The runner of the pod is too old for questions, or not there.
    Unable,
}

impl End {
    /// Did the command itself fail, or what it printed? Else nobody knows how it is.
    #[must_use]
    pub const fn is_of_command(self) -> bool {
        matches!(self, Self::Exit | Self::Signal | Self::TimedOut | Self::NotStarted | Self::Malformed)
    }

    /// The word for it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Succeeded => "succeeded",
            Self::Exit => "exit",
            Self::Signal => "signal",
            Self::TimedOut => "timed_out",
            Self::NotStarted => "not_started",
            Self::Malformed => "malformed",
            Self::Unreachable => "unreachable",
            Self::Denied => "denied",
            Self::Unable => "unable",
        }
    }
}

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// In a word; never [`End::Succeeded`].
    pub end: End,
    /// In a sentence.
    pub why: String,
}

/// What a probe printed, or how it failed, as the end of a sentence that begins with the probe. The words are the same as long as it fails in the same way.
///
/// # Errors
/// When it did not end by itself with exit code 0.
pub fn output(answer: &Sample) -> Result<&str, Failure> {
    let (end, how) = match &answer.result {
        RunResult::Exited { code: 0 } => return Ok(&answer.stdout.text),
        RunResult::Exited { code } => (End::Exit, format!("ended with exit code {code}")),
        RunResult::Signaled { signal } => (End::Signal, format!("was ended by signal {signal}")),
        RunResult::TimedOut => (End::TimedOut, "was killed at its time out".to_owned()),
        RunResult::NotFound { what } => (End::NotStarted, format!("was not started: there is no {what}")),
        RunResult::NotExecutable { what } => (End::NotStarted, format!("was not started: {what} cannot be executed")),
        RunResult::NotStarted { message } => (End::NotStarted, format!("was not started: {message}")),
        other => (End::NotStarted, format!("ended in a way that is not understood: {other:?}")),
    };
    Err(Failure { end, why: format!("{how}{}", last_words(&answer.stderr.text)) })
}

/// The last line, without control characters, in at most 256 bytes.
fn last_words(stderr: &str) -> String {
    let Some(line) = stderr.lines().rfind(|line| !line.trim().is_empty()) else { return String::new() };
    let mut line: String = line.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    line.truncate(line.floor_char_boundary(256));
    format!(", its last words: {}", line.trim())
}
