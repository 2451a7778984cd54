//! `guardian explain`: what would be written into a set and why, field by field.

use std::io::{self, IsTerminal as _, Write};
use std::path::PathBuf;

use anstyle::Style;
use guardian_core::standing::{self, Standing, StandingError, State};
use serde_json::{Value, json};

use super::cluster::{self, Cluster, ClusterError};
use super::inject::{self, InjectError, NAMESPACE};
use super::{diff, manifests};

/// Say what is written into a StatefulSet and why, field by field
///
/// From files: what the set would get when it is made. From the cluster: what its next template change would take up; until then nothing
/// is written, because the template of a running set is pinned.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  guardian explain -f examples/redis
  guardian explain -f statefulset.yaml --policy policy.yaml -o json
  guardian explain -n shop redis")]
pub(super) struct Args {
    /// The StatefulSet, in the cluster
    #[arg(required_unless_present = "files", conflicts_with = "files")]
    set: Option<String>,
    /// Namespace of the StatefulSet; by default the kubeconfig's
    #[arg(short, long, conflicts_with = "files")]
    namespace: Option<String>,
    /// File or directory with manifests, `-` for standard input; may be given several times
    #[arg(short = 'f', long = "filename", value_name = "PATH")]
    files: Vec<PathBuf>,
    /// File with the policy ConfigMap; without it, policies among the manifests are used
    #[arg(long, value_name = "PATH", requires = "files")]
    policy: Vec<PathBuf>,
    /// How to print it; by default text on a terminal, else JSON
    #[arg(short = 'o', long, value_enum)]
    output: Option<Output>,
    /// Image of the init container that installs the runner; in the cluster by default the installation's
    #[arg(long, env = "GUARDIAN_IMAGE")]
    image: Option<String>,
    /// Namespace that the guardian itself runs in
    #[arg(long, env = "GUARDIAN_INSTALLATION", default_value = "stateful-guardian", value_name = "NAMESPACE")]
    installation: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Output {
    /// Reasons, and a diff, for people
    Text,
    /// One JSON document
    Json,
    /// One YAML document
    Yaml,
}

#[derive(Debug, thiserror::Error)]
pub(super) enum ExplainError {
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    #[error(transparent)]
    Manifests(#[from] InjectError),
    #[error(transparent)]
    Manifest(#[from] manifests::ManifestError),
    #[error("StatefulSet {0}: {1}")]
    Set(String, #[source] StandingError),
    #[error("no StatefulSet of apps/v1 among the manifests")]
    NoSet,
    #[error("cannot write: {0}")]
    Output(#[from] io::Error),
}

/// A set, and how it stands.
struct Explained {
    namespace: String,
    before: Value,
    standing: Standing,
    /// What cannot be seen from here.
    problems: Vec<String>,
    /// It is in the cluster.
    stored: bool,
}

pub(super) fn run(args: &Args) -> Result<(), ExplainError> {
    let explained = match &args.set {
        None => from_files(args)?,
        Some(set) => vec![cluster::run(async |cluster| from_cluster(args, set, &cluster).await)?],
    };
    let default = if io::stdout().is_terminal() { Output::Text } else { Output::Json };
    let mut out = anstream::AutoStream::auto(io::stdout().lock());
    let document = || json!({"sets": explained.iter().map(Explained::document).collect::<Vec<_>>()});
    match args.output.unwrap_or(default) {
        Output::Text => explained.iter().try_for_each(|set| set.text(&mut out))?,
        Output::Json => writeln!(out, "{:#}", document())?,
        Output::Yaml => writeln!(out, "{}", diff::yaml(&document())?.trim_end())?,
    }
    Ok(())
}

fn from_files(args: &Args) -> Result<Vec<Explained>, ExplainError> {
    let documents = inject::read_all(&args.files)?;
    let policy_documents = inject::read_all(&args.policy)?;
    let policies = inject::policies(if args.policy.is_empty() { &documents } else { &policy_documents })?;
    let snapshot = standing::snapshot(NAMESPACE, policies);
    let sets = documents.into_iter().map(|document| document.value).filter(inject::is_set);
    let explained = sets.map(|set| {
        let settings = cluster::settings(args.image.as_deref(), &Value::Null);
        let standing = standing::of_new(&set, NAMESPACE, &snapshot, &settings)
            .map_err(|error| ExplainError::Set(cluster::name(&set).to_owned(), error))?;
        Ok(Explained { namespace: String::new(), before: set, standing, problems: Vec::new(), stored: false })
    });
    let explained = explained.collect::<Result<Vec<_>, ExplainError>>()?;
    if explained.is_empty() { Err(ExplainError::NoSet) } else { Ok(explained) }
}

async fn from_cluster(args: &Args, set: &str, cluster: &Cluster) -> Result<Explained, ExplainError> {
    let namespace = cluster.namespace_or_default(args.namespace.as_deref());
    let mut before = cluster.set(&namespace, set).await?;
    let place = cluster.place(&namespace).await;
    let (approvals, unknown) = match cluster.approvals(&args.installation).await? {
        Ok(approvals) => (Some(approvals), None),
        Err(unknown) => (None, Some(unknown)),
    };
    let policies = cluster.policies(&namespace, approvals.as_ref()).await?;
    let image = match &args.image {
        Some(image) => Some(image.clone()),
        None => cluster.image(&args.installation).await,
    };
    let settings = cluster::settings(image.as_deref(), &before);
    let standing = standing::of_stored(&before, &namespace, &policies.snapshot, &settings);
    let mut standing = standing.map_err(|error| ExplainError::Set(set.to_owned(), error))?;
    let mut problems = policies.problems;
    problems.extend(unknown);
    if place.is_ok_and(|place| !place.enabled) {
        problems
            .push(format!("namespace {namespace} is not enabled: nothing is written there before `guardian enable {namespace}`"));
    }
    // Who wrote which field, and how it is: not what is asked about.
    for object in [&mut before, &mut standing.after] {
        if let Some(object) = object.as_object_mut() {
            object.remove("status");
            object.get_mut("metadata").and_then(Value::as_object_mut).map(|metadata| metadata.remove("managedFields"));
        }
    }
    Ok(Explained { namespace, before, standing, problems, stored: true })
}

impl Explained {
    fn document(&self) -> Value {
        let s = &self.standing;
        json!({
            "namespace": self.namespace,
            "name": cluster::name(&self.before),
            "state": s.state,
            "because": s.because(),
            "policy": s.policy.as_ref().map(|(name, _)| name),
            "revision": s.policy.as_ref().map(|(_, revision)| revision),
            "awaits": s.awaits.as_ref().map(|(name, revision)| json!({"policy": name, "revision": revision})),
            "recorded": s.record.as_ref().map(|record| json!({"policy": record.policy, "revision": record.revision})),
            "hold": s.hold,
            "appliesAt": match (self.stored, &s.awaits) {
                (false, _) => "creation",
                (true, None) => "nextTemplateChange",
                (true, Some(_)) => "nextTemplateChangeOnceApproved",
            },
            "changes": s.next,
            "warnings": s.warnings,
            "problems": self.problems,
        })
    }

    fn text(&self, out: &mut impl Write) -> io::Result<()> {
        let (bold, dim) = (Style::new().bold(), Style::new().dimmed());
        let (s, name) = (&self.standing, cluster::name(&self.before));
        let guard = s
            .policy
            .as_ref()
            .or(s.awaits.as_ref())
            .map_or("no policy".to_owned(), |(name, revision)| format!("policy {name}, revision {revision}"));
        writeln!(out, "{bold}StatefulSet {name}{bold:#}: {guard}")?;
        let because = s.because();
        if self.stored {
            writeln!(out, "{:?}{}{because}", s.state, if because.is_empty() { "" } else { ": " })?;
        }
        let hold = s.hold.iter().map(|reason| format!("on hold: {reason}"));
        // Why it awaits an approval is the first of the warnings, and is told.
        let warnings = s.warnings.iter().skip(usize::from(s.awaits.is_some()));
        for line in hold.chain(self.problems.iter().chain(warnings).map(|warning| format!("Warning: {warning}"))) {
            writeln!(out, "{line}")?;
        }
        writeln!(out, "{}", self.when())?;
        for change in &s.next {
            let key = change.key.map(|key| format!("{key}: ")).unwrap_or_default();
            writeln!(out, "\n  {bold}{}{bold:#}: {} -> {}", change.path, short(&change.before), short(&change.after))?;
            writeln!(out, "      {dim}{key}{}{dim:#}", change.reason)?;
        }
        if s.next.is_empty() {
            return writeln!(out);
        }
        writeln!(out)?;
        let header = [&*format!("{name} as it is"), &*format!("{name} as it would be")];
        diff::write(out, header, &self.before, &s.after)?;
        writeln!(out)
    }

    fn when(&self) -> &'static str {
        match (self.stored, self.standing.next.is_empty()) {
            (false, true) => "Nothing is written.",
            (false, false) => "Written when it is made:",
            (true, true) if self.standing.state == State::Guarded => {
                "Nothing is written now, nor at the next change of its template."
            }
            (true, true) if self.standing.awaits.is_some() => {
                "Nothing is written now, nor, once the policy is approved, at the next change of its template."
            }
            (true, true) => "Nothing is written.",
            (true, false) if self.standing.awaits.is_some() => {
                "Nothing is written now: the policy awaits approval. Once it is approved, the next change of the template, such as \
                 `kubectl rollout restart`, takes up:"
            }
            (true, false) => {
                "Nothing is written now: its template is pinned. The next change of it, such as `kubectl rollout restart`, takes up:"
            }
        }
    }
}

/// A value on one line.
fn short(value: &Value) -> String {
    match value {
        Value::Null => "nothing".to_owned(),
        Value::Object(members) if members.len() > 1 => match members.get("name").and_then(Value::as_str) {
            Some(name) => format!("{{name: {name}, ...}}"),
            None => format!("an object with {} members", members.len()),
        },
        Value::Array(items) if !items.is_empty() => super::lint::counted(items.len(), "item"),
        other => diff::shortened(other).to_string(),
    }
}
