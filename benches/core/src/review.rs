//! Reviews of an exact size: a StatefulSet of one server, which grows by containers and by their environment.

use serde_json::{Value, json};

use crate::NAMESPACE;

/// One review, and what its size and request are called.
pub struct Case {
    /// `create-4k`.
    pub name: &'static str,
    /// The body of the webhook call.
    pub review: String,
}

/// Containers of the pod; so much of the environment stands in each.
struct Size {
    bytes: usize,
    containers: usize,
}

const SMALL: Size = Size { bytes: 4 << 10, containers: 1 };
const MIDDLE: Size = Size { bytes: 12 << 10, containers: 3 };
/// An object of a third of what the API server takes at most (3 MiB); on UPDATE it holds that set twice, at half the size each.
const LARGE: Size = Size { bytes: 1 << 20, containers: 10 };

/// What is measured, by name.
type Made = (&'static str, &'static Size, fn(&Value) -> Value);
const CASES: [Made; 6] = [
    ("create-4k", &SMALL, create),
    ("create-12k", &MIDDLE, create),
    ("create-1m", &LARGE, create),
    ("update-4k", &SMALL, update),
    ("update-12k", &MIDDLE, update),
    ("update-1m", &LARGE, update),
];

/// The names of all that is measured.
pub fn names() -> impl Iterator<Item = &'static str> {
    CASES.iter().map(|(name, ..)| *name)
}

/// The review of this name. An UPDATE is the first restart of a set that is older than its policy: the template differs from the old one,
/// both are read and compared, and everything is written. Its size is that of the old and the new object together.
#[must_use]
pub fn case(name: &str) -> Option<Case> {
    let (name, size, make) = CASES.iter().find(|(known, ..)| *known == name)?;
    Some(Case { name, review: sized(size, *make) })
}

/// The review of exactly `size.bytes`: first as many variables as go in, then one value as long as it takes. An UPDATE grows by two bytes at
/// once; an odd one is white space.
fn sized(size: &Size, review: fn(&Value) -> Value) -> String {
    let text = |variables, padding| review(&set(size.containers, variables, padding)).to_string();
    let (empty, one) = (text(0, 0).len(), text(1, 0).len());
    // A container's first variable costs up to one more, for its list.
    let mut variables = (size.bytes.saturating_sub(empty) / (one - empty)).saturating_sub(size.containers);
    while text(variables + 1, 0).len() <= size.bytes {
        variables += 1;
    }
    let copies = text(0, 1).len() - empty;
    let missing = size.bytes.saturating_sub(text(variables, 0).len());
    let mut found = text(variables, missing / copies);
    found.extend(std::iter::repeat_n(' ', missing % copies));
    found
}

fn create(set: &Value) -> Value {
    review("CREATE", set, &Value::Null)
}

fn update(old: &Value) -> Value {
    let mut new = old.clone();
    if let Some(metadata) = new.pointer_mut("/spec/template/metadata").and_then(Value::as_object_mut) {
        metadata.insert("annotations".to_owned(), json!({"kubectl.kubernetes.io/restartedAt": "2026-05-04T08:00:00Z"}));
    }
    review("UPDATE", &new, old)
}

fn review(operation: &str, object: &Value, old_object: &Value) -> Value {
    let kind = json!({"group": "apps", "version": "v1", "kind": "StatefulSet"});
    let resource = json!({"group": "apps", "version": "v1", "resource": "statefulsets"});
    json!({
        "kind": "AdmissionReview",
        "apiVersion": "admission.k8s.io/v1",
        "request": {
            "uid": "5f8d0c1e-6b7a-4d52-9a3e-000000000001",
            "kind": kind, "resource": resource, "requestKind": kind, "requestResource": resource,
            "name": "redis", "namespace": NAMESPACE, "operation": operation,
            "userInfo": {"username": "system:serviceaccount:argocd:argocd-application-controller", "groups": ["system:authenticated"]},
            "object": object, "oldObject": old_object, "dryRun": false,
            "options": {"kind": "CreateOptions", "apiVersion": "meta.k8s.io/v1", "fieldManager": "argocd-controller"},
        },
    })
}

fn set(containers: usize, variables: usize, padding: usize) -> Value {
    let containers: Vec<Value> = (0..containers).map(|at| container(at, containers, variables, padding)).collect();
    json!({
        "kind": "StatefulSet",
        "apiVersion": "apps/v1",
        "metadata": {"name": "redis", "namespace": NAMESPACE, "uid": "0f0cbe42-1f6e-4c55-8a51-3f8d1a7c2b90", "generation": 1,
            "creationTimestamp": "2026-05-04T08:00:00Z", "labels": {"app": "redis"}},
        "spec": {
            "replicas": 3,
            "selector": {"matchLabels": {"app": "redis"}},
            "template": {
                "metadata": {"labels": {"app": "redis"}},
                "spec": {
                    "containers": containers,
                    "restartPolicy": "Always", "terminationGracePeriodSeconds": 30, "dnsPolicy": "ClusterFirst",
                    "securityContext": {}, "schedulerName": "default-scheduler",
                },
            },
            "serviceName": "redis", "podManagementPolicy": "OrderedReady",
            "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"partition": 0}}, "revisionHistoryLimit": 10,
        },
        "status": {"replicas": 0, "availableReplicas": 0},
    })
}

/// The container at `at`, with its share of so many variables; the first has `padding` bytes more.
fn container(at: usize, of: usize, variables: usize, padding: usize) -> Value {
    let name = if at == 0 { "redis".to_owned() } else { format!("sidecar-{at}") };
    let mut environment: Vec<Value> = (0..variables)
        .filter(|number| number % of == at)
        .map(|number| json!({"name": format!("SETTING_{number:05}"), "value": format!("the value of setting {number:05}")}))
        .collect();
    if at == 0 {
        environment.insert(0, json!({"name": "CONFIG", "value": "x".repeat(padding)}));
    }
    let mut container = json!({
        "name": name, "image": "redis:5-alpine",
        "ports": [{"name": "redis", "containerPort": 6379, "protocol": "TCP"}],
        "resources": {"limits": {"memory": "256Mi"}, "requests": {"cpu": "100m", "memory": "256Mi"}},
        "volumeMounts": [{"name": "data", "mountPath": "/data"}],
        "terminationMessagePath": "/dev/termination-log", "terminationMessagePolicy": "File", "imagePullPolicy": "IfNotPresent",
    });
    if let (Some(members), false) = (container.as_object_mut(), environment.is_empty()) {
        members.insert("env".to_owned(), Value::Array(environment));
    }
    container
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_review_has_the_size_that_it_is_called_by() {
        for case in names().filter_map(case) {
            let expected = match case.name.rsplit('-').next() {
                Some("4k") => 4 << 10,
                Some("12k") => 12 << 10,
                _ => 1 << 20,
            };
            assert_eq!(case.review.len(), expected, "{}", case.name);
        }
    }
}
