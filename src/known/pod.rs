//! A guarded pod, as far as people are told of it.

use std::collections::BTreeMap;
use std::sync::Arc;

use guardian_core::names;
use k8s_openapi::api::core::v1::{self as core, ContainerStatus};
use kube::ResourceExt as _;
use serde_json::{Value, json};

/// A guarded pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Pod {
    pub(crate) name: String,
    pub(crate) ready: bool,
    /// It is being deleted.
    pub(crate) stopping: bool,
    pub(crate) role: Option<String>,
    pub(crate) restarts: i32,
    pub(crate) node: Option<String>,
    /// Of its template.
    pub(crate) revision: Option<String>,
}

/// The pods of each set, by the set's uid and in the order of their ordinals.
pub(crate) fn by_set<'p>(pods: impl IntoIterator<Item = &'p core::Pod>) -> BTreeMap<String, Vec<Arc<Pod>>> {
    let mut sets: BTreeMap<String, Vec<Arc<Pod>>> = BTreeMap::new();
    for pod in pods {
        let owner = pod.owner_references().iter().find(|owner| owner.controller == Some(true));
        if let Some(owner) = owner {
            sets.entry(owner.uid.clone()).or_default().push(Arc::new(Pod::of(pod)));
        }
    }
    sets.values_mut().for_each(|pods| pods.sort_by_key(|pod| pod.ordinal()));
    sets
}

impl Pod {
    fn of(pod: &core::Pod) -> Self {
        let containers =
            || -> Vec<&ContainerStatus> { pod.status.iter().flat_map(|s| s.container_statuses.iter().flatten()).collect() };
        let mut conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
        Self {
            name: pod.name_any(),
            ready: conditions.any(|condition| condition.type_ == "Ready" && condition.status == "True"),
            stopping: pod.metadata.deletion_timestamp.is_some(),
            role: pod.labels().get(names::ROLE).cloned(),
            restarts: containers().iter().map(|container| container.restart_count).sum(),
            node: pod.spec.as_ref().and_then(|spec| spec.node_name.clone()),
            revision: pod.labels().get("controller-revision-hash").cloned(),
        }
    }

    /// Its number in the set.
    pub(crate) fn ordinal(&self) -> u32 {
        self.name.rsplit('-').next().and_then(|ordinal| ordinal.parse().ok()).unwrap_or(u32::MAX)
    }

    /// For scripts.
    pub(super) fn document(&self) -> Value {
        json!({
            "name": self.name,
            "ready": self.ready,
            "role": self.role,
            "restarts": self.restarts,
            "node": self.node,
            "revision": self.revision,
        })
    }
}
