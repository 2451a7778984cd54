//! One line of the audit trail, and which of them are asked for.

use jiff::Timestamp;
use serde::Deserialize;
use serde_json::Value;

/// Which decisions are asked for.
#[derive(Clone, Debug, Default, clap::Args)]
pub(super) struct Filter {
    /// Only in this namespace
    #[arg(short, long, value_name = "NAMESPACE")]
    namespace: Option<String>,
    /// Only about this StatefulSet
    #[arg(long, value_name = "NAME")]
    set: Option<String>,
    /// Only what this user asked for
    #[arg(long, value_name = "NAME")]
    user: Option<String>,
    /// Only with this decision
    #[arg(long, value_parser = ["allowed", "patched", "denied"])]
    decision: Option<String>,
    /// Only for this reason, such as DeletionDenied
    #[arg(long, value_name = "REASON")]
    reason: Option<String>,
    #[arg(skip)]
    pub(super) since: Option<Timestamp>,
}

/// A decision.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) time: Timestamp,
    /// Everything that was written down: a later version adds fields.
    pub(super) line: Value,
    fields: Fields,
}

/// What every audit line has, and what is filtered and shown.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Fields {
    time: Timestamp,
    user: String,
    operation: String,
    kind: String,
    #[serde(default)]
    subresource: Option<String>,
    namespace: String,
    name: String,
    #[serde(default)]
    dry_run: bool,
    decision: String,
    reason: String,
    #[serde(default)]
    message: Option<String>,
    #[serde(default)]
    warnings: Vec<String>,
    #[serde(default)]
    changes: Vec<String>,
    #[serde(default)]
    dropped: u64,
}

/// What a line of a log is.
pub(super) enum Read {
    /// A decision.
    Entry(Box<Entry>),
    /// Something else that is logged.
    Other,
    /// An audit line, by what it says of itself, that cannot be read.
    Malformed,
}

/// Reads a line of a log. What stands before its object, as `kubectl logs --prefix` and `--timestamps` write it, is skipped.
pub(super) fn read(line: &[u8]) -> Read {
    let text = String::from_utf8_lossy(line);
    let Some(at) = text.find('{') else { return Read::Other };
    let text = text.get(at..).unwrap_or_default();
    let looks_like_one = || if text.contains("\"log\":\"audit\"") { Read::Malformed } else { Read::Other };
    let Ok(line) = serde_json::from_str::<Value>(text) else { return looks_like_one() };
    if line.get("log").and_then(Value::as_str) != Some("audit") {
        return Read::Other;
    }
    match Fields::deserialize(&line) {
        Ok(fields) => Read::Entry(Box::new(Entry { time: fields.time, line, fields })),
        Err(_) => Read::Malformed,
    }
}

impl Filter {
    /// Is this one asked for?
    pub(super) fn takes(&self, entry: &Entry) -> bool {
        let f = &entry.fields;
        let is = |wanted: &Option<String>, value: &str| wanted.as_ref().is_none_or(|wanted| wanted == value);
        let of_a_set = f.kind.ends_with("/StatefulSet") || f.subresource.as_deref() == Some("scale");
        is(&self.namespace, &f.namespace)
            && self.set.as_ref().is_none_or(|set| of_a_set && *set == f.name)
            && is(&self.user, &f.user)
            && is(&self.decision, &f.decision)
            && is(&self.reason, &f.reason)
            && self.since.is_none_or(|since| entry.time >= since)
    }
}

/// Over the columns of [`Entry::row`], which are of fixed width: the longest is not known before the end.
pub(super) const HEADINGS: &str =
    "TIME                   DECISION   REASON              OPERATION   OBJECT                                     USER   SAID";

impl Entry {
    /// One line for people. Control characters in names and messages are escaped.
    pub(super) fn row(&self) -> String {
        let f = &self.fields;
        let kind = f.kind.rsplit('/').next().unwrap_or_default();
        let subresource = f.subresource.as_ref().map(|s| format!("/{s}")).unwrap_or_default();
        let namespace = if f.namespace.is_empty() { String::new() } else { format!("{}/", f.namespace) };
        let object = format!("{kind}{subresource} {namespace}{}", f.name);
        let mut said: Vec<String> = f.message.iter().chain(&f.warnings).cloned().collect();
        if !f.changes.is_empty() {
            said.push(format!("changed {}", f.changes.join(", ")));
        }
        if f.dropped > 0 {
            said.push(format!("{} lines before this one were lost", f.dropped));
        }
        let operation = if f.dry_run { format!("{} dry", f.operation) } else { f.operation.clone() };
        let time = f.time.strftime("%Y-%m-%dT%H:%M:%SZ");
        let row = format!(
            "{time:<20}   {:<8}   {:<17}   {operation:<10}  {object:<40}   {}   {}",
            f.decision,
            f.reason,
            f.user,
            said.join("; ")
        );
        row.trim_end().chars().flat_map(|c| if c.is_control() { c.escape_default().collect() } else { vec![c] }).collect()
    }
}
