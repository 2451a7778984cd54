//! StatefulSets: what was written into them, and what becomes of their pods.

use guardian_core::names;
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt as _;
use serde_json::{Value, json};

use crate::{Failure, Namespace, Outcome, eventually, example, is_ready, uid, until};

/// Does the template carry what makes the controller watch its pods?
#[must_use]
pub fn is_guarded(set: &Value) -> bool {
    set["spec"]["template"]["metadata"]["labels"][names::GUARDED] == "true"
}

/// The record of what was written into the template.
///
/// # Errors
/// When it has none.
pub fn record(set: &Value) -> Outcome<Value> {
    let text = set["spec"]["template"]["metadata"]["annotations"][names::INJECTED].as_str();
    Ok(serde_json::from_str(text.ok_or_else(|| Failure::Unexpected("the template has no record".to_owned()))?)?)
}

impl Namespace {
    /// Makes the example's PriorityClass, once for all tests.
    ///
    /// # Errors
    /// When it cannot be made.
    pub async fn priority_class(&self) -> Outcome {
        // Of two tests that make it at the same time, one is told that it exists.
        eventually("the PriorityClass is there", async || self.kubectl.apply(&example("priorityclass.yaml")).await.map(drop))
            .await
    }

    /// Waits until the StatefulSet controller has seen the set as it is now and has nothing left to do for it.
    ///
    /// # Errors
    /// When that is not so in time.
    pub async fn settled(&self, set: &str) -> Outcome<StatefulSet> {
        until(&self.api::<StatefulSet>(), set, "the set has settled", |set| {
            let wanted = set.spec.as_ref().and_then(|s| s.replicas).unwrap_or(1);
            let status = set.status.clone().unwrap_or_default();
            let counts = [Some(status.replicas), status.ready_replicas, status.available_replicas, status.updated_replicas];
            let seen = status.observed_generation == set.metadata.generation && status.current_revision == status.update_revision;
            let there = counts.iter().all(|count| count.unwrap_or(0) == wanted);
            if seen && there { Ok(()) } else { Err(format!("{status:?}")) }
        })
        .await
    }

    /// Waits until a pod of the same name has taken the place of `pod` and is Ready.
    ///
    /// # Errors
    /// When there is none in time.
    pub async fn replaced(&self, pod: &Pod) -> Outcome<Pod> {
        until(&self.api::<Pod>(), &pod.name_any(), "another pod has taken its place", |now| {
            if uid(now) == uid(pod) { Err("it is still the same".to_owned()) } else { is_ready(now) }
        })
        .await
    }

    /// Waits until the webhook would write another policy revision into `set`, and gives it.
    ///
    /// # Errors
    /// When it does not in time.
    pub async fn until_webhook_writes_another_revision(&self, set: &Value, than: &Value) -> Outcome<Value> {
        eventually("the webhook knows the new policy", async || {
            let revision = record(&self.rehearsed(set).await?)?["revision"].take();
            if &revision == than { Err(Failure::Unexpected(format!("still {revision}"))) } else { Ok(revision) }
        })
        .await
    }

    /// Waits until the webhook would write nothing into `set`.
    ///
    /// # Errors
    /// When it still does after a while.
    pub async fn until_webhook_writes_nothing(&self, set: &Value) -> Outcome {
        eventually("the webhook knows that there is no policy", async || {
            let guarded = is_guarded(&self.rehearsed(set).await?);
            if guarded { Err(Failure::Unexpected("it is guarded".to_owned())) } else { Ok(()) }
        })
        .await
    }

    /// A set of another name as the API server would store it. What the webhook has in its cache is in no object that could be watched.
    ///
    /// # Errors
    /// When it is refused.
    pub async fn rehearsed(&self, set: &Value) -> Outcome<Value> {
        let mut probe = set.clone();
        probe["metadata"]["name"] = json!("probe");
        self.kubectl.with_input(&["create", "--dry-run=server", "-o", "json", "-f", "-"], &probe.to_string()).await?.json()
    }
}
