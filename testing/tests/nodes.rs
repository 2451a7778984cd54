//! Nodes that fall silent, and nodes that come back: the controller's part of it, played straight, with faults, and killed at every call.

use std::time::Duration;

use guardian_testing::{Answer, Fault, SILENCE, Stage, Wrong, each_call};
use tokio::time::sleep;

const FENCED: &str = "\
apiVersion: stateful-guardian.io/v1alpha1
kind: GuardianPolicy
selector: {matchLabels: {app: redis}}
hooks:
  rejoin: {command: [rejoin], timeout: 30s, retries: 2, backoff: 5s}
  fence: {command: [fence], timeout: 20s}
";

/// Three pods on three nodes, all at rest, of which the first is lost.
async fn lost(stage: &Stage, policy: &str) {
    stage.enable();
    stage.apply_policy(policy);
    stage.apply_set(3);
    stage.spread(3);
    stage.until_settled().await;
    stage.lose_node(0);
}

/// The lost pod is fenced and goes, and the set makes another.
async fn replaced(stage: &Stage) {
    lost(stage, FENCED).await;
    stage.until("the lost pod is gone", |s| !s.has_pod(0)).await;
    stage.new_pod(0, "r1");
    stage.until_settled().await;
    sleep(Duration::from_secs(30)).await;
}

#[tokio::test(start_paused = true)]
async fn a_pod_of_a_lost_node_goes_once_it_is_fenced_and_the_next_one_is_told_why() {
    let stage = Stage::new();
    let script = async {
        replaced(&stage).await;
        stage.assert_silence().await;
    };
    stage.play(1, script).await;
    assert_eq!(stage.hooks(), ["fence redis-1", "rejoin redis-0"]);
    let started = stage.runner.started();
    let told = |n: usize, name: &str| started[n].request.env.get(name).cloned().unwrap_or_default();
    assert_eq!((told(0, "GUARDIAN_ABOUT"), told(0, "GUARDIAN_NODE")), ("redis-0".to_owned(), "node-0".to_owned()));
    assert_eq!((told(0, "GUARDIAN_REASON"), told(1, "GUARDIAN_REASON")), ("NodeLost".to_owned(), "NodeLost".to_owned()));
    assert_eq!(stage.told(), ["NodeLost Succeeded 1", "NodeLost Succeeded null", "NodeLost Succeeded 1"]);
    assert_eq!(stage.holds(), Vec::<String>::new());
}

#[tokio::test(start_paused = true)]
async fn without_proof_the_pod_stays_however_long_it_takes_and_its_hold_says_why() {
    let policies = [FENCED.replace("  fence: {command: [fence], timeout: 20s}\n", ""), FENCED.to_owned()];
    for policy in policies {
        let stage = Stage::new();
        stage.runner.answer(vec![Answer::exit(1); 40]);
        let script = async {
            lost(&stage, &policy).await;
            sleep(Duration::from_secs(2 * 3600)).await;
            assert!(stage.has_pod(0), "nobody has proven anything");
            let holds = stage.holds();
            assert!(
                matches!(&holds[..], [hold] if hold.starts_with("NotFenced: pod redis-0 should have stopped by ")),
                "{holds:?}"
            );
        };
        stage.play(1, script).await;
        let events = stage.events();
        assert_eq!(events.iter().filter(|e| e.contains("NotFenced")).count(), 1, "it is said once: {events:#?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_controller_killed_at_any_call_fences_once_and_deletes_no_other_pod() {
    let ends = async |stage: &Stage, wrong: Wrong<'_>| {
        stage.assert_silence_for(SILENCE).await;
        assert_eq!(stage.hooks(), ["fence redis-1", "rejoin redis-0"], "{wrong}: {:#?}", stage.history());
    };
    let faults = [Fault::CrashBefore, Fault::CrashAfter, Fault::Status(409), Fault::Cut, Fault::AnswerLost];
    each_call(&faults, async |stage| replaced(stage).await, ends).await;
}

#[tokio::test(start_paused = true)]
async fn several_controllers_fence_once() {
    for leaders in [2, 3] {
        let stage = Stage::new();
        stage.play(leaders, replaced(&stage)).await;
        assert_eq!(stage.hooks(), ["fence redis-1", "rejoin redis-0"], "{leaders}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_came_back_with_its_node_is_told_so() {
    let stage = Stage::new();
    let script = async {
        stage.enable();
        stage.apply_policy(FENCED);
        stage.apply_set(2);
        stage.spread(2);
        stage.until_settled().await;
        // Answered with the boot of its node.
        stage.restart_container(0, "Error", 1);
        stage.until("it has rejoined", |s| s.hooks().len() == 1).await;
        stage.until_settled().await;
        stage.reboot_node(0);
        stage.until("it has rejoined again", |s| s.hooks().len() == 2).await;
        stage.until_settled().await;
        stage.assert_silence().await;
    };
    stage.play(1, script).await;
    assert_eq!(stage.told(), ["Crash Succeeded 1", "NodeRebooted Succeeded 1"]);
}

#[tokio::test(start_paused = true)]
async fn a_container_that_its_probe_has_ended_is_told_from_one_that_crashed() {
    let stage = Stage::new();
    let script = async {
        stage.usual(FENCED);
        stage.until_settled().await;
        for n in 1..=3 {
            sleep(Duration::from_secs(60)).await;
            if n == 2 {
                stage.restart_container(0, "Error", 137);
            } else {
                stage.fail_liveness(0);
            }
            stage.until("it has rejoined", |s| s.hooks().len() == n).await;
            stage.until_settled().await;
        }
        stage.assert_silence().await;
    };
    stage.play(1, script).await;
    assert_eq!(stage.told(), ["LivenessFailed Succeeded 1", "Crash Succeeded 1", "LivenessFailed Succeeded 1"]);
}

/// A courtesy of the API server's: where Events cannot be read, everything else goes on.
#[tokio::test(start_paused = true)]
async fn where_events_cannot_be_read_it_counts_as_a_crash() {
    let stage = Stage::new();
    let script = async {
        stage.usual(FENCED);
        stage.until_settled().await;
        stage.api.forbid("events");
        stage.fail_liveness(0);
        stage.until("it has rejoined", |s| s.hooks().len() == 1).await;
        stage.until_settled().await;
    };
    stage.play(1, script).await;
    assert_eq!(stage.told(), ["Crash Succeeded 1"]);
}
