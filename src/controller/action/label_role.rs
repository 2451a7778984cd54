//! The label of a role, on a pod.

use guardian_core::lifecycle::Relabel;
use guardian_core::names;
use json_patch::Patch as Operations;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Patch, PatchParams};
use kube::{Api, Client};
use serde_json::json;

use crate::controller::api::{ApiError, call};

/// Sets or removes it, if the pod is the one that is meant.
///
/// # Errors
/// 404 or 422 when it is another by now, or has lost the label already: then the watch will tell, and the next pass has nothing to do.
pub(crate) async fn label_role(client: &Client, namespace: &str, change: &Relabel) -> Result<(), ApiError> {
    let path = format!("/metadata/labels/{}", names::ROLE.replace('/', "~1"));
    let operation = match &change.role {
        Some(role) => json!({"op": "add", "path": path, "value": role}),
        None => json!({"op": "remove", "path": path}),
    };
    let operations = json!([{"op": "test", "path": "/metadata/uid", "value": change.pod_uid}, operation]);
    let Ok(operations) = serde_json::from_value::<Operations>(operations) else { return Ok(()) };
    let pods: Api<Pod> = Api::namespaced(client.clone(), namespace);
    let patch = Patch::Json::<()>(operations);
    call("label the pod with its role", pods.patch_metadata(&change.pod, &PatchParams::default(), &patch)).await.map(drop)
}
