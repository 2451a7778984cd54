//! `guardian adopt`: a person says what the volumes of a set hold, where nothing else tells.

use std::collections::BTreeMap;

use guardian_core::ledger::{self, Adopted, Ledger, LedgerError, Record, Verdict};
use guardian_core::{names, reason};
use k8s_openapi::api::authentication::v1::SelfSubjectReview;
use k8s_openapi::api::core::v1::{ConfigMap, PersistentVolumeClaim};
use kube::api::{ListParams, PostParams};
use kube::{Api, ResourceExt as _};
use serde_json::Value;

use super::cluster::{self, Cluster, ClusterError, call};
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
    #[error("the ledger of {set}: {error}")]
    Ledger { set: String, error: LedgerError },
    #[error("StatefulSet {0} has no volume claim yet: there is nothing to say of it")]
    NoClaims(String),
    #[error("the ledger of {0} was written at the same moment: look again, and say it again")]
    Conflict(String),
}

pub(super) fn run(args: &Args) -> Result<(), AdoptError> {
    cluster::run(async |cluster| {
        let namespace = cluster.namespace_or_default(args.namespace.as_deref());
        let set = cluster.set(&namespace, &args.set).await?;
        let volumes = volumes(&cluster, &namespace, &set).await?;
        let maps: Api<ConfigMap> = Api::namespaced(cluster.client.clone(), &namespace);
        let name = ledger::name_for(&args.set);
        let stored = call(format!("read the ConfigMap {name} of {namespace}"), maps.get_opt(&name)).await?;
        let fresh = stored.is_none();
        let mut map = stored.unwrap_or_else(|| ledger_map(&name));
        let user = whoami(&cluster).await.unwrap_or_else(|| "somebody".to_owned());
        args.write(&set, &volumes, &user, &mut map)?;
        let post = PostParams { dry_run: args.dry_run, field_manager: Some("guardian".to_owned()) };
        let what = format!("write the ConfigMap {name} of {namespace}");
        let written =
            if fresh { call(what, maps.create(&post, &map)).await } else { call(what, maps.replace(&name, &post, &map)).await };
        match written {
            Err(error) if error.code() == Some(409) => return Err(AdoptError::Conflict(args.set.clone())),
            other => drop(other?),
        }
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
    fn write(&self, set: &Value, volumes: &BTreeMap<String, String>, user: &str, map: &mut ConfigMap) -> Result<(), AdoptError> {
        let data = map.data.get_or_insert_default();
        let broken = |error| AdoptError::Ledger { set: self.set.clone(), error };
        let uid = set.pointer("/metadata/uid").and_then(Value::as_str).unwrap_or_default();
        let mut ledger = if data.is_empty() { Ledger::new(uid) } else { Ledger::read(data).map_err(broken)? };
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
        ledger.write(data).map_err(broken)
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

/// The caller's name, as the API server knows it (SelfSubjectReview, KEP-3325).
async fn whoami(cluster: &Cluster) -> Option<String> {
    let reviews: Api<SelfSubjectReview> = Api::all(cluster.client.clone());
    let asked = call("ask who you are", reviews.create(&PostParams::default(), &SelfSubjectReview::default())).await.ok()?;
    asked.status?.user_info?.username
}

/// The ledger of a set that has none yet.
fn ledger_map(name: &str) -> ConfigMap {
    let labels = [(crate::controller::LEDGER, "true"), ("app.kubernetes.io/managed-by", "stateful-guardian")];
    let labels = labels.map(|(key, value)| (key.to_owned(), value.to_owned()));
    ConfigMap {
        metadata: kube::api::ObjectMeta { name: Some(name.to_owned()), labels: Some(labels.into()), ..Default::default() },
        ..ConfigMap::default()
    }
}
