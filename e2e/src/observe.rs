//! Reading pods.

use k8s_openapi::api::core::v1::{ContainerStatus, Pod};
use kube::ResourceExt as _;

/// Is the pod Ready, and not on its way out?
///
/// # Errors
/// What it is instead.
pub fn is_ready(pod: &Pod) -> Result<(), String> {
    if pod.metadata.deletion_timestamp.is_some() {
        return Err("it is being deleted".to_owned());
    }
    let status = pod.status.clone().unwrap_or_default();
    let ready = status.conditions.iter().flatten().any(|c| c.type_ == "Ready" && c.status == "True");
    if ready { Ok(()) } else { Err(format!("phase {}, not ready", status.phase.unwrap_or_default())) }
}

/// `metadata.uid`.
#[must_use]
pub fn uid(pod: &Pod) -> String {
    pod.uid().unwrap_or_default()
}

/// The node that it is on.
#[must_use]
pub fn node(pod: &Pod) -> String {
    pod.spec.as_ref().and_then(|s| s.node_name.clone()).unwrap_or_default()
}

/// `restartCount` of its first container.
#[must_use]
pub fn restarts(pod: &Pod) -> i32 {
    first_container(pod).map_or(0, |c| c.restart_count)
}

/// `containerID` of its first container, without the scheme; empty where it does not run.
#[must_use]
pub fn container_id(pod: &Pod) -> String {
    let id = first_container(pod).and_then(|c| c.container_id.clone()).unwrap_or_default();
    id.split_once("://").map_or(String::new(), |(_, id)| id.to_owned())
}

fn first_container(pod: &Pod) -> Option<&ContainerStatus> {
    let first = &pod.spec.as_ref()?.containers.first()?.name;
    pod.status.as_ref()?.container_statuses.as_ref()?.iter().find(|c| &c.name == first)
}
