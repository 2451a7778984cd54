//! What the targets share: a policy with everything that can be written into a template, and the questions that they ask.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use guardian_core::admission::{Review, Settings, Snapshot, Verdict, judge};
use guardian_core::policy::{self, Policy};
use serde_json::Value;

/// The namespaces of the golden cases.
const NAMESPACES: [&str; 2] = ["redis", "data"];

/// Policies in the shapes that matter to a template: everything, everything by force, and little.
const POLICIES: [&str; 3] = [
    "readyAfter: join\nprotect: {priorityClassName: critical, spread: [zone], minReplicas: 2, deletion: deny}\n\
     inject: {initOrder: last}\nhooks: {init: {command: [a]}, rejoin: {command: [r]}, preStop: {command: [b], timeout: 60s}, leave: {command: [l]}}",
    "readyAfter: join\nprotect: {priorityClassName: critical, override: true, spread: [zone]}\n\
     inject: {initOrder: \"before:prepare\"}\nhooks: {init: {command: [a]}, rejoin: {command: [r]}, preStop: {command: [b], timeout: 9m}}",
    "hooks: {preStop: {command: [b]}}\ninject: {ownPreStop: keep}",
];

/// A snapshot in which one of [`POLICIES`] guards everything.
///
/// # Panics
/// When the language has changed, and a policy here has not.
#[must_use]
pub fn snapshot(which: usize) -> Snapshot {
    let body = POLICIES[which % POLICIES.len()];
    let text = format!("apiVersion: stateful-guardian.io/v1alpha1\nkind: GuardianPolicy\n{body}");
    let policy = policy::parse("policy", &BTreeMap::from([("policy.yaml".to_owned(), text)])).expect("a valid policy");
    let policies: BTreeMap<String, Arc<Policy>> = BTreeMap::from([(policy.name.clone(), Arc::new(policy))]);
    let policies = NAMESPACES.into_iter().map(|namespace| (namespace.to_owned(), policies.clone())).collect();
    Snapshot { policies, priority_classes: Some(BTreeSet::from(["critical".to_owned()])), ..Snapshot::default() }
}

/// What an installation decides.
#[must_use]
pub fn settings() -> Settings {
    Settings { image: "guardian:1".to_owned() }
}

/// The answer to a request that makes this StatefulSet, and the set after it.
///
/// # Panics
/// When the patch does not apply, or touches anything but the template.
#[must_use]
pub fn created(object: &Value, snapshot: &Snapshot) -> (Verdict, Value) {
    let body = format!(
        r#"{{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","request":{{"uid":"u","namespace":"redis","name":"redis",
        "kind":{{"group":"apps","version":"v1","kind":"StatefulSet"}},"resource":{{"group":"apps","version":"v1","resource":"statefulsets"}},
        "operation":"CREATE","object":{object},"oldObject":null}}}}"#
    );
    let review = Review::parse(&body).expect("a review");
    let verdict = judge(&review, snapshot, &settings());
    let after = patched(object, &verdict);
    (verdict, after)
}

/// The object after the patch, as the API server makes it.
///
/// # Panics
/// When the patch does not apply, or touches anything but the template.
#[must_use]
pub fn patched(object: &Value, verdict: &Verdict) -> Value {
    let mut after = object.clone();
    let operations: Value = serde_json::from_slice(&verdict.patch.to_bytes()).expect("a patch is JSON");
    for operation in operations.as_array().into_iter().flatten() {
        let path = operation["path"].as_str().expect("a path");
        assert!(path == "/spec/template" || path.starts_with("/spec/template/"), "{operation}");
    }
    let patch: json_patch::Patch = serde_json::from_value(operations).expect("a patch of RFC 6902");
    json_patch::patch(&mut after, &patch).expect("a patch that applies");
    after
}
