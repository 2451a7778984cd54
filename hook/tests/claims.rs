//! One id starts one process, whoever asks, whenever, and however often; and nobody needs to listen.

mod pod;

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::time::{Duration, SystemTime};

use guardian_hook::protocol::{Outcome, Refusal, RunResult};
use pod::{Pod, exited, outcome, script, until, watches};
use rustix::process::{Pid, Signal, kill_process};

/// Tells the test that it has begun, and ends when the test says so.
const MEET: &str = "echo x >> starts; echo $$ > begun; read line < go; echo $line; exit 9";

fn pid(child: &std::process::Child) -> Option<Pid> {
    Pid::from_raw(child.id().try_into().ok()?)
}

#[test]
fn two_at_once_start_it_once_and_both_get_the_outcome() {
    let pod = Pod::new();
    let (begun, go) = (pod.fifo("begun"), pod.fifo("go"));
    let first = pod.start_run(&script("r", MEET));
    fs::read(&begun).unwrap();
    let second = pod.start_run(&script("r", MEET));
    until("the second waits", || watches(second.id()));
    fs::write(&go, "together\n").unwrap();

    let first = outcome(&first.wait_with_output().unwrap());
    let second = outcome(&second.wait_with_output().unwrap());
    assert_eq!((first.result.clone(), first.stdout.text.as_str()), (exited(9), "together\n"));
    assert_eq!(first, second);
    assert_eq!(pod.read("starts"), "x\n");
}

#[test]
fn many_at_once_start_it_once() {
    let pod = Pod::new();
    let children: Vec<_> = (0..12).map(|_| pod.start_run(&script("r", "echo x >> starts; echo $$"))).collect();
    let outcomes: Vec<Outcome> = children.into_iter().map(|c| outcome(&c.wait_with_output().unwrap())).collect();
    assert!(outcomes.iter().all(|o| *o == outcomes[0] && o.result == exited(0)), "{outcomes:?}");
    assert_eq!(pod.read("starts"), "x\n");
}

#[test]
fn asked_again_it_tells_what_happened_and_starts_nothing() {
    let pod = Pod::new();
    let first = pod.sh("r", "echo x >> starts; exit 2");
    assert_eq!(pod.sh("r", "echo y >> starts; exit 3"), first);
    assert_eq!(pod.read("starts"), "x\n");
}

#[test]
fn a_killed_runner_leaves_an_interrupted_run_and_no_process() {
    let pod = Pod::new();
    let (begun, _go) = (pod.fifo("begun"), pod.fifo("go"));
    let mut runner = pod.start_run(&script("r", MEET));
    fs::read(&begun).unwrap();
    let waiting = pod.start_run(&script("r", MEET));
    until("the second waits", || watches(waiting.id()));
    runner.kill().unwrap();
    runner.wait().unwrap();

    assert_eq!(outcome(&waiting.wait_with_output().unwrap()).result, RunResult::Interrupted);
    assert_eq!(pod.sh("r", MEET).result, RunResult::Interrupted);
    assert_eq!(pod.read("starts"), "x\n");
    until("the hook is gone with its runner", || pod.processes().is_empty());
    assert_eq!(pod.sh("r.2", "exit 0").result, exited(0), "a new attempt has a new id");
}

#[test]
fn a_claim_by_a_process_id_that_lives_again_is_still_interrupted() {
    let pod = Pod::new();
    let alive = format!("{{\"pid\":{}}}", std::process::id());
    fs::write(pod.path("run/r.claim"), alive).unwrap();
    assert_eq!(pod.sh("r", "exit 0").result, RunResult::Interrupted);
}

#[test]
fn a_runner_that_is_alive_beyond_the_deadline_is_asked_again() {
    let pod = Pod::new();
    let claim = File::create(pod.path("run/r.claim")).unwrap();
    claim.lock().unwrap();
    let mut asked = script("r", "exit 0");
    asked.timeout_ms = 1;
    let waiting = pod.start_run(&asked);
    // The wait is the 12 s for killing and writing that an outcome may take.
    let answer = outcome(&waiting.wait_with_output().unwrap());
    assert_eq!(answer.result, RunResult::Refused { why: Refusal::StillRunning });
}

#[test]
fn a_run_outlives_its_listener_and_a_hang_up() {
    let pod = Pod::new();
    let (begun, go) = (pod.fifo("begun"), pod.fifo("go"));
    let mut runner = pod.start_run(&script("r", MEET));
    fs::read(&begun).unwrap();
    drop((runner.stdout.take(), runner.stderr.take()));
    kill_process(pid(&runner).unwrap(), Signal::HUP).unwrap();
    kill_process(pid(&runner).unwrap(), Signal::PIPE).unwrap();
    fs::write(&go, "alone\n").unwrap();
    assert!(runner.wait().unwrap().success());
    let kept: Outcome = serde_json::from_str(&pod.read("run/r.json")).unwrap();
    assert_eq!((kept.result, kept.stdout.text.as_str()), (exited(9), "alone\n"));
}

#[test]
fn a_request_to_end_reaches_the_hook() {
    let pod = Pod::new();
    let begun = pod.fifo("begun");
    let runner = pod.start_run(&script("r", "trap 'echo ending; exit 8' TERM; echo > begun; while :; do sleep 0.01; done"));
    fs::read(&begun).unwrap();
    kill_process(pid(&runner).unwrap(), Signal::TERM).unwrap();
    let ended = outcome(&runner.wait_with_output().unwrap());
    assert_eq!((ended.result, ended.stdout.text.as_str()), (exited(8), "ending\n"));
}

#[test]
fn only_the_newest_hundred_ids_are_remembered_and_never_a_running_one_forgotten() {
    let pod = Pod::new();
    let long_ago = SystemTime::now() - Duration::from_secs(86_400);
    let make = |name: String, age: u64| {
        let file = File::create(pod.path(&name)).unwrap();
        file.set_modified(long_ago + Duration::from_secs(age)).unwrap();
        file
    };
    for n in 0..150_u64 {
        for end in ["claim", "json", "script"] {
            make(format!("run/id-{n}.{end}"), n);
        }
    }
    make("run/.draft-1-1".into(), 0);
    let running = make("run/running.claim".into(), 0);
    running.lock().unwrap();

    assert_eq!(pod.sh("new", "exit 0").result, exited(0));
    let ids: BTreeSet<_> = pod.runs().iter().map(|n| n.rsplit_once('.').unwrap().0.to_owned()).collect();
    assert_eq!(ids.len(), 102, "a hundred, the running one, the new one");
    assert!(ids.contains("running") && ids.contains("new") && ids.contains("id-50") && ids.contains("id-149"));
    assert!(!ids.contains("id-49") && !ids.contains("") && !pod.path("run/id-0.claim").exists());
}

#[test]
fn an_id_whose_claim_cannot_be_written_starts_nothing() {
    let pod = Pod::new();
    fs::remove_dir(pod.path("run")).unwrap();
    let ended = pod.sh("r", "echo x >> starts");
    assert!(matches!(ended.result, RunResult::Refused { why: Refusal::Unwritable { .. } }), "{ended:?}");
    assert!(!pod.path("starts").exists());
}
