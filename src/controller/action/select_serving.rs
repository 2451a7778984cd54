//! The selector of a Service asks for the label `serving`, or no longer does.

use std::collections::BTreeSet;

use guardian_core::lifecycle::{Observed, Reselect};
use guardian_core::names;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{ListParams, Patch, PatchParams};
use kube::{Api, Client};
use serde_json::{Value, json};

use crate::controller::api::{ApiError, call};

/// Changes it, if the Service is as it was seen: uid and version are preconditions. Before the label is asked for, the endpoints of the Service are
/// looked at: where it sends to anything but pods of this set that have the label, it is left as it is, and what is given back says why.
pub(super) async fn select_serving(client: &Client, observed: &Observed, change: &Reselect) -> Result<Option<String>, ApiError> {
    let service = &change.service;
    if change.asks
        && let Some(stranger) = stranger(client, observed, &service.name).await?
    {
        return Ok(Some(format!("Service {} is left as it is: it also sends to {stranger}", service.name)));
    }
    let value = if change.asks { json!("true") } else { Value::Null };
    let patch = json!({
        "metadata": {"uid": service.uid, "resourceVersion": service.version},
        "spec": {"selector": {(names::SERVING): value}},
    });
    let services: Api<Service> = Api::namespaced(client.clone(), &observed.namespace);
    call("change the selector of the Service", services.patch(&service.name, &PatchParams::default(), &Patch::Merge(patch)))
        .await?;
    Ok(None)
}

/// An endpoint that would be lost.
async fn stranger(client: &Client, observed: &Observed, service: &str) -> Result<Option<String>, ApiError> {
    let slices: Api<EndpointSlice> = Api::namespaced(client.clone(), &observed.namespace);
    let of_service = ListParams::default().labels(&format!("kubernetes.io/service-name={service}"));
    let listed = call("list the endpoints of the Service", slices.list(&of_service)).await?;
    let known: BTreeSet<&str> = observed.pods.values().filter(|pod| pod.serving.is_some()).map(|pod| pod.uid.as_str()).collect();
    let endpoints = listed.items.into_iter().flat_map(|slice| slice.endpoints);
    let target = |endpoint: k8s_openapi::api::discovery::v1::Endpoint| {
        let target = endpoint.target_ref.unwrap_or_default();
        let is_known = target.uid.as_deref().is_some_and(|uid| known.contains(uid));
        let named = target.name.map(|name| format!("{} {name}", target.kind.unwrap_or_default().to_lowercase()));
        (!is_known).then(|| named.unwrap_or_else(|| endpoint.addresses.join(", ")))
    };
    Ok(endpoints.into_iter().find_map(target))
}
