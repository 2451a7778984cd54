//! `guardian inject`: the webhook's rewriting without a cluster.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use guardian_core::admission::{Decision, Settings, Snapshot, Verdict};
use guardian_core::policy::{self, Policy};
use guardian_core::{names, standing};
use serde_json::Value;

use super::diff;
use super::manifests::{self, Document, ManifestError};

/// Rewrite StatefulSets as the webhook would, without a cluster
///
/// Reads manifests, prints them rewritten; what is not a guarded StatefulSet is printed as it stands. The one difference to the webhook:
/// PriorityClasses that a policy names are taken to exist.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  guardian inject -f statefulset.yaml --policy policy.yaml
  guardian inject -f examples/redis -o diff
  helm template redis ./chart | guardian inject -f - --policy policy.yaml | kubectl apply -f -")]
pub(super) struct Args {
    /// File or directory with manifests, `-` for standard input; may be given several times
    #[arg(short = 'f', long = "filename", value_name = "PATH", required = true)]
    files: Vec<PathBuf>,
    /// File with the policy ConfigMap; without it, policies among the manifests are used
    #[arg(long, value_name = "PATH")]
    policy: Vec<PathBuf>,
    /// What to print
    #[arg(short = 'o', long, value_enum, default_value_t = Output::Yaml)]
    output: Output,
    /// Image of the init container that installs the runner
    #[arg(long, env = "GUARDIAN_IMAGE", default_value = concat!("stateful-guardian:", env!("CARGO_PKG_VERSION")))]
    image: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Output {
    /// All documents, as YAML
    Yaml,
    /// All documents, one JSON object a line
    Json,
    /// What is changed, as a unified diff; long texts are cut
    Diff,
    /// What is changed, as the JSON Patch that the API server would get
    Patch,
}

#[derive(Debug, thiserror::Error)]
pub(super) enum InjectError {
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    #[error("{0} is not a policy: {1}")]
    Policy(String, #[source] policy::Invalid),
    #[error("no policy: give one with --policy, or among the manifests (a ConfigMap with the label {POLICY}: \"true\")", POLICY = names::POLICY)]
    NoPolicy,
    #[error("a ConfigMap with the label {POLICY} cannot be read: {0}", POLICY = names::POLICY)]
    ConfigMap(#[source] serde_json::Error),
    #[error("StatefulSet {0}: {1}")]
    Set(String, String),
    #[error("cannot write: {0}")]
    Output(#[from] io::Error),
}

pub(super) fn run(args: &Args) -> Result<(), InjectError> {
    let documents = read_all(&args.files)?;
    let policy_documents = read_all(&args.policy)?;
    let policies = policies(if args.policy.is_empty() { &documents } else { &policy_documents })?;
    let snapshot = standing::snapshot(NAMESPACE, policies);
    let settings = Settings { image: args.image.clone() };

    let mut printer = Printer { output: args.output, first: true, out: anstream::AutoStream::auto(io::stdout().lock()) };
    for document in &documents {
        let name = document.value.pointer("/metadata/name").and_then(Value::as_str).unwrap_or("without a name");
        let verdict = judge(&document.value, &snapshot, &settings).map_err(|e| InjectError::Set(name.to_owned(), e))?;
        for warning in verdict.iter().flat_map(|v| &v.warnings) {
            anstream::eprintln!("Warning: {name}: {warning}");
        }
        let after = verdict.as_ref().map(|v| standing::patched(&document.value, v)).transpose();
        let after = after.map_err(|e| InjectError::Set(name.to_owned(), e.to_string()))?;
        printer.print(name, document, verdict.as_ref(), after.as_ref())?;
    }
    Ok(())
}

/// Offline everything is in one namespace: a policy can name no other.
pub(super) const NAMESPACE: &str = "default";

pub(super) fn read_all(paths: &[PathBuf]) -> Result<Vec<Document>, ManifestError> {
    let mut all = Vec::new();
    for path in paths {
        all.extend(manifests::read(path)?);
    }
    Ok(all)
}

pub(super) fn policies(documents: &[Document]) -> Result<BTreeMap<String, Arc<Policy>>, InjectError> {
    #[derive(serde::Deserialize)]
    struct ConfigMap {
        #[serde(default)]
        data: BTreeMap<String, String>,
    }
    let mut policies = BTreeMap::new();
    for document in documents {
        let label = document.value.pointer("/metadata/labels").and_then(|l| l.get(names::POLICY)).and_then(Value::as_str);
        if document.value.get("kind").and_then(Value::as_str) != Some("ConfigMap") || label != Some("true") {
            continue;
        }
        let name = document.value.pointer("/metadata/name").and_then(Value::as_str).unwrap_or_default();
        let map: ConfigMap = serde_json::from_value(document.value.clone()).map_err(InjectError::ConfigMap)?;
        let policy = policy::parse(name, &map.data).map_err(|e| InjectError::Policy(name.to_owned(), e))?;
        for warning in policy.warnings() {
            anstream::eprintln!("Warning: policy {name}: {warning}");
        }
        policies.insert(name.to_owned(), Arc::new(policy));
    }
    if policies.is_empty() { Err(InjectError::NoPolicy) } else { Ok(policies) }
}

/// Asks as the API server would; `None` for what is not a StatefulSet.
fn judge(object: &Value, snapshot: &Snapshot, settings: &Settings) -> Result<Option<Verdict>, String> {
    if !is_set(object) {
        return Ok(None);
    }
    let verdict = standing::rehearse(object, None, NAMESPACE, snapshot, settings).map_err(|e| e.to_string())?;
    match &verdict.decision {
        Decision::Denied { message, .. } => Err(message.clone()),
        Decision::Allowed | Decision::Patched => Ok(Some(verdict)),
    }
}

/// Is this a StatefulSet?
pub(super) fn is_set(object: &Value) -> bool {
    let is = |field: &str, value: &str| object.get(field).and_then(Value::as_str) == Some(value);
    is("kind", "StatefulSet") && is("apiVersion", "apps/v1")
}

struct Printer<W: io::Write> {
    output: Output,
    first: bool,
    out: W,
}

impl<W: io::Write> Printer<W> {
    fn print(&mut self, name: &str, document: &Document, verdict: Option<&Verdict>, after: Option<&Value>) -> io::Result<()> {
        let changed = verdict.filter(|v| !v.patch.is_empty()).and(after);
        match (self.output, changed) {
            (Output::Yaml, Some(after)) => self.yaml(&diff::yaml(after)?),
            (Output::Yaml, None) => self.yaml(&document.text),
            (Output::Json, _) => writeln!(self.out, "{}", after.unwrap_or(&document.value)),
            (Output::Patch, _) => {
                let patch = verdict.map(|v| v.patch.to_bytes());
                patch.map_or(Ok(()), |p| self.out.write_all(&p).and_then(|()| writeln!(self.out)))
            }
            (Output::Diff, Some(after)) => {
                let header = [&*format!("{name} as written"), &*format!("{name} as admitted")];
                diff::write(&mut self.out, header, &document.value, after)
            }
            (Output::Diff, None) => Ok(()),
        }
    }

    fn yaml(&mut self, text: &str) -> io::Result<()> {
        if !std::mem::take(&mut self.first) {
            writeln!(self.out, "---")?;
        }
        writeln!(self.out, "{}", text.trim_end())
    }
}
