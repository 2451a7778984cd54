//! `guardian adopt`: a person says what the volumes of a set hold, where nothing else tells.

use std::collections::BTreeMap;

use guardian_core::ledger::{Adopted, Ledger, Record, Verdict};
use guardian_core::{names, reason};
use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use kube::api::ListParams;
use kube::{Api, ResourceExt as _};
use serde_json::Value;

use super::cluster::{self, Cluster, ClusterError, call};
use super::ledger::{Held, HeldError};
use super::process;

/// Say what the volumes of a StatefulSet hold, where nothing else tells
///
/// The guardian makes a cluster (`bootstrap`) and lets pods join (`join`) only on volumes of which it knows that they are new. Of others, and after a
/// bootstrap of which nobody knows how far it came, it asks: look at the data, then say what it is. With --bootstrapped the pods `rejoin` the
/// cluster that is there; with --new the cluster is made again, on whatever the volumes hold.
///
/// You need the right to read the set and its claims, and to write the ledger, a ConfigMap of the namespace. Who said it is recorded.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  guardian adopt -n shop redis --bootstrapped
  guardian adopt -n shop redis --new --dry-run")]
pub(super) struct Args {
    /// The StatefulSet
    set: String,
    /// Namespace; by default the kubeconfig's
    #[arg(short, long)]
    namespace: Option<String>,
    #[command(flatten)]
    what: What,
    /// Let the API server check the change without storing it
    #[arg(long)]
    dry_run: bool,
}

#[derive(Debug, clap::Args)]
#[group(required = true, multiple = false)]
struct What {
    /// They hold the data of the members of a cluster
    #[arg(long)]
    bootstrapped: bool,
    /// They hold nothing that matters
    #[arg(long)]
    new: bool,
}

#[derive(Debug, thiserror::Error)]
pub(super) enum AdoptError {
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    #[error(transparent)]
    Ledger(#[from] HeldError),
    #[error("StatefulSet {0} has no volume claim yet: there is nothing to say of it")]
    NoClaims(String),
}

pub(super) fn run(args: &Args) -> Result<(), AdoptError> {
    cluster::run(async |cluster| {
        let namespace = cluster.namespace_or_default(args.namespace.as_deref());
        let set = cluster.set(&namespace, &args.set).await?;
        let volumes = volumes(&cluster, &namespace, &set).await?;
        let uid = set.pointer("/metadata/uid").and_then(Value::as_str).unwrap_or_default();
        let mut held = Held::read(&cluster, &namespace, &args.set, uid).await?;
        let user = cluster.whoami().await.unwrap_or_else(|| "somebody".to_owned());
        args.write(&volumes, &user, &mut held.ledger);
        held.write(&cluster, args.dry_run).await?;
        let dry = if args.dry_run { " (dry run)" } else { "" };
        anstream::println!("{}{dry}", args.sentence(&volumes));
        Ok(())
    })
}

impl Args {
    fn adopted(&self) -> Adopted {
        if self.what.bootstrapped { Adopted::Member } else { Adopted::New }
    }

    /// Into the ledger, beside whatever it holds.
    fn write(&self, volumes: &BTreeMap<String, String>, user: &str, ledger: &mut Ledger) {
        ledger.state.adopt(volumes.values().cloned(), self.adopted());
        ledger.record(&Record {
            at: process::now(),
            hook: "adopt".to_owned(),
            reason: reason::Hold::UnknownHistory.to_string(),
            verdict: Verdict::Noted,
            pod: String::new(),
            pod_uid: String::new(),
            run: None,
            attempt: None,
            message: format!("{user}: {}", self.sentence(volumes)),
            rest: BTreeMap::new(),
        });
    }

    fn sentence(&self, volumes: &BTreeMap<String, String>) -> String {
        let names: Vec<&str> = volumes.keys().map(String::as_str).collect();
        let what = match self.adopted() {
            Adopted::Member => "the data of members of a cluster",
            Adopted::New => "nothing that matters",
        };
        format!("{} {} {what}", names.join(", "), if names.len() == 1 { "holds" } else { "hold" })
    }
}

/// Name and uid of each claim of the set that there is; of the set itself where it has none.
async fn volumes(cluster: &Cluster, namespace: &str, set: &Value) -> Result<BTreeMap<String, String>, AdoptError> {
    let name = cluster::name(set);
    let Some(template) = set.pointer("/spec/volumeClaimTemplates/0/metadata/name").and_then(Value::as_str) else {
        let uid = set.pointer("/metadata/uid").and_then(Value::as_str).unwrap_or_default();
        return Ok(BTreeMap::from([(format!("StatefulSet {name}"), uid.to_owned())]));
    };
    let prefix = format!("{template}-{name}-");
    let claims: Api<PersistentVolumeClaim> = Api::namespaced(cluster.client.clone(), namespace);
    let all = call(format!("list the volume claims of {namespace}"), claims.list_metadata(&ListParams::default())).await?;
    let is_of_set = |claim: &str| claim.strip_prefix(&prefix).is_some_and(|ordinal| ordinal.parse::<u32>().is_ok());
    let own = all.items.iter().filter(|claim| is_of_set(&claim.name_any()));
    let unmarked = own.filter(|claim| claim.annotations().get(names::MEMBER).is_none_or(|of| of != name));
    let volumes: BTreeMap<_, _> = unmarked.map(|claim| (claim.name_any(), claim.uid().unwrap_or_default())).collect();
    if volumes.is_empty() { Err(AdoptError::NoClaims(name.to_owned())) } else { Ok(volumes) }
}
