//! preStop: the reason, the guardian's hook, the user's own; and where its output can be found.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a helper that fails fails its test")]

mod pod;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Read;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use guardian_hook::protocol::{Chained, Installed, Noted, Outcome, PROTOCOL, Refusal, RunResult, StopReason, frame};
use pod::{Pod, UID, exited, installed, until, watches, with_hook};

const TELL: &str = "echo stopping for $GUARDIAN_REASON on $GUARDIAN_HOOK, peers $GUARDIAN_PEERS";

fn pre_stop(text: &str, reason_wait_ms: u64) -> Installed {
    Installed { reason_wait_ms, ..with_hook("preStop", text) }
}

fn reason(pod: &Pod, uid: &str, reason: &str) -> Option<Refusal> {
    let env = BTreeMap::from([("GUARDIAN_PEERS".into(), "redis-sts-0.redis".into())]);
    notice(pod, &StopReason { version: PROTOCOL, pod_uid: uid.into(), reason: reason.into(), env, on_hold: false })
}

fn notice(pod: &Pod, message: &StopReason) -> Option<Refusal> {
    let out = pod.start("reason", &frame(message).unwrap()).wait_with_output().unwrap();
    assert!(out.status.success(), "{out:?}");
    serde_json::from_slice::<Noted>(&out.stdout).unwrap().refused
}

fn stop(pod: &Pod) -> Child {
    pod.command("stop").spawn().unwrap()
}

/// The status of `stop` and what it wrote down.
fn ended(pod: &Pod, child: Child) -> (i32, Outcome) {
    let out = child.wait_with_output().unwrap();
    let names = pod.runs();
    assert!(names.len() == 1 && names[0].starts_with("stop-"), "{names:?} {out:?}");
    (out.status.code().unwrap(), serde_json::from_str(&pod.read(&format!("run/{}", names[0]))).unwrap())
}

#[test]
fn a_reason_that_comes_while_it_waits_reaches_the_hook_at_once() {
    let pod = Pod::with(&pre_stop(TELL, 60_000));
    let child = stop(&pod);
    until("preStop waits", || watches(child.id()));
    let begun = Instant::now();
    assert_eq!(reason(&pod, UID, "ScaleIn"), None);
    let (status, outcome) = ended(&pod, child);
    assert_eq!(outcome.stdout.text, "stopping for ScaleIn on preStop, peers redis-sts-0.redis\n");
    assert_eq!((status, outcome.result), (0, exited(0)));
    assert!(begun.elapsed() < Duration::from_secs(10));
    assert!(!pod.path("stop.json").exists(), "it was the reason of that stop alone");
}

#[test]
fn a_reason_that_is_there_already_is_taken() {
    let pod = Pod::with(&pre_stop(TELL, 0));
    assert_eq!(reason(&pod, UID, "Drain"), None);
    assert!(ended(&pod, stop(&pod)).1.stdout.text.starts_with("stopping for Drain"));
}

#[test]
fn without_a_reason_it_goes_on_with_unknown() {
    for wait in [0, 50] {
        let pod = Pod::with(&pre_stop(TELL, wait));
        let begun = Instant::now();
        let (_, outcome) = ended(&pod, stop(&pod));
        assert_eq!(outcome.stdout.text, "stopping for Unknown on preStop, peers\n");
        assert!(begun.elapsed() >= Duration::from_millis(wait));
        assert!(begun.elapsed() < Duration::from_secs(10));
    }
}

#[test]
fn the_reason_of_an_earlier_stop_is_not_that_of_this_one() {
    let pod = Pod::with(&pre_stop(TELL, 0));
    fs::write(pod.path("stop.json"), r#"{"reason":"Liveness","env":{},"atMs":1700000000000}"#).unwrap();
    assert!(ended(&pod, stop(&pod)).1.stdout.text.starts_with("stopping for Unknown"));
}

#[test]
fn a_reason_for_another_pod_or_that_is_no_word_is_refused() {
    let pod = Pod::with(&pre_stop(TELL, 0));
    assert_eq!(reason(&pod, "another", "Drain"), Some(Refusal::OtherPod { uid: UID.into() }));
    assert!(matches!(reason(&pod, UID, "Drain;rm"), Some(Refusal::BadRequest { .. })));
    let mut newer = frame(&1).unwrap();
    newer.truncate(3);
    let out = pod.start("reason", &newer).wait_with_output().unwrap();
    assert!(String::from_utf8(out.stdout).unwrap().contains("badRequest"));
    assert!(!pod.path("stop.json").exists());
}

#[test]
fn on_hold_the_hook_is_not_run_and_the_users_own_prestop_follows_at_once() {
    for (wait, own, status) in [(0, None, 0), (60_000, Some("echo own > own; exit 5"), 5)] {
        let mut spec = pre_stop("echo hook > mark; exit 1", wait);
        spec.chained = own.map(|own| Chained::Exec(["sh", "-c", &format!("cd $GUARDIAN_DIR; {own}")].map(String::from).to_vec()));
        let pod = Pod::with(&spec);
        let begun = Instant::now();
        let held =
            StopReason { version: PROTOCOL, pod_uid: UID.into(), reason: "Drain".into(), env: BTreeMap::new(), on_hold: true };
        assert_eq!(notice(&pod, &held), None);
        let out = stop(&pod).wait_with_output().unwrap();
        assert_eq!(out.status.code(), Some(status), "{out:?}");
        assert!(String::from_utf8(out.stderr).unwrap().contains("preStop (Drain) is not run: the set is on hold"));
        assert_eq!((pod.path("mark").exists(), pod.path("own").exists()), (false, own.is_some()));
        assert!(pod.runs().is_empty(), "nothing ran, so there is no outcome");
        assert!(begun.elapsed() < Duration::from_secs(10));
    }
}

#[test]
fn a_failed_hook_is_recorded_and_tells_the_kubelet() {
    let pod = Pod::with(&pre_stop("echo cannot save >&2; exit 3", 0));
    let child = stop(&pod);
    let out = child.wait_with_output().unwrap();
    assert_eq!(out.status.code(), Some(3));
    let said = String::from_utf8(out.stderr).unwrap();
    assert!(said.contains("preStop (Unknown) exited with 3 after"), "{said}");
    assert!(said.ends_with("guardian-hook: preStop stderr: cannot save\n"), "{said}");
    let mut late = pre_stop("sleep 300", 0);
    late.hooks.get_mut("preStop").unwrap().timeout_ms = 50;
    let pod = Pod::with(&late);
    let (status, outcome) = ended(&pod, stop(&pod));
    assert_eq!((status, outcome.result), (124, RunResult::TimedOut));
}

#[test]
fn the_output_of_the_hook_goes_into_the_log_of_the_container() {
    let pod = Pod::with(&pre_stop("echo saved; echo slow >&2", 0));
    let log = pod.fifo("log");
    // Open for both, so that neither side waits for the other.
    let mut reader = File::options().read(true).write(true).open(&log).unwrap();
    assert!(pod.command("stop").env("GUARDIAN_LOG", &log).status().unwrap().success());
    let mut bytes = [0; 4096];
    let n = reader.read(&mut bytes).unwrap();
    let text = String::from_utf8_lossy(&bytes[..n]);
    let lines: Vec<_> = text.lines().collect();
    assert!(lines[0].starts_with("guardian-hook: preStop (Unknown) exited with 0 after "), "{text}");
    assert_eq!(lines[1..], ["guardian-hook: preStop stdout: saved", "guardian-hook: preStop stderr: slow"]);
}

#[test]
fn a_log_that_is_a_file_is_the_applications_own() {
    let pod = Pod::with(&pre_stop("echo saved", 0));
    let file = pod.path("data");
    fs::write(&file, "precious").unwrap();
    assert!(pod.command("stop").env("GUARDIAN_LOG", &file).status().unwrap().success());
    assert_eq!(pod.read("data"), "precious");
}

#[test]
fn the_users_own_prestop_follows_as_if_it_were_alone() {
    let own = "cd $GUARDIAN_DIR; echo $PPID-$MOOD-$GUARDIAN_REASON-$GUARDIAN_HOOK > own; cat mark >> own; exit 5";
    let mut spec = pre_stop("echo hook > mark; sleep 300 & exit 1", 0);
    spec.chained = Some(Chained::Exec(["sh", "-c", own].map(String::from).to_vec()));
    let pod = Pod::with(&spec);
    let out = pod.command("stop").env("MOOD", "calm").stdout(Stdio::null()).output().unwrap();
    assert_eq!(out.status.code(), Some(5), "its own status, also after a hook that failed");
    assert_eq!(pod.read("own"), format!("{}-calm--\nhook\n", std::process::id()));
}

#[test]
fn a_chained_command_alone_waits_for_nothing() {
    let mut spec = installed(BTreeMap::new());
    spec.reason_wait_ms = 60_000;
    spec.chained = Some(Chained::Exec(vec!["true".into()]));
    let pod = Pod::with(&spec);
    assert_eq!(stop(&pod).wait_with_output().unwrap().status.code(), Some(0));
    spec.chained = Some(Chained::Exec(vec!["no-such-program".into()]));
    let out = stop(&Pod::with(&spec)).wait_with_output().unwrap();
    assert_eq!(out.status.code(), Some(127));
    assert!(String::from_utf8(out.stderr).unwrap().contains("no-such-program in PATH"));
    spec.chained = Some(Chained::Sleep { seconds: 1 });
    let begun = Instant::now();
    assert!(stop(&Pod::with(&spec)).wait_with_output().unwrap().status.success());
    assert!(begun.elapsed() >= Duration::from_secs(1));
}
