//! A pod is deleted without waiting for its kubelet, which frees its name. Only what was fenced is.

use k8s_openapi::api::core::v1::Pod;
use kube::api::{DeleteParams, Preconditions};
use kube::{Api, Client};

use crate::controller::api::{ApiError, call};

/// Deletes the pod with this uid, with no time to stop (`kubectl delete --force --grace-period=0`).
pub(super) async fn pod(client: &Client, namespace: &str, name: &str, uid: &str) -> Result<(), ApiError> {
    let pods: Api<Pod> = Api::namespaced(client.clone(), namespace);
    let this_one = Preconditions { uid: Some(uid.to_owned()), resource_version: None };
    let params = DeleteParams { grace_period_seconds: Some(0), preconditions: Some(this_one), ..DeleteParams::default() };
    call("delete the pod of a lost node", pods.delete(name, &params)).await.map(drop)
}
