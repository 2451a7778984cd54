//! Every pod knows who is in its set: soon after each change, and without being told the same again and again.

use std::time::Duration;

use guardian_hook::protocol::RunResult;
use guardian_testing::{Answer, Fault, Stage};
use serde_json::Value;
use tokio::time::{Instant, sleep};

const POLICY: &str = "\
apiVersion: stateful-guardian.io/v1alpha1
kind: GuardianPolicy
selector: {matchLabels: {app: redis}}
members: true
";
const ROLE: &str = "role: {command: [role], every: 5s, timeout: 2s}\n";

async fn seconds(seconds: u64) {
    sleep(Duration::from_secs(seconds)).await;
}

/// What the file of a pod says now, as `POD STATE ROLE`; nothing where there is none.
fn members(stage: &Stage, pod: &str) -> Vec<String> {
    let Some((_, _, text)) = stage.runner.put().into_iter().rfind(|(_, of, _)| of == pod) else { return Vec::new() };
    let file: Value = serde_json::from_str(&text).unwrap_or_default();
    let member = |member: &Value| {
        ["pod", "state", "role"].map(|key| member.get(key).and_then(Value::as_str).unwrap_or("-").to_owned()).join(" ")
    };
    file.get("members").and_then(Value::as_array).into_iter().flatten().map(member).collect()
}

/// How often a pod was told since then.
fn told(stage: &Stage, pod: &str, since: Instant) -> usize {
    stage.runner.put().iter().filter(|(at, of, _)| of == pod && *at >= since).count()
}

#[tokio::test(start_paused = true)]
async fn a_change_is_known_in_every_pod_within_a_second_and_the_rest_is_silence() {
    let stage = Stage::new();
    let script = async {
        stage.usual(POLICY);
        seconds(1).await;
        for pod in ["redis-0", "redis-1"] {
            assert_eq!(members(&stage, pod), ["redis-0 ready -", "redis-1 ready -"], "{pod}");
        }
        seconds(10).await;
        let since = Instant::now();
        stage.set_ready(1, false);
        seconds(1).await;
        for pod in ["redis-0", "redis-1"] {
            assert_eq!(members(&stage, pod), ["redis-0 ready -", "redis-1 running -"], "{pod}");
            assert_eq!(told(&stage, pod, since), 1, "{pod}");
        }
        let since = Instant::now();
        seconds(3600).await;
        assert_eq!(told(&stage, "redis-0", since), 12, "once in five minutes, in case something in the pod has changed it");
    };
    stage.play(1, script).await;
    assert!(stage.runner.started().is_empty(), "no hook was run");
    assert_eq!(stage.held_by(), [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn a_role_that_moves_is_known_in_every_pod() {
    let stage = Stage::new();
    let script = async {
        stage.runner.prints("redis-0", "primary 1");
        stage.runner.prints("redis-1", "replica");
        stage.usual(&format!("{POLICY}{ROLE}"));
        stage.until("redis-1 knows it", |s| members(s, "redis-1") == ["redis-0 ready primary", "redis-1 ready replica"]).await;
        stage.runner.prints("redis-0", "replica");
        stage.runner.prints("redis-1", "primary 2");
        seconds(7).await;
        for pod in ["redis-0", "redis-1"] {
            assert_eq!(members(&stage, pod), ["redis-0 ready replica", "redis-1 ready primary"], "{pod}");
        }
    };
    stage.play(1, script).await;
}

#[tokio::test(start_paused = true)]
async fn what_changes_while_a_pod_is_told_is_told_after_it_and_never_before() {
    let stage = Stage::new();
    let script = async {
        let slow = Answer { takes: Duration::from_secs(3), result: RunResult::Exited { code: 0 } };
        stage.usual(POLICY);
        seconds(2).await;
        stage.runner.takes_members_like("redis-0", slow);
        let since = Instant::now();
        stage.set_ready(1, false);
        seconds(1).await;
        stage.set_ready(1, true);
        seconds(1).await;
        assert_eq!(told(&stage, "redis-0", since), 0, "the first takes its time");
        seconds(10).await;
        assert_eq!(told(&stage, "redis-0", since), 2);
        assert_eq!(members(&stage, "redis-0"), ["redis-0 ready -", "redis-1 ready -"]);
    };
    stage.play(1, script).await;
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_cannot_be_told_is_tried_again_and_held_until_it_knows() {
    let stage = Stage::new();
    let script = async {
        stage.usual(POLICY);
        seconds(2).await;
        stage.runner.takes_members_like("redis-0", Answer::exit(1));
        stage.set_ready(1, false);
        stage.until("it is held", |s| s.held_by() == ["MembersNotCurrent"]).await;
        assert_eq!(members(&stage, "redis-1"), ["redis-0 ready -", "redis-1 running -"], "the other knows");
        stage.runner.takes_members_like("redis-0", Answer::exit(0));
        seconds(8).await;
        assert_eq!(members(&stage, "redis-0"), ["redis-0 ready -", "redis-1 running -"]);
        assert_eq!(stage.held_by(), [""; 0]);
        // A connection that is cut is no better than a disk that is full.
        stage.api.fail_next("COLLECT", Fault::Status(500));
        let since = Instant::now();
        stage.set_ready(1, true);
        seconds(8).await;
        assert_eq!((told(&stage, "redis-0", since), told(&stage, "redis-1", since)), (1, 1));
    };
    stage.play(1, script).await;
}

#[tokio::test(start_paused = true)]
async fn a_pod_with_an_older_runner_is_held_and_not_asked_again_and_again() {
    let stage = Stage::new();
    let script = async {
        stage
            .runner
            .takes_members_like("redis-0", Answer { takes: Duration::from_millis(50), result: RunResult::Exited { code: 2 } });
        stage.usual(POLICY);
        stage.until("it is held", |s| s.held_by() == ["MembersNotCurrent"]).await;
        let rounds = || stage.runner.rounds().iter().filter(|round| round.pod == "redis-0").count();
        let before = rounds();
        seconds(3600).await;
        assert_eq!(rounds() - before, 12);
        // The policy asks for it no more.
        stage.apply_policy(&POLICY.replace("members: true\n", ""));
        stage.until("it is held no more", |s| s.held_by().is_empty()).await;
    };
    stage.play(1, script).await;
}

#[tokio::test(start_paused = true)]
async fn without_the_policy_s_word_no_pod_is_told_anything() {
    let stage = Stage::new();
    let script = async {
        stage.usual(&POLICY.replace("members: true\n", ""));
        seconds(60).await;
        stage.set_ready(1, false);
        seconds(60).await;
    };
    stage.play(1, script).await;
    assert!(stage.runner.rounds().is_empty());
}
