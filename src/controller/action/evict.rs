//! A pod is evicted, as any drain does it: PodDisruptionBudgets, and the guards of our own webhook, count.

use k8s_openapi::api::core::v1::Pod;
use kube::api::{DeleteParams, EvictParams, Preconditions};
use kube::{Api, Client};

use crate::controller::api::{ApiError, call};

/// Asks for the eviction of the pod with this uid.
pub(super) async fn pod(client: &Client, namespace: &str, name: &str, uid: &str) -> Result<(), ApiError> {
    let pods: Api<Pod> = Api::namespaced(client.clone(), namespace);
    let this_one = Preconditions { uid: Some(uid.to_owned()), resource_version: None };
    let delete_options = Some(DeleteParams { preconditions: Some(this_one), ..DeleteParams::default() });
    let params = EvictParams { delete_options, ..EvictParams::default() };
    call("evict the pod", pods.evict(name, &params)).await.map(drop)
}
