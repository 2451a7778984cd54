//! A rule gives a container more in place: once, whatever becomes of the controller; and what cannot be given is said, and the next action has its turn.

use std::time::Duration;

use guardian_testing::{Fault, SILENCE, Stage, Wrong, each_call};
use serde_json::{Value, json};
use tokio::time::sleep;

const POLICY: &str = "\
apiVersion: stateful-guardian.io/v1alpha1
kind: GuardianPolicy
selector: {matchLabels: {app: redis}}
metrics:
- {name: load, type: gauge, every: 5s, command: [load]}
rules:
- name: pressure
  when: {metric: load, above: 100}
  until: {below: 50}
  do: [resize, {run: throttle}]
  resize: {memory: {by: 25%, max: 96Mi}}
tasks: {throttle: {command: [throttle]}}
";

fn memory(limit: &str) -> Value {
    json!({"limits": {"memory": limit}, "requests": {"memory": limit}})
}

/// Two pods that may take 64 MiB each, of which the second has too much to do.
async fn pressed(stage: &Stage) {
    stage.runner.measures("redis-0", "load", "10");
    stage.runner.measures("redis-1", "load", "500");
    stage.enable();
    stage.apply_policy(POLICY);
    stage.apply_set(2);
    [0, 1].into_iter().for_each(|ordinal| stage.allot(ordinal, &memory("64Mi")));
}

async fn asked(stage: &Stage, limit: &str) {
    stage.until("more is asked for", |s| s.allotted(1).0 == memory(limit)).await;
}

/// Verdict and words of what was told of the rule, oldest first.
fn told(stage: &Stage) -> Vec<String> {
    let word = |record: &Value, name: &str| record[name].as_str().unwrap_or_default().to_owned();
    let told = stage.history().into_iter().filter(|record| record["reason"] == "Rule");
    told.map(|record| format!("{} {}", word(&record, "verdict"), word(&record, "message"))).collect()
}

fn says(stage: &Stage, words: &str) -> bool {
    told(stage).iter().any(|told| told.contains(words))
}

/// The whole life of a resize.
async fn resized(stage: &Stage) {
    pressed(stage).await;
    asked(stage, "80Mi").await;
    sleep(Duration::from_secs(3)).await;
    stage.give(1);
    stage
        .until("it has succeeded", |s| says(s, "Succeeded rule pressure: memory of container redis from 64Mi to 80Mi, in place"))
        .await;
    stage.runner.measures("redis-1", "load", "10");
    stage.until("the rule is over", |s| s.state().get("rules").is_none()).await;
    stage.until_settled().await;
    assert_eq!(stage.allotted(1), (memory("80Mi"), 1), "once, and it stays");
    assert_eq!(stage.allotted(0), (memory("64Mi"), 0), "the other is left alone");
    assert_eq!(stage.hooks(), Vec::<String>::new(), "no further action");
}

#[tokio::test(start_paused = true)]
async fn a_container_gets_more_in_place_and_keeps_it_when_the_rule_is_over() {
    let stage = Stage::new();
    stage.play(1, resized(&stage)).await;
    let words = [
        "Noted rule pressure sets in: load is 500.0",
        "Succeeded rule pressure: memory",
        "Noted rule pressure is over: load is 10.0",
    ];
    let told = told(&stage);
    assert_eq!(told.len(), words.len(), "{told:#?}");
    for (told, words) in told.iter().zip(words) {
        assert!(told.starts_with(words), "{words}: {told}");
    }
    let event = stage.events().into_iter().find(|event| event.contains("from 64Mi to 80Mi"));
    assert!(event.is_some_and(|event| event.starts_with("Normal Pod Rule: ")), "{:#?}", stage.events());
}

#[tokio::test(start_paused = true)]
async fn several_controllers_resize_once() {
    for leaders in [2, 3] {
        let stage = Stage::new();
        stage.play(leaders, resized(&stage)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_controller_killed_or_cut_off_at_any_call_resizes_once() {
    let ends = async |stage: &Stage, wrong: Wrong<'_>| {
        sleep(SILENCE).await;
        assert_eq!(stage.allotted(1), (memory("80Mi"), 1), "{wrong}: {:#?}", stage.history());
        let succeeded = told(stage).iter().filter(|told| told.starts_with("Succeeded")).count();
        assert_eq!(succeeded, 1, "{wrong}: {:#?}", stage.history());
        let calls = stage.api.calls();
        assert!(calls.iter().any(|call| call.kind == "PATCH pods"), "{calls:#?}");
    };
    each_call(&[Fault::CrashBefore, Fault::CrashAfter, Fault::AnswerLost], async |stage| resized(stage).await, ends).await;
}

#[tokio::test(start_paused = true)]
async fn what_a_node_cannot_give_at_all_is_said_and_the_next_action_has_its_turn() {
    let stage = Stage::new();
    let script = async {
        pressed(&stage).await;
        asked(&stage, "80Mi").await;
        let began = stage.time();
        stage.refuse_to_give(1, "Infeasible", "Node didn't have enough capacity: memory");
        stage.until("the next action", |s| s.hooks() == ["tasks.throttle redis-1"]).await;
        assert!(stage.time().duration_since(began).as_secs() < 60, "it is not waited for");
        assert!(
            says(&stage, "its node cannot give it: Infeasible: Node didn't have enough capacity: memory"),
            "{:#?}",
            told(&stage)
        );
    };
    stage.play(1, script).await;
}

#[tokio::test(start_paused = true)]
async fn what_a_kubelet_has_said_of_an_earlier_change_is_no_answer() {
    let stage = Stage::new();
    let script = async {
        pressed(&stage).await;
        stage.refuse_to_give(1, "Infeasible", "an earlier one");
        asked(&stage, "80Mi").await;
        sleep(Duration::from_secs(60)).await;
        assert_eq!(told(&stage).len(), 1, "{:#?}", told(&stage));
        stage.give(1);
        stage.until("it has succeeded", |s| says(s, "Succeeded")).await;
    };
    stage.play(1, script).await;
}

#[tokio::test(start_paused = true)]
async fn what_a_node_has_no_room_for_is_waited_for_to_the_bound_and_then_the_next_action_has_its_turn() {
    for comes in [true, false] {
        let stage = Stage::new();
        let script = async {
            pressed(&stage).await;
            asked(&stage, "80Mi").await;
            stage.refuse_to_give(1, "Deferred", "Node didn't have enough resource: memory");
            sleep(Duration::from_secs(100)).await;
            assert_eq!(told(&stage).len(), 1, "{:#?}", told(&stage));
            if comes {
                stage.give(1);
                stage.until("it has succeeded", |s| says(s, "Succeeded")).await;
            } else {
                stage.until("the next action", |s| s.hooks() == ["tasks.throttle redis-1"]).await;
                assert!(
                    says(&stage, "no room for it for 120 s: Deferred: Node didn't have enough resource"),
                    "{:#?}",
                    told(&stage)
                );
            }
            assert_eq!(stage.allotted(1), (memory("80Mi"), 1));
        };
        stage.play(1, script).await;
    }
}

#[tokio::test(start_paused = true)]
async fn each_time_that_the_rule_sets_in_gives_more_up_to_the_max_and_then_it_is_of_no_use() {
    let stage = Stage::new();
    let script = async {
        pressed(&stage).await;
        for limit in ["80Mi", "96Mi"] {
            stage.runner.measures("redis-1", "load", "500");
            asked(&stage, limit).await;
            stage.give(1);
            stage.runner.measures("redis-1", "load", "10");
            stage.until("it is over", |s| s.state()["rules"].is_null() && s.is_settled()).await;
        }
        stage.runner.measures("redis-1", "load", "500");
        stage.until("the next action", |s| s.hooks() == ["tasks.throttle redis-1"]).await;
        assert!(says(&stage, "Skipped rule pressure goes on: action 1: of no use: memory is at 96Mi, and its max is 96Mi"));
        assert_eq!(stage.allotted(1).1, 2);
    };
    stage.play(1, script).await;
}

#[tokio::test(start_paused = true)]
async fn an_api_server_that_does_not_know_it_or_does_not_allow_it_is_asked_once() {
    for known in [true, false] {
        let stage = Stage::new();
        let script = async {
            if known {
                stage.api.forbid("pods/resize");
            } else {
                stage.api.fail_next("PATCH pods", Fault::Status(404));
            }
            pressed(&stage).await;
            stage.until("the next action", |s| s.hooks() == ["tasks.throttle redis-1"]).await;
            let words = if known { "pods/resize is forbidden" } else { "as the test asked for (404)" };
            assert!(says(&stage, &format!("the API server refuses it: {words}")), "{:#?}", told(&stage));
            sleep(Duration::from_secs(120)).await;
            assert_eq!(stage.api.calls().iter().filter(|call| call.kind == "PATCH pods").count(), 1);
            assert_eq!(stage.allotted(1).1, 0);
        };
        stage.play(1, script).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_is_made_anew_meanwhile_is_not_resized_by_what_was_asked_for_the_one_before() {
    let stage = Stage::new();
    let script = async {
        // Whatever the first says, the API server does not hear it.
        stage.api.fail_next("PATCH pods", Fault::Cut);
        pressed(&stage).await;
        stage.until("it is claimed", |s| s.state()["episodes"].as_object().is_some_and(|all| !all.is_empty())).await;
        stage.runner.measures("redis-1", "load", "10");
        stage.vanish(1);
        stage.new_pod(1, "r1");
        stage.allot(1, &memory("64Mi"));
        stage.until_settled().await;
        sleep(Duration::from_secs(60)).await;
        assert_eq!(stage.allotted(1), (memory("64Mi"), 0));
        assert!(says(&stage, "Superseded rule pressure: the pod goes"), "{:#?}", told(&stage));
    };
    stage.play(1, script).await;
}
