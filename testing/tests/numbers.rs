//! What the controller counts of itself, for alerts and dashboards: it is there while it lasts, and goes with the set.

use std::time::Duration;

use guardian_core::names;
use guardian_testing::{Answer, POLICY, Stage};
use tokio::time::sleep;

async fn seconds(seconds: u64) {
    sleep(Duration::from_secs(seconds)).await;
}

/// A set of two at rest under the usual policy.
async fn at_rest(stage: &Stage) {
    stage.usual(POLICY);
    stage.until_settled().await;
    seconds(1).await;
}

#[tokio::test(start_paused = true)]
async fn an_episode_is_shown_from_its_beginning_to_its_end_and_its_attempts_are_counted() {
    let stage = Stage::new();
    let script = async {
        at_rest(&stage).await;
        assert_eq!(stage.counted("guardian_episodes"), [""; 0]);
        stage.runner.answer([Answer::exit(1)]);
        stage.restart_container(1, "Error", 137);
        // The first attempt has failed after 2 s; the next is made 5 s later.
        seconds(4).await;
        let of = r#"{namespace="shop",scenario="start",set="redis"}"#;
        assert_eq!(stage.counted("guardian_episodes"), [format!("{of} 1")]);
        let opened = stage.counted("guardian_episode_opened_timestamp_seconds");
        let since = |line: &String| line.strip_prefix(of)?.trim().parse::<i64>().ok();
        let opened = opened.iter().find_map(since).expect("the time of the episode");
        let age = stage.time().as_second() - opened;
        assert!((3..=5).contains(&age), "{age} s ago");
        stage.until_settled().await;
        seconds(1).await;
        assert_eq!(stage.counted("guardian_episodes"), [""; 0]);
        assert_eq!(stage.counted("guardian_episode_opened_timestamp_seconds"), [""; 0]);
        let runs =
            |verdict: &str| format!(r#"{{hook="rejoin",namespace="shop",reason="Crash",set="redis",verdict="{verdict}"}} 1"#);
        let counted = stage.counted("guardian_hook_runs_total");
        for verdict in ["Retrying", "Succeeded"] {
            assert!(counted.contains(&runs(verdict)), "{counted:?}");
        }
        assert_eq!(stage.counted("guardian_hook_duration_seconds_count"), [r#"{hook="rejoin"} 2"#]);
        assert_eq!(stage.counted("guardian_hook_duration_seconds_sum"), [r#"{hook="rejoin"} 4"#]);
    };
    stage.play(1, script).await;
}

#[tokio::test(start_paused = true)]
async fn what_holds_a_set_is_shown_for_as_long_as_it_does() {
    let stage = Stage::new();
    let held = r#"{namespace="shop",reason="OnHold",set="redis"} 1"#;
    let script = async {
        at_rest(&stage).await;
        assert_eq!(stage.counted("guardian_held"), [""; 0]);
        stage.annotate_set(names::HOLD, Some("an incident"));
        seconds(1).await;
        assert_eq!(stage.counted("guardian_held"), [held]);
        seconds(3600).await;
        assert_eq!(stage.counted("guardian_held"), [held], "an hour later");
        stage.annotate_set(names::HOLD, None);
        seconds(1).await;
        assert_eq!(stage.counted("guardian_held"), [""; 0]);
        assert_eq!(stage.counted("guardian_holds_total"), [r#"{reason="OnHold"} 1"#], "that it was stays");
    };
    stage.play(1, script).await;
}

#[tokio::test(start_paused = true)]
async fn that_nothing_is_written_into_a_set_is_an_event_of_it_once_each_time_that_it_becomes_so() {
    let stage = Stage::new();
    let told = || stage.events().iter().filter(|event| event.starts_with("Warning StatefulSet Unguarded: ")).count();
    let script = async {
        at_rest(&stage).await;
        assert_eq!(told(), 0, "the webhook was there");
        for times in 1..=2 {
            stage.inject(false);
            seconds(1).await;
            stage.set_ready(0, times == 1);
            seconds(60).await;
            assert_eq!(told(), times);
            stage.inject(true);
            seconds(1).await;
        }
        stage.annotate_set(names::INJECT, Some("false"));
        stage.inject(false);
        seconds(1).await;
        assert_eq!(told(), 2, "its owner wants none");
    };
    stage.play(1, script).await;
}

#[tokio::test(start_paused = true)]
async fn a_set_that_nothing_is_written_into_is_told_from_one_that_is_guarded_and_from_one_that_is_nobodys() {
    let stage = Stage::new();
    let shown = |value: u8| vec![format!(r#"{{namespace="shop",set="redis"}} {value}"#)];
    let script = async {
        stage.enable();
        stage.apply_set(0);
        stage.inject(false);
        seconds(1).await;
        assert_eq!(stage.counted("guardian_set_guarded"), [""; 0], "there is no policy");
        stage.apply_policy(POLICY);
        seconds(1).await;
        assert_eq!(stage.counted("guardian_set_guarded"), shown(0), "without pods, too");
        stage.inject(true);
        seconds(1).await;
        assert_eq!(stage.counted("guardian_set_guarded"), shown(1));
        stage.change_set(1, "r1");
        stage.new_pod(0, "r1");
        seconds(1).await;
        assert_eq!(stage.counted("guardian_set_guarded"), shown(1), "with pods");
        stage.annotate_set(names::INJECT, Some("false"));
        seconds(1).await;
        assert_eq!(stage.counted("guardian_set_guarded"), [""; 0], "its owner wants none");
        stage.annotate_set(names::INJECT, None);
        stage.revoke_approvals();
        seconds(1).await;
        assert_eq!(stage.counted("guardian_set_guarded"), [""; 0], "nothing is in force");
    };
    stage.play(1, script).await;
}

#[tokio::test(start_paused = true)]
async fn a_set_that_is_gone_leaves_no_series() {
    let stage = Stage::new();
    let script = async {
        at_rest(&stage).await;
        stage.runner.answer([Answer::exit(0)]);
        stage.restart_container(1, "Error", 137);
        stage.until_settled().await;
        stage.annotate_set(names::HOLD, Some("an incident"));
        seconds(1).await;
        for metric in ["guardian_hook_runs_total", "guardian_held", "guardian_set_guarded"] {
            assert!(!stage.counted(metric).is_empty(), "{metric}");
        }
        stage.delete_set();
        seconds(60).await;
        for metric in ["guardian_hook_runs_total", "guardian_held", "guardian_set_guarded", "guardian_episodes"] {
            assert_eq!(stage.counted(metric), [""; 0], "{metric}");
        }
    };
    stage.play(1, script).await;
}

#[tokio::test(start_paused = true)]
async fn passes_that_fail_are_counted_by_what_was_in_the_way() {
    let stage = Stage::new();
    let errors = |reason: &str, count: u32| format!(r#"{{reason="{reason}"}} {count}"#);
    let script = async {
        at_rest(&stage).await;
        let none = ["conflict", "denied", "ledger", "unavailable"].map(|reason| errors(reason, 0));
        assert_eq!(stage.counted("guardian_reconcile_errors_total"), none, "each is there from the start");
        stage.set_state(r#"{"format": 99}"#);
        stage.restart_container(1, "Error", 137);
        seconds(10).await;
        let counted = stage.counted("guardian_reconcile_errors_total");
        let still = counted.iter().filter(|line| none.contains(line)).count();
        assert!(still == 3 && !counted.contains(&errors("ledger", 0)), "{counted:?}");
        assert!(stage.counted("guardian_held").contains(&r#"{namespace="shop",reason="LedgerTooNew",set="redis"} 1"#.to_owned()));
    };
    stage.play(1, script).await;
}
