//! `guardian history`: what happened to a set, and what was done about it, from its ledger.

use std::collections::BTreeSet;
use std::io::{self, Write};
use std::pin::pin;

use futures::TryStreamExt as _;
use guardian_core::ledger::{self, Episode, Ledger, LedgerError, Record};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::Api;
use kube::runtime::{WatchStreamExt as _, watcher};
use serde_json::{Value, json};

use super::cluster::{self, Cluster, ClusterError, call};
use super::diff;
use super::table::{self, Output, printable};

/// Show what happened to a StatefulSet, and what was done about it
///
/// Reads the ledger that the controller keeps: the last 200 records, the oldest first, and what goes on right now. The ledger outlives the set.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  guardian history -n shop redis
  guardian history -n shop redis --pod redis-1 -o json
  guardian history -n shop redis --follow")]
pub(super) struct Args {
    /// The StatefulSet
    set: String,
    /// Namespace; by default the kubeconfig's
    #[arg(short, long)]
    namespace: Option<String>,
    /// Of this pod alone
    #[arg(long)]
    pod: Option<String>,
    /// Go on with what is recorded from now on, until interrupted
    #[arg(long)]
    follow: bool,
    /// How to print it
    #[arg(short = 'o', long, value_enum, default_value_t = Output::Table)]
    output: Output,
}

#[derive(Debug, thiserror::Error)]
pub(super) enum HistoryError {
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    #[error(
        "nothing is recorded of StatefulSet {set} in {namespace}: no ConfigMap {ledger}. The controller makes it at the first start of a guarded \
         pod that it sees: `guardian status -n {namespace} {set}` tells whether the set is guarded"
    )]
    Nothing { namespace: String, set: String, ledger: String },
    #[error("the ledger of {set}: {error}{}", source(error))]
    Ledger { set: String, error: LedgerError },
    #[error("the watch of the ledger ended: {0}")]
    Watch(#[from] watcher::Error),
    #[error("--follow never ends, so there is no document: leave out one of --follow and -o")]
    Endless,
    #[error("cannot write: {0}")]
    Output(#[from] io::Error),
}

impl HistoryError {
    /// Was it called wrongly?
    pub(super) fn is_usage(&self) -> bool {
        matches!(self, Self::Endless)
    }
}

pub(super) fn run(args: &Args) -> Result<(), HistoryError> {
    if args.follow && args.output != Output::Table {
        return Err(HistoryError::Endless);
    }
    cluster::run(async |cluster| {
        let namespace = cluster.namespace_or_default(args.namespace.as_deref());
        let mut out = anstream::AutoStream::auto(io::stdout().lock());
        if args.follow {
            return follow(args, &cluster, &namespace, &mut out).await;
        }
        let ledger = read(args, &cluster, &namespace).await?;
        match args.output {
            Output::Table => text(args, &ledger, &mut out)?,
            Output::Json => writeln!(out, "{:#}", document(args, &namespace, &ledger))?,
            Output::Yaml => writeln!(out, "{}", diff::yaml(&document(args, &namespace, &ledger))?.trim_end())?,
        }
        Ok(())
    })
}

async fn read(args: &Args, cluster: &Cluster, namespace: &str) -> Result<Ledger, HistoryError> {
    let maps: Api<ConfigMap> = Api::namespaced(cluster.client.clone(), namespace);
    let name = ledger::name_for(&args.set);
    let found = call(format!("read the ConfigMap {name} of {namespace}"), maps.get_opt(&name)).await?;
    let nothing = || HistoryError::Nothing { namespace: namespace.to_owned(), set: args.set.clone(), ledger: name };
    parse(&args.set, &found.ok_or_else(nothing)?)
}

fn parse(set: &str, map: &ConfigMap) -> Result<Ledger, HistoryError> {
    let data = map.data.clone().unwrap_or_default();
    Ledger::read(&data).map_err(|error| HistoryError::Ledger { set: set.to_owned(), error })
}

/// Prints what is there, and then each record as it is written.
async fn follow(args: &Args, cluster: &Cluster, namespace: &str, out: &mut impl Write) -> Result<(), HistoryError> {
    let maps: Api<ConfigMap> = Api::namespaced(cluster.client.clone(), namespace);
    let this = watcher::Config::default().fields(&format!("metadata.name={}", ledger::name_for(&args.set)));
    let mut changes = pin!(watcher(maps, this).default_backoff().applied_objects());
    let mut printed = BTreeSet::new();
    writeln!(out, "{}", HEADINGS.join("  "))?;
    out.flush()?;
    while let Some(map) = changes.try_next().await? {
        let ledger = parse(&args.set, &map)?;
        for record in ledger.records().filter(|record| args.shows(&record.pod)) {
            let row = printable(&cells(&record).join("  "));
            // Of two equal lines one is enough; the ledger holds 200 at a time.
            if printed.insert(row.clone()) {
                writeln!(out, "{row}")?;
            }
        }
        out.flush()?;
    }
    Ok(())
}

const HEADINGS: [&str; 7] = ["TIME", "POD", "REASON", "HOOK", "ATTEMPT", "VERDICT", "MESSAGE"];

fn text(args: &Args, ledger: &Ledger, out: &mut impl Write) -> io::Result<()> {
    let records = ledger.records().filter(|record| args.shows(&record.pod));
    let mut rows: Vec<[String; 7]> = records.map(|record| cells(&record)).collect();
    let open = ledger.state.episodes.values().filter(|episode| args.shows(&episode.pod));
    rows.extend(open.map(going_on));
    if rows.is_empty() {
        anstream::eprintln!("nothing is recorded");
        return Ok(());
    }
    table::write(out, HEADINGS, &rows)
}

fn cells(record: &Record) -> [String; 7] {
    [
        time(record.at),
        record.pod.clone(),
        record.reason.clone(),
        record.hook.clone(),
        record.attempt.map_or_else(|| "-".to_owned(), |attempt| attempt.to_string()),
        record.verdict.as_str().to_owned(),
        record.message.clone(),
    ]
}

/// What is open is not recorded yet.
fn going_on(episode: &Episode) -> [String; 7] {
    [
        time(episode.opened),
        episode.pod.clone(),
        episode.reason.clone(),
        episode.hook.clone(),
        episode.attempts.to_string(),
        "Open".to_owned(),
        match episode.next {
            Some(next) => format!("{}: the next attempt is made at {}", episode.why.clone(), time(next)),
            None => episode.why.clone(),
        },
    ]
}

fn document(args: &Args, namespace: &str, ledger: &Ledger) -> Value {
    let records: Vec<Record> = ledger.records().filter(|record| args.shows(&record.pod)).collect();
    let open = ledger.state.episodes.iter().filter(|(_, episode)| args.shows(&episode.pod));
    let open: serde_json::Map<String, Value> = open.map(|(id, episode)| (id.clone(), json!(episode))).collect();
    json!({
        "namespace": namespace,
        "set": args.set,
        "bootstrapped": ledger.state.bootstrapped,
        "records": records,
        "open": open,
        "givenUp": ledger.state.given_up,
    })
}

impl Args {
    fn shows(&self, pod: &str) -> bool {
        self.pod.as_deref().is_none_or(|wanted| wanted == pod)
    }
}

fn time(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

fn source(error: &LedgerError) -> String {
    std::error::Error::source(error).map(|source| format!(": {source}")).unwrap_or_default()
}
