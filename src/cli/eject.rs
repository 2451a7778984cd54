//! `guardian disable --eject`: takes what was written out of the templates of a namespace that is opted out.

use std::io::{self, BufRead as _, IsTerminal as _, Write as _};
use std::time::Duration;

use guardian_core::admission::{self, Patch};
use guardian_core::standing;
use http::Request;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use super::cluster::{self, Cluster, ClusterError};

/// API servers see that a namespace is opted out only after a moment, each for itself; until then the webhook puts back what is taken out.
/// A watch lags by milliseconds, on a bad day by seconds.
const PUT_BACK: Duration = Duration::from_secs(30);
/// Nothing tells when an API server has seen it: it is tried again.
const AGAIN: Duration = Duration::from_millis(300);
/// Writes in a row that lose against another writer.
const ATTEMPTS: usize = 5;

/// Why nothing, or not everything, was taken out.
#[derive(Debug, thiserror::Error)]
pub(super) enum EjectError {
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    #[error("--eject restarts pods, and there is no terminal to ask on: say so with --yes")]
    Unconfirmed,
    #[error("nothing was done")]
    Refused,
    #[error("StatefulSet {0}: the webhook still puts back what is taken out: is the namespace opted out? Try again")]
    PutBack(String),
    #[error("StatefulSet {0} was changed by another writer {ATTEMPTS} times in a row: try again")]
    Contended(String),
    #[error("cannot ask: {0}")]
    Terminal(#[from] io::Error),
}

/// What is to be taken out: the sets that carry something of ours, as they were when the question was asked.
pub(super) struct Ejection {
    namespace: String,
    sets: Vec<Value>,
}

impl Ejection {
    /// Looks for the sets, and asks.
    pub(super) async fn confirmed(cluster: &Cluster, namespace: &str, yes: bool, dry_run: bool) -> Result<Self, EjectError> {
        let mut sets = cluster.sets(namespace).await?;
        sets.retain(|set| !admission::eject(set).is_empty());
        let ejection = Self { namespace: namespace.to_owned(), sets };
        if !ejection.sets.is_empty() && !yes && !dry_run {
            ejection.ask()?;
        }
        Ok(ejection)
    }

    fn ask(&self) -> Result<(), EjectError> {
        if !io::stdin().is_terminal() {
            return Err(EjectError::Unconfirmed);
        }
        for set in &self.sets {
            anstream::eprintln!("{}", told(set));
        }
        anstream::eprint!("The pods of these sets are restarted, each set by its own update strategy. Go on? [y/N] ");
        io::stderr().flush()?;
        let mut answer = String::new();
        io::stdin().lock().read_line(&mut answer)?;
        if ["y", "yes"].contains(&answer.trim().to_lowercase().as_str()) { Ok(()) } else { Err(EjectError::Refused) }
    }

    /// Takes it out, set by set. The namespace is opted out by then.
    pub(super) async fn carry_out(&self, cluster: &Cluster, dry_run: bool) -> Result<(), EjectError> {
        for set in &self.sets {
            if !dry_run {
                self.strip(cluster, set.clone()).await?;
            }
            anstream::println!("{}{}", told(set), if dry_run { " (dry run)" } else { "" });
        }
        if self.sets.is_empty() {
            anstream::println!("no StatefulSet of {} carries anything of the guardian's", self.namespace);
        }
        Ok(())
    }

    async fn strip(&self, cluster: &Cluster, mut set: Value) -> Result<(), EjectError> {
        let name = cluster::name(&set).to_owned();
        let end = Instant::now() + PUT_BACK;
        let mut lost = 0;
        loop {
            let patch = admission::eject(&set);
            if patch.is_empty() {
                return Ok(());
            }
            match self.patch(cluster, &set, &patch).await {
                Ok(now) if admission::eject(&now).is_empty() => return Ok(()),
                Ok(_) if Instant::now() >= end => return Err(EjectError::PutBack(name)),
                Ok(now) => {
                    set = now;
                    sleep(AGAIN).await;
                }
                // 422: the `test` failed, since somebody wrote in between.
                Err(error) if matches!(error.code(), Some(409 | 422)) && lost < ATTEMPTS => {
                    lost += 1;
                    set = cluster.set(&self.namespace, &name).await?;
                }
                Err(error) if matches!(error.code(), Some(409)) => return Err(EjectError::Contended(name)),
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Positions in lists are only safe in the version that was read.
    async fn patch(&self, cluster: &Cluster, set: &Value, patch: &Patch) -> Result<Value, ClusterError> {
        let name = cluster::name(set);
        let mut operations = vec![json!({
            "op": "test", "path": "/metadata/resourceVersion", "value": set.pointer("/metadata/resourceVersion"),
        })];
        operations.extend(serde_json::from_slice::<Vec<Value>>(&patch.to_bytes()).unwrap_or_default());
        let path = format!("/apis/apps/v1/namespaces/{}/statefulsets/{name}?fieldManager=guardian", self.namespace);
        let request = Request::patch(path).header("content-type", "application/json-patch+json");
        let request = request.body(Value::from(operations).to_string().into_bytes());
        let request = request.map_err(|e| ClusterError::Client(Box::new(e)))?;
        cluster::call(format!("change the StatefulSet {name}"), cluster.client.request(request)).await
    }
}

/// What becomes of a set, in a line.
fn told(set: &Value) -> String {
    let replicas = set.pointer("/spec/replicas").and_then(Value::as_u64).unwrap_or(1);
    let policy = standing::record(set).map_or_else(String::new, |record| format!(", written by policy {}", record.policy));
    format!(
        "StatefulSet {}: the guardian's part goes{policy}; {} restarted",
        cluster::name(set),
        if replicas == 1 { "1 pod is".to_owned() } else { format!("{replicas} pods are") }
    )
}
