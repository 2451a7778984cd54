//! Ledgers that nobody needs any more: of sets that are gone, with all of their pods and claims. A ledger has no owner, so that it outlives its set as
//! the volumes do; once these are gone too, whatever comes under the name is new.
//!
//! Never guess with data: what the watches show has to hold for an hour, and the API server is asked once more before anything is deleted.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use guardian_core::ledger::name_for;
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{ConfigMap, PersistentVolumeClaim};
use kube::api::{DeleteParams, ListParams, Preconditions};
use kube::{Api, Client, ResourceExt as _};
use tokio::time::{Instant, sleep};

use super::api::{ApiError, call};
use super::observed::claimants;
use super::{Context, SetKey, queue};

/// Between two rounds, and how long a set must have been gone.
const EVERY: Duration = Duration::from_secs(3600);
/// Until the stores are looked at again that were not complete.
const SOON: Duration = Duration::from_secs(10);

/// Goes round for ever. A round costs no call where no ledger is without its set.
pub(super) async fn drive(context: &Context, client: &Client) {
    let mut gone = BTreeMap::new();
    loop {
        // Before, that something is not there means nothing.
        if context.cluster.is_complete() {
            round(context, client, &mut gone).await;
            sleep(EVERY).await;
        } else {
            sleep(SOON).await;
        }
    }
}

/// `gone`: the sets that have a ledger and are not there, and since when that is known.
async fn round(context: &Context, client: &Client, gone: &mut BTreeMap<SetKey, Instant>) {
    let (there, now) = (context.cluster.claimants(), Instant::now());
    let left: BTreeSet<SetKey> = context.ledgers.known().into_iter().filter(|set| !there.contains(set)).collect();
    gone.retain(|set, _| left.contains(set));
    for set in left {
        let since = *gone.entry(set.clone()).or_insert(now);
        // Elsewhere we may not.
        if now.duration_since(since) < EVERY || !context.cluster.is_enabled(&set.namespace) {
            continue;
        }
        let (namespace, name) = (&set.namespace, &set.name);
        match prune(client, &set).await {
            Ok(true) => {
                context.ledgers.forget(&set);
                tracing::info!(
                    namespace,
                    set = name,
                    "its ledger is deleted: neither the set nor a pod or a claim of it is there any more"
                );
            }
            Ok(false) => {}
            Err(error) => {
                tracing::warn!(namespace, set = name, error = queue::chain(&error), "its ledger is left for the next round");
            }
        }
    }
}

/// Deletes a ledger as it was before the API server was asked about set and claims: whoever comes back meanwhile writes it.
async fn prune(client: &Client, set: &SetKey) -> Result<bool, ApiError> {
    let ledgers: Api<ConfigMap> = Api::namespaced(client.clone(), &set.namespace);
    let sets: Api<StatefulSet> = Api::namespaced(client.clone(), &set.namespace);
    let claims: Api<PersistentVolumeClaim> = Api::namespaced(client.clone(), &set.namespace);
    let name = name_for(&set.name);
    let Some(ledger) = call("read a ledger without a set", ledgers.get_metadata_opt(&name)).await? else { return Ok(false) };
    if call("read the set of a ledger", sets.get_metadata_opt(&set.name)).await?.is_some() {
        return Ok(false);
    }
    let claims = call("list the claims of a namespace", claims.list_metadata(&ListParams::default())).await?;
    if claims.items.iter().any(|claim| claimants(&claim.metadata).contains(set)) {
        return Ok(false);
    }
    let same = Preconditions { uid: ledger.uid(), resource_version: ledger.resource_version() };
    let params = DeleteParams { preconditions: Some(same), ..DeleteParams::default() };
    match call("delete a ledger", ledgers.delete(&name, &params)).await {
        Ok(_) => Ok(true),
        Err(error) if error.is_conflict() => Ok(false),
        Err(error) => Err(error),
    }
}
