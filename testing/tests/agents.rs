//! Pods with an agent of their own are read: nothing is run in them as long as the questions stay the same, and nothing is lost where there is none.

use std::time::Duration;

use guardian_hook::protocol::{RunResult, Usage};
use guardian_testing::{Answer, Fault, Round, Stage};
use tokio::time::{Instant, sleep};

const HEAD: &str = "\
apiVersion: stateful-guardian.io/v1alpha1
kind: GuardianPolicy
selector: {matchLabels: {app: redis}}
collect: agent
role: {command: [role], every: 5s, timeout: 2s}
metrics:
";
const CLIENTS: &str = "- {name: clients, type: gauge, every: 15s, command: [clients]}\n";
const KEYS: &str = "- {name: keys, type: gauge, every: 15s, command: [keys], labels: [db]}\n";

fn policy(metrics: &[&str]) -> String {
    format!("{HEAD}{}", metrics.concat())
}

async fn seconds(seconds: u64) {
    sleep(Duration::from_secs(seconds)).await;
}

/// A set of two whose pods have agents, and print these roles, and each three clients.
fn usual(stage: &Stage, policy: &str, roles: [&str; 2]) {
    for (pod, role) in ["redis-0", "redis-1"].into_iter().zip(roles) {
        stage.runner.prints(pod, role);
        stage.runner.measures(pod, "clients", "3");
    }
    stage.usual(policy);
    (0..2).for_each(|ordinal| stage.set_agent(ordinal, true));
}

/// The values of a metric, as `POD{LABELS} VALUE`, in order.
fn values(stage: &Stage, metric: &str) -> Vec<String> {
    let text = stage.metrics();
    let start = format!("{metric}{{namespace=\"shop\",set=\"redis\",");
    let of = text.lines().filter_map(|line| line.strip_prefix(&start));
    of.map(|rest| rest.replace("pod=", "").replace(['"', '}'], "").replace(',', " ")).collect()
}

/// What was asked in execs since then, by pod.
fn execs(stage: &Stage, since: Instant) -> Vec<String> {
    let rounds = stage.runner.rounds().into_iter().filter(|round| round.at >= since);
    rounds.map(|Round { pod, names, .. }| format!("{pod} {}", names.join(" "))).collect()
}

fn reads(stage: &Stage, pod: &str) -> usize {
    stage.api.calls().iter().filter(|call| call.kind == "READ" && call.name == pod).count()
}

#[tokio::test(start_paused = true)]
async fn an_agent_is_told_once_what_to_ask_and_then_only_read() {
    let stage = Stage::new();
    let script = async {
        let since = Instant::now();
        usual(&stage, &policy(&[CLIENTS]), ["primary 7", "replica"]);
        stage.until("the labels are there", |s| s.roles() == ["primary", "replica"]).await;
        seconds(1).await;
        assert_eq!(values(&stage, "clients"), ["redis-0 3", "redis-1 3"]);
        let mut told = execs(&stage, since);
        told.retain(|round| round.contains("agent.json"));
        told.sort();
        assert_eq!(told, ["redis-0 agent.json", "redis-1 agent.json"]);
        assert_eq!(stage.runner.agent_asks("redis-0"), ["role", "metrics.clients"]);
        let (since, before) = (Instant::now(), reads(&stage, "redis-0"));
        stage.runner.prints("redis-1", "primary 8");
        stage.runner.prints("redis-0", "replica");
        seconds(6).await;
        assert_eq!(stage.roles(), ["replica", "primary"]);
        seconds(594).await;
        assert_eq!(execs(&stage, since), [""; 0], "nothing is run");
        let read = reads(&stage, "redis-0") - before;
        assert!((119..=121).contains(&read), "every 5 s: {read}");
        assert_eq!(values(&stage, "guardian_container_memory_bytes"), [""; 0], "the sidecar's own usage is not told");
    };
    stage.play(1, script).await;
    assert_eq!(stage.events(), [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn an_edit_of_the_policy_reaches_the_agent_by_one_exec_and_no_value_is_lost_meanwhile() {
    let stage = Stage::new();
    let script = async {
        usual(&stage, &policy(&[CLIENTS]), ["primary", "replica"]);
        seconds(20).await;
        stage.runner.measures("redis-0", "keys", "db0 7");
        let since = Instant::now();
        stage.apply_policy(&policy(&[CLIENTS, KEYS]));
        seconds(3).await;
        assert_eq!(values(&stage, "keys"), ["redis-0 db=db0 7"]);
        assert_eq!(values(&stage, "clients"), ["redis-0 3", "redis-1 3"]);
        assert!(
            values(&stage, "guardian_metric_up").iter().all(|up| up.ends_with(" 1")),
            "{:?}",
            values(&stage, "guardian_metric_up")
        );
        seconds(600).await;
        let mut told = execs(&stage, since);
        told.sort();
        assert_eq!(told, ["redis-0 agent.json", "redis-1 agent.json"]);
    };
    stage.play(1, script).await;
    assert_eq!(stage.events(), [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_is_older_than_two_intervals_is_none() {
    let stage = Stage::new();
    let script = async {
        usual(&stage, &policy(&[CLIENTS]), ["primary", "replica"]);
        seconds(20).await;
        stage.runner.agent_stops_asking("redis-0");
        seconds(9).await;
        assert_eq!(stage.roles(), ["primary", "replica"]);
        seconds(25).await;
        assert_eq!(stage.roles(), ["", "replica"]);
        seconds(60).await;
        assert_eq!(values(&stage, "clients"), ["redis-1 3"]);
        assert_eq!(stage.runner.agent_told("redis-0"), 1, "it works on the right questions");
    };
    stage.play(1, script).await;
    let why = "the pod's agent has asked nothing for more than two intervals";
    assert_eq!(stage.events(), [format!("Warning StatefulSet RoleUnknown: pod redis-0 does not tell its role: {why}")]);
}

#[tokio::test(start_paused = true)]
async fn an_agent_that_is_down_is_silent_and_nothing_is_run_in_its_place() {
    for answers in [true, false] {
        let stage = Stage::new();
        let script = async {
            usual(&stage, &policy(&[CLIENTS]), ["primary", "replica"]);
            seconds(20).await;
            let since = Instant::now();
            if answers {
                for _ in 0..1000 {
                    stage.api.fail_next("READ", Fault::Cut);
                }
            } else {
                stage.set_agent(0, false);
                stage.set_agent(1, false);
            }
            seconds(9).await;
            assert_eq!(stage.roles(), ["primary", "replica"]);
            seconds(30).await;
            assert_eq!(stage.roles(), ["", ""]);
            seconds(120).await;
            assert_eq!(execs(&stage, since), [""; 0]);
            if !answers {
                stage.set_agent(0, true);
                stage.until("it is read again", |s| s.roles() == ["primary", ""]).await;
                assert_eq!(execs(&stage, since), [""; 0], "and knows its questions");
            }
        };
        stage.play(1, script).await;
    }
}

#[tokio::test(start_paused = true)]
async fn an_agent_that_does_not_take_its_questions_is_told_once_a_minute() {
    let stage = Stage::new();
    let script = async {
        usual(&stage, &policy(&[CLIENTS]), ["primary", "replica"]);
        seconds(20).await;
        stage.runner.agents_are_deaf();
        let since = Instant::now();
        stage.apply_policy(&policy(&[KEYS]));
        seconds(600).await;
        let told = execs(&stage, since).len();
        assert!((20..=44).contains(&told), "two pods, role and metric, ten minutes: {told}");
    };
    stage.play(1, script).await;
}

#[tokio::test(start_paused = true)]
async fn a_pod_without_an_agent_is_asked_by_exec_until_its_template_brings_one() {
    let stage = Stage::new();
    let script = async {
        usual(&stage, &policy(&[CLIENTS]).replace("collect: agent\n", ""), ["primary", "replica"]);
        seconds(20).await;
        // The policy asks for agents; the first pod has one, from another template.
        stage.apply_policy(&policy(&[CLIENTS]));
        stage.remove_agent(1);
        seconds(2).await;
        let since = Instant::now();
        seconds(60).await;
        assert_eq!((stage.roles(), values(&stage, "clients").len()), (["primary", "replica"].map(str::to_owned).into(), 2));
        assert!(execs(&stage, since).iter().all(|round| round.starts_with("redis-1 ")), "{:?}", execs(&stage, since));
        assert!(execs(&stage, since).len() >= 12, "every 5 s");
    };
    stage.play(1, script).await;
    assert_eq!(stage.events(), [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn usage_and_commands_of_other_containers_go_on_by_exec() {
    const RULE: &str = "\
rules:
- {name: full, when: {usage: memory, above: 85%}, do: [{run: shrink}]}
tasks:
  shrink: {command: [shrink]}
";
    let stage = Stage::new();
    let script = async {
        usual(&stage, &format!("{}{RULE}", policy(&[CLIENTS])), ["primary", "replica"]);
        seconds(20).await;
        let since = Instant::now();
        seconds(60).await;
        let execs = execs(&stage, since);
        assert!(execs.len() >= 22 && execs.iter().all(|round| round.ends_with(" usage")), "{execs:?}");
        assert_eq!(stage.roles(), ["primary", "replica"]);
    };
    stage.play(1, script).await;
}

#[tokio::test(start_paused = true)]
async fn a_command_that_takes_long_keeps_no_other_from_being_read() {
    let stage = Stage::new();
    let script = async {
        let slow = Answer { takes: Duration::from_secs(8), result: RunResult::Exited { code: 0 } };
        usual(&stage, &policy(&[CLIENTS, KEYS]), ["primary", "replica"]);
        stage.runner.measures_like("redis-0", "keys", slow);
        seconds(20).await;
        let before = reads(&stage, "redis-0");
        seconds(60).await;
        assert!(reads(&stage, "redis-0") - before <= 13, "in one read with the others: {}", reads(&stage, "redis-0") - before);
        assert_eq!(values(&stage, "clients").len(), 2);
    };
    stage.play(1, script).await;
}

#[tokio::test(start_paused = true)]
async fn questions_that_are_more_than_an_agent_takes_are_asked_by_exec() {
    let long = |name: &str| format!("- {{name: {name}, type: gauge, every: 15s, command: [measure, {}]}}\n", "x".repeat(70_000));
    let stage = Stage::new();
    let script = async {
        stage.runner.uses(Usage { memory_bytes: Some(1000), ..Usage::default() });
        usual(&stage, &policy(&[CLIENTS, &long("one"), &long("two")]), ["primary", "replica"]);
        seconds(20).await;
        assert_eq!((stage.roles(), values(&stage, "clients").len()), (["primary", "replica"].map(str::to_owned).into(), 2));
        assert_eq!((reads(&stage, "redis-0"), stage.runner.agent_told("redis-0")), (0, 0));
        let of_sidecars = values(&stage, "guardian_container_memory_bytes");
        assert!(of_sidecars.iter().all(|used| !used.contains("guardian-agent")), "{of_sidecars:?}");
    };
    stage.play(1, script).await;
}
