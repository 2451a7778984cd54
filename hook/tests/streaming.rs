//! What a run writes reaches whoever asked for it as it is written, and a reader that is slow, or gone, takes nothing away from the run.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a helper that fails fails its test")]

mod pod;

use std::fs;
use std::io::{BufRead, BufReader};
use std::process::Child;

use guardian_hook::protocol::{EMPTY_COMMAND, MAX_TAIL, Outcome, Request, RunResult, Streamed};
use pod::{Pod, command, exited, outcome, script, until, watches};

fn streamed(run_id: &str, text: &str) -> Request {
    Request { stream: true, ..script(run_id, text) }
}

/// The lines of a runner, as they come.
fn lines(runner: &mut Child) -> impl Iterator<Item = String> + use<> {
    BufReader::new(runner.stdout.take().unwrap()).lines().map(Result::unwrap)
}

/// Standard output, standard error and the outcome; nothing was dropped.
fn read(lines: impl Iterator<Item = String>) -> (Vec<u8>, Vec<u8>, Outcome) {
    let (mut out, mut err) = (Vec::new(), Vec::new());
    for line in lines {
        match serde_json::from_str::<Streamed>(&line).map(|line| line.bytes()) {
            Ok(Some((true, bytes))) => err.extend(bytes),
            Ok(Some((false, bytes))) => out.extend(bytes),
            Ok(None) => panic!("{line}"),
            Err(_) => return (out, err, serde_json::from_str(&line).unwrap()),
        }
    }
    panic!("no outcome")
}

#[test]
fn each_line_comes_while_the_command_still_runs() {
    let pod = Pod::new();
    let go = pod.fifo("go");
    let mut runner = pod.start_run(&streamed("r", "echo first; read line < go; echo $line >&2; exit 3"));
    let mut lines = lines(&mut runner);
    assert_eq!(serde_json::from_str::<Streamed>(&lines.next().unwrap()).unwrap(), Streamed::of(false, b"first\n"));
    assert!(!pod.path("run/r.json").exists(), "it has not ended");
    fs::write(go, "second\n").unwrap();
    let (out, err, ended) = read(lines);
    assert_eq!((out, err), (Vec::new(), b"second\n".to_vec()));
    assert_eq!((ended.result, ended.stdout.text.as_str()), (exited(3), "first\n"), "the outcome has it as always");
    assert_eq!((ended.stderr.text.as_str(), pod.read("run/r.json").lines().count()), ("second\n", 1), "and is kept alone");
}

#[test]
fn a_reader_that_reads_gets_every_byte_of_much_more_than_is_held() {
    let pod = Pod::new();
    let text = "head -c 3000000 /dev/zero | tr '\\0' '\\377'; printf '\\001last'; head -c 300000 /dev/zero >&2";
    let mut runner = pod.start_run(&streamed("r", text));
    let (out, err, ended) = read(lines(&mut runner));
    assert_eq!((out.len(), err.len()), (3_000_005, 300_000));
    assert!(out.ends_with(b"\xff\x01last") && out.iter().take(3_000_000).all(|b| *b == 0xff), "byte for byte");
    assert_eq!((ended.result, ended.stderr.text.len()), (exited(0), MAX_TAIL));
}

#[test]
fn a_reader_that_went_away_stops_nothing() {
    let pod = Pod::new();
    let (begun, go) = (pod.fifo("begun"), pod.fifo("go"));
    let mut runner = pod.start_run(&streamed("r", "echo > begun; read line < go; head -c 1000000 /dev/zero; echo $line"));
    fs::read(&begun).unwrap();
    drop((runner.stdout.take(), runner.stderr.take()));
    fs::write(go, "alone\n").unwrap();
    assert!(runner.wait().unwrap().success());
    let kept: Outcome = serde_json::from_str(&pod.read("run/r.json")).unwrap();
    assert_eq!((kept.result, kept.stdout.text.ends_with("alone\n")), (exited(0), true));
}

#[test]
fn a_command_that_nobody_reads_is_still_killed_at_its_deadline() {
    let pod = Pod::new();
    let mut flood = streamed("r", "while :; do echo more; done");
    flood.timeout_ms = 1000;
    let runner = pod.start_run(&flood);
    until("the outcome is kept", || pod.path("run/r.json").exists());
    let kept: Outcome = serde_json::from_str(&pod.read("run/r.json")).unwrap();
    assert_eq!(kept.result, RunResult::TimedOut);
    drop(runner);
}

#[test]
fn whoever_attaches_gets_the_outcome_alone() {
    let pod = Pod::new();
    let (begun, go) = (pod.fifo("begun"), pod.fifo("go"));
    let text = "echo x >> starts; echo early; echo > begun; read line < go";
    let mut first = pod.start_run(&streamed("r", text));
    fs::read(&begun).unwrap();
    let second = pod.start_run(&streamed("r", text));
    until("the second waits", || watches(second.id()));
    fs::write(go, "\n").unwrap();
    let (out, _, ended) = read(lines(&mut first));
    assert_eq!(out, b"early\n");
    assert_eq!(outcome(&second.wait_with_output().unwrap()), ended);
    assert_eq!(pod.read("starts"), "x\n");
}

/// How a controller asks for the end of a run that it must not start.
#[test]
fn a_command_without_words_attaches_and_keeps_a_run_from_being_started_later() {
    let pod = Pod::new();
    let ended = pod.sh("r", "echo x >> starts; exit 4");
    assert_eq!(pod.run(&command("r", &[])), ended);
    let never = RunResult::NotFound { what: EMPTY_COMMAND.into() };
    assert_eq!(pod.run(&command("s", &[])).result, never);
    assert_eq!(pod.sh("s", "echo y >> starts").result, never);
    assert_eq!(pod.read("starts"), "x\n");
}
