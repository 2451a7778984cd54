//! The ledger of a set, read and written at the command line: in one compare-and-swap, as the controller writes it.

use guardian_core::ledger::{self, Ledger, LedgerError};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::Api;
use kube::api::PostParams;

use super::cluster::{Cluster, ClusterError, call};
use crate::controller::ledger_metadata;

/// A ledger as it was read, and what it was read from.
pub(super) struct Held {
    pub(super) ledger: Ledger,
    set: String,
    namespace: String,
    map: ConfigMap,
    is_fresh: bool,
}

#[derive(Debug, thiserror::Error)]
pub(super) enum HeldError {
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    #[error("the ledger of {set}: {error}")]
    Ledger { set: String, error: LedgerError },
    #[error("the ledger of {0} was written at the same moment: look again, and say it again")]
    Conflict(String),
}

impl Held {
    /// Reads it; a new one where there is none.
    pub(super) async fn read(cluster: &Cluster, namespace: &str, set: &str, set_uid: &str) -> Result<Self, HeldError> {
        let maps: Api<ConfigMap> = Api::namespaced(cluster.client.clone(), namespace);
        let name = ledger::name_for(set);
        let stored = call(format!("read the ConfigMap {name} of {namespace}"), maps.get_opt(&name)).await?;
        let is_fresh = stored.is_none();
        let map = stored.unwrap_or_else(|| ConfigMap { metadata: ledger_metadata(&name), ..ConfigMap::default() });
        let ledger = match map.data.as_ref().filter(|data| !data.is_empty()) {
            None => Ledger::new(set_uid),
            Some(data) => Ledger::read(data).map_err(|error| HeldError::Ledger { set: set.to_owned(), error })?,
        };
        Ok(Self { ledger, set: set.to_owned(), namespace: namespace.to_owned(), map, is_fresh })
    }

    /// Writes it, if nobody else has since it was read.
    pub(super) async fn write(mut self, cluster: &Cluster, dry_run: bool) -> Result<Ledger, HeldError> {
        let broken = |error| HeldError::Ledger { set: self.set.clone(), error };
        self.ledger.write(self.map.data.get_or_insert_default()).map_err(broken)?;
        let maps: Api<ConfigMap> = Api::namespaced(cluster.client.clone(), &self.namespace);
        let name = ledger::name_for(&self.set);
        let post = PostParams { dry_run, field_manager: Some("guardian".to_owned()) };
        let what = format!("write the ConfigMap {name} of {}", self.namespace);
        let written = if self.is_fresh {
            call(what, maps.create(&post, &self.map)).await
        } else {
            call(what, maps.replace(&name, &post, &self.map)).await
        };
        match written {
            Err(error) if error.code() == Some(409) => Err(HeldError::Conflict(self.set)),
            other => other.map(|_| self.ledger).map_err(HeldError::from),
        }
    }
}
