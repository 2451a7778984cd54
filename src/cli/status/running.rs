//! What the sets of a namespace are doing: their guarded pods, and what their ledgers say.

use std::collections::BTreeMap;

use guardian_core::ledger::{self, Ledger, Record};
use guardian_core::{names, reason};
use k8s_openapi::api::core::v1::{ConfigMap, ContainerStatus, Pod};
use kube::api::ListParams;
use kube::{Api, ResourceExt as _};
use serde_json::{Value, json};

use crate::cli::cluster::{Cluster, ClusterError, call};
use crate::controller::LEDGER;

/// Of one namespace.
pub(super) struct Running {
    /// By uid of the set.
    pods: BTreeMap<String, Vec<Pod>>,
    /// By the name of the ConfigMap.
    ledgers: BTreeMap<String, Result<Ledger, String>>,
}

/// Of one set.
pub(super) struct Doing<'r> {
    replicas: u64,
    ready: u64,
    pods: &'r [Pod],
    ledger: Option<&'r Ledger>,
    /// The ledger cannot be read, and why.
    pub(super) problem: Option<&'r String>,
}

impl Running {
    pub(super) async fn read(cluster: &Cluster, namespace: &str) -> Result<Self, ClusterError> {
        let guarded = ListParams::default().labels(&format!("{}=true", names::GUARDED));
        let pods: Api<Pod> = Api::namespaced(cluster.client.clone(), namespace);
        let maps: Api<ConfigMap> = Api::namespaced(cluster.client.clone(), namespace);
        let ledgers = ListParams::default().labels(&format!("{LEDGER}=true"));
        let listed = call(format!("list the pods of {namespace}"), pods.list(&guarded)).await?;
        let maps = call(format!("list the ledgers of {namespace}"), maps.list(&ledgers)).await?;
        let mut pods: BTreeMap<String, Vec<Pod>> = BTreeMap::new();
        for pod in listed.items {
            let owner = pod.owner_references().iter().find(|owner| owner.controller == Some(true)).map(|owner| owner.uid.clone());
            owner.into_iter().for_each(|set| pods.entry(set).or_default().push(pod.clone()));
        }
        pods.values_mut().for_each(|pods| pods.sort_by_key(ordinal));
        let read = |map: ConfigMap| {
            let name = map.name_any();
            let ledger = Ledger::read(&map.data.unwrap_or_default()).map_err(|error| format!("{name}: {error}"));
            (name, ledger)
        };
        Ok(Self { pods, ledgers: maps.items.into_iter().map(read).collect() })
    }

    /// What is known of a set, as the API server sent it.
    pub(super) fn of(&self, set: &Value) -> Doing<'_> {
        let text = |pointer: &str| set.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
        let number = |pointer: &str| set.pointer(pointer).and_then(Value::as_u64);
        let ledger = self.ledgers.get(&ledger::name_for(text("/metadata/name")));
        Doing {
            replicas: number("/spec/replicas").unwrap_or(1),
            ready: number("/status/readyReplicas").unwrap_or_default(),
            pods: self.pods.get(text("/metadata/uid")).map_or(&[], Vec::as_slice),
            ledger: ledger.and_then(|ledger| ledger.as_ref().ok()),
            problem: ledger.and_then(|ledger| ledger.as_ref().err()),
        }
    }
}

impl Doing<'_> {
    /// Ready pods of all.
    pub(super) fn readiness(&self) -> String {
        format!("{}/{}", self.ready, self.replicas)
    }

    /// The last failure, and what was done about it last.
    pub(super) fn last_failure(&self) -> Option<Record> {
        self.ledger?.records().filter(|record| record.reason.parse().is_ok_and(reason::Start::is_failure)).last()
    }

    /// A row for each pod: name, ready, role, restarts, and what goes on in it.
    pub(super) fn rows(&self) -> Vec<[String; 5]> {
        let row = |pod: &Pod| {
            let name = pod.name_any();
            let role = pod.labels().get(names::ROLE).map_or("-", String::as_str).to_owned();
            let restarts = containers(pod).map(|container| container.restart_count).sum::<i32>();
            let ready = if is_ready(pod) { "yes" } else { "no" };
            [name.clone(), ready.to_owned(), role, restarts.to_string(), self.now(&name).unwrap_or_else(|| "-".to_owned())]
        };
        self.pods.iter().map(row).collect()
    }

    /// What goes on in a pod, or waits there.
    fn now(&self, pod: &str) -> Option<String> {
        let episode = self.ledger?.state.episodes.values().find(|episode| episode.pod == pod)?;
        let hook = format!("{} ({})", episode.hook, episode.reason);
        Some(match episode.next {
            Some(next) => format!("{hook}: attempt {} at {}", episode.attempts + 1, next.strftime("%Y-%m-%dT%H:%M:%SZ")),
            None => format!("{hook}: attempt {}", episode.attempts),
        })
    }

    /// For a document.
    pub(super) fn document(&self) -> BTreeMap<&'static str, Value> {
        let pod = |pod: &Pod| {
            json!({
                "name": pod.name_any(),
                "ready": is_ready(pod),
                "role": pod.labels().get(names::ROLE),
                "restarts": containers(pod).map(|container| container.restart_count).sum::<i32>(),
                "node": pod.spec.as_ref().and_then(|spec| spec.node_name.as_ref()),
                "revision": pod.labels().get("controller-revision-hash"),
            })
        };
        BTreeMap::from([
            ("replicas", json!(self.replicas)),
            ("ready", json!(self.ready)),
            ("pods", self.pods.iter().map(pod).collect()),
            ("lastFailure", json!(self.last_failure())),
            ("open", json!(self.ledger.map(|ledger| &ledger.state.episodes).cloned().unwrap_or_default())),
        ])
    }
}

fn containers(pod: &Pod) -> impl Iterator<Item = &ContainerStatus> {
    pod.status.iter().flat_map(|status| status.container_statuses.iter().flatten())
}

fn is_ready(pod: &Pod) -> bool {
    let mut conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
    conditions.any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

fn ordinal(pod: &Pod) -> u32 {
    pod.name_any().rsplit('-').next().and_then(|ordinal| ordinal.parse().ok()).unwrap_or(u32::MAX)
}
