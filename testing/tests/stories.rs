//! What the controller makes of what happens in a cluster: played straight, with faults, and killed at every call.

use std::time::Duration;

use guardian_hook::protocol::RunResult;
use guardian_testing::{Answer, Fault, POLICY, Stage, sweep};

/// The set is applied, and its pods are noted; then something happens to it, and it is answered.
async fn after_first_starts(stage: &Stage, policy: &str, happens: impl AsyncFnOnce(&Stage)) {
    stage.usual(policy);
    stage.until_settled().await;
    assert!(stage.runner.started().is_empty(), "nothing runs at a first start");
    happens(stage).await;
    stage.until("it is seen", |s| !s.told().is_empty()).await;
    stage.until_settled().await;
}

async fn restarted(stage: &Stage) {
    after_first_starts(stage, POLICY, async |s| s.restart_container(1, "Error", 137)).await;
}

async fn replaced(stage: &Stage) {
    after_first_starts(stage, POLICY, async |s| {
        s.delete_pod(1).await;
        s.new_pod(1, "r1");
    })
    .await;
}

async fn failing_twice(stage: &Stage) {
    stage.runner.answer([Answer::exit(1), Answer::exit(1)]);
    after_first_starts(stage, POLICY, async |s| s.restart_container(0, "OOMKilled", 137)).await;
}

#[tokio::test(start_paused = true)]
async fn a_restarted_container_is_rejoined_once_recorded_and_then_left_alone() {
    let stage = Stage::new();
    let script = async {
        restarted(&stage).await;
        stage.assert_silence().await;
    };
    stage.play(1, script).await;
    assert_eq!(stage.attempts(), ["redis-1 1"]);
    assert_eq!(stage.told(), ["Crash Succeeded 1"]);
    let why = "the container before it ended with exit code 137 (Error): rejoin succeeded after 2.0 s";
    assert_eq!(stage.events(), [format!("Normal Pod Crash: {why}"), format!("Normal StatefulSet Crash: redis-1: {why}")]);
}

#[tokio::test(start_paused = true)]
async fn the_hook_is_told_where_it_is_and_why() {
    let stage = Stage::new();
    stage.play(1, restarted(&stage)).await;
    let started = stage.runner.started();
    let request = &started[0].request;
    let id = &request.run_id;
    for (name, value) in [
        ("GUARDIAN_HOOK", "rejoin"),
        ("GUARDIAN_NAMESPACE", "shop"),
        ("GUARDIAN_SET", "redis"),
        ("GUARDIAN_POD", "redis-1"),
        ("GUARDIAN_ORDINAL", "1"),
        ("GUARDIAN_SERVICE", "redis"),
        ("GUARDIAN_REASON", "Crash"),
        ("GUARDIAN_RUN_ID", id.as_str()),
        ("GUARDIAN_ATTEMPT", "1"),
        ("GUARDIAN_REPLICAS", "2"),
        ("GUARDIAN_PEERS", "redis-0.redis.shop.svc"),
        ("GUARDIAN_READY_PEERS", "redis-0.redis.shop.svc"),
        ("GUARDIAN_OLD_IP", ""),
        ("GUARDIAN_NEW_IP", "10.0.0.11"),
    ] {
        assert_eq!(request.env.get(name).map(String::as_str), Some(value), "{name}");
    }
    assert_eq!(request.timeout_ms, 30_000);
}

#[tokio::test(start_paused = true)]
async fn a_replaced_pod_is_rejoined_once_with_the_reason_that_was_seen() {
    let stage = Stage::new();
    let script = async {
        replaced(&stage).await;
        stage.assert_silence().await;
    };
    stage.play(1, script).await;
    assert_eq!(stage.attempts(), ["redis-1 1"]);
    assert_eq!(stage.told(), ["Deleted Succeeded 1"]);
}

#[tokio::test(start_paused = true)]
async fn a_hook_that_fails_twice_is_tried_until_it_succeeds() {
    let stage = Stage::new();
    let script = async {
        failing_twice(&stage).await;
        stage.assert_silence().await;
    };
    stage.play(1, script).await;
    assert_eq!(stage.attempts(), ["redis-0 1", "redis-0 2", "redis-0 3"]);
    assert_eq!(stage.told(), ["OOMKilled Retrying 1", "OOMKilled Retrying 2", "OOMKilled Succeeded 3"]);
    let warnings = stage.events().iter().filter(|e| e.starts_with("Warning Pod OOMKilled")).count();
    assert_eq!(warnings, 2, "{:#?}", stage.events());
}

#[tokio::test(start_paused = true)]
async fn a_hook_that_never_succeeds_is_given_up_after_its_retries_and_said_so() {
    let stage = Stage::new();
    let hang = Answer { takes: Duration::from_secs(3600), result: RunResult::Exited { code: 0 } };
    stage.runner.answer([Answer::exit(1), hang, Answer::exit(1), Answer::exit(1)]);
    let script = async {
        restarted(&stage).await;
        stage.assert_silence().await;
    };
    stage.play(1, script).await;
    assert_eq!(stage.attempts().len(), 3, "one and two more");
    assert_eq!(stage.told(), ["Crash Retrying 1", "Crash Retrying 2", "Crash Failed 3"]);
    assert!(stage.events().iter().any(|e| e.starts_with("Warning StatefulSet Crash: redis-1: ")), "{:#?}", stage.events());
    let timed_out = stage.history().iter().any(|r| r.to_string().contains("killed at its time out, after 30.0 s"));
    assert!(timed_out, "{:#?}", stage.history());
}

#[tokio::test(start_paused = true)]
async fn pods_that_never_ran_or_wait_get_no_exec() {
    let stage = Stage::new();
    let script = async {
        stage.usual(POLICY);
        stage.until_settled().await;
        stage.vanish(1);
        stage.new_pod(1, "r1");
        stage.stop_container(1, "Error", 1);
        stage.assert_silence().await;
        stage.start_container(1);
        stage.until("the start is seen", |s| !s.told().is_empty()).await;
        stage.until_settled().await;
    };
    stage.play(1, script).await;
    assert_eq!(stage.attempts(), ["redis-1 1"]);
}

#[tokio::test(start_paused = true)]
async fn a_namespace_that_is_not_enabled_is_left_alone() {
    let stage = Stage::new();
    let script = async {
        stage.apply_policy(POLICY);
        stage.apply_set(2);
        tokio::time::sleep(Duration::from_secs(5)).await;
        stage.restart_container(0, "Error", 1);
        stage.assert_silence().await;
    };
    stage.play(1, script).await;
    assert!(stage.state().is_null() && stage.events().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_policy_without_rejoin_answers_every_start_with_the_reason() {
    let stage = Stage::new();
    let policy = "apiVersion: stateful-guardian.io/v1alpha1\nkind: GuardianPolicy\nselector: {matchLabels: {app: redis}}\n";
    let script = async {
        after_first_starts(&stage, policy, async |s| s.restart_container(0, "Error", 1)).await;
        stage.assert_silence().await;
    };
    stage.play(1, script).await;
    assert_eq!(stage.told(), ["Crash Skipped null"]);
    assert!(
        stage.history().iter().any(|r| r.to_string().contains("policy redis-policy has no rejoin hook")),
        "{:?}",
        stage.history()
    );
}

#[tokio::test(start_paused = true)]
async fn a_set_on_hold_is_left_alone_until_it_is_not_and_that_is_said_once() {
    let stage = Stage::new();
    let hold = "stateful-guardian.io/hold";
    let script = async {
        stage.usual(POLICY);
        stage.until_settled().await;
        stage.annotate_set(hold, Some("on call: ann"));
        stage.restart_container(0, "Error", 1);
        stage.until("it is said", |s| !s.events().is_empty()).await;
        stage.assert_silence().await;
        stage.restart_container(0, "Error", 1);
        stage.assert_silence().await;
        assert_eq!(stage.events(), ["Warning StatefulSet OnHold: on call: ann"]);
        stage.annotate_set(hold, None);
        stage.until("the hold is over", |s| !s.told().is_empty()).await;
        stage.until_settled().await;
    };
    stage.play(1, script).await;
    assert_eq!(stage.attempts(), ["redis-0 1"], "the start that runs now, once");
}

/// [`POLICY`] with another command.
fn edited() -> String {
    POLICY.replace("command: [rejoin]", "command: [other]")
}

fn commands(stage: &Stage) -> Vec<String> {
    stage.runner.started().iter().map(|order| format!("{:?}", order.request.program)).collect()
}

fn says_not_approved(stage: &Stage) -> usize {
    stage.events().iter().filter(|event| event.starts_with("Warning StatefulSet PolicyNotApproved: ")).count()
}

#[tokio::test(start_paused = true)]
async fn a_policy_that_nobody_approved_runs_nothing_which_is_said_once_and_is_in_force_when_somebody_does() {
    let stage = Stage::new();
    let script = async {
        stage.enable();
        stage.sneak_policy(POLICY);
        stage.apply_set(2);
        stage.until("it is said", |s| !s.events().is_empty()).await;
        stage.restart_container(0, "Error", 1);
        stage.assert_silence().await;
        let told = "Warning StatefulSet PolicyNotApproved: policy redis-policy is not approved: run `guardian approve -n shop redis-policy`";
        assert_eq!(stage.events(), [told]);
        assert!(stage.runner.started().is_empty() && stage.state().is_null());
        stage.approve_policy(POLICY);
        stage.until_settled().await;
        stage.assert_silence().await;
    };
    stage.play(1, script).await;
    assert_eq!(stage.told(), ["Crash Succeeded 1"], "what was due meanwhile is done");
}

#[tokio::test(start_paused = true)]
async fn an_edit_that_nobody_approved_leaves_what_was_approved_in_force_and_is_said_once() {
    let stage = Stage::new();
    let script = async {
        stage.usual(POLICY);
        stage.until_settled().await;
        stage.sneak_policy(&edited());
        stage.until("it is said", |s| says_not_approved(s) == 1).await;
        stage.restart_container(0, "Error", 1);
        stage.until("it is rejoined", |s| s.told().len() == 1).await;
        stage.until_settled().await;
        stage.assert_silence().await;
        assert_eq!(commands(&stage), [r#"Command(["rejoin"])"#]);
        assert_eq!(says_not_approved(&stage), 1);
        stage.approve_policy(&edited());
        // A watch that is being made again at this moment tells of it within its back-off, which is 30 s at most.
        tokio::time::sleep(Duration::from_secs(120)).await;
        stage.restart_container(0, "Error", 1);
        stage.until("it is rejoined", |s| s.told().len() == 2).await;
        stage.until_settled().await;
        stage.assert_silence().await;
        assert_eq!(commands(&stage), [r#"Command(["rejoin"])"#, r#"Command(["other"])"#]);
    };
    stage.play(1, script).await;
}

/// The watch of policies may tell of an edit before the watch of approvals tells that it is approved.
#[tokio::test(start_paused = true)]
async fn an_edit_by_somebody_who_may_is_never_said_to_be_unapproved() {
    let stage = Stage::new();
    let script = async {
        stage.usual(POLICY);
        stage.until_settled().await;
        for round in 0..20 {
            stage.apply_policy(&format!("{POLICY}# {round}\n"));
            tokio::time::sleep(Duration::from_millis(round)).await;
            stage.restart_container(0, "Error", 1);
            stage.until("it is rejoined", |s| s.told().len() as u64 == round + 1).await;
        }
        stage.until_settled().await;
        stage.assert_silence().await;
    };
    stage.play(2, script).await;
    assert_eq!(says_not_approved(&stage), 0, "{:#?}", stage.events());
}

#[tokio::test(start_paused = true)]
async fn a_policy_whose_approval_is_taken_back_runs_nothing_more() {
    let stage = Stage::new();
    let script = async {
        stage.usual(POLICY);
        stage.until_settled().await;
        stage.revoke_approvals();
        stage.until("it is said", |s| says_not_approved(s) == 1).await;
        stage.restart_container(0, "Error", 1);
        stage.assert_silence().await;
    };
    stage.play(1, script).await;
    assert!(stage.runner.started().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_namespace_that_gives_no_rights_is_told_once_and_served_once_it_does() {
    let stage = Stage::new();
    let script = async {
        stage.usual(POLICY);
        stage.until_settled().await;
        for _ in 0..3 {
            stage.api.fail_next("EXEC", Fault::Status(403));
        }
        stage.restart_container(0, "Error", 1);
        stage.until_settled().await;
    };
    stage.play(1, script).await;
    assert_eq!(stage.attempts(), ["redis-0 1"]);
    assert_eq!(stage.told(), ["Crash Succeeded 1"]);
    let said = stage.events().iter().filter(|e| e.contains("StatefulSet Forbidden")).count();
    assert_eq!(said, 1, "{:#?}", stage.events());
}

#[tokio::test(start_paused = true)]
async fn a_restart_that_no_watch_has_seen_is_found_by_the_next_list_and_answered_once() {
    let stage = Stage::new();
    let gap = async |s: &Stage| {
        s.restart_container(0, "Error", 1);
        s.vanish(1);
        s.new_pod(1, "r1");
        s.api.world(guardian_core::sim::World::compact);
    };
    let script = async {
        after_first_starts(&stage, POLICY, gap).await;
        stage.assert_silence().await;
        stage.api.world(guardian_core::sim::World::compact);
        stage.assert_silence().await;
    };
    stage.play(1, script).await;
    assert_eq!(stage.attempts().len(), 2);
    assert_eq!(stage.told(), ["Crash Succeeded 1", "Unknown Succeeded 1"]);
    let lists = stage.api.calls().iter().filter(|call| call.kind == "LIST pods").count();
    assert!(lists > 1, "the watch was told that it is too old");
}

#[tokio::test(start_paused = true)]
async fn a_ledger_of_a_newer_guardian_is_not_touched_and_nothing_is_done() {
    let stage = Stage::new();
    let script = async {
        stage.usual(POLICY);
        stage.until_settled().await;
        stage.set_state(r#"{"format":2,"setUid":"x"}"#);
        stage.restart_container(0, "Error", 1);
        // The next pass decides on what it remembers, and finds the newer ledger before it acts.
        stage.until("it is said", |s| !s.events().is_empty()).await;
        stage.assert_silence().await;
    };
    stage.play(1, script).await;
    assert!(stage.runner.started().is_empty());
    let told =
        "Warning StatefulSet LedgerTooNew: the ledger has format 2, this guardian knows 1: run the newer guardian that wrote it";
    assert_eq!(stage.events(), [told]);
}

#[tokio::test(start_paused = true)]
async fn two_controllers_at_once_start_the_hook_once() {
    for leaders in [2, 3] {
        for story in [0, 1, 2] {
            let stage = Stage::new();
            let script = async {
                match story {
                    0 => restarted(&stage).await,
                    1 => replaced(&stage).await,
                    _ => failing_twice(&stage).await,
                }
                stage.assert_silence().await;
            };
            stage.play(leaders, script).await;
            let expected = if story == 2 { 3 } else { 1 };
            assert_eq!((stage.attempts().len(), stage.told().len()), (expected, expected), "story {story}: {:?}", stage.told());
        }
    }
}

#[tokio::test(start_paused = true)]
async fn several_controllers_do_not_undo_what_each_other_wrote() {
    let stage = Stage::new();
    let script = async {
        stage.usual(POLICY);
        stage.until_settled().await;
        for round in 0..20_u64 {
            stage.restart_container(0, "Error", 1);
            // From one round to the next the second run ends later within the passes that settle the first.
            tokio::time::sleep(Duration::from_millis(round)).await;
            stage.restart_container(1, "OOMKilled", 137);
            stage.until_settled().await;
        }
        stage.assert_silence().await;
    };
    stage.play(3, script).await;
    assert_eq!(stage.runner.started().len(), 40, "one for each start");
    assert_eq!(stage.told().len(), 40, "{:#?}", stage.told());
}

#[tokio::test(start_paused = true)]
async fn every_kind_of_refusal_is_survived_on_every_call() {
    let faults = [Fault::Status(409), Fault::Status(429), Fault::Status(500), Fault::Status(503), Fault::Cut, Fault::AnswerLost];
    sweep(&faults, async |stage| restarted(stage).await, &["Crash Succeeded 1"]).await;
}

#[tokio::test(start_paused = true)]
async fn a_controller_killed_before_or_after_any_call_of_a_restart_loses_nothing_and_repeats_nothing() {
    sweep(&[Fault::CrashBefore, Fault::CrashAfter], async |stage| restarted(stage).await, &["Crash Succeeded 1"]).await;
}

#[tokio::test(start_paused = true)]
async fn a_controller_killed_before_or_after_any_call_of_three_attempts_loses_nothing_and_repeats_nothing() {
    let told = ["OOMKilled Retrying 1", "OOMKilled Retrying 2", "OOMKilled Succeeded 3"];
    sweep(&[Fault::CrashBefore, Fault::CrashAfter], async |stage| failing_twice(stage).await, &told).await;
}

#[tokio::test(start_paused = true)]
async fn a_controller_killed_before_or_after_any_call_of_a_replacement_runs_the_hook_once() {
    // Who was not there when the pod was deleted cannot know why it is gone.
    let told = ["Deleted|Unknown Succeeded 1"];
    sweep(&[Fault::CrashBefore, Fault::CrashAfter], async |stage| replaced(stage).await, &told).await;
}
