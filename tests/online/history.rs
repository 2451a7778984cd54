//! `guardian history` and `guardian adopt`.

use guardian_core::names;
use guardian_core::sim::Resource;
use guardian_testing::Fault;
use serde_json::{Value, json};

use super::World;

const LEDGER: &str = "guardian-ledger-db";

/// A set with its claims, and claims of others.
fn world() -> World {
    let world = World::new();
    let spec = json!({"replicas": 2, "volumeClaimTemplates": [{"metadata": {"name": "data"}}]});
    world.put("apps/v1", "statefulsets", "shop", "db", json!({"spec": spec}));
    for claim in ["data-db-0", "data-db-1", "data-db-other-0", "backup"] {
        world.put("v1", "persistentvolumeclaims", "shop", claim, json!({}));
    }
    world
}

impl World {
    fn ledger(&self, state: &Value, history: &[Value]) {
        let lines: Vec<String> = history.iter().map(Value::to_string).collect();
        let data = json!({"state": state.to_string(), "history": lines.join("\n")});
        let metadata = json!({"labels": {"stateful-guardian.io/ledger": "true"}});
        self.put("v1", "configmaps", "shop", LEDGER, json!({"metadata": metadata, "data": data}));
    }

    fn ledger_state(&self) -> Value {
        let key = Resource::new("v1", "configmaps").named("shop", LEDGER);
        let map = self.api.world(|world| world.get(&key).cloned()).expect("a ledger");
        serde_json::from_str(map["data"]["state"].as_str().unwrap_or_default()).expect("JSON")
    }

    fn uid(&self, claim: &str) -> String {
        let key = Resource::new("v1", "persistentvolumeclaims").named("shop", claim);
        self.api.world(|world| world.get(&key).expect("a claim")["metadata"]["uid"].as_str().unwrap_or_default().to_owned())
    }
}

fn record(pod: &str, verdict: &str, message: &str) -> Value {
    json!({
        "at": "2026-11-21T12:00:00Z", "hook": "rejoin", "reason": "Crash", "verdict": verdict, "pod": pod, "podUid": "u", "attempt": 1,
        "run": "rejoin-u-1", "message": message,
    })
}

fn state() -> Value {
    json!({"format": 1, "setUid": "s", "bootstrapped": true, "givenUp": {"bootstrap": {"revision": "r", "unknown": true, "why": "lost"}}})
}

#[test]
fn history_tells_the_records_and_what_is_open_for_people_and_for_scripts() {
    let world = world();
    let mut open = state();
    open["episodes"] = json!({"start-1": {
        "scenario": "start", "hook": "rejoin", "scope": {"pod": "u"}, "reason": "OOMKilled", "why": "it was killed", "pod": "db-1",
        "opened": "2026-11-21T12:01:00Z", "attempts": 2, "next": "2026-11-21T12:02:00Z",
    }});
    world.ledger(&open, &[record("db-0", "Succeeded", "rejoin \u{1b}[31msucceeded"), record("db-1", "Failed", "no route")]);
    let told = world.guardian(&["history", "db"]);
    assert_eq!((told.code, told.stderr.as_str()), (Some(0), ""));
    assert!(told.stdout.contains("2026-11-21T12:00:00Z   db-0   Crash"), "{}", told.stdout);
    assert!(told.stdout.contains("Open"), "{}", told.stdout);
    assert!(told.stdout.contains("it was killed: the next attempt is made at 2026-11-21T12:02:00Z"), "{}", told.stdout);
    assert!(!told.stdout.contains('\u{1b}'), "no control character gets to the terminal");

    let only = world.guardian(&["history", "db", "--pod", "db-1", "-o", "json"]);
    let document: Value = serde_json::from_str(&only.stdout).expect("one JSON document");
    assert_eq!(document["records"].as_array().map(Vec::len), Some(1));
    assert_eq!(document["open"]["start-1"]["reason"], "OOMKilled");
    assert_eq!(document["givenUp"]["bootstrap"]["why"], "lost");
    assert!(world.guardian(&["history", "db", "-o", "yaml"]).stdout.contains("verdict: Failed"));
}

#[test]
fn a_set_without_a_ledger_and_a_broken_ledger_are_told_with_what_to_do() {
    let world = world();
    let nothing = world.guardian(&["history", "db"]);
    assert_eq!(nothing.code, Some(1));
    assert!(nothing.stderr.contains("no ConfigMap guardian-ledger-db"), "{}", nothing.stderr);
    assert!(nothing.stderr.contains("guardian status -n shop db"), "{}", nothing.stderr);
    world.ledger(&json!({"format": 9}), &[]);
    let newer = world.guardian(&["history", "db"]);
    assert_eq!(newer.code, Some(1));
    assert!(newer.stderr.contains("format 9, this guardian knows 1"), "{}", newer.stderr);
    let endless = world.guardian(&["history", "db", "--follow", "-o", "json"]);
    assert_eq!(endless.code, Some(2), "{}", endless.stderr);
}

#[test]
fn adopt_writes_what_a_person_says_of_the_claims_of_the_set_and_of_no_other() {
    for (flag, word) in [("--bootstrapped", "member"), ("--new", "new")] {
        let world = world();
        world.ledger(&state(), &[]);
        let done = world.guardian(&["adopt", "db", flag]);
        assert_eq!(done.code, Some(0), "{}", done.stderr);
        assert!(done.stdout.starts_with("data-db-0, data-db-1 hold "), "{}", done.stdout);
        let state = world.ledger_state();
        let said = state["volumes"].as_object().expect("volumes");
        assert_eq!(said.len(), 2, "{said:?}");
        assert_eq!((&said[&world.uid("data-db-0")], &said[&world.uid("data-db-1")]), (&json!(word), &json!(word)));
        assert!(state["givenUp"].is_null(), "what was given up may be tried: {state}");
        let told = world.guardian(&["history", "db"]);
        assert!(told.stdout.contains("adopt") && told.stdout.contains("data-db-0, data-db-1 hold"), "{}", told.stdout);
    }
}

#[test]
fn adopt_makes_the_ledger_where_there_is_none_and_writes_nothing_in_a_dry_run() {
    let world = world();
    let dry = world.guardian(&["adopt", "db", "--bootstrapped", "--dry-run"]);
    assert_eq!((dry.code, dry.stdout.trim_end().ends_with("(dry run)")), (Some(0), true), "{}", dry.stderr);
    assert_eq!(world.guardian(&["history", "db"]).code, Some(1), "nothing was written");
    assert_eq!(world.guardian(&["adopt", "db", "--bootstrapped"]).code, Some(0));
    assert_eq!(world.ledger_state()["bootstrapped"], false, "the rejoin of its pods will say so");
}

#[test]
fn adopt_needs_one_of_two_words_and_loses_no_write_of_another() {
    let world = world();
    world.ledger(&state(), &[]);
    assert_eq!(world.guardian(&["adopt", "db"]).code, Some(2));
    assert_eq!(world.guardian(&["adopt", "db", "--new", "--bootstrapped"]).code, Some(2));
    let missing = world.guardian(&["adopt", "absent", "--new"]);
    assert!(missing.stderr.contains("there is no StatefulSet absent in shop"), "{}", missing.stderr);
    world.api.fail_next("PUT configmaps", Fault::Status(409));
    let raced = world.guardian(&["adopt", "db", "--new"]);
    assert_eq!(raced.code, Some(1));
    assert!(raced.stderr.contains("was written at the same moment"), "{}", raced.stderr);
}

#[test]
fn adopt_says_nothing_of_a_claim_that_has_the_mark_already() {
    let world = world();
    let marked = json!({"metadata": {"annotations": {(names::MEMBER): "db"}}});
    world.put("v1", "persistentvolumeclaims", "shop", "data-db-0", marked);
    let done = world.guardian(&["adopt", "db", "--new", "--dry-run"]);
    assert!(done.stdout.starts_with("data-db-1 holds nothing"), "{}", done.stdout);
}

#[test]
fn their_help_has_examples() {
    for name in ["history", "adopt"] {
        let help = world().guardian(&[name, "--help"]);
        assert!(help.stdout.contains(&format!("guardian {name} -n shop redis")), "{}", help.stdout);
    }
}

/// What a set is doing stands beside what is written into it.
#[test]
fn status_of_a_set_shows_its_pods_its_last_failure_and_what_goes_on() {
    let world = world();
    let stored = world.stored("db");
    let pod = |role: Option<&str>, restarts: u32, ready: &str| {
        json!({
            "metadata": {
                "labels": {(names::GUARDED): "true", (names::ROLE): role},
                "ownerReferences": [{
                    "apiVersion": "apps/v1", "kind": "StatefulSet", "name": "db", "uid": stored["metadata"]["uid"], "controller": true,
                }],
            },
            "spec": {"containers": [{"name": "db"}]},
            "status": {
                "conditions": [{"type": "Ready", "status": ready}],
                "containerStatuses": [
                    {"name": "db", "restartCount": restarts, "image": "", "imageID": "", "ready": ready == "True"},
                ],
            },
        })
    };
    world.put("v1", "pods", "shop", "db-10", pod(Some("replica"), 0, "True"));
    world.put("v1", "pods", "shop", "db-9", pod(Some("primary"), 3, "False"));
    let mut open = state();
    open["episodes"] = json!({"start-1": {
        "scenario": "start", "hook": "rejoin", "scope": {"pod": "u"}, "reason": "OOMKilled", "why": "it was killed", "pod": "db-9",
        "opened": "2026-11-21T12:01:00Z", "attempts": 2, "next": "2026-11-21T12:02:00Z",
    }});
    let drained = json!({"at": "2026-11-21T13:00:00Z", "hook": "switchover", "reason": "Drained", "verdict": "Succeeded", "pod": "db-9", "message": ""});
    open["holds"] = json!([{"scenario": "fence", "reason": "NotFenced", "why": "nobody has heard of node-1", "since": "2026-11-21T11:00:00Z"}]);
    world.ledger(&open, &[record("db-\u{1b}[31m9", "Failed", "no route"), drained]);
    let told = world.guardian(&["status", "db"]);
    assert_eq!((told.code, told.stderr.as_str()), (Some(0), ""));
    for words in [
        "2026-11-21T12:00:00Z db- [31m9 Crash, rejoin Failed",
        "db-9    no      primary   3          rejoin (OOMKilled): attempt 3 at 2026-11-21T12:02:00Z\ndb-10",
        "replica   0          -",
        "held: NotFenced",
        "NotFenced   2026-11-21T11:00:00Z   nobody has heard of node-1",
    ] {
        assert!(told.stdout.contains(words), "`{words}` in\n{}", told.stdout);
    }
    let document = world.json(&["status", "db", "-o", "json"]);
    let shown = &document["sets"][0];
    assert_eq!((&shown["pods"][0]["name"], &shown["pods"][0]["role"]), (&json!("db-9"), &json!("primary")));
    assert_eq!((&shown["lastFailure"]["reason"], &shown["open"]["start-1"]["attempts"]), (&json!("Crash"), &json!(2)));
    assert_eq!(shown["holds"], open["holds"]);

    world.put(
        "v1",
        "configmaps",
        "shop",
        LEDGER,
        json!({"metadata": {"labels": {"stateful-guardian.io/ledger": "true"}}, "data": {"state": "{"}}),
    );
    let problem = world.guardian(&["status", "db"]);
    assert_eq!(problem.code, Some(0));
    assert!(problem.stderr.contains("Warning: guardian-ledger-db: the ledger cannot be read"), "{}", problem.stderr);
}
