use guardian_hook::protocol::RunResult;

use super::super::example::Example;
use super::*;
use crate::policy::OnFailure;
use crate::reason::Hold;

const EXIT_1: RunResult = RunResult::Exited { code: 1 };

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + second).unwrap()
}

/// After changes at these seconds.
fn toggles(changes: &[i64]) -> Toggles {
    let count = |before: Option<Toggles>, second: &i64| Some(Toggles::changed(before.as_ref(), 1, at(*second)));
    changes.iter().fold(None, count).unwrap()
}

#[test]
fn a_pod_flaps_from_the_sixth_change_of_a_sequence_until_nothing_has_changed_for_two_minutes() {
    type Case<'c> = (&'c [i64], i64, bool);
    let cases: &[Case<'_>] = &[
        // A start; a restart; a restart whose hook makes it not ready once more.
        (&[0], 0, false),
        (&[0, 30], 30, false),
        (&[0, 30, 60, 90], 90, false),
        (&[0, 30, 60, 90, 120], 120, false),
        (&[0, 30, 60, 90, 120, 150], 150, true),
        (&[0, 30, 60, 90, 120, 150], 269, true),
        (&[0, 30, 60, 90, 120, 150], 270, false),
        // It goes on, and is as long over after the last of them.
        (&[0, 30, 60, 90, 120, 150, 260], 379, true),
        (&[0, 30, 60, 90, 120, 150, 260], 380, false),
        // As slow as it can be: ten minutes.
        (&[0, 119, 238, 357, 476, 595], 595, true),
        // Two minutes without a change begin anew.
        (&[0, 30, 60, 90, 120, 240], 240, false),
        (&[0, 30, 60, 90, 120, 150, 270], 270, false),
    ];
    for (changes, now, flaps) in cases {
        assert_eq!(toggles(changes).flaps(at(*now)), *flaps, "{changes:?} at {now}");
    }
    assert_eq!(toggles(&[0, 30, 60, 90, 120, 150, 260]).began, at(0), "the same as long as it lasts");
}

#[test]
fn changes_that_were_missed_between_two_looks_count_too() {
    let twice = |before: Option<Toggles>, second| Some(Toggles::changed(before.as_ref(), 2, at(second)));
    let after = [0, 50, 100].into_iter().fold(None, twice).unwrap();
    assert!(after.flaps(at(100)), "{after:?}");
}

#[test]
fn what_nobody_has_watched_is_neither_said_to_flap_nor_counted_on_before_it_has_settled() {
    let mut example = Example::at_rest(3);
    let now = example.now;
    let ready = |example: &Example, toggles: &Toggles| {
        let mut pod = example.observed.pods[&0].clone();
        pod.toggles = Some(toggles.clone());
        let policy = example.policy.as_ref();
        View { observed: &example.observed, policy, ledger: &example.ledger.state, now: example.now }.is_steady(&pod)
    };
    let unwatched = Toggles::unwatched(now);
    assert!(!ready(&example, &unwatched) && !unwatched.flaps(now));
    let again = Toggles::changed(Some(&unwatched), 1, now + SignedDuration::from_secs(100));
    example.later(150);
    assert!(!ready(&example, &again), "the sequence goes on: {again:?}");
    example.later(70);
    assert!(ready(&example, &again));
    let watched = Toggles::changed(Some(&again), 1, example.now);
    assert!(watched.whole && ready(&example, &watched), "a sequence of its own, of one");
}

/// A set of three whose first pod has so many changes behind it, the last just now, and is ready.
fn flapping(mut example: Example, changes: u32) -> Example {
    let toggles = Toggles { began: example.now, last: example.now, changes, whole: true };
    example.observed.pods.get_mut(&0).unwrap().toggles = Some(toggles);
    example
}

#[test]
fn no_ready_pod_is_made_anew_on_the_strength_of_one_that_flaps_and_it_is_as_soon_as_that_has_settled() {
    for (changes, evicted) in [(MANY - 1, true), (MANY, false)] {
        let mut example = Example::at_rest(3);
        let hook = example.policy.as_mut().unwrap().hooks.rejoin.as_mut().unwrap();
        (hook.retries, hook.on_failure) = (0, OnFailure::Recreate);
        let mut example = flapping(example, changes);
        // It goes on for longer than what is played.
        let last = example.now + SignedDuration::from_hours(1);
        example.observed.pods.get_mut(&0).unwrap().toggles.as_mut().unwrap().last = last;
        example.crash(1);
        example.play(&EXIT_1);
        assert_eq!(!example.evicted.is_empty(), evicted, "{changes} changes: {:?}", example.decide().holds);
        if !evicted {
            let holds: Vec<Hold> = example.decide().holds.iter().map(|held| held.reason).collect();
            assert_eq!(holds, [Hold::Flapping, Hold::Quorum]);
            assert_eq!(example.decide().wake, Some(last + SETTLED), "it looks again when that has settled");
            example.now = last + SETTLED;
            example.play(&EXIT_1);
            assert_eq!(example.evicted[0], "redis-1");
        }
    }
}

#[test]
fn one_that_flaps_is_said_to_once_in_the_same_words_and_an_ordinary_failure_says_nothing() {
    let example = flapping(Example::at_rest(3), MANY - 1);
    assert_eq!((example.decide().holds, example.decide().wake), (vec![], None));
    let mut example = flapping(example, MANY);
    let first = example.decide().holds;
    assert_eq!(first.iter().map(|held| held.reason).collect::<Vec<_>>(), [Hold::Flapping]);
    example.later(60);
    let pod = example.observed.pods.get_mut(&0).unwrap();
    pod.toggles = Some(Toggles::changed(pod.toggles.as_ref(), 1, example.now));
    assert_eq!(example.decide().holds, first);
    example.observed.set.hold = Some("on call".into());
    assert_eq!(example.decide().holds.iter().map(|held| held.reason).collect::<Vec<_>>(), [Hold::OnHold]);
}
