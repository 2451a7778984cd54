//! The whole pass against a scripted API server.
#![expect(clippy::expect_used, clippy::indexing_slicing, reason = "a test ends where it fails")]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use http::{Method, Request, Response};
use http_body_util::BodyExt;
use jiff::Timestamp;
use kube::Client;
use kube::client::Body;
use serde_json::{Value, json};
use webhook_certs::{Config, Error, Lives, Published, ensure_once, run};

const SECRET: &str = "/api/v1/namespaces/guardian-system/secrets/guardian-certs";
const MUTATING: &str = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations/guardian";
const VALIDATING: &str = "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations/guardian";

/// The objects by path, the writes and reads that came, and what happens before one of them.
#[derive(Default)]
struct Api {
    objects: BTreeMap<String, Value>,
    version: u64,
    calls: Vec<String>,
    before: Option<(Method, Meddler)>,
    forbidden: BTreeSet<&'static str>,
    silent: bool,
}

type Shared = Arc<Mutex<Api>>;

/// Another writer.
type Meddler = Box<dyn FnOnce(&mut Api) + Send>;

impl Api {
    fn put(&mut self, path: &str, mut object: Value) -> Value {
        self.version += 1;
        object["metadata"]["resourceVersion"] = self.version.to_string().into();
        self.objects.insert(path.to_owned(), object.clone());
        object
    }

    fn answer(&mut self, method: &Method, path: &str, body: &[u8]) -> (u16, Value) {
        self.calls.push(format!("{method} {}", path.rsplit('/').nth(1).unwrap_or_default()));
        if let Some((on, act)) = self.before.take() {
            if on == *method {
                act(self);
            } else {
                self.before = Some((on, act));
            }
        }
        if self.forbidden.contains(method.as_str()) {
            return (403, json!("it is not allowed"));
        }
        let body: Value = serde_json::from_slice(body).unwrap_or_default();
        let held = self.objects.get(path).cloned();
        match (method.as_str(), held) {
            ("POST", _) => {
                let path = format!("{path}/{}", body["metadata"]["name"].as_str().expect("a name"));
                match self.objects.contains_key(&path) {
                    true => (409, json!("it exists")),
                    false => (201, self.put(&path, body)),
                }
            }
            (_, None) => (404, json!("there is none")),
            ("GET", Some(held)) => (200, held),
            ("PUT", Some(held)) if held["metadata"]["resourceVersion"] != body["metadata"]["resourceVersion"] => {
                (409, json!("it was changed"))
            }
            ("PUT", Some(_)) => (200, self.put(path, body)),
            ("PATCH", Some(mut held)) => {
                let patch: json_patch::Patch = serde_json::from_value(body).expect("a JSON patch");
                match json_patch::patch(&mut held, &patch) {
                    Ok(()) => (200, self.put(path, held)),
                    Err(error) => (422, json!(error.to_string())),
                }
            }
            _ => (405, json!("no such verb")),
        }
    }

    fn writes(&self) -> Vec<&str> {
        self.calls.iter().map(String::as_str).filter(|call| !call.starts_with("GET")).collect()
    }

    fn text(&self, path: &str, key: &str) -> String {
        let encoded = self.objects[path]["data"][key].clone();
        let bytes: k8s_openapi::ByteString = serde_json::from_value(encoded).expect("base64");
        String::from_utf8(bytes.0).expect("PEM")
    }
}

fn client(api: &Shared) -> Client {
    let api = Arc::clone(api);
    let service = tower::service_fn(move |request: Request<Body>| {
        let api = Arc::clone(&api);
        async move {
            let (head, body) = request.into_parts();
            let body = body.collect().await.expect("a body").to_bytes();
            if api.lock().expect("no panic").silent {
                std::future::pending::<()>().await;
            }
            // Whoever else is ready comes first: calls of two replicas alternate.
            tokio::task::yield_now().await;
            let (code, mut value) = api.lock().expect("no panic").answer(&head.method, head.uri.path(), &body);
            if code >= 400 {
                let reason = match code {
                    403 => "Forbidden",
                    404 => "NotFound",
                    409 => "Conflict",
                    _ => "Invalid",
                };
                value = json!({"kind": "Status", "status": "Failure", "message": value, "code": code, "reason": reason});
            }
            let response = Response::builder().status(code).body(Body::from(value.to_string().into_bytes()));
            Ok::<_, std::convert::Infallible>(response.expect("a response"))
        }
    });
    Client::new(service, "guardian-system")
}

/// An API server with both webhook configurations, of two webhooks and one.
fn api() -> Shared {
    let mut api = Api::default();
    let webhook =
        |name: &str| json!({"name": name, "clientConfig": {"service": {"name": "guardian", "namespace": "guardian-system"}}});
    api.put(MUTATING, json!({"metadata": {"name": "guardian"}, "webhooks": [webhook("sets"), webhook("pods")]}));
    api.put(VALIDATING, json!({"metadata": {"name": "guardian"}, "webhooks": [webhook("policies")]}));
    Arc::new(Mutex::new(api))
}

fn config() -> Config {
    Config {
        namespace: "guardian-system".into(),
        secret: "guardian-certs".into(),
        service: "guardian".into(),
        mutating: "guardian".into(),
        validating: "guardian".into(),
        lives: Lives::default(),
    }
}

fn now() -> Timestamp {
    "2026-01-01T00:00:00Z".parse().expect("a time")
}

async fn pass(api: &Shared) -> Result<webhook_certs::Pass, Error> {
    ensure_once(client(api), config(), now()).await
}

fn bundles(api: &Api) -> Vec<String> {
    let of = |path: &str| {
        let webhooks = api.objects[path]["webhooks"].as_array().expect("webhooks").clone();
        webhooks.into_iter().map(|webhook| {
            let bundle: k8s_openapi::ByteString =
                serde_json::from_value(webhook["clientConfig"]["caBundle"].clone()).expect("base64");
            String::from_utf8(bundle.0).expect("PEM")
        })
    };
    of(MUTATING).chain(of(VALIDATING)).collect()
}

#[tokio::test]
async fn the_first_pass_makes_all_and_the_second_writes_nothing() {
    let api = api();
    let first = pass(&api).await.expect("a pass");
    assert_eq!((first.mutating, first.validating), (Published::Patched, Published::Patched));
    assert_eq!(first.not_after, "2026-04-01T00:00:00Z".parse().expect("a time"));
    {
        let mut api = api.lock().expect("no panic");
        assert_eq!(
            api.writes(),
            ["POST guardian-system", "PATCH mutatingwebhookconfigurations", "PATCH validatingwebhookconfigurations"]
        );
        assert_eq!(api.objects[SECRET]["type"], "kubernetes.io/tls");
        assert_eq!(bundles(&api), vec![api.text(SECRET, "ca.crt"); 3]);
        api.calls.clear();
    }
    let second = pass(&api).await.expect("a pass");
    assert_eq!((second.renewed.len(), second.mutating, second.validating), (0, Published::Unchanged, Published::Unchanged));
    let api = api.lock().expect("no panic");
    assert_eq!(api.writes(), [""; 0]);
    assert_eq!(api.calls.len(), 3, "three reads");
}

#[tokio::test]
async fn two_replicas_that_start_at_once_agree_on_one_pair() {
    let api = api();
    let (one, other) = tokio::join!(pass(&api), pass(&api));
    let (one, other) = (one.expect("a pass"), other.expect("a pass"));
    assert_eq!([one.renewed.is_empty(), other.renewed.is_empty()].iter().filter(|reads| **reads).count(), 1);
    let api = api.lock().expect("no panic");
    assert_eq!(api.calls.iter().filter(|call| call.starts_with("POST")).count(), 2, "both have tried");
    assert_eq!(bundles(&api), vec![api.text(SECRET, "ca.crt"); 3]);
}

#[tokio::test]
async fn a_secret_that_was_written_in_between_is_read_again_and_kept() {
    let (theirs, api) = [api(), api()].into();
    pass(&theirs).await.expect("a pass");
    let secret = theirs.lock().expect("no panic").objects[SECRET].clone();
    // Installed empty; another replica fills it between our read and our write.
    let empty = json!({"metadata": {"name": "guardian-certs"}, "type": "Opaque"});
    {
        let mut api = api.lock().expect("no panic");
        api.put(SECRET, empty);
        let secret = secret.clone();
        api.before = Some((Method::PUT, Box::new(move |api| drop(api.put(SECRET, secret.clone())))));
    }
    let done = pass(&api).await.expect("a pass");
    assert_eq!(done.renewed, [""; 0]);
    assert_eq!(api.lock().expect("no panic").objects[SECRET]["data"], secret["data"]);
}

#[tokio::test]
async fn a_half_written_secret_is_repaired_and_what_else_it_holds_stays() {
    let api = api();
    pass(&api).await.expect("a pass");
    let bundle = {
        let mut api = api.lock().expect("no panic");
        let mut secret = api.objects[SECRET].clone();
        secret["data"].as_object_mut().expect("data").remove("tls.key");
        secret["data"]["note"] = "bm90ZQ==".into();
        api.put(SECRET, secret);
        api.text(SECRET, "ca.crt")
    };
    assert_eq!(pass(&api).await.expect("a pass").renewed, ["there was no leaf that clients would accept"]);
    let api = api.lock().expect("no panic");
    assert_eq!(api.text(SECRET, "ca.crt"), bundle, "the CA is kept");
    assert_eq!(api.objects[SECRET]["data"]["note"], "bm90ZQ==");
}

#[tokio::test]
async fn a_secret_of_somebody_else_is_refused_and_left_alone() {
    let api = api();
    let theirs = json!({"metadata": {"name": "guardian-certs"}, "data": {"password": "aHVudGVyMg=="}});
    api.lock().expect("no panic").put(SECRET, theirs);
    let error = pass(&api).await.expect_err("foreign").to_string();
    assert!(error.starts_with("Secret guardian-system/guardian-certs holds data of somebody else"), "{error}");
    assert!(error.contains("app.kubernetes.io/managed-by=stateful-guardian"), "{error}");
    assert_eq!(api.lock().expect("no panic").writes(), [""; 0]);
}

#[tokio::test]
async fn webhook_configurations_that_are_not_there_yet_are_no_error() {
    let api = api();
    api.lock().expect("no panic").objects.remove(MUTATING);
    let done = pass(&api).await.expect("a pass");
    assert_eq!((done.mutating, done.validating), (Published::Missing, Published::Patched));
}

#[tokio::test]
async fn only_a_bundle_that_differs_is_patched_and_only_in_the_version_that_was_read() {
    let api = api();
    pass(&api).await.expect("a pass");
    {
        let mut api = api.lock().expect("no panic");
        let mut configuration = api.objects[MUTATING].clone();
        configuration["webhooks"][1]["clientConfig"]["caBundle"] = "b3RoZXI=".into();
        api.put(MUTATING, configuration);
        api.calls.clear();
        // Somebody puts another webhook in front between our read and our patch.
        api.before = Some((
            Method::PATCH,
            Box::new(|api| {
                let mut configuration = api.objects[MUTATING].clone();
                let new = json!({"name": "new", "clientConfig": {"caBundle": "bmV3"}});
                configuration["webhooks"].as_array_mut().expect("webhooks").insert(0, new);
                api.put(MUTATING, configuration);
            }),
        ));
    }
    let done = pass(&api).await.expect("a pass");
    assert_eq!((done.mutating, done.validating), (Published::Patched, Published::Unchanged));
    let api = api.lock().expect("no panic");
    assert_eq!(api.writes(), ["PATCH mutatingwebhookconfigurations"; 2], "the first was refused");
    assert_eq!(bundles(&api), vec![api.text(SECRET, "ca.crt"); 4]);
}

#[tokio::test]
async fn a_missing_right_and_a_writer_that_never_rests_are_named() {
    let api = api();
    api.lock().expect("no panic").forbidden.insert("POST");
    let error = pass(&api).await.expect_err("forbidden").to_string();
    assert_eq!(error, "cannot create Secret guardian-system/guardian-certs: it is not allowed (403)");

    fn meddle(api: &mut Api) {
        let secret = json!({"metadata": {"name": "guardian-certs"}, "data": {}});
        api.put(SECRET, secret);
        api.before = Some((Method::PUT, Box::new(meddle)));
    }
    let api = self::api();
    meddle(&mut api.lock().expect("no panic"));
    let error = pass(&api).await.expect_err("contended").to_string();
    assert_eq!(error, "Secret guardian-system/guardian-certs was changed by another writer 5 times in a row");
}

#[tokio::test(start_paused = true)]
async fn an_api_server_that_does_not_answer_is_given_up_after_ten_seconds() {
    let api = api();
    api.lock().expect("no panic").silent = true;
    let began = tokio::time::Instant::now();
    let error = pass(&api).await.expect_err("silent").to_string();
    assert_eq!(error, "cannot read Secret guardian-system/guardian-certs: the API server gave no answer within 10s");
    assert_eq!(began.elapsed().as_secs(), 10);
}

/// The webhooks present the old leaf until the kubelet brings them the new one.
#[tokio::test(start_paused = true)]
async fn what_was_trusted_when_the_secret_was_lost_stays_trusted_until_servers_have_the_new_pair() {
    let api = api();
    let began = tokio::time::Instant::now();
    let clock = move || now() + jiff::SignedDuration::try_from(began.elapsed()).expect("hours");
    let shutdown = tokio_util::sync::CancellationToken::new();
    let minute = || tokio::time::sleep(std::time::Duration::from_secs(65));
    let expired = self::api();
    ensure_once(client(&expired), config(), now() - jiff::SignedDuration::from_hours(24 * 400)).await.expect("a pass");
    let expired = expired.lock().expect("no panic").text(SECRET, "ca.crt");
    let story = async {
        minute().await;
        let before = {
            let mut api = api.lock().expect("no panic");
            api.objects.remove(SECRET);
            let before = bundles(&api)[0].clone();
            let mut configuration = api.objects[VALIDATING].clone();
            let both = k8s_openapi::ByteString(format!("{before}{expired}").into_bytes());
            configuration["webhooks"][0]["clientConfig"]["caBundle"] = json!(both);
            api.put(VALIDATING, configuration);
            before
        };
        minute().await;
        let after = {
            let api = api.lock().expect("no panic");
            let after = api.text(SECRET, "ca.crt");
            assert_ne!(after, before);
            assert_eq!(bundles(&api), vec![format!("{after}{before}"); 3], "and not what has expired");
            after
        };
        for _ in 0..10 {
            minute().await;
        }
        assert_eq!(bundles(&api.lock().expect("no panic")), vec![after; 3], "all of them have it");
        shutdown.cancel();
    };
    tokio::join!(story, run(client(&api), config(), clock, shutdown.clone()));
}

#[tokio::test]
async fn a_single_pass_leaves_what_was_trusted_only_where_it_has_made_a_pair() {
    let api = api();
    pass(&api).await.expect("a pass");
    let before = bundles(&api.lock().expect("no panic"))[0].clone();
    api.lock().expect("no panic").objects.remove(SECRET);
    for others in [before, String::new()] {
        pass(&api).await.expect("a pass");
        let api = api.lock().expect("no panic");
        assert_eq!(bundles(&api), vec![format!("{}{others}", api.text(SECRET, "ca.crt")); 3]);
    }
}

/// Lives of minutes over three simulated hours: the loop rotates CA and leaf, and each `caBundle` follows.
#[tokio::test(start_paused = true)]
async fn the_loop_rotates_the_ca_and_the_leaf_without_a_gap() {
    let api = api();
    let minutes = jiff::SignedDuration::from_mins;
    let config = Config { lives: Lives { ca: minutes(60), leaf: minutes(15), settle: minutes(2) }, ..config() };
    let began = tokio::time::Instant::now();
    let clock = move || now() + jiff::SignedDuration::try_from(began.elapsed()).expect("hours");
    let shutdown = tokio_util::sync::CancellationToken::new();
    let mut bundles_seen = BTreeSet::new();
    let watch = async {
        let mut leaves = BTreeSet::new();
        for _ in 0..180 {
            tokio::time::sleep(std::time::Duration::from_secs(60)).await;
            let api = api.lock().expect("no panic");
            let bundle = api.text(SECRET, "ca.crt");
            assert!(bundles(&api).iter().all(|published| *published == bundle), "published with the Secret");
            bundles_seen.insert(bundle);
            leaves.insert(api.text(SECRET, "tls.crt"));
        }
        shutdown.cancel();
        leaves.len()
    };
    let (leaves, ()) = tokio::join!(watch, run(client(&api), config, clock, shutdown.clone()));
    assert!((18..=26).contains(&leaves), "a leaf every ten minutes and at each switch: {leaves}");
    assert!((8..=10).contains(&bundles_seen.len()), "each CA comes and goes once: {}", bundles_seen.len());
}
