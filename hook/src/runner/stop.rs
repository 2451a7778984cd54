//! `stop`: the pod's preStop, and `reason`: how it learns why.
//!
//! The kubelet keeps nothing of what a preStop prints. So its output goes to `run/stop-TIME.json`, and line by line into the container's log,
//! through the standard output of process 1 where that is a pipe. The exit status tells the kubelet no more than to emit `FailedPreStopHook`; it
//! stops the container either way.

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use rustix::fd::{AsFd, BorrowedFd};
use rustix::fs::{FileType, Mode, OFlags, fstat, open, unlink};
use rustix::io::write;
use serde::{Deserialize, Serialize};

use super::claim::forget_old;
use super::clock::{monotonic_ms, pause, realtime_ms};
use super::files::{Durability, Watch, put, read_whole};
use super::home::{Home, Pod};
use super::request::receive;
use super::run::{line, outcome, record};
use super::supervise::{Output, supervise};
use super::{Environment, FAULT, complain, exit_status, in_words, spawn, stdio};
use crate::protocol::{
    Chained, InPodHook, Installed, MAX_REQUEST, Noted, Outcome, PROTOCOL, Refusal, StopReason, Tail, valid_reason,
};

/// How old a reason may be when preStop starts, in milliseconds: both follow the same deletion, and a busy kubelet may take a while. An older one
/// belongs to an earlier stop of this container, whose preStop did not wait for it.
const FRESH_MS: u64 = 60_000;

/// How much of each stream goes into the container's log; all that was kept is in the outcome.
const MAX_LOGGED: usize = 8 * 1024;

/// A line that a pipe takes in one piece, so that it does not mix with the application's (`PIPE_BUF` less our prefix).
const MAX_LINE: usize = 4000;

/// `stop.json`.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Noticed {
    reason: String,
    env: BTreeMap<String, String>,
    #[serde(default)]
    on_hold: bool,
    /// Milliseconds since 1970.
    at_ms: u64,
}

/// Reads a [`StopReason`] and keeps it for [`stop`]. The exit status is 0 whenever there is an answer.
pub(super) fn reason(home: &Home) -> u8 {
    let refused = receive(home).and_then(|stop| notice(home, stop)).err();
    stdio::print(&line(&Noted { version: PROTOCOL, refused }));
    0
}

fn notice(home: &Home, stop: StopReason) -> Result<(), Refusal> {
    if !valid_reason(&stop.reason) {
        return Err(Refusal::BadRequest { message: "reason must be 1 to 64 letters and digits".into() });
    }
    let noticed = line(&Noticed { reason: stop.reason, env: stop.env, on_hold: stop.on_hold, at_ms: realtime_ms() });
    put(&home.stop_file(), &noticed, Mode::from_raw_mode(0o644), Durability::Cached)
        .map_err(|e| Refusal::Unwritable { message: e.to_string() })
}

/// Waits for the reason, runs the hook unless the set is on hold, then becomes the user's own preStop.
pub(super) fn stop(home: &Home, env: &Environment) -> u8 {
    let installed = match home.hooks() {
        Ok(installed) => installed,
        Err(e) => {
            complain(&e.to_string());
            return FAULT;
        }
    };
    let status = match (installed.hooks.get("preStop"), home.pod()) {
        (None, _) => 0,
        (Some(hook), Ok(pod)) => run_hook(home, env, &pod, &installed, hook),
        (Some(_), Err(e)) => {
            complain(&e.to_string());
            FAULT
        }
    };
    match installed.chained {
        None => status,
        Some(Chained::Sleep { seconds }) => {
            pause(seconds.saturating_mul(1000));
            status
        }
        Some(Chained::Exec(argv)) => chain(&argv, env),
    }
}

fn run_hook(home: &Home, env: &Environment, pod: &Pod, installed: &Installed, hook: &InPodHook) -> u8 {
    let noticed = await_reason(home, installed.reason_wait_ms);
    if noticed.on_hold {
        say(env, &[format!("preStop ({}) is not run: the set is on hold", noticed.reason)]);
        return 0;
    }
    let mut env = pod.environment(env, "preStop", hook);
    env.extend(noticed.env.into_iter().map(|(k, v)| (k.into_bytes(), v.into_bytes())));
    env.insert(b"GUARDIAN_REASON".to_vec(), noticed.reason.clone().into_bytes());
    let argv = home.argv(hook);
    let argv: Vec<&[u8]> = argv.iter().map(Vec::as_slice).collect();
    let run_id = format!("stop-{}", realtime_ms());
    let ended = match spawn::Program::new(&argv, &env) {
        Ok(program) => outcome(&run_id, supervise(&program, hook.timeout_ms, Output::Kept)),
        Err(result) => super::run::unstarted(&run_id, result),
    };
    forget_old(home);
    if let Err(e) = record(home, &run_id, &line(&ended)) {
        complain(&e);
    }
    tell(&env, &noticed.reason, &ended);
    exit_status(&ended.result)
}

/// The reason that is there, or that comes within `wait_ms`, or `Unknown`. It is taken away: it is that of one stop.
fn await_reason(home: &Home, wait_ms: u64) -> Noticed {
    let end = monotonic_ms() + wait_ms;
    let oldest = realtime_ms().saturating_sub(FRESH_MS);
    let watch = (wait_ms > 0).then(|| Watch::on(home.directory()));
    loop {
        let found = read_whole(&home.stop_file(), MAX_REQUEST).ok();
        let noticed = found.and_then(|bytes| serde_json::from_slice::<Noticed>(&bytes).ok());
        if let Some(noticed) = noticed.filter(|n| n.at_ms >= oldest) {
            let _ = unlink(home.stop_file());
            return noticed;
        }
        match &watch {
            Some(watch) if monotonic_ms() < end => watch.wait(end),
            _ => return Noticed { reason: "Unknown".into(), env: BTreeMap::new(), on_hold: false, at_ms: 0 },
        }
    }
}

/// The user's own command, exactly as it would be without us: same process, own environment, no deadline but the pod's.
fn chain(argv: &[String], env: &Environment) -> u8 {
    let argv: Vec<&[u8]> = argv.iter().map(String::as_bytes).collect();
    let result = match spawn::Program::new(&argv, env) {
        Ok(program) => program.replace(),
        Err(result) => result,
    };
    complain(&format!("the preStop of the pod {}", in_words(&result)));
    exit_status(&result)
}

/// To the kubelet, which shows it when the status is not 0, and into the container's log.
fn tell(env: &Environment, reason: &str, ended: &Outcome) {
    let mut lines = Vec::new();
    lines.push(format!("preStop ({reason}) {} after {} ms", in_words(&ended.result), ended.duration_ms));
    for (name, tail) in [("stdout", &ended.stdout), ("stderr", &ended.stderr)] {
        let text = last_of(tail);
        lines.extend(text.lines().map(|l| format!("preStop {name}: {}", l.chars().take(MAX_LINE / 4).collect::<String>())));
    }
    say(env, &lines);
}

/// To whoever has started us, and into the container's log.
fn say(env: &Environment, lines: &[String]) {
    let log = container_log(env);
    for text in lines {
        complain(text);
        if let Some(log) = &log {
            // One piece or nothing: a full log must not hold up the stop.
            let _ = write(log, format!("guardian-hook: {text}\n").as_bytes());
        }
    }
}

fn last_of(tail: &Tail) -> &str {
    let mut from = tail.text.len().saturating_sub(MAX_LOGGED);
    while !tail.text.is_char_boundary(from) {
        from += 1;
    }
    tail.text.get(from..).unwrap_or_default()
}

/// The standard output of process 1, if it is a pipe to the container runtime: a file would be the application's own. `GUARDIAN_LOG` names another
/// pipe, for tests.
fn container_log(env: &Environment) -> Option<rustix::fd::OwnedFd> {
    let path = env.get(&b"GUARDIAN_LOG"[..]).map_or(&b"/proc/1/fd/1"[..], Vec::as_slice);
    let fd = open(path, OFlags::WRONLY | OFlags::NONBLOCK | OFlags::CLOEXEC, Mode::empty()).ok()?;
    is_pipe(fd.as_fd()).then_some(fd)
}

fn is_pipe(fd: BorrowedFd<'_>) -> bool {
    fstat(fd).is_ok_and(|s| FileType::from_raw_mode(s.st_mode) == FileType::Fifo)
}
