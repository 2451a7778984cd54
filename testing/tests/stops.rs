//! Pods that stop are told why, once, and only those whose preStop asks.

use guardian_core::names;
use guardian_testing::{Fault, Stage};

const ASKS: &str = "\
apiVersion: stateful-guardian.io/v1alpha1
kind: GuardianPolicy
selector: {matchLabels: {app: redis}}
hooks: {preStop: {command: [sh, -c, 'echo $GUARDIAN_REASON']}}
";

/// A set of two at rest, then something happens to it.
async fn at_rest(policy: &str, happens: impl AsyncFnOnce(&Stage)) -> Stage {
    let stage = Stage::new();
    let script = async {
        stage.usual(policy);
        stage.change_set(2, "r1");
        stage.until_settled().await;
        happens(&stage).await;
        stage.assert_silence().await;
    };
    stage.play(1, script).await;
    stage
}

async fn stopped(stage: &Stage, disruption: Option<&str>) {
    stage.stop_pod(1, disruption);
    stage.until("somebody is told", |stage| stage.api.calls().iter().any(|call| call.kind == "TELL")).await;
}

#[tokio::test(start_paused = true)]
async fn the_reason_is_what_kubernetes_recorded_of_the_pod_or_of_its_set() {
    for (disruption, replicas, revision, expected) in [
        (None, 2, "r1", "redis-1 Delete"),
        (Some("EvictionByEvictionAPI"), 2, "r1", "redis-1 Drain"),
        (Some("PreemptionByScheduler"), 2, "r1", "redis-1 Preemption"),
        (None, 1, "r1", "redis-1 ScaleIn"),
        (None, 2, "r2", "redis-1 Update"),
    ] {
        let happens = async |stage: &Stage| {
            stage.change_set(replicas, revision);
            stopped(stage, disruption).await;
        };
        let stage = at_rest(ASKS, happens).await;
        assert_eq!(stage.runner.stops(), [expected]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_pod_is_told_once_and_with_whom_it_is() {
    let happens = async |stage: &Stage| {
        stopped(stage, None).await;
        stage.stop_container(1, "Completed", 0);
        stage.stop_container(1, "Completed", 0);
    };
    let stage = at_rest(ASKS, happens).await;
    let notices = stage.runner.notices();
    assert_eq!(notices.len(), 1, "{notices:?}");
    let env = &notices[0].reason.env;
    assert_eq!(env.get("GUARDIAN_READY_PEERS").map(String::as_str), Some("redis-0.redis.shop.svc"));
    assert_eq!(env.get("GUARDIAN_REPLICAS").map(String::as_str), Some("2"));
}

#[tokio::test(start_paused = true)]
async fn a_pod_of_a_set_on_hold_is_told_so() {
    for on_hold in [true, false] {
        let happens = async |stage: &Stage| {
            if on_hold {
                stage.annotate_set(names::HOLD, Some("an incident"));
                stage.until("it is said", |stage| stage.events().iter().any(|event| event.contains("OnHold"))).await;
            }
            stopped(stage, None).await;
        };
        let notices = at_rest(ASKS, happens).await.runner.notices();
        assert_eq!(notices.iter().map(|notice| notice.reason.on_hold).collect::<Vec<_>>(), [on_hold]);
    }
}

#[tokio::test(start_paused = true)]
async fn the_last_pod_of_a_set_that_is_scaled_to_nothing_is_told() {
    let happens = async |stage: &Stage| {
        stage.vanish(0);
        stage.change_set(0, "r1");
        stopped(stage, None).await;
    };
    let stage = at_rest(ASKS, happens).await;
    assert_eq!(stage.runner.stops(), ["redis-1 ScaleIn"]);
}

#[tokio::test(start_paused = true)]
async fn nobody_is_told_who_does_not_ask_or_whose_policy_is_not_in_force() {
    let quiet = ASKS.replace("GUARDIAN_REASON", "HOSTNAME");
    for (policy, revoked) in [(quiet.as_str(), false), (ASKS, true)] {
        let happens = async |stage: &Stage| {
            if revoked {
                stage.revoke_approvals();
                stage.until("it is said", |stage| stage.events().iter().any(|event| event.contains("PolicyNotApproved"))).await;
            }
            stage.stop_pod(1, None);
        };
        let stage = at_rest(policy, happens).await;
        assert!(!stage.api.calls().iter().any(|call| call.kind == "TELL"), "{policy}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_cannot_be_told_is_left_to_itself() {
    let happens = async |stage: &Stage| {
        stage.api.fail_next("TELL", Fault::Cut);
        stopped(stage, None).await;
    };
    let stage = at_rest(ASKS, happens).await;
    assert!(stage.runner.stops().is_empty());
    assert_eq!(stage.api.calls().iter().filter(|call| call.kind == "TELL").count(), 1);
}
