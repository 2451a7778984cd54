//! The cluster as the caller may see it: each call under one deadline, and what a namespace has of sets and policies.

use std::collections::BTreeSet;
use std::io::IsTerminal as _;
use std::time::{Duration, Instant};

use guardian_core::names;
use guardian_core::policy::{self, Approvals};
use jiff::SignedDuration;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::authentication::v1::SelfSubjectReview;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Pod};
use k8s_openapi::api::scheduling::v1::PriorityClass;
use kube::api::{ListParams, PostParams};
use kube::client::Body;
use kube::{Api, Client, ResourceExt};
use serde_json::Value;
use tokio::runtime::Runtime;

use super::process;
use crate::controller::LEDGER;
use crate::known;
pub(super) use crate::known::{Place, Policies, name, settings};

/// One call to the API server.
const CALL: Duration = Duration::from_secs(10);
/// Objects of one page of a list: at 20 kB a StatefulSet, 10 MB of an answer.
const PAGE: u32 = 500;

/// Why the cluster gave no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum ClusterError {
    #[error("no way to the API server: {0}")]
    Client(#[source] Box<dyn std::error::Error + Send + Sync>),
    #[error("no runtime: {0}")]
    Runtime(#[source] std::io::Error),
    #[error("cannot {what}: {error}")]
    Call { what: String, error: Box<kube::Error> },
    #[error("cannot {0}: no answer within {seconds} s", seconds = CALL.as_secs())]
    Silence(String),
    #[error("there is no {0}")]
    Missing(String),
}

impl ClusterError {
    /// The HTTP status of a refusal.
    pub(super) fn code(&self) -> Option<u16> {
        match self {
            Self::Call { error, .. } => match error.as_ref() {
                kube::Error::Api(status) => Some(status.code),
                _ => None,
            },
            _ => None,
        }
    }
}

/// Runs `body` with a client of the caller's kubeconfig.
pub(super) fn run<T, E: From<ClusterError>>(body: impl AsyncFnOnce(Cluster) -> Result<T, E>) -> Result<T, E> {
    runtime()?.block_on(async {
        let client = Client::try_default().await.map_err(|e| ClusterError::Client(Box::new(e)))?;
        body(Cluster { client }).await
    })
}

/// What a command that waits runs on.
pub(super) fn runtime() -> Result<Runtime, ClusterError> {
    tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(ClusterError::Runtime)
}

/// Waits for one answer.
pub(super) async fn call<T>(what: impl Into<String>, request: impl Future<Output = kube::Result<T>>) -> Result<T, ClusterError> {
    match tokio::time::timeout(CALL, request).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(error)) => Err(ClusterError::Call { what: what.into(), error: Box::new(error) }),
        Err(_) => Err(ClusterError::Silence(what.into())),
    }
}

/// Says on a terminal what is being read, once that takes longer than a person waits without wondering.
pub(super) struct Progress {
    started: Instant,
    shown: bool,
}

/// So long nobody wonders.
const PATIENCE: Duration = Duration::from_secs(2);

impl Progress {
    pub(super) fn start() -> Self {
        Self { started: Instant::now(), shown: false }
    }

    /// In place of what was said before.
    pub(super) fn say(&mut self, what: &str) {
        if self.started.elapsed() >= PATIENCE && std::io::stderr().is_terminal() {
            anstream::eprint!("\r\u{1b}[K{what}");
            self.shown = true;
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.shown {
            anstream::eprint!("\r\u{1b}[K");
        }
    }
}

/// The way to the API server.
#[derive(Clone)]
pub(super) struct Cluster {
    pub(super) client: Client,
}

impl Cluster {
    /// The namespace that is named, or the one of the kubeconfig.
    pub(super) fn namespace_or_default(&self, named: Option<&str>) -> String {
        named.unwrap_or_else(|| self.client.default_namespace()).to_owned()
    }

    /// One namespace.
    pub(super) async fn place(&self, name: &str) -> Result<Place, ClusterError> {
        let api: Api<Namespace> = Api::all(self.client.clone());
        let found = call(format!("read the namespace {name}"), api.get_metadata_opt(name)).await?;
        found.as_ref().map(Place::from).ok_or_else(|| ClusterError::Missing(format!("namespace {name}")))
    }

    /// Every namespace that is enabled, by name.
    pub(super) async fn enabled(&self) -> Result<Vec<Place>, ClusterError> {
        let api: Api<Namespace> = Api::all(self.client.clone());
        let enabled = ListParams::default().labels(&format!("{}=true", names::ENABLED));
        let found = call("list the namespaces", api.list_metadata(&enabled)).await?;
        let mut places: Vec<Place> = found.items.iter().map(Place::from).collect();
        places.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(places)
    }

    /// The StatefulSets of a namespace by name, each as the API server sent it.
    pub(super) async fn sets(&self, namespace: &str) -> Result<Vec<Value>, ClusterError> {
        let what = format!("list the StatefulSets of {namespace}");
        self.all(&what, &format!("/apis/apps/v1/namespaces/{namespace}/statefulsets?limit={PAGE}")).await
    }

    /// The guarded pods of a namespace by name, each as the API server sent it.
    pub(super) async fn guarded_pods(&self, namespace: &str) -> Result<Vec<Value>, ClusterError> {
        let what = format!("list the pods of {namespace}");
        let label = format!("{}%3Dtrue", names::GUARDED.replace('/', "%2F"));
        self.all(&what, &format!("/api/v1/namespaces/{namespace}/pods?limit={PAGE}&labelSelector={label}")).await
    }

    /// Every page of a list, by name.
    async fn all(&self, what: &str, path: &str) -> Result<Vec<Value>, ClusterError> {
        let mut objects: Vec<Value> = Vec::new();
        let mut from = String::new();
        loop {
            let mut page: Value = self.raw(what.to_owned(), &format!("{path}{from}")).await?;
            objects.extend(page.get_mut("items").and_then(Value::as_array_mut).into_iter().flat_map(std::mem::take));
            match page.pointer("/metadata/continue").and_then(Value::as_str).filter(|token| !token.is_empty()) {
                Some(token) => from = format!("&continue={token}"),
                None => break,
            }
        }
        objects.sort_by(|a, b| name(a).cmp(name(b)));
        Ok(objects)
    }

    /// One StatefulSet as the API server sent it.
    pub(super) async fn set(&self, namespace: &str, name: &str) -> Result<Value, ClusterError> {
        let what = format!("read the StatefulSet {name} of {namespace}");
        let found = self.raw(what, &format!("/apis/apps/v1/namespaces/{namespace}/statefulsets/{name}")).await;
        found.map_err(|error| match error.code() {
            Some(404) => ClusterError::Missing(format!("StatefulSet {name} in {namespace}")),
            _ => error,
        })
    }

    async fn raw(&self, what: String, path: &str) -> Result<Value, ClusterError> {
        // A name that cannot be in a path is the caller's; the API server would not find it either.
        let request = http::Request::get(path).body(Vec::new());
        let request = request.map_err(|e| ClusterError::Client(Box::new(e)))?;
        call(what, self.client.request(request)).await
    }

    /// The approvals of this installation, or why they are not known: the caller may not read them, or they are not there.
    pub(super) async fn approvals(&self, installation: &str) -> Result<Result<Approvals, String>, ClusterError> {
        match self.known_approvals(installation).await {
            Ok(approvals) => Ok(Ok(approvals)),
            Err(error) if matches!(error.code(), Some(403 | 404)) => {
                Ok(Err(format!("{error}; every policy is taken for approved")))
            }
            Err(error) => Err(error),
        }
    }

    /// The same, where nothing may be taken for approved.
    pub(super) async fn known_approvals(&self, installation: &str) -> Result<Approvals, ClusterError> {
        let api: Api<ConfigMap> = Api::namespaced(self.client.clone(), installation);
        let what = format!("read the approvals: ConfigMap {} of namespace {installation}", names::APPROVALS);
        let map = call(what, api.get(names::APPROVALS)).await?;
        Ok(map.data.as_ref().map(Approvals::read).unwrap_or_default())
    }

    /// The policies of a namespace, and the PriorityClasses that there are, if the caller may list them.
    pub(super) async fn policies(&self, namespace: &str, approvals: Option<&Approvals>) -> Result<Policies, ClusterError> {
        let maps = self.policy_maps(namespace).await?;
        let classes: Api<PriorityClass> = Api::all(self.client.clone());
        let classes = call("list the PriorityClasses", classes.list_metadata(&ListParams::default())).await.ok();
        let classes = classes.map(|list| list.items.iter().map(ResourceExt::name_any).collect::<BTreeSet<_>>());
        Ok(Policies::of(namespace, &maps, approvals, classes))
    }

    /// The guarded pods of a namespace, as far as they are understood.
    pub(super) async fn pods(&self, namespace: &str) -> Result<Vec<Pod>, ClusterError> {
        let api: Api<Pod> = Api::namespaced(self.client.clone(), namespace);
        let guarded = ListParams::default().labels(&format!("{}=true", names::GUARDED));
        Ok(call(format!("list the pods of {namespace}"), api.list(&guarded)).await?.items)
    }

    /// The ConfigMaps of a namespace that hold ledgers.
    pub(super) async fn ledgers(&self, namespace: &str) -> Result<Vec<ConfigMap>, ClusterError> {
        let api: Api<ConfigMap> = Api::namespaced(self.client.clone(), namespace);
        let ledgers = ListParams::default().labels(&format!("{LEDGER}=true"));
        Ok(call(format!("list the ledgers of {namespace}"), api.list(&ledgers)).await?.items)
    }

    /// The policies that are stored in a namespace, under these approvals, and what is wrong with those that cannot be read.
    pub(super) async fn stored_policies(
        &self,
        namespace: &str,
        approvals: Approvals,
    ) -> Result<(policy::Policies, Vec<String>), ClusterError> {
        Ok(known::stored(namespace, &self.policy_maps(namespace).await?, approvals))
    }

    async fn policy_maps(&self, namespace: &str) -> Result<Vec<ConfigMap>, ClusterError> {
        let api: Api<ConfigMap> = Api::namespaced(self.client.clone(), namespace);
        let labelled = ListParams::default().labels(&format!("{}=true", names::POLICY));
        Ok(call(format!("list the policies of {namespace}"), api.list(&labelled)).await?.items)
    }

    /// The caller's name, as the API server knows it (SelfSubjectReview, KEP-3325).
    pub(super) async fn whoami(&self) -> Option<String> {
        let reviews: Api<SelfSubjectReview> = Api::all(self.client.clone());
        let asked = call("ask who you are", reviews.create(&PostParams::default(), &SelfSubjectReview::default())).await.ok()?;
        asked.status?.user_info?.username
    }

    /// How far the API server's clock is ahead of ours, by the `Date` of one of its answers. What both compare must be of one clock, and nobody sees to
    /// that of a laptop. The header has whole seconds, and an answer takes its time: up to two seconds are none.
    pub(super) async fn ahead(&self) -> SignedDuration {
        let Ok(request) = http::Request::get("/version").body(Body::empty()) else { return SignedDuration::ZERO };
        let Ok(Ok(answer)) = tokio::time::timeout(CALL, self.client.send(request)).await else { return SignedDuration::ZERO };
        let date = answer.headers().get(http::header::DATE).and_then(|date| date.to_str().ok());
        let Some(date) = date.and_then(|date| jiff::fmt::rfc2822::parse(date).ok()) else { return SignedDuration::ZERO };
        let ahead = date.timestamp().duration_since(process::now());
        if ahead.abs() <= SignedDuration::from_secs(2) { SignedDuration::ZERO } else { ahead }
    }

    /// The names of the webhook's pods, in their order.
    pub(super) async fn webhook_pods(&self, installation: &str) -> Result<Vec<String>, ClusterError> {
        let api: Api<Pod> = Api::namespaced(self.client.clone(), installation);
        let labelled = ListParams::default().labels("app.kubernetes.io/name=guardian-webhook");
        let pods = call(format!("list the pods of {installation}"), api.list_metadata(&labelled)).await?;
        let mut names: Vec<String> = pods.items.iter().map(ResourceExt::name_any).collect();
        names.sort();
        Ok(names)
    }

    /// The image that the webhook of this installation writes, if the caller may see it.
    pub(super) async fn image(&self, installation: &str) -> Option<String> {
        let api: Api<Deployment> = Api::namespaced(self.client.clone(), installation);
        let webhook = call("read the webhook's Deployment", api.get("guardian-webhook")).await.ok()?;
        let containers = webhook.spec?.template.spec?.containers;
        let mut variables = containers.into_iter().flat_map(|container| container.env.unwrap_or_default());
        variables.find(|variable| variable.name == "GUARDIAN_IMAGE")?.value
    }
}
