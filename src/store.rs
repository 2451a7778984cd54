//! What the webhook knows of the cluster: policies and PriorityClasses, kept current by watches, read as one immutable snapshot. What is
//! needed too seldom for a watch is asked for when it is needed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use futures::StreamExt as _;
use guardian_core::admission::{Known, Question, Snapshot};
use guardian_core::names;
use guardian_core::policy::{self, Policy};
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace};
use k8s_openapi::api::scheduling::v1::PriorityClass;
use kube::api::{ListParams, ObjectMeta, PartialObjectMeta};
use kube::runtime::watcher::{Config, Event};
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Api, Client, ResourceExt as _};
use prometheus::{IntCounter, IntGauge, Registry};
use tokio_util::sync::CancellationToken;

/// A watch is renewed this often: a dead connection is noticed no sooner. Seconds.
const WATCH_TIMEOUT: u32 = 45;
/// How long an admission may wait for the answer to one question. There are three at most, of which a denied scale-in asks all (set,
/// policies, namespace): 0.9 s of the 2 s that the API server gives us.
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
}

impl Store {
    /// An empty store. It is not [`ready`](Self::ready) before [`watch`](Self::watch) has listed everything once.
    ///
    /// # Errors
    /// When `registry` has metrics of these names already.
    pub fn new(client: Client, registry: &Registry) -> Result<Arc<Self>, prometheus::Error> {
        let policies = IntGauge::new("guardian_policies", "Policies in force")?;
        let rejects = IntCounter::new("guardian_policy_rejects_total", "Policy ConfigMaps that could not be taken")?;
        registry.register(Box::new(policies.clone()))?;
        registry.register(Box::new(rejects.clone()))?;
        Ok(Arc::new(Self {
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

    /// `snapshot` with what the API server answers to a question about `namespace` now; `None` when it knows no better, or does not say
    /// in time.
    pub async fn ask(&self, question: &Question, namespace: &str, snapshot: &Snapshot) -> Option<Snapshot> {
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
                    let api: Api<StatefulSet> = Api::namespaced(self.client.clone(), namespace);
                    let found = api.get_metadata_opt(name).await?.map(|set| known(set.metadata));
                    let sets = snapshot.sets.entry(namespace.to_owned()).or_default();
                    Ok(found.map(|set| sets.insert(name.clone(), set)).is_some())
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
    }
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
