//! What is not a request for this pod is answered with the reason, and starts nothing.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a helper that fails fails its test")]

mod pod;

use guardian_hook::protocol::{MAX_REQUEST, Outcome, Refusal, Request, RunResult, frame};
use pod::{Pod, script};

fn refusal(outcome: &Outcome) -> &Refusal {
    match &outcome.result {
        RunResult::Refused { why } => why,
        other => panic!("{other:?}"),
    }
}

fn bad(outcome: &Outcome) -> &str {
    match refusal(outcome) {
        Refusal::BadRequest { message } => message,
        other => panic!("{other:?}"),
    }
}

fn framed(json: &str) -> Vec<u8> {
    let mut bytes = u32::try_from(json.len()).unwrap().to_be_bytes().to_vec();
    bytes.extend_from_slice(json.as_bytes());
    bytes
}

fn good() -> Request {
    script("r", "echo x >> starts")
}

#[test]
fn a_request_for_another_pod_of_this_name_is_refused() {
    let pod = Pod::new();
    let mut other = good();
    other.pod_uid = "another".into();
    assert_eq!(refusal(&pod.run(&other)), &Refusal::OtherPod { uid: pod::UID.into() });
    assert!(!pod.path("starts").exists() && pod.runs().is_empty());
}

#[test]
fn a_newer_version_is_refused_whatever_it_looks_like() {
    let pod = Pod::new();
    let answer = pod.ask(&framed(r#"{"version":2,"podUid":"x","everything":"else"}"#));
    assert_eq!(refusal(&answer), &Refusal::UnsupportedVersion { asked: 2, supported: 1 });
}

#[test]
fn broken_frames_are_refused_with_what_is_wrong() {
    let pod = Pod::new();
    let whole = frame(&good()).unwrap();
    let table: [(&[u8], &str); 7] = [
        (b"", "ended after 0 of 4 bytes"),
        (b"\0\0", "ended after 2 of 4 bytes"),
        (&whole[..20], "ended after 16 of"),
        (&[0xFF; 12], "4294967295 bytes is over the limit of 1048576"),
        (b"\0\0\0\0", "not a request: EOF"),
        (b"\0\0\0\x04{{{{", "line 1 column 2"),
        (b"{\"version\":1}", "over the limit"),
    ];
    for (bytes, message) in table {
        let answer = pod.ask(bytes);
        assert!(bad(&answer).contains(message), "{answer:?}");
    }
    let mut over = u32::try_from(MAX_REQUEST + 1).unwrap().to_be_bytes().to_vec();
    over.resize(MAX_REQUEST + 5, b' ');
    assert!(bad(&pod.ask(&over)).contains("over the limit"));
    assert!(pod.runs().is_empty());
}

#[test]
fn impossible_values_are_refused_with_the_field() {
    let pod = Pod::new();
    type Spoil = fn(&mut Request);
    let table: [(Spoil, &str); 7] = [
        (|r| r.run_id = "../x".into(), "runId"),
        (|r| r.run_id = String::new(), "runId"),
        (|r| r.timeout_ms = 0, "timeoutMs"),
        (|r| r.timeout_ms = u64::MAX, "timeoutMs"),
        (|r| drop(r.env.insert("A=B".into(), String::new())), "A=B"),
        (|r| drop(r.env.insert(String::new(), String::new())), "variable"),
        (|r| drop(r.env.insert("A\0".into(), String::new())), "variable"),
    ];
    for (spoil, field) in table {
        let mut request = good();
        spoil(&mut request);
        let answer = pod.run(&request);
        assert!(bad(&answer).contains(field), "{answer:?}");
    }
    let deep = format!(r#"{{"version":1,"podUid":"{}","env":{}"#, pod::UID, "[".repeat(100_000));
    assert!(bad(&pod.ask(&framed(&deep))).contains("not a request"));
    assert!(!pod.path("starts").exists() && pod.runs().is_empty());
}

#[test]
fn a_pod_without_an_installation_refuses() {
    let answer = Pod::empty().run(&good());
    assert!(matches!(refusal(&answer), Refusal::NotInstalled { message } if message.contains("pod.json")), "{answer:?}");
}

#[test]
fn fields_of_a_newer_controller_are_ignored() {
    let pod = Pod::new();
    let json = serde_json::to_string(&good()).unwrap().replacen('{', r#"{"newer":{"a":[1]},"#, 1);
    assert_eq!(pod.ask(&framed(&json)).result, pod::exited(0));
}
