//! Several controllers, and one Lease: one of them leads, and the others do nothing until they may.

use std::time::Duration;

use guardian_hook::protocol::RunResult;
use guardian_testing::{Answer, POLICY, Stage};
use jiff::{SignedDuration, Timestamp};

/// A Lease that is not renewed for this long can be taken.
const DURATION: SignedDuration = SignedDuration::from_secs(15);
/// A candidate looks at it once in this time: every 2 s, and what the calls take.
const LOOKS_WITHIN: SignedDuration = SignedDuration::from_secs(3);

/// The clocks of two candidates, by how much each is ahead.
fn clocks() -> [[SignedDuration; 2]; 3] {
    [0, 7, -7].map(|seconds| [SignedDuration::ZERO, SignedDuration::from_secs(seconds)])
}

/// A set at rest, and who leads.
async fn led(stage: &Stage) -> String {
    stage.usual(POLICY);
    stage.until_settled().await;
    stage.leader()
}

/// A hook has been started that takes a while.
async fn hook_under_way(stage: &Stage) {
    stage.runner.answer([Answer { takes: Duration::from_secs(25), result: RunResult::Exited { code: 0 } }]);
    stage.restart_container(1, "Error", 137);
    stage.until("the hook is started", |s| s.runner.started().len() == 1).await;
}

/// Waits until another leads, and tells when that was.
async fn another_leads(stage: &Stage, before: &str) -> Timestamp {
    stage.until("another leads", |s| !s.leader().is_empty() && s.leader() != before).await;
    stage.time()
}

/// Of all calls but those about the Lease, none of one controller comes between those of another.
fn assert_one_acts_at_a_time(stage: &Stage) {
    let calls = stage.api.calls();
    let mut acting: Vec<&str> =
        calls.iter().filter(|call| !call.kind.ends_with(" leases")).map(|call| call.process.as_str()).collect();
    acting.dedup();
    let in_order = acting.clone();
    acting.sort_unstable();
    acting.dedup();
    assert_eq!(acting.len(), in_order.len(), "{in_order:?}");
}

#[tokio::test(start_paused = true)]
async fn of_two_candidates_one_leads_and_the_other_only_looks_at_the_lease() {
    for clocks in clocks() {
        let stage = Stage::new();
        let script = async {
            let leader = led(&stage).await;
            hook_under_way(&stage).await;
            stage.until_settled().await;
            stage.assert_silence().await;
            assert_eq!(stage.leader(), leader, "{clocks:?}");
            let calls = stage.api.calls();
            let of_other: Vec<_> =
                calls.iter().filter(|call| call.process.starts_with("controller") && call.process != leader).collect();
            assert!(of_other.len() > 100, "it waits for its turn");
            // Both may find no Lease at first, and one of them makes it.
            assert!(of_other.iter().skip(2).all(|call| call.kind == "GET leases"), "{of_other:?}");
        };
        stage.play_candidates(&clocks, script).await;
        assert_eq!((stage.attempts().len(), stage.told().len()), (1, 1));
    }
}

#[tokio::test(start_paused = true)]
async fn when_the_leader_dies_the_other_goes_on_where_it_was_once_the_lease_has_run_out() {
    for clocks in clocks() {
        let stage = Stage::new();
        let script = async {
            let leader = led(&stage).await;
            hook_under_way(&stage).await;
            stage.kill(&leader);
            let died = stage.time();
            let waited = another_leads(&stage, &leader).await.duration_since(died);
            // The last renewal was 5 s earlier at most.
            assert!(
                waited >= DURATION - SignedDuration::from_secs(6) && waited <= DURATION + LOOKS_WITHIN,
                "{waited} {clocks:?}"
            );
            stage.until_settled().await;
            stage.assert_silence().await;
        };
        stage.play_candidates(&clocks, script).await;
        assert_eq!(stage.attempts(), ["redis-1 1"]);
        assert_eq!(stage.told(), ["Crash Succeeded 1"]);
        assert_one_acts_at_a_time(&stage);
    }
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_gets_no_answers_has_ended_before_another_begins() {
    for clocks in clocks() {
        let stage = Stage::new();
        let script = async {
            let leader = led(&stage).await;
            hook_under_way(&stage).await;
            stage.api.cut_off(&leader);
            // It sees this, and would act on it.
            stage.restart_container(0, "Error", 137);
            stage.until("it has ended", |s| !s.is_alive(&leader)).await;
            let ended = stage.time();
            assert_eq!(stage.leader(), leader, "by itself");
            let waited = another_leads(&stage, &leader).await.duration_since(ended);
            assert!(waited >= SignedDuration::from_secs(4), "{waited} {clocks:?}");
            stage.until("both are told", |s| s.told().len() == 2).await;
            stage.until_settled().await;
            stage.assert_silence().await;
        };
        stage.play_candidates(&clocks, script).await;
        assert_eq!(stage.attempts(), ["redis-1 1", "redis-0 1"]);
        assert_one_acts_at_a_time(&stage);
    }
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_is_told_to_end_lets_the_other_begin_at_once() {
    for clocks in clocks() {
        let stage = Stage::new();
        let script = async {
            let leader = led(&stage).await;
            hook_under_way(&stage).await;
            stage.shut_down(&leader);
            let told = stage.time();
            stage.until("the Lease is free", |s| s.leader() != leader).await;
            let waited = another_leads(&stage, &leader).await.duration_since(told);
            assert!(waited <= LOOKS_WITHIN, "{waited} {clocks:?}");
            stage.until_settled().await;
            stage.assert_silence().await;
        };
        stage.play_candidates(&clocks, script).await;
        assert_eq!(stage.attempts(), ["redis-1 1"]);
        assert_one_acts_at_a_time(&stage);
    }
}
