//! What is told of runs once they have ended, or before they begin: sentences, a document, an exit code.

use std::io::{self, Write as _};

use guardian_core::lifecycle::in_words;
use guardian_core::names;
use guardian_hook::protocol::{EMPTY_COMMAND, Outcome, Program, RunResult};
use serde_json::{Value, json};

use super::super::diff;
use super::{Output, Owner, RunError};
use crate::controller::Order;

/// A run, and what came of it.
pub(super) struct Done {
    pub(super) order: Order,
    pub(super) end: End,
}

/// What came of it.
pub(super) enum End {
    /// The runner's word.
    Ended(Outcome),
    /// It was started, or may have been, and its end is not known here.
    Lost(String),
    /// This signal ended the wait.
    Interrupted(u8),
}

impl Done {
    /// The exit code of the command, or what stands for it; `None` where its end is not known.
    pub(super) fn exit(&self) -> Option<u8> {
        match &self.end {
            End::Ended(outcome) => Some(exit(&outcome.result)),
            End::Lost(_) | End::Interrupted(_) => None,
        }
    }

    /// With which `guardian run` ends.
    pub(super) fn exit_code(&self) -> u8 {
        match self.end {
            End::Interrupted(signal) => 128 + signal,
            _ => self.exit().unwrap_or(1),
        }
    }
}

/// As a shell has it.
fn exit(result: &RunResult) -> u8 {
    match result {
        RunResult::Exited { code } => u8::try_from(*code).unwrap_or(u8::MAX),
        RunResult::Signaled { signal } => 128_u8.saturating_add(u8::try_from(*signal).unwrap_or(u8::MAX)),
        RunResult::TimedOut => 124,
        RunResult::NotExecutable { .. } => 126,
        // Ours is missing, not the command's.
        RunResult::NotFound { what } if what == names::RUNNER || what == EMPTY_COMMAND => 1,
        RunResult::NotFound { .. } => 127,
        _ => 1,
    }
}

/// What a person has to know beyond what the command wrote.
pub(super) fn complain(owner: &Owner<'_>, done: &Done, unwritten: Option<&RunError>) {
    let Order { pod, request, .. } = &done.order;
    let history = format!("guardian history -n {} {}", owner.namespace, owner.args.set);
    match &done.end {
        End::Ended(outcome) => {
            if outcome.result != (RunResult::Exited { code: 0 }) {
                anstream::eprintln!("guardian: pod {pod}: {}", in_words(&owner.command.name, outcome));
            }
        }
        End::Lost(why) => anstream::eprintln!(
            "guardian: {why}: it is not known what becomes of {} in pod {pod}. It may go on there, for {} s at most; the controller writes down its \
             end: `{history}`",
            owner.command.name,
            request.timeout_ms.div_ceil(1000)
        ),
        End::Interrupted(_) => anstream::eprintln!(
            "guardian: interrupted. {} goes on in pod {pod} as run {}, for {} s at most; the controller writes down its end: `{history}`",
            owner.command.name,
            request.run_id,
            request.timeout_ms.div_ceil(1000)
        ),
    }
    if let Some(error) = unwritten {
        anstream::eprintln!(
            "guardian: its end is not in the history yet ({error}): the controller asks the runner and writes it down"
        );
    }
}

/// The document, where one is asked for.
pub(super) fn print(owner: &Owner<'_>, done: &[Done]) -> io::Result<()> {
    if owner.args.output == Output::Text {
        return Ok(());
    }
    let runs = done.iter().map(|done| run(&done.order, true, Some(done))).collect::<Vec<_>>();
    write(owner, &document(owner, done.last().and_then(Done::exit), &runs))
}

/// What would run.
pub(super) fn rehearsed(owner: &Owner<'_>, orders: &[Order]) -> io::Result<()> {
    if owner.args.output != Output::Text {
        return write(owner, &document(owner, None, &orders.iter().map(|order| run(order, false, None)).collect::<Vec<_>>()));
    }
    let mut out = anstream::AutoStream::auto(io::stdout().lock());
    for order in orders {
        let what = match &order.request.program {
            Program::Script { name, .. } => format!("script {name}"),
            Program::Command(argv) => format!("command {}", json!(argv)),
        };
        let (name, pod, container) = (&owner.command.name, &order.pod, &order.container);
        let seconds = order.request.timeout_ms.div_ceil(1000);
        writeln!(out, "{name} would run in pod {pod}, container {container}, for {seconds} s at most: {what} (dry run)")?;
    }
    Ok(())
}

fn write(owner: &Owner<'_>, document: &Value) -> io::Result<()> {
    let mut out = anstream::AutoStream::auto(io::stdout().lock());
    match owner.args.output {
        Output::Yaml => writeln!(out, "{}", diff::yaml(document)?.trim_end()),
        Output::Json | Output::Text => writeln!(out, "{document:#}"),
    }
}

fn document(owner: &Owner<'_>, exit: Option<u8>, runs: &[Value]) -> Value {
    json!({
        "namespace": owner.namespace,
        "set": owner.args.set,
        "name": owner.command.name,
        "policy": owner.policy.name,
        "revision": owner.policy.revision,
        "dryRun": owner.args.dry_run,
        "exit": exit,
        "runs": runs,
    })
}

fn run(order: &Order, is_claimed: bool, done: Option<&Done>) -> Value {
    let (command, script) = match &order.request.program {
        Program::Command(argv) => (Some(argv), None),
        Program::Script { name, .. } => (None, Some(name)),
    };
    let outcome = done.and_then(|done| match &done.end {
        End::Ended(outcome) => Some(outcome),
        End::Lost(_) | End::Interrupted(_) => None,
    });
    json!({
        "pod": order.pod,
        "container": order.container,
        "command": command,
        "script": script,
        "timeoutMs": order.request.timeout_ms,
        "runId": is_claimed.then_some(&order.request.run_id),
        "result": outcome.map(|outcome| &outcome.result),
        "exit": done.and_then(Done::exit),
        "durationMs": outcome.map(|outcome| outcome.duration_ms),
        "stdout": outcome.map(|outcome| &outcome.stdout.text),
        "stdoutDropped": outcome.map(|outcome| outcome.stdout.dropped),
        "stderr": outcome.map(|outcome| &outcome.stderr.text),
        "stderrDropped": outcome.map(|outcome| outcome.stderr.dropped),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_is_passed_on_as_a_shell_would() {
        let rows = [
            (RunResult::Exited { code: 0 }, 0),
            (RunResult::Exited { code: 255 }, 255),
            (RunResult::Signaled { signal: 9 }, 137),
            (RunResult::TimedOut, 124),
            (RunResult::NotExecutable { what: "x".into() }, 126),
            (RunResult::NotFound { what: "x in PATH".into() }, 127),
            (RunResult::NotFound { what: names::RUNNER.into() }, 1),
            (RunResult::NotFound { what: EMPTY_COMMAND.into() }, 1),
            (RunResult::NotStarted { message: "x".into() }, 1),
            (RunResult::Interrupted, 1),
            (RunResult::Unknown, 1),
        ];
        for (result, code) in rows {
            assert_eq!(exit(&result), code, "{result:?}");
        }
    }
}
