//! The webhook from the API server's side: over its real socket, with a cluster in memory behind it.
#![expect(clippy::expect_used, clippy::indexing_slicing, reason = "a test ends where it fails")]

#[path = "webhook/approvals.rs"]
mod approvals;
#[path = "webhook/hostile.rs"]
mod hostile;

use std::path::Path;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use guardian_core::admission::Settings;
use guardian_core::names;
use guardian_core::sim::{Key, Resource};
use guardian_testing::{Api, approval};
use http_body_util::{BodyExt as _, Full};
use hyper::Request;
use hyper::body::Bytes;
use hyper_util::rt::TokioIo;
use jiff::Timestamp;
use prometheus::Registry;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use serde_json::{Value, json};
use stateful_guardian::audit::Audit;
use stateful_guardian::controller::Clock;
use stateful_guardian::server::tls::{self, Certificates, Oldest};
use stateful_guardian::server::{self, Bounds, Metrics};
use stateful_guardian::store::Store;
use stateful_guardian::webhook::Webhook;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;
use tokio_util::sync::CancellationToken;

const NAME: &str = "guardian-webhook.stateful-guardian.svc";
const INSTALLATION: &str = "stateful-guardian";
const POLICY: &str = "apiVersion: stateful-guardian.io/v1alpha1\nkind: GuardianPolicy\nhooks:\n  preStop: {command: [save]}\n";

/// A webhook that serves, the cluster behind it, and one connection to it.
struct Served {
    api: Api,
    store: Arc<Store>,
    connection: hyper::client::conn::http1::SendRequest<Full<Bytes>>,
    _directory: tempfile::TempDir,
    _tasks: JoinSet<()>,
}

impl Served {
    async fn start(api: Api) -> Self {
        let registry = Registry::new();
        let store = Store::new(api.process("webhook").client(), INSTALLATION, &registry).expect("a store");
        let audit = Audit::start(std::io::sink(), &registry).expect("an audit trail");
        let settings = Settings { image: "guardian:1".to_owned() };
        let webhook = Webhook::new(Arc::clone(&store), settings, audit, || Timestamp::UNIX_EPOCH, &registry).expect("a webhook");

        let directory = tempfile::tempdir().expect("a directory");
        let root = write_certificates(directory.path());
        let certificates = Certificates::new(directory.path(), &[NAME.to_owned()], &registry).expect("certificates");
        certificates.look(Clock::system().now()).expect("a pair");
        let tls = tls::config(certificates, Oldest::Tls13, None).expect("TLS");
        let listener = server::bind("127.0.0.1:0".parse().expect("an address")).expect("a port");
        let address = listener.local_addr().expect("bound");
        let metrics = Metrics::new(&registry, "webhook").expect("metrics");

        let mut tasks = JoinSet::new();
        tasks.spawn(server::serve(listener, tls, Arc::new(webhook), Bounds::default(), metrics, CancellationToken::new()));
        let tcp = TcpStream::connect(address).await.expect("a connection");
        let name = ServerName::try_from(NAME).expect("a name");
        let stream = TlsConnector::from(client(root)).connect(name, tcp).await.expect("TLS");
        let (connection, driver) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.expect("HTTP");
        tasks.spawn(async move { drop(driver.await) });
        Self { api, store, connection, _directory: directory, _tasks: tasks }
    }

    /// Started, with everything listed.
    async fn ready(api: Api) -> Self {
        let mut served = Self::start(api).await;
        let store = Arc::clone(&served.store);
        served._tasks.spawn(async move { store.watch(CancellationToken::new()).await });
        while served.store.ready().is_err() {
            tokio::task::yield_now().await;
        }
        served
    }

    async fn post(&mut self, path: &str, body: impl Into<Bytes>) -> (u16, Value) {
        let request = Request::post(path).header("host", NAME).header("content-type", "application/json");
        self.connection.ready().await.expect("the connection is kept");
        let answer =
            self.connection.send_request(request.body(Full::new(body.into())).expect("a request")).await.expect("an answer");
        let status = answer.status().as_u16();
        let body = answer.into_body().collect().await.expect("a body").to_bytes();
        (status, serde_json::from_slice(&body).expect("JSON"))
    }
}

fn client(root: rustls::pki_types::CertificateDer<'static>) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(root).expect("a root");
    let builder = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()));
    let builder = builder.with_protocol_versions(&[&rustls::version::TLS13]).expect("versions");
    Arc::new(builder.with_root_certificates(roots).with_no_client_auth())
}

fn write_certificates(directory: &Path) -> rustls::pki_types::CertificateDer<'static> {
    let mut authority = CertificateParams::default();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate().expect("a key")).expect("a CA");
    let key = KeyPair::generate().expect("a key");
    let leaf = CertificateParams::new(vec![NAME.to_owned()]).expect("a name").signed_by(&key, &authority).expect("a leaf");
    for (file, text) in [("tls.crt", leaf.pem()), ("tls.key", key.serialize_pem()), ("ca.crt", authority.pem())] {
        std::fs::write(directory.join(file), text).expect("written");
    }
    authority.der().clone()
}

fn review(uid: &str, operation: &str, kind: &str, object: &Value) -> String {
    let (group, resource) = if kind == "StatefulSet" { ("apps", "statefulsets") } else { ("", "configmaps") };
    json!({
        "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview",
        "request": {
            "uid": uid, "operation": operation, "namespace": "shop", "name": "redis", "dryRun": false,
            "kind": {"group": group, "version": "v1", "kind": kind},
            "resource": {"group": group, "version": "v1", "resource": resource},
            "userInfo": {"username": "somebody"}, "object": object, "oldObject": null,
        },
    })
    .to_string()
}

fn set() -> Value {
    let template =
        json!({"metadata": {"labels": {"app": "redis"}}, "spec": {"containers": [{"name": "redis", "image": "redis:5"}]}});
    json!({"apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": {"name": "redis"}, "spec": {"serviceName": "redis", "template": template}})
}

fn policy(text: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "redis", "labels": {(names::POLICY): "true"}},
        "data": {(names::POLICY_KEY): text},
    })
}

fn policy_key() -> Key {
    Resource::new("v1", "configmaps").named("shop", "redis")
}

/// A cluster in which the guardian is installed, and whose user may run commands in pods.
fn cluster() -> Api {
    let (api, now) = (Api::new(Clock::system()), Clock::system().now());
    let map = json!({"apiVersion": "v1", "kind": "ConfigMap"});
    api.world(|world| world.create(&approvals_key(), map, now).map(drop)).expect("created");
    api.allow_exec("somebody", "shop");
    api
}

fn approvals_key() -> Key {
    Resource::new("v1", "configmaps").named(INSTALLATION, names::APPROVALS)
}

/// The policy of this text is stored, past the webhook.
fn sneak(api: &Api, key: &Key, text: &str) {
    let now = Clock::system().now();
    api.world(|world| world.create(key, policy(text), now).map(drop)).expect("created");
}

/// The policy of this text is approved.
fn approve(api: &Api, text: &str) {
    let approval = approval("shop", text);
    api.world(|world| world.edit(&approvals_key(), |map| map["data"][&approval] = json!("")));
}

fn patch(answer: &Value) -> Option<Value> {
    let patch = STANDARD.decode(answer["response"]["patch"].as_str()?).expect("base64");
    Some(serde_json::from_slice(&patch).expect("JSON"))
}

#[tokio::test]
async fn every_answer_carries_the_uid_of_its_request() {
    let mut served = Served::ready(cluster()).await;
    let cases = [
        ("/mutate", review("u-set", "CREATE", "StatefulSet", &set()), "u-set", true),
        ("/mutate", review("u-delete", "DELETE", "StatefulSet", &Value::Null), "u-delete", true),
        ("/mutate", review("u-odd", "CREATE", "StatefulSet", &json!({"spec": {"template": 7}})), "u-odd", true),
        ("/validate", review("u-good", "CREATE", "ConfigMap", &policy(POLICY)), "u-good", true),
        ("/validate", review("u-bad", "CREATE", "ConfigMap", &policy("nonsense")), "u-bad", false),
    ];
    for (path, body, uid, allowed) in cases {
        let (status, answer) = served.post(path, body).await;
        assert_eq!(status, 200, "{uid}");
        assert_eq!(answer["response"]["uid"], uid);
        assert_eq!(answer["response"]["allowed"], allowed, "{answer}");
    }
}

#[tokio::test]
async fn what_is_no_review_is_refused_and_the_next_one_is_served() {
    let mut served = Served::ready(cluster()).await;
    let good = review("u", "CREATE", "StatefulSet", &set());
    let cases = [
        ("not JSON", "AdmissionReview"),
        ("{}", "AdmissionReview"),
        (&good.replace("admission.k8s.io/v1", "admission.k8s.io/v1beta1"), "admission.k8s.io/v1"),
        (r#"{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview"}"#, "request"),
        (&good.replace("\"u\"", "\"\""), "uid"),
    ];
    for (body, said) in cases {
        let (status, answer) = served.post("/mutate", body.to_owned()).await;
        assert_eq!(status, 400, "{body}");
        assert!(answer["error"].as_str().is_some_and(|error| error.contains(said)), "{body}: {answer}");
        let (status, _) = served.post("/mutate", good.clone()).await;
        assert_eq!(status, 200, "after {body}");
    }
}

#[tokio::test]
async fn a_webhook_that_has_not_listed_the_policies_says_that_it_is_not_there() {
    let api = cluster();
    let mut served = Served::start(api).await;
    let (status, answer) = served.post("/mutate", review("u", "CREATE", "StatefulSet", &set())).await;
    assert_eq!(status, 503, "{answer}");
}

#[tokio::test]
async fn a_policy_that_the_watch_has_not_brought_yet_is_asked_for() {
    let api = cluster();
    // Listed once, and then blind: the watch is not driven any more.
    let mut served = Served::start(api.clone()).await;
    let stop = CancellationToken::new();
    let watching = served.store.watch(stop.clone());
    let until_ready = async {
        while served.store.ready().is_err() {
            tokio::task::yield_now().await;
        }
        stop.cancel();
    };
    tokio::join!(watching, until_ready);
    let (_, answer) = served.post("/mutate", review("u", "CREATE", "StatefulSet", &set())).await;
    assert_eq!(patch(&answer), None, "there is no policy");
    approve(&served.api, POLICY);
    sneak(&served.api, &policy_key(), POLICY);
    let (_, answer) = served.post("/mutate", review("u", "CREATE", "StatefulSet", &set())).await;
    assert!(patch(&answer).is_some(), "{answer}");
}

#[tokio::test]
async fn a_policy_that_went_bad_leaves_its_last_good_revision_in_force() {
    let api = cluster();
    approve(&api, POLICY);
    sneak(&api, &policy_key(), POLICY);
    let mut served = Served::ready(api).await;
    let (_, good) = served.post("/mutate", review("u", "CREATE", "StatefulSet", &set())).await;
    assert!(patch(&good).is_some(), "{good}");
    let other = Resource::new("v1", "configmaps").named("shop", "other");
    served.api.world(|world| world.edit(&policy_key(), |map| map["data"][names::POLICY_KEY] = json!("nonsense")));
    sneak(&served.api, &other, POLICY);
    // The second policy comes after the bad one in the same watch: when it is there, the bad one has been read.
    while served.store.snapshot().policies["shop"].len() < 2 {
        tokio::task::yield_now().await;
    }
    let (_, answer) = served.post("/mutate", review("u", "CREATE", "StatefulSet", &set())).await;
    assert!(patch(&answer).is_some(), "{answer}");
    assert!(answer["response"]["warnings"].to_string().contains("other"), "both are in force: {answer}");
}
