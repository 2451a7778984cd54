//! Rules: what is measured sets them in, their actions are taken once and undone, whatever becomes of the controller.

use std::time::Duration;

use guardian_core::sim::Resource;
use guardian_hook::protocol::Usage;
use guardian_testing::{Answer, Fault, SILENCE, Stage, Wrong, each_call};
use tokio::time::sleep;

const POLICY: &str = "\
apiVersion: stateful-guardian.io/v1alpha1
kind: GuardianPolicy
selector: {matchLabels: {app: redis}}
traffic: {services: [clients]}
metrics:
- {name: clients, type: gauge, every: 5s, command: [clients]}
rules:
- name: crowded
  when: {metric: clients, above: 100, for: 10s}
  until: {below: 50, for: 20s}
  do: [shed, {run: throttle}]
  undo: [{run: unthrottle}]
tasks:
  throttle: {command: [throttle]}
  unthrottle: {command: [unthrottle]}
";
const MEMORY: &str = "\
apiVersion: stateful-guardian.io/v1alpha1
kind: GuardianPolicy
selector: {matchLabels: {app: redis}}
rules:
- {name: pressure, when: {usage: memory, above: 85%}, do: [{run: throttle}]}
tasks: {throttle: {command: [throttle]}}
";

/// Two pods that serve, with ten clients each.
async fn serving(stage: &Stage, policy: &str) {
    for pod in ["redis-0", "redis-1"] {
        stage.runner.measures(pod, "clients", "10");
    }
    stage.serving_set(policy).await;
}

fn tasks(stage: &Stage) -> Vec<String> {
    stage.hooks().into_iter().filter(|hook| hook.starts_with("tasks.")).collect()
}

/// The whole life of a rule.
async fn crowded(stage: &Stage) {
    serving(stage, POLICY).await;
    stage.runner.measures("redis-1", "clients", "500");
    stage.until("it is shed", |s| s.serving() == ["true", "false"]).await;
    stage.until("the next action has its turn", |s| tasks(s) == ["tasks.throttle redis-1"] && s.is_settled()).await;
    stage.runner.measures("redis-1", "clients", "5");
    stage.until("it is undone", |s| s.serving() == ["true", "true"] && s.state().get("rules").is_none()).await;
    stage.until_settled().await;
    sleep(Duration::from_secs(120)).await;
    assert_eq!(tasks(stage), ["tasks.throttle redis-1", "tasks.unthrottle redis-1"]);
}

#[tokio::test(start_paused = true)]
async fn a_rule_sheds_then_throttles_and_undoes_both() {
    let stage = Stage::new();
    stage.play(1, crowded(&stage)).await;
    let told = stage.events();
    for words in ["sets in: clients is 500.0", "Services send nothing new", "is over: clients is 5.0"] {
        let noted = stage.history().iter().any(|record| record.to_string().contains(words));
        assert!(noted, "{words}: {told:#?}");
    }
}

#[tokio::test(start_paused = true)]
async fn several_controllers_take_each_action_once() {
    for leaders in [2, 3] {
        let stage = Stage::new();
        stage.play(leaders, crowded(&stage)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_controller_killed_at_any_call_takes_each_action_once_and_undoes_it() {
    let straight = Stage::new();
    straight.play(1, crowded(&straight)).await;
    let calls = straight.api.calls();
    // Asking for a metric happens hundreds of times, and writes nothing.
    let acts = calls.iter().enumerate().filter(|(_, call)| !matches!(call.kind.as_str(), "COLLECT" | "PUT leases"));
    for (number, call) in acts {
        let stage = Stage::new();
        let script = async {
            crowded(&stage).await;
            assert_eq!(tasks(&stage).len(), 2, "killed after call {number}, {call:?}");
        };
        stage.play_crashed(number, Fault::CrashAfter, script).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_rule_on_what_a_container_uses_needs_no_metric_and_without_a_limit_does_nothing() {
    let stage = Stage::new();
    let script = async {
        stage.usual(MEMORY);
        stage.runner.uses(Usage { memory_bytes: Some(900), ..Usage::default() });
        sleep(Duration::from_secs(120)).await;
        assert!(tasks(&stage).is_empty(), "there is no limit of which it could be 85 %");
        stage.runner.uses(Usage {
            memory_bytes: Some(900),
            reclaimable_bytes: Some(100),
            memory_limit_bytes: Some(1000),
            ..Usage::default()
        });
        sleep(Duration::from_secs(120)).await;
        assert!(tasks(&stage).is_empty(), "what the kernel takes back does not count");
        stage.runner.uses(Usage { memory_bytes: Some(900), memory_limit_bytes: Some(1000), ..Usage::default() });
        stage.until("both are throttled", |s| tasks(s) == ["tasks.throttle redis-0", "tasks.throttle redis-1"]).await;
    };
    stage.play(1, script).await;
}

const CRASHES: &str = "\
apiVersion: stateful-guardian.io/v1alpha1
kind: GuardianPolicy
selector: {matchLabels: {app: redis}}
rules:
- name: crash-loop
  when: {cause: [Crash], times: 2, within: 10m}
  do: [recreate]
";

/// A pod crashes twice, is made anew by the rule, and the next one lives.
async fn made_anew(stage: &Stage) {
    stage.usual(CRASHES);
    stage.until_settled().await;
    sleep(Duration::from_secs(10)).await;
    for _ in 0..2 {
        stage.restart_container(1, "Error", 1);
        sleep(Duration::from_secs(30)).await;
    }
    stage.let_evicted_pod_go(1).await;
    stage.new_pod(1, "r1");
    stage.until_settled().await;
    sleep(Duration::from_secs(60)).await;
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_crashes_again_and_again_is_made_anew_once_whatever_call_goes_wrong() {
    let ends = async |stage: &Stage, wrong: Wrong<'_>| {
        sleep(SILENCE).await;
        let pod = stage.api.world(|world| {
            world.list(&Resource::new("v1", "pods"), "shop").all(|pod| pod["metadata"]["deletionTimestamp"].is_null())
        });
        assert!(pod, "{wrong}: the next one is left alone: {:#?}", stage.history());
        let calls = stage.api.calls();
        assert!(calls.iter().any(|call| call.kind == "POST pods"), "{calls:#?}");
    };
    each_call(&[Fault::CrashBefore, Fault::CrashAfter], async |stage| made_anew(stage).await, ends).await;
}

/// A rule that throttles, when this.
fn throttles(metric: &str, when: &str) -> String {
    format!(
        "apiVersion: stateful-guardian.io/v1alpha1\nkind: GuardianPolicy\nselector: {{matchLabels: {{app: redis}}}}\nmetrics: [{metric}]\n\
         rules: [{{name: r, when: {when}, do: [{{run: throttle}}], undo: [{{run: unthrottle}}]}}]\n\
         tasks: {{throttle: {{command: [throttle]}}, unthrottle: {{command: [unthrottle]}}}}\n"
    )
}

#[tokio::test(start_paused = true)]
async fn a_counter_that_grows_too_fast_is_acted_on_and_one_that_is_only_large_is_not() {
    let stage = Stage::new();
    let script = async {
        let metric = "{name: errors_total, type: counter, every: 5s, command: [errors]}";
        stage.usual(&throttles(metric, "{metric: errors_total, rate: 60s, above: 1}"));
        for _ in 0..20 {
            stage.runner.measures("redis-0", "errors_total", "1000000");
            stage.runner.measures("redis-1", "errors_total", "0");
            sleep(Duration::from_secs(5)).await;
        }
        assert_eq!(tasks(&stage), [""; 0]);
        for count in 1..30 {
            stage.runner.measures("redis-1", "errors_total", &(count * 20).to_string());
            sleep(Duration::from_secs(5)).await;
        }
        assert_eq!(tasks(&stage), ["tasks.throttle redis-1"]);
        sleep(Duration::from_secs(120)).await;
        assert_eq!(tasks(&stage), ["tasks.throttle redis-1", "tasks.unthrottle redis-1"], "it grows no more");
    };
    stage.play(1, script).await;
}

#[tokio::test(start_paused = true)]
async fn a_metric_without_a_value_is_acted_on_and_one_that_nobody_could_ask_for_is_not() {
    let stage = Stage::new();
    let script = async {
        let metric = "{name: clients, type: gauge, every: 5s, command: [clients]}";
        for pod in ["redis-0", "redis-1"] {
            stage.runner.measures(pod, "clients", "3");
        }
        stage.usual(&throttles(metric, "{metric: clients, absent: true, for: 30s}"));
        sleep(Duration::from_secs(20)).await;
        // The API server lets nobody in for two minutes.
        for _ in 0..48 {
            stage.api.fail_next("COLLECT", Fault::Cut);
        }
        sleep(Duration::from_secs(120)).await;
        assert_eq!(tasks(&stage), [""; 0]);
        stage.runner.measures_like("redis-1", "clients", Answer::exit(1));
        sleep(Duration::from_secs(25)).await;
        assert_eq!(tasks(&stage), [""; 0], "not before its time");
        sleep(Duration::from_secs(20)).await;
        assert_eq!(tasks(&stage), ["tasks.throttle redis-1"]);
        stage.runner.measures("redis-1", "clients", "3");
        sleep(Duration::from_secs(20)).await;
        assert_eq!(tasks(&stage), ["tasks.throttle redis-1", "tasks.unthrottle redis-1"]);
    };
    stage.play(1, script).await;
}
