use guardian_hook::protocol::RunResult;
use jiff::SignedDuration;

use super::*;
use crate::ledger::Record;
use crate::lifecycle::example::{Example, outcome};
use crate::names::POLICY_KEY;
use crate::policy::{self, API_VERSION, KIND, Policy};

fn policy() -> Policy {
    let text = format!(
        "apiVersion: {API_VERSION}\nkind: {KIND}\nrole: {{command: [role]}}\n\
         hooks: {{switchover: {{command: [move], target: 'role:primary', retries: 1, backoff: 5s}}}}"
    );
    policy::parse("redis", &BTreeMap::from([(POLICY_KEY.to_owned(), text)])).unwrap()
}

/// Three pods at rest; the first is the primary, and an eviction of it waits since now.
fn example() -> Example {
    let mut example = Example::at_rest(3);
    example.policy = Some(policy());
    roles(&mut example, ["primary", "replica", "replica"]);
    ask(&mut example);
    example
}

fn roles(example: &mut Example, roles: [&str; 3]) {
    for (pod, role) in example.observed.pods.values_mut().zip(roles) {
        pod.role = (!role.is_empty()).then(|| role.to_owned());
        // The label is what its pod says.
        let claim = crate::role::Claim::parse(role).ok().map(|claim| (claim, example.now));
        let ordinal = pod.name.rsplit('-').next().unwrap().parse().unwrap();
        example.observed.roles.insert(ordinal, crate::role::Witness { since: example.now, claim, silence: None });
    }
}

fn ask(example: &mut Example) {
    let pod = &example.observed.pods[&0];
    example.observed.hand_overs = vec![HandOver {
        lease: format!("evict-{}", pod.uid),
        uid: "lease".into(),
        version: "1".into(),
        pod: pod.name.clone(),
        pod_uid: pod.uid.clone(),
        began: example.now,
    }];
}

/// The runs of the switchover that were claimed.
fn claimed(example: &Example) -> Vec<String> {
    example.claimed.iter().filter(|run| run.starts_with(SWITCHOVER)).cloned().collect()
}

fn told(record: &Record) -> (String, String, Verdict, &str) {
    (record.hook.clone(), record.reason.clone(), record.verdict, record.pod.as_str())
}

#[test]
fn the_role_is_handed_over_once_and_the_lease_goes_when_another_pod_has_it() {
    let mut example = example();
    example.pass();
    let [run] = &claimed(&example)[..] else { panic!("{:?}", example.claimed) };
    let state = &example.ledger.state;
    assert_eq!((state.runs[run].hook.as_str(), state.runs[run].pod.as_str()), ("switchover", "redis-0"));
    assert_eq!(state.episodes.values().next().unwrap().reason, "Drained");
    example.end(run, outcome(RunResult::Exited { code: 0 }));
    example.pass();
    let record = example.last_record();
    assert_eq!(told(&record), ("switchover".into(), "Drained".into(), Verdict::Succeeded, "redis-0"));
    assert!(example.decide().steps.is_empty(), "it is not begun again while the Lease is there");
    assert_eq!(example.decide().levels.hand_overs, []);

    // The old one says it first; that the role is nowhere does not mean that it has moved.
    roles(&mut example, ["replica", "replica", "replica"]);
    assert_eq!(example.decide().levels.hand_overs, []);
    roles(&mut example, ["replica", "primary", "replica"]);
    assert_eq!(example.decide().levels.hand_overs, example.observed.hand_overs);
    example.observed.hand_overs.clear();
    example.assert_at_rest();
}

#[test]
fn the_same_pod_is_handed_over_again_when_it_is_drained_again() {
    let mut example = example();
    example.pass();
    example.end(&claimed(&example)[0], outcome(RunResult::Exited { code: 0 }));
    example.pass();
    example.later(700);
    ask(&mut example);
    example.pass();
    assert_eq!(claimed(&example).len(), 2);
    assert_ne!(claimed(&example)[0], claimed(&example)[1]);
}

#[test]
fn nothing_is_begun_for_whom_it_is_of_no_use() {
    type Spoil = fn(&mut Example);
    let table: [(&str, Spoil); 6] = [
        ("it has not the role", |e| roles(e, ["replica", "primary", "replica"])),
        ("it is not ready", |e| e.observed.pods.get_mut(&0).unwrap().ready = false),
        ("it is going", |e| e.observed.pods.get_mut(&0).unwrap().deleted = Some(jiff::Timestamp::UNIX_EPOCH)),
        ("its time is over", |e| e.later(100)),
        ("it is another pod", |e| e.observed.hand_overs[0].pod_uid = "older".into()),
        ("the policy moves no role", |e| e.policy.as_mut().unwrap().hooks.switchover = None),
    ];
    for (why, spoil) in table {
        let mut example = example();
        spoil(&mut example);
        let decision = example.decide();
        assert_eq!((decision.steps.len(), decision.holds.len()), (0, 0), "{why}: {decision:?}");
    }
    let mut example = example();
    for ordinal in [1, 2] {
        example.observed.pods.get_mut(&ordinal).unwrap().ready = false;
    }
    let decision = example.decide();
    assert_eq!((decision.steps.len(), decision.holds[0].reason), (0, reason::Hold::Quorum));
    assert_eq!(decision.wake, Some(example.now + HAND_OVER));
    example.observed.pods.get_mut(&2).unwrap().ready = true;
    assert_eq!(example.decide().steps.len(), 1);
    example.observed.set.hold = Some("on call".into());
    assert_eq!(example.decide().steps.len(), 0);
}

#[test]
fn a_failure_is_tried_again_only_while_the_pod_has_the_role_and_the_time() {
    for (roles_then, seconds, verdict) in [
        (["primary", "replica", "replica"], 5, None),
        (["replica", "primary", "replica"], 5, Some(Verdict::Superseded)),
        (["primary", "replica", "replica"], 100, Some(Verdict::Failed)),
    ] {
        let mut example = example();
        example.pass();
        example.end(&claimed(&example)[0], outcome(RunResult::Exited { code: 1 }));
        example.pass();
        assert_eq!(example.last_record().verdict, Verdict::Retrying);
        roles(&mut example, roles_then);
        example.later(seconds);
        example.pass();
        match verdict {
            None => assert_eq!(claimed(&example).len(), 2),
            Some(verdict) => {
                assert_eq!((claimed(&example).len(), example.last_record().verdict), (1, verdict));
                assert!(example.decide().steps.is_empty(), "and then it is left");
            }
        }
    }
}

#[test]
fn an_outcome_that_nobody_knows_is_not_repeated() {
    let mut example = example();
    example.pass();
    example.end(&claimed(&example)[0], outcome(RunResult::Interrupted));
    example.pass();
    assert_eq!(example.last_record().verdict, Verdict::Failed);
    example.later(20);
    example.pass();
    assert_eq!(claimed(&example).len(), 1);
}

#[test]
fn a_lease_of_a_pod_that_was_replaced_goes_and_one_that_nobody_has_seen_stays() {
    let mut example = example();
    example.observed.hand_overs[0].pod_uid = "older".into();
    assert_eq!(example.decide().levels.hand_overs, [], "what is known may be older than the Lease");
    example.later(1);
    example.new_pod(0);
    assert_eq!(example.decide().levels.hand_overs, example.observed.hand_overs);
    example.observed.hand_overs[0].pod = "redis-7".into();
    assert_eq!(example.decide().levels.hand_overs, []);
}

#[test]
fn the_ledger_forgets_hand_overs_that_are_long_over() {
    let mut example = example();
    let old = example.now - SignedDuration::from_hours(2);
    example.ledger.state.handed_over.insert("old".into(), old);
    example.pass();
    example.end(&claimed(&example)[0], outcome(RunResult::Exited { code: 0 }));
    example.pass();
    let kept: Vec<&String> = example.ledger.state.handed_over.keys().collect();
    assert_eq!(kept, [&example.observed.pods[&0].uid]);
}

#[test]
fn a_role_is_not_handed_over_to_pods_that_flap_and_the_eviction_goes_on_when_its_time_is_over() {
    let mut example = example();
    let now = example.now;
    for pod in example.observed.pods.values_mut().skip(1) {
        pod.toggles = Some(crate::lifecycle::Toggles { began: now, last: now, changes: 6, whole: true });
    }
    example.pass();
    assert_eq!(claimed(&example), [""; 0]);
    let holds: Vec<reason::Hold> = example.decide().holds.iter().map(|held| held.reason).collect();
    assert_eq!(holds, [reason::Hold::Flapping, reason::Hold::Flapping, reason::Hold::Quorum]);
    example.observed.pods.get_mut(&2).unwrap().toggles = None;
    example.pass();
    assert_eq!(claimed(&example).len(), 1, "one that is steady is enough");
}
