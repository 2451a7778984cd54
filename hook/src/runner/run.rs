//! `run`: request -> claim -> process -> outcome.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use rustix::fs::{Mode, unlink};
use serde::Serialize;

use super::claim::{Claim, Earlier, Note, attach, claim, forget_old};
use super::clock::{monotonic_ms, realtime_ms};
use super::files::{Durability, put};
use super::home::Home;
use super::life::Life;
use super::request::receive;
use super::spawn;
use super::supervise::{Ended, Output, supervise};
use super::{Environment, stdio};
use crate::protocol::{ANSWER_AFTER_MS, Outcome, PROTOCOL, Program, Refusal, Request, RunResult, Tail};

/// Answers on standard output. The exit status is 0 whenever there is an answer: how the hook ended is in it.
pub(super) fn run(home: &Home, env: &Environment) -> u8 {
    // The caller may be gone at any time; the hook goes on.
    spawn::catch_signals();
    let (unsent, answer) = match receive::<Request>(home) {
        Err(why) => (Vec::new(), line(&refused("", why))),
        Ok(request) => match request.fault() {
            Some(message) => (Vec::new(), line(&refused(&request.run_id, Refusal::BadRequest { message }))),
            None => start_or_attach(home, env, &request),
        },
    };
    // The outcome is kept by now. Behind half a line it would be none; whoever asks again gets it.
    if stdio::try_print(&unsent).is_ok() {
        drop(unsent);
        stdio::print(&answer);
    }
    0
}

/// What is still to be told of the run's output, and the outcome.
fn start_or_attach(home: &Home, env: &Environment, request: &Request) -> (Vec<u8>, Vec<u8>) {
    forget_old(home);
    match claim(home, &request.run_id, &note(env, request)) {
        Err(e) => (Vec::new(), line(&refused(&request.run_id, Refusal::Unwritable { message: e.to_string() }))),
        Ok(Claim::Ours(held)) => {
            let (unsent, outcome) = carry_out(home, env, request);
            let answer = line(&outcome);
            drop(outcome);
            // The process has run: that its outcome cannot be kept must not hide it from whoever listens now.
            if let Err(e) = record(home, &request.run_id, &answer) {
                super::complain(&e);
            }
            drop(held);
            (unsent, answer)
        }
        Ok(Claim::Taken) => {
            let end = monotonic_ms() + request.timeout_ms + ANSWER_AFTER_MS;
            let answer = match attach(home, &request.run_id, end) {
                Earlier::Outcome(answer) => answer,
                Earlier::Interrupted => line(&unstarted(&request.run_id, RunResult::Interrupted)),
                Earlier::Alive => line(&refused(&request.run_id, Refusal::StillRunning)),
            };
            (Vec::new(), answer)
        }
    }
}

fn carry_out(home: &Home, env: &Environment, request: &Request) -> (Vec<u8>, Outcome) {
    let mut env = env.clone();
    env.extend(request.env.iter().map(|(k, v)| (k.clone().into_bytes(), v.clone().into_bytes())));
    let script = home.run_script(&request.run_id);
    let argv: Vec<&[u8]> = match &request.program {
        Program::Command(argv) => argv.iter().map(String::as_bytes).collect(),
        Program::Script { text, .. } => {
            if let Err(e) = put(&script, text.as_bytes(), Mode::from_raw_mode(0o755), Durability::Cached) {
                return (Vec::new(), unstarted(&request.run_id, RunResult::NotStarted { message: e.to_string() }));
            }
            [script.as_bytes()].into()
        }
    };
    let output = if request.stream { Output::Streamed } else { Output::Kept };
    let mut ended = match spawn::Program::new(&argv, &env) {
        Err(result) => Ended::unstarted(result),
        Ok(program) => supervise(&program, request.timeout_ms, output),
    };
    if matches!(request.program, Program::Script { .. }) {
        let _ = unlink(script);
    }
    (core::mem::take(&mut ended.unsent), outcome(&request.run_id, ended))
}

/// The outcome of a process.
pub(super) fn outcome(run_id: &str, ended: Ended) -> Outcome {
    Outcome {
        version: PROTOCOL,
        run_id: run_id.into(),
        result: ended.result,
        duration_ms: ended.duration_ms,
        stdout: ended.stdout,
        stderr: ended.stderr,
        survivors: ended.survivors,
    }
}

pub(super) fn unstarted(run_id: &str, result: RunResult) -> Outcome {
    Outcome {
        version: PROTOCOL,
        run_id: run_id.into(),
        result,
        duration_ms: 0,
        stdout: Tail::default(),
        stderr: Tail::default(),
        survivors: 0,
    }
}

fn refused(run_id: &str, why: Refusal) -> Outcome {
    unstarted(run_id, RunResult::Refused { why })
}

/// One line of JSON.
pub(super) fn line(message: &impl Serialize) -> Vec<u8> {
    // Only strings and numbers: this cannot fail. An empty line is no outcome, which the reader counts as unknown.
    let mut bytes = serde_json::to_vec(message).unwrap_or_default();
    bytes.push(b'\n');
    bytes
}

/// Keeps an outcome for whoever asks later.
pub(super) fn record(home: &Home, run_id: &str, outcome: &[u8]) -> Result<(), String> {
    put(&home.outcome(run_id), outcome, Mode::from_raw_mode(0o644), Durability::Synced)
        .map_err(|e| format!("the outcome of {run_id} cannot be kept: {e}"))
}

fn note(env: &Environment, request: &Request) -> Vec<u8> {
    line(&Note {
        hook: request.hook.clone(),
        pid: rustix::process::getpid().as_raw_pid(),
        claimed_ms: realtime_ms(),
        timeout_ms: request.timeout_ms,
        life: Life::of(env).map(|life| life.id),
    })
}
