//! A rule that gives a container more in place.

use serde_json::{Value, json};

use super::{What, asked, played_with, runs, set, told};

const PRESSURE: &str = "\
rules: [{name: pressure, when: {usage: memory, above: 85%}, do: [resize, {run: throttle}], resize: {memory: {max: 1Gi}}}]
tasks: {throttle: {command: [throttle]}}
";

/// A set of which each container may take so much memory.
fn limited(memory: &str) -> Value {
    set(&json!({"spec": {"template": {"spec": {"containers": [{"name": "db", "resources": {"limits": {"memory": memory}}}]}}}}))
}

#[test]
fn a_resize_succeeds_at_once_and_where_it_is_of_no_use_that_is_shown() {
    let report = played_with(&limited("512Mi"), PRESSURE, &asked("rule:pressure"), &[]).unwrap();
    assert_eq!(runs(&report), ["0 resize db-2 Rule", "30 tasks.throttle db-2 Rule"]);
    let shown = told(&report, &[What::Cluster, What::Record]);
    let resized = [
        "0 db-2 container db may use 640Mi of memory now",
        "0 db-2 resize Succeeded (Rule): rule pressure: memory of container db from 512Mi to 640Mi, in place",
    ];
    assert!(shown.windows(2).any(|lines| lines == resized), "{shown:#?}");
    assert!(report.is_quiet(), "{report:#?}");
    assert!(report.assumptions.iter().any(|line| line.starts_with("a node has room")), "{:#?}", report.assumptions);

    for (memory, why) in [("1Gi", "memory is at 1Gi, and its max is 1Gi"), ("none", "the container has no limit of memory")] {
        let report = played_with(&limited(memory), PRESSURE, &asked("rule:pressure"), &[]).unwrap();
        assert_eq!(runs(&report), ["30 tasks.throttle db-2 Rule"], "{memory}");
        let skipped = format!("rule Skipped (Rule): rule pressure goes on: action 1: of no use: {why}");
        assert!(told(&report, &[What::Record]).iter().any(|line| line.ends_with(&skipped)), "{:#?}", report.lines);
    }
}
