//! What is known of the cluster, kept current by watches, and which set each change is about.

mod touched;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures::channel::mpsc;
use futures::{Stream, StreamExt as _, TryStreamExt as _, future, stream};
use guardian_core::lifecycle::Observed;
use guardian_core::names;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::runtime::reflector::store::{Writer, WriterDropped};
use kube::runtime::reflector::{ObjectRef, Store};
use kube::runtime::watcher::{self, Config, Event};
use kube::runtime::{WatchStreamExt as _, reflector};
use kube::{Api, Client, Resource};

use super::SetKey;
use super::api::call;
use super::clock::Clock;
use super::departed::Memory;
use super::hand_over::Waiting;
use super::observed::{Budget, Claim, Namespace, Node, Pod, Service, StatefulSet};
use super::policies::Guard;
use super::runs::Runs;
use super::stops::{self, Known, Stopping};
use super::toggles::Readiness;
use crate::policies::{self, Watched};
use touched::touched;

/// A watch is renewed this often: a dead connection is noticed no sooner. Seconds.
pub(super) const WATCH_TIMEOUT: u32 = 45;

/// The cluster, as far as it concerns us.
pub(super) struct Cluster {
    sets: Store<StatefulSet>,
    pods: Store<Pod>,
    waiting: Store<Waiting>,
    claims: Store<Claim>,
    budgets: Store<Budget>,
    services: Store<Service>,
    nodes: Store<Node>,
    namespaces: Store<Namespace>,
    policies: Mutex<Watched>,
    policies_listed: tokio::sync::watch::Sender<bool>,
    approvals_listed: tokio::sync::watch::Sender<bool>,
    departed: Mutex<Memory>,
    stopping: Mutex<mpsc::Sender<Stopping>>,
    readiness: Readiness,
    /// Everything was listed once.
    complete: AtomicBool,
    /// When it began to watch.
    began: Timestamp,
    clock: Clock,
}

/// The writing ends, until the watches are begun.
pub(super) struct Writers {
    sets: Writer<StatefulSet>,
    pods: Writer<Pod>,
    waiting: Writer<Waiting>,
    claims: Writer<Claim>,
    budgets: Writer<Budget>,
    services: Writer<Service>,
    nodes: Writer<Node>,
    namespaces: Writer<Namespace>,
}

impl Cluster {
    /// Pods whose deletion is seen come out of the last.
    pub(super) fn new(policies: Watched, clock: Clock) -> (Self, Writers, mpsc::Receiver<Stopping>) {
        let (sets, sets_writer) = reflector::store();
        let (pods, pods_writer) = reflector::store();
        let (waiting, waiting_writer) = reflector::store();
        let (claims, claims_writer) = reflector::store();
        let (budgets, budgets_writer) = reflector::store();
        let (services, services_writer) = reflector::store();
        let (nodes, nodes_writer) = reflector::store();
        let (namespaces, namespaces_writer) = reflector::store();
        let (policies_listed, _) = tokio::sync::watch::channel(false);
        let (approvals_listed, _) = tokio::sync::watch::channel(false);
        let (policies, departed) = (Mutex::new(policies), Mutex::default());
        let (sender, stopping) = mpsc::channel(stops::QUEUE);
        let sender = Mutex::new(sender);
        let cluster = Self {
            sets,
            pods,
            waiting,
            claims,
            budgets,
            services,
            nodes,
            namespaces,
            policies,
            policies_listed,
            approvals_listed,
            departed,
            stopping: sender,
            readiness: Readiness::default(),
            complete: AtomicBool::new(false),
            began: clock.now(),
            clock,
        };
        let writers = Writers {
            sets: sets_writer,
            pods: pods_writer,
            waiting: waiting_writer,
            claims: claims_writer,
            budgets: budgets_writer,
            services: services_writer,
            nodes: nodes_writer,
            namespaces: namespaces_writer,
        };
        (cluster, writers, stopping)
    }

    /// A set, where there is one.
    pub(super) fn set(&self, key: &SetKey) -> Option<Arc<StatefulSet>> {
        self.sets.get(&key.object())
    }

    /// Waits until everything was listed once: before, an absence means nothing.
    pub(super) async fn listed(&self) -> Result<(), WriterDropped> {
        self.sets.wait_until_ready().await?;
        self.pods.wait_until_ready().await?;
        self.claims.wait_until_ready().await?;
        self.budgets.wait_until_ready().await?;
        self.services.wait_until_ready().await?;
        self.namespaces.wait_until_ready().await?;
        // The senders are ours, so this cannot fail.
        let _ = self.policies_listed.subscribe().wait_for(|listed| *listed).await;
        let _ = self.approvals_listed.subscribe().wait_for(|listed| *listed).await;
        self.complete.store(true, Ordering::Release);
        Ok(())
    }

    /// Was everything listed once? For whoever cannot wait for it: of several that wait at a store only the last is woken.
    pub(super) fn is_complete(&self) -> bool {
        self.complete.load(Ordering::Acquire)
    }

    /// Watches; yields the sets that have to be looked at.
    pub(super) fn watch(
        self: Arc<Self>,
        client: &Client,
        installation: &str,
        writers: Writers,
    ) -> impl Stream<Item = SetKey> + use<> {
        let config = || Config::default().timeout(WATCH_TIMEOUT);
        let labelled = |label: &str| config().labels(&format!("{label}=true"));

        let sets = events(Api::<StatefulSet>::all(client.clone()), config()).modify(StatefulSet::slim).reflect(writers.sets);
        let sets = quiet(touched(sets, |set| SetKey::of(&set.metadata)), "StatefulSets").filter_map(future::ready);

        let seen = Arc::clone(&self);
        let pods = events(Api::<Pod>::all(client.clone()), labelled(names::GUARDED)).modify(Pod::slim);
        let pods = pods.inspect_ok(move |event| seen.remember(event)).reflect(writers.pods);
        let pods = quiet(touched(pods, |pod| pod.set()), "pods").filter_map(future::ready);

        // Of all claims of the cluster, since nothing in a claim tells the set that it is of; 0.5 kB each.
        let known = self.sets.clone();
        let claims = events(Api::<Claim>::all(client.clone()), config()).modify(Claim::slim).reflect(writers.claims);
        let claims = quiet(touched(claims, |claim| claim.sets()), "PersistentVolumeClaims").flat_map(move |sets| {
            let keys = sets.into_iter().filter(|key| known.get(&key.object()).is_some());
            stream::iter(keys.collect::<Vec<_>>())
        });

        let budgets = events(Api::<Budget>::all(client.clone()), config()).modify(Budget::slim).reflect(writers.budgets);
        let budgets =
            quiet(touched(budgets, |budget| budget.metadata.namespace), "PodDisruptionBudgets").filter_map(future::ready);

        // Of all Services of the cluster: a policy names them, and any may come; 0.6 kB each.
        let services = events(Api::<Service>::all(client.clone()), config()).modify(Service::slim).reflect(writers.services);
        let services = quiet(touched(services, |service| service.metadata.namespace), "Services").filter_map(future::ready);

        // 0.4 kB each. Nothing waits for these to be listed, nor does a change of one bring a set here: a pod that should have stopped is
        // looked at again and again.
        let nodes = events(Api::<Node>::all(client.clone()), config()).modify(Node::slim).reflect(writers.nodes);
        let nodes = quiet(touched(nodes, |_| None), "nodes").filter_map(future::ready);

        // Nothing waits for these to be listed: that there are none means nothing.
        let waiting = events(Api::<Waiting>::namespaced(client.clone(), installation), labelled(names::HAND_OVER));
        let waiting = touched(waiting.reflect(writers.waiting), |lease| lease.set());
        let waiting = quiet(waiting, "Leases of hand-overs").filter_map(future::ready);

        let namespaces = events(Api::<Namespace>::all(client.clone()), labelled(names::ENABLED)).modify(Namespace::slim);
        let namespaces = touched(namespaces.reflect(writers.namespaces), |namespace| namespace.metadata.name);
        let namespaces = quiet(namespaces, "namespaces").filter_map(future::ready);

        let maps = Arc::clone(&self);
        let approvals = Api::<ConfigMap>::namespaced(client.clone(), installation);
        let read = approvals.clone();
        let policies = quiet(events(Api::<ConfigMap>::all(client.clone()), labelled(names::POLICY)), "policies");
        let policies = policies.then(move |event| Arc::clone(&maps).take(event, read.clone())).flat_map(stream::iter);

        let maps = Arc::clone(&self);
        let approvals = quiet(events(approvals, policies::only_approvals(config())), "approvals");
        let approvals = approvals.flat_map(move |event| stream::iter(maps.take_approvals(event)));

        let whole =
            stream::select_all([namespaces.boxed(), budgets.boxed(), services.boxed(), policies.boxed(), approvals.boxed()]);
        let whole = whole.flat_map(move |namespace| stream::iter(self.sets_of(&namespace)));
        stream::select_all([sets.boxed(), pods.boxed(), claims.boxed(), waiting.boxed(), nodes.boxed(), whole.boxed()])
    }

    /// One set with its pods and runs; `None` where the guardian has no business, or nothing to do.
    pub(super) fn observe(&self, set: &StatefulSet, runs: &Runs) -> Option<Observed> {
        self.look(set, runs).filter(|o| !(o.pods.is_empty() && o.running.is_empty() && o.ends.is_empty()))
    }

    /// What there is to be told to a pod of this set that stops.
    pub(super) fn surroundings(&self, key: &SetKey, runs: &Runs) -> Option<Known> {
        let set = self.set(key)?;
        let observed = self.look(&set, runs)?;
        match self.guard(&set) {
            Guard::Policy(policy, _) => Some(Known { observed, policy }),
            _ => None,
        }
    }

    fn look(&self, set: &StatefulSet, runs: &Runs) -> Option<Observed> {
        let key = SetKey::of(&set.metadata)?;
        let namespace = self.namespaces.get(&ObjectRef::new(&key.namespace))?;
        if namespace.metadata.deletion_timestamp.is_some() {
            return None;
        }
        let observed = set.observed(namespace.hold());
        let (mut pods, mut departed, mut volumes) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        for ordinal in set.ordinals() {
            let name = format!("{}-{ordinal}", key.name);
            let there = self.pods.get(&ObjectRef::new(&name).within(&key.namespace));
            if let Some((there, mut pod)) = there.and_then(|there| Some((there.clone(), there.observed(&observed.uid)?))) {
                pod.node = self.node(&there).map(|node| node.observed());
                pod.toggles = self.readiness.of(&pod.uid);
                pods.insert(ordinal, pod);
            }
            if let Some(before) = self.departed().of(&(key.namespace.clone(), name)) {
                departed.insert(ordinal, before.clone());
            }
        }
        for ordinal in set.ordinals() {
            let claim = set.claim(ordinal).and_then(|name| self.claims.get(&ObjectRef::new(&name).within(&key.namespace)));
            volumes.extend(claim.and_then(|claim| Some((ordinal, claim.observed(&key.name)?))));
        }
        let (running, ends) = runs.of(&key);
        let waiting = self.waiting.state();
        let hand_overs = waiting.iter().filter(|lease| lease.set().as_ref() == Some(&key)).filter_map(|lease| lease.observed());
        let hand_overs = hand_overs.collect();
        let budgets = self.budgets.state();
        let budgets = budgets.iter().filter(|b| b.metadata.namespace.as_ref() == Some(&key.namespace));
        let budgets = budgets.filter_map(|budget| budget.observed(set)).collect();
        let services = self.services.state();
        let services = services.iter().filter(|s| s.metadata.namespace.as_ref() == Some(&key.namespace));
        let services = services.filter_map(|service| service.observed(set)).collect();
        Some(Observed {
            namespace: key.namespace,
            set: observed,
            pods,
            departed,
            volumes,
            roles: BTreeMap::new(),
            gauges: BTreeMap::new(),
            watched: self.began,
            hand_overs,
            budgets,
            services,
            running,
            ends,
            refused: BTreeMap::new(),
        })
    }

    /// The policy of a set.
    pub(super) fn guard(&self, set: &StatefulSet) -> Guard {
        Guard::of(set, self.policies().known())
    }

    /// Is anything written into the template of a set that a policy guards? `None`: no policy does, its owner wants none, or it is going.
    pub(super) fn is_guarded(&self, set: &StatefulSet) -> Option<bool> {
        let namespace = self.namespaces.get(&ObjectRef::new(set.metadata.namespace.as_deref()?))?;
        let going = namespace.metadata.deletion_timestamp.is_some() || set.metadata.deletion_timestamp.is_some();
        let out = set.annotation(names::INJECT) == Some("false");
        let policy = matches!(self.guard(set), Guard::Policy(..));
        (policy && !out && !going).then(|| set.is_written())
    }

    /// Is it opted in, and not going?
    pub(super) fn is_enabled(&self, namespace: &str) -> bool {
        let there = self.namespaces.get(&ObjectRef::new(namespace));
        there.is_some_and(|namespace| namespace.metadata.deletion_timestamp.is_none())
    }

    /// The sets that are there, and those that a pod or a claim that is there may be of.
    pub(super) fn claimants(&self) -> BTreeSet<SetKey> {
        let mut all: BTreeSet<SetKey> = self.sets.state().iter().filter_map(|set| SetKey::of(&set.metadata)).collect();
        all.extend(self.claims.state().iter().flat_map(|claim| claim.sets()));
        all.extend(self.pods.state().iter().filter_map(|pod| {
            let SetKey { namespace, name } = SetKey::of(&pod.metadata)?;
            Some(SetKey { namespace, name: name.rsplit_once('-')?.0.to_owned() })
        }));
        all
    }

    fn sets_of(&self, namespace: &str) -> Vec<SetKey> {
        let sets = self.sets.state();
        let keys = sets.iter().filter_map(|set| SetKey::of(&set.metadata));
        keys.filter(|key| key.namespace == namespace).collect()
    }

    /// The node of a pod.
    fn node(&self, pod: &Pod) -> Option<Arc<Node>> {
        self.nodes.get(&ObjectRef::new(pod.node()?))
    }

    /// Remembers a pod that goes, for the one that comes; and how often the readiness of one that stays has changed.
    fn remember(&self, event: &Event<Pod>) {
        let (pod, gone) = match event {
            Event::Apply(pod) | Event::InitApply(pod) => (pod, false),
            Event::Delete(pod) => (pod, true),
            Event::Init | Event::InitDone => return,
        };
        if gone {
            self.readiness.forget(pod);
        } else {
            let before = self.pods.get(&ObjectRef::from_obj(pod));
            self.readiness.see(before.as_deref(), pod, self.began, self.clock.now());
        }
        if let Some(stopping) = pod.stopping().filter(|_| !gone) {
            // When the queue is full they will have gone on before their turn.
            let _ = self.stopping.lock().unwrap_or_else(PoisonError::into_inner).try_send(stopping);
        }
        let Some(mut now) = pod.departing(gone) else { return };
        now.node_lost = self.node(pod).is_some_and(|node| node.silent_since().is_some());
        let name = (pod.metadata.namespace.clone().unwrap_or_default(), pod.metadata.name.clone().unwrap_or_default());
        self.departed().see(name, now);
    }

    /// Takes an event of a policy ConfigMap; yields the namespaces it concerns. The watch may show a policy before the approval that was
    /// recorded before it was stored: so a policy that seems not to be approved is taken for that only once the approvals were read again.
    async fn take(self: Arc<Self>, event: Event<ConfigMap>, approvals: Api<ConfigMap>) -> Vec<String> {
        let mut concerned = Vec::new();
        if self.policies().is_unapproved(&event) {
            match call("read the approvals", approvals.get_opt(names::APPROVALS)).await {
                Ok(map) => concerned = self.policies().approve(map.as_ref()),
                Err(error) => tracing::warn!(error = &error as &dyn std::error::Error, "approvals come by their watch alone now"),
            }
        }
        let complete = matches!(event, Event::InitDone);
        concerned.extend(self.policies().take(event));
        if complete {
            self.policies_listed.send_replace(true);
        }
        concerned
    }

    /// Takes an event of the approvals; yields the namespaces it concerns.
    fn take_approvals(&self, event: Event<ConfigMap>) -> Vec<String> {
        let complete = matches!(event, Event::InitDone);
        let concerned = self.policies().take_approvals(event);
        if complete {
            self.approvals_listed.send_replace(true);
        }
        concerned
    }

    fn policies(&self) -> MutexGuard<'_, Watched> {
        self.policies.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn departed(&self) -> MutexGuard<'_, Memory> {
        self.departed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn events<K>(api: Api<K>, config: Config) -> impl Stream<Item = watcher::Result<Event<K>>> + Send
where
    K: Resource + Clone + serde::de::DeserializeOwned + std::fmt::Debug + Send + 'static,
{
    kube::runtime::watcher(api, config).default_backoff()
}

/// A watch that fails is made again by itself; it is only told.
pub(super) fn quiet<T>(stream: impl Stream<Item = watcher::Result<T>>, what: &'static str) -> impl Stream<Item = T> {
    stream.filter_map(move |item| {
        future::ready(match item {
            Ok(item) => Some(item),
            Err(error) => {
                tracing::warn!(%error, "the watch of {what} failed; it is made again");
                None
            }
        })
    })
}
