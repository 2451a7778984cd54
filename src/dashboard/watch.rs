//! What is known of the cluster, kept current by watches under the caller's own rights. What he may not read is not known, and that is told.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures::future;
use futures::stream::{self, BoxStream, StreamExt as _};
use guardian_core::names;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::apps::v1::{Deployment, StatefulSet};
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Pod, PodSpec};
use k8s_openapi::api::events::v1::Event as Told;
use k8s_openapi::api::scheduling::v1::PriorityClass;
use kube::api::{ApiResource, DynamicObject, PartialObjectMeta};
use kube::runtime::WatchStreamExt as _;
use kube::runtime::reflector::Store;
use kube::runtime::reflector::store::Writer;
use kube::runtime::watcher::{self, Config as Select, Event};
use kube::{Api, Client, Resource, ResourceExt as _};
use serde::de::DeserializeOwned;
use tokio::sync::Notify;

use super::{Config, Scope};
use crate::controller::{Clock, LEDGER, REPORTER};

/// A watch is renewed this often: a dead connection is noticed no sooner. Seconds.
const WATCH_TIMEOUT: u32 = 45;
/// A watch that failed is tried again after 30 s at most: one that has not failed for twice that works again.
const FAILED_FOR: SignedDuration = SignedDuration::from_secs(60);

/// Whether the namespaces themselves can be read.
pub(super) const NAMESPACES: &str = "the namespaces";
/// Whether the approvals can be read.
pub(super) const APPROVALS: &str = "the approvals";

/// The cluster, as far as the caller may see it. Sets are kept as the API server sent them, pods without their templates.
pub(super) struct Watched {
    pub(super) places: Store<PartialObjectMeta<Namespace>>,
    pub(super) sets: Store<DynamicObject>,
    pub(super) pods: Store<Pod>,
    pub(super) policies: Store<ConfigMap>,
    pub(super) ledgers: Store<ConfigMap>,
    pub(super) events: Store<Told>,
    pub(super) approvals: Store<ConfigMap>,
    pub(super) classes: Store<PartialObjectMeta<PriorityClass>>,
    pub(super) webhook: Store<Deployment>,
    /// How each watch is, by what it is about.
    health: Mutex<BTreeMap<&'static str, Health>>,
    /// Something is to be looked at.
    pub(super) changed: Notify,
    clock: Clock,
}

/// How a watch is.
#[derive(Clone, Debug, Default)]
struct Health {
    /// All that there is was listed once.
    listed: bool,
    failed: Option<(Timestamp, String)>,
}

impl Watched {
    /// Begins to watch. The stream does the watching, and yields whenever something has changed.
    pub(super) fn start(client: &Client, config: &Config) -> (Arc<Self>, BoxStream<'static, ()>) {
        let statefulsets = ApiResource::erase::<StatefulSet>(&());
        let (places, to_places) = store(());
        let (sets, to_sets) = store(statefulsets.clone());
        let (pods, to_pods) = store(());
        let (policies, to_policies) = store(());
        let (ledgers, to_ledgers) = store(());
        let (events, to_events) = store(());
        let (approvals, to_approvals) = store(());
        let (classes, to_classes) = store(());
        let (webhook, to_webhook) = store(());
        let (health, changed, clock) = (Mutex::default(), Notify::new(), config.clock.clone());
        let watched = Self { places, sets, pods, policies, ledgers, events, approvals, classes, webhook, health, changed, clock };
        let watched = Arc::new(watched);

        let select = || Select::default().timeout(WATCH_TIMEOUT);
        let named = |name: &str| select().fields(&format!("metadata.name={name}"));
        let labelled = |label: &str| select().labels(&format!("{label}=true"));
        let (own, inside) = (Inside(client, &config.scope), config.installation.as_str());
        let places = match &config.scope {
            Scope::Namespace(name) => named(name),
            Scope::Enabled => labelled(names::ENABLED),
        };
        let sets = match &config.scope {
            Scope::Namespace(name) => Api::namespaced_with(client.clone(), name, &statefulsets),
            Scope::Enabled => Api::all_with(client.clone(), &statefulsets),
        };
        let ours = select().fields(&format!("reportingController={REPORTER}"));
        let w = &watched;
        let streams = [
            w.keep(NAMESPACES, kube::runtime::watcher(Api::all(client.clone()), places), to_places, |_| {}),
            w.keep("the StatefulSets", kube::runtime::watcher(sets, select()), to_sets, |set| set.managed_fields_mut().clear()),
            w.keep("the guarded pods", own.watch(labelled(names::GUARDED)), to_pods, slim),
            w.keep("the policies", own.watch(labelled(names::POLICY)), to_policies, |_| {}),
            w.keep("the ledgers", own.watch(labelled(LEDGER)), to_ledgers, |_| {}),
            w.keep("the Events of the controller", own.watch(ours), to_events, |_| {}),
            w.keep(APPROVALS, at(client, inside, named(names::APPROVALS)), to_approvals, |_| {}),
            // Without these two `guardian status` believes the best, too, and says nothing.
            w.keep("", kube::runtime::watcher(Api::all(client.clone()), select()), to_classes, |_| {}),
            w.keep("", at(client, inside, named("guardian-webhook")), to_webhook, |_| {}),
        ];
        (Arc::clone(w), stream::select_all(streams).boxed())
    }

    /// What is watched under `what` goes to `writer`.
    fn keep<K>(
        self: &Arc<Self>,
        what: &'static str,
        events: impl stream::Stream<Item = watcher::Result<Event<K>>> + Send + 'static,
        writer: Writer<K>,
        slim: impl FnMut(&mut K) + Send + 'static,
    ) -> BoxStream<'static, ()>
    where
        K: Resource + Clone + Send + Sync + 'static,
        K::DynamicType: Eq + std::hash::Hash + Clone + Send + Sync,
    {
        if !what.is_empty() {
            self.health().insert(what, Health::default());
        }
        let watched = Arc::clone(self);
        let kept = events.default_backoff().modify(slim).reflect(writer);
        kept.filter_map(move |event| future::ready(watched.note(what, &event).then_some(()))).boxed()
    }

    /// Notes how a watch is; is there anything new?
    fn note<K>(&self, what: &'static str, event: &watcher::Result<Event<K>>) -> bool {
        let mut health = self.health();
        let Some(health) = health.get_mut(what) else { return !matches!(event, Ok(Event::Init | Event::InitApply(_))) };
        match event {
            Ok(Event::Init | Event::InitApply(_)) => return false,
            Ok(Event::InitDone) => *health = Health { listed: true, failed: None },
            Ok(Event::Apply(_) | Event::Delete(_)) => health.failed = None,
            Err(error) => health.failed = Some((self.clock.now(), why(error))),
        }
        true
    }

    /// Was everything listed once, or refused? Before, an absence means nothing.
    pub(super) fn is_settled(&self) -> bool {
        self.health().values().all(|health| health.listed || health.failed.is_some())
    }

    /// Was this listed once?
    pub(super) fn is_listed(&self, what: &str) -> bool {
        self.health().get(what).is_some_and(|health| health.listed)
    }

    /// What cannot be read now, and why.
    pub(super) fn problems(&self, now: Timestamp) -> Vec<(&'static str, String)> {
        let health = self.health();
        let fails = |health: &Health| match &health.failed {
            Some((at, why)) if !health.listed || now.duration_since(*at) < FAILED_FOR => Some(why.clone()),
            _ => None,
        };
        health.iter().filter_map(|(what, health)| Some((*what, fails(health)?))).collect()
    }

    /// The image that the webhook writes, if the caller may see it.
    pub(super) fn image(&self) -> Option<String> {
        let webhook = self.webhook.state().first().cloned()?;
        let containers = &webhook.spec.as_ref()?.template.spec.as_ref()?.containers;
        let mut variables = containers.iter().flat_map(|container| container.env.iter().flatten());
        variables.find(|variable| variable.name == "GUARDIAN_IMAGE")?.value.clone()
    }

    fn health(&self) -> MutexGuard<'_, BTreeMap<&'static str, Health>> {
        self.health.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Where the objects of sets are.
struct Inside<'a>(&'a Client, &'a Scope);

impl Inside<'_> {
    fn watch<K>(&self, select: Select) -> BoxStream<'static, watcher::Result<Event<K>>>
    where
        K: Resource<DynamicType = (), Scope = kube::core::NamespaceResourceScope>,
        K: Clone + DeserializeOwned + Debug + Send + 'static,
    {
        match self.1 {
            Scope::Namespace(name) => at(self.0, name, select),
            Scope::Enabled => kube::runtime::watcher(Api::all(self.0.clone()), select).boxed(),
        }
    }
}

fn at<K>(client: &Client, namespace: &str, select: Select) -> BoxStream<'static, watcher::Result<Event<K>>>
where
    K: Resource<DynamicType = (), Scope = kube::core::NamespaceResourceScope>,
    K: Clone + DeserializeOwned + Debug + Send + 'static,
{
    kube::runtime::watcher(Api::namespaced(client.clone(), namespace), select).boxed()
}

fn store<K>(kind: K::DynamicType) -> (Store<K>, Writer<K>)
where
    K: Resource + Clone + 'static,
    K::DynamicType: Eq + std::hash::Hash + Clone,
{
    let writer = Writer::new(kind);
    (writer.as_reader(), writer)
}

/// About 3 kB of 50 stay.
fn slim(pod: &mut Pod) {
    pod.managed_fields_mut().clear();
    pod.annotations_mut().clear();
    let node_name = pod.spec.take().and_then(|spec| spec.node_name);
    pod.spec = Some(PodSpec { node_name, ..PodSpec::default() });
}

/// The API server's own words where there are some.
fn why(error: &watcher::Error) -> String {
    let said = |error: &kube::Error| match error {
        kube::Error::Api(status) if !status.message.is_empty() => format!("{} ({})", status.message, status.code),
        kube::Error::Api(status) => format!("the API server answered {}", status.code),
        other => other.to_string(),
    };
    match error {
        watcher::Error::InitialListFailed(error)
        | watcher::Error::WatchStartFailed(error)
        | watcher::Error::WatchFailed(error) => said(error),
        other => other.to_string(),
    }
}
