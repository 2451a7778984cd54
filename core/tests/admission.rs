//! Golden reviews: what admission answers to requests as an API server sends them.
//!
//! A case of `src/admission/testdata` is three files:
//!
//! - `NAME.review.json`: the body of the webhook call
//! - `NAME.policy.yaml`: the ConfigMaps with policies and the PriorityClasses of the namespace's cluster, and what it knows of
//!   StatefulSets, pods, Leases and the namespace itself, and whether the author may create `pods/exec` (a SubjectAccessReview); may be
//!   left out
//! - `NAME.expected.json`: the response with its patch decoded, and the reason and changes of the audit line; for a validating webhook
//!   also what it would ask the cluster, and have recorded
//!
//! Cases `eviction-*`, `guard-*` and `policy-*` are calls of the validating webhooks, all others of the mutating one.
//!
//! `UPDATE_GOLDENS=1 cargo test -p guardian-core --test admission` writes the expected files anew: read the difference.

#![expect(clippy::indexing_slicing, reason = "a missing member of a JSON value reads as null, and a test may fail on it")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use guardian_core::admission::{Known, Pod, Reason, Review, Settings, Snapshot, Verdict, judge, validate};
use guardian_core::policy::Approval;
use guardian_core::{names, policy};
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Value, json};

datatest_stable::harness! {
    { test = golden, root = "src/admission/testdata", pattern = r"\.review\.json$" },
}

/// The time at which every review is judged: 2026-05-28T20:26:40Z.
const NOW: Timestamp = Timestamp::constant(1_780_000_000, 0);

fn golden(path: &Path) -> datatest_stable::Result<()> {
    let case = path.to_str().and_then(|p| p.strip_suffix(".review.json")).ok_or("a path in UTF-8")?;
    let snapshot = snapshot(Path::new(&format!("{case}.policy.yaml")))?;
    let review: Value = serde_json::from_str(&std::fs::read_to_string(path)?)?;
    let file = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let validates = ["eviction-", "guard-", "policy-"].iter().any(|prefix| file.starts_with(prefix));
    let ask = if validates { validated } else { judged };
    let (verdict, response) = ask(&review, &snapshot)?;

    let mut actual = response.clone();
    actual["patch"] = patch(&response)?;
    actual["reason"] = json!(verdict.reason);
    actual["changes"] = json!(verdict.changes);
    if let Some(question) = verdict.question.as_ref().filter(|_| validates) {
        actual["question"] = json!(format!("{question:?}"));
    }
    if let Some(Approval { namespace, policy, digest, user }) = &verdict.approval {
        actual["approval"] = json!({"namespace": namespace, "policy": policy, "digest": digest, "user": user});
    }
    let actual = format!("{}\n", serde_json::to_string_pretty(&actual)?);
    let expected_path = format!("{case}.expected.json");
    if std::env::var_os("UPDATE_GOLDENS").is_some() {
        std::fs::write(&expected_path, &actual)?;
    }
    let expected = std::fs::read_to_string(&expected_path)?;
    if actual != expected {
        return Err(format!("{expected_path} is stale (UPDATE_GOLDENS=1 rewrites it); now it is\n{actual}").into());
    }
    if verdict.warnings.iter().any(|w| w.len() > 200) {
        return Err("a warning is longer than 200 bytes".into());
    }
    if validates {
        return holds_of_a_validation(&review, &response, &snapshot);
    }
    holds(&review, &response, verdict.reason, &snapshot)
}

/// What holds of every answer of a validating webhook: the API server takes no patch from it, and a dry run is judged alike.
fn holds_of_a_validation(review: &Value, response: &Value, snapshot: &Snapshot) -> datatest_stable::Result<()> {
    let mut dry = review.clone();
    dry["request"]["dryRun"] = json!(true);
    assert_eq!(&validated(&dry, snapshot)?.1, response);
    assert!(response.get("patch").is_none() && response.get("patchType").is_none(), "{response}");
    let message = response["status"]["message"].as_str();
    assert_eq!(message.is_some(), response["allowed"] == json!(false), "a denial says why");
    Ok(())
}

/// What holds of every answer of the mutating webhook.
fn holds(review: &Value, response: &Value, reason: Reason, snapshot: &Snapshot) -> datatest_stable::Result<()> {
    let before = &review["request"]["object"];
    let mut after = before.clone();
    json_patch::patch(&mut after, &serde_json::from_value::<json_patch::Patch>(patch(response)?)?)?;

    // Nothing but the template: the set's other fields are immutable, or none of a policy's business.
    for operation in patch(response)?.as_array().into_iter().flatten() {
        let path = operation["path"].as_str().unwrap_or_default();
        assert!(path == "/spec/template" || path.starts_with("/spec/template/"), "{operation}");
    }

    let own = |path: &str| path.contains("guardian") || SCALARS.iter().any(|scalar| path.ends_with(scalar));
    if !matches!(reason, Reason::Restored | Reason::Removed) {
        survives(before, &after, "", &own)?;
    }

    let mut again = review.clone();
    again["request"]["object"] = after.clone();
    let mut create = again.clone();
    create["request"]["operation"] = json!("CREATE");
    create["request"]["oldObject"] = Value::Null;
    let mut update = again.clone();
    update["request"]["operation"] = json!("UPDATE");
    let created = review["request"]["oldObject"].is_null();
    if created {
        update["request"]["oldObject"] = before.clone();
    }
    // What an older policy wrote stays until the user changes the template, and no longer. So a set that was created without a policy,
    // from a copy with our parts, is no update of that copy: there they would be put back.
    let pinned = matches!(reason, Reason::Restored | Reason::PinnedByRecord | Reason::TemplateUnchanged | Reason::Terminating);
    for (name, repeated, skipped) in
        [("the same", again, false), ("a CREATE", create, pinned), ("an UPDATE", update, created && reason == Reason::Removed)]
    {
        let (_, response) = judged(&repeated, snapshot)?;
        let silent = response.get("patch").is_none() && response.get("patchType").is_none();
        if !skipped && !silent {
            return Err(format!("its own output, sent back as {name}, is changed: {}", patch(&response)?).into());
        }
    }
    Ok(())
}

/// Fields that the user may own and the guardian may write.
const SCALARS: [&str; 5] =
    ["/terminationGracePeriodSeconds", "/priorityClassName", "/lifecycle/preStop", "/startupProbe", "/topologySpreadConstraints"];

/// Is all of `before` in `after`, ours aside? Items of lists are found by their names.
fn survives(before: &Value, after: &Value, path: &str, own: &impl Fn(&str) -> bool) -> Result<(), String> {
    if own(path) || before == after {
        return Ok(());
    }
    match (before, after) {
        (Value::Object(before), Value::Object(after)) => before
            .iter()
            .try_for_each(|(key, value)| survives(value, after.get(key).unwrap_or(&Value::Null), &format!("{path}/{key}"), own)),
        (Value::Array(before), Value::Array(after)) => before.iter().try_for_each(|item| {
            let name = item["name"].as_str().ok_or(format!("{path}: an item without a name has changed"))?;
            let found = after.iter().find(|other| other["name"] == item["name"]).unwrap_or(&Value::Null);
            survives(item, found, &format!("{path}/{name}"), own)
        }),
        _ => Err(format!("{path}: {before} has become {after}")),
    }
}

type Answer = (Verdict, Value);

fn judged(review: &Value, snapshot: &Snapshot) -> datatest_stable::Result<Answer> {
    let settings = Settings { image: "stateful-guardian/guardian:0.1.0".to_owned() };
    answer(review, |review| judge(review, snapshot, &settings))
}

fn validated(review: &Value, snapshot: &Snapshot) -> datatest_stable::Result<Answer> {
    answer(review, |review| validate(review, snapshot, NOW))
}

fn answer(review: &Value, decide: impl FnOnce(&Review<'_>) -> Verdict) -> datatest_stable::Result<Answer> {
    let body = review.to_string();
    let review = Review::parse(&body)?;
    let verdict = decide(&review);
    let response: Value = serde_json::from_slice(&verdict.to_response(&review.uid))?;
    assert_eq!((&response["apiVersion"], &response["kind"]), (&json!("admission.k8s.io/v1"), &json!("AdmissionReview")));
    assert_eq!(response["response"]["uid"].as_str(), Some(review.uid.as_ref()));
    Ok((verdict, response["response"].clone()))
}

fn patch(response: &Value) -> datatest_stable::Result<Value> {
    let Some(patch) = response["patch"].as_str() else { return Ok(json!([])) };
    assert_eq!(response["patchType"], "JSONPatch");
    Ok(serde_json::from_slice(&STANDARD.decode(patch)?)?)
}

fn snapshot(path: &Path) -> datatest_stable::Result<Snapshot> {
    let mut snapshot = Snapshot { priority_classes: Some(BTreeSet::new()), ..Snapshot::default() };
    let text = if path.exists() { std::fs::read_to_string(path)? } else { String::new() };
    for document in serde_saphyr::from_multiple::<Document>(&text)? {
        let Document { kind, metadata, data, spec, status } = document;
        let Metadata { name, uid, namespace, labels, annotations, deletion_timestamp } = metadata;
        let terminating = deletion_timestamp.is_some();
        let known = Known { labels, annotations, terminating, replicas: spec.replicas };
        match kind.as_str() {
            "PriorityClass" => drop(snapshot.priority_classes.get_or_insert_default().insert(name)),
            "StatefulSet" => drop(snapshot.sets.entry(namespace).or_default().insert(name, known)),
            "Pod" => {
                let pod = Pod { uid, labels: known.labels, terminating, ready: true, set: Some("redis-sts".to_owned()) };
                snapshot.pods.entry(namespace).or_default().insert(name, pod);
            }
            "Lease" => {
                let pod = name.strip_prefix(names::HAND_OVER_PREFIX).ok_or("a Lease of a hand-over")?;
                snapshot.hand_overs.insert(pod.to_owned(), spec.acquire_time);
            }
            "SubjectAccessReview" => snapshot.may_exec = Some(status.allowed),
            "Namespace" => drop(snapshot.namespaces.insert(name, known)),
            "ConfigMap" => {
                let policy = policy::parse(&name, &data)?;
                snapshot.policies.entry(namespace).or_default().insert(name, Arc::new(policy));
            }
            other => return Err(format!("{}: a {other} is nothing that admission knows", path.display()).into()),
        }
    }
    Ok(snapshot)
}

#[derive(Deserialize)]
struct Document {
    kind: String,
    metadata: Metadata,
    #[serde(default)]
    data: BTreeMap<String, String>,
    #[serde(default)]
    spec: Spec,
    #[serde(default)]
    status: Status,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Spec {
    replicas: Option<i64>,
    /// Of a Lease; one without says that there is none.
    acquire_time: Option<Timestamp>,
}

#[derive(Default, Deserialize)]
struct Status {
    allowed: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Metadata {
    name: String,
    #[serde(default = "redis")]
    namespace: String,
    #[serde(default)]
    uid: String,
    #[serde(default)]
    labels: BTreeMap<String, String>,
    #[serde(default)]
    annotations: BTreeMap<String, String>,
    #[serde(default)]
    deletion_timestamp: Option<String>,
}

/// The namespace of all but a few cases.
fn redis() -> String {
    "redis".to_owned()
}
