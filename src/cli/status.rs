//! `guardian status`: which sets are guarded, by what, what waits for their next template change, and what goes on in their pods.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Write};
use std::sync::Arc;

use guardian_core::ledger::{self, Hold};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::ResourceExt as _;
use serde_json::{Value, json};

use super::cluster::{self, Cluster, ClusterError, Progress};
use super::diff;
use super::table::{self, Output};
use crate::known::{self, Kept, Pod, Set};

/// Show how StatefulSets and their pods are: guarded, pending, awaiting approval, on hold; roles, failures, what goes on
///
/// Read with your own rights. `Pending`: a policy was edited, or the guardian writes it in another form; the set takes it up with the next
/// change of its template. `Unguarded`: a policy selects the set, and nothing is written into it.
/// `AwaitsApproval`: its policy does nothing before somebody approves it. For one set its pods are shown too.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  guardian status -n shop
  guardian status -A -o json
  guardian status -n shop redis")]
pub(super) struct Args {
    /// This StatefulSet alone
    #[arg(conflicts_with = "all_namespaces")]
    set: Option<String>,
    /// Namespace; by default the kubeconfig's
    #[arg(short, long)]
    namespace: Option<String>,
    /// Every enabled namespace
    #[arg(short = 'A', long, conflicts_with = "namespace")]
    all_namespaces: bool,
    /// How to print it
    #[arg(short = 'o', long, value_enum, default_value_t = Output::Table)]
    output: Output,
    /// Namespace that the guardian itself runs in
    #[arg(long, env = "GUARDIAN_INSTALLATION", default_value = "stateful-guardian", value_name = "NAMESPACE")]
    installation: String,
}

#[derive(Debug, thiserror::Error)]
pub(super) enum StatusError {
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    #[error("cannot write: {0}")]
    Output(#[from] io::Error),
}

/// Sets, and what cannot be told of them.
type Found = (Vec<Set>, Vec<String>);

pub(super) fn run(args: &Args) -> Result<(), StatusError> {
    let (sets, problems) = cluster::run(async |cluster| look(args, &cluster).await)?;
    let mut out = anstream::AutoStream::auto(io::stdout().lock());
    match args.output {
        Output::Table => text(&mut out, args.set.is_some(), &sets, &problems)?,
        Output::Json => writeln!(out, "{:#}", document(&sets, &problems))?,
        Output::Yaml => writeln!(out, "{}", diff::yaml(&document(&sets, &problems))?.trim_end())?,
    }
    Ok(())
}

async fn look(args: &Args, cluster: &Cluster) -> Result<Found, StatusError> {
    let places = if args.all_namespaces {
        cluster.enabled().await?
    } else {
        vec![cluster.place(&cluster.namespace_or_default(args.namespace.as_deref())).await?]
    };
    let image = cluster.image(&args.installation).await;
    let (approvals, unknown) = match cluster.approvals(&args.installation).await? {
        Ok(approvals) => (Some(approvals), None),
        Err(unknown) => (None, Some(unknown)),
    };
    let (mut shown, mut problems) = (Vec::new(), Vec::from_iter(unknown));
    let mut progress = Progress::start();
    let all = places.len();
    for (n, place) in places.into_iter().enumerate() {
        progress.say(&format!("reading namespace {} ({} of {all})", place.name, n + 1));
        let sets = match &args.set {
            Some(set) => vec![cluster.set(&place.name, set).await?],
            None => cluster.sets(&place.name).await?,
        };
        let policies = cluster.policies(&place.name, approvals.as_ref()).await?;
        let pods = known::by_set(&cluster.pods(&place.name).await?);
        let ledgers: BTreeMap<String, ConfigMap> =
            cluster.ledgers(&place.name).await?.into_iter().map(|map| (map.name_any(), map)).collect();
        for set in &sets {
            let standing = known::standing(set, &place.name, &policies, image.as_deref());
            let ledger = ledgers.get(&ledger::name_for(cluster::name(set))).map(|map| Arc::new(Kept::read(map)));
            let set = Set::of(&place, set, standing, &pods, ledger);
            problems.extend(set.problem().cloned());
            shown.push(set);
        }
        problems.extend(policies.problems);
    }
    Ok((shown, problems))
}

fn text(out: &mut impl Write, with_pods: bool, sets: &[Set], problems: &[String]) -> io::Result<()> {
    for problem in problems {
        anstream::eprintln!("Warning: {problem}");
    }
    if sets.is_empty() {
        anstream::eprintln!("no StatefulSet");
        return Ok(());
    }
    let rows: Vec<[String; 9]> = sets.iter().map(cells).collect();
    let headings = ["NAMESPACE", "SET", "STATE", "READY", "POLICY", "WRITTEN", "IN FORCE", "LAST FAILURE", "BECAUSE"];
    table::write(out, headings, &rows)?;
    let pods: Vec<[String; 5]> = sets.iter().flat_map(|set| set.pods.iter().map(|pod| pod_cells(set, pod))).collect();
    if with_pods && !pods.is_empty() {
        writeln!(out)?;
        table::write(out, ["POD", "READY", "ROLE", "RESTARTS", "GOING ON"], &pods)?;
    }
    let holds: Vec<[String; 3]> = sets.iter().flat_map(Set::holds).map(hold_cells).collect();
    if with_pods && !holds.is_empty() {
        writeln!(out)?;
        table::write(out, ["HELD BY", "SINCE", "WHY"], &holds)?;
    }
    Ok(())
}

fn document(sets: &[Set], problems: &[String]) -> Value {
    json!({"sets": sets.iter().map(Set::document).collect::<Vec<_>>(), "problems": problems})
}

fn cells(set: &Set) -> [String; 9] {
    let or_dash = |text: Option<&String>| text.map_or_else(|| "-".to_owned(), Clone::clone);
    let hold = set.hold().map(|reason| format!("on hold: {reason}"));
    let held: BTreeSet<&str> = set.holds().iter().map(|hold| hold.reason.as_str()).filter(|reason| *reason != "OnHold").collect();
    let held = (!held.is_empty()).then(|| format!("held: {}", Vec::from_iter(held).join(", ")));
    let because = [hold, held, Some(set.because()).filter(|because| !because.is_empty())];
    [
        set.place.name.clone(),
        set.name.clone(),
        set.state(),
        set.readiness(),
        or_dash(set.policy()),
        or_dash(set.written()),
        or_dash(set.in_force()),
        set.last_failure().map_or_else(
            || "-".to_owned(),
            |last| {
                let (at, verdict) = (last.at.strftime("%Y-%m-%dT%H:%M:%SZ"), last.verdict.as_str());
                format!("{at} {} {}, {} {verdict}", last.pod, last.reason, last.hook)
            },
        ),
        because.into_iter().flatten().collect::<Vec<_>>().join("; "),
    ]
}

/// Name, ready, role, restarts, and what goes on in it.
fn pod_cells(set: &Set, pod: &Pod) -> [String; 5] {
    let dash = || "-".to_owned();
    [
        pod.name.clone(),
        if pod.ready { "yes" } else { "no" }.to_owned(),
        pod.role.clone().unwrap_or_else(dash),
        pod.restarts.to_string(),
        set.going_on(&pod.name).unwrap_or_else(dash),
    ]
}

/// Reason, since when, and why.
fn hold_cells(hold: &Hold) -> [String; 3] {
    [hold.reason.clone(), hold.since.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(), hold.why.clone()]
}
