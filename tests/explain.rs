//! `guardian explain` on files.

#![expect(clippy::expect_used, reason = "a test ends where it fails")]

mod command;

use command::guardian;
use serde_json::Value;

#[test]
fn each_field_is_told_with_its_reason_and_as_a_diff() {
    let told = guardian(&["explain", "-f", "examples/redis", "-o", "text"], "");
    assert_eq!(told.code, Some(0), "{}", told.stderr);
    for words in [
        "StatefulSet redis-sts: policy redis-policy, revision ",
        "spec.template.spec.terminationGracePeriodSeconds: nothing -> 40\n      hooks.preStop.timeout: includes preStop: 30 s for the hook",
        "spec.template.spec.priorityClassName: nothing -> \"stateful-critical\"\n      protect.priorityClassName: ",
        "spec.template.spec.initContainers[guardian-init-hook]: nothing -> {name: guardian-init-hook, ...}",
        "+++ redis-sts as it would be",
        "+      terminationGracePeriodSeconds: 40",
    ] {
        assert!(told.stdout.contains(words), "{words}: {}", told.stdout);
    }
    assert!(!told.stdout.contains('\u{1b}'), "no colours where there is no terminal");
}

#[test]
fn where_there_is_no_terminal_it_is_json_whose_changes_make_what_inject_prints() {
    let told = guardian(&["explain", "-f", "examples/redis"], "");
    let told: Value = serde_json::from_str(&told.stdout).expect("JSON");
    let set = told.pointer("/sets/0").expect("one set");
    assert_eq!(set["state"], "Unguarded");
    assert_eq!(set["appliesAt"], "creation");
    let patch = guardian(&["inject", "-f", "examples/redis", "-o", "patch"], "");
    let patch: Value = serde_json::from_str(&patch.stdout).expect("JSON");
    // Parents that are made for a member are not told; every other operation is.
    let operations =
        patch.as_array().expect("operations").iter().filter(|op| op["value"].as_object().is_none_or(|v| !v.is_empty()));
    let items = operations.map(|op| op["value"].as_array().map_or(1, Vec::len)).sum::<usize>();
    assert_eq!(set["changes"].as_array().expect("changes").len(), items, "{set:#}");
}

#[test]
fn a_policy_that_cannot_be_applied_is_told_and_so_are_files_without_a_set() {
    let set = "apiVersion: apps/v1\nkind: StatefulSet\nmetadata: {name: s, labels: {app: redis}}\nspec: {template: {spec: {containers: [{name: web}]}}}\n";
    let told = guardian(&["explain", "-f", "-", "--policy", "examples/redis/policy.yaml", "-o", "yaml"], set);
    assert_eq!(told.code, Some(0), "{}", told.stderr);
    assert!(told.stdout.contains("state: NotApplicable") && told.stdout.contains("the container redis"), "{}", told.stdout);
    let none = guardian(&["explain", "-f", "examples/redis/policy.yaml"], "");
    assert_eq!(none.code, Some(1));
    assert!(none.stderr.contains("no StatefulSet"), "{}", none.stderr);
    assert_eq!(guardian(&["explain"], "").code, Some(2));
    assert_eq!(guardian(&["explain", "-f", "examples/redis", "redis-sts"], "").code, Some(2));
}
