//! Guards hold whichever way a request takes, and deny nothing that they cannot read.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::{NOW, policy, snapshot};
use crate::admission::{Decision, Known, Reason, Review, Snapshot, Verdict, validate};

/// The body of a call about the set `redis` or its scale; `kind` is either.
fn body(kind: &str, operation: &str, object: &str, old: &str) -> String {
    let (group, subresource) = if kind == "Scale" { ("autoscaling", "scale") } else { ("apps", "") };
    format!(
        r#"{{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","request":{{"uid":"u","namespace":"redis","name":"redis",
        "kind":{{"group":"{group}","version":"v1","kind":"{kind}"}},"subResource":"{subresource}",
        "resource":{{"group":"apps","version":"v1","resource":"statefulsets"}},
        "operation":"{operation}","object":{object},"oldObject":{old}}}}}"#
    )
}

fn ask(body: &str, snapshot: &Snapshot) -> Verdict {
    validate(&Review::parse(body).unwrap(), snapshot, NOW)
}

/// A snapshot in which nothing is left to ask.
fn all_known(rest: &str) -> Snapshot {
    let known = |name: &str| BTreeMap::from([(name.to_owned(), Known::default())]);
    let sets = BTreeMap::from([("redis".to_owned(), known("redis"))]);
    Snapshot { sets, namespaces: known("redis"), ..snapshot(Some(&policy(rest))) }
}

fn with_replicas(replicas: i64) -> String {
    json!({"metadata": {"name": "redis"}, "spec": {"replicas": replicas}}).to_string()
}

/// Why a change of `from` to `to` replicas is denied.
fn expected(from: i64, to: i64, min: i64, leave: bool) -> Reason {
    match from - to {
        1.. if to < min => Reason::BelowMinReplicas,
        2.. if leave => Reason::ScaleInByMany,
        _ => Reason::NothingToGuard,
    }
}

#[test]
fn only_what_lowers_is_denied_and_both_ways_of_lowering_alike() {
    for (min, leave) in (1..=5).flat_map(|min| [(min, true), (min, false)]) {
        let hooks = if leave { "hooks: {leave: {command: [leave]}}\n" } else { "" };
        let snapshot = all_known(&format!("protect: {{minReplicas: {min}}}\n{hooks}"));
        for (from, to) in (0..8).flat_map(|from| (0..8).map(move |to| (from, to))) {
            for kind in ["StatefulSet", "Scale"] {
                let verdict = ask(&body(kind, "UPDATE", &with_replicas(to), &with_replicas(from)), &snapshot);
                let reason = expected(from, to, min, leave);
                assert_eq!(verdict.reason, reason, "{kind}: {from} -> {to}, at least {min}, leave: {leave}");
                let denied = matches!(verdict.decision, Decision::Denied { code: 403, .. });
                assert_eq!(denied, reason != Reason::NothingToGuard);
                assert_eq!(verdict.question, None);
            }
        }
    }
}

#[test]
fn what_cannot_be_read_is_never_denied() {
    let snapshot = all_known("protect: {minReplicas: 3, deletion: deny}\nhooks: {leave: {command: [leave]}}");
    let (few, many) = (with_replicas(0), with_replicas(9));
    let of_both = [
        "null",
        "5",
        r#""text""#,
        r#"{"spec":5}"#,
        r#"{"spec":{"replicas":"5"}}"#,
        r#"{"spec":{"replicas":5.5}}"#,
        r#"{"spec":{"replicas":99999999999999999999}}"#,
        r#"{"spec":{"replicas":5,"replicas":5}}"#,
    ];
    // A Scale's metadata is not read.
    let of_a_set = [r#"{"metadata":5}"#, r#"{"metadata":{"labels":[]}}"#, r#"{"metadata":{"annotations":{"a":5}}}"#];
    let cases = of_both.iter().map(|odd| ("Scale", odd));
    let cases = cases.chain(of_both.iter().chain(&of_a_set).map(|odd| ("StatefulSet", odd)));
    for (kind, odd) in cases {
        let mut requests = vec![body(kind, "UPDATE", &few, odd), body(kind, "UPDATE", odd, &many)];
        if kind == "StatefulSet" {
            requests.push(body(kind, "DELETE", "null", odd));
        }
        for request in requests {
            let verdict = ask(&request, &snapshot);
            assert_eq!((&verdict.decision, verdict.reason), (&Decision::Allowed, Reason::Unreadable), "{request}");
            assert!(verdict.warnings.iter().all(|warning| warning.starts_with("no guard looked at this: ")), "{request}");
        }
    }
}

/// Nobody gets past a guard by what he says of the set in the request that lowers it.
#[test]
fn a_request_cannot_excuse_itself_but_by_the_hold() {
    let snapshot = all_known("protect: {minReplicas: 2}");
    let old = json!({"metadata": {"name": "redis"}, "spec": {"replicas": 3}});
    let lowered = |metadata: Value| json!({"metadata": metadata, "spec": {"replicas": 1}}).to_string();
    let cases = [
        (json!({"deletionTimestamp": "2026-05-04T10:00:00Z"}), Reason::BelowMinReplicas),
        (json!({"annotations": {"stateful-guardian.io/inject": "false"}}), Reason::BelowMinReplicas),
        (json!({"annotations": {"stateful-guardian.io/policy": "none"}}), Reason::BelowMinReplicas),
        (json!({"annotations": {"stateful-guardian.io/allow-deletion": "true"}}), Reason::BelowMinReplicas),
        (json!({"annotations": {"stateful-guardian.io/hold": ""}}), Reason::Held),
    ];
    for (metadata, reason) in cases {
        let request = body("StatefulSet", "UPDATE", &lowered(metadata.clone()), &old.to_string());
        assert_eq!(ask(&request, &snapshot).reason, reason, "{metadata}");
    }
}
