//! The selector of a Service keeps the label that pods are shed by, where a policy wants it, and nowhere else.

use serde_json::{Value, json};

use super::{ask, patched, policy, snapshot};
use crate::admission::{Reason, Snapshot, Verdict};
use crate::names;

const USER: &str = "anna";

fn service(selector: &Value) -> Value {
    json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "clients"}, "spec": {"selector": selector, "ports": [{"port": 80}]}})
}

fn known() -> Snapshot {
    snapshot(Some(&policy("traffic: {services: [clients]}")))
}

fn updated(user: &str, old: &Value, new: &Value, known: &Snapshot) -> Verdict {
    let body = json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": {
        "uid": "u", "namespace": "redis", "name": "clients", "operation": "UPDATE", "object": new, "oldObject": old,
        "kind": {"group": "", "version": "v1", "kind": "Service"}, "resource": {"group": "", "version": "v1", "resource": "services"},
        "userInfo": {"username": user},
    }});
    ask(&body.to_string(), known, "guardian:1")
}

#[test]
fn a_selector_that_is_written_as_its_author_knows_it_keeps_the_label() {
    let (old, new) = (service(&json!({"app": "web", (names::SERVING): "true"})), service(&json!({"app": "web", "tier": "2"})));
    let verdict = updated(USER, &old, &new, &known());
    assert_eq!((verdict.reason, verdict.changes.as_slice()), (Reason::Restored, &["serving"][..]));
    assert!(verdict.warnings[0].contains("policy redis-policy names this Service"), "{:?}", verdict.warnings);
    let after = patched(&new, &verdict);
    assert_eq!(after["spec"]["selector"], json!({"app": "web", "tier": "2", (names::SERVING): "true"}));
    assert!(updated(USER, &old, &after, &known()).patch.is_empty(), "and that is left as it is");
}

#[test]
fn a_service_is_left_alone_where_nothing_of_ours_would_be_lost() {
    let (asks, plain) = (json!({"app": "web", (names::SERVING): "true"}), json!({"app": "web"}));
    let controller = "system:serviceaccount:stateful-guardian:guardian-controller";
    let nobody = snapshot(Some(&policy("traffic: {services: [others]}")));
    let cases = [
        ("it never asked", USER, service(&plain), service(&plain), known()),
        ("it still asks", USER, service(&asks), service(&asks), known()),
        ("no policy names it", USER, service(&asks), service(&plain), nobody),
        ("the controller takes it out", controller, service(&asks), service(&plain), known()),
        ("it chooses no pods any more", USER, service(&asks), service(&Value::Null), known()),
        ("it chooses nothing", USER, service(&asks), service(&json!({})), known()),
        ("it cannot be read", USER, service(&asks), service(&json!(7)), known()),
    ];
    for (what, user, old, new, known) in cases {
        let verdict = updated(user, &old, &new, &known);
        assert!(verdict.patch.is_empty() && verdict.warnings.is_empty(), "{what}: {verdict:?}");
    }
}
