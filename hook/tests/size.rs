//! What the runner costs a pod. `make e2e` holds the released form to its figures; `GUARDIAN_HOOK_BINARY=... cargo test -p
//! guardian-hook --test size -- --nocapture` prints them.

#![expect(clippy::unwrap_used, reason = "a helper that fails fails its test")]

mod pod;

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::Stdio;

use guardian_hook::metric::MetricKind;
use guardian_hook::protocol::{
    AGENDA, Agenda, Collect, Family, Outcome, PROTOCOL, Probe, Program, Repeated, Request, Streamed, frame,
};
use pod::{Pod, binary, script, until};

/// The figures for a released runner, in bytes and kB; an ordinary build carries the standard library and is not held to them.
const RELEASED: (u64, u64) = (1024 * 1024, 2 * 1024);
const ORDINARY: (u64, u64) = (32 * 1024 * 1024, 8 * 1024);

fn most() -> (u64, u64) {
    let released = std::env::var_os("GUARDIAN_HOOK_BINARY").is_some();
    if released { RELEASED } else { ORDINARY }
}

/// Runs what makes the costliest outcome: both tails full, of bytes that JSON writes as six each. Nobody reads until the peak was taken. The peak in
/// kB, and what the runner then prints.
fn flood(request: &Request) -> (u64, Vec<u8>) {
    let pod = Pod::new();
    let mut runner = pod.start_run(request);
    until("the outcome is on disk", || pod.path("run/r.json").exists());
    let peak_kb = memory(runner.id(), "VmHWM:");
    let mut printed = Vec::new();
    runner.stdout.take().unwrap().read_to_end(&mut printed).unwrap();
    assert!(runner.wait().unwrap().success());
    (peak_kb, printed)
}

/// In kB.
fn memory(process: u32, which: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(which)).unwrap();
    line.split_whitespace().next().unwrap().parse().unwrap()
}

const BOTH: &str = "head -c 1000000 /dev/zero; head -c 1000000 /dev/zero >&2";

#[test]
fn the_runner_is_small_on_disk_and_in_memory() {
    let (max_bytes, max_kb) = most();
    let bytes = fs::metadata(binary()).unwrap().len();
    let (peak_kb, printed) = flood(&script("r", BOTH));
    assert!(serde_json::from_slice::<Outcome>(&printed).is_ok(), "one line");
    println!("guardian-hook: {bytes} bytes, {peak_kb} kB resident at its peak");
    assert!(bytes <= max_bytes, "{bytes} bytes");
    assert!(peak_kb <= max_kb, "{peak_kb} kB resident");
}

/// It waits 5 s for whoever asked, and then goes on without him.
#[test]
fn a_reader_that_takes_nothing_costs_no_more_memory_and_is_told_how_much_he_missed() {
    let (peak_kb, printed) = flood(&Request { stream: true, ..script("r", BOTH) });
    println!("guardian-hook: {peak_kb} kB resident at its peak, with a stuck reader");
    assert!(peak_kb <= most().1, "{peak_kb} kB resident");
    let lines: Vec<&[u8]> = printed.split(|b| *b == b'\n').filter(|line| !line.is_empty()).collect();
    let (last, lines) = lines.split_last().unwrap();
    assert!(serde_json::from_slice::<Outcome>(last).is_ok(), "the outcome is the last");
    let (mut seen, mut missed) = (0, 0);
    for line in lines {
        match serde_json::from_slice::<Streamed>(line).unwrap() {
            Streamed::Dropped { stdout, stderr } => missed += stdout + stderr,
            line => seen += line.bytes().unwrap().1.len() as u64,
        }
    }
    assert_eq!(seen + missed, 2_000_000);
    assert!(seen > 0 && missed > 1_000_000, "{seen} bytes seen, {missed} missed");
}

/// One of these stays in each pod that is asked often.
#[test]
fn a_runner_that_waits_for_more_questions_is_small() {
    let pod = Pod::new();
    let program = Program::Command(vec!["echo".into(), "primary".into()]);
    let probe = Probe { name: "role".into(), program, env: BTreeMap::new(), timeout_ms: 10_000, max_output: 4096 };
    let request = Collect { version: PROTOCOL, pod_uid: pod::UID.into(), probes: vec![probe], wait_ms: 60_000, disk: None };
    let mut runner = pod.command("collect").stdin(Stdio::piped()).spawn().unwrap();
    let mut caller = runner.stdin.take().unwrap();
    caller.write_all(&frame(&request).unwrap()).unwrap();
    // To hang up is to end it.
    let mut heard = BufReader::new(runner.stdout.take().unwrap());
    let lines = heard.by_ref().lines().take(2);
    assert_eq!(lines.filter(Result::is_ok).count(), 2, "an answer and the usage");
    let waiting_kb = memory(runner.id(), "VmRSS:");
    println!("guardian-hook: {waiting_kb} kB resident while it waits for more questions");
    drop((caller, heard));
    assert!(runner.wait().unwrap().success());
    assert!(waiting_kb <= most().1, "{waiting_kb} kB resident");
}

/// One of these is in each pod that is asked by its own agent. It has asked a role and ten metrics, and is read all the time.
#[test]
fn an_agent_is_small() {
    let pod = Pod::new();
    let program = Program::Command(vec!["echo".into(), "12".into()]);
    let question = |n: u32| {
        let name = if n == 0 { "role".into() } else { format!("metrics.m{n}") };
        let probe = Probe { name, program: program.clone(), env: BTreeMap::new(), timeout_ms: 10_000, max_output: 4096 };
        let family = || Family { name: format!("m{n}"), kind: MetricKind::Gauge, help: String::new(), labels: Vec::new() };
        Repeated { probe, every_ms: 1000, metric: (n > 0).then(family) }
    };
    let agenda =
        Agenda { version: PROTOCOL, revision: "r".into(), env: BTreeMap::new(), questions: (0..=10).map(question).collect() };
    fs::write(pod.path(AGENDA), serde_json::to_vec(&agenda).unwrap()).unwrap();
    let mut agent = pod.command("agent").env("GUARDIAN_AGENT_PORT", "0").spawn().unwrap();
    let mut said = String::new();
    BufReader::new(agent.stderr.take().unwrap()).read_line(&mut said).unwrap();
    let port: u16 = said.rsplit(' ').next().unwrap().trim().parse().unwrap();
    let metrics = || {
        let mut socket = TcpStream::connect(("127.0.0.1", port)).unwrap();
        socket.write_all(b"GET /metrics HTTP/1.1\r\n\r\n").unwrap();
        let mut text = String::new();
        socket.read_to_string(&mut text).unwrap();
        text
    };
    until("all are served", || metrics().matches("} 12").count() == 10);
    let peak_kb = memory(agent.id(), "VmHWM:");
    println!("guardian-hook: {peak_kb} kB resident as an agent at its peak");
    agent.kill().unwrap();
    agent.wait().unwrap();
    assert!(peak_kb <= most().1, "{peak_kb} kB resident");
}
