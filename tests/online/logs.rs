//! `guardian audit` over the logs of replicas.

use std::io::{BufRead as _, BufReader};
use std::process::Stdio;

use serde_json::{Value, json};

use super::World;

#[test]
fn audit_merges_the_logs_of_all_replicas() {
    let world = World::new();
    let line = |second: u32, user: &str, decision: &str| {
        json!({
            "log": "audit", "time": format!("2027-01-01T10:00:{second:02}Z"), "user": user, "operation": "DELETE",
            "kind": "apps/v1/StatefulSet", "namespace": "shop", "name": "db", "decision": decision, "reason": "DeletionDenied",
        })
    };
    let log = |lines: &[Value]| lines.iter().map(|line| format!("{line}\n")).collect::<String>();
    let logs =
        [log(&[line(1, "bob", "denied"), line(4, "bob", "denied")]), log(&[line(2, "amy", "denied"), line(3, "bob", "allowed")])];
    for (n, log) in logs.iter().enumerate() {
        let pod = json!({"metadata": {"labels": {"app.kubernetes.io/name": "guardian-webhook"}}, "log": log});
        world.put("v1", "pods", "stateful-guardian", &format!("guardian-webhook-{n}"), pod);
    }
    assert_eq!(seconds(&world.json(&["audit", "-o", "json"])), ["01", "02", "03", "04"]);
    assert_eq!(seconds(&world.json(&["audit", "--user", "bob", "--decision", "denied", "-o", "json"])), ["01", "04"]);
    let nobody = world.guardian(&["audit", "--installation", "elsewhere"]);
    assert!(nobody.code == Some(1) && nobody.stderr.contains("no webhook runs in the namespace elsewhere"), "{}", nobody.stderr);
}

#[test]
fn audit_reads_what_a_restarted_replica_had_written_before_only_when_asked() {
    let world = World::new();
    let pod = |n: u32, previous: Option<String>, log: String| {
        let mut pod = json!({"metadata": {"labels": {"app.kubernetes.io/name": "guardian-webhook"}}, "log": log});
        previous.into_iter().for_each(|previous| pod["previousLog"] = json!(previous));
        world.put("v1", "pods", "stateful-guardian", &format!("guardian-webhook-{n}"), pod);
    };
    pod(0, Some(decision(1) + &decision(3)), decision(5));
    // This one never restarted: that is no error.
    pod(1, None, decision(2) + &decision(4));
    assert_eq!(seconds(&world.json(&["audit", "-o", "json"])), ["02", "04", "05"]);
    assert_eq!(seconds(&world.json(&["audit", "--previous", "-o", "json"])), ["01", "02", "03", "04", "05"]);
}

#[test]
fn audit_follows_every_replica_as_it_decides() {
    let world = World::new();
    let put = |n: u32, log: String| {
        let pod = json!({"metadata": {"labels": {"app.kubernetes.io/name": "guardian-webhook"}}, "log": log});
        world.put("v1", "pods", "stateful-guardian", &format!("guardian-webhook-{n}"), pod);
    };
    put(0, decision(1));
    put(1, String::new());
    let mut child = world.command(&["audit", "--follow"]).stdout(Stdio::piped()).spawn().expect("the binary runs");
    let mut lines = BufReader::new(child.stdout.take().expect("a pipe")).lines().map(|line| line.expect("UTF-8"));
    let mut next = || lines.next().unwrap_or_default();
    assert!(next().starts_with("TIME"), "the headings");
    assert!(next().contains(":01Z"), "what is there already");
    // Each is written only once the one before has been read: nothing waits for what comes later.
    put(1, decision(2));
    assert!(next().contains(":02Z"), "from the other replica");
    put(0, decision(1) + &decision(3));
    assert!(next().contains(":03Z"), "and from the first again");
    child.kill().expect("it still follows");
    child.wait().expect("it ends");
    let usage = world.guardian(&["audit", "--follow", "-o", "json"]);
    assert!(usage.code == Some(2) && usage.stderr.contains("--follow never ends"), "{}", usage.stderr);
}

/// An audit line.
fn decision(second: u32) -> String {
    let line = json!({
        "log": "audit", "time": format!("2027-01-01T10:00:{second:02}Z"), "user": "bob", "operation": "DELETE",
        "kind": "apps/v1/StatefulSet", "namespace": "shop", "name": "db", "decision": "denied", "reason": "DeletionDenied",
    });
    format!("{line}\n")
}

fn seconds(document: &Value) -> Vec<String> {
    let entries = document["entries"].as_array().expect("entries").iter();
    entries.map(|entry| entry["time"].as_str().unwrap_or_default().get(17..19).unwrap_or_default().to_owned()).collect()
}
