//! `guardian inject`: the webhook's rewriting without a cluster.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use guardian_core::admission::{self, Decision, Review, Settings, Snapshot, Verdict};
use guardian_core::names;
use guardian_core::policy::{self, Policy};
use serde_json::{Value, json};

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
    let snapshot = Snapshot { policies: BTreeMap::from([(NAMESPACE.to_owned(), policies)]), ..Snapshot::default() };
    let settings = Settings { image: args.image.clone() };

    let mut printer = Printer { output: args.output, first: true, out: anstream::AutoStream::auto(io::stdout().lock()) };
    for document in &documents {
        let name = document.value.pointer("/metadata/name").and_then(Value::as_str).unwrap_or("without a name");
        let verdict = judge(&document.value, &snapshot, &settings).map_err(|e| InjectError::Set(name.to_owned(), e))?;
        for warning in verdict.iter().flat_map(|v| &v.warnings) {
            anstream::eprintln!("Warning: {name}: {warning}");
        }
        let after = verdict.as_ref().map(|v| patched(&document.value, v)).transpose();
        let after = after.map_err(|e| InjectError::Set(name.to_owned(), e))?;
        printer.print(name, document, verdict.as_ref(), after.as_ref())?;
    }
    Ok(())
}

/// Offline everything is in one namespace: a policy can name no other.
const NAMESPACE: &str = "default";

fn read_all(paths: &[PathBuf]) -> Result<Vec<Document>, ManifestError> {
    let mut all = Vec::new();
    for path in paths {
        all.extend(manifests::read(path)?);
    }
    Ok(all)
}

fn policies(documents: &[Document]) -> Result<BTreeMap<String, Arc<Policy>>, InjectError> {
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
    let is = |field: &str, value: &str| object.get(field).and_then(Value::as_str) == Some(value);
    if !is("kind", "StatefulSet") || !is("apiVersion", "apps/v1") {
        return Ok(None);
    }
    let review = json!({
        "apiVersion": "admission.k8s.io/v1",
        "kind": "AdmissionReview",
        "request": {
            "uid": "offline",
            "kind": {"group": "apps", "version": "v1", "kind": "StatefulSet"},
            "operation": "CREATE",
            "namespace": NAMESPACE,
            "name": object.pointer("/metadata/name"),
            "object": object,
        },
    })
    .to_string();
    let review = Review::parse(&review).map_err(|e| e.to_string())?;
    let verdict = admission::judge(&review, snapshot, settings);
    match &verdict.decision {
        Decision::Denied { message, .. } => Err(message.clone()),
        Decision::Allowed | Decision::Patched => Ok(Some(verdict)),
    }
}

fn patched(object: &Value, verdict: &Verdict) -> Result<Value, String> {
    let patch: json_patch::Patch = serde_json::from_slice(&verdict.patch.to_bytes()).map_err(|e| e.to_string())?;
    let mut object = object.clone();
    json_patch::patch(&mut object, &patch).map_err(|e| e.to_string())?;
    Ok(object)
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
            (Output::Yaml, Some(after)) => self.yaml(&yaml(after)?),
            (Output::Yaml, None) => self.yaml(&document.text),
            (Output::Json, _) => writeln!(self.out, "{}", after.unwrap_or(&document.value)),
            (Output::Patch, _) => {
                let patch = verdict.map(|v| v.patch.to_bytes());
                patch.map_or(Ok(()), |p| self.out.write_all(&p).and_then(|()| writeln!(self.out)))
            }
            (Output::Diff, Some(after)) => self.diff(name, &yaml(&shortened(&document.value))?, &yaml(&shortened(after))?),
            (Output::Diff, None) => Ok(()),
        }
    }

    fn yaml(&mut self, text: &str) -> io::Result<()> {
        if !std::mem::take(&mut self.first) {
            writeln!(self.out, "---")?;
        }
        writeln!(self.out, "{}", text.trim_end())
    }

    /// Colours go through `anstream`, which drops them where there is no terminal.
    fn diff(&mut self, name: &str, before: &str, after: &str) -> io::Result<()> {
        let diff = similar::TextDiff::from_lines(before, after);
        let text = diff
            .unified_diff()
            .context_radius(3)
            .header(&format!("{name} as written"), &format!("{name} as admitted"))
            .to_string();
        for line in text.lines() {
            let (on, off) = match line.chars().next() {
                Some('+') => ("\u{1b}[32m", "\u{1b}[0m"),
                Some('-') => ("\u{1b}[31m", "\u{1b}[0m"),
                Some('@') => ("\u{1b}[36m", "\u{1b}[0m"),
                _ => ("", ""),
            };
            writeln!(self.out, "{on}{line}{off}")?;
        }
        Ok(())
    }
}

/// Longest text that a diff shows whole, in bytes: what fits on a line of a terminal beside its key.
const SHOWN: usize = 80;

/// A copy for the eye: long texts are cut, and say how long they are.
fn shortened(value: &Value) -> Value {
    match value {
        Value::String(text) if text.len() > SHOWN => {
            let head: String = text.chars().take(SHOWN / 2).collect();
            json!(format!("{head}... ({} bytes)", text.len()))
        }
        Value::Array(items) => items.iter().map(shortened).collect(),
        Value::Object(members) => members.iter().map(|(key, value)| (key.clone(), shortened(value))).collect(),
        other => other.clone(),
    }
}

fn yaml(value: &Value) -> io::Result<String> {
    serde_saphyr::to_string(value).map_err(io::Error::other)
}
