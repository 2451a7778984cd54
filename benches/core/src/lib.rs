//! What is measured: reviews of StatefulSets as an API server sends them, and the policies of the cluster that they come from.
//!
//! Every review is a full rewrite: a set that the policy of its namespace guards, and in whose template nothing of the guardian is yet.

mod review;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use guardian_core::admission::{Review, Settings, Snapshot, judge};
use guardian_core::names;
use guardian_core::policy::{self, Approval};
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Value, json};

pub use review::{Case, case, names};

/// Namespace that the guardian itself runs in.
pub const INSTALLATION: &str = "stateful-guardian";
/// Namespaces with a policy.
pub const NAMESPACES: usize = 100;
/// Image of `guardian-init`.
pub const IMAGE: &str =
    "registry.example/stateful-guardian@sha256:6b86b273ff34fce19d6b804eff5a3f5747ada4eaa22f1d49c01e52ddb7875b4b";
/// PriorityClasses of the cluster: the policy's, and those of every cluster.
pub const PRIORITY_CLASSES: [&str; 3] = ["stateful-critical", "system-cluster-critical", "system-node-critical"];
/// The namespace that the reviews come from.
pub(crate) const NAMESPACE: &str = "team-042";

const POLICY: &str = include_str!("../../../examples/redis/policy.yaml");

/// The tutorial's policy, as it comes from its file.
#[derive(Deserialize)]
struct ConfigMap {
    metadata: Metadata,
    data: BTreeMap<String, String>,
}

#[derive(Deserialize)]
struct Metadata {
    name: String,
    labels: BTreeMap<String, String>,
}

impl ConfigMap {
    fn read() -> Result<Self, SetupError> {
        Ok(serde_saphyr::from_str(POLICY)?)
    }
}

/// The ConfigMaps of the cluster that hold policies, one a namespace.
///
/// # Errors
/// When the tutorial's policy is not what it was.
pub fn policies() -> Result<Vec<Value>, SetupError> {
    let ConfigMap { metadata: Metadata { name, labels }, data } = ConfigMap::read()?;
    let map = |namespace| {
        let metadata = json!({"name": name, "namespace": namespace, "labels": labels, "uid": namespace, "resourceVersion": "1"});
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data})
    };
    Ok(namespaces().map(map).collect())
}

/// The ConfigMap of the installation that approves all of them.
///
/// # Errors
/// When the tutorial's policy is not what it was.
pub fn approvals() -> Result<Value, SetupError> {
    let ConfigMap { metadata, data } = ConfigMap::read()?;
    let digest = policy::digest(&data);
    let mut approved = BTreeMap::new();
    for namespace in namespaces() {
        let (policy, digest, user) = (metadata.name.clone(), digest.clone(), "bench".to_owned());
        Approval { namespace, policy, digest, user }.write(&mut approved, Timestamp::UNIX_EPOCH, |_, _| true)?;
    }
    let metadata = json!({"name": names::APPROVALS, "namespace": INSTALLATION, "uid": names::APPROVALS, "resourceVersion": "1"});
    Ok(json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": approved}))
}

/// The cluster as the webhook's store would have it: every policy is approved, none waits.
///
/// # Errors
/// When the tutorial's policy is not what it was.
pub fn snapshot() -> Result<Snapshot, SetupError> {
    let ConfigMap { metadata, data } = ConfigMap::read()?;
    let policy = Arc::new(policy::parse(&metadata.name, &data)?);
    let of_namespace = |namespace| (namespace, BTreeMap::from([(metadata.name.clone(), Arc::clone(&policy))]));
    Ok(Snapshot {
        policies: namespaces().map(of_namespace).collect(),
        priority_classes: Some(PRIORITY_CLASSES.map(str::to_owned).into_iter().collect::<BTreeSet<_>>()),
        ..Snapshot::default()
    })
}

/// What the core does for one review, from its bytes to those of the answer.
///
/// # Errors
/// When it is no review.
pub fn answer(review: &str, snapshot: &Snapshot, settings: &Settings) -> Result<Vec<u8>, SetupError> {
    let review = Review::parse(review)?;
    let verdict = judge(&review, snapshot, settings);
    Ok(verdict.to_response(&review.uid))
}

fn namespaces() -> impl Iterator<Item = String> {
    (0..NAMESPACES).map(|number| format!("team-{number:03}"))
}

/// What is to be measured cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// The tutorial's file cannot be read.
    #[error("examples/redis/policy.yaml is not a ConfigMap: {0}")]
    Yaml(#[from] serde_saphyr::Error),
    /// The tutorial's policy is none.
    #[error("examples/redis/policy.yaml is not a policy: {0}")]
    Policy(#[from] policy::Invalid),
    /// Too many namespaces.
    #[error(transparent)]
    Approvals(#[from] policy::Full),
    /// One of our own reviews is none.
    #[error(transparent)]
    Review(#[from] guardian_core::admission::ReviewError),
}
