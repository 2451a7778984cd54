//! `guardian audit` on files.

#![expect(clippy::expect_used, clippy::indexing_slicing, reason = "a test ends where it fails")]

mod command;

use command::guardian;
use serde_json::{Value, json};

fn line(time: &str, fields: &Value) -> String {
    let mut line = json!({
        "log": "audit", "time": time, "uid": "u", "user": "alice", "operation": "UPDATE", "kind": "apps/v1/StatefulSet",
        "namespace": "shop", "name": "db", "dryRun": false, "decision": "allowed", "reason": "TemplateUnchanged",
        "changes": [], "warnings": [], "latencyMicros": 100,
    });
    json_patch::merge(&mut line, fields);
    line.to_string()
}

/// A denial by bob, a rewrite in another namespace, a scale-in, a policy, and what else a log holds.
fn log() -> String {
    [
        "{\"level\":\"INFO\",\"message\":\"serving admission\"}".to_owned(),
        line(
            "2027-01-01T10:00:00Z",
            &json!({"user": "bob", "decision": "denied", "reason": "DeletionDenied", "message": "not \u{1b}[31mthis"}),
        ),
        line(
            "2027-01-01T10:00:01Z",
            &json!({"namespace": "bank", "decision": "patched", "reason": "Injected", "changes": ["guardian-init"]}),
        ),
        line(
            "2027-01-01T10:00:02Z",
            &json!({"kind": "autoscaling/v1/Scale", "subresource": "scale", "reason": "NothingToGuard"}),
        ),
        line("2027-01-01T10:00:03Z", &json!({"kind": "v1/ConfigMap", "reason": "ValidPolicy", "added": "by a later version"})),
        "{\"log\":\"audit\",\"time\":\"yesterday\"}".to_owned(),
    ]
    .join("\n")
}

fn reasons(arguments: &[&str]) -> Vec<String> {
    let done = guardian(&[&["audit", "-f", "-", "-o", "json"], arguments].concat(), &log());
    assert_eq!(done.code, Some(0), "{}", done.stderr);
    let document: Value = serde_json::from_str(&done.stdout).expect("one JSON document");
    let entries = document["entries"].as_array().expect("entries").iter();
    entries.map(|entry| entry["reason"].as_str().unwrap_or_default().to_owned()).collect()
}

#[test]
fn each_filter_leaves_what_is_asked_for() {
    let cases: [(&[&str], &[&str]); 8] = [
        (&[], &["DeletionDenied", "Injected", "NothingToGuard", "ValidPolicy"]),
        (&["-n", "shop"], &["DeletionDenied", "NothingToGuard", "ValidPolicy"]),
        (&["--set", "db", "-n", "shop"], &["DeletionDenied", "NothingToGuard"]),
        (&["--user", "bob"], &["DeletionDenied"]),
        (&["--decision", "patched"], &["Injected"]),
        (&["--reason", "ValidPolicy"], &["ValidPolicy"]),
        (&["--since", "2027-01-01T10:00:02Z"], &["NothingToGuard", "ValidPolicy"]),
        (&["--since", "2027-01-01T10:00:02Z", "--set", "none"], &[]),
    ];
    for (arguments, expected) in cases {
        assert_eq!(reasons(arguments), expected, "{arguments:?}");
    }
}

#[test]
fn a_table_is_one_line_a_decision_whatever_the_words_hold_and_losses_are_told() {
    let done = guardian(&["audit", "-f", "-"], &log());
    assert_eq!(done.code, Some(0), "{}", done.stderr);
    let lines: Vec<&str> = done.stdout.lines().collect();
    assert_eq!(lines.len(), 5, "a heading and four decisions: {}", done.stdout);
    assert!(!done.stdout.contains('\u{1b}') && done.stdout.contains("\\u{1b}[31mthis"), "{}", done.stdout);
    assert!(done.stdout.contains("StatefulSet bank/db") && done.stdout.contains("changed guardian-init"), "{}", done.stdout);
    assert!(done.stderr.contains("1 audit lines could not be read"), "{}", done.stderr);
}

#[test]
fn several_files_are_merged_by_time_and_later_fields_are_kept() {
    let folder = tempfile::tempdir().expect("a folder");
    let (a, b) = (folder.path().join("a"), folder.path().join("b"));
    let at = |second: u32, name: &str| line(&format!("2027-01-01T10:00:{second:02}Z"), &json!({"name": name, "later": 1}));
    std::fs::write(&a, [at(1, "one"), at(4, "four"), at(5, "five")].join("\n")).expect("a file");
    std::fs::write(&b, [at(2, "two"), at(3, "three"), at(6, "six")].join("\n")).expect("a file");
    let done = guardian(&["audit", "-f", &a.display().to_string(), "-f", &b.display().to_string(), "-o", "json"], "");
    let document: Value = serde_json::from_str(&done.stdout).expect("one JSON document");
    let entries = document["entries"].as_array().expect("entries");
    let names: Vec<&str> = entries.iter().filter_map(|entry| entry["name"].as_str()).collect();
    assert_eq!(names, ["one", "two", "three", "four", "five", "six"]);
    assert!(entries.iter().all(|entry| entry["later"] == 1));
}

#[test]
fn wrong_usage_is_2() {
    for arguments in [&["audit", "--since", "soon"][..], &["audit", "--decision", "maybe"], &["audit", "--follow", "-o", "json"]]
    {
        assert_eq!(guardian(arguments, "").code, Some(2), "{arguments:?}");
    }
    assert_eq!(guardian(&["audit", "-f", "no-such-file"], "").code, Some(1));
}
