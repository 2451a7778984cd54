//! The set that is rehearsed with, and what stands around it, as their manifests say.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use serde::Deserialize;
use serde_json::Value;

use super::Unfit;
use super::figures::MAX_REPLICAS;
use crate::lifecycle::{Budget, ContainerSpec, Resources, Service, Set, budget_name};
use crate::names;
use crate::policy::{Policy, Selector};

/// A StatefulSet as it is admitted, with the Services and PodDisruptionBudgets that select its pods.
#[derive(Clone, Debug)]
pub(super) struct Subject {
    pub(super) set: Set,
    pub(super) labels: BTreeMap<String, String>,
    pub(super) annotations: BTreeMap<String, String>,
    /// Names of its containers, in their order.
    pub(super) containers: Vec<String>,
    /// What each of them may use, and gets.
    pub(super) resources: BTreeMap<String, Resources>,
    /// Name of its first volume claim template.
    pub(super) claim: Option<String>,
    /// Its pods are made, and taken away, one after the other.
    pub(super) ordered: bool,
    /// The lowest ordinal that a rollout reaches; `None` where pods are replaced only when somebody deletes them.
    pub(super) rolls_from: Option<u32>,
    /// How long its pods have to stop.
    pub(super) grace: SignedDuration,
    /// Its pods are ready only once `join` or `rejoin` has run.
    pub(super) waits_for_join: bool,
    pub(super) services: Vec<Service>,
    /// Services that the policy names and that were not given.
    pub(super) believed: Vec<String>,
    /// Budgets of others that select its pods.
    pub(super) budgets: Vec<OtherBudget>,
}

/// A PodDisruptionBudget that is not ours.
#[derive(Clone, Debug)]
pub(super) struct OtherBudget {
    pub(super) name: String,
    max_unavailable: Option<Value>,
    min_available: Option<Value>,
    pub(super) lets_unready_go: bool,
}

#[derive(Deserialize)]
struct Manifest {
    #[serde(default)]
    metadata: Metadata,
    #[serde(default)]
    spec: Spec,
}

#[derive(Default, Deserialize)]
struct Metadata {
    #[serde(default)]
    name: String,
    #[serde(default)]
    labels: BTreeMap<String, String>,
    #[serde(default)]
    annotations: BTreeMap<String, String>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Spec {
    replicas: Option<u32>,
    service_name: String,
    ordinals: Ordinals,
    pod_management_policy: String,
    update_strategy: UpdateStrategy,
    volume_claim_templates: Vec<Named>,
    selector: Value,
    template: Template,
}

#[derive(Default, Deserialize)]
struct Ordinals {
    #[serde(default)]
    start: u32,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct UpdateStrategy {
    r#type: String,
    rolling_update: Option<RollingUpdate>,
}

#[derive(Default, Deserialize)]
struct RollingUpdate {
    partition: Option<u32>,
}

#[derive(Deserialize)]
struct Named {
    metadata: Metadata,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Template {
    metadata: Metadata,
    spec: PodSpec,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct PodSpec {
    termination_grace_period_seconds: Option<u32>,
    containers: Vec<Container>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Container {
    #[serde(flatten)]
    spec: ContainerSpec,
    #[serde(default)]
    startup_probe: Value,
}

impl Subject {
    /// Reads a set as it is admitted; `replicas` in place of its own.
    pub(super) fn read(set: &Value, replicas: Option<u32>, created: Timestamp) -> Result<Self, Unfit> {
        let Manifest { metadata, spec } = serde_json::from_value(set.clone()).map_err(Unfit::Unreadable)?;
        let replicas = few(replicas.or(spec.replicas).unwrap_or(1))?;
        let start = spec.ordinals.start;
        let hold = metadata.annotations.get(names::HOLD);
        let waits = |container: &Container| {
            container.startup_probe.pointer("/exec/command/0").and_then(Value::as_str) == Some(names::RUNNER)
        };
        let partition = spec.update_strategy.rolling_update.and_then(|rolling| rolling.partition).unwrap_or_default();
        Ok(Self {
            set: Set {
                name: metadata.name,
                uid: "set".to_owned(),
                created,
                unchanged: true,
                data: BTreeMap::new(),
                has_volumes: !spec.volume_claim_templates.is_empty(),
                service: spec.service_name,
                ordinals: start..start.saturating_add(replicas),
                selector: spec.selector,
                serves: spec.template.metadata.labels.contains_key(names::SERVING),
                hold: hold.map(|why| if why.is_empty() { "no reason given".to_owned() } else { why.clone() }),
            },
            labels: metadata.labels,
            annotations: metadata.annotations,
            // What the API server writes where nothing is said.
            grace: SignedDuration::from_secs(spec.template.spec.termination_grace_period_seconds.unwrap_or(30).into()),
            waits_for_join: spec.template.spec.containers.iter().any(waits),
            containers: spec.template.spec.containers.iter().map(|container| container.spec.name.clone()).collect(),
            resources: spec.template.spec.containers.into_iter().map(|c| (c.spec.name.clone(), started(&c.spec))).collect(),
            claim: spec.volume_claim_templates.into_iter().next().map(|template| template.metadata.name),
            ordered: spec.pod_management_policy != "Parallel",
            rolls_from: (spec.update_strategy.r#type != "OnDelete").then_some(partition),
            services: Vec::new(),
            believed: Vec::new(),
            budgets: Vec::new(),
        })
    }

    /// The same among these Services and PodDisruptionBudgets. A Service that the policy names and that is not among them is taken to be there.
    pub(super) fn among(mut self, set: &Value, services: &[Value], budgets: &[Value], policy: &Policy) -> Self {
        let labels = labels(set.pointer("/spec/template/metadata/labels"));
        let name = self.set.service.clone();
        self.services = services.iter().filter_map(|service| service_of(service, &labels, &name)).collect();
        let wanted = policy.traffic.iter().flat_map(|traffic| &traffic.services);
        let missing = wanted.filter(|wanted| !services.iter().any(|given| text(given, "/metadata/name") == wanted.as_str()));
        self.believed = missing.cloned().collect();
        self.services.extend(self.believed.iter().map(|name| made(name, false, false)));
        let ours = budget_name(&self.set.name);
        let others = budgets.iter().filter(|budget| text(budget, "/metadata/name") != ours);
        self.budgets = others.filter_map(|budget| OtherBudget::read(budget, &labels)).collect();
        self
    }

    pub(super) fn replicas(&self) -> usize {
        self.set.ordinals.len()
    }
}

/// What a container gets at its start: its limits.
fn started(spec: &ContainerSpec) -> Resources {
    spec.resources(spec.resources.limits)
}

/// So many replicas can be rehearsed with.
pub(super) fn few(replicas: u32) -> Result<u32, Unfit> {
    if replicas > MAX_REPLICAS { Err(Unfit::TooMany { replicas }) } else { Ok(replicas) }
}

impl OtherBudget {
    fn read(budget: &Value, labels: &BTreeMap<String, String>) -> Option<Self> {
        let selector = Selector::read(budget.pointer("/spec/selector")?)?.without(&names::PER_POD);
        let spec = |field: &str| budget.pointer(&format!("/spec/{field}")).cloned();
        selector.matches(labels).then(|| Self {
            name: text(budget, "/metadata/name").to_owned(),
            max_unavailable: spec("maxUnavailable"),
            min_available: spec("minAvailable"),
            lets_unready_go: text(budget, "/spec/unhealthyPodEvictionPolicy") == "AlwaysAllow",
        })
    }

    /// As the core sees it.
    pub(super) fn observed(&self) -> Budget {
        Budget {
            name: self.name.clone(),
            uid: self.name.clone(),
            version: "1".to_owned(),
            is_ours: false,
            max_unavailable: self.max_unavailable.as_ref().and_then(Value::as_u64),
        }
    }

    /// How many pods must be ready, of so many.
    pub(super) fn needs(&self, replicas: usize) -> usize {
        let count = |value: &Value| match value.as_str() {
            None => value.as_u64().and_then(|n| usize::try_from(n).ok()),
            Some(text) => {
                text.strip_suffix('%')?.parse::<usize>().ok().map(|percent| (replicas * percent.min(100)).div_ceil(100))
            }
        };
        match (self.max_unavailable.as_ref().and_then(count), self.min_available.as_ref().and_then(count)) {
            (Some(most), _) => replicas.saturating_sub(most),
            (None, Some(least)) => least,
            // Neither is given: no bound.
            (None, None) => 0,
        }
    }
}

fn service_of(service: &Value, labels: &BTreeMap<String, String>, of_the_set: &str) -> Option<Service> {
    let selects = self::labels(service.pointer("/spec/selector"));
    let asks = selects.contains_key(names::SERVING);
    let selector = Selector { labels: selects, requirements: Vec::new() };
    if selector.labels.is_empty() || !selector.without(&names::PER_POD).matches(labels) {
        return None;
    }
    let name = text(service, "/metadata/name");
    let unready = service.pointer("/spec/publishNotReadyAddresses").and_then(Value::as_bool).unwrap_or_default();
    Some(made(name, asks, text(service, "/spec/clusterIP") == "None" || unready || name == of_the_set))
}

fn made(name: &str, asks: bool, names_pods: bool) -> Service {
    Service { name: name.to_owned(), uid: name.to_owned(), version: "1".to_owned(), asks, names_pods }
}

fn labels(map: Option<&Value>) -> BTreeMap<String, String> {
    let members = map.and_then(Value::as_object).into_iter().flatten();
    members.filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned()))).collect()
}

fn text<'v>(value: &'v Value, pointer: &str) -> &'v str {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}
