//! Nodes that are lost, and pods that fail again and again.

use super::{What, asked, failing, played, runs, told};
use crate::rehearse::{Asked, Fails, Report};

const FENCED: &str = "hooks: {rejoin: {command: [rejoin]}, fence: {command: [fence]}}\n";

pub(super) const CAUSE: &str = "\
hooks: {rejoin: {command: [rejoin]}}
rules: [{name: flaps, when: {cause: [Crash, OOMKilled], times: 3, within: 10m}, do: [recreate]}]
";

/// Words of the holds, as they begin and end.
fn holds(report: &Report) -> Vec<String> {
    let lines = report.lines.iter().filter(|line| matches!(line.what, What::Hold | What::Released));
    lines.filter_map(|line| Some(format!("{:?} {}", line.what, line.reason.clone()?))).collect()
}

#[test]
fn the_pod_of_a_lost_node_is_replaced_once_it_is_fenced_and_else_with_its_node() {
    let fenced = played(FENCED, &asked("node-lost"));
    assert_eq!(runs(&fenced), ["385 fence db-0 NodeLost", "387.5 rejoin db-2 NodeLost"]);
    assert!(fenced.is_quiet() && holds(&fenced).is_empty(), "{fenced:#?}");

    let unfenced = played(FENCED, &failing("node-lost", &[("fence", Fails::Always)]));
    assert_eq!(runs(&unfenced), ["385 fence db-0 NodeLost", "602 rejoin db-2 NodeLost"]);
    let without = played("hooks: {rejoin: {command: [rejoin]}}\n", &asked("node-lost"));
    assert_eq!(runs(&without), ["602 rejoin db-2 NodeLost"]);
    for report in [unfenced, without] {
        assert_eq!(holds(&report), ["Hold NotFenced", "Released NotFenced"]);
        assert!(report.is_quiet(), "{report:#?}");
    }
}

#[test]
fn nodes_that_come_back_are_told_from_crashes() {
    let report = played("hooks: {rejoin: {command: [rejoin]}}\n", &asked("zone-outage"));
    assert_eq!(runs(&report), ["120 rejoin db-1 NodeRebooted", "120 rejoin db-2 NodeRebooted"]);
}

#[test]
fn a_rule_by_cause_sets_in_when_a_pod_has_failed_as_often_as_it_says() {
    let times = |times| played(CAUSE, &Asked { times: Some(times), ..asked("crash") });
    let evicted = |report: &Report| {
        told(report, &[What::Cluster]).iter().filter(|line| line.contains("evict")).cloned().collect::<Vec<_>>()
    };
    assert_eq!(evicted(&times(2)), [""; 0]);
    assert_eq!(evicted(&times(3)), ["121.5 db-2 its eviction is granted"]);
    let liveness = played(CAUSE, &Asked { times: Some(3), ..asked("liveness") });
    assert_eq!((evicted(&liveness).len(), liveness.is_quiet()), (0, true), "another cause");
}
