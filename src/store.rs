//! What the webhook knows of the cluster: policies, their approvals and PriorityClasses, kept current by watches, read as one immutable
//! snapshot. What is needed too seldom for a watch is asked for when it is needed. The one thing that it writes are the approvals.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use futures::StreamExt as _;
use guardian_core::admission::{Author, HandOver, Known, Question, Review, Snapshot};
use guardian_core::names;
use guardian_core::policy::{Approval, Full};
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::authorization::v1::{ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec};
use k8s_openapi::api::core::v1::{ConfigMap, Namespace};
use k8s_openapi::api::scheduling::v1::PriorityClass;
use kube::api::{ListParams, ObjectMeta, PartialObjectMeta, PostParams};
use kube::runtime::watcher::{Config, Event};
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Api, Client, ResourceExt as _};
use prometheus::Registry;
use serde::Deserialize;
use tokio_util::sync::CancellationToken;

use crate::hand_over::{HandOvers, SlimPod};
use crate::policies::{self, Watched};

/// A watch is renewed this often: a dead connection is noticed no sooner. Seconds.
const WATCH_TIMEOUT: u32 = 45;
/// How long an admission may wait for the answer to one question, or for what it writes. An eviction that has to wait for a hand-over does
/// most: it asks for pod, set, namespace and Lease, and makes the Lease, which is 1.5 s of the 2 s that the API server gives us. A denied
/// scale-in asks for set, policies and namespace: 0.9 s.
const ANSWER: Duration = Duration::from_millis(300);
/// How long an admission may wait for its approval to be recorded. Before it one question was asked, about the author: 1.3 s of 2 s.
const RECORD: Duration = Duration::from_secs(1);
/// How often it is tried within that time. This replica writes one at a time, so each conflict is an approval of another one: with three
/// replicas at work at once the last of them needs three.
const ATTEMPTS: usize = 8;

/// The cluster as the webhook sees it.
pub struct Store {
    client: Client,
    /// Namespace of the approvals: the guardian's own.
    installation: String,
    /// Held while an approval is written.
    recording: tokio::sync::Mutex<()>,
    watched: Mutex<Watched>,
    snapshot: ArcSwap<Snapshot>,
    policies_complete: AtomicBool,
    approvals_complete: AtomicBool,
    classes_complete: AtomicBool,
    hand_overs: HandOvers,
}

/// Why an approval could not be recorded.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// The ConfigMap is part of the installation.
    #[error("there is no ConfigMap {APPROVALS} in namespace {0}: apply the guardian's manifests again", APPROVALS = names::APPROVALS)]
    Missing(String),
    /// Too many.
    #[error(transparent)]
    Full(#[from] Full),
    /// Refused, or not delivered.
    #[error("the API server says: {0}")]
    Api(#[from] kube::Error),
    /// Others were always first.
    #[error("{ATTEMPTS} others were recorded first: try again")]
    Contended,
    /// No answer.
    #[error("the API server did not answer within {} s: try again", RECORD.as_secs())]
    Silent,
}

impl Store {
    /// An empty store of the guardian that is installed in the namespace `installation`. It is not [`ready`](Self::ready) before
    /// [`watch`](Self::watch) has listed everything once.
    ///
    /// # Errors
    /// When `registry` has metrics of these names already.
    pub fn new(client: Client, installation: &str, registry: &Registry) -> Result<Arc<Self>, prometheus::Error> {
        Ok(Arc::new(Self {
            hand_overs: HandOvers::new(client.clone(), installation),
            client,
            installation: installation.to_owned(),
            recording: tokio::sync::Mutex::new(()),
            watched: Mutex::new(Watched::new(registry)?),
            snapshot: ArcSwap::from_pointee(Snapshot { priority_classes: Some(BTreeSet::new()), ..Snapshot::default() }),
            policies_complete: AtomicBool::new(false),
            approvals_complete: AtomicBool::new(false),
            classes_complete: AtomicBool::new(false),
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
        let lists = [
            (&self.policies_complete, "policies"),
            (&self.approvals_complete, "approvals"),
            (&self.classes_complete, "PriorityClasses"),
        ];
        match lists.into_iter().find(|(complete, _)| !complete.load(Ordering::Acquire)) {
            Some((_, what)) => Err(format!("the {what} have not been listed yet")),
            None => Ok(()),
        }
    }

    /// Keeps the snapshot current until `shutdown`.
    pub async fn watch(&self, shutdown: CancellationToken) {
        let all = async { tokio::join!(self.watch_policies(), self.watch_approvals(), self.watch_classes()) };
        tokio::select! {
            _ = all => {}
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

    /// `snapshot` with what the API server answers now to a question that a review has raised; `None` when it knows no better, or does
    /// not say in time.
    pub async fn ask(&self, question: &Question, review: &Review<'_>, snapshot: &Snapshot) -> Option<Snapshot> {
        let namespace = review.namespace.as_ref();
        if !is_name(namespace) {
            return None;
        }
        let mut snapshot = snapshot.clone();
        let answer = async {
            match question {
                Question::Policies => {
                    let api: Api<ConfigMap> = Api::namespaced(self.client.clone(), namespace);
                    let labelled = ListParams::default().labels(&policies::label_selector());
                    let own = self.approvals();
                    let (maps, approvals) = tokio::try_join!(api.list(&labelled), own.get_opt(names::APPROVALS))?;
                    let mut known = self.with_watched(|watched| watched.known().only(namespace));
                    known.approve(policies::approvals(approvals.as_ref()));
                    for map in &maps.items {
                        policies::put(&mut known, map);
                    }
                    for (policies, now) in [(&mut snapshot.policies, known.in_force()), (&mut snapshot.waiting, known.waiting())]
                    {
                        policies.remove(namespace);
                        policies.extend(now);
                    }
                    Ok(!maps.items.is_empty())
                }
                Question::MayExec => {
                    let author = review.author().map_err(kube::Error::SerdeError)?;
                    let api: Api<SubjectAccessReview> = Api::all(self.client.clone());
                    let answer = api.create(&PostParams::default(), &may_exec(author, namespace)).await?;
                    snapshot.may_exec = answer.status.map(|status| status.allowed);
                    Ok(snapshot.may_exec.is_some())
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

    /// Records an approval. The replica that does knows it at once, the others by their watch.
    ///
    /// # Errors
    /// When it is not recorded, or nobody knows. One that is recorded for a policy that is then not stored harms nothing.
    pub async fn record(&self, approval: &Approval, now: Timestamp) -> Result<(), RecordError> {
        let recorded = tokio::time::timeout(RECORD, self.write_approval(approval, now));
        let map = recorded.await.unwrap_or(Err(RecordError::Silent))?;
        self.change(|watched| !watched.approve(Some(&map)).is_empty());
        Ok(())
    }

    async fn write_approval(&self, approval: &Approval, now: Timestamp) -> Result<ConfigMap, RecordError> {
        let _turn = self.recording.lock().await;
        let api = self.approvals();
        for _ in 0..ATTEMPTS {
            let missing = || RecordError::Missing(self.installation.clone());
            let mut map = api.get_opt(names::APPROVALS).await?.ok_or_else(missing)?;
            let data = map.data.get_or_insert_default();
            self.with_watched(|watched| {
                approval.write(data, now, |namespace, digest| watched.known().is_in_use(namespace, digest))
            })?;
            match api.replace(names::APPROVALS, &PostParams::default(), &map).await {
                Err(kube::Error::Api(status)) if status.code == 409 => {}
                written => return Ok(written?),
            }
        }
        Err(RecordError::Contended)
    }

    fn approvals(&self) -> Api<ConfigMap> {
        Api::namespaced(self.client.clone(), &self.installation)
    }

    async fn watch_policies(&self) {
        let api: Api<ConfigMap> = Api::all(self.client.clone());
        let config = Config::default().labels(&policies::label_selector()).timeout(WATCH_TIMEOUT);
        let mut events = watcher(api, config).default_backoff().boxed();
        while let Some(event) = events.next().await {
            match event {
                Ok(event) => {
                    let complete = matches!(event, Event::InitDone);
                    self.change(|watched| !watched.take(event).is_empty());
                    self.policies_complete.fetch_or(complete, Ordering::AcqRel);
                }
                Err(error) => tracing::warn!(%error, "the watch of policies failed; it is made again"),
            }
        }
    }

    async fn watch_approvals(&self) {
        let config = policies::only_approvals(Config::default()).timeout(WATCH_TIMEOUT);
        let mut events = watcher(self.approvals(), config).default_backoff().boxed();
        while let Some(event) = events.next().await {
            match event {
                Ok(event) => {
                    let complete = matches!(event, Event::InitDone);
                    self.change(|watched| !watched.take_approvals(event).is_empty());
                    self.approvals_complete.fetch_or(complete, Ordering::AcqRel);
                }
                Err(error) => tracing::warn!(%error, "the watch of approvals failed; it is made again"),
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

    /// Changes what is known of policies and approvals. Where `change` says so, reviews from now on are judged by it.
    fn change(&self, change: impl FnOnce(&mut Watched) -> bool) {
        self.with_watched(|watched| {
            if !change(watched) {
                return;
            }
            let (policies, waiting) = (watched.known().in_force(), watched.known().waiting());
            self.snapshot.rcu(|old| Snapshot { policies: policies.clone(), waiting: waiting.clone(), ..Snapshot::clone(old) });
        });
    }

    fn with_watched<T>(&self, look: impl FnOnce(&mut Watched) -> T) -> T {
        look(&mut self.watched.lock().unwrap_or_else(PoisonError::into_inner))
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

/// The question whether `author` may run commands in pods of `namespace`.
fn may_exec(author: Author, namespace: &str) -> SubjectAccessReview {
    let attributes = ResourceAttributes {
        namespace: Some(namespace.to_owned()),
        verb: Some("create".to_owned()),
        resource: Some("pods".to_owned()),
        subresource: Some("exec".to_owned()),
        ..ResourceAttributes::default()
    };
    let spec = SubjectAccessReviewSpec {
        resource_attributes: Some(attributes),
        user: Some(author.user),
        uid: author.uid,
        groups: Some(author.groups),
        extra: Some(author.extra),
        ..SubjectAccessReviewSpec::default()
    };
    SubjectAccessReview { spec, ..SubjectAccessReview::default() }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn all_that_is_known_of_the_author_goes_into_the_question_about_him() {
        let review = r#"{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","request":{"uid":"u","operation":"CREATE",
            "kind":{"group":"","version":"v1","kind":"ConfigMap"},
            "userInfo":{"username":"ann","uid":"7","groups":["dev"],"extra":{"scopes":["a","b"]}}}}"#;
        let author = Review::parse(review).unwrap().author().unwrap();
        let question = serde_json::to_value(may_exec(author, "shop")).unwrap();
        let expected = json!({
            "user": "ann", "uid": "7", "groups": ["dev"], "extra": {"scopes": ["a", "b"]},
            "resourceAttributes": {"namespace": "shop", "verb": "create", "resource": "pods", "subresource": "exec"},
        });
        assert_eq!(question["spec"], expected);
    }
}
