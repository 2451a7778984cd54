use guardian_hook::protocol::RunResult;

use super::super::example::Example;
use crate::policy::{OnFailure, Quorum};
use crate::reason::Hold;

const OK: RunResult = RunResult::Exited { code: 0 };
const EXIT_1: RunResult = RunResult::Exited { code: 1 };

/// A set of three whose rejoin, tried once, makes the pod anew when it fails.
fn recreating() -> Example {
    let mut example = Example::at_rest(3);
    let hook = example.policy.as_mut().unwrap().hooks.rejoin.as_mut().unwrap();
    (hook.retries, hook.on_failure) = (0, OnFailure::Recreate);
    example
}

#[test]
fn a_pod_whose_rejoin_fails_is_evicted_and_the_new_one_gets_its_own() {
    let mut example = recreating();
    example.crash(1);
    example.play(&EXIT_1);
    assert!(example.evicted.len() > 1, "asked for until it is gone: {:?}", example.evicted);
    assert!(example.evicted.iter().all(|pod| pod == "redis-1"));
    example.new_pod(1);
    assert_eq!(example.play(&OK), ["rejoin redis-1", "rejoin redis-1"]);
    example.assert_at_rest();
    assert!(example.ledger.state.recreated.is_empty(), "a success ends the count");
}

#[test]
fn a_pod_that_is_made_anew_in_vain_is_left_as_it_is_after_three_times_and_that_is_said() {
    let mut example = recreating();
    example.crash(1);
    for time in 0..3 {
        example.play(&EXIT_1);
        assert!(!example.evicted.is_empty(), "{time}");
        example.evicted.clear();
        example.new_pod(1);
    }
    example.play(&EXIT_1);
    assert!(example.evicted.is_empty());
    let holds = example.decide().holds;
    assert_eq!((holds.len(), holds[0].reason), (1, Hold::BreakerOpen), "{holds:?}");
    assert!(example.last_record().message.ends_with("3 times in a row, which did not help: it is left as it is"));
    example.crash(1);
    example.play(&OK);
    example.assert_at_rest();
}

#[test]
fn of_a_pod_that_its_owner_has_scaled_away_or_a_hook_that_makes_none_anew_nothing_is_said_any_more() {
    type Change = fn(&mut Example);
    let table: [(&str, usize, Change); 4] = [
        ("as it was", 1, |_| ()),
        ("its ordinal is gone", 0, |e| e.observed.set.ordinals = 0..1),
        ("its hook goes on", 0, |e| e.policy.as_mut().unwrap().hooks.rejoin.as_mut().unwrap().on_failure = OnFailure::Continue),
        ("no policy guards it", 0, |e| e.policy = None),
    ];
    for (why, expected, change) in table {
        let mut example = recreating();
        example.ledger.state.recreated.insert(1, 3);
        change(&mut example);
        let holds = example.decide().holds;
        assert_eq!(holds.iter().filter(|hold| hold.reason == Hold::BreakerOpen).count(), expected, "{why}: {holds:?}");
        example.crash(0);
        example.pass();
        assert_eq!(example.ledger.state.recreated.contains_key(&1), why != "its ordinal is gone", "{why}");
    }
}

#[test]
fn a_ready_pod_is_made_anew_only_while_enough_others_are_ready() {
    for (others_ready, quorum, evicted) in
        [(1, None, false), (2, None, true), (1, Some(Quorum::Number(1)), true), (2, Some(Quorum::Percent(100)), false)]
    {
        let mut example = recreating();
        example.policy.as_mut().unwrap().protect.quorum = quorum;
        example.observed.pods.get_mut(&0).unwrap().ready = others_ready == 2;
        example.crash(1);
        example.play(&EXIT_1);
        assert_eq!(!example.evicted.is_empty(), evicted, "{others_ready} {quorum:?}");
        let held = example.decide().holds.iter().any(|hold| hold.reason == Hold::Quorum);
        assert_eq!(held, !evicted);
    }
}

#[test]
fn a_container_that_restarts_by_itself_keeps_its_pod() {
    let mut example = recreating();
    example.observed.pods.get_mut(&0).unwrap().ready = false;
    example.crash(1);
    example.play(&EXIT_1);
    assert!(example.evicted.is_empty(), "the quorum holds it");
    example.crash(1);
    example.play(&OK);
    assert!(example.evicted.is_empty());
    example.assert_at_rest();
}

#[test]
fn pods_whose_rejoin_fails_together_are_made_anew_no_more_at_a_time_than_the_quorum_allows() {
    let mut example = recreating();
    (0..3).for_each(|n| example.crash(n));
    example.play(&EXIT_1);
    assert!(example.evicted.iter().all(|pod| pod == "redis-0"), "{:?}", example.evicted);
    assert_eq!(example.decide().holds.iter().filter(|hold| hold.reason == Hold::Quorum).count(), 2);
    for (n, next) in [(0, Some("redis-1")), (1, Some("redis-2")), (2, None)] {
        example.evicted.clear();
        example.new_pod(n);
        example.play(&OK);
        assert_eq!(example.evicted.first().map(String::as_str), next);
        assert!(example.evicted.iter().all(|pod| Some(pod.as_str()) == next), "{:?}", example.evicted);
    }
    example.assert_at_rest();
}
