//! Services send to the pods that serve, and a pod is shed for a time: played straight, with faults, and killed at every call.

use std::time::Duration;

use guardian_testing::{Fault, SILENCE, Stage, Wrong, each_call};
use serde_json::json;
use tokio::time::sleep;

const POLICY: &str = "\
apiVersion: stateful-guardian.io/v1alpha1
kind: GuardianPolicy
selector: {matchLabels: {app: redis}}
traffic: {services: [clients]}
hooks: {rejoin: {command: [rejoin]}}
";
const DRAINS: &str = "\
apiVersion: stateful-guardian.io/v1alpha1
kind: GuardianPolicy
selector: {matchLabels: {app: redis}}
traffic: {services: [clients], drain: {command: [kick], timeout: 5s}}
hooks: {rejoin: {command: [rejoin]}}
";
const WITHOUT: &str = "\
apiVersion: stateful-guardian.io/v1alpha1
kind: GuardianPolicy
selector: {matchLabels: {app: redis}}
hooks: {rejoin: {command: [rejoin]}}
";

#[tokio::test(start_paused = true)]
async fn a_service_asks_for_the_label_once_all_pods_have_it_and_as_long_as_they_do() {
    let stage = Stage::new();
    let script = async {
        stage.usual(POLICY);
        stage.endpoints("clients", &[0, 1], None);
        stage.apply_service("clients", &json!({}));
        stage.until("it is said", |s| s.events().iter().any(|event| event.contains("NotSelected"))).await;
        stage.label_template(true);
        stage.vanish(1);
        stage.new_pod(1, "r2");
        stage.until_settled().await;
        stage.assert_silence().await;
        assert!(!stage.asks("clients"), "one pod has it not");
        stage.vanish(0);
        stage.new_pod(0, "r2");
        stage.endpoints("clients", &[0, 1], None);
        stage.until("all have it", |s| s.asks("clients")).await;
        stage.until_settled().await;
        stage.assert_silence().await;

        // As a server-side apply does: the whole selector is replaced.
        stage.select("clients", &json!({"app": "redis"}));
        stage.until("it is back", |s| s.asks("clients")).await;
        // A rollback to the older template.
        stage.label_template(false);
        stage.until("it is gone before any pod is lost", |s| !s.asks("clients")).await;
        stage.label_template(true);
        stage.until("it is back", |s| s.asks("clients")).await;
        stage.apply_policy(WITHOUT);
        stage.until("nobody names it", |s| !s.asks("clients")).await;
        stage.assert_silence().await;
    };
    stage.play(1, script).await;
}

#[tokio::test(start_paused = true)]
async fn a_service_that_sends_elsewhere_too_or_names_pods_is_left_alone_and_that_is_said() {
    let cases = [
        (json!({}), Some("10.0.9.9"), "it also sends to 10.0.9.9"),
        (json!({"clusterIP": "None"}), None, "headless"),
        (json!({"publishNotReadyAddresses": true}), None, "not ready"),
        (json!({"selector": {"app": "other"}}), None, "no Service clients selects pods of the set"),
    ];
    for (spec, stranger, words) in cases {
        let stage = Stage::new();
        let script = async {
            stage.enable();
            stage.apply_policy(POLICY);
            stage.apply_set(0);
            stage.label_template(true);
            stage.change_set(2, "r1");
            [0, 1].into_iter().for_each(|ordinal| stage.new_pod(ordinal, "r1"));
            stage.endpoints("clients", &[0, 1], stranger);
            stage.apply_service("clients", &spec);
            stage.until(words, |s| s.events().iter().any(|event| event.contains(words))).await;
            sleep(Duration::from_secs(300)).await;
            assert!(!stage.asks("clients"), "{words}");
        };
        stage.play(1, script).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_pod_is_shed_for_its_time_drained_once_and_serves_again() {
    let stage = Stage::new();
    let script = async {
        stage.serving_set(DRAINS).await;
        stage.ask_shed(1, Some(300));
        stage.until("it is shed", |s| s.serving() == ["true", "false"]).await;
        stage.until("it is drained", |s| s.hooks() == ["drain redis-1"] && s.is_settled()).await;
        stage.ask_shed(0, Some(300));
        stage.until("the last one is not", |s| s.events().iter().any(|event| event.contains("no other pod serves"))).await;
        stage.ask_shed(0, None);
        sleep(Duration::from_secs(200)).await;
        assert_eq!(stage.serving(), ["true", "false"]);
        stage.until("it serves again", |s| s.serving() == ["true", "true"]).await;
        stage.until_settled().await;
        stage.assert_silence().await;
    };
    stage.play(1, script).await;
    assert_eq!(stage.hooks(), ["drain redis-1"]);
}

async fn swept(stage: &Stage) {
    stage.serving_set(DRAINS).await;
    stage.ask_shed(1, Some(60));
    stage.until("it is shed", |s| s.serving() == ["true", "false"]).await;
    stage.until("it is drained", |s| s.hooks().len() == 1 && s.is_settled()).await;
    stage.until("it serves again", |s| s.serving() == ["true", "true"] && s.state().get("sheds").is_none()).await;
    stage.until_settled().await;
    sleep(Duration::from_secs(90)).await;
}

#[tokio::test(start_paused = true)]
async fn a_controller_killed_at_any_call_of_a_shed_ends_it_and_drains_once() {
    let ends = async |stage: &Stage, wrong: Wrong<'_>| {
        stage.assert_silence_for(SILENCE).await;
        let context = || format!("{wrong}: {:#?}", stage.history());
        assert_eq!(stage.hooks(), ["drain redis-1"], "{}", context());
        let told = ["Requested Succeeded null", "Requested Succeeded 1", "Requested Succeeded null"];
        assert_eq!(stage.told(), told, "{}", context());
    };
    each_call(&[Fault::CrashBefore, Fault::CrashAfter], swept, ends).await;
}
