//! What the webhook knows of the cluster: policies and PriorityClasses, kept current by watches, read as one immutable snapshot. What is
//! needed too seldom for a watch is asked for when it is needed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use futures::StreamExt as _;
use guardian_core::admission::{HandOver, Known, Question, Snapshot};
use guardian_core::names;
use guardian_core::policy::{self, Policy};
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace};
use k8s_openapi::api::scheduling::v1::PriorityClass;
use kube::api::{ListParams, ObjectMeta, PartialObjectMeta};
use kube::runtime::watcher::{Config, Event};
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Api, Client, ResourceExt as _};
use prometheus::{IntCounter, IntGauge, Registry};
use serde::Deserialize;
use tokio_util::sync::CancellationToken;

use crate::hand_over::{HandOvers, SlimPod};

/// A watch is renewed this often: a dead connection is noticed no sooner. Seconds.
const WATCH_TIMEOUT: u32 = 45;
/// How long an admission may wait for the answer to one question, or for what it writes. An eviction that has to wait for a hand-over does
/// most: it asks for pod, set, namespace and Lease, and makes the Lease, which is 1.5 s of the 2 s that the API server gives us. A denied
/// scale-in asks for set, policies and namespace: 0.9 s.
const ANSWER: Duration = Duration::from_millis(300);

type Policies = BTreeMap<String, BTreeMap<String, Arc<Policy>>>;

/// The cluster as the webhook sees it.
pub struct Store {
    client: Client,
    snapshot: ArcSwap<Snapshot>,
    policies_complete: AtomicBool,
    classes_complete: AtomicBool,
    policies: IntGauge,
    rejects: IntCounter,
    hand_overs: HandOvers,
}

impl Store {
    /// An empty store of the guardian that is installed in the namespace `installation`. It is not [`ready`](Self::ready) before
    /// [`watch`](Self::watch) has listed everything once.
    ///
    /// # Errors
    /// When `registry` has metrics of these names already.
    pub fn new(client: Client, installation: &str, registry: &Registry) -> Result<Arc<Self>, prometheus::Error> {
        let policies = IntGauge::new("guardian_policies", "Policies in force")?;
        let rejects = IntCounter::new("guardian_policy_rejects_total", "Policy ConfigMaps that could not be taken")?;
        registry.register(Box::new(policies.clone()))?;
        registry.register(Box::new(rejects.clone()))?;
        Ok(Arc::new(Self {
            hand_overs: HandOvers::new(client.clone(), installation),
            client,
            snapshot: ArcSwap::from_pointee(Snapshot { priority_classes: Some(BTreeSet::new()), ..Snapshot::default() }),
            policies_complete: AtomicBool::new(false),
            classes_complete: AtomicBool::new(false),
            policies,
            rejects,
        }))
    }

    /// The cluster at this moment.
    #[must_use]
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.snapshot.load_full()
    }

    /// Has everything been listed once?
    ///
    /// # Errors
    /// What is still missing.
    pub fn ready(&self) -> Result<(), String> {
        let lists = [(&self.policies_complete, "policies"), (&self.classes_complete, "PriorityClasses")];
        match lists.into_iter().find(|(complete, _)| !complete.load(Ordering::Acquire)) {
            Some((_, what)) => Err(format!("the {what} have not been listed yet")),
            None => Ok(()),
        }
    }

    /// Keeps the snapshot current until `shutdown`.
    pub async fn watch(&self, shutdown: CancellationToken) {
        let both = async { tokio::join!(self.watch_policies(), self.watch_classes()) };
        tokio::select! {
            _ = both => {}
            () = shutdown.cancelled() => {}
        }
    }

    /// Deletes what the hand-overs of the past have left, until `shutdown`.
    pub async fn sweep(&self, clock: impl Fn() -> Timestamp, shutdown: CancellationToken) {
        self.hand_overs.watch(clock, shutdown).await;
    }

    /// Writes down that a hand-over begins. Says whether this call did it, and not another one of the same moment; `None` when it could not
    /// be done in time.
    pub async fn begin(&self, hand_over: &HandOver, now: Timestamp) -> Option<bool> {
        match tokio::time::timeout(ANSWER, self.hand_overs.begin(hand_over, now)).await {
            Ok(Ok(first)) => Some(first),
            Ok(Err(error)) => {
                tracing::warn!(holder = hand_over.holder, %error, "the Lease of a hand-over cannot be made");
                None
            }
            Err(_) => {
                tracing::warn!(holder = hand_over.holder, timeout_ms = ANSWER.as_millis(), "no Lease of a hand-over in time");
                None
            }
        }
    }

    /// `snapshot` with what the API server answers to a question about `namespace` now; `None` when it knows no better, or does not say
    /// in time.
    pub async fn ask(&self, question: &Question, namespace: &str, snapshot: &Snapshot) -> Option<Snapshot> {
        if !is_name(namespace) {
            return None;
        }
        let mut snapshot = snapshot.clone();
        let answer = async {
            match question {
                Question::Policies => {
                    let api: Api<ConfigMap> = Api::namespaced(self.client.clone(), namespace);
                    let maps = api.list(&ListParams::default().labels(&label_selector())).await?;
                    maps.items.iter().for_each(|map| self.take(&mut snapshot.policies, map));
                    Ok(!maps.items.is_empty())
                }
                Question::PriorityClass(name) => {
                    let api: Api<PriorityClass> = Api::all(self.client.clone());
                    let found = api.get_metadata_opt(name).await?.is_some();
                    snapshot.priority_classes.get_or_insert_default().insert(name.clone());
                    Ok(found)
                }
                Question::Set(name) => {
                    let api: Api<SlimSet> = Api::namespaced(self.client.clone(), namespace);
                    let found = if is_name(name) { api.get_opt(name).await? } else { None };
                    let found = found.map(|set| Known { replicas: set.spec.replicas, ..known(set.metadata) });
                    let sets = snapshot.sets.entry(namespace.to_owned()).or_default();
                    Ok(found.map(|set| sets.insert(name.clone(), set)).is_some())
                }
                Question::Pod(name) => {
                    let api: Api<SlimPod> = Api::namespaced(self.client.clone(), namespace);
                    let found = if is_name(name) { api.get_opt(name).await? } else { None };
                    let pods = snapshot.pods.entry(namespace.to_owned()).or_default();
                    Ok(found.map(|pod| pods.insert(name.clone(), pod.into())).is_some())
                }
                Question::HandOver(pod_uid) => {
                    let began = self.hand_overs.began(pod_uid).await?;
                    snapshot.hand_overs.insert(pod_uid.clone(), began);
                    Ok(true)
                }
                Question::Namespace => {
                    let api: Api<Namespace> = Api::all(self.client.clone());
                    let found = api.get_metadata_opt(namespace).await?.map(|namespace| known(namespace.metadata));
                    Ok(found.map(|known| snapshot.namespaces.insert(namespace.to_owned(), known)).is_some())
                }
            }
        };
        match tokio::time::timeout(ANSWER, answer).await {
            Ok(Ok(true)) => Some(snapshot),
            Ok(Ok(false)) => None,
            Ok(Err(error)) => {
                let error: kube::Error = error;
                tracing::warn!(namespace, ?question, %error, "the API server does not answer a question");
                None
            }
            Err(_) => {
                tracing::warn!(namespace, ?question, timeout_ms = ANSWER.as_millis(), "no answer to a question in time");
                None
            }
        }
    }

    async fn watch_policies(&self) {
        let api: Api<ConfigMap> = Api::all(self.client.clone());
        let config = Config::default().labels(&label_selector()).timeout(WATCH_TIMEOUT);
        let mut events = watcher(api, config).default_backoff().boxed();
        let mut listed = Policies::new();
        while let Some(event) = events.next().await {
            match event {
                Ok(Event::Init) => listed = Policies::new(),
                Ok(Event::InitApply(map)) => {
                    // A policy that went bad while nobody watched: its last good revision stays in force.
                    if let Some(known) = lookup(&self.snapshot().policies, &map) {
                        insert(&mut listed, &map, known);
                    }
                    self.take(&mut listed, &map);
                }
                Ok(Event::InitDone) => {
                    self.publish_policies(&std::mem::take(&mut listed));
                    self.policies_complete.store(true, Ordering::Release);
                }
                Ok(Event::Apply(map)) => {
                    let mut policies = self.snapshot().policies.clone();
                    self.take(&mut policies, &map);
                    self.publish_policies(&policies);
                }
                Ok(Event::Delete(map)) => {
                    let mut policies = self.snapshot().policies.clone();
                    remove(&mut policies, &map);
                    self.publish_policies(&policies);
                }
                Err(error) => tracing::warn!(%error, "the watch of policies failed; it is made again"),
            }
        }
    }

    async fn watch_classes(&self) {
        // Their names are all that is asked for.
        let api: Api<PartialObjectMeta<PriorityClass>> = Api::all(self.client.clone());
        let mut events = watcher(api, Config::default().timeout(WATCH_TIMEOUT)).default_backoff().boxed();
        let mut listed = BTreeSet::new();
        while let Some(event) = events.next().await {
            match event {
                Ok(Event::Init) => listed = BTreeSet::new(),
                Ok(Event::InitApply(class)) => {
                    listed.insert(class.name_any());
                }
                Ok(Event::InitDone) => {
                    self.publish_classes(|classes| *classes = std::mem::take(&mut listed));
                    self.classes_complete.store(true, Ordering::Release);
                }
                Ok(Event::Apply(class)) => self.publish_classes(|classes| {
                    classes.insert(class.name_any());
                }),
                Ok(Event::Delete(class)) => self.publish_classes(|classes| {
                    classes.remove(&class.name_any());
                }),
                Err(error) => tracing::warn!(%error, "the watch of PriorityClasses failed; it is made again"),
            }
        }
    }

    /// Reads one ConfigMap into `policies`. What cannot be read leaves what is there.
    fn take(&self, policies: &mut Policies, map: &ConfigMap) {
        if map.metadata.deletion_timestamp.is_some() {
            return;
        }
        match policy::parse(&map.name_any(), map.data.as_ref().unwrap_or(&BTreeMap::new())) {
            Ok(policy) => insert(policies, map, Arc::new(policy)),
            Err(invalid) => {
                self.rejects.inc();
                tracing::warn!(
                    namespace = map.namespace(),
                    name = map.name_any(),
                    error = %invalid,
                    "a policy cannot be taken; its last good revision stays in force"
                );
            }
        }
    }

    fn publish_policies(&self, policies: &Policies) {
        self.policies.set(policies.values().map(BTreeMap::len).sum::<usize>().try_into().unwrap_or(i64::MAX));
        self.snapshot.rcu(|old| Snapshot { policies: policies.clone(), ..Snapshot::clone(old) });
    }

    fn publish_classes(&self, mut change: impl FnMut(&mut BTreeSet<String>)) {
        let mut classes = self.snapshot().priority_classes.clone().unwrap_or_default();
        change(&mut classes);
        self.snapshot.rcu(|old| Snapshot { priority_classes: Some(classes.clone()), ..Snapshot::clone(old) });
    }
}

fn known(metadata: ObjectMeta) -> Known {
    Known {
        labels: metadata.labels.unwrap_or_default(),
        annotations: metadata.annotations.unwrap_or_default(),
        terminating: metadata.deletion_timestamp.is_some(),
        replicas: None,
    }
}

/// Names come from reviews, and go into paths: one that no API server would have taken is not asked for.
fn is_name(text: &str) -> bool {
    let fits = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'.');
    !text.is_empty() && !text.starts_with('.') && text.bytes().all(fits)
}

/// A StatefulSet, without all that is not read.
#[derive(Clone, Debug, Deserialize, kube::Resource)]
#[resource(inherit = "StatefulSet")]
struct SlimSet {
    metadata: ObjectMeta,
    #[serde(default)]
    spec: SetSpec,
}

#[derive(Clone, Debug, Default, Deserialize)]
struct SetSpec {
    replicas: Option<i64>,
}

fn label_selector() -> String {
    format!("{}=true", names::POLICY)
}

fn lookup(policies: &Policies, map: &ConfigMap) -> Option<Arc<Policy>> {
    policies.get(&map.namespace()?)?.get(&map.name_any()).cloned()
}

fn insert(policies: &mut Policies, map: &ConfigMap, policy: Arc<Policy>) {
    policies.entry(map.namespace().unwrap_or_default()).or_default().insert(map.name_any(), policy);
}

fn remove(policies: &mut Policies, map: &ConfigMap) {
    let namespace = map.namespace().unwrap_or_default();
    if let Some(of_namespace) = policies.get_mut(&namespace) {
        of_namespace.remove(&map.name_any());
        if of_namespace.is_empty() {
            policies.remove(&namespace);
        }
    }
}
