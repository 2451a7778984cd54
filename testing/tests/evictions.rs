//! Evictions of pods that hold a role: what the webhook asks a cluster in memory, what it writes down there, and how long it holds a pod.
#![expect(clippy::expect_used, clippy::indexing_slicing, reason = "a test ends where it fails")]

use std::sync::Arc;
use std::time::Duration;

use guardian_core::admission::Settings;
use guardian_core::names;
use guardian_core::sim::{Key, Resource, World};
use guardian_testing::{Api, Fault, approval};
use hyper::body::Bytes;
use jiff::Timestamp;
use prometheus::Registry;
use serde_json::{Value, json};
use stateful_guardian::audit::Audit;
use stateful_guardian::controller::Clock;
use stateful_guardian::server::Handler as _;
use stateful_guardian::store::Store;
use stateful_guardian::webhook::Webhook;
use tokio::task::JoinSet;
use tokio::time::{Instant, advance, sleep};
use tokio_util::sync::CancellationToken;

const INSTALLATION: &str = "stateful-guardian";
const POLICY: &str = r#"
apiVersion: stateful-guardian.io/v1alpha1
kind: GuardianPolicy
role: {command: [role]}
hooks: {switchover: {command: [move], target: "role:primary"}}
"#;
/// What an eviction of the primary asks, in this order.
const QUESTIONS: [&str; 4] = ["GET pods", "GET statefulsets", "GET namespaces", "GET leases"];

/// A cluster with the set `redis` of two pods, of which the first is the primary; and replicas of the webhook.
struct Cluster {
    api: Api,
    clock: Clock,
    tasks: JoinSet<()>,
}

struct Replica {
    webhook: Webhook,
    store: Arc<Store>,
}

impl Cluster {
    fn new() -> Self {
        let clock = Clock::simulated(Timestamp::constant(1_780_000_000, 0));
        let api = Api::new(clock.clone());
        let now = clock.now();
        api.world(|world| {
            let mut make = |key: Key, object: Value| world.create(&key, object, now).map(drop).expect("made");
            make(Resource::new("v1", "namespaces").named("", "shop"), json!({}));
            let policy = json!({"metadata": {"labels": {(names::POLICY): "true"}}, "data": {(names::POLICY_KEY): POLICY}});
            make(Resource::new("v1", "configmaps").named("shop", "redis"), policy);
            let approvals = json!({"data": {approval("shop", POLICY): ""}});
            make(Resource::new("v1", "configmaps").named(INSTALLATION, names::APPROVALS), approvals);
            make(Resource::new("apps/v1", "statefulsets").named("shop", "redis"), json!({"spec": {"replicas": 2}}));
            make(pod_key("redis-0"), pod("primary"));
            make(pod_key("redis-1"), pod("replica"));
        });
        Self { api, clock, tasks: JoinSet::new() }
    }

    /// A replica of the webhook that has listed everything, and sweeps nothing.
    async fn replica(&mut self, name: &str) -> Replica {
        let registry = Registry::new();
        let store = Store::new(self.api.process(name).client(), INSTALLATION, &registry).expect("a store");
        let audit = Audit::start(std::io::sink(), &registry).expect("an audit trail");
        let settings = Settings { image: "guardian:1".to_owned() };
        let clock = self.clock.clone();
        let webhook = Webhook::new(Arc::clone(&store), settings, audit, move || clock.now(), &registry).expect("a webhook");
        let watched = Arc::clone(&store);
        self.tasks.spawn(async move { watched.watch(CancellationToken::new()).await });
        while store.ready().is_err() {
            sleep(Duration::from_millis(1)).await;
        }
        Replica { webhook, store }
    }

    fn leases(&self) -> Vec<Value> {
        let resource = Resource::new("coordination.k8s.io/v1", "leases");
        self.api.world(|world| world.list(&resource, INSTALLATION).cloned().collect())
    }

    /// The calls that `replica` has made since there were so many of them, its watches aside.
    fn calls_since(&self, replica: &str, many: usize) -> Vec<String> {
        let calls = self.api.calls().into_iter().skip(many).filter(|call| call.process == replica);
        calls.map(|call| call.kind).filter(|kind| !kind.starts_with("WATCH")).collect()
    }

    fn edit(&self, key: &Key, change: impl FnOnce(&mut Value)) {
        assert!(self.api.world(|world: &mut World| world.edit(key, change)), "{key:?}");
    }
}

impl Replica {
    async fn asked(&self, review: &Value) -> Value {
        let answer = self.webhook.handle("/validate", Bytes::from(review.to_string())).await;
        assert_eq!(answer.status, 200);
        serde_json::from_slice::<Value>(&answer.body).expect("JSON")["response"].take()
    }

    async fn evict(&self, pod: &str) -> Value {
        self.asked(&eviction(pod)).await
    }
}

fn pod_key(name: &str) -> Key {
    Resource::new("v1", "pods").named("shop", name)
}

fn pod(role: &str) -> Value {
    json!({
        "metadata": {
            "labels": {(names::GUARDED): "true", (names::ROLE): role},
            "ownerReferences": [{"apiVersion": "apps/v1", "kind": "StatefulSet", "name": "redis", "uid": "s", "controller": true}],
        },
        "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]},
    })
}

fn eviction(pod: &str) -> Value {
    json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": {
        "uid": "u", "namespace": "shop", "name": pod, "operation": "CREATE", "subResource": "eviction",
        "kind": {"group": "policy", "version": "v1", "kind": "Eviction"}, "resource": {"group": "", "version": "v1", "resource": "pods"},
        "object": {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": pod, "namespace": "shop"}},
    }})
}

#[track_caller]
fn waits(answer: &Value, words: &str) {
    assert_eq!((&answer["allowed"], &answer["status"]["code"]), (&json!(false), &json!(429)), "{answer}");
    assert!(answer["status"]["message"].to_string().contains(words), "{answer}");
}

#[track_caller]
fn goes(answer: &Value, words: &str) {
    assert_eq!(answer["allowed"], true, "{answer}");
    assert!(answer["warnings"].to_string().contains(words), "{answer}");
}

#[tokio::test(start_paused = true)]
async fn the_primary_waits_until_the_time_of_its_hand_over_is_over_and_no_longer() {
    let mut cluster = Cluster::new();
    let replica = cluster.replica("webhook").await;
    let before = cluster.api.calls().len();
    waits(&replica.evict("redis-0").await, "pod redis-0 holds the role primary");
    assert_eq!(cluster.calls_since("webhook", before), [&QUESTIONS[..], &["POST leases"]].concat());
    let [lease] = &cluster.leases()[..] else { panic!("one Lease") };
    let uid = cluster.api.world(|world| world.get(&pod_key("redis-0")).expect("a pod")["metadata"]["uid"].clone());
    assert_eq!(lease["metadata"]["name"], format!("evict-{}", uid.as_str().expect("a uid")));
    assert_eq!(lease["metadata"]["labels"][names::HAND_OVER], "true");
    assert_eq!((&lease["spec"]["holderIdentity"], &lease["spec"]["leaseDurationSeconds"]), (&json!("shop/redis-0"), &json!(100)));

    let other = cluster.replica("other").await;
    advance(Duration::from_secs(95)).await;
    let before = cluster.api.calls().len();
    waits(&other.evict("redis-0").await, "can be evicted with it");
    advance(Duration::from_secs(5)).await;
    goes(&other.evict("redis-0").await, "it was not handed over within 100 s");
    // Should something else have refused it: it does not wait a second time.
    advance(Duration::from_secs(60)).await;
    goes(&other.evict("redis-0").await, "it was not handed over within 100 s");
    assert_eq!(cluster.calls_since("other", before), [QUESTIONS, QUESTIONS, QUESTIONS].concat(), "nothing is written");
    assert_eq!(cluster.leases().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn two_replicas_that_are_asked_at_the_same_moment_make_one_lease_and_answer_alike() {
    let mut cluster = Cluster::new();
    let (one, other) = (cluster.replica("one").await, cluster.replica("other").await);
    let (first, second) = tokio::join!(one.evict("redis-0"), other.evict("redis-0"));
    waits(&first, "(in 100 s)");
    waits(&second, "(in 100 s)");
    assert_eq!(cluster.leases().len(), 1);
    let made = cluster.api.calls().iter().filter(|call| call.kind == "POST leases").count();
    assert_eq!(made, 2, "each of them has found none");
}

#[tokio::test(start_paused = true)]
async fn a_dry_run_is_answered_alike_and_writes_nothing() {
    let mut cluster = Cluster::new();
    let replica = cluster.replica("webhook").await;
    let mut of_the_request = eviction("redis-0");
    of_the_request["request"]["dryRun"] = json!(true);
    let mut of_the_options = eviction("redis-0");
    of_the_options["request"]["object"]["deleteOptions"] = json!({"dryRun": ["All"]});
    for review in [of_the_request, of_the_options] {
        let before = cluster.api.calls().len();
        waits(&replica.asked(&review).await, "pod redis-0 holds the role primary");
        assert_eq!(cluster.calls_since("webhook", before), QUESTIONS);
    }
    assert_eq!(cluster.leases(), Vec::<Value>::new());
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_is_not_or_no_longer_the_primary_goes_at_once() {
    let mut cluster = Cluster::new();
    let replica = cluster.replica("webhook").await;
    goes(&replica.evict("redis-1").await, "null");
    waits(&replica.evict("redis-0").await, "pod redis-0 holds the role primary");
    cluster.edit(&pod_key("redis-0"), |pod| pod["metadata"]["labels"][names::ROLE] = json!("replica"));
    let before = cluster.api.calls().len();
    goes(&replica.evict("redis-0").await, "null");
    assert_eq!(cluster.calls_since("webhook", before), QUESTIONS[..2]);
}

#[tokio::test(start_paused = true)]
async fn a_hold_lets_the_primary_go() {
    let mut cluster = Cluster::new();
    let replica = cluster.replica("webhook").await;
    let set = Resource::new("apps/v1", "statefulsets").named("shop", "redis");
    let namespace = Resource::new("v1", "namespaces").named("", "shop");
    for key in [set, namespace] {
        cluster.edit(&key, |object| object["metadata"]["annotations"] = json!({(names::HOLD): "incident"}));
        goes(&replica.evict("redis-0").await, "on hold");
        cluster.edit(&key, |object| object["metadata"]["annotations"] = json!({}));
    }
    waits(&replica.evict("redis-0").await, "pod redis-0 holds the role primary");
}

/// Whatever the API server does to any of the calls, the pod goes, and the API server's own caller has its answer in time.
#[tokio::test(start_paused = true)]
async fn a_cluster_that_does_not_answer_never_holds_a_pod() {
    for kind in QUESTIONS.into_iter().chain(["POST leases"]) {
        for fault in [Fault::Status(403), Fault::Status(404), Fault::Status(500), Fault::Status(429), Fault::Cut, Fault::Silence]
        {
            if (kind, fault) == ("GET leases", Fault::Status(404)) {
                continue; // That is how the API server says that there is none.
            }
            let mut cluster = Cluster::new();
            let replica = cluster.replica("webhook").await;
            cluster.api.fail_next(kind, fault);
            let asked = Instant::now();
            let answer = replica.evict("redis-0").await;
            assert_eq!(answer["allowed"], true, "{kind} {fault:?}: {answer}");
            assert_eq!(answer["warnings"].as_array().map(Vec::len), Some(1), "{kind} {fault:?}: {answer}");
            assert!(asked.elapsed() < Duration::from_millis(500), "{kind} {fault:?}: {:?}", asked.elapsed());
            assert_eq!(cluster.leases(), Vec::<Value>::new());
        }
    }
}

/// A name that no API server would have taken leads nowhere, whoever sends it.
#[tokio::test(start_paused = true)]
async fn a_name_that_is_a_path_is_not_asked_for() {
    let mut cluster = Cluster::new();
    let replica = cluster.replica("webhook").await;
    let before = cluster.api.calls().len();
    for name in ["", "..", "../secrets/key", "a/b", "a%2fb", "a?b", "a#b", "A", "a b", "a\nb"] {
        goes(&replica.evict(name).await, "could not be read");
        let mut elsewhere = eviction("redis-0");
        elsewhere["request"]["namespace"] = json!(name);
        goes(&replica.asked(&elsewhere).await, "could not be read");
    }
    assert_eq!(cluster.calls_since("webhook", before), Vec::<String>::new());
}

#[tokio::test(start_paused = true)]
async fn leases_of_the_past_are_swept_and_no_other() {
    let mut cluster = Cluster::new();
    let replica = cluster.replica("webhook").await;
    let controllers = Resource::new("coordination.k8s.io/v1", "leases").named(INSTALLATION, "guardian-controller");
    cluster.api.world(|world| world.create(&controllers, json!({}), Timestamp::UNIX_EPOCH).map(drop)).expect("made");
    waits(&replica.evict("redis-0").await, "pod redis-0 holds the role primary");
    for sweeper in [&replica.store, &cluster.replica("other").await.store] {
        let (store, clock) = (Arc::clone(sweeper), cluster.clock.clone());
        cluster.tasks.spawn(async move { store.sweep(move || clock.now(), CancellationToken::new()).await });
    }

    sleep(Duration::from_secs(9 * 60)).await;
    assert_eq!(cluster.leases().len(), 2, "a drain that goes on is not held up again");
    goes(&replica.evict("redis-0").await, "it was not handed over within 100 s");
    sleep(Duration::from_secs(2 * 60)).await;
    let names: Vec<Value> = cluster.leases().iter().map(|lease| lease["metadata"]["name"].clone()).collect();
    assert_eq!(names, ["guardian-controller"]);
    waits(&replica.evict("redis-0").await, "(in 100 s)");
}
