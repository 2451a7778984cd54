//! The JSON of the protocol is final: pods keep old runners for months, so every line here must stay as it is.

#![expect(clippy::unwrap_used, reason = "a helper that fails fails its test")]

use std::collections::BTreeMap;

use guardian_hook::metric::MetricKind;
use guardian_hook::protocol::{
    Agenda, Chained, Collect, Collected, Family, InPodHook, Installed, MAX_REQUEST, MAX_SPEC, Noted, OnFailure, Outcome,
    PROTOCOL, Probe, Program, Refusal, Repeated, Request, RunResult, Sample, SpecError, StopReason, Streamed, Tail, Usage,
    Working, frame, valid_reason, valid_run_id,
};

fn request() -> Request {
    Request {
        version: PROTOCOL,
        pod_uid: "8f3c".into(),
        run_id: "rejoin-8f3c-1".into(),
        hook: "rejoin".into(),
        program: Program::Script { name: "rejoin.sh".into(), text: "#!/bin/sh\n".into() },
        env: BTreeMap::from([("GUARDIAN_REASON".into(), "Crash".into())]),
        timeout_ms: 60_000,
        stream: false,
    }
}

fn outcome(result: RunResult) -> Outcome {
    Outcome {
        version: PROTOCOL,
        run_id: "r".into(),
        result,
        duration_ms: 12,
        stdout: Tail::default(),
        stderr: Tail::default(),
        survivors: 0,
    }
}

fn installed(script: &str) -> Installed {
    let hook = InPodHook {
        program: Program::Script { name: "init.sh".into(), text: script.into() },
        timeout_ms: 30_000,
        env: BTreeMap::new(),
        on_failure: OnFailure::Block,
    };
    Installed {
        format: 1,
        service: "redis".into(),
        set: "redis-sts".into(),
        hooks: BTreeMap::from([("init".into(), hook)]),
        chained: Some(Chained::Exec(vec!["true".into()])),
        reason_wait_ms: 500,
    }
}

fn json(value: &impl serde::Serialize) -> String {
    serde_json::to_string(value).unwrap()
}

#[test]
fn a_request_is_written_as_it_always_was() {
    let script = r##"{"version":1,"podUid":"8f3c","runId":"rejoin-8f3c-1","hook":"rejoin","program":{"script":{"name":"rejoin.sh","text":"#!/bin/sh\n"}},"env":{"GUARDIAN_REASON":"Crash"},"timeoutMs":60000}"##;
    assert_eq!(json(&request()), script);
    assert_eq!(json(&Program::Command(vec!["redis-cli".into(), "ping".into()])), r#"{"command":["redis-cli","ping"]}"#);
    let streamed = Request { stream: true, ..request() };
    assert_eq!(json(&streamed), script.replace("60000}", "60000,\"stream\":true}"));
    assert_eq!(serde_json::from_str::<Request>(script).unwrap(), request(), "an older controller asks for no stream");
}

#[test]
fn what_a_run_writes_is_written_in_lines_that_no_reader_takes_for_an_outcome() {
    let table = [
        (Streamed::of(false, b"\xffout"), r#"{"kind":"stdout","data":"/291dA=="}"#),
        (Streamed::of(true, b"err\n"), r#"{"kind":"stderr","data":"ZXJyCg=="}"#),
        (Streamed::Dropped { stdout: 7, stderr: 0 }, r#"{"kind":"dropped","stdout":7,"stderr":0}"#),
    ];
    for (line, text) in table {
        assert_eq!(json(&line), text);
        assert_eq!(serde_json::from_str::<Streamed>(text).unwrap(), line);
        assert!(serde_json::from_str::<Outcome>(text).is_err(), "{text}");
    }
    assert_eq!(Streamed::of(false, b"\xffout").bytes(), Some((false, b"\xffout".to_vec())));
    assert_eq!(serde_json::from_str::<Streamed>(r#"{"kind":"progress","percent":3}"#).unwrap(), Streamed::Unknown);
    assert!(serde_json::from_str::<Streamed>(&json(&outcome(RunResult::TimedOut))).is_err(), "nor an outcome for a line");
}

#[test]
fn an_outcome_is_written_as_it_always_was() {
    let text = r#"{"version":1,"runId":"r","result":{"kind":"exited","code":3},"durationMs":12,"stdout":{"text":"","dropped":0},"stderr":{"text":"","dropped":0}}"#;
    assert_eq!(json(&outcome(RunResult::Exited { code: 3 })), text);
    let table = [
        (RunResult::Signaled { signal: 9 }, r#"{"kind":"signaled","signal":9}"#),
        (RunResult::TimedOut, r#"{"kind":"timedOut"}"#),
        (RunResult::NotFound { what: "x".into() }, r#"{"kind":"notFound","what":"x"}"#),
        (RunResult::NotExecutable { what: "x".into() }, r#"{"kind":"notExecutable","what":"x"}"#),
        (RunResult::NotStarted { message: "x".into() }, r#"{"kind":"notStarted","message":"x"}"#),
        (RunResult::Interrupted, r#"{"kind":"interrupted"}"#),
        (
            RunResult::Refused { why: Refusal::OtherPod { uid: "x".into() } },
            r#"{"kind":"refused","why":{"kind":"otherPod","uid":"x"}}"#,
        ),
        (
            RunResult::Refused { why: Refusal::UnsupportedVersion { asked: 2, supported: 1 } },
            r#"{"kind":"refused","why":{"kind":"unsupportedVersion","asked":2,"supported":1}}"#,
        ),
        (RunResult::Refused { why: Refusal::StillRunning }, r#"{"kind":"refused","why":{"kind":"stillRunning"}}"#),
    ];
    for (result, text) in table {
        assert_eq!(json(&result), text);
        assert_eq!(serde_json::from_str::<RunResult>(text).unwrap(), result);
    }
}

#[test]
fn what_a_newer_side_adds_is_no_error() {
    let newer = r#"{"version":1,"runId":"r","result":{"kind":"paused","at":1},"durationMs":1,"later":[]}"#;
    assert_eq!(serde_json::from_str::<Outcome>(newer).unwrap().result, RunResult::Unknown);
    let newer = r#"{"kind":"refused","why":{"kind":"tooBusy","load":3}}"#;
    assert_eq!(serde_json::from_str::<RunResult>(newer).unwrap(), RunResult::Refused { why: Refusal::Unknown });
    let newer = r#"{"version":1,"podUid":"u","runId":"r","hook":"h","program":{"command":["x"]},"timeoutMs":1,"priority":"low"}"#;
    assert!(serde_json::from_str::<Request>(newer).is_ok());
}

#[test]
fn questions_and_their_answers_are_written_as_they_always_were() {
    let program = Program::Command(vec!["role".into()]);
    let probe = Probe { name: "role".into(), program, env: BTreeMap::new(), timeout_ms: 5000, max_output: 4096 };
    let collect = Collect { version: 1, pod_uid: "8f3c".into(), probes: vec![probe], wait_ms: 0, disk: None };
    let once = r#"{"version":1,"podUid":"8f3c","probes":[{"name":"role","program":{"command":["role"]},"env":{},"timeoutMs":5000,"maxOutput":4096}]}"#;
    assert_eq!(json(&collect), once);
    let shortest = r#"{"version":1,"podUid":"8f3c","probes":[{"name":"role","program":{"command":["role"]},"timeoutMs":5000}]}"#;
    assert_eq!(serde_json::from_str::<Collect>(shortest).unwrap(), collect);
    assert!(json(&Collect { wait_ms: 2000, ..collect }).ends_with(r#","waitMs":2000}"#));

    let (stdout, result) = (Tail { text: "primary 17\n".into(), dropped: 0 }, RunResult::Exited { code: 0 });
    let sample = Sample { name: "role".into(), result, duration_ms: 3, stdout, stderr: Tail::default(), age_ms: None };
    let usage = Usage { memory_bytes: Some(1), cpu_limit_millis: Some(250), ..Usage::default() };
    let table = [
        (
            Collected::Probe(sample),
            r#"{"kind":"probe","name":"role","result":{"kind":"exited","code":0},"durationMs":3,"stdout":{"text":"primary 17\n","dropped":0},"stderr":{"text":"","dropped":0}}"#,
        ),
        (Collected::Usage(usage), r#"{"kind":"usage","memoryBytes":1,"cpuLimitMillis":250}"#),
        (Collected::Refused { why: Refusal::StillRunning }, r#"{"kind":"refused","why":{"kind":"stillRunning"}}"#),
        (
            Collected::Agent(Working { pod_uid: "8f3c".into(), revision: "0a1b".into() }),
            r#"{"kind":"agent","podUid":"8f3c","revision":"0a1b"}"#,
        ),
        (Collected::Waits { name: "role".into(), age_ms: 12 }, r#"{"kind":"waits","name":"role","ageMs":12}"#),
    ];
    for (line, text) in table {
        assert_eq!(json(&line), text);
        assert_eq!(serde_json::from_str::<Collected>(text).unwrap(), line);
    }
    assert_eq!(serde_json::from_str::<Collected>(r#"{"kind":"disk","free":1}"#).unwrap(), Collected::Unknown);
}

#[test]
fn what_an_agent_asks_is_written_as_it_always_was_and_bounded() {
    let program = Program::Command(vec!["lag".into()]);
    let probe = Probe { name: "metrics.lag".into(), program, env: BTreeMap::new(), timeout_ms: 5000, max_output: 4096 };
    let family = Family { name: "lag".into(), kind: MetricKind::Counter, help: "Lag".into(), labels: vec!["db".into()] };
    let question = Repeated { probe, every_ms: 15_000, metric: Some(family) };
    let agenda = Agenda { version: 1, revision: "0a1b".into(), env: BTreeMap::new(), questions: vec![question] };
    let text = r#"{"version":1,"revision":"0a1b","env":{},"questions":[{"probe":{"name":"metrics.lag","program":{"command":["lag"]},"env":{},"timeoutMs":5000,"maxOutput":4096},"everyMs":15000,"metric":{"name":"lag","type":"counter","help":"Lag","labels":["db"]}}]}"#;
    assert_eq!(json(&agenda), text);
    assert_eq!(serde_json::from_str::<Agenda>(text).unwrap(), agenda);
    assert_eq!(agenda.fault(), None);
    type Spoil = fn(&mut Agenda);
    let table: [(Spoil, &str); 6] = [
        (|a| a.version = 2, "version"),
        (|a| a.questions = vec![a.questions[0].clone(); 65], "questions"),
        (|a| a.questions[0].every_ms = 0, "everyMs"),
        (|a| a.questions[0].every_ms = u64::MAX, "everyMs"),
        (|a| a.questions[0].probe.max_output = 4097, "maxOutput"),
        (|a| a.questions[0].probe.timeout_ms = 0, "timeoutMs"),
    ];
    for (spoil, field) in table {
        let mut bad = agenda.clone();
        spoil(&mut bad);
        assert!(bad.fault().is_some_and(|fault| fault.contains(field)), "{field}");
    }
}

#[test]
fn a_reason_and_its_answer_are_written_as_they_always_were() {
    let reason = StopReason { version: 1, pod_uid: "u".into(), reason: "ScaleIn".into(), env: BTreeMap::new(), on_hold: false };
    let text = r#"{"version":1,"podUid":"u","reason":"ScaleIn","env":{}}"#;
    assert_eq!(json(&reason), text);
    assert_eq!(serde_json::from_str::<StopReason>(text).unwrap(), reason, "older controllers say nothing of a hold");
    let held = StopReason { on_hold: true, ..reason };
    assert_eq!(json(&held), r#"{"version":1,"podUid":"u","reason":"ScaleIn","env":{},"onHold":true}"#);
    assert_eq!(json(&Noted { version: 1, refused: None }), r#"{"version":1}"#);
}

#[test]
fn the_hooks_of_a_pod_are_written_as_they_always_were() {
    let text = r##"{"format":1,"service":"redis","set":"redis-sts","hooks":{"init":{"program":{"script":{"name":"init.sh","text":"#!/bin/sh\n"}},"timeoutMs":30000,"env":{},"onFailure":"block"}},"chained":{"exec":["true"]},"reasonWaitMs":500}"##;
    assert_eq!(json(&installed("#!/bin/sh\n")), text);
    assert_eq!(json(&Chained::Sleep { seconds: 5 }), r#"{"sleep":{"seconds":5}}"#);
}

#[test]
fn the_hooks_of_a_pod_survive_their_encoding_and_are_bounded() {
    let value = installed("#!/bin/sh\necho $(HOME) $$\n").encode().unwrap();
    assert!(!value.contains('$'));
    assert_eq!(Installed::decode(value.as_bytes()).unwrap(), installed("#!/bin/sh\necho $(HOME) $$\n"));
    assert!(installed(&"x".repeat(64 * 1024)).encode().is_ok());
    let quotes = installed(&"\"".repeat(64 * 1024)).encode();
    assert!(matches!(quotes, Err(SpecError::TooLarge { bytes }) if bytes > MAX_SPEC));
    let mut other = installed("");
    other.format = 2;
    assert!(matches!(Installed::decode(other.encode().unwrap().as_bytes()), Err(SpecError::Format(2))));
    assert!(matches!(Installed::decode(b"%%"), Err(SpecError::Encoding(_))));
    assert!(matches!(Installed::decode(b"e30="), Err(SpecError::Content(_))));
}

#[test]
fn a_frame_is_its_length_and_its_json() {
    let bytes = frame(&request()).unwrap();
    let length = u32::from_be_bytes(bytes[..4].try_into().unwrap()) as usize;
    assert_eq!(length, bytes.len() - 4);
    assert_eq!(serde_json::from_slice::<Request>(&bytes[4..]).unwrap(), request());
    assert!(frame(&"x".repeat(MAX_REQUEST)).is_err());
}

#[test]
fn names_of_runs_and_reasons_are_file_names_and_words() {
    for id in ["a", "rejoin-8f3c-1", "A.b_c-9", "x".repeat(100).as_str()] {
        assert!(valid_run_id(id), "{id}");
    }
    for id in ["", ".", "..", ".hidden", "a/b", "a b", "ä", "a\n", "x".repeat(101).as_str()] {
        assert!(!valid_run_id(id), "{id}");
    }
    assert!(valid_reason("ScaleIn"));
    assert!(!valid_reason("") && !valid_reason("Scale In") && !valid_reason("x".repeat(65).as_str()));
}
