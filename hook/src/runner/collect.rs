//! `collect`: questions -> processes, one after the other -> an answer a line. Nothing is claimed and nothing is kept: a question changes nothing.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use rustix::fs::{Mode, unlink};
use rustix::process::getpid;

use super::clock::monotonic_ms;
use super::files::{Durability, nanos, put};
use super::home::Home;
use super::request::receive;
use super::run::line;
use super::supervise::{Ended, Output, caller_is_gone, supervise};
use super::{Environment, cgroup, spawn, stdio};
use crate::protocol::{Collect, Collected, MAX_COMPLAINT, MAX_PROBE_MEMORY, Probe, Program, Refusal, RunResult, Sample};

/// Answers on standard output until nobody listens, or once. The exit status is 0 whenever there was an answer.
pub(super) fn collect(home: &Home, env: &Environment) -> u8 {
    // An answer that nobody reads is no reason to die by a signal and leave a process behind.
    spawn::catch_signals();
    match receive::<Collect>(home) {
        Err(why) => refuse(why),
        Ok(request) => match request.fault() {
            Some(message) => refuse(Refusal::BadRequest { message }),
            None => rounds(home, env, &request),
        },
    }
    0
}

fn refuse(why: Refusal) {
    stdio::print(&line(&Collected::Refused { why }));
}

fn rounds(home: &Home, env: &Environment, request: &Collect) {
    let mut due = monotonic_ms();
    loop {
        for probe in &request.probes {
            let sample = ask(home, env, probe);
            if caller_is_gone(0) {
                return;
            }
            stdio::print(&line(&Collected::Probe(sample)));
        }
        stdio::print(&line(&Collected::Usage(cgroup::usage(env))));
        if request.every_ms == 0 {
            return;
        }
        let now = monotonic_ms();
        // What has passed meanwhile is skipped, not made up for.
        due += request.every_ms * (now.saturating_sub(due) / request.every_ms + 1);
        if caller_is_gone(due.saturating_sub(now)) {
            return;
        }
    }
}

fn ask(home: &Home, env: &Environment, probe: &Probe) -> Sample {
    let mut env = env.clone();
    env.extend(probe.env.iter().map(|(k, v)| (k.clone().into_bytes(), v.clone().into_bytes())));
    let script = home.run_script(&format!("probe-{}-{}", getpid().as_raw_pid(), nanos()));
    let argv: Vec<&[u8]> = match &probe.program {
        Program::Command(argv) => argv.iter().map(String::as_bytes).collect(),
        Program::Script { text, .. } => {
            if let Err(e) = put(&script, text.as_bytes(), Mode::from_raw_mode(0o755), Durability::Cached) {
                return sample(probe, Ended::unstarted(RunResult::NotStarted { message: format!("{e}") }));
            }
            [script.as_bytes()].into()
        }
    };
    let output = Output::Asked { stdout: probe.max_output, stderr: MAX_COMPLAINT };
    let ended = match spawn::Program::new(&argv, &env) {
        Err(result) => Ended::unstarted(result),
        Ok(program) => supervise(&program.limited_to(MAX_PROBE_MEMORY), probe.timeout_ms, output),
    };
    if matches!(probe.program, Program::Script { .. }) {
        let _ = unlink(script);
    }
    sample(probe, ended)
}

fn sample(probe: &Probe, ended: Ended) -> Sample {
    let Ended { result, duration_ms, stdout, stderr, .. } = ended;
    Sample { name: probe.name.clone(), result, duration_ms, stdout, stderr }
}
