use guardian_hook::protocol::RunResult;
use jiff::SignedDuration;

use super::super::example::Example;
use super::super::{RunEnd, Volume};
use crate::ledger::{Adopted, Ledger, Verdict};
use crate::policy::When;
use crate::reason::Hold;

const OK: RunResult = RunResult::Exited { code: 0 };
const EXIT_1: RunResult = RunResult::Exited { code: 1 };

/// A set of three on new volumes, whose policy has `bootstrap` and `join`. Its pods are not there yet.
fn applied() -> Example {
    let mut example = Example::at_rest(0);
    example.observed.set.ordinals = 0..3;
    example.observed.set.has_volumes = true;
    let hooks = &mut example.policy.as_mut().unwrap().hooks;
    let hook = hooks.rejoin.clone();
    hooks.bootstrap = hook.clone().map(|hook| crate::policy::Hook { when: When::Ready, idempotent: false, ..hook });
    hooks.join = hook;
    example
}

/// The pods of a set of three start on these volumes, which are as old as they are.
fn start_all(example: &mut Example) {
    for ordinal in 0..3 {
        example.new_volume(ordinal);
        example.new_pod(ordinal);
    }
}

fn holds(example: &Example) -> Vec<Hold> {
    example.decide().holds.iter().map(|held| held.reason).collect()
}

#[test]
fn a_new_set_is_made_once_in_its_first_pod_and_the_others_join() {
    let mut example = applied();
    start_all(&mut example);
    let begun = example.pass();
    assert_eq!((begun.steps.len(), begun.holds.len()), (1, 0), "nothing joins before: {begun:?}");
    assert_eq!(example.play(&OK), ["bootstrap redis-0", "join redis-1", "join redis-2"]);
    example.assert_at_rest_but_for_marks();
    assert!(example.ledger.state.bootstrapped);
    let marks: Vec<_> = example.decide().levels.marks.iter().map(|volume| volume.claim.clone()).collect();
    assert_eq!(marks, ["data-redis-0", "data-redis-1", "data-redis-2"]);
}

#[test]
fn it_waits_for_all_pods_to_be_ready_or_to_run_as_the_hook_says() {
    for (when, ready, runs) in [(When::Ready, false, 0), (When::Ready, true, 1), (When::Running, false, 1)] {
        let mut example = applied();
        example.policy.as_mut().unwrap().hooks.bootstrap.as_mut().unwrap().when = when;
        for ordinal in 0..2 {
            example.new_volume(ordinal);
            example.new_pod(ordinal);
        }
        assert_eq!(example.pass().steps.len(), 0, "a pod is missing");
        example.new_volume(2);
        example.new_pod(2);
        example.observed.pods.get_mut(&2).unwrap().ready = ready;
        assert_eq!(example.pass().steps.len(), runs, "{when:?} {ready}");
    }
}

#[test]
fn a_pod_of_a_later_ordinal_joins_as_a_scale_out() {
    let mut example = applied();
    start_all(&mut example);
    example.play(&OK);
    example.observed.set.ordinals = 0..4;
    example.new_volume(3);
    example.new_pod(3);
    assert_eq!(example.play(&OK).last().unwrap(), "join redis-3");
    assert_eq!(example.last_record().reason, "ScaleOut");
}

#[test]
fn a_bootstrap_that_fails_is_not_made_again_before_the_policy_changes() {
    let mut example = applied();
    start_all(&mut example);
    assert_eq!(example.play(&EXIT_1), ["bootstrap redis-0"; 3], "one and two more");
    assert_eq!(example.last_record().verdict, Verdict::Failed);
    assert_eq!(holds(&example), [Hold::BootstrapFailed]);
    assert!(example.decide().holds[0].why.contains("mend the policy"), "{:?}", example.decide().holds);
    example.policy.as_mut().unwrap().revision = "another".into();
    assert_eq!(example.play(&OK)[3..], ["bootstrap redis-0", "join redis-1", "join redis-2"]);
    assert!(example.ledger.state.given_up.is_empty());
}

#[test]
fn a_bootstrap_of_which_nobody_knows_how_far_it_came_waits_for_a_person() {
    for lost in [true, false] {
        let mut example = applied();
        start_all(&mut example);
        example.pass();
        let run = example.claimed[0].clone();
        if lost {
            let since = example.now;
            example.later(3600);
            example.end(&run, RunEnd::Lost { since, at: example.now, denied: false, why: "cut".into() });
        } else {
            example.new_pod(0);
        }
        example.pass();
        example.policy.as_mut().unwrap().revision = "another".into();
        assert_eq!(example.play(&OK).len(), 1, "it is not guessed");
        assert_eq!(holds(&example), [Hold::BootstrapFailed]);
        assert!(example.decide().holds[0].why.ends_with("`guardian adopt -n shop redis --bootstrapped` or `--new`"));
    }
}

#[test]
fn a_set_made_again_on_its_old_volumes_rejoins_and_is_not_made_again() {
    // The ledger is there, or only the marks are.
    for keeps_ledger in [true, false] {
        let mut example = applied();
        start_all(&mut example);
        example.play(&OK);
        example.mark_volumes();
        example.made_again("set-2");
        if !keeps_ledger {
            example.ledger = Ledger::new("set-2");
        }
        let before = example.claimed.len();
        for ordinal in 0..3 {
            example.new_pod(ordinal);
        }
        assert_eq!(example.play(&OK)[before..], ["rejoin redis-0", "rejoin redis-1", "rejoin redis-2"]);
        example.assert_at_rest();
    }
}

#[test]
fn a_set_made_again_on_new_volumes_is_made_anew() {
    let mut example = applied();
    start_all(&mut example);
    example.play(&OK);
    example.made_again("set-2");
    start_all(&mut example);
    assert_eq!(example.play(&OK)[3..], ["bootstrap redis-0", "join redis-1", "join redis-2"]);
}

#[test]
fn a_member_on_a_new_volume_joins_again() {
    let mut example = applied();
    start_all(&mut example);
    example.play(&OK);
    example.new_volume(1);
    example.new_pod(1);
    assert_eq!(example.play(&OK)[3..], ["join redis-1"]);
}

#[test]
fn a_volume_of_unknown_history_holds_until_a_person_has_said_what_it_is() {
    for (adopted, runs) in [
        (Adopted::New, vec!["bootstrap redis-0", "join redis-1", "join redis-2"]),
        (Adopted::Member, vec!["rejoin redis-0", "rejoin redis-1", "rejoin redis-2"]),
    ] {
        let mut example = applied();
        start_all(&mut example);
        for volume in example.observed.volumes.values_mut() {
            volume.created = example.observed.set.created - SignedDuration::from_hours(1);
        }
        assert!(example.play(&OK).is_empty());
        assert!(holds(&example).iter().all(|hold| *hold == Hold::UnknownHistory));
        let why = &example.decide().holds[0].why;
        assert_eq!(
            *why,
            "claim data-redis-0 is older than the set: look at it, then run `guardian adopt -n shop redis --bootstrapped` or `--new`"
        );
        let uids: Vec<_> = example.observed.volumes.values().map(|volume| volume.uid.clone()).collect();
        example.ledger.state.volumes.extend(uids.into_iter().map(|uid| (uid, adopted)));
        assert_eq!(example.play(&OK), runs);
    }
}

#[test]
fn a_running_set_that_comes_under_a_policy_is_never_made_anew() {
    let mut example = applied();
    start_all(&mut example);
    example.later(600);
    for ordinal in 0..3 {
        example.new_pod(ordinal);
    }
    assert!(example.play(&OK).is_empty(), "its pods are younger than their volumes");
    assert!(holds(&example).contains(&Hold::UnknownHistory));

    let mut example = applied();
    start_all(&mut example);
    example.later(3);
    example.observed.set.unchanged = false;
    for ordinal in 0..3 {
        example.new_pod(ordinal);
    }
    assert!(example.play(&OK).is_empty(), "it was changed, and its pods made again at once");

    let mut example = applied();
    example.observed.set.has_volumes = false;
    example.observed.set.unchanged = false;
    start_all(&mut example);
    assert!(example.play(&OK).is_empty());
    assert!(holds(&example).contains(&Hold::UnknownHistory));
}

#[test]
fn members_that_were_answered_before_there_was_a_bootstrap_hook_are_a_cluster() {
    let mut example = applied();
    let hooks = example.policy.as_mut().unwrap().hooks.bootstrap.take();
    let join = example.policy.as_mut().unwrap().hooks.join.take();
    start_all(&mut example);
    assert!(example.play(&OK).is_empty());
    let policy = example.policy.as_mut().unwrap();
    (policy.hooks.bootstrap, policy.hooks.join) = (hooks, join);
    assert!(example.play(&OK).is_empty());
    assert!(example.decide().holds.is_empty());
}

#[test]
fn a_claim_that_was_not_seen_yet_is_waited_for() {
    let mut example = applied();
    start_all(&mut example);
    let unseen: Volume = example.observed.volumes.remove(&1).unwrap();
    assert!(example.play(&OK).is_empty());
    assert!(example.decide().holds.is_empty());
    example.observed.volumes.insert(1, unseen);
    assert_eq!(example.play(&OK)[0], "bootstrap redis-0");
}
