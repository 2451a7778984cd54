//! What is changed in an object, for the eye: a unified diff of YAML.

use std::io::{self, Write};

use serde_json::{Value, json};

/// Longest text that a diff shows whole, in bytes: what fits on a line of a terminal beside its key.
const SHOWN: usize = 80;

/// Writes a unified diff with colours, which go through `anstream`, and are dropped where there is no terminal.
pub(super) fn write(out: &mut impl Write, [from, to]: [&str; 2], before: &Value, after: &Value) -> io::Result<()> {
    let (before, after) = (yaml(&shortened(before))?, yaml(&shortened(after))?);
    let diff = similar::TextDiff::from_lines(&before, &after);
    let text = diff.unified_diff().context_radius(3).header(from, to).to_string();
    for line in text.lines() {
        let (on, off) = match line.chars().next() {
            Some('+') => ("\u{1b}[32m", "\u{1b}[0m"),
            Some('-') => ("\u{1b}[31m", "\u{1b}[0m"),
            Some('@') => ("\u{1b}[36m", "\u{1b}[0m"),
            _ => ("", ""),
        };
        writeln!(out, "{on}{line}{off}")?;
    }
    Ok(())
}

/// As YAML.
pub(super) fn yaml(value: &Value) -> io::Result<String> {
    serde_saphyr::to_string(value).map_err(io::Error::other)
}

/// A copy for the eye: long texts are cut, and say how long they are.
pub(super) fn shortened(value: &Value) -> Value {
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
