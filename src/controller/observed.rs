//! What is watched, as slim as it can be, and what the pure core makes of it.
//!
//! A typed Pod in a cache takes about 51 kB; one of these about 3 kB. Only these fields are ever read, and nothing of it is written back.

mod around;
mod condition;

use std::collections::BTreeMap;

use guardian_core::lifecycle::{self, ContainerSpec, Departed, Requirements};
use guardian_core::names;
use guardian_core::stop::{Leaving, Owner};
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::StatefulSet as CoreStatefulSet;
use k8s_openapi::api::core::v1::{Namespace as CoreNamespace, PersistentVolumeClaim as CoreClaim, Pod as CorePod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::de::IgnoredAny;
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use super::SetKey;
use super::stops::Stopping;
pub(super) use around::{Budget, Node, Service};
use condition::Condition;

/// A guarded pod.
#[derive(Clone, Debug, Deserialize, kube::Resource)]
#[resource(inherit = "CorePod")]
pub(super) struct Pod {
    pub(super) metadata: ObjectMeta,
    #[serde(default)]
    spec: PodSpec,
    #[serde(default)]
    status: PodStatus,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct PodSpec {
    node_name: Option<String>,
    #[serde(default)]
    containers: Vec<ContainerSpec>,
}

#[derive(Clone, Debug, Deserialize)]
struct Named {
    name: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct PodStatus {
    #[serde(default)]
    phase: String,
    #[serde(rename = "podIP")]
    pod_ip: Option<String>,
    reason: Option<String>,
    #[serde(default)]
    conditions: Vec<Condition>,
    #[serde(default)]
    container_statuses: Vec<ContainerStatus>,
    #[serde(default)]
    init_container_statuses: Vec<InitStatus>,
}

/// Of an init container: of ours one goes on running.
#[derive(Clone, Debug, Deserialize)]
struct InitStatus {
    name: String,
    #[serde(default)]
    state: State,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct ContainerStatus {
    name: String,
    #[serde(rename = "containerID", default)]
    container_id: String,
    #[serde(default)]
    restart_count: u32,
    #[serde(default)]
    state: State,
    #[serde(default)]
    last_state: State,
    #[serde(default)]
    resources: Option<Requirements>,
}

#[derive(Clone, Debug, Default, Deserialize)]
struct State {
    running: Option<Running>,
    terminated: Option<Terminated>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Running {
    started_at: Option<Timestamp>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Terminated {
    #[serde(default)]
    reason: String,
    #[serde(default)]
    exit_code: i32,
    signal: Option<i32>,
    started_at: Option<Timestamp>,
}

/// A StatefulSet, guarded or not.
#[derive(Clone, Debug, Deserialize, kube::Resource)]
#[resource(inherit = "CoreStatefulSet")]
pub(super) struct StatefulSet {
    pub(super) metadata: ObjectMeta,
    #[serde(default)]
    spec: SetSpec,
    #[serde(default)]
    status: SetStatus,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct SetStatus {
    #[serde(default)]
    observed_generation: i64,
    #[serde(default)]
    update_revision: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct SetSpec {
    replicas: Option<u32>,
    #[serde(default)]
    service_name: String,
    #[serde(default)]
    ordinals: Ordinals,
    #[serde(default)]
    volume_claim_templates: Vec<Template>,
    #[serde(default)]
    selector: Value,
    #[serde(default)]
    template: PodTemplate,
}

/// `spec.template`.
#[derive(Clone, Debug, Default, Deserialize)]
struct PodTemplate {
    #[serde(default)]
    metadata: Labelled,
    #[serde(default)]
    spec: TemplateSpec,
}

/// `spec.template.spec`.
#[derive(Clone, Debug, Default, Deserialize)]
struct TemplateSpec {
    #[serde(default)]
    containers: Vec<Mounting>,
}

/// One of its `containers`.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Mounting {
    name: String,
    #[serde(default)]
    volume_mounts: Vec<Mount>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Mount {
    name: String,
    mount_path: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
struct Labelled {
    #[serde(default)]
    labels: BTreeMap<String, String>,
    /// Has it the annotation `injected`?
    #[serde(default, rename = "annotations", deserialize_with = "is_written")]
    is_written: bool,
}

/// Of all annotations of a template, which may be long, one is looked for.
fn is_written<'d, D: Deserializer<'d>>(annotations: D) -> Result<bool, D::Error> {
    let all = Option::<BTreeMap<String, IgnoredAny>>::deserialize(annotations)?;
    Ok(all.is_some_and(|all| all.contains_key(names::INJECTED)))
}

/// One of `spec.volumeClaimTemplates`.
#[derive(Clone, Debug, Deserialize)]
struct Template {
    metadata: Named,
}

/// A volume claim, of a set or of something else.
#[derive(Clone, Debug, Deserialize, kube::Resource)]
#[resource(inherit = "CoreClaim")]
pub(super) struct Claim {
    pub(super) metadata: ObjectMeta,
}

/// `spec.ordinals` (KEP-3335).
#[derive(Clone, Debug, Default, Deserialize)]
struct Ordinals {
    #[serde(default)]
    start: u32,
}

/// A namespace that is opted in.
#[derive(Clone, Debug, Deserialize, kube::Resource)]
#[resource(inherit = "CoreNamespace")]
pub(super) struct Namespace {
    pub(super) metadata: ObjectMeta,
}

impl Pod {
    /// Drops what is never read.
    pub(super) fn slim(&mut self) {
        keep(&mut self.metadata, &["controller-revision-hash", names::ROLE, names::SERVING], &[names::SHED]);
        self.status.conditions.iter_mut().for_each(Condition::slim);
        self.status.init_container_statuses.retain(|status| status.name == names::AGENT);
    }

    /// The set that controls it.
    pub(super) fn set(&self) -> Option<SetKey> {
        let owner = self.controller()?;
        (owner.kind == "StatefulSet")
            .then(|| SetKey { namespace: self.metadata.namespace.clone().unwrap_or_default(), name: owner.name.clone() })
    }

    /// What there is to tell it, if it is being deleted.
    pub(super) fn stopping(&self) -> Option<Stopping> {
        self.metadata.deletion_timestamp.as_ref()?;
        let name = self.metadata.name.clone()?;
        let label = |name| self.metadata.labels.as_ref().and_then(|labels| labels.get(name)).cloned();
        let disruption = self.status.conditions.iter().find(|c| c.kind == "DisruptionTarget" && c.status == "True");
        Some(Stopping {
            set: self.set()?,
            uid: self.metadata.uid.clone()?,
            first_container: self.spec.containers.first()?.name.clone(),
            leaving: Leaving {
                ordinal: name.rsplit('-').next()?.parse().ok()?,
                revision: label("controller-revision-hash").unwrap_or_default(),
                disruption: disruption.and_then(|condition| condition.reason.clone()),
                reason: self.status.reason.clone(),
            },
            pod: name,
        })
    }

    /// What is to be remembered of it once it is gone; `None` while nothing says that it goes.
    pub(super) fn departing(&self, gone: bool) -> Option<Departed> {
        let is_true = |c: &&Condition| c.kind == "DisruptionTarget" && c.status == "True";
        let disruption = self.status.conditions.iter().find(is_true);
        let going = gone || disruption.is_some() || self.metadata.deletion_timestamp.is_some() || self.status.phase == "Failed";
        going.then(|| Departed {
            uid: self.metadata.uid.clone().unwrap_or_default(),
            disruption: disruption.and_then(|c| c.reason.clone()),
            reason: self.status.reason.clone(),
            node_lost: false,
        })
    }

    /// Name of the node that it is bound to.
    pub(super) fn node(&self) -> Option<&str> {
        self.spec.node_name.as_deref()
    }

    /// Whether it is ready, and since when that is so.
    pub(super) fn readiness(&self) -> Option<(bool, Option<Timestamp>)> {
        let ready = self.status.conditions.iter().find(|condition| condition.kind == "Ready")?;
        Some((ready.status == "True", ready.last_transition_time))
    }

    fn controller(&self) -> Option<&k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference> {
        self.metadata.owner_references.iter().flatten().find(|owner| owner.controller == Some(true))
    }

    fn container(&self, status: &ContainerStatus) -> lifecycle::Container {
        let spec = self.spec.containers.iter().find(|spec| spec.name == status.name);
        let given = status.resources.as_ref().map(|resources| resources.limits).unwrap_or_default();
        lifecycle::Container { resources: spec.map(|spec| spec.resources(given)).unwrap_or_default(), ..status.observed() }
    }

    /// As the core sees it; `None` when it is not a pod of the set with this uid.
    pub(super) fn observed(&self, set_uid: &str) -> Option<lifecycle::Pod> {
        if self.controller()?.uid != set_uid {
            return None;
        }
        let metadata = &self.metadata;
        let label = |name| metadata.labels.as_ref().and_then(|labels| labels.get(name)).cloned();
        let agent = self.status.init_container_statuses.iter().find(|status| status.name == names::AGENT);
        Some(lifecycle::Pod {
            name: metadata.name.clone()?,
            uid: metadata.uid.clone()?,
            version: metadata.resource_version.clone().unwrap_or_default(),
            created: metadata.creation_timestamp.as_ref()?.0,
            revision: label("controller-revision-hash").unwrap_or_default(),
            ip: self.status.pod_ip.clone(),
            ready: self.readiness().is_some_and(|(ready, _)| ready),
            toggles: None,
            deleted: metadata.deletion_timestamp.as_ref().map(|time| time.0),
            node: None,
            role: label(names::ROLE),
            serving: label(names::SERVING).map(|serving| serving == "true"),
            shed: metadata.annotations.as_ref().and_then(|all| shed_request(all.get(names::SHED)?)),
            first_container: self.spec.containers.first()?.name.clone(),
            containers: self.status.container_statuses.iter().map(|c| (c.name.clone(), self.container(c))).collect(),
            agent: agent.map(|status| status.state.running.is_some()),
            resize: condition::resizing(&self.status.conditions, self.metadata.generation),
        })
    }
}

/// `UNTIL REASON`; what is no time asks for nothing.
fn shed_request(text: &str) -> Option<lifecycle::ShedRequest> {
    let (until, why) = text.split_once(' ').unwrap_or((text, ""));
    Some(lifecycle::ShedRequest { until: until.parse().ok()?, why: why.trim().to_owned() })
}

impl ContainerStatus {
    fn observed(&self) -> lifecycle::Container {
        lifecycle::Container {
            id: self.container_id.clone(),
            running_since: self.state.running.as_ref().map(|r| r.started_at.unwrap_or(Timestamp::UNIX_EPOCH)),
            restarts: self.restart_count,
            last: self.last_state.terminated.as_ref().map(|t| lifecycle::Terminated {
                reason: t.reason.clone(),
                exit_code: t.exit_code,
                signal: t.signal,
                began: t.started_at,
                by_probe: false,
            }),
            resources: lifecycle::Resources::default(),
        }
    }
}

impl StatefulSet {
    /// Drops what is never read. Labels stay: policies select by them.
    pub(super) fn slim(&mut self) {
        let labels = self.metadata.labels.take();
        keep(&mut self.metadata, &[], &[names::HOLD, names::POLICY, names::INJECT]);
        self.metadata.labels = labels;
    }

    pub(super) fn labels(&self) -> &BTreeMap<String, String> {
        static NONE: BTreeMap<String, String> = BTreeMap::new();
        self.metadata.labels.as_ref().unwrap_or(&NONE)
    }

    pub(super) fn annotation(&self, name: &str) -> Option<&str> {
        self.metadata.annotations.as_ref()?.get(name).map(String::as_str)
    }

    /// Has the webhook written something into its template?
    pub(super) fn is_written(&self) -> bool {
        self.spec.template.metadata.is_written
    }

    /// What a pod of it that stops is judged by.
    pub(super) fn owner(&self) -> Owner {
        Owner {
            terminating: self.metadata.deletion_timestamp.is_some(),
            ordinals: self.ordinals(),
            update_revision: self.status.update_revision.clone(),
            is_observed: self.metadata.generation.is_none_or(|generation| self.status.observed_generation >= generation),
        }
    }

    /// The ordinals that its pods have.
    pub(super) fn ordinals(&self) -> std::ops::Range<u32> {
        let start = self.spec.ordinals.start;
        start..start.saturating_add(self.spec.replicas.unwrap_or(1))
    }

    /// Name of the first volume claim of its pod with this ordinal, where it has claims: `<template>-<set>-<ordinal>`.
    pub(super) fn claim(&self, ordinal: u32) -> Option<String> {
        let template = &self.spec.volume_claim_templates.first()?.metadata.name;
        Some(format!("{template}-{}-{ordinal}", self.metadata.name.as_deref()?))
    }

    /// Where its containers have their data: the first of its volume claims that each mounts.
    fn data(&self) -> BTreeMap<String, String> {
        let claims = self.spec.volume_claim_templates.iter().map(|template| &template.metadata.name);
        let of = |container: &Mounting| {
            let mount = claims.clone().find_map(|claim| container.volume_mounts.iter().find(|mount| mount.name == *claim))?;
            Some((container.name.clone(), mount.mount_path.clone()))
        };
        self.spec.template.spec.containers.iter().filter_map(of).collect()
    }

    /// As the core sees it.
    pub(super) fn observed(&self, hold_of_namespace: Option<&str>) -> lifecycle::Set {
        let hold = self.annotation(names::HOLD).or(hold_of_namespace);
        lifecycle::Set {
            name: self.metadata.name.clone().unwrap_or_default(),
            uid: self.metadata.uid.clone().unwrap_or_default(),
            created: self.metadata.creation_timestamp.as_ref().map_or(Timestamp::UNIX_EPOCH, |time| time.0),
            unchanged: self.metadata.generation.is_none_or(|generation| generation <= 1),
            has_volumes: !self.spec.volume_claim_templates.is_empty(),
            data: self.data(),
            service: self.spec.service_name.clone(),
            ordinals: self.ordinals(),
            selector: self.spec.selector.clone(),
            serves: self.spec.template.metadata.labels.contains_key(names::SERVING),
            hold: hold.map(|why| if why.is_empty() { "no reason given".to_owned() } else { why.to_owned() }),
        }
    }
}

impl Claim {
    /// Drops what is never read.
    pub(super) fn slim(&mut self) {
        keep(&mut self.metadata, &[], &[names::MEMBER]);
        self.metadata.owner_references = None;
    }

    /// The sets that it may be of.
    pub(super) fn sets(&self) -> Vec<SetKey> {
        claimants(&self.metadata)
    }

    /// As the core sees it.
    pub(super) fn observed(&self, set: &str) -> Option<lifecycle::Volume> {
        let metadata = &self.metadata;
        let mark = metadata.annotations.as_ref().and_then(|all| all.get(names::MEMBER));
        Some(lifecycle::Volume {
            claim: metadata.name.clone()?,
            uid: metadata.uid.clone()?,
            created: metadata.creation_timestamp.as_ref()?.0,
            is_member: mark.is_some_and(|of| of == set),
        })
    }
}

/// The sets that a claim may be of, by its name: the name of a set may have dashes, and so may that of a template.
pub(super) fn claimants(claim: &ObjectMeta) -> Vec<SetKey> {
    let (Some(namespace), Some(name)) = (&claim.namespace, &claim.name) else { return Vec::new() };
    let Some((name, ordinal)) = name.rsplit_once('-') else { return Vec::new() };
    if ordinal.parse::<u32>().is_err() {
        return Vec::new();
    }
    let splits = name.match_indices('-').filter_map(|(at, _)| name.get(at + 1..));
    splits.map(|set| SetKey { namespace: namespace.clone(), name: set.to_owned() }).collect()
}

impl Namespace {
    /// Drops what is never read.
    pub(super) fn slim(&mut self) {
        keep(&mut self.metadata, &[], &[names::HOLD]);
    }

    /// Why everything in it is on hold, if it is.
    pub(super) fn hold(&self) -> Option<&str> {
        self.metadata.annotations.as_ref()?.get(names::HOLD).map(String::as_str)
    }
}

/// Keeps of the metadata what tells one object from another, and these labels and annotations.
fn keep(metadata: &mut ObjectMeta, labels: &[&str], annotations: &[&str]) {
    metadata.managed_fields = None;
    metadata.finalizers = None;
    metadata.generate_name = None;
    metadata.self_link = None;
    for (map, wanted) in [(&mut metadata.labels, labels), (&mut metadata.annotations, annotations)] {
        if let Some(map) = map {
            map.retain(|key, _| wanted.contains(&key.as_str()));
        }
        if map.as_ref().is_some_and(BTreeMap::is_empty) {
            *map = None;
        }
    }
}
