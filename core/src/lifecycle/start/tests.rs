use guardian_hook::protocol::RunResult;
use jiff::SignedDuration;

use super::super::example::{Example, outcome};
use super::super::{Decision, RunEnd, Step};
use crate::ledger::{Scope, Verdict};
use crate::policy::{Hook, Target, When};
use crate::reason::Hold;

const OK: RunResult = RunResult::Exited { code: 0 };
const EXIT_1: RunResult = RunResult::Exited { code: 1 };

fn lost(example: &Example, denied: bool) -> RunEnd {
    RunEnd::Lost { since: example.now, at: example.now, denied, why: "the connection was cut".into() }
}

#[test]
fn a_first_start_is_noted_and_nothing_runs() {
    let example = Example::at_rest(2);
    example.assert_at_rest();
    assert!(example.claimed.is_empty());
    let records: Vec<_> = example.ledger.records().map(|r| (r.reason, r.verdict)).collect();
    assert_eq!(records, [("FirstStart".to_owned(), Verdict::Noted), ("FirstStart".to_owned(), Verdict::Noted)]);
}

#[test]
fn a_restarted_container_gets_one_run_and_then_silence() {
    let mut example = Example::at_rest(2);
    example.crash(1);
    let decision = example.pass();
    let [Step::Run { episode, run_id, run, .. }] = &decision.steps[..] else { panic!("{decision:?}") };
    assert_eq!((episode.reason.as_str(), episode.scope.clone()), ("Crash", Scope::Pod(run.pod_uid.clone())));
    assert_eq!((run.pod.as_str(), run.container.as_str(), run.attempt), ("redis-1", "redis", 1));
    assert_eq!(run_id, &format!("rejoin-{}-1", episode.start.as_ref().unwrap().short()));

    assert_eq!(example.decide(), Decision::default(), "nothing is decided while it runs");
    let run_id = run_id.clone();
    example.end(&run_id, outcome(OK));
    example.pass();
    example.assert_at_rest();
    let record = example.last_record();
    assert_eq!((record.verdict, record.reason.as_str(), record.attempt), (Verdict::Succeeded, "Crash", Some(1)));
    assert_eq!(record.message, "the container before it ended with exit code 137 (Error): rejoin succeeded after 1.2 s");
}

#[test]
fn a_replaced_pod_gets_one_run_which_knows_the_old_address() {
    let mut example = Example::at_rest(1);
    let old_ip = example.observed.pods[&0].ip.clone();
    example.new_pod(0);
    let decision = example.pass();
    let [Step::Run { episode, .. }] = &decision.steps[..] else { panic!("{decision:?}") };
    assert_eq!((episode.reason.as_str(), &episode.old_ip), ("Deleted", &old_ip));
}

#[test]
fn the_first_sight_of_a_container_that_was_restarted_gets_a_run() {
    let mut example = Example::at_rest(0);
    example.new_pod(0);
    example.crash(0);
    assert_eq!(example.pass().steps.len(), 1);
    assert_eq!(example.claimed.len(), 1);
}

#[test]
fn a_failed_attempt_is_made_again_after_a_pause_that_doubles_and_never_more_often_than_allowed() {
    let mut example = Example::at_rest(1);
    example.crash(0);
    example.pass();
    for (attempt, pause) in [(1, 5), (2, 10)] {
        let run = example.claimed.last().unwrap().clone();
        example.end(&run, outcome(EXIT_1));
        example.pass();
        let record = example.last_record();
        assert_eq!((record.verdict, record.attempt), (Verdict::Retrying, Some(attempt)));
        assert_eq!(example.decide().wake, Some(example.now + SignedDuration::from_secs(pause)));
        example.later(pause - 1);
        assert!(example.decide().steps.is_empty(), "not before its time");
        example.later(1);
        example.pass();
        assert_eq!(example.claimed.len(), attempt as usize + 1);
    }
    let run = example.claimed.last().unwrap().clone();
    example.end(&run, outcome(RunResult::TimedOut));
    example.pass();
    example.assert_at_rest();
    assert_eq!(example.claimed.len(), 3, "one and two more");
    assert_eq!(example.last_record().verdict, Verdict::Failed);
    assert!(
        example.last_record().message.ends_with("killed at its time out, after 1.2 s, its last words: no route to  [31mpeer")
    );
}

#[test]
fn every_way_to_fail_is_told_and_counts_as_one_attempt() {
    let missing = || "/bin/redis-cli".to_owned();
    for (result, told) in [
        (EXIT_1, "ended with exit code 1"),
        (RunResult::Signaled { signal: 9 }, "was ended by signal 9"),
        (RunResult::TimedOut, "killed at its time out"),
        (RunResult::NotFound { what: missing() }, "there is no /bin/redis-cli"),
        (RunResult::NotExecutable { what: missing() }, "/bin/redis-cli cannot be executed"),
        (RunResult::NotStarted { message: "no memory".into() }, "not started: no memory"),
        (RunResult::Interrupted, "was interrupted"),
        (RunResult::Unknown, "is not understood"),
    ] {
        let mut example = Example::at_rest(1);
        example.crash(0);
        example.pass();
        let run = example.claimed[0].clone();
        example.end(&run, outcome(result));
        example.pass();
        assert_eq!(example.last_record().verdict, Verdict::Retrying);
        assert!(example.last_record().message.contains(told), "{}", example.last_record().message);
    }
}

#[test]
fn an_attempt_of_unknown_outcome_is_made_again_only_where_the_hook_allows_it() {
    for (idempotent, verdict) in [(true, Verdict::Retrying), (false, Verdict::Failed)] {
        let mut example = Example::at_rest(1);
        example.policy.as_mut().unwrap().hooks.rejoin.as_mut().unwrap().idempotent = idempotent;
        example.crash(0);
        example.pass();
        let run = example.claimed[0].clone();
        example.end(&run, outcome(RunResult::Interrupted));
        example.pass();
        assert_eq!(example.last_record().verdict, verdict);
    }
}

#[test]
fn a_runner_out_of_reach_is_asked_again_under_the_same_id_until_it_cannot_be_running_any_more() {
    let mut example = Example::at_rest(1);
    example.crash(0);
    example.pass();
    let run = example.claimed[0].clone();
    let since = example.now;
    let mut asked = 0;
    while example.ledger.state.runs.contains_key(&run) {
        let at = example.now;
        example.end(&run, RunEnd::Lost { since, at, denied: false, why: "the connection was cut".into() });
        assert_eq!(example.decide().steps.len(), usize::from(asked == 60), "asked again after a pause only");
        example.later(2);
        example.pass();
        asked += 1;
    }
    assert_eq!(example.claimed, [run], "one id only");
    assert_eq!(asked, 60, "30 s of time out and 90 s beyond");
    let record = example.last_record();
    assert_eq!(record.verdict, Verdict::Retrying);
    assert!(record.message.contains("the connection was cut"), "{}", record.message);
}

#[test]
fn where_the_guardian_has_no_right_to_exec_it_says_so_and_asks_seldom() {
    let mut example = Example::at_rest(1);
    example.crash(0);
    example.pass();
    let run = example.claimed[0].clone();
    let end = lost(&example, true);
    example.end(&run, end);
    let decision = example.pass();
    assert_eq!((decision.steps.len(), decision.holds[0].reason), (0, Hold::Forbidden));
    assert_eq!(decision.wake, Some(example.now + SignedDuration::from_mins(5)));
    example.later(300);
    assert_eq!(example.pass().steps, [Step::Attach { run_id: run.clone() }]);
    example.end(&run, outcome(OK));
    example.pass();
    example.assert_at_rest();
}

#[test]
fn a_restarted_controller_hands_the_claimed_run_over_again_under_its_id() {
    let mut example = Example::at_rest(1);
    example.crash(0);
    example.pass();
    let run = example.claimed[0].clone();
    example.observed.running.clear();
    assert_eq!(example.pass().steps, [Step::Attach { run_id: run.clone() }]);
    assert_eq!(example.claimed.len(), 1);
    example.end(&run, outcome(OK));
    example.pass();
    example.assert_at_rest();
}

#[test]
fn an_episode_whose_container_or_pod_was_replaced_ends_and_the_new_start_gets_its_own() {
    let changes: [fn(&mut Example); 2] = [|e| e.crash(0), |e| e.new_pod(0)];
    for between_attempts in [false, true] {
        for change in changes {
            let mut example = Example::at_rest(1);
            example.crash(0);
            example.pass();
            if between_attempts {
                let run = example.claimed[0].clone();
                example.end(&run, outcome(EXIT_1));
                example.pass();
            }
            change(&mut example);
            example.pass();
            assert_eq!(example.last_record().verdict, Verdict::Superseded);
            example.pass();
            assert_eq!(example.claimed.len(), 2);
            let run = example.claimed[1].clone();
            assert!(run.ends_with("-1"), "attempts count anew: {run}");
            example.end(&run, outcome(OK));
            example.pass();
            example.assert_at_rest();
        }
    }
}

#[test]
fn nothing_runs_in_a_container_that_does_not() {
    let mut example = Example::at_rest(1);
    example.stop(0, "Error", 1);
    assert_eq!(example.decide(), Decision::default(), "it waits for its back-off");
    example.run_again(0);
    example.observed.pods.get_mut(&0).unwrap().deleted = Some(jiff::Timestamp::UNIX_EPOCH);
    assert_eq!(Decision { wake: None, ..example.decide() }, Decision::default(), "it is being deleted");
    example.new_pod(0);
    *example.container(0) = Default::default();
    assert_eq!(example.decide(), Decision::default(), "its image cannot be pulled");
    example.observed.pods.get_mut(&0).unwrap().containers.clear();
    assert_eq!(example.decide(), Decision::default(), "it is not scheduled");
}

#[test]
fn a_start_without_a_hook_is_answered_with_the_reason() {
    for (policy_too, told) in [(false, "NoHook: policy redis has no rejoin hook"), (true, "NoPolicy: no policy guards the set")] {
        let mut example = Example::at_rest(1);
        example.policy.as_mut().unwrap().hooks.rejoin = None;
        if policy_too {
            example.policy = None;
        }
        example.crash(0);
        example.pass();
        example.assert_at_rest();
        let record = example.last_record();
        assert_eq!((record.verdict, record.reason.as_str()), (Verdict::Skipped, "Crash"));
        assert!(record.message.contains(told), "{}", record.message);
        assert!(example.claimed.is_empty());
    }
}

#[test]
fn a_hook_taken_out_of_the_policy_lets_its_run_end_and_makes_no_other() {
    let mut example = Example::at_rest(1);
    example.crash(0);
    example.pass();
    example.policy.as_mut().unwrap().hooks.rejoin = None;
    assert_eq!(example.decide(), Decision::default(), "it runs already");
    let run = example.claimed[0].clone();
    example.end(&run, outcome(EXIT_1));
    example.pass();
    assert_eq!(example.last_record().verdict, Verdict::Failed);
    example.assert_at_rest();
}

#[test]
fn another_container_in_the_policy_is_no_restart() {
    let mut example = Example::at_rest(1);
    let sidecar =
        crate::lifecycle::Container { id: "s".into(), running_since: Some(example.now), restarts: 4, ..Default::default() };
    example.observed.pods.get_mut(&0).unwrap().containers.insert("exporter".into(), sidecar);
    example.policy.as_mut().unwrap().container = Some("exporter".into());
    example.pass();
    assert!(example.claimed.is_empty());
    assert_eq!(example.decide(), Decision::default());

    example.policy.as_mut().unwrap().container = Some("rediss".into());
    let decision = example.decide();
    assert!(decision.steps.is_empty());
    assert_eq!(decision.holds[0].why, "pod redis-0 has no container rediss, which the policy names");
}

#[test]
fn on_hold_nothing_begins_and_what_ends_is_written_down() {
    let mut example = Example::at_rest(2);
    example.crash(0);
    example.pass();
    example.observed.set.hold = Some("on call".into());
    example.crash(1);
    let decision = example.pass();
    assert_eq!((decision.steps.len(), decision.holds[0].reason, decision.holds[0].why.as_str()), (0, Hold::OnHold, "on call"));
    let run = example.claimed[0].clone();
    example.end(&run, outcome(OK));
    assert_eq!(example.pass().steps.len(), 1);
    example.observed.set.hold = None;
    example.pass();
    assert_eq!(example.claimed.len(), 2, "what came meanwhile is answered afterwards");
}

#[test]
fn an_episode_of_another_scenario_keeps_its_scope_and_is_left_alone() {
    for (whole_set, held) in [(true, 2), (false, 1)] {
        let mut example = Example::at_rest(2);
        example.crash(1);
        example.pass();
        let mut foreign = example.ledger.state.episodes.values().next().unwrap().clone();
        let mut example = Example::at_rest(2);
        foreign.scenario = "update".into();
        foreign.scope = if whole_set { Scope::Set } else { Scope::Pod(example.observed.pods[&1].uid.clone()) };
        example.ledger.state.episodes.insert("update-1".into(), foreign.clone());
        example.crash(0);
        example.crash(1);
        let decision = example.pass();
        assert_eq!((decision.steps.len(), decision.holds.len()), (2 - held, held));
        assert_eq!((decision.holds[0].reason, decision.holds[0].why.as_str()), (Hold::HeldBy, "update-1 is not finished"));
        assert_eq!(example.ledger.state.episodes["update-1"], foreign);
    }
}

#[test]
fn a_view_that_lags_behind_the_ledger_is_no_new_start() {
    let mut example = Example::at_rest(1);
    let stale = example.observed.pods.clone();
    example.later(10);
    example.crash(0);
    example.pass();
    let fresh = std::mem::replace(&mut example.observed.pods, stale.clone());
    assert_eq!(example.decide(), Decision::default(), "while the episode is open");
    example.observed.pods = fresh;
    let run = example.claimed[0].clone();
    example.end(&run, outcome(OK));
    example.pass();
    example.observed.pods = stale;
    assert_eq!(example.decide(), Decision::default(), "and once it is answered");
}

fn with_post_mortem(target: Option<Target>) -> Example {
    let mut example = Example::at_rest(3);
    let hooks = &mut example.policy.as_mut().unwrap().hooks;
    hooks.post_mortem = hooks.rejoin.clone().map(|hook| Hook { target, retries: 0, ..hook });
    example
}

#[test]
fn after_a_crash_the_post_mortem_runs_before_the_rejoin_on_a_ready_peer_or_in_the_pod() {
    for (target, ready, expected) in [
        (None, true, "postMortem redis-1"),
        (Some(Target::Any), true, "postMortem redis-2"),
        (Some(Target::Any), false, "postMortem redis-1"),
    ] {
        for result in [OK, EXIT_1] {
            let mut example = with_post_mortem(target.clone());
            example.policy.as_mut().unwrap().hooks.rejoin.as_mut().unwrap().retries = 0;
            example.observed.pods.get_mut(&0).unwrap().ready = false;
            example.observed.pods.get_mut(&2).unwrap().ready = ready;
            example.crash(1);
            assert_eq!(example.play(&result), [expected, "rejoin redis-1"]);
            example.assert_at_rest();
        }
    }
}

#[test]
fn a_planned_stop_and_an_end_of_its_own_get_no_post_mortem() {
    let mut example = with_post_mortem(None);
    example.new_pod(1);
    assert_eq!(example.play(&OK), ["rejoin redis-1"]);
    example.stop(1, "Completed", 0);
    example.run_again(1);
    assert_eq!(example.play(&OK)[1..], ["rejoin redis-1"]);
}

#[test]
fn a_hook_for_ready_pods_waits_until_its_pod_is_ready() {
    let mut example = Example::at_rest(2);
    example.policy.as_mut().unwrap().hooks.rejoin.as_mut().unwrap().when = When::Ready;
    example.crash(1);
    example.observed.pods.get_mut(&1).unwrap().ready = false;
    assert!(example.pass().steps.is_empty());
    example.observed.pods.get_mut(&1).unwrap().ready = true;
    assert_eq!(example.play(&OK), ["rejoin redis-1"]);
}
