//! What holds of admission whatever comes in. The answers to particular reviews are golden files, see `tests/admission.rs`.

mod approval;
mod guards;
mod hand_overs;
mod hostile;
mod left_alone;
mod pinned;
mod properties;
mod questions;
mod reviews;
mod serving;
mod testdata;

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::{Review, Settings, Snapshot, Verdict, judge};
use crate::policy::{self, Policy};

/// The time at which everything here is asked.
const NOW: Timestamp = Timestamp::constant(1_780_000_000, 0);

/// A policy with every hook that goes into a pod, unless `body` says otherwise.
fn policy(body: &str) -> Policy {
    let text = format!("apiVersion: stateful-guardian.io/v1alpha1\nkind: GuardianPolicy\n{body}");
    policy::parse("redis-policy", &BTreeMap::from([("policy.yaml".to_owned(), text)])).unwrap()
}

fn snapshot(policy: Option<&Policy>) -> Snapshot {
    let policies = policy.iter().map(|p| (p.name.clone(), Arc::new((*p).clone()))).collect();
    Snapshot { policies: BTreeMap::from([("redis".to_owned(), policies)]), ..Snapshot::default() }
}

fn settings(image: &str) -> Settings {
    Settings { image: image.to_owned() }
}

/// The body of a call that concerns a StatefulSet; `object` and `old` are JSON texts.
fn body(operation: &str, object: &str, old: &str) -> String {
    format!(
        r#"{{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","request":{{"uid":"u","kind":{{"group":"apps",
        "version":"v1","kind":"StatefulSet"}},"operation":"{operation}","namespace":"redis","object":{object},"oldObject":{old}}}}}"#
    )
}

fn ask(body: &str, snapshot: &Snapshot, image: &str) -> Verdict {
    judge(&Review::parse(body).unwrap(), snapshot, &settings(image))
}

/// The object as it is after the patch.
fn patched(object: &Value, verdict: &Verdict) -> Value {
    let mut after = object.clone();
    let patch: json_patch::Patch = serde_json::from_slice(&verdict.patch.to_bytes()).unwrap();
    json_patch::patch(&mut after, &patch).unwrap();
    after
}

fn set(template: &Value) -> Value {
    json!({"apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": {"name": "redis"}, "spec": {"selector": {"matchLabels": {"app": "redis"}}, "template": template}})
}
