//! Ledgers in their ConfigMaps: read, and written by compare-and-swap.
//!
//! The state that was read or written last is remembered, so that a set at rest costs no request. Decisions to act are made on a ledger
//! that was read for them; what is remembered only tells whether that is worth while.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures::{Stream, StreamExt as _, TryStreamExt as _, future};
use guardian_core::ledger::{Ledger, LedgerError, NAME_PREFIX, State, name_for};
use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{PartialObjectMeta, PostParams};
use kube::runtime::watcher::{Config, Event};
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Api, Client};

use super::api::{ApiError, call};
use super::watch::{WATCH_TIMEOUT, quiet};
use super::{Context, SetKey};

/// Label of the ConfigMaps that hold ledgers.
pub const LEDGER: &str = "stateful-guardian.io/ledger";

/// The ledgers of all sets.
pub(super) struct Ledgers {
    client: Client,
    memory: Mutex<Memory>,
}

/// What was seen last of a ledger.
struct Remembered {
    state: Arc<State>,
    /// `metadata.resourceVersion` of its ConfigMap; `None` where it has none, or none that can be compared.
    version: Option<u64>,
}

/// What is remembered of all ledgers.
#[derive(Default)]
struct Memory {
    states: BTreeMap<SetKey, Remembered>,
    /// The newest versions that the watch has shown. It may show one before the answer to an older read or write is here.
    seen: BTreeMap<SetKey, u64>,
    /// The sets that have a ledger, as the watch shows it.
    known: BTreeSet<SetKey>,
    /// The same of a list that is not complete yet.
    listed: BTreeSet<SetKey>,
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
        Self { client, memory: Mutex::default() }
    }

    /// The state that was seen last, which may be out of date.
    pub(super) fn remembered(&self, set: &SetKey) -> Option<Arc<State>> {
        self.memory().states.get(set).map(|remembered| Arc::clone(&remembered.state))
    }

    /// Watches for what others write: a person at a command line. Yields the sets whose ledger is not what is remembered any more. Only the
    /// metadata is sent, 1 kB a write.
    pub(super) fn written_by_others(context: Arc<Context>, client: &Client) -> impl Stream<Item = SetKey> + use<> {
        let labelled = Config::default().timeout(WATCH_TIMEOUT).labels(&format!("{LEDGER}=true"));
        let maps: Api<PartialObjectMeta<ConfigMap>> = Api::all(client.clone());
        let seen = Arc::clone(&context);
        let changes =
            watcher(maps, labelled).default_backoff().inspect_ok(move |event| seen.ledgers.see(event)).applied_objects();
        quiet(changes, "ledgers").filter_map(move |map| {
            let set = context.ledgers.is_outdated(&map.metadata);
            future::ready(set)
        })
    }

    /// The sets that have a ledger, whether they are there or not.
    pub(super) fn known(&self) -> BTreeSet<SetKey> {
        self.memory().known.clone()
    }

    /// Which ledgers there are.
    fn see(&self, event: &Event<PartialObjectMeta<ConfigMap>>) {
        let mut memory = self.memory();
        match event {
            Event::Init => memory.listed.clear(),
            Event::InitApply(map) => memory.listed.extend(set_of(&map.metadata)),
            Event::InitDone => memory.known = std::mem::take(&mut memory.listed),
            Event::Apply(map) => memory.known.extend(set_of(&map.metadata)),
            Event::Delete(map) => drop(set_of(&map.metadata).map(|set| memory.known.remove(&set))),
        }
    }

    /// The set of a ledger that was seen written; `None` where that is what is remembered. What was remembered is forgotten.
    fn is_outdated(&self, written: &ObjectMeta) -> Option<SetKey> {
        let (set, version) = (set_of(written)?, version(written)?);
        let mut memory = self.memory();
        let seen = memory.seen.entry(set.clone()).or_default();
        *seen = version.max(*seen);
        if memory.states.get(&set).and_then(|remembered| remembered.version) >= Some(version) {
            return None;
        }
        memory.states.remove(&set);
        Some(set)
    }

    /// Forgets a set: what is remembered is known to be wrong, or of no more use.
    pub(super) fn forget(&self, set: &SetKey) {
        let mut memory = self.memory();
        memory.states.remove(set);
        memory.seen.remove(set);
    }

    /// Reads a ledger; a new one where there is none.
    pub(super) async fn load(&self, set: &SetKey, set_uid: &str) -> Result<Stored, StoreError> {
        let found = call("read the ledger", self.api(set).get_opt(&name_for(&set.name))).await?;
        let version = found.as_ref().and_then(|map| version(&map.metadata));
        let stored = match found {
            None => Stored { ledger: Ledger::new(set_uid), map: None },
            Some(map) => Stored { ledger: Ledger::read(map.data.as_ref().unwrap_or(&BTreeMap::new()))?, map: Some(map) },
        };
        self.remember(set, &stored.ledger, version);
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
        match &written {
            Ok(map) => self.remember(set, &stored.ledger, version(&map.metadata)),
            // Perhaps it was written and only the answer is lost.
            Err(_) => self.forget(set),
        }
        written?;
        Ok(stored.ledger.state)
    }

    /// Nothing that is older than what the watch has shown.
    fn remember(&self, set: &SetKey, ledger: &Ledger, version: Option<u64>) {
        let mut memory = self.memory();
        if version < memory.seen.get(set).copied() {
            memory.states.remove(set);
            return;
        }
        memory.states.insert(set.clone(), Remembered { state: Arc::new(ledger.state.clone()), version });
    }

    fn api(&self, set: &SetKey) -> Api<ConfigMap> {
        Api::namespaced(self.client.clone(), &set.namespace)
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The set of a ledger.
fn set_of(ledger: &ObjectMeta) -> Option<SetKey> {
    let name = ledger.name.as_deref()?.strip_prefix(NAME_PREFIX)?.to_owned();
    Some(SetKey { namespace: ledger.namespace.clone()?, name })
}

/// The version of an object, which grows with each write (it is etcd's revision; opaque by contract, compared all the same by Kubernetes itself since
/// KEP-5504). One that is no number is as good as none.
fn version(metadata: &ObjectMeta) -> Option<u64> {
    metadata.resource_version.as_ref()?.parse().ok()
}

/// No ownerReference: the ledger outlives the set, as its volumes do.
pub(crate) fn metadata(name: &str) -> ObjectMeta {
    let labels = [(LEDGER, "true"), ("app.kubernetes.io/managed-by", "stateful-guardian")];
    ObjectMeta {
        name: Some(name.to_owned()),
        labels: Some(labels.map(|(key, value)| (key.to_owned(), value.to_owned())).into()),
        ..ObjectMeta::default()
    }
}
