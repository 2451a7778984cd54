//! A pod is evicted, as any drain does it: PodDisruptionBudgets, and the guards of our own webhook, count.

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::policy::v1::Eviction;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{DeleteOptions, ObjectMeta, Preconditions};
use kube::api::PostParams;
use kube::{Api, Client};
use serde_json::Value;

use crate::controller::api::{ApiError, call};

/// Asks for the eviction of the pod with this uid, if it is still as it was when that was decided (`resourceVersion`).
pub(super) async fn pod(client: &Client, namespace: &str, name: &str, uid: &str, version: &str) -> Result<(), ApiError> {
    let pods: Api<Pod> = Api::namespaced(client.clone(), namespace);
    let as_it_was = Preconditions { uid: Some(uid.to_owned()), resource_version: Some(version.to_owned()) };
    let eviction = Eviction {
        metadata: ObjectMeta { name: Some(name.to_owned()), ..ObjectMeta::default() },
        delete_options: Some(DeleteOptions { preconditions: Some(as_it_was), ..DeleteOptions::default() }),
    };
    // Not `Api::evict`: kube 5.0 sends `delete_options`, which no API server reads, so that no precondition holds.
    let params = PostParams::default();
    call("evict the pod", pods.create_subresource::<_, Value>("eviction", name, &params, &eviction)).await.map(drop)
}
