//! What stands around a set: the Services and PodDisruptionBudgets that select its pods, and the nodes on which they run.

use std::collections::BTreeMap;

use guardian_core::policy::Selector;
use guardian_core::{lifecycle, names};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node as CoreNode, Service as CoreService};
use k8s_openapi::api::policy::v1::PodDisruptionBudget as CoreBudget;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::Deserialize;
use serde_json::Value;

use super::{StatefulSet, keep};

/// A node.
#[derive(Clone, Debug, Deserialize, kube::Resource)]
#[resource(inherit = "CoreNode")]
pub(in crate::controller) struct Node {
    pub(in crate::controller) metadata: ObjectMeta,
    #[serde(default)]
    status: NodeStatus,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct NodeStatus {
    #[serde(default)]
    conditions: Vec<NodeCondition>,
    #[serde(default)]
    node_info: NodeInfo,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct NodeCondition {
    #[serde(rename = "type")]
    kind: String,
    status: String,
    last_transition_time: Option<Timestamp>,
}

#[derive(Clone, Debug, Default, Deserialize)]
struct NodeInfo {
    #[serde(rename = "bootID", default)]
    boot_id: String,
}

/// A PodDisruptionBudget.
#[derive(Clone, Debug, Deserialize, kube::Resource)]
#[resource(inherit = "CoreBudget")]
pub(in crate::controller) struct Budget {
    pub(in crate::controller) metadata: ObjectMeta,
    #[serde(default)]
    spec: BudgetSpec,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct BudgetSpec {
    #[serde(default)]
    selector: Value,
    #[serde(default)]
    max_unavailable: Value,
}

/// A Service.
#[derive(Clone, Debug, Deserialize, kube::Resource)]
#[resource(inherit = "CoreService")]
pub(in crate::controller) struct Service {
    pub(in crate::controller) metadata: ObjectMeta,
    #[serde(default)]
    spec: ServiceSpec,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct ServiceSpec {
    #[serde(default)]
    selector: BTreeMap<String, String>,
    #[serde(rename = "clusterIP", default)]
    cluster_ip: String,
    #[serde(default)]
    publish_not_ready_addresses: bool,
}

impl Node {
    /// Drops what is never read.
    pub(in crate::controller) fn slim(&mut self) {
        keep(&mut self.metadata, &[], &[]);
        self.status.conditions.retain(|condition| condition.kind == "Ready");
    }

    /// Since when nobody hears of it.
    pub(in crate::controller) fn silent_since(&self) -> Option<Timestamp> {
        let silent = self.status.conditions.iter().find(|c| c.kind == "Ready" && c.status == "Unknown")?;
        Some(silent.last_transition_time.unwrap_or(Timestamp::UNIX_EPOCH))
    }

    /// As the core sees it.
    pub(in crate::controller) fn observed(&self) -> lifecycle::Node {
        lifecycle::Node {
            name: self.metadata.name.clone().unwrap_or_default(),
            boot: self.status.node_info.boot_id.clone(),
            silent_since: self.silent_since(),
        }
    }
}

impl Budget {
    /// Drops what is never read.
    pub(in crate::controller) fn slim(&mut self) {
        keep(&mut self.metadata, &[names::BUDGET], &[]);
        self.metadata.owner_references = None;
    }

    /// As the core sees it; `None` where it is not ours for this set, and selects none of its pods.
    pub(in crate::controller) fn observed(&self, set: &StatefulSet) -> Option<lifecycle::Budget> {
        let (metadata, name) = (&self.metadata, self.metadata.name.clone()?);
        let is_marked = metadata.labels.as_ref().is_some_and(|labels| labels.contains_key(names::BUDGET));
        let is_ours = is_marked && set.metadata.name.as_deref().is_some_and(|set| name == lifecycle::budget_name(set));
        let selects = || {
            // What each pod has of its own may be what the selector wants, at some time.
            let selector = Selector::read(&self.spec.selector)?.without(&names::PER_POD);
            Some(selector.matches(&set.spec.template.metadata.labels))
        };
        (is_ours || selects() == Some(true)).then_some(lifecycle::Budget {
            name,
            uid: metadata.uid.clone()?,
            version: metadata.resource_version.clone()?,
            is_ours,
            max_unavailable: self.spec.max_unavailable.as_u64(),
        })
    }
}

impl Service {
    /// Drops what is never read.
    pub(in crate::controller) fn slim(&mut self) {
        keep(&mut self.metadata, &[], &[]);
        self.metadata.owner_references = None;
    }

    /// As the core sees it; `None` where it selects no pod of the set.
    pub(in crate::controller) fn observed(&self, set: &StatefulSet) -> Option<lifecycle::Service> {
        let (metadata, spec) = (&self.metadata, &self.spec);
        let selector = Selector { labels: spec.selector.clone(), requirements: Vec::new() }.without(&names::PER_POD);
        if spec.selector.is_empty() || !selector.matches(&set.spec.template.metadata.labels) {
            return None;
        }
        let name = metadata.name.clone()?;
        Some(lifecycle::Service {
            uid: metadata.uid.clone()?,
            version: metadata.resource_version.clone()?,
            asks: spec.selector.contains_key(names::SERVING),
            names_pods: spec.cluster_ip == "None" || spec.publish_not_ready_addresses || name == set.spec.service_name,
            name,
        })
    }
}
