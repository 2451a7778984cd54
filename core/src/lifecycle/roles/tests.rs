use std::collections::BTreeMap;

use super::*;
use crate::lifecycle::example::Example;
use crate::names::POLICY_KEY;
use crate::policy::{self, API_VERSION, KIND};
use crate::reason;
use crate::role::{Claim, Silence, Witness};

fn policy(rest: &str) -> Policy {
    let text = format!("apiVersion: {API_VERSION}\nkind: {KIND}\n{rest}");
    policy::parse("redis", &BTreeMap::from([(POLICY_KEY.to_owned(), text)])).unwrap()
}

/// Three pods of a policy with a role, and the last word of each, of now.
fn example(words: [&str; 3]) -> Example {
    let mut example = Example::at_rest(3);
    example.policy = Some(policy("role: {command: [role], every: 5s}"));
    for (ordinal, word) in (0..).zip(words) {
        let claim = Claim::parse(word).ok().map(|claim| (claim, example.now));
        example.observed.roles.insert(ordinal, Witness { since: example.now, claim, silence: None });
    }
    example
}

fn label(example: &mut Example, labels: [&str; 3]) {
    for (pod, label) in example.observed.pods.values_mut().zip(labels) {
        pod.role = (!label.is_empty()).then(|| label.to_owned());
    }
}

/// The changes, as `POD ROLE`.
fn changes(example: &Example) -> Vec<String> {
    let decision = example.decide();
    assert_eq!(decision.steps, []);
    let told = |change: &Relabel| format!("{} {}", change.pod, change.role.as_deref().unwrap_or("-"));
    decision.levels.roles.iter().map(told).collect()
}

#[test]
fn labels_follow_what_the_pods_say_and_then_nothing_is_to_be_done() {
    let mut example = example(["primary 2", "replica", "primary 1"]);
    label(&mut example, ["", "primary", "primary"]);
    assert_eq!(changes(&example), ["redis-0 primary", "redis-1 replica", "redis-2 -"]);
    label(&mut example, ["primary", "replica", ""]);
    example.assert_at_rest();
}

#[test]
fn a_set_on_hold_or_without_a_policy_keeps_its_labels_and_one_without_a_role_loses_them() {
    let mut example = example(["primary", "replica", "replica"]);
    label(&mut example, ["replica", "", ""]);
    example.observed.set.hold = Some("on call".into());
    assert_eq!(changes(&example), [""; 0]);
    example.observed.set.hold = None;
    let policy_with = example.policy.take();
    assert_eq!(changes(&example), [""; 0]);
    example.policy = Some(policy(""));
    assert_eq!(changes(&example), ["redis-0 -"]);
    example.policy = policy_with;
    assert_eq!(changes(&example), ["redis-0 primary", "redis-1 replica", "redis-2 replica"]);
}

#[test]
fn silence_is_looked_at_again_when_it_has_lasted_and_said() {
    let mut example = example(["primary", "replica", "replica"]);
    label(&mut example, ["primary", "replica", "replica"]);
    let since = example.now;
    example.observed.roles.get_mut(&0).unwrap().silence = Some(Silence { since, why: Some("it hangs".into()) });
    assert_eq!(example.decide().wake, Some(since + jiff::SignedDuration::from_secs(15)));
    example.later(15);
    let decision = example.decide();
    assert_eq!(decision.wake, None);
    assert_eq!(changes(&example), ["redis-0 -"]);
    let [held] = &decision.holds[..] else { panic!("{decision:?}") };
    assert_eq!((held.scenario, held.reason), ("role", reason::Hold::RoleUnknown));
    assert_eq!(held.why, "pod redis-0 does not tell its role: it hangs");
}

#[test]
fn the_primary_is_the_only_pod_of_the_role_that_the_policy_moves() {
    let role = "role: {command: [role]}\n";
    let moved = format!("{role}hooks: {{switchover: {{command: [x], target: 'role:leader'}}}}\n");
    let both = format!("{moved}update: {{strategy: guarded, last: 'role:master'}}");
    let last = format!("{role}update: {{strategy: guarded, last: 'role:master'}}");
    let at = format!("{role}update: {{strategy: guarded, last: 'ordinal:1'}}");
    let mut example = Example::at_rest(3);
    for (rest, labels, expected) in [
        (moved.as_str(), ["leader", "primary", ""], Some(0)),
        (&moved, ["replica", "primary", ""], None),
        (&both, ["leader", "master", ""], Some(0)),
        (&last, ["primary", "master", ""], Some(1)),
        (&at, ["replica", "replica", "primary"], Some(2)),
        (role, ["replica", "master", "replica"], Some(1)),
        (role, ["master", "primary", "replica"], Some(1)),
        (role, ["primary", "primary", "replica"], None),
        (role, ["", "", ""], None),
    ] {
        label(&mut example, labels);
        assert_eq!(primary(&example.observed, &policy(rest)), expected, "{rest} {labels:?}");
    }
}
