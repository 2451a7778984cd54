//! The label by which Services tell the pods that they may send to.

use guardian_core::lifecycle::Serve;
use guardian_core::names;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Patch, PatchParams};
use kube::{Api, Client};
use serde_json::json;

use crate::controller::api::{ApiError, call};

/// Sets it. The uid is the precondition: a pod of that name made since is another one, which the API server answers with 409. What a person asked for is
/// over with the shed, so his request goes with it.
pub(super) async fn label_serving(client: &Client, namespace: &str, change: &Serve) -> Result<(), ApiError> {
    let labels = json!({(names::SERVING): change.serving.to_string()});
    let metadata = if change.serving {
        json!({"uid": change.pod_uid, "labels": labels, "annotations": {(names::SHED): null}})
    } else {
        json!({"uid": change.pod_uid, "labels": labels})
    };
    let pods: Api<Pod> = Api::namespaced(client.clone(), namespace);
    let patch = Patch::Merge(json!({"metadata": metadata}));
    call("label the pod as serving", pods.patch_metadata(&change.pod, &PatchParams::default(), &patch)).await.map(drop)
}
