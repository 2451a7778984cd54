//! The text format of Prometheus, as it is written: HELP and TYPE once for each family, families by name, lines as they came.

use alloc::collections::BTreeMap;
use alloc::string::String;
use core::fmt::{Display, Write as _};

use super::MetricKind;

/// Name, type and help of a family.
pub type Family<'n> = (&'n str, MetricKind, &'n str);

/// Families, by name.
#[derive(Default)]
pub struct Text<'n> {
    families: BTreeMap<&'n str, Lines<'n>>,
}

struct Lines<'n> {
    kind: MetricKind,
    help: &'n str,
    lines: String,
}

impl<'n> Text<'n> {
    /// Adds a value, which has at least one label. The type and the help of a family are those of its first value.
    pub fn add<'l>(
        &mut self,
        (name, kind, help): Family<'n>,
        labels: impl IntoIterator<Item = (&'l str, &'l str)>,
        value: impl Display,
    ) {
        let family = self.families.entry(name).or_insert_with(|| Lines { kind, help, lines: String::new() });
        let lines = &mut family.lines;
        lines.push_str(name);
        for (n, (label, text)) in labels.into_iter().enumerate() {
            lines.push(if n == 0 { '{' } else { ',' });
            lines.push_str(label);
            lines.push_str("=\"");
            escape(text, true, lines);
            lines.push('"');
        }
        // Writing to a string does not fail.
        let _ = writeln!(lines, "}} {value}");
    }

    /// All of it.
    #[must_use]
    pub fn finish(self) -> String {
        let mut text = String::new();
        for (name, Lines { kind, help, lines }) in self.families {
            let kind = match kind {
                MetricKind::Gauge => "gauge",
                MetricKind::Counter => "counter",
            };
            text.push_str("# HELP ");
            text.push_str(name);
            text.push(' ');
            escape(if help.is_empty() { "Measured by a command of a policy" } else { help }, false, &mut text);
            let _ = writeln!(text, "\n# TYPE {name} {kind}");
            text.push_str(&lines);
        }
        text
    }
}

/// A help, or the value of a label, in which quotes are escaped too.
fn escape(text: &str, quotes: bool, into: &mut String) {
    for c in text.chars() {
        match c {
            '\\' => into.push_str("\\\\"),
            '\n' => into.push_str("\\n"),
            '"' if quotes => into.push_str("\\\""),
            // It ends no line for Prometheus, and does for others.
            '\r' => into.push(' '),
            c => into.push(c),
        }
    }
}
