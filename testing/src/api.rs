//! An API server in memory: `core::sim` behind the HTTP that kube speaks, with faults on demand.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::convert::Infallible;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::future::BoxFuture;
use futures::stream;
use guardian_core::sim::{Change, EventKind, Key, Refused, Resource, World, has_labels};
use guardian_hook::protocol::Request as RunRequest;
use http::{Method, Request, Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::{Bytes, Frame};
use jiff::Timestamp;
use kube::client::Body;
use serde_json::{Value, json};
use stateful_guardian::controller::Clock;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use crate::exec::Scene;
use crate::fault::Fault;
use crate::resizes::resize;

/// The server. Clones are the same server.
#[derive(Clone)]
pub struct Api {
    inner: Arc<Mutex<Inner>>,
    /// The version of the world: watches wait for it.
    version: watch::Sender<u64>,
    clock: Clock,
}

#[derive(Default)]
pub(crate) struct Inner {
    world: World,
    calls: Vec<Call>,
    by_number: BTreeMap<usize, Fault>,
    by_kind: VecDeque<(String, Fault)>,
    /// Namespaces, and the users and groups who may run commands in their pods.
    may_exec: BTreeSet<(String, String)>,
    /// Processes whose calls do not arrive.
    cut_off: BTreeSet<String>,
    /// What the next execs over HTTP do.
    scenes: VecDeque<Scene>,
    /// Pod and request of each of them, in order.
    executed: Vec<(String, RunRequest)>,
    /// Resources that nobody may touch.
    pub(crate) forbidden: BTreeSet<String>,
}

/// A call that came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// The process that made it.
    pub process: String,
    /// Verb and resource: `PUT configmaps`, `WATCH pods`, `EXEC`.
    pub kind: String,
    /// The name of the object, where it is about one.
    pub name: String,
}

impl Call {
    /// Does nobody but the caller see that it was carried out?
    pub(crate) fn only_reads(&self) -> bool {
        let verb = self.kind.split(' ').next().unwrap_or_default();
        matches!(verb, "GET" | "LIST" | "WATCH" | "COLLECT") || self.kind.ends_with("accessreviews")
    }
}

/// A process that calls: its client, and what is told when it has to die.
#[derive(Clone)]
pub struct Process {
    pub(crate) name: String,
    pub(crate) api: Api,
    pub(crate) crash: Arc<Notify>,
}

pub(crate) type Answer = Response<UnsyncBoxBody<Bytes, Infallible>>;

impl Api {
    /// An empty cluster.
    #[must_use]
    pub fn new(clock: Clock) -> Self {
        Self { inner: Arc::default(), version: watch::channel(0).0, clock }
    }

    /// Changes with every write.
    pub(crate) fn versions(&self) -> watch::Receiver<u64> {
        self.version.subscribe()
    }

    /// A process of this name.
    #[must_use]
    pub fn process(&self, name: &str) -> Process {
        Process { name: name.to_owned(), api: self.clone(), crash: Arc::new(Notify::new()) }
    }

    /// Reads or changes the world, as the cluster's own parts do; watches see it.
    pub fn world<T>(&self, act: impl FnOnce(&mut World) -> T) -> T {
        let mut inner = self.lock();
        let result = act(&mut inner.world);
        let version = inner.world.version();
        drop(inner);
        self.version.send_if_modified(|seen| std::mem::replace(seen, version) != version);
        result
    }

    /// Makes an object, or puts it in the place of the one that is there. It has no need to say its own name and namespace.
    pub fn put(&self, api_version: &str, plural: &str, namespace: &str, name: &str, object: &Value) {
        let key = Resource::new(api_version, plural).named(namespace, name);
        let now = self.clock.now();
        self.world(|world| {
            let replaced = world.edit(&key, |stored| {
                let before = std::mem::replace(stored, object.clone());
                stored["metadata"]["name"] = json!(name);
                stored["metadata"]["namespace"] = json!(namespace);
                for own in ["resourceVersion", "uid", "creationTimestamp"] {
                    stored["metadata"][own] = before["metadata"][own].clone();
                }
            });
            if !replaced {
                world.create(&key, object.clone(), now).map(drop).expect("a new object");
            }
        });
    }

    /// Waits for the next change of the world, or of what goes on in its pods.
    pub async fn changed(&self) {
        // The sender lives as long as this.
        let _ = self.version.subscribe().changed().await;
    }

    /// Something has changed in a pod of which the API server knows nothing.
    pub(crate) fn touch(&self) {
        self.version.send_modify(|_| {});
    }

    /// All calls so far, in order.
    #[must_use]
    pub fn calls(&self) -> Vec<Call> {
        self.lock().calls.clone()
    }

    /// The call with this number (the first is 0) goes wrong.
    pub fn fail(&self, number: usize, fault: Fault) {
        self.lock().by_number.insert(number, fault);
    }

    /// The next call of this kind goes wrong; several of them add up.
    pub fn fail_next(&self, kind: &str, fault: Fault) {
        self.lock().by_kind.push_back((kind.to_owned(), fault));
    }

    /// No call of this process is carried out or answered from now on. Watches that it has go on: it sees more than it would, and can do nothing.
    pub fn cut_off(&self, process: &str) {
        self.lock().cut_off.insert(process.to_owned());
    }

    /// The next exec over HTTP goes like this; several of them follow each other.
    pub fn plays(&self, scene: Scene) {
        self.lock().scenes.push_back(scene);
    }

    /// Pod and request of each exec over HTTP, in order.
    #[must_use]
    pub fn executed(&self) -> Vec<(String, RunRequest)> {
        self.lock().executed.clone()
    }

    /// An exec has come with this request: what is played?
    pub(crate) fn next_scene(&self, pod: &str, request: RunRequest) -> Scene {
        let mut inner = self.lock();
        inner.executed.push((pod.to_owned(), request));
        let scene = inner.scenes.pop_front().expect("a scene for each exec");
        drop(inner);
        self.touch();
        scene
    }

    /// Lets a user or a group `create pods/exec` in a namespace. Nobody else may.
    pub fn allow_exec(&self, subject: &str, namespace: &str) {
        self.lock().may_exec.insert((namespace.to_owned(), subject.to_owned()));
    }

    /// A SubjectAccessReview with its answer. Nothing is stored.
    fn authorize(&self, mut review: Value) -> Value {
        let spec = &review["spec"];
        let asked = &spec["resourceAttributes"];
        let is_exec = asked["verb"] == "create" && asked["resource"] == "pods" && asked["subresource"] == "exec";
        let subjects = spec["groups"].as_array().into_iter().flatten().chain([&spec["user"]]);
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let inner = self.lock();
        let may = subjects.map(|subject| (text(&asked["namespace"]), text(subject))).any(|pair| inner.may_exec.contains(&pair));
        drop(inner);
        review["status"] = json!({"allowed": is_exec && may});
        review
    }

    /// Writes a call down; what goes wrong with it?
    pub(crate) fn enter(&self, call: Call) -> Option<Fault> {
        let mut inner = self.lock();
        let number = inner.calls.len();
        let of_kind = inner.by_kind.iter().position(|(kind, _)| *kind == call.kind);
        let is_cut_off = inner.cut_off.contains(&call.process);
        inner.calls.push(call);
        if is_cut_off {
            return Some(Fault::Silence);
        }
        let of_number = inner.by_number.remove(&number);
        of_number.or_else(|| inner.by_kind.remove(of_kind?).map(|(_, fault)| fault))
    }

    /// How long the network takes, this time: 1 to 7 ms, so that calls of several processes overlap in ever other ways.
    fn latency(&self) -> Duration {
        Duration::from_millis(1 + self.lock().calls.len() as u64 * 5 % 7)
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn carry_out(&self, asked: &Asked, body: &[u8]) -> Answer {
        let now = self.clock.now();
        let object = || serde_json::from_slice::<Value>(body).unwrap_or_default();
        if asked.resource.plural == "subjectaccessreviews" {
            return json_answer(201, &self.authorize(object()));
        }
        let act = |world: &mut World| match (&asked.method, &asked.key) {
            (&Method::GET, Some(key)) => world.get(key).cloned(),
            (&Method::GET, None) => Ok(asked.list(world)),
            // Whoever asks what he himself may do may do everything.
            (&Method::POST, None) if asked.resource.api_version.starts_with("authorization.k8s.io/") => {
                let mut review = object();
                review["status"] = json!({"allowed": true});
                Ok(review)
            }
            (&Method::POST, Some(key)) if asked.subresource == "eviction" => evict(world, key, &object(), now),
            (&Method::POST, None) => {
                let object = object();
                let name = object["metadata"]["name"].as_str().unwrap_or_default().to_owned();
                world.create(&asked.resource.named(&asked.namespace, &name), object, now).cloned()
            }
            (&Method::PUT, Some(key)) => world.update(key, object()).cloned(),
            (&Method::PATCH, Some(key)) if asked.subresource == "resize" => resize(world, key, &object()),
            (&Method::PATCH, Some(key)) => world.get(key).cloned().and_then(|old| {
                let new = patched(old, &object())?;
                world.update(key, new).cloned()
            }),
            (&Method::DELETE, Some(key)) => {
                meets(world.get(key)?, &object()["preconditions"])?;
                world.delete(key)
            }
            (&Method::DELETE, None) => {
                let doomed = asked.list(world);
                for object in doomed["items"].as_array().into_iter().flatten() {
                    let name = object["metadata"]["name"].as_str().unwrap_or_default();
                    world.delete(&asked.resource.named(&asked.namespace, name))?;
                }
                Ok(doomed)
            }
            _ => Err(Refused { code: 405, reason: "MethodNotAllowed", message: format!("{asked:?}") }),
        };
        let dry = asked.query("dryRun") == "All";
        let result = if dry { act(&mut self.lock().world.clone()) } else { self.world(act) };
        match result {
            Ok(value) => json_answer(200, &value),
            Err(refused) => json_answer(refused.code, &status(refused.code, refused.reason, &refused.message)),
        }
    }

    /// A watch: changes as they come, a bookmark and the end when its time is over.
    fn watch(&self, asked: Asked) -> Answer {
        struct Watching {
            api: Api,
            asked: Asked,
            seen: u64,
            versions: watch::Receiver<u64>,
            end: Instant,
            over: bool,
        }
        let watching = Watching {
            api: self.clone(),
            seen: asked.query("resourceVersion").parse().unwrap_or_default(),
            versions: self.version.subscribe(),
            end: Instant::now() + Duration::from_secs(asked.query("timeoutSeconds").parse().unwrap_or(290)),
            over: false,
            asked,
        };
        let lines = stream::unfold(watching, |mut w| async move {
            loop {
                if w.over {
                    return None;
                }
                w.versions.borrow_and_update();
                let changes = w.api.lock().world.changes_since(w.seen).map(<[Change]>::to_vec);
                let changes = match changes {
                    Ok(changes) => changes,
                    Err(gone) => {
                        w.over = true;
                        let object = status(gone.code, gone.reason, &gone.message);
                        return Some((line("ERROR", &object), w));
                    }
                };
                w.seen = changes.last().map_or(w.seen, |change| change.version);
                let named = changes.iter().filter(|c| w.asked.is_named(&c.key.name));
                let events = named.filter_map(|c| c.event(&w.asked.resource, &w.asked.namespace, &w.asked.labels));
                let text: String = events.map(|e| line(EventKind::as_str(e.kind), &e.object)).collect();
                if !text.is_empty() {
                    return Some((text, w));
                }
                tokio::select! {
                    _ = w.versions.changed() => {}
                    () = tokio::time::sleep_until(w.end) => {
                        w.over = true;
                        let version = &w.asked.resource.api_version;
                        let bookmark = json!({"apiVersion": version, "kind": "Bookmark", "metadata": {"resourceVersion": w.seen.to_string()}});
                        return Some((line("BOOKMARK", &bookmark), w));
                    }
                }
            }
        });
        let frames = futures::StreamExt::map(lines, |text| Ok::<_, Infallible>(Frame::data(Bytes::from(text))));
        Response::new(StreamBody::new(frames).boxed_unsync())
    }
}

impl Process {
    /// A client of this process.
    #[must_use]
    pub fn client(&self) -> kube::Client {
        let process = self.clone();
        let service = tower::service_fn(move |request: Request<Body>| -> BoxFuture<'static, Result<Answer, std::io::Error>> {
            let process = process.clone();
            Box::pin(async move { process.call(request).await })
        });
        kube::Client::new(service, "default")
    }

    /// What goes wrong comes before and after the call itself. A caller that dies never hears the answer.
    pub(crate) async fn call(&self, request: Request<Body>) -> Result<Answer, std::io::Error> {
        let (head, body) = request.into_parts();
        let body = body.collect().await.map(http_body_util::Collected::to_bytes).map_err(std::io::Error::other)?;
        let asked = Asked::read(&head.method, &head.uri);
        let name = asked.key.as_ref().map(|key| key.name.clone()).unwrap_or_default();
        let fault = self.api.enter(Call { process: self.name.clone(), kind: asked.kind(), name });
        tokio::time::sleep(self.api.latency()).await;
        if let Some(refusal) = self.api.refusal(&asked) {
            return Ok(refusal);
        }
        if asked.subresource == "proxy" {
            return Ok(self.api.proxied(&asked));
        }
        if asked.subresource == "log" {
            return Ok(self.api.log(&asked));
        }
        if fault.is_none_or(Fault::is_carried_out) && !asked.watches {
            let answer = self.api.carry_out(&asked, &body);
            if fault.is_none() {
                tokio::time::sleep(self.api.latency()).await;
                return Ok(answer);
            }
        }
        match fault {
            None => Ok(self.api.watch(asked)),
            Some(fault) => self.suffer(fault).await,
        }
    }

    async fn suffer(&self, fault: Fault) -> Result<Answer, std::io::Error> {
        match fault {
            Fault::Status(code) => {
                let mut status = status(code, "", "as the test asked for");
                if matches!(code, 429 | 503) {
                    status["details"] = json!({"retryAfterSeconds": 30});
                }
                Ok(json_answer(code, &status))
            }
            Fault::AnswerLost | Fault::Cut => Err(std::io::ErrorKind::ConnectionReset.into()),
            Fault::Silence => std::future::pending().await,
            Fault::CrashBefore | Fault::CrashAfter => {
                self.crash.notify_one();
                std::future::pending().await
            }
        }
    }
}

/// A request, read.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    method: Method,
    resource: Resource,
    namespace: String,
    pub(crate) key: Option<Key>,
    subresource: String,
    labels: BTreeMap<String, String>,
    query: BTreeMap<String, String>,
    watches: bool,
}

impl Asked {
    /// `/api/v1/...` and `/apis/GROUP/VERSION/...`, then `[namespaces/NAMESPACE/]PLURAL[/NAME]`.
    fn read(method: &Method, uri: &http::Uri) -> Self {
        let mut path: VecDeque<&str> = uri.path().split('/').filter(|s| !s.is_empty()).collect();
        let mut next = || path.pop_front().unwrap_or_default().to_owned();
        let api_version = match next().as_str() {
            "api" => next(),
            _ => format!("{}/{}", next(), next()),
        };
        let (mut plural, mut name) = (next(), next());
        let mut namespace = String::new();
        let further = next();
        if plural == "namespaces" && !further.is_empty() {
            namespace = std::mem::take(&mut name);
            (plural, name) = (further, next());
        }
        let subresource = next();
        let resource = Resource::new(&api_version, &plural);
        let query: BTreeMap<String, String> = pairs(uri.query().unwrap_or_default(), '&').collect();
        let labels = query.get("labelSelector").map(|s| pairs(s, ',').collect()).unwrap_or_default();
        Self {
            method: method.clone(),
            key: (!name.is_empty()).then(|| resource.named(&namespace, &name)),
            subresource,
            watches: query.get("watch").is_some_and(|v| v == "true" || v == "1"),
            resource,
            namespace,
            labels,
            query,
        }
    }

    pub(crate) fn query(&self, name: &str) -> &str {
        self.query.get(name).map(String::as_str).unwrap_or_default()
    }

    /// As rights name it: `pods`, `pods/proxy`.
    pub(crate) fn resource_and_subresource(&self) -> String {
        let plural = &self.resource.plural;
        if self.subresource.is_empty() { plural.clone() } else { format!("{plural}/{}", self.subresource) }
    }

    pub(crate) fn namespace(&self) -> &str {
        &self.namespace
    }

    fn kind(&self) -> String {
        let verb = match (&self.method, self.watches, &self.key) {
            (_, true, _) => "WATCH",
            (&Method::GET, false, None) => "LIST",
            (method, ..) => method.as_str(),
        };
        format!("{verb} {}", self.resource.plural)
    }

    /// Does the field selector, if any, allow this name? It is the only field that one can select by here.
    fn is_named(&self, name: &str) -> bool {
        self.query("fieldSelector").strip_prefix("metadata.name=").is_none_or(|wanted| wanted == name)
    }

    fn list(&self, world: &World) -> Value {
        let items = world.list(&self.resource, &self.namespace).filter(|o| has_labels(o, &self.labels));
        let items: Vec<_> = items.filter(|o| self.is_named(o["metadata"]["name"].as_str().unwrap_or_default())).collect();
        json!({
            "apiVersion": self.resource.api_version,
            "kind": "List",
            "metadata": {"resourceVersion": world.version().to_string()},
            "items": items,
        })
    }
}

/// Is an object the one that the preconditions of its deletion mean?
fn meets(object: &Value, preconditions: &Value) -> Result<(), Refused> {
    for field in ["uid", "resourceVersion"] {
        let wanted = &preconditions[field];
        if wanted.is_string() && *wanted != object["metadata"][field] {
            return Err(Refused {
                code: 409,
                reason: "Conflict",
                message: format!("the {field} in the precondition does not match"),
            });
        }
    }
    Ok(())
}

/// The pod is marked as going, as the eviction API does it (KEP-3329); its kubelet takes it away. One that goes already is left as it is.
fn evict(world: &mut World, key: &Key, eviction: &Value, now: Timestamp) -> Result<Value, Refused> {
    let pod = world.get(key)?;
    meets(pod, &eviction["deleteOptions"]["preconditions"])?;
    if pod["metadata"]["deletionTimestamp"].is_null() {
        world.edit(key, |pod| {
            pod["metadata"]["deletionTimestamp"] = json!(now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string());
            let evicted = json!({"type": "DisruptionTarget", "status": "True", "reason": "EvictionByEvictionAPI"});
            if let Some(conditions) = pod["status"]["conditions"].as_array_mut() {
                conditions.push(evicted);
            }
        });
    }
    Ok(json!({"apiVersion": "v1", "kind": "Status", "status": "Success", "code": 201}))
}

/// A list of operations is a JSON Patch, anything else a merge patch. A `test` that fails is 422, as with the API server.
fn patched(mut object: Value, patch: &Value) -> Result<Value, Refused> {
    if !patch.is_array() {
        json_patch::merge(&mut object, patch);
        return Ok(object);
    }
    let applied = serde_json::from_value::<json_patch::Patch>(patch.clone())
        .map_err(|e| e.to_string())
        .and_then(|patch| json_patch::patch(&mut object, &patch).map_err(|e| e.to_string()));
    match applied {
        Ok(()) => Ok(object),
        Err(message) => Err(Refused { code: 422, reason: "Invalid", message }),
    }
}

/// `a=b` pairs, percent-encoding undone.
fn pairs(text: &str, separator: char) -> impl Iterator<Item = (String, String)> {
    let pairs = text.split(separator).filter_map(|pair| pair.split_once('='));
    pairs.map(|(key, value)| (decoded(key), decoded(value)))
}

fn decoded(text: &str) -> String {
    let mut parts = text.split('%');
    let mut result = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (code, rest) = part.split_at_checked(2).unwrap_or((part, ""));
        result.push(u8::from_str_radix(code, 16).map_or('%', char::from));
        result.push_str(rest);
    }
    result
}

fn line(kind: &str, object: &Value) -> String {
    format!("{}\n", json!({"type": kind, "object": object}))
}

pub(crate) fn status(code: u16, reason: &str, message: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Status", "metadata": {}, "status": "Failure", "code": code, "reason": reason, "message": message,
    })
}

pub(crate) fn json_answer(code: u16, value: &Value) -> Answer {
    let mut answer = Response::new(Full::new(Bytes::from(value.to_string())).boxed_unsync());
    *answer.status_mut() = StatusCode::from_u16(code).expect("a status code");
    answer
}
