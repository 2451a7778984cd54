//! What the owner of a set has asked for by hand: the controller's part of it, when he is there and when he is gone.

use std::time::Duration;

use guardian_hook::protocol::RunResult;
use guardian_testing::{Answer, Fault, Stage, sweep};
use tokio::time::sleep;

const POLICY: &str = "\
apiVersion: stateful-guardian.io/v1alpha1
kind: GuardianPolicy
selector: {matchLabels: {app: redis}}
hooks:
  rejoin: {command: [rejoin], timeout: 30s, retries: 2, backoff: 5s}
tasks:
  nightly: {command: [backup], timeout: 1m, retries: 3}
";

/// A set at rest.
async fn at_rest(stage: &Stage) {
    stage.usual(POLICY);
    stage.until_settled().await;
}

/// Somebody has started a task, and is gone; its end is recorded.
async fn left(stage: &Stage) {
    at_rest(stage).await;
    let order = stage.claim_command(1);
    stage.start_and_leave(&order).await;
    stage.until("its end is recorded", |s| !s.told().is_empty()).await;
    stage.until_settled().await;
}

fn execs(stage: &Stage) -> usize {
    stage.api.calls().iter().filter(|call| call.kind == "EXEC").count()
}

#[tokio::test(start_paused = true)]
async fn a_command_whose_caller_is_gone_is_started_once_and_closed_with_its_end() {
    let stage = Stage::new();
    let script = async {
        left(&stage).await;
        stage.assert_silence().await;
    };
    stage.play(1, script).await;
    assert_eq!(stage.hooks(), ["tasks.nightly redis-1"]);
    assert_eq!(stage.told(), ["Requested Succeeded 1"]);
    let message = "asked for by alice: tasks.nightly succeeded after 2.0 s";
    assert!(stage.history().iter().any(|record| record["message"] == message), "{:#?}", stage.history());
    assert_eq!(
        stage.events(),
        [format!("Normal Pod Requested: {message}"), format!("Normal StatefulSet Requested: redis-1: {message}")]
    );
}

#[tokio::test(start_paused = true)]
async fn a_failure_is_closed_as_it_is_and_not_tried_again() {
    let stage = Stage::new();
    stage.runner.answer([Answer { takes: Duration::from_secs(3600), result: RunResult::Exited { code: 0 } }]);
    let script = async {
        left(&stage).await;
        stage.assert_silence().await;
    };
    stage.play(1, script).await;
    assert_eq!((stage.hooks().len(), stage.told()), (1, vec!["Requested Failed 1".to_owned()]));
    assert!(stage.history().iter().any(|record| record.to_string().contains("killed at its time out, after 60.0 s")));
}

#[tokio::test(start_paused = true)]
async fn a_command_that_its_caller_never_started_is_never_started() {
    let stage = Stage::new();
    let script = async {
        at_rest(&stage).await;
        let order = stage.claim_command(1);
        stage.until("it is recorded", |s| !s.told().is_empty()).await;
        stage.until_settled().await;
        // He comes back and does not know that it is over.
        let late = stage.runner.run(&order).await.expect("an outcome");
        assert!(matches!(late.result, RunResult::NotFound { .. }), "{late:?}");
        stage.assert_silence().await;
    };
    stage.play(1, script).await;
    assert_eq!((stage.hooks(), stage.told()), (Vec::new(), vec!["Requested Failed 1".to_owned()]));
    assert!(stage.history().iter().any(|record| record.to_string().contains("was never started")), "{:#?}", stage.history());
}

#[tokio::test(start_paused = true)]
async fn a_caller_who_is_there_is_left_alone() {
    let stage = Stage::new();
    let script = async {
        at_rest(&stage).await;
        let order = stage.claim_command(0);
        stage.start_and_close(&order).await;
        sleep(Duration::from_secs(60)).await;
        stage.assert_silence().await;
    };
    stage.play(1, script).await;
    assert_eq!((execs(&stage), stage.hooks()), (0, vec!["tasks.nightly redis-0".to_owned()]));
}

#[tokio::test(start_paused = true)]
async fn while_it_runs_its_pod_is_left_alone_and_the_others_are_not() {
    let stage = Stage::new();
    stage.runner.answer([Answer { takes: Duration::from_secs(50), result: RunResult::Exited { code: 0 } }]);
    let script = async {
        at_rest(&stage).await;
        let order = stage.claim_command(0);
        stage.start_and_leave(&order).await;
        stage.restart_container(1, "Error", 1);
        stage.until("the other has rejoined", |s| s.told() == ["Crash Succeeded 1"]).await;
        stage.until_settled().await;
    };
    stage.play(1, script).await;
    assert_eq!(stage.hooks(), ["tasks.nightly redis-0", "rejoin redis-1"]);
    assert_eq!(stage.told(), ["Crash Succeeded 1", "Requested Succeeded 1"]);
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_is_replaced_ends_its_command_and_its_next_start_is_answered() {
    let stage = Stage::new();
    stage.runner.answer([Answer { takes: Duration::from_secs(50), result: RunResult::Exited { code: 0 } }]);
    let script = async {
        at_rest(&stage).await;
        let order = stage.claim_command(0);
        stage.start_and_leave(&order).await;
        stage.restart_container(0, "OOMKilled", 137);
        stage.until_settled().await;
        stage.assert_silence().await;
    };
    stage.play(1, script).await;
    assert_eq!(stage.hooks(), ["tasks.nightly redis-0", "rejoin redis-0"]);
    assert_eq!(stage.told(), ["Requested Superseded 1", "OOMKilled Succeeded 1"]);
}

#[tokio::test(start_paused = true)]
async fn several_controllers_record_the_end_once() {
    for leaders in [2, 3] {
        let stage = Stage::new();
        let script = async {
            left(&stage).await;
            stage.assert_silence().await;
        };
        stage.play(leaders, script).await;
        assert_eq!((stage.hooks().len(), stage.told()), (1, vec!["Requested Succeeded 1".to_owned()]));
    }
}

#[tokio::test(start_paused = true)]
async fn a_controller_killed_at_any_call_closes_it_once() {
    sweep(&[Fault::CrashBefore, Fault::CrashAfter], left, &["Requested Succeeded 1"]).await;
}

#[tokio::test(start_paused = true)]
async fn whatever_call_goes_wrong_it_is_closed_once() {
    let faults = [Fault::Status(409), Fault::Status(500), Fault::Cut, Fault::AnswerLost];
    sweep(&faults, left, &["Requested Succeeded 1"]).await;
}
