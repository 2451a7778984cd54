//! `guardian rehearse` on files, and what its page shows.

#![expect(clippy::expect_used, reason = "a test ends where it fails")]

mod command;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use command::guardian;
use serde_json::Value;

const SET: &str = "examples/redis/statefulset.yaml";
const FAILOVER: &str = "examples/redis-failover/policy.yaml";

fn page(path: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).expect("a page")
}

/// The commands that the page shows with all that they print.
fn shown(page: &str) -> Vec<(String, String)> {
    let blocks = page.split("```console\n$ guardian rehearse").skip(1).filter_map(|rest| rest.split("```").next());
    blocks.filter_map(|block| block.split_once('\n')).map(|(command, output)| (command.to_owned(), output.to_owned())).collect()
}

#[test]
fn the_page_shows_what_its_commands_print() {
    let commands = shown(&page("docs/rehearse.md"));
    assert!(commands.len() >= 3, "{} commands", commands.len());
    for (arguments, expected) in commands {
        let arguments: Vec<&str> = ["rehearse"].into_iter().chain(arguments.split_whitespace()).collect();
        let done = guardian(&arguments, "");
        assert_eq!(done.stdout, expected, "`{}` prints something else than the page shows", arguments.join(" "));
        let left = expected.contains("this is left:");
        assert_eq!((done.code, done.stderr.as_str()), (Some(if left { 3 } else { 0 }), ""), "{}", arguments.join(" "));
    }
}

#[test]
fn the_page_names_every_scenario() {
    let page = page("docs/rehearse.md");
    let rows: BTreeSet<&str> = page.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next()).collect();
    for (name, ..) in guardian_core::rehearse::Scenario::NAMED {
        assert!(rows.contains(name), "{name} has no row: {rows:?}");
    }
    assert!(rows.contains("rule:NAME"));
}

#[test]
fn json_and_yaml_are_one_document_whose_keys_are_documented() {
    let arguments = ["rehearse", "-f", "examples/redis", "--scenario", "crash", "--fail", "rejoin"];
    let json = guardian(&[&arguments[..], &["-o", "json"]].concat(), "");
    assert_eq!(json.code, Some(3), "{}", json.stderr);
    let json: Value = serde_json::from_str(&json.stdout).expect("JSON");
    let yaml = guardian(&[&arguments[..], &["-o", "yaml"]].concat(), "");
    let yaml: Value = serde_saphyr::from_str(&yaml.stdout).expect("YAML");
    assert_eq!(yaml, json);

    assert_eq!((&json["quiet"], &json["ended"], &json["quorumKept"]), (&false.into(), &"quiet".into(), &true.into()));
    assert_eq!(json["failed"][0]["pod"], "redis-sts-1");
    let lines = json["lines"].as_array().expect("lines");
    let starts: Vec<&Value> = lines.iter().filter(|line| line["what"] == "run").map(|line| &line["atMs"]).collect();
    assert_eq!(starts, [1000, 3500, 8000, 16500], "with the doubled pauses of the policy's backoff");

    let operations = page("docs/operations.md");
    let row = operations.lines().find(|line| line.starts_with("| `rehearse` |")).expect("a row");
    let documented: BTreeSet<&str> = row.split('`').skip(1).step_by(2).map(|word| word.trim_end_matches("[]")).collect();
    let held = guardian(
        &["rehearse", "-f", SET, "--policy", FAILOVER, "--scenario", "drain", "--pod", "0", "--pod", "1", "-o", "json"],
        "",
    );
    let held: Value = serde_json::from_str(&held.stdout).expect("JSON");
    for document in [&json, &held] {
        for key in keys(document) {
            assert!(documented.contains(key), "{key} is not documented");
        }
    }
}

/// The keys of a document and of all that is in it.
fn keys(value: &Value) -> BTreeSet<&str> {
    match value {
        Value::Object(members) => members.iter().flat_map(|(key, value)| keys(value).into_iter().chain([key.as_str()])).collect(),
        Value::Array(items) => items.iter().flat_map(keys).collect(),
        _ => BTreeSet::new(),
    }
}

#[test]
fn what_is_asked_for_wrongly_is_2_and_what_the_manifests_do_not_hold_is_1() {
    let other = "apiVersion: apps/v1\nkind: StatefulSet\nmetadata: {name: other, labels: {app: other}}\nspec: {template: {spec: {containers: [{name: a}]}}}\n";
    let two = format!("{}\n---\n{other}", page(SET));
    let policy = ["--policy", "examples/redis/policy.yaml"];
    let cases: &[(&[&str], &str, i32, &str)] = &[
        (&["-f", "-", "--scenario", "crahs"], &two, 2, "did you mean crash?"),
        (&["-f", "-", "--scenario", "crash"], &two, 2, "several StatefulSets among the manifests: say which, redis-sts or other"),
        (&["-f", "-", "--scenario", "crash", "db"], &two, 2, "no StatefulSet db among the manifests: there is redis-sts, other"),
        (&["-f", "-", "--scenario", "crash", "--pod", "2", "redis-sts"], &two, 2, "StatefulSet redis-sts has no pod 2"),
        (&["-f", "-", "--scenario", "crash", "--fail", "rejoin=often", "redis-sts"], &two, 2, "such as rejoin or rejoin=2"),
        (&["-f", "-", "--scenario", "crash", "--hook-time", "rejoin=soon", "redis-sts"], &two, 2, "such as rejoin=10s"),
        (&["-f", "-", "--scenario", "crash", "--role", "primary", "redis-sts"], &two, 2, "such as primary=0"),
        (&["-f", "-"], &two, 2, "--scenario"),
        (
            &["-f", "-", "--scenario", "crash", "other"],
            &two,
            1,
            "no policy guards StatefulSet other: compare its labels with the selector of redis-policy",
        ),
        (&["-f", "-", "--scenario", "crash"], "kind: Service\n", 1, "no StatefulSet of apps/v1 among the manifests"),
        (&["-f", "no-such-file.yaml", "--scenario", "crash"], "", 1, "no-such-file.yaml: cannot be read"),
    ];
    for (arguments, input, code, words) in cases {
        let done = guardian(&[&["rehearse"], *arguments, &policy].concat(), input);
        assert_eq!(done.code, Some(*code), "{arguments:?}: {}", done.stderr);
        assert!(done.stderr.contains(words) && done.stdout.is_empty(), "{arguments:?}: {}", done.stderr);
    }
    let one = guardian(&[&["rehearse", "-f", "-", "--scenario", "crash", "redis-sts"], &policy[..]].concat(), &two);
    assert_eq!(one.code, Some(0), "{}", one.stderr);
}

#[test]
fn a_policy_that_cannot_be_applied_to_the_set_is_told_with_its_reason() {
    let set = "apiVersion: apps/v1\nkind: StatefulSet\nmetadata: {name: s, labels: {app: redis}}\nspec: {template: {spec: {containers: [{name: web}]}}}\n";
    let done = guardian(&["rehearse", "-f", "-", "--policy", FAILOVER, "--scenario", "crash"], set);
    assert_eq!(done.code, Some(1), "{}", done.stdout);
    assert!(
        done.stderr.contains("no policy guards StatefulSet s: ") && done.stderr.contains("the container redis"),
        "{}",
        done.stderr
    );
}

#[test]
fn there_are_no_colours_where_there_is_no_terminal() {
    let done = guardian(&["rehearse", "-f", "examples/redis", "--scenario", "first-start"], "");
    assert!(done.code == Some(0) && !done.stdout.contains('\u{1b}'), "{}", done.stdout);
}
