//! A drain moves the role first: the controller's part of it, played straight, with faults, and killed at every call.

use std::time::Duration;

use guardian_testing::{Answer, Fault, Stage, sweep};
use tokio::time::sleep;

const POLICY: &str = "\
apiVersion: stateful-guardian.io/v1alpha1
kind: GuardianPolicy
selector: {matchLabels: {app: redis}}
role: {command: [role], every: 5s, timeout: 2s}
hooks:
  switchover: {command: [move], target: \"role:primary\", timeout: 20s}
";

/// A primary and a replica, labelled; then the webhook keeps an eviction of the primary waiting.
async fn asked(stage: &Stage) {
    stage.runner.prints("redis-0", "primary 1");
    stage.runner.prints("redis-1", "replica");
    stage.usual(POLICY);
    stage.until("the labels are there", |s| s.roles() == ["primary", "replica"]).await;
    stage.until_settled().await;
    stage.hand_over(0);
}

/// The hook has moved the role.
async fn moved(stage: &Stage) {
    asked(stage).await;
    stage.until("the hook runs", |s| !s.runner.started().is_empty()).await;
    stage.runner.prints("redis-0", "replica");
    stage.runner.prints("redis-1", "primary 2");
    stage.until("it has moved", |s| s.roles() == ["replica", "primary"] && !s.told().is_empty()).await;
    stage.until_settled().await;
}

#[tokio::test(start_paused = true)]
async fn the_role_is_moved_once_and_the_lease_goes() {
    let stage = Stage::new();
    let script = async {
        moved(&stage).await;
        stage.until("the Lease is gone", |s| s.hand_overs() == 0).await;
        stage.assert_silence().await;
    };
    stage.play(1, script).await;
    let started = stage.runner.started();
    let [order] = &started[..] else { panic!("{started:?}") };
    let told = |name: &str| order.request.env.get(name).cloned().unwrap_or_default();
    assert_eq!((order.pod.as_str(), order.request.hook.as_str(), order.request.timeout_ms), ("redis-0", "switchover", 20_000));
    assert_eq!((told("GUARDIAN_REASON").as_str(), told("GUARDIAN_ROLE").as_str()), ("Drained", "primary"));
    assert_eq!(told("GUARDIAN_READY_PEERS"), "redis-1.redis.shop.svc");
    assert_eq!(stage.told(), ["Drained Succeeded 1"]);
}

/// The label follows the hook at once, not at the next interval: a drain asks again every few seconds.
#[tokio::test(start_paused = true)]
async fn the_label_follows_the_hook_at_once() {
    let stage = Stage::new();
    let script = async {
        asked(&stage).await;
        stage.until("the hook runs", |s| !s.runner.started().is_empty()).await;
        stage.runner.prints("redis-0", "replica");
        stage.until("it has ended", |s| !s.told().is_empty()).await;
        sleep(Duration::from_millis(500)).await;
        assert_eq!(stage.roles(), ["replica", "replica"]);
        assert_eq!(stage.hand_overs(), 1, "it is not known to have moved");
    };
    stage.play(1, script).await;
}

#[tokio::test(start_paused = true)]
async fn a_hook_that_fails_is_recorded_and_left_to_the_end_of_the_wait() {
    let stage = Stage::new();
    stage.runner.answer([Answer::exit(1)]);
    let script = async {
        asked(&stage).await;
        stage.until("it is recorded", |s| !s.told().is_empty()).await;
        stage.until_settled().await;
        stage.assert_silence().await;
        assert_eq!(stage.hand_overs(), 1, "its time counts");
    };
    stage.play(1, script).await;
    assert_eq!(stage.told(), ["Drained Failed 1"]);
    assert_eq!(stage.runner.started().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_set_on_hold_hands_nothing_over() {
    let stage = Stage::new();
    let script = async {
        stage.runner.prints("redis-0", "primary");
        stage.runner.prints("redis-1", "replica");
        stage.usual(POLICY);
        stage.until("the labels are there", |s| s.roles() == ["primary", "replica"]).await;
        stage.until_settled().await;
        stage.annotate_set("stateful-guardian.io/hold", Some("on call"));
        stage.until("it is said", |s| !s.events().is_empty()).await;
        stage.hand_over(0);
        stage.assert_silence().await;
    };
    stage.play(1, script).await;
    assert!(stage.runner.started().is_empty());
}

#[tokio::test(start_paused = true)]
async fn several_controllers_start_the_hook_once() {
    for leaders in [2, 3] {
        let stage = Stage::new();
        let script = async {
            moved(&stage).await;
            // The others hear of the role by their own questions.
            sleep(Duration::from_secs(10)).await;
            stage.assert_silence().await;
        };
        stage.play(leaders, script).await;
        assert_eq!((stage.runner.started().len(), stage.told().len()), (1, 1), "{leaders}: {:?}", stage.told());
    }
}

/// The story of a sweep: it ends when a call whose answer was lost was made again.
async fn swept(stage: &Stage) {
    moved(stage).await;
    sleep(Duration::from_secs(10)).await;
}

#[tokio::test(start_paused = true)]
async fn a_controller_killed_at_any_call_of_a_hand_over_starts_the_hook_once() {
    sweep(&[Fault::CrashBefore, Fault::CrashAfter], swept, &["Drained Succeeded 1"]).await;
}

#[tokio::test(start_paused = true)]
async fn whatever_call_of_a_hand_over_goes_wrong_the_hook_is_started_once() {
    let faults = [Fault::Status(409), Fault::Status(500), Fault::Cut, Fault::AnswerLost];
    sweep(&faults, swept, &["Drained Succeeded 1"]).await;
}
