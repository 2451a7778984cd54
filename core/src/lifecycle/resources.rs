//! What the containers of a pod may use, what their kubelet has given them, and what it says of a change (KEP-1287).

use std::collections::BTreeSet;

use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value};

use crate::policy::Resource;
use crate::quantity;

/// Amounts of the resources that can be changed in place: thousandths of a core, and bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Amounts {
    /// In thousandths of a core.
    pub cpu: Option<u64>,
    /// In bytes.
    pub memory: Option<u64>,
}

/// The resources of a container.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resources {
    /// `spec.containers[].resources.limits`.
    pub limits: Amounts,
    /// `spec.containers[].resources.requests`.
    pub requests: Amounts,
    /// `status.containerStatuses[].resources.limits`: what it has.
    pub given: Amounts,
    /// Those whose change restarts it: `RestartContainer` in `spec.containers[].resizePolicy`.
    pub restarts_for: BTreeSet<Resource>,
}

/// One of `spec.containers`, as far as its resources are concerned.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ContainerSpec {
    /// `name`.
    pub name: String,
    /// `resources`.
    #[serde(default)]
    pub resources: Requirements,
    #[serde(default)]
    resize_policy: Vec<ResizePolicy>,
}

/// `ResourceRequirements`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct Requirements {
    /// `limits`.
    #[serde(default)]
    pub limits: Amounts,
    /// `requests`.
    #[serde(default)]
    pub requests: Amounts,
}

/// One of `resizePolicy`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
struct ResizePolicy {
    resource_name: String,
    restart_policy: String,
}

/// What a kubelet says of a resize of a pod that is not done yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Resizing {
    /// The condition `PodResizePending` with the reason `Infeasible`: this node can never give it. Its message.
    Infeasible(String),
    /// The same with `Deferred`: not now. Its message.
    Deferred(String),
    /// The condition `PodResizeInProgress`. Its message, which tells an error.
    InProgress(String),
}

impl Amounts {
    /// That of one resource.
    #[must_use]
    pub const fn get(&self, of: Resource) -> Option<u64> {
        match of {
            Resource::Cpu => self.cpu,
            Resource::Memory => self.memory,
        }
    }

    /// That of one resource, to be changed.
    pub const fn get_mut(&mut self, of: Resource) -> &mut Option<u64> {
        match of {
            Resource::Cpu => &mut self.cpu,
            Resource::Memory => &mut self.memory,
        }
    }
}

impl ContainerSpec {
    /// Its resources, of which so much is given. A request that is not there is the limit, as the API server writes it.
    #[must_use]
    pub fn resources(&self, given: Amounts) -> Resources {
        let Requirements { limits, requests } = self.resources;
        let is_for = |of: &Resource, policy: &ResizePolicy| {
            policy.resource_name == of.as_str() && policy.restart_policy == "RestartContainer"
        };
        let restarts = |of: &Resource| self.resize_policy.iter().any(|policy| is_for(of, policy));
        let requests = Amounts { cpu: requests.cpu.or(limits.cpu), memory: requests.memory.or(limits.memory) };
        Resources {
            limits,
            requests,
            given,
            restarts_for: [Resource::Cpu, Resource::Memory].into_iter().filter(restarts).collect(),
        }
    }
}

/// From a map of quantities. A number counts like its text, as in a manifest; what is no quantity counts as absent.
impl<'de> Deserialize<'de> for Amounts {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let all = Option::<Map<String, Value>>::deserialize(deserializer)?.unwrap_or_default();
        let amount = |of: Resource| match all.get(of.as_str())? {
            Value::String(text) => quantity::parse(text, of),
            number => quantity::parse(&number.to_string(), of),
        };
        Ok(Self { cpu: amount(Resource::Cpu), memory: amount(Resource::Memory) })
    }
}
