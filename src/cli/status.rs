//! `guardian status`: which sets are guarded, by what, and what waits for their next template change.

use std::io::{self, Write};

use guardian_core::standing::{self, Standing, State};
use serde_json::{Value, json};

use super::cluster::{self, Cluster, ClusterError, Place, Progress};
use super::diff;
use super::table::{self, Output};

/// Show how StatefulSets stand to their policies: guarded, pending, unguarded, awaiting approval, on hold
///
/// Read with your own rights. `Pending`: a policy was edited, or the guardian writes it in another form; the set takes it up with the next
/// change of its template. `Unguarded`: a policy selects the set, and nothing is written into it.
/// `AwaitsApproval`: its policy does nothing before somebody approves it.
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

/// A set, and how it stands; or why that cannot be told.
struct Row {
    name: String,
    standing: Result<Standing, String>,
}

/// A namespace and its sets.
struct Shown {
    place: Place,
    rows: Vec<Row>,
}

/// Namespaces, and what cannot be told of them.
type Found = (Vec<Shown>, Vec<String>);

pub(super) fn run(args: &Args) -> Result<(), StatusError> {
    let (shown, problems) = cluster::run(async |cluster| look(args, &cluster).await)?;
    let mut out = anstream::AutoStream::auto(io::stdout().lock());
    match args.output {
        Output::Table => text(&mut out, &shown, &problems)?,
        Output::Json => writeln!(out, "{:#}", document(&shown, &problems))?,
        Output::Yaml => writeln!(out, "{}", diff::yaml(&document(&shown, &problems))?.trim_end())?,
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
        let rows = sets.iter().map(|set| {
            let settings = cluster::settings(image.as_deref(), set);
            let standing = standing::of_stored(set, &place.name, &policies.snapshot, &settings);
            Row { name: cluster::name(set).to_owned(), standing: standing.map_err(|error| error.to_string()) }
        });
        shown.push(Shown { rows: rows.collect(), place });
        problems.extend(policies.problems);
    }
    Ok((shown, problems))
}

fn text(out: &mut impl Write, shown: &[Shown], problems: &[String]) -> io::Result<()> {
    for problem in problems {
        anstream::eprintln!("Warning: {problem}");
    }
    let rows: Vec<[String; 7]> = shown.iter().flat_map(|shown| shown.rows.iter().map(|row| row.cells(&shown.place))).collect();
    if rows.is_empty() {
        anstream::eprintln!("no StatefulSet");
        return Ok(());
    }
    table::write(out, ["NAMESPACE", "SET", "STATE", "POLICY", "WRITTEN", "IN FORCE", "BECAUSE"], &rows)
}

fn document(shown: &[Shown], problems: &[String]) -> Value {
    let sets: Vec<Value> = shown.iter().flat_map(|shown| shown.rows.iter().map(|row| row.document(&shown.place))).collect();
    json!({"sets": sets, "problems": problems})
}

impl Row {
    /// The state, or why there is none: in a namespace that is not enabled nothing is written, whatever its policies say.
    fn state(&self, place: &Place) -> String {
        match &self.standing {
            Err(_) => "Unreadable".to_owned(),
            Ok(_) if !place.enabled => "NotEnabled".to_owned(),
            Ok(standing) => format!("{:?}", standing.state),
        }
    }

    fn because(&self, place: &Place) -> String {
        match &self.standing {
            Err(error) => error.clone(),
            Ok(standing) if !place.enabled && standing.record.is_some() => {
                "the namespace is not enabled; what was written stays and works alone".to_owned()
            }
            Ok(_) if !place.enabled => "the namespace is not enabled".to_owned(),
            Ok(standing) => standing.because(),
        }
    }

    /// The set's own hold, or its namespace's.
    fn hold<'r>(&'r self, place: &'r Place) -> Option<&'r String> {
        let own = self.standing.as_ref().ok().and_then(|standing| standing.hold.as_ref());
        own.or(place.hold.as_ref())
    }

    fn cells(&self, place: &Place) -> [String; 7] {
        let standing = self.standing.as_ref().ok();
        let written = standing.and_then(|s| s.record.as_ref());
        let in_force = standing.and_then(|s| s.policy.as_ref());
        let guards = in_force.or_else(|| standing.and_then(|s| s.awaits.as_ref()));
        let dash = || "-".to_owned();
        let hold = self.hold(place).map(|reason| format!("on hold: {reason}"));
        let because = [hold, Some(self.because(place)).filter(|because| !because.is_empty())];
        [
            place.name.clone(),
            self.name.clone(),
            self.state(place),
            guards.map(|(name, _)| name).or(written.map(|record| &record.policy)).cloned().unwrap_or_else(dash),
            written.map_or_else(dash, |record| record.revision.clone()),
            in_force.map_or_else(dash, |(_, revision)| revision.clone()),
            because.into_iter().flatten().collect::<Vec<_>>().join("; "),
        ]
    }

    fn document(&self, place: &Place) -> Value {
        let standing = self.standing.as_ref().ok();
        json!({
            "namespace": place.name,
            "name": self.name,
            "state": self.state(place),
            "because": self.because(place),
            "policy": standing.and_then(|s| s.policy.as_ref()).map(|(name, _)| name),
            "revision": standing.and_then(|s| s.policy.as_ref()).map(|(_, revision)| revision),
            "awaits": standing.and_then(|s| s.awaits.as_ref()).map(|(name, revision)| json!({"policy": name, "revision": revision})),
            "recorded": standing
                .and_then(|s| s.record.as_ref())
                .map(|record| json!({"policy": record.policy, "revision": record.revision})),
            "hold": self.hold(place),
            "pending": standing.is_some_and(|s| place.enabled && matches!(s.state, State::Pending | State::Unguarded | State::Leaving)),
            "warnings": standing.map(|s| s.warnings.as_slice()).unwrap_or_default(),
        })
    }
}
