//! The stage: a cluster, its runners, a clock, and controllers that are started again whenever they end.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use guardian_core::sim::{Key, Resource};
use jiff::{SignedDuration, Timestamp};
use prometheus::Registry;
use serde_json::Value;
use stateful_guardian::controller::{Bounds, Clock, Config, LEASE, Samples, run};
use tokio_util::sync::CancellationToken;

use crate::api::{Api, Process};
use crate::fault::Fault;
use crate::runner::Runner;

/// A policy with a `rejoin` hook that may be tried three times.
pub const POLICY: &str = "\
apiVersion: stateful-guardian.io/v1alpha1
kind: GuardianPolicy
selector: {matchLabels: {app: redis}}
hooks:
  rejoin: {command: [rejoin], timeout: 30s, retries: 2, backoff: 5s}
";

/// Most controllers that lead at once.
pub(crate) const MAX_LEADERS: usize = 3;

/// How long anything may take on the stage before the test gives up: longer than every time out and pause of the controller together.
const PATIENCE: Duration = Duration::from_secs(3600);

/// A cluster to play a story on.
#[derive(Clone)]
pub struct Stage {
    /// The API server.
    pub api: Api,
    /// The runners in its pods.
    pub runner: Runner,
    clock: Clock,
    born: Arc<AtomicU64>,
    /// Those of the controller that was begun last.
    samples: Arc<Mutex<Samples>>,
    /// The same of what it counts of itself.
    registry: Arc<Mutex<Registry>>,
    /// The controllers that are at work or wait for it, by name, and what tells them to end in good order.
    alive: Arc<Mutex<BTreeMap<String, (Process, CancellationToken)>>>,
}

impl Stage {
    /// An empty cluster, at noon. Call it in a test whose time is paused.
    #[must_use]
    pub fn new() -> Self {
        let clock = Clock::simulated(Timestamp::from_second(1_800_000_000).expect("a time"));
        let api = Api::new(clock.clone());
        let samples = Arc::new(Mutex::new(Samples::new(clock.clone())));
        let runner = Runner::new(api.clone());
        Self { runner, api, clock, born: Arc::default(), samples, registry: Arc::default(), alive: Arc::default() }
    }

    /// Plays a script with this many controllers at work. Each has a Lease of its own, so that all of them lead at once.
    pub async fn play(&self, leaders: usize, script: impl Future<Output = ()>) {
        assert!(leaders <= MAX_LEADERS, "approvals are made for {MAX_LEADERS} controllers");
        self.play_with((0..leaders).map(|n| self.keep_running(n, installation(n), SignedDuration::ZERO)), script).await;
    }

    /// Plays a script with controllers that share one Lease: one for each of these clocks, by how much it is ahead.
    pub async fn play_candidates(&self, ahead: &[SignedDuration], script: impl Future<Output = ()>) {
        self.play_with((0..).zip(ahead).map(|(n, ahead)| self.keep_running(n, installation(0), *ahead)), script).await;
    }

    async fn play_with(&self, controllers: impl Iterator<Item = impl Future<Output = ()>>, script: impl Future<Output = ()>) {
        tokio::select! {
            _ = futures::future::join_all(controllers) => panic!("the controllers are started for ever"),
            () = script => {}
        }
    }

    /// Plays a script with one controller that dies at the call with this number.
    pub async fn play_crashed(&self, number: usize, fault: Fault, script: impl Future<Output = ()>) {
        self.api.fail(number, fault);
        self.play(1, script).await;
    }

    /// One controller under a name; when it dies or ends, another takes its place, as a Deployment does.
    async fn keep_running(&self, n: usize, namespace: String, ahead: SignedDuration) {
        for life in 0.. {
            let process = self.api.process(&format!("controller-{n}-{life}"));
            let shutdown = CancellationToken::new();
            self.alive().insert(process.name.clone(), (process.clone(), shutdown.clone()));
            let clock = Clock::simulated(self.clock.now() + ahead);
            tokio::select! {
                () = self.controller(&process, &namespace, clock, shutdown) => {}
                () = process.crash.notified() => {}
            }
            self.alive().remove(&process.name);
            self.api.touch();
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    }

    /// A controller.
    async fn controller(&self, process: &Process, namespace: &str, clock: Clock, shutdown: CancellationToken) {
        let samples = Samples::new(clock.clone());
        *self.samples.lock().unwrap_or_else(PoisonError::into_inner) = samples.clone();
        let config = Config {
            identity: process.name.clone(),
            namespace: namespace.to_owned(),
            bounds: Bounds::default(),
            clock,
            samples,
            exec: Some(self.runner.reached_by(process)),
        };
        let registry = Registry::new();
        *self.registry.lock().unwrap_or_else(PoisonError::into_inner) = registry.clone();
        // A controller that loses its Lease ends with an error, and is started again like one that died.
        let _ = run(process.client(), config, &registry, shutdown).await;
    }

    /// Who holds the Lease of those that share one.
    #[must_use]
    pub fn leader(&self) -> String {
        let lease = self.get(&Resource::new("coordination.k8s.io/v1", "leases").named(&installation(0), LEASE));
        lease["spec"]["holderIdentity"].as_str().unwrap_or_default().to_owned()
    }

    /// Is the controller of this name still there?
    #[must_use]
    pub fn is_alive(&self, controller: &str) -> bool {
        self.alive().contains_key(controller)
    }

    /// It dies on the spot.
    pub fn kill(&self, controller: &str) {
        self.alive()[controller].0.crash.notify_one();
    }

    /// It is told to end, as the kubelet does it.
    pub fn shut_down(&self, controller: &str) {
        self.alive()[controller].1.cancel();
    }

    fn alive(&self) -> MutexGuard<'_, BTreeMap<String, (Process, CancellationToken)>> {
        self.alive.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the controller that was begun last serves of the pods' metrics.
    #[must_use]
    pub fn metrics(&self) -> String {
        self.samples.lock().unwrap_or_else(PoisonError::into_inner).text()
    }

    /// What the controller that was begun last counts of itself: the series of a metric, as `{LABELS} VALUE`, in order.
    #[must_use]
    pub fn counted(&self, metric: &str) -> Vec<String> {
        let families = self.registry.lock().unwrap_or_else(PoisonError::into_inner).gather();
        let text = prometheus::TextEncoder::new().encode_to_string(&families).expect("text");
        text.lines()
            .filter_map(|line| Some(line.strip_prefix(metric)?.to_owned()))
            .filter(|rest| rest.starts_with(['{', ' ']))
            .collect()
    }

    /// Waits until something holds of the cluster.
    pub async fn until(&self, what: &str, holds: impl Fn(&Self) -> bool) {
        let waiting = async {
            while !holds(self) {
                self.api.changed().await;
            }
        };
        if tokio::time::timeout(PATIENCE, waiting).await.is_err() {
            panic!("never: {what}\nstate {:#}\nhistory {:#?}\ncalls {:#?}", self.state(), self.history(), self.api.calls());
        }
    }

    /// Pod and attempt of each hook that was started, in order.
    #[must_use]
    pub fn attempts(&self) -> Vec<String> {
        let started = self.runner.started();
        let attempt = |id: &str| id.rsplit_once('-').map(|(_, attempt)| attempt.to_owned()).unwrap_or_default();
        started.iter().map(|order| format!("{} {}", order.pod, attempt(&order.request.run_id))).collect()
    }

    /// Hook and pod of each hook that was started, in order.
    #[must_use]
    pub fn hooks(&self) -> Vec<String> {
        self.runner.started().iter().map(|order| format!("{} {}", order.request.hook, order.pod)).collect()
    }

    /// Waits until every start is answered and nothing is open.
    pub async fn until_settled(&self) {
        self.until("every start is answered", Self::is_settled).await;
    }

    /// Half an hour passes in which nothing is started and nothing is written but Leases: longer than any pause of the controller.
    pub async fn assert_silence(&self) {
        self.assert_silence_for(Duration::from_secs(1800)).await;
    }

    /// As [`assert_silence`](Self::assert_silence), for as long as you like. What a controller tries and is refused does not count, nor do
    /// execs within the first second: a pass under way may still ask for an outcome that another controller has written down.
    pub async fn assert_silence_for(&self, time: Duration) {
        let execs = || self.api.calls().iter().filter(|call| call.kind == "EXEC").count();
        let (version, started) = (self.api.world(|world| world.version()), self.runner.started().len());
        tokio::time::sleep(Duration::from_secs(1)).await;
        let asked = execs();
        tokio::time::sleep(time).await;
        let written: Vec<Key> = self.api.world(|world| {
            let changes = world.changes_since(version).expect("nobody forgets");
            changes.iter().map(|change| change.key.clone()).filter(|key| key.resource.plural != "leases").collect()
        });
        assert_eq!(written, [], "nothing is written");
        assert_eq!(self.runner.started().len(), started, "nothing is started");
        assert_eq!(execs(), asked, "nobody is asked");
    }

    /// What time it is.
    #[must_use]
    pub fn time(&self) -> Timestamp {
        self.clock.now()
    }

    /// The time, as Kubernetes writes it.
    pub(crate) fn now(&self) -> String {
        self.clock.now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
    }

    /// The same with a fraction, as a `MicroTime` has it.
    pub(crate) fn micros(&self) -> String {
        self.clock.now().strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string()
    }

    pub(crate) fn next_container(&self) -> String {
        format!("containerd://{:012x}{:052x}", self.born.fetch_add(1, Ordering::Relaxed) + 1, 0)
    }

    pub(crate) fn create(&self, key: &Key, object: Value) {
        let now = self.clock.now();
        self.api.world(|world| world.create(key, object, now).map(drop)).expect("there is none of that name");
    }

    pub(crate) fn edit(&self, key: &Key, change: impl FnOnce(&mut Value)) {
        assert!(self.api.world(|world| world.edit(key, change)), "there is no {key:?}");
    }

    pub(crate) fn get(&self, key: &Key) -> Value {
        self.api.world(|world| world.get(key).cloned()).unwrap_or_default()
    }
}

/// The namespace of one of the controllers: its Lease is there, and the approvals.
pub(crate) fn installation(n: usize) -> String {
    format!("guardian-{n}")
}

impl Default for Stage {
    fn default() -> Self {
        Self::new()
    }
}
