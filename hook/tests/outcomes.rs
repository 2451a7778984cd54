//! Every way in which a hook can end has its own outcome, and none of them hangs, grows, or leaves anything behind.

mod pod;

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::process::Stdio;
use std::time::{Duration, Instant};

use guardian_hook::protocol::{MAX_TAIL, Program, RunResult};
use pod::{Pod, command, exited, request, script};

#[test]
fn the_exit_code_and_both_streams_come_back() {
    let pod = Pod::new();
    let outcome = pod.sh("r", "echo to out; echo to err >&2; exit 3");
    assert_eq!(outcome.result, exited(3));
    assert_eq!((outcome.stdout.text.as_str(), outcome.stderr.text.as_str()), ("to out\n", "to err\n"));
    assert_eq!((outcome.version, outcome.run_id.as_str(), outcome.survivors), (1, "r", 0));
    assert_eq!(pod.runs(), ["r.claim", "r.json"], "the script is gone, claim and outcome stay");
    assert_eq!(pod.run(&command("ok", &["true"])).result, exited(0));
}

#[test]
fn a_signal_is_told_from_an_exit_code() {
    let pod = Pod::new();
    assert_eq!(pod.sh("a", "kill -KILL $$").result, RunResult::Signaled { signal: 9 });
    assert_eq!(pod.sh("b", "exit 137").result, exited(137));
}

#[test]
fn the_environment_is_that_of_the_exec_with_the_request_on_top() {
    let pod = Pod::new();
    let mut asked = command("r", &["sh", "-c", "echo $GUARDIAN_REASON $MOOD; echo ${PATH:+path}"]);
    asked.env.insert("GUARDIAN_REASON".into(), "Crash".into());
    asked.env.insert("MOOD".into(), "it's $HOME\"".into());
    assert_eq!(pod.run(&asked).stdout.text, "Crash it's $HOME\"\npath\n");
}

#[test]
fn a_hook_reads_an_empty_standard_input_in_a_session_of_its_own() {
    let outcome = Pod::new().sh("r", "cat; cut -d' ' -f1,5,6 /proc/$$/stat; echo $$");
    let words: Vec<_> = outcome.stdout.text.split_whitespace().collect();
    assert!(words.len() == 4 && words.iter().all(|w| *w == words[0]), "{words:?}");
}

#[test]
fn signals_that_the_runner_ignores_are_not_ignored_by_the_hook() {
    assert_eq!(Pod::new().sh("r", "kill -PIPE $$").result, RunResult::Signaled { signal: 13 });
    assert_eq!(Pod::new().sh("r", "kill -HUP $$").result, RunResult::Signaled { signal: 1 });
}

#[test]
fn a_caller_that_ignores_its_children_does_not_lose_their_exit_codes() {
    let pod = Pod::new();
    let mut run = std::process::Command::new("env");
    run.arg("--ignore-signal=CHLD").arg(pod::binary()).arg("run");
    run.env("GUARDIAN_DIR", pod.path(".")).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = run.spawn().unwrap();
    let bytes = guardian_hook::protocol::frame(&script("r", "exit 3")).unwrap();
    child.stdin.take().unwrap().write_all(&bytes).unwrap();
    assert_eq!(pod::outcome(&child.wait_with_output().unwrap()).result, exited(3));
}

#[test]
fn what_cannot_be_started_is_told_apart() {
    let pod = Pod::new();
    let not_found = |what: &str| RunResult::NotFound { what: what.into() };
    let shebang = |id: &str, line: &str| request(id, Program::Script { name: "s".into(), text: format!("{line}\n") });
    let in_run = |id: &str| pod.path(&format!("run/{id}.script")).display().to_string();

    assert_eq!(pod.run(&command("a", &["no-such-program"])).result, not_found("no-such-program in PATH"));
    assert_eq!(pod.run(&command("b", &["/no/such/program"])).result, not_found("/no/such/program"));
    assert_eq!(pod.run(&command("c", &[])).result, not_found("the command is empty"));
    assert_eq!(
        pod.run(&shebang("d", "#!/no/such/interpreter -x")).result,
        not_found(&format!("/no/such/interpreter -x, the interpreter of {}", in_run("d")))
    );
    let RunResult::NotExecutable { what } = pod.run(&shebang("e", "echo no shebang")).result else { panic!() };
    assert!(what.contains("#!interpreter"), "{what}");

    let file = pod.path("plain");
    fs::write(&file, "#!/bin/sh\n").unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
    let path = file.to_str().unwrap();
    assert_eq!(pod.run(&command("f", &[path])).result, RunResult::NotExecutable { what: format!("{path}: permission denied") });
    let RunResult::NotExecutable { what } = pod.run(&command("g", &["echo", &"x".repeat(200_000)])).result else { panic!() };
    assert!(what.contains("too large"), "{what}");
}

#[test]
fn a_gigabyte_of_output_costs_its_tail() {
    let text = "yes 0123456 | head -c 1000000000; grep VmHWM /proc/$PPID/status >&2";
    let outcome = Pod::new().run(&{
        let mut asked = script("r", text);
        asked.timeout_ms = 60_000;
        asked
    });
    assert_eq!(outcome.result, exited(0));
    assert_eq!(outcome.stdout.text.len(), MAX_TAIL);
    assert_eq!(outcome.stdout.dropped, 1_000_000_000 - MAX_TAIL as u64);
    assert!(outcome.stdout.text.ends_with("\n0123456\n"));
    let peak_kb: u64 = outcome.stderr.text.split_whitespace().nth(1).unwrap().parse().unwrap();
    assert!(peak_kb < 8 * 1024, "the runner took {peak_kb} kB");
}

#[test]
fn output_that_is_not_text_is_still_an_outcome() {
    let outcome = Pod::new().sh("r", r"head -c 100000 /dev/zero; printf '\377\033[31m' >&2");
    assert_eq!((outcome.stdout.text.len(), outcome.stdout.dropped), (MAX_TAIL, 100_000 - MAX_TAIL as u64));
    assert_eq!(outcome.stderr.text, "\u{FFFD}\u{1b}[31m");
}

#[test]
fn a_hook_that_closes_its_streams_goes_on() {
    let pod = Pod::new();
    assert_eq!(pod.sh("r", "exec >&- 2>&-; echo done > mark; exit 4").result, exited(4));
    assert_eq!(pod.read("mark"), "done\n");
}

#[test]
fn at_the_deadline_all_descendants_die() {
    let pod = Pod::new();
    let text = "trap '' TERM HUP INT; echo before
        (trap '' TERM; sleep 300) &
        setsid sh -c 'trap \"\" TERM; (setsid sleep 300 &) ; sleep 300' &
        while :; do sleep 300; done";
    let mut asked = script("r", text);
    asked.timeout_ms = 300;
    let begun = Instant::now();
    let outcome = pod.run(&asked);
    assert_eq!(pod.processes(), Vec::<u32>::new());
    assert_eq!((outcome.result, outcome.survivors), (RunResult::TimedOut, 0));
    assert_eq!(outcome.stdout.text, "before\n");
    assert!(outcome.duration_ms >= 300);
    assert!(begun.elapsed() < Duration::from_secs(5));
}

#[test]
fn what_a_finished_hook_leaves_behind_dies_and_does_not_hold_the_outcome_up() {
    let pod = Pod::new();
    let text = "sleep 300 & setsid sleep 300 & (setsid sh -c 'sleep 300 & sleep 300' &); echo finished; exit 5";
    let begun = Instant::now();
    let outcome = pod.sh("r", text);
    assert_eq!(pod.processes(), Vec::<u32>::new());
    assert_eq!((outcome.result, outcome.survivors), (exited(5), 0));
    assert_eq!(outcome.stdout.text, "finished\n");
    assert!(begun.elapsed() < Duration::from_secs(5));
}

#[test]
fn a_crowd_of_descendants_dies_to_the_last() {
    let pod = Pod::new();
    let text = "i=0; while [ $i -lt 60 ]; do (setsid sh -c 'sleep 300 & sleep 300 & wait' &); i=$((i+1)); done; exit 0";
    let outcome = pod.sh("r", text);
    assert_eq!(pod.processes(), Vec::<u32>::new());
    assert_eq!((outcome.result, outcome.survivors), (exited(0), 0));
}
