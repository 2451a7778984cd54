//! Ledgers in their ConfigMaps: read, and written by compare-and-swap.
//!
//! The state that was read or written last is remembered, so that a set at rest costs no request. Decisions to act are made on a ledger
//! that was read for them; what is remembered only tells whether that is worth while.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use guardian_core::ledger::{Ledger, LedgerError, State, name_for};
use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::PostParams;
use kube::{Api, Client};

use super::SetKey;
use super::api::{ApiError, call};

/// Label of the ConfigMaps that hold ledgers.
pub const LEDGER: &str = "stateful-guardian.io/ledger";

/// The ledgers of all sets.
pub(super) struct Ledgers {
    client: Client,
    remembered: Mutex<BTreeMap<SetKey, Arc<State>>>,
}

/// A ledger as it was read, and what it was read from.
pub(super) struct Stored {
    pub(super) ledger: Ledger,
    /// `None` when there is no ConfigMap yet.
    map: Option<ConfigMap>,
}

/// A ledger that cannot be used, or not reached.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// It was read, and cannot be used.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// The API server did not give or take it.
    #[error(transparent)]
    Api(#[from] ApiError),
}

impl Ledgers {
    pub(super) fn new(client: Client) -> Self {
        Self { client, remembered: Mutex::default() }
    }

    /// The state that was seen last, which may be out of date.
    pub(super) fn remembered(&self, set: &SetKey) -> Option<Arc<State>> {
        self.remembered_all().get(set).cloned()
    }

    /// Forgets a set: what is remembered is known to be wrong, or of no more use.
    pub(super) fn forget(&self, set: &SetKey) {
        self.remembered_all().remove(set);
    }

    /// Reads a ledger; a new one where there is none.
    pub(super) async fn load(&self, set: &SetKey, set_uid: &str) -> Result<Stored, StoreError> {
        let found = call("read the ledger", self.api(set).get_opt(&name_for(&set.name))).await?;
        let stored = match found {
            None => Stored { ledger: Ledger::new(set_uid), map: None },
            Some(map) => Stored { ledger: Ledger::read(map.data.as_ref().unwrap_or(&BTreeMap::new()))?, map: Some(map) },
        };
        self.remember(set, &stored.ledger);
        Ok(stored)
    }

    /// Writes a ledger, if nobody else has since it was read.
    pub(super) async fn save(&self, set: &SetKey, stored: Stored) -> Result<State, StoreError> {
        let api = self.api(set);
        let name = name_for(&set.name);
        let fresh = stored.map.is_none();
        let mut map = stored.map.unwrap_or_else(|| ConfigMap { metadata: metadata(&name), ..ConfigMap::default() });
        stored.ledger.write(map.data.get_or_insert_default())?;
        let params = PostParams::default();
        let written = if fresh {
            call("make the ledger", api.create(&params, &map)).await
        } else {
            call("write the ledger", api.replace(&name, &params, &map)).await
        };
        match written {
            Ok(_) => self.remember(set, &stored.ledger),
            // Perhaps it was written and only the answer is lost.
            Err(_) => self.forget(set),
        }
        written?;
        Ok(stored.ledger.state)
    }

    fn remember(&self, set: &SetKey, ledger: &Ledger) {
        self.remembered_all().insert(set.clone(), Arc::new(ledger.state.clone()));
    }

    fn api(&self, set: &SetKey) -> Api<ConfigMap> {
        Api::namespaced(self.client.clone(), &set.namespace)
    }

    fn remembered_all(&self) -> MutexGuard<'_, BTreeMap<SetKey, Arc<State>>> {
        self.remembered.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// No ownerReference: the ledger outlives the set, as its volumes do.
fn metadata(name: &str) -> ObjectMeta {
    let labels = [(LEDGER, "true"), ("app.kubernetes.io/managed-by", "stateful-guardian")];
    ObjectMeta {
        name: Some(name.to_owned()),
        labels: Some(labels.map(|(key, value)| (key.to_owned(), value.to_owned())).into()),
        ..ObjectMeta::default()
    }
}
