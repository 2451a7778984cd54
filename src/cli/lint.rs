//! `guardian lint`: policies, and known-deadly combinations of StatefulSet and policy, without a cluster.

mod read;
mod report;

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;

use guardian_core::lint::{self, Level, Objects, Subject};
use serde_json::Value;

use read::{Item, Manifests};
use report::Located;
pub(super) use report::counted;

/// Check policies and the StatefulSets that they guard, without a cluster
///
/// Reads manifests, pairs policies with StatefulSets, Services and PodDisruptionBudgets of the same namespace, and names what is known to
/// end badly. Exit code 0: no errors; 1: errors, with --strict warnings too; 2: wrong usage.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  guardian lint -f examples/redis
  guardian lint -f policy.yaml -f statefulset.yaml --strict
  helm template redis ./chart | guardian lint -f - -f policy.yaml -o json")]
pub(super) struct Args {
    /// File or directory with manifests, `-` for standard input; directories with all that is below them; may be given several times
    #[arg(short = 'f', long = "filename", value_name = "PATH", required = true)]
    files: Vec<PathBuf>,
    /// How to print what was found
    #[arg(short = 'o', long, value_enum, default_value_t = Output::Text)]
    output: Output,
    /// Warnings too make the exit code 1
    #[arg(long)]
    strict: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Output {
    /// `file:line: level rule: message`, for people
    Text,
    /// One JSON document
    Json,
    /// One YAML document
    Yaml,
}

#[derive(Debug, thiserror::Error)]
pub(super) enum LintError {
    #[error(transparent)]
    Manifest(#[from] super::manifests::ManifestError),
    #[error("cannot write: {0}")]
    Output(#[from] io::Error),
    /// What was found is printed already.
    #[error("{0}")]
    Found(String),
}

pub(super) fn run(args: &Args) -> Result<(), LintError> {
    let manifests = read::manifests(&args.files)?;
    let mut found = check(&manifests);
    found.extend(manifests.found);
    found.sort_by(|a, b| (&a.file, a.line, a.rule.name).cmp(&(&b.file, b.line, b.rule.name)));
    let mut out = anstream::AutoStream::auto(io::stdout().lock());
    match args.output {
        Output::Text => report::text(&mut out, &found)?,
        Output::Json => report::json(&mut out, &found)?,
        Output::Yaml => report::yaml(&mut out, &found)?,
    }
    let bad = |finding: &&Located| finding.rule.level == Level::Error || (args.strict && finding.rule.level == Level::Warning);
    match found.iter().filter(bad).count() {
        0 => Ok(()),
        n => Err(LintError::Found(format!("{} in {}", counted(n, "problem"), counted(manifests.files, "file")))),
    }
}

/// What the rules say, namespace by namespace, each at its place in a file.
fn check(manifests: &Manifests) -> Vec<Located> {
    let mut namespaces: BTreeMap<&str, (Objects<'_>, Indices)> = BTreeMap::new();
    let unnamed = manifests.namespace_of_unnamed();
    for (at, item) in manifests.items.iter().enumerate() {
        let namespace = if item.namespace.is_empty() { unnamed } else { &item.namespace };
        let (objects, indices) = namespaces.entry(namespace).or_default();
        let value: &Value = &item.document.value;
        if let Some(policy) = &item.policy {
            objects.policies.push(policy);
            indices.policies.push(at);
            continue;
        }
        let (list, index) = match value.get("kind").and_then(Value::as_str) {
            Some("StatefulSet") => (&mut objects.sets, &mut indices.sets),
            Some("Service") => (&mut objects.services, &mut indices.services),
            Some("PodDisruptionBudget") => (&mut objects.budgets, &mut indices.budgets),
            _ => continue,
        };
        list.push(value);
        index.push(at);
    }
    let classes: Vec<&str> = manifests.items.iter().filter_map(priority_class).collect();
    namespaces.values_mut().for_each(|(objects, _)| objects.classes.clone_from(&classes));
    let found = namespaces.values().flat_map(|(objects, indices)| {
        lint::check(objects).into_iter().filter_map(|finding| {
            let item = manifests.items.get(*indices.of(finding.subject)?)?;
            Some(item.locate(finding.rule, &finding.path, finding.message))
        })
    });
    found.collect()
}

/// The name of the PriorityClass that it is.
fn priority_class(item: &Item) -> Option<&str> {
    let value = &item.document.value;
    let is_one = value.get("kind").and_then(Value::as_str) == Some("PriorityClass");
    value.pointer("/metadata/name").and_then(Value::as_str).filter(|_| is_one)
}

/// Which document each object of a namespace was read from.
#[derive(Default)]
struct Indices {
    policies: Vec<usize>,
    sets: Vec<usize>,
    services: Vec<usize>,
    budgets: Vec<usize>,
}

impl Indices {
    fn of(&self, subject: Subject) -> Option<&usize> {
        match subject {
            Subject::Policy(n) => self.policies.get(n),
            Subject::Set(n) => self.sets.get(n),
            Subject::Service(n) => self.services.get(n),
            Subject::Budget(n) => self.budgets.get(n),
        }
    }
}
