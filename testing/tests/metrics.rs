//! Metrics: what the commands of a policy print is served, whatever else they do, and whatever becomes of the pods and the controller.

use std::time::Duration;

use guardian_hook::protocol::{RunResult, Usage};
use guardian_testing::{Answer, Fault, Round, Stage};
use tokio::time::{Instant, sleep};

const HEAD: &str = "\
apiVersion: stateful-guardian.io/v1alpha1
kind: GuardianPolicy
selector: {matchLabels: {app: redis}}
";
const CLIENTS: &str = "- {name: clients, type: gauge, help: Clients, every: 15s, command: [clients]}\n";
const KEYS: &str = "- {name: keys, type: gauge, every: 15s, timeout: 5s, command: [keys], labels: [db]}\n";
const ROLE: &str = "role: {command: [role], every: 5s, timeout: 2s}\n";

fn policy(parts: &[&str]) -> String {
    format!("{HEAD}{}", parts.concat())
}

/// The values of a metric, as `POD{LABELS} VALUE`, in order.
fn values(stage: &Stage, metric: &str) -> Vec<String> {
    let text = stage.metrics();
    let start = format!("{metric}{{namespace=\"shop\",set=\"redis\",");
    let of = text.lines().filter_map(|line| line.strip_prefix(&start));
    of.map(|rest| rest.replace("pod=", "").replace(['"', '}'], "").replace(',', " ")).collect()
}

async fn seconds(seconds: u64) {
    sleep(Duration::from_secs(seconds)).await;
}

/// The names in the rounds that came to a pod since then.
fn rounds(stage: &Stage, pod: &str, since: Instant) -> Vec<String> {
    let of = |round: &Round| round.pod == pod && round.at >= since;
    stage.runner.rounds().iter().filter(|round| of(round)).map(|round| round.names.join(" ")).collect()
}

#[tokio::test(start_paused = true)]
async fn a_metric_that_is_added_to_the_policy_is_asked_for_within_an_interval_and_served() {
    let stage = Stage::new();
    let script = async {
        stage.runner.measures("redis-0", "clients", "3\n");
        stage.runner.measures("redis-1", "clients", "4\n");
        stage.runner.measures("redis-0", "keys", "db0 7\ndb1 8\n");
        stage.usual(&policy(&["metrics:\n", CLIENTS]));
        seconds(2).await;
        assert_eq!(values(&stage, "clients"), ["redis-0 3", "redis-1 4"]);
        seconds(20).await;
        stage.apply_policy(&policy(&["metrics:\n", CLIENTS, KEYS]));
        seconds(15).await;
        assert_eq!(values(&stage, "keys"), ["redis-0 db=db0 7", "redis-0 db=db1 8"]);
        assert_eq!(
            values(&stage, "guardian_metric_up"),
            ["redis-0 metric=clients 1", "redis-0 metric=keys 1", "redis-1 metric=clients 1", "redis-1 metric=keys 1"]
        );
        // It is taken out again, and gone at once.
        stage.apply_policy(&policy(&["metrics:\n", CLIENTS]));
        seconds(1).await;
        assert_eq!(values(&stage, "keys"), [""; 0]);
        stage.assert_silence().await;
        assert_eq!(values(&stage, "clients").len(), 2, "it is measured half an hour later");
    };
    stage.play(1, script).await;
    assert_eq!(stage.events(), [""; 0]);
    assert!(stage.runner.started().is_empty(), "no pod was touched");
}

#[tokio::test(start_paused = true)]
async fn all_that_is_due_in_a_pod_goes_there_in_one_exec() {
    let stage = Stage::new();
    let script = async {
        stage.runner.prints("redis-0", "primary");
        stage.runner.measures("redis-0", "clients", "3");
        stage.usual(&policy(&[ROLE, "metrics:\n", CLIENTS, KEYS]));
        seconds(1).await;
        let since = Instant::now();
        seconds(30).await;
        let both = "role metrics.clients metrics.keys";
        assert_eq!(rounds(&stage, "redis-0", since), ["role", "role", both, "role", "role", both]);
    };
    stage.play(1, script).await;
}

#[tokio::test(start_paused = true)]
async fn a_bad_command_harms_no_other_and_no_role() {
    let names = ["hangs", "floods", "nan", "binary", "fails", "killed"];
    let metrics: String =
        names.map(|name| format!("- {{name: {name}, type: gauge, every: 15s, timeout: 12s, command: [a]}}\n")).concat();
    let stage = Stage::new();
    let script = async {
        for pod in ["redis-0", "redis-1"] {
            stage.runner.prints(pod, "replica");
            stage.runner.measures(pod, "clients", "3");
            let hangs = Answer { takes: Duration::from_secs(3600), result: RunResult::Exited { code: 0 } };
            stage.runner.measures_like(pod, "hangs", hangs);
            stage.runner.measures(pod, "floods", &"1234567\n".repeat(100_000));
            stage.runner.measures(pod, "nan", "NaN\n");
            stage.runner.measures(pod, "binary", "\u{fffd}\0\u{1}");
            stage.runner.measures_like(pod, "fails", Answer::exit(1));
            let killed = Answer { takes: Duration::from_millis(10), result: RunResult::Signaled { signal: 9 } };
            stage.runner.measures_like(pod, "killed", killed);
        }
        stage.usual(&policy(&[ROLE, "metrics:\n", &metrics, CLIENTS]));
        seconds(2).await;
        assert_eq!(stage.roles(), ["replica", "replica"], "the role comes before all that hangs");
        seconds(60).await;
        stage.runner.prints("redis-1", "primary");
        seconds(6).await;
        assert_eq!(stage.roles(), ["replica", "primary"], "and is asked for at its time");
        assert_eq!(values(&stage, "clients"), ["redis-0 3", "redis-1 3"]);
        seconds(600).await;
        assert_eq!(values(&stage, "clients"), ["redis-0 3", "redis-1 3"]);
        for (name, end) in names.iter().zip(["timed_out", "malformed", "malformed", "malformed", "exit", "signal"]) {
            assert_eq!(values(&stage, name), [""; 0], "{name}");
            let up = values(&stage, "guardian_metric_up");
            assert!(up.contains(&format!("redis-0 metric={name} 0")), "{name}: {up:?}");
            let runs = values(&stage, "guardian_metric_runs_total");
            let start = format!("metric={name} result=");
            let ends: Vec<&str> = runs.iter().filter_map(|line| line.strip_prefix(&start)).collect();
            assert!(ends.len() == 1 && ends[0].starts_with(end), "{name}: {ends:?}");
        }
    };
    stage.play(1, script).await;
}

#[tokio::test(start_paused = true)]
async fn a_value_that_is_not_refreshed_is_served_for_three_intervals() {
    let stage = Stage::new();
    let script = async {
        stage.runner.measures("redis-0", "clients", "3");
        stage.usual(&policy(&["metrics:\n", CLIENTS]));
        seconds(16).await;
        // It was asked at 0 and 15 s; its container is gone then, and so is whoever could be asked.
        stage.stop_container(0, "Error", 1);
        seconds(43).await;
        assert_eq!(values(&stage, "clients"), ["redis-0 3"]);
        seconds(3).await;
        assert_eq!(values(&stage, "clients"), [""; 0]);
        assert!(values(&stage, "guardian_metric_up").contains(&"redis-0 metric=clients 0".to_owned()));
        stage.start_container(0);
        seconds(1).await;
        assert_eq!(values(&stage, "clients"), ["redis-0 3"], "asked at once");
        stage.vanish(0);
        seconds(1).await;
        assert_eq!(values(&stage, "clients"), [""; 0], "a pod that is gone");
        assert_eq!(values(&stage, "guardian_metric_up").len(), 1);
    };
    stage.play(1, script).await;
}

#[tokio::test(start_paused = true)]
async fn a_metric_of_one_role_follows_the_role() {
    const LAG: &str = "- {name: lag, type: gauge, every: 15s, command: [lag], on: \"role:replica\"}\n";
    let stage = Stage::new();
    let script = async {
        for (pod, role, lag) in [("redis-0", "primary", "1"), ("redis-1", "replica", "2")] {
            stage.runner.prints(pod, role);
            stage.runner.measures(pod, "lag", lag);
        }
        stage.usual(&policy(&[ROLE, "metrics:\n", LAG]));
        seconds(3).await;
        assert_eq!(values(&stage, "lag"), ["redis-1 2"]);
        stage.runner.prints("redis-0", "replica");
        stage.runner.prints("redis-1", "primary");
        seconds(8).await;
        assert_eq!(stage.roles(), ["replica", "primary"]);
        assert_eq!(values(&stage, "lag"), ["redis-0 1"]);
        assert_eq!(values(&stage, "guardian_metric_up"), ["redis-0 metric=lag 1"]);
    };
    stage.play(1, script).await;
}

#[tokio::test(start_paused = true)]
async fn an_edit_that_is_not_approved_changes_nothing_and_the_old_metrics_go_on() {
    let stage = Stage::new();
    let script = async {
        stage.runner.measures("redis-0", "clients", "3");
        stage.runner.measures("redis-0", "keys", "db0 7");
        stage.usual(&policy(&["metrics:\n", CLIENTS]));
        seconds(2).await;
        stage.sneak_policy(&policy(&["metrics:\n", KEYS]));
        let since = Instant::now();
        seconds(120).await;
        assert_eq!(values(&stage, "clients"), ["redis-0 3"]);
        assert_eq!(values(&stage, "keys"), [""; 0]);
        assert!(rounds(&stage, "redis-0", since).iter().all(|names| names == "metrics.clients"));
        stage.approve_policy(&policy(&["metrics:\n", KEYS]));
        seconds(15).await;
        assert_eq!((values(&stage, "clients").len(), values(&stage, "keys").len()), (0, 1));
    };
    stage.play(1, script).await;
}

#[tokio::test(start_paused = true)]
async fn a_controller_that_is_killed_leaves_its_series_to_the_next() {
    let stage = Stage::new();
    let script = async {
        stage.runner.measures("redis-0", "clients", "3");
        stage.usual(&policy(&["metrics:\n", CLIENTS]));
        seconds(2).await;
        assert_eq!(values(&stage, "clients"), ["redis-0 3"]);
        stage.runner.measures("redis-0", "clients", "4");
        stage.api.fail_next("COLLECT", Fault::CrashBefore);
        let died = |s: &Stage| s.api.calls().iter().any(|call| call.process == "controller-0-1" && call.kind == "COLLECT");
        stage.until("another has begun to ask", died).await;
        seconds(1).await;
        assert_eq!(values(&stage, "clients"), ["redis-0 4"]);
    };
    stage.play(1, script).await;
}

#[tokio::test(start_paused = true)]
async fn nobody_measures_on_hold_and_without_a_right_and_that_is_told() {
    let stage = Stage::new();
    let script = async {
        stage.runner.measures("redis-0", "clients", "3");
        stage.usual(&policy(&["metrics:\n", CLIENTS]));
        seconds(2).await;
        stage.annotate_set("stateful-guardian.io/hold", Some("on call"));
        seconds(1).await;
        assert_eq!(stage.metrics(), "");
        let since = Instant::now();
        seconds(120).await;
        assert_eq!(rounds(&stage, "redis-0", since), [""; 0]);
        for _ in 0..2 {
            stage.api.fail_next("COLLECT", Fault::Status(403));
        }
        stage.annotate_set("stateful-guardian.io/hold", None);
        seconds(1).await;
        assert_eq!(values(&stage, "guardian_metric_runs_total"), ["metric=clients result=denied 2"]);
        seconds(290).await;
        assert_eq!(rounds(&stage, "redis-0", since), [""; 0], "asked again after five minutes");
        seconds(20).await;
        assert_eq!(values(&stage, "clients"), ["redis-0 3"]);
    };
    stage.play(1, script).await;
}

#[tokio::test(start_paused = true)]
async fn what_the_containers_use_is_served_for_all_that_are_asked_anyway() {
    let stage = Stage::new();
    let script = async {
        stage.runner.prints("redis-0", "primary");
        stage.runner.uses(Usage { memory_bytes: Some(1000), cpu_usage_us: Some(500_000), ..Usage::default() });
        stage.usual(&policy(&[ROLE]));
        seconds(2).await;
        let expected = ["redis-0 container=redis 1000", "redis-1 container=redis 1000"];
        assert_eq!(values(&stage, "guardian_container_memory_bytes"), expected);
        assert_eq!(values(&stage, "guardian_container_cpu_seconds_total").len(), 2);
        assert!(!stage.metrics().contains("limit"), "{}", stage.metrics());
        stage.delete_set();
        seconds(1).await;
        assert_eq!(stage.metrics(), "");
    };
    stage.play(1, script).await;
}
