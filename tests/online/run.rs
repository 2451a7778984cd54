//! `guardian run`: what is claimed, refused, passed on and written down. The runner in the pods is played.

use std::io::{BufRead as _, BufReader, Read as _};
use std::process::Stdio;

use guardian_core::names;
use guardian_core::sim::Resource;
use guardian_hook::protocol::{Program, RunResult, Streamed};
use guardian_testing::{Curtain, Fault, Scene};
use serde_json::{Value, json};

use super::{World, assert_documented};

const LEDGER: &str = "guardian-ledger-db";

const POLICY: &str = "apiVersion: stateful-guardian.io/v1alpha1\nkind: GuardianPolicy\nselector: {matchLabels: {app: db}}\n\
    hooks: {rejoin: {command: [rejoin, --now]}, preStop: {command: [stop]}}\n\
    tasks:\n  nightly: {command: [backup, '--to', /backup], timeout: 5m, env: {MOOD: calm}}\n  everywhere: {command: [each], target: all}\n";

/// A set of so many guarded pods, all of them ready.
fn world(replicas: u32) -> World {
    let world = World::new();
    world.policy(POLICY);
    let spec = json!({"replicas": replicas, "serviceName": "db"});
    world.put("apps/v1", "statefulsets", "shop", "db", json!({"metadata": {"labels": {"app": "db"}}, "spec": spec}));
    let set = world.stored("db")["metadata"]["uid"].clone();
    for ordinal in 0..replicas {
        world.put("v1", "pods", "shop", &format!("db-{ordinal}"), pod(&set, ordinal));
    }
    world
}

fn pod(set: &Value, ordinal: u32) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {
            "labels": {(names::GUARDED): "true"},
            "ownerReferences": [{"apiVersion": "apps/v1", "kind": "StatefulSet", "name": "db", "uid": set, "controller": true}],
        },
        "spec": {"containers": [{"name": "db"}]},
        "status": {
            "phase": "Running", "podIP": format!("10.0.0.{ordinal}"), "conditions": [{"type": "Ready", "status": "True"}],
            "containerStatuses": [{
                "name": "db", "containerID": format!("containerd://{ordinal}"), "restartCount": 0,
                "state": {"running": {"startedAt": "2026-11-21T12:00:00Z"}},
            }],
        },
    })
}

fn ends(result: RunResult) -> Scene {
    Scene { says: Vec::new(), curtain: Curtain::Outcome(result, "") }
}

impl World {
    /// State and history of the ledger; null where there is none.
    fn written(&self) -> (Value, Vec<Value>) {
        let key = Resource::new("v1", "configmaps").named("shop", LEDGER);
        let map = self.api.world(|world| world.get(&key).cloned()).unwrap_or_default();
        let parse = |text: &str| serde_json::from_str(text).expect("JSON");
        let history = map["data"]["history"].as_str().unwrap_or_default().lines().map(parse).collect();
        (map["data"]["state"].as_str().map_or(Value::Null, parse), history)
    }

    /// Pod, verdict and message of each record.
    fn told(&self) -> Vec<String> {
        let word = |record: &Value, name: &str| record[name].as_str().unwrap_or_default().to_owned();
        let line = |r: &Value| {
            format!("{} {} {} {}: {}", word(r, "reason"), word(r, "hook"), word(r, "pod"), word(r, "verdict"), word(r, "message"))
        };
        self.written().1.iter().map(line).collect()
    }

    fn is_closed(&self) -> bool {
        let state = self.written().0;
        state["episodes"] == json!({}) && state["runs"] == json!({})
    }
}

#[test]
fn output_goes_where_it_would_go_here_and_the_exit_code_is_passed_on_and_recorded() {
    let world = world(1);
    let says = vec![Streamed::of(false, b"\xffone\n"), Streamed::of(true, b"two\n"), Streamed::of(false, b"three")];
    world.api.plays(Scene { says, curtain: Curtain::Outcome(RunResult::Exited { code: 3 }, "one\nthree") });
    let mut command = world.command(&["run", "db", "nightly"]);
    let done = command.stdin(Stdio::null()).output().expect("it runs");
    assert_eq!((done.status.code(), done.stdout.as_slice()), (Some(3), &b"\xffone\nthree"[..]), "byte for byte, and once");
    let stderr = String::from_utf8(done.stderr).expect("UTF-8");
    assert_eq!(stderr, "two\nguardian: pod db-0: tasks.nightly ended with exit code 3 after 1.2 s\n");
    let told = "Requested tasks.nightly db-0 Failed: asked for by somebody: tasks.nightly ended with exit code 3 after 1.2 s, its last words: three";
    assert_eq!(world.told(), [told]);
    assert!(world.is_closed());

    let executed = world.api.executed();
    let [(pod, request)] = &executed[..] else { panic!("{executed:?}") };
    assert_eq!(
        (pod.as_str(), request.hook.as_str(), request.timeout_ms, request.stream),
        ("db-0", "tasks.nightly", 300_000, true)
    );
    assert_eq!(request.program, Program::Command(vec!["backup".into(), "--to".into(), "/backup".into()]));
    let env = |name: &str| request.env.get(name).map(String::as_str);
    for (name, value) in [
        ("MOOD", "calm"),
        ("GUARDIAN_HOOK", "tasks.nightly"),
        ("GUARDIAN_REASON", "Requested"),
        ("GUARDIAN_POD", "db-0"),
        ("GUARDIAN_SET", "db"),
        ("GUARDIAN_REPLICAS", "1"),
        ("GUARDIAN_RUN_ID", &request.run_id),
    ] {
        assert_eq!(env(name), Some(value), "{name}");
    }
}

/// It is in the ledger before the runner hears of it.
#[test]
fn it_is_claimed_before_it_is_started_and_an_interrupted_caller_leaves_it_open() {
    let world = world(1);
    world.api.plays(Scene { says: vec![Streamed::of(false, b"begun\n")], curtain: Curtain::Never });
    let mut command = world.command(&["run", "db", "nightly"]);
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it runs");
    let mut line = String::new();
    BufReader::new(child.stdout.take().expect("a pipe")).read_line(&mut line).expect("a line");
    assert_eq!(line, "begun\n");
    let (state, history) = world.written();
    let run = world.api.executed()[0].1.run_id.clone();
    assert_eq!(
        (&state["runs"][&run]["pod"], &state["runs"][&run]["hook"]),
        (&json!("db-0"), &json!("tasks.nightly")),
        "{state:#}"
    );
    let episodes = state["episodes"].as_object().expect("episodes");
    assert!(episodes.values().all(|e| e["scenario"] == "command" && e["reason"] == "Requested"), "{state:#}");
    assert_eq!(history, Vec::<Value>::new());

    let second = world.guardian(&["run", "db", "rejoin"]);
    assert_eq!(second.code, Some(1), "{}", second.stderr);
    assert!(second.stderr.contains("pod db-0 is held by command-") && second.stderr.contains("nightly"), "{}", second.stderr);

    let interrupted = std::process::Command::new("kill").args(["-INT", &child.id().to_string()]).status().expect("kill");
    assert!(interrupted.success());
    let mut stderr = String::new();
    child.stderr.take().expect("a pipe").read_to_string(&mut stderr).expect("UTF-8");
    assert_eq!(child.wait().expect("it ends").code(), Some(130));
    let words = format!("interrupted. tasks.nightly goes on in pod db-0 as run {run}, for 300 s at most");
    assert!(stderr.contains(&words) && stderr.contains("guardian history -n shop db"), "{stderr}");
    assert!(!world.is_closed(), "the controller closes it");
}

#[test]
fn each_end_has_its_exit_code() {
    let table = [
        (RunResult::Exited { code: 0 }, 0, ""),
        (RunResult::Signaled { signal: 9 }, 137, "was ended by signal 9"),
        (RunResult::TimedOut, 124, "was killed at its time out"),
        (RunResult::NotFound { what: "backup in PATH".into() }, 127, "there is no backup in PATH"),
        (RunResult::NotExecutable { what: "/backup: denied".into() }, 126, "cannot be executed"),
        (RunResult::Interrupted, 1, "how far it came is unknown"),
    ];
    let world = world(1);
    for (result, code, words) in table {
        world.api.plays(ends(result.clone()));
        let done = world.guardian(&["run", "db", "nightly", "--timeout", "90s"]);
        assert_eq!(done.code, Some(code), "{result:?}: {}", done.stderr);
        assert!(done.stderr.contains(words) && done.stderr.is_empty() == words.is_empty(), "{}", done.stderr);
        assert!(world.is_closed(), "{result:?}");
    }
    world.api.plays(Scene { says: Vec::new(), curtain: Curtain::NoRunner });
    let none = world.guardian(&["run", "db", "nightly"]);
    assert!(none.code == Some(1) && none.stderr.contains("there is no /guardian/guardian-hook"), "{}", none.stderr);
    assert_eq!(world.told().len(), 7);
    assert_eq!(world.api.executed()[0].1.timeout_ms, 90_000);
    assert_eq!(world.api.executed()[6].1.timeout_ms, 300_000);
}

#[test]
fn in_all_pods_it_goes_from_one_to_the_next_and_stops_at_the_first_failure() {
    let world = world(3);
    world.api.plays(ends(RunResult::Exited { code: 0 }));
    world.api.plays(ends(RunResult::Exited { code: 7 }));
    let done = world.guardian(&["run", "db", "everywhere", "-o", "json"]);
    assert_eq!(done.code, Some(7), "{}", done.stderr);
    let document: Value = serde_json::from_str(&done.stdout).expect("one JSON document");
    let runs = document["runs"].as_array().expect("runs");
    let ended: Vec<String> = runs.iter().map(|run| format!("{} {}", run["pod"], run["exit"])).collect();
    assert_eq!(ended, ["\"db-0\" 0", "\"db-1\" 7"]);
    assert_eq!((&document["exit"], &document["name"]), (&json!(7), &json!("tasks.everywhere")));
    assert!(world.api.executed().iter().all(|(_, request)| !request.stream), "a document has it at the end");
    assert_eq!(world.told().len(), 2);
    world.api.plays(ends(RunResult::Exited { code: 0 }));
    let one = world.guardian(&["run", "db", "everywhere", "--pod", "db-2", "-o", "yaml"]);
    assert!(one.code == Some(0) && one.stdout.contains("pod: db-2"), "{}{}", one.stdout, one.stderr);
    assert_documented("run", &document);
}

#[test]
fn what_cannot_be_run_is_refused_with_the_reason_and_nothing_is_written() {
    let world = world(2);
    let refused = |arguments: &[&str], code: i32, words: &str| {
        let done = world.guardian(&[&["run"], arguments].concat());
        assert_eq!(done.code, Some(code), "{arguments:?}: {}", done.stderr);
        assert!(done.stderr.starts_with("guardian: ") && done.stderr.contains(words), "{arguments:?}: {}", done.stderr);
    };
    refused(&["db", "nightly"], 2, "say in which with --pod");
    refused(&["db", "nightly", "--pod", "db-5"], 2, "not meant to have a pod db-5");
    refused(&["db", "absent", "--pod", "db-0"], 2, "no task or hook absent; it has everywhere, nightly, rejoin");
    refused(&["db", "preStop", "--pod", "db-0"], 2, "cannot be run by hand");
    refused(&["none", "nightly"], 1, "there is no StatefulSet none in shop");
    for bad in ["soon", "0s", "25h"] {
        let done = world.guardian(&["run", "db", "nightly", "--timeout", bad]);
        assert_eq!(done.code, Some(2), "{bad}: {}", done.stderr);
    }
    world.approvals(&json!({}));
    refused(&["db", "nightly", "--pod", "db-0"], 1, "guardian approve -n shop db-policy");
    world.policy(POLICY);
    world.api.fail_next("GET configmaps", Fault::Status(403));
    refused(&["db", "nightly", "--pod", "db-0"], 1, "cannot read the approvals");
    let labels = json!({(names::ENABLED): "true"});
    world.put(
        "v1",
        "namespaces",
        "",
        "shop",
        json!({"metadata": {"labels": labels, "annotations": {(names::HOLD): "night shift"}}}),
    );
    refused(&["db", "nightly", "--pod", "db-0"], 1, "on hold: night shift");
    world.put("v1", "namespaces", "", "shop", json!({"metadata": {"labels": {}}}));
    refused(&["db", "nightly", "--pod", "db-0"], 1, "guardian enable shop");
    assert_eq!(world.written().0, Value::Null);
    assert!(world.api.executed().is_empty());
}

#[test]
fn a_dry_run_says_what_would_run_and_where_and_writes_nothing() {
    let world = world(2);
    let done = world.guardian(&["run", "db", "nightly", "--pod", "db-1", "--dry-run"]);
    let words = "tasks.nightly would run in pod db-1, container db, for 300 s at most: command [\"backup\",\"--to\",\"/backup\"] (dry run)\n";
    assert_eq!((done.code, done.stdout.as_str()), (Some(0), words), "{}", done.stderr);
    let document = world.json(&["run", "db", "everywhere", "--dry-run", "-o", "json"]);
    assert_eq!(
        (&document["dryRun"], &document["exit"], &document["runs"][1]["pod"]),
        (&json!(true), &Value::Null, &json!("db-1"))
    );
    assert_eq!((&document["runs"][0]["command"], &document["runs"][0]["runId"]), (&json!(["each"]), &Value::Null));
    assert_eq!(world.written().0, Value::Null);
    assert!(world.api.executed().is_empty());
}

#[test]
fn an_older_runner_is_told_and_its_output_comes_at_the_end() {
    let world = world(1);
    world.api.plays(Scene { says: Vec::new(), curtain: Curtain::Outcome(RunResult::Exited { code: 0 }, "late\n") });
    let done = world.guardian(&["run", "db", "nightly"]);
    assert_eq!((done.code, done.stdout.as_str()), (Some(0), "late\n"));
    assert!(done.stderr.contains("is an older one"), "{}", done.stderr);
    world.api.plays(ends(RunResult::Exited { code: 0 }));
    let silent = world.guardian(&["run", "db", "nightly"]);
    assert_eq!((silent.code, silent.stderr.as_str()), (Some(0), ""), "what writes nothing tells nothing");
}

#[test]
fn a_lost_connection_is_made_again_under_the_same_id_and_nothing_is_told_twice() {
    let world = world(1);
    world.api.plays(Scene { says: vec![Streamed::of(false, b"early\n")], curtain: Curtain::Cut });
    world.api.plays(Scene { says: Vec::new(), curtain: Curtain::Outcome(RunResult::Exited { code: 0 }, "early\nlate\n") });
    let done = world.guardian(&["run", "db", "nightly"]);
    assert_eq!((done.code, done.stdout.as_str()), (Some(0), "early\nlate\n"), "{}", done.stderr);
    let executed = world.api.executed();
    assert_eq!((executed.len(), &executed[0].1.run_id), (2, &executed[1].1.run_id));
    assert!(world.is_closed() && world.told().len() == 1, "{:?}", world.told());
}

#[test]
fn whoever_may_not_exec_starts_nothing_and_holds_nothing() {
    let world = world(1);
    world.api.fail_next("EXEC", Fault::Status(403));
    let done = world.guardian(&["run", "db", "nightly"]);
    assert_eq!(done.code, Some(1), "{}", done.stderr);
    assert!(done.stderr.contains("tasks.nightly was not started: no right to exec in the pod"), "{}", done.stderr);
    assert!(world.api.executed().is_empty() && world.is_closed());
    assert!(world.told()[0].contains(" Failed: "), "{:?}", world.told());
}

#[test]
fn the_ledger_that_somebody_else_writes_at_the_same_moment_is_read_again() {
    let world = world(1);
    world.api.plays(ends(RunResult::Exited { code: 0 }));
    world.api.fail_next("POST configmaps", Fault::Status(409));
    world.api.fail_next("PUT configmaps", Fault::Status(409));
    let done = world.guardian(&["run", "db", "nightly"]);
    assert_eq!((done.code, done.stderr.as_str()), (Some(0), ""));
    assert!(world.is_closed() && world.told().len() == 1);

    // Nothing is started whose claim cannot be written.
    for _ in 0..5 {
        world.api.fail_next("PUT configmaps", Fault::Status(409));
    }
    let unclaimed = world.guardian(&["run", "db", "nightly"]);
    assert_eq!((unclaimed.code, world.api.executed().len()), (Some(1), 1), "{}", unclaimed.stderr);
}
