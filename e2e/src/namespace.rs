//! A namespace for one test.

use std::panic::{AssertUnwindSafe, resume_unwind};
use std::time::{Duration, Instant};

use futures::FutureExt as _;
use guardian_core::names;
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::core::v1::{self, Pod};
use kube::api::{DeleteParams, PostParams};
use kube::{Api, Client, Resource, ResourceExt as _};
use serde_json::{Map, Value, json};

use crate::report::report;
use crate::{Failure, Kubectl, Outcome, TEST, guardian, installation, is_ready, until};

/// A namespace for one test, and the ways to it.
#[derive(Clone)]
pub struct Namespace {
    /// Its name.
    pub name: String,
    /// To the API server.
    pub client: Client,
    /// `kubectl` in it.
    pub kubectl: Kubectl,
    /// When it was made.
    pub(crate) made: Instant,
    /// How long its test may take.
    within: Duration,
}

/// Runs `body` in a new namespace that the guardian is enabled in.
///
/// # Errors
/// What the body gives; what happened in the namespace is printed then.
pub async fn enabled(name: &str, body: impl AsyncFnOnce(&Namespace) -> Outcome) -> Outcome {
    labelled(name, &[], body).await
}

/// The same, in a namespace with labels.
///
/// # Errors
/// What the body gives; what happened in the namespace is printed then.
pub async fn labelled(name: &str, labels: &[(&str, &str)], body: impl AsyncFnOnce(&Namespace) -> Outcome) -> Outcome {
    // With its label from the start: one that is put on later is seen by the API server's own cache only a moment later.
    let all = [(names::ENABLED, "true")].into_iter().chain(labels.iter().copied());
    Namespace::create(name, all).await?.run_enabled(body).await
}

/// The same, for a test that takes longer than others, which it must have a reason for.
///
/// # Errors
/// What the body gives; what happened in the namespace is printed then.
pub async fn enabled_within(name: &str, within: Duration, body: impl AsyncFnOnce(&Namespace) -> Outcome) -> Outcome {
    let namespace = Namespace::create(name, [(names::ENABLED, "true")]).await?;
    Namespace { within, ..namespace }.run_enabled(body).await
}

/// The same, in a namespace that the guardian has no business in.
///
/// # Errors
/// What the body gives; what happened in the namespace is printed then.
pub async fn not_enabled(name: &str, body: impl AsyncFnOnce(&Namespace) -> Outcome) -> Outcome {
    Namespace::create(name, []).await?.run(body).await
}

impl Namespace {
    async fn create<'a>(name: &str, labels: impl IntoIterator<Item = (&'a str, &'a str)>) -> Outcome<Self> {
        let client = Client::try_default().await.map_err(|e| Failure::NoCluster(Box::new(e)))?;
        // Helper pods are privileged; a later label of the same key wins.
        let base = [("pod-security.kubernetes.io/enforce", "privileged")];
        let labels: Map<String, Value> =
            base.into_iter().chain(labels).map(|(key, value)| (key.to_owned(), json!(value))).collect();
        let wanted = serde_json::from_value(json!({"metadata": {"generateName": format!("e2e-{name}-"), "labels": labels}}))?;
        let made = Api::<v1::Namespace>::all(client.clone()).create(&PostParams::default(), &wanted).await?;
        let name = made.name_any();
        Ok(Self { client, kubectl: Kubectl { namespace: name.clone() }, name, made: Instant::now(), within: TEST })
    }

    async fn run_enabled(&self, body: impl AsyncFnOnce(&Self) -> Outcome) -> Outcome {
        self.run(async |namespace| {
            guardian(&["enable", &namespace.name, "--installation", &installation()]).await?.ok()?;
            body(namespace).await
        })
        .await
    }

    async fn run(&self, body: impl AsyncFnOnce(&Self) -> Outcome) -> Outcome {
        let end = tokio::time::timeout(self.within, AssertUnwindSafe(body(self)).catch_unwind()).await;
        if !matches!(end, Ok(Ok(Ok(())))) {
            report(self).await;
        }
        // Not awaited: it takes the namespace controller many seconds, and nobody needs it.
        let delete = Api::<v1::Namespace>::all(self.client.clone()).delete(&self.name, &DeleteParams::background()).await;
        match end {
            Err(_) => Err(Failure::NotInTime {
                what: "the test".to_owned(),
                within: self.within,
                last: "it was still running".to_owned(),
            }),
            Ok(Err(panic)) => resume_unwind(panic),
            Ok(Ok(result)) => result.and(delete.map(drop).map_err(Failure::from)),
        }
    }

    /// The objects of a kind in it.
    #[must_use]
    pub fn api<K>(&self) -> Api<K>
    where
        K: Resource<Scope = NamespaceResourceScope>,
        K::DynamicType: Default,
    {
        Api::namespaced(self.client.clone(), &self.name)
    }

    /// Waits until a pod is Ready.
    ///
    /// # Errors
    /// When it is not in time.
    pub async fn ready(&self, pod: &str) -> Outcome<Pod> {
        until(&self.api::<Pod>(), pod, "the pod is Ready", is_ready).await
    }
}
