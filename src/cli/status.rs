//! `guardian status`: which sets are guarded, by what, what waits for their next template change, and what goes on in their pods.

mod running;

use std::io::{self, Write};

use guardian_core::standing::{self, Standing, State};
use serde_json::{Value, json};

use super::cluster::{self, Cluster, ClusterError, Place, Progress};
use super::diff;
use super::table::{self, Output};
use running::Running;

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

/// A set, and how it stands; or why that cannot be told.
struct Row {
    set: Value,
    standing: Result<Standing, String>,
}

/// A namespace and its sets.
struct Shown {
    place: Place,
    rows: Vec<Row>,
    running: Running,
}

/// Namespaces, and what cannot be told of them.
type Found = (Vec<Shown>, Vec<String>);

pub(super) fn run(args: &Args) -> Result<(), StatusError> {
    let (shown, problems) = cluster::run(async |cluster| look(args, &cluster).await)?;
    let mut out = anstream::AutoStream::auto(io::stdout().lock());
    match args.output {
        Output::Table => text(&mut out, args.set.is_some(), &shown, &problems)?,
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
        let running = Running::read(cluster, &place.name).await?;
        let rows = sets.into_iter().map(|set| {
            let settings = cluster::settings(image.as_deref(), &set);
            let standing = standing::of_stored(&set, &place.name, &policies.snapshot, &settings);
            Row { set, standing: standing.map_err(|error| error.to_string()) }
        });
        let rows: Vec<Row> = rows.collect();
        problems.extend(rows.iter().filter_map(|row| running.of(&row.set).problem.cloned()));
        shown.push(Shown { rows, place, running });
        problems.extend(policies.problems);
    }
    Ok((shown, problems))
}

fn text(out: &mut impl Write, with_pods: bool, shown: &[Shown], problems: &[String]) -> io::Result<()> {
    for problem in problems {
        anstream::eprintln!("Warning: {problem}");
    }
    let rows: Vec<[String; 9]> = shown.iter().flat_map(|shown| shown.rows.iter().map(|row| row.cells(shown))).collect();
    if rows.is_empty() {
        anstream::eprintln!("no StatefulSet");
        return Ok(());
    }
    let headings = ["NAMESPACE", "SET", "STATE", "READY", "POLICY", "WRITTEN", "IN FORCE", "LAST FAILURE", "BECAUSE"];
    table::write(out, headings, &rows)?;
    let pods = shown.iter().flat_map(|shown| shown.rows.iter().flat_map(|row| shown.running.of(&row.set).rows()));
    let pods: Vec<[String; 5]> = pods.collect();
    if with_pods && !pods.is_empty() {
        writeln!(out)?;
        table::write(out, ["POD", "READY", "ROLE", "RESTARTS", "GOING ON"], &pods)?;
    }
    Ok(())
}

fn document(shown: &[Shown], problems: &[String]) -> Value {
    let sets: Vec<Value> = shown.iter().flat_map(|shown| shown.rows.iter().map(|row| row.document(shown))).collect();
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

    fn cells(&self, shown: &Shown) -> [String; 9] {
        let (place, doing) = (&shown.place, shown.running.of(&self.set));
        let standing = self.standing.as_ref().ok();
        let written = standing.and_then(|s| s.record.as_ref());
        let in_force = standing.and_then(|s| s.policy.as_ref());
        let guards = in_force.or_else(|| standing.and_then(|s| s.awaits.as_ref()));
        let dash = || "-".to_owned();
        let hold = self.hold(place).map(|reason| format!("on hold: {reason}"));
        let because = [hold, Some(self.because(place)).filter(|because| !because.is_empty())];
        [
            place.name.clone(),
            cluster::name(&self.set).to_owned(),
            self.state(place),
            doing.readiness(),
            guards.map(|(name, _)| name).or(written.map(|record| &record.policy)).cloned().unwrap_or_else(dash),
            written.map_or_else(dash, |record| record.revision.clone()),
            in_force.map_or_else(dash, |(_, revision)| revision.clone()),
            doing.last_failure().map_or_else(dash, |last| {
                format!(
                    "{} {} {}, {} {}",
                    last.at.strftime("%Y-%m-%dT%H:%M:%SZ"),
                    last.pod,
                    last.reason,
                    last.hook,
                    last.verdict.as_str()
                )
            }),
            because.into_iter().flatten().collect::<Vec<_>>().join("; "),
        ]
    }

    fn document(&self, shown: &Shown) -> Value {
        let (place, standing) = (&shown.place, self.standing.as_ref().ok());
        let mut document = json!({
            "namespace": place.name,
            "name": cluster::name(&self.set),
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
        });
        if let Value::Object(members) = &mut document {
            members.extend(shown.running.of(&self.set).document().into_iter().map(|(key, value)| (key.to_owned(), value)));
        }
        document
    }
}
