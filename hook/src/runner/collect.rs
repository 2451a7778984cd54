//! `collect`: questions -> processes, one after the other -> an answer a line. Nothing is claimed and nothing is kept: a question changes nothing.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use rustix::fs::{Mode, unlink};
use rustix::process::getpid;

use super::files::{Durability, nanos, put};
use super::home::Home;
use super::request::receive;
use super::run::line;
use super::supervise::{Ended, Output, another_comes, caller_is_gone, supervise};
use super::{Environment, cgroup, disk, spawn, stdio};
use crate::protocol::{Collect, Collected, MAX_COMPLAINT, MAX_PROBE_MEMORY, Probe, Program, Refusal, RunResult, Sample};

/// Answers on standard output, one request after the other until none comes or nobody listens. The exit status is 0 whenever there was an answer.
pub(super) fn collect(home: &Home, env: &Environment) -> u8 {
    // An answer that nobody reads is no reason to die by a signal and leave a process behind.
    spawn::catch_signals();
    loop {
        match requested(home) {
            Err(why) => {
                stdio::print(&line(&Collected::Refused { why }));
                return 0;
            }
            Ok(request) if answer(home, env, &request) && another_comes(request.wait_ms) => {}
            Ok(_) => return 0,
        }
    }
}

fn requested(home: &Home) -> Result<Collect, Refusal> {
    let request: Collect = receive(home)?;
    match request.fault() {
        Some(message) => Err(Refusal::BadRequest { message }),
        None => Ok(request),
    }
}

/// Says whether anybody still listens.
fn answer(home: &Home, env: &Environment, request: &Collect) -> bool {
    for probe in &request.probes {
        let sample = ask(home, env, probe, MAX_PROBE_MEMORY);
        if caller_is_gone() {
            return false;
        }
        stdio::print(&line(&Collected::Probe(sample)));
    }
    let usage = disk::usage(request.disk.as_deref(), cgroup::usage(env));
    stdio::print(&line(&Collected::Usage(usage)));
    true
}

/// Asks one question, each process for which may ask for so many bytes of memory.
pub(super) fn ask(home: &Home, env: &Environment, probe: &Probe, memory: u64) -> Sample {
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
        Ok(program) => supervise(&program.limited_to(memory), probe.timeout_ms, output),
    };
    if matches!(probe.program, Program::Script { .. }) {
        let _ = unlink(script);
    }
    sample(probe, ended)
}

fn sample(probe: &Probe, ended: Ended) -> Sample {
    let Ended { result, duration_ms, stdout, stderr, .. } = ended;
    Sample { name: probe.name.clone(), result, duration_ms, stdout, stderr, age_ms: None }
}
