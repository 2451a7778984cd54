//! An eviction waits for the hand-over of a role exactly where there is one to hand over, and never for long.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use super::{NOW, policy, snapshot};
use crate::admission::{
    Decision, HAND_OVER, HandOver, Known, Pod, Question, Reason, Review, Snapshot, Verdict, unrecorded, validate,
};
use crate::names;

const SWITCHOVER: &str = "role: {command: [role]}\nhooks: {switchover: {command: [move], target: \"role:primary\"}}\n";

/// The body of a call about the eviction of pod `redis-0`.
fn body(object: &Value) -> Value {
    json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": {
        "uid": "u", "namespace": "redis", "name": "redis-0", "operation": "CREATE", "object": object, "subResource": "eviction",
        "kind": {"group": "policy", "version": "v1", "kind": "Eviction"}, "resource": {"group": "", "version": "v1", "resource": "pods"},
    }})
}

fn eviction() -> Value {
    body(&json!({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "redis-0", "namespace": "redis"}}))
}

fn ask(body: &Value, snapshot: &Snapshot, now: Timestamp) -> Verdict {
    validate(&Review::parse(&body.to_string()).unwrap(), snapshot, now)
}

fn evicted(snapshot: &Snapshot) -> Verdict {
    ask(&eviction(), snapshot, NOW)
}

/// A cluster in which the eviction waits: all is known, and no hand-over has begun.
fn waiting() -> Snapshot {
    let set = Known { replicas: Some(2), ..Known::default() };
    let mut known = snapshot(Some(&policy(SWITCHOVER)));
    known.sets = BTreeMap::from([("redis".to_owned(), BTreeMap::from([("redis".to_owned(), set)]))]);
    known.namespaces = BTreeMap::from([("redis".to_owned(), Known::default())]);
    known.pods = BTreeMap::from([("redis".to_owned(), BTreeMap::from([("redis-0".to_owned(), primary())]))]);
    known.hand_overs = BTreeMap::from([("pod-uid".to_owned(), None)]);
    known
}

fn primary() -> Pod {
    let labels = [(names::GUARDED, "true"), (names::ROLE, "primary")];
    let labels = labels.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
    Pod { uid: "pod-uid".to_owned(), labels, terminating: false, ready: true, set: Some("redis".to_owned()) }
}

fn begun(began: Timestamp) -> Snapshot {
    Snapshot { hand_overs: BTreeMap::from([("pod-uid".to_owned(), Some(began))]), ..waiting() }
}

fn pod(snapshot: &mut Snapshot) -> &mut Pod {
    snapshot.pods.get_mut("redis").and_then(|pods| pods.get_mut("redis-0")).unwrap()
}

fn set(snapshot: &mut Snapshot) -> &mut Known {
    snapshot.sets.get_mut("redis").and_then(|sets| sets.get_mut("redis")).unwrap()
}

fn annotate(known: &mut Known, key: &str, value: &str) {
    known.annotations.insert(key.to_owned(), value.to_owned());
}

/// Changes one thing of the cluster that [`waiting`] is.
type Change = fn(&mut Snapshot);

/// Each cell lets the pod go for a reason of its own, whatever else holds.
const CELLS: [(&str, Change, Reason); 22] = [
    ("of nobody", |s| pod(s).set = None, Reason::NotGuarded),
    ("not guarded", |s| drop(pod(s).labels.remove(names::GUARDED)), Reason::NotGuarded),
    ("guarded: false", |s| drop(pod(s).labels.insert(names::GUARDED.into(), "false".into())), Reason::NotGuarded),
    ("terminating", |s| pod(s).terminating = true, Reason::Terminating),
    ("not ready, or pending", |s| pod(s).ready = false, Reason::NotReady),
    ("without a role", |s| drop(pod(s).labels.remove(names::ROLE)), Reason::WithoutRole),
    ("with another role", |s| drop(pod(s).labels.insert(names::ROLE.into(), "replica".into())), Reason::WithoutRole),
    ("with an empty role", |s| drop(pod(s).labels.insert(names::ROLE.into(), String::new())), Reason::WithoutRole),
    ("of a terminating set", |s| set(s).terminating = true, Reason::Terminating),
    ("of a set that is out", |s| annotate(set(s), names::INJECT, "false"), Reason::NoPolicy),
    ("of a set that names no policy", |s| annotate(set(s), names::POLICY, "none"), Reason::NoPolicy),
    ("no policy is known", |s| s.policies.clear(), Reason::NoPolicy),
    (
        "no switchover",
        |s| s.policies = snapshot(Some(&policy("hooks: {preStop: {command: [a]}}"))).policies,
        Reason::NothingToGuard,
    ),
    ("no policy of use", |s| s.policies = snapshot(Some(&policy("selector: {matchLabels: {a: b}}"))).policies, Reason::NoPolicy),
    ("the only replica", |s| set(s).replicas = Some(1), Reason::OnlyReplica),
    ("no replica is asked for", |s| set(s).replicas = Some(0), Reason::OnlyReplica),
    ("replicas are left out", |s| set(s).replicas = None, Reason::OnlyReplica),
    ("the set is held", |s| annotate(set(s), names::HOLD, ""), Reason::Held),
    ("the namespace is held", |s| annotate(s.namespaces.get_mut("redis").unwrap(), names::HOLD, "incident"), Reason::Held),
    ("the namespace goes", |s| s.namespaces.get_mut("redis").unwrap().terminating = true, Reason::Terminating),
    ("long begun", |s| s.hand_overs = begun(NOW - HAND_OVER).hand_overs, Reason::HandOverExpired),
    ("begun in another age", |s| s.hand_overs = begun(Timestamp::MAX).hand_overs, Reason::HandOverExpired),
];

#[test]
fn a_pod_with_nothing_to_hand_over_goes_at_once() {
    for (what, change, reason) in CELLS {
        let mut snapshot = waiting();
        change(&mut snapshot);
        let verdict = evicted(&snapshot);
        assert_eq!((&verdict.decision, verdict.reason), (&Decision::Allowed, reason), "{what}");
        assert_eq!((verdict.question, verdict.hand_over), (None, None), "{what}");
        assert!(verdict.warnings.iter().all(|warning| warning.len() <= 200), "{what}");
    }
}

/// Of two excuses each is as good as one, so that no combination of states holds a drain up.
#[test]
fn no_two_changes_together_make_a_pod_wait_that_either_lets_go() {
    for (first, one, _) in CELLS {
        for (second, other, _) in CELLS {
            let mut snapshot = waiting();
            one(&mut snapshot);
            other(&mut snapshot);
            assert_eq!(evicted(&snapshot).decision, Decision::Allowed, "{first}, {second}");
        }
    }
}

#[test]
fn the_first_eviction_begins_the_hand_over_and_says_until_when_it_may_take() {
    let verdict = evicted(&waiting());
    let Decision::Denied { code: 429, message } = &verdict.decision else { panic!("{:?}", verdict.decision) };
    assert!(message.starts_with("pod redis-0 holds the role primary, which policy redis-policy hands over first"), "{message}");
    assert!(message.contains("until 2026-05-28T20:28:20Z (in 100 s)"), "{message}");
    assert_eq!(verdict.reason, Reason::HandingOver);
    let expected = HandOver { pod_uid: "pod-uid".to_owned(), holder: "redis/redis-0".to_owned() };
    assert_eq!(verdict.hand_over, Some(expected));
    let response: Value = serde_json::from_slice(&verdict.to_response("u")).unwrap();
    let status = &response["response"]["status"];
    assert_eq!((&status["reason"], &status["details"]["retryAfterSeconds"]), (&json!("TooManyRequests"), &json!(1)));
}

#[test]
fn a_hand_over_that_has_begun_is_waited_for_until_its_time_is_over() {
    let begun_before = |milliseconds: i64| begun(NOW - SignedDuration::from_millis(milliseconds));
    let cases = [
        (0, Some("(in 100 s)")),
        (1, Some("(in 100 s)")),
        (30_500, Some("(in 70 s)")),
        (99_999, Some("(in 1 s)")),
        (100_000, None),
        (100_001, None),
        (3_600_000, None),
        // Written by a clock that is ahead of ours.
        (-1, Some("(in 100 s)")),
        (-100_000, Some("(in 100 s)")),
        (-100_001, None),
        (-3_600_000, None),
    ];
    for (milliseconds, left) in cases {
        let verdict = evicted(&begun_before(milliseconds));
        assert_eq!(verdict.hand_over, None, "it has begun already");
        match (left, &verdict.decision) {
            (Some(left), Decision::Denied { code: 429, message }) => assert!(message.contains(left), "{milliseconds}: {message}"),
            (None, Decision::Allowed) => assert_eq!(verdict.reason, Reason::HandOverExpired, "{milliseconds}"),
            (_, decision) => panic!("{milliseconds}: {decision:?}"),
        }
    }
}

/// Whatever a Lease says, whoever asks again and again is let through after twice the time that a hand-over has.
#[test]
fn no_time_of_a_lease_holds_a_pod_for_longer_than_twice_the_hand_over() {
    let text = eviction().to_string();
    let review = Review::parse(&text).unwrap();
    let every_ten = |from: i64, to: i64| (from..=to).step_by(10).map(|seconds| NOW + SignedDuration::from_secs(seconds));
    for began in every_ten(-250, 250).chain([Timestamp::MIN, Timestamp::UNIX_EPOCH, Timestamp::MAX]) {
        let snapshot = begun(began);
        let waits = |now: &Timestamp| validate(&review, &snapshot, *now).decision != Decision::Allowed;
        let waited = every_ten(0, 600).filter(waits).count();
        assert!(waited <= 20, "{began}: {waited} times 10 s");
        assert!(![Timestamp::MIN, Timestamp::MAX].iter().filter(|end| **end != began).any(waits), "{began}");
    }
}

#[test]
fn what_is_not_known_is_asked_for_one_by_one_and_lets_the_pod_go_without_an_answer() {
    let forget: [(Change, Question, Reason); 4] = [
        (|s| s.pods.clear(), Question::Pod("redis-0".to_owned()), Reason::UnknownPod),
        (|s| s.sets.clear(), Question::Set("redis".to_owned()), Reason::UnknownSet),
        (|s| s.namespaces.clear(), Question::Namespace, Reason::HandOverUnknown),
        (|s| s.hand_overs.clear(), Question::HandOver("pod-uid".to_owned()), Reason::HandOverUnknown),
    ];
    let mut snapshot = waiting();
    for (change, question, reason) in forget.into_iter().rev() {
        change(&mut snapshot);
        let verdict = evicted(&snapshot);
        assert_eq!((&verdict.decision, verdict.reason), (&Decision::Allowed, reason));
        assert_eq!((verdict.question, verdict.hand_over), (Some(question), None));
        assert!(verdict.warnings.iter().all(|warning| warning.starts_with("no hand-over is waited for: ")));
    }
}

#[test]
fn a_hand_over_that_cannot_be_written_down_lets_the_pod_go() {
    let verdict = unrecorded(evicted(&waiting()));
    assert_eq!((&verdict.decision, verdict.reason), (&Decision::Allowed, Reason::HandOverUnknown));
    assert_eq!((verdict.warnings.len(), verdict.hand_over), (1, None));
    assert!(verdict.policy.is_some());
}

/// An eviction is one thing alone; no other request about pods, and no eviction of anything else, is judged as one.
#[test]
fn what_is_not_the_creation_of_an_eviction_of_a_pod_is_not_ours() {
    let changes: [fn(&mut Value); 7] = [
        |r| r["operation"] = json!("CONNECT"),
        |r| r["operation"] = json!("DELETE"),
        |r| r["subResource"] = json!("exec"),
        |r| r["subResource"] = json!(""),
        |r| r["kind"] = json!({"group": "policy", "version": "v1beta1", "kind": "Eviction"}),
        |r| r["kind"] = json!({"group": "", "version": "v1", "kind": "Pod"}),
        |r| r["resource"] = json!({"group": "apps", "version": "v1", "resource": "pods"}),
    ];
    for change in changes {
        let mut body = eviction();
        change(&mut body["request"]);
        let verdict = ask(&body, &waiting(), NOW);
        assert_eq!((&verdict.decision, verdict.reason), (&Decision::Allowed, Reason::NotOurs), "{body}");
    }
}

/// The Eviction itself says nothing that counts, except that it is a dry run.
#[test]
fn whatever_the_eviction_object_holds_only_a_dry_run_in_it_matters() {
    let objects = [
        (Value::Null, false),
        (json!(5), false),
        (json!({"metadata": {"name": "another", "labels": []}}), false),
        (json!({"deleteOptions": null}), false),
        (json!({"deleteOptions": {"dryRun": []}}), false),
        (json!({"deleteOptions": {"dryRun": ["All"]}}), true),
        (json!({"deleteOptions": {"dryRun": ["All"], "preconditions": {"uid": "x"}}}), true),
    ];
    for (object, dry) in objects {
        let text = body(&object).to_string();
        let review = Review::parse(&text).unwrap();
        assert_eq!(review.dry_run, dry, "{text}");
        assert_eq!(validate(&review, &waiting(), NOW).reason, Reason::HandingOver, "{text}");
    }
}
