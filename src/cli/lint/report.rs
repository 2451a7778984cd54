//! What was found, for people and for programs.

use std::collections::BTreeMap;
use std::io::{self, Write};

use anstyle::{AnsiColor, Style};
use guardian_core::lint::{Level, Rule};
use serde_json::{Value, json};

/// A finding at its place in a file.
#[derive(Debug)]
pub(super) struct Located {
    pub(super) file: String,
    /// From 1.
    pub(super) line: u64,
    /// From 1.
    pub(super) column: Option<u64>,
    /// Kind and name; empty where a text could not be read.
    pub(super) object: String,
    /// In the object.
    pub(super) path: String,
    pub(super) rule: &'static Rule,
    pub(super) message: String,
}

impl Located {
    /// A finding by a rule, at no place yet.
    pub(super) fn of(rule: &'static Rule) -> Self {
        Self {
            file: String::new(),
            line: 1,
            column: None,
            object: String::new(),
            path: String::new(),
            rule,
            message: String::new(),
        }
    }
}

/// One line a finding, files apart; then what the rules are about, once each.
pub(super) fn text(out: &mut impl Write, found: &[Located]) -> io::Result<()> {
    let dim = Style::new().dimmed();
    let mut file = None;
    for finding in found {
        if file.replace(&finding.file).is_some_and(|before| *before != finding.file) {
            writeln!(out)?;
        }
        let Located { file, line, rule, message, .. } = finding;
        let style = style(rule.level);
        writeln!(out, "{file}:{line}: {style}{}{style:#} {}: {message}", rule.level.as_str(), rule.name)?;
    }
    let rules: BTreeMap<(Level, &str), &Rule> = found.iter().map(|f| ((f.rule.level, f.rule.name), f.rule)).collect();
    for rule in rules.values() {
        writeln!(out, "\n{}\n  why: {}\n  do:  {}\n  {dim}{}{dim:#}", rule.name, rule.reason, rule.remedy, rule.link())?;
    }
    if !found.is_empty() {
        writeln!(out)?;
    }
    let [errors, warnings, notes] = counts(found);
    writeln!(out, "{}, {}, {}", counted(errors, "error"), counted(warnings, "warning"), counted(notes, "note"))
}

pub(super) fn json(out: &mut impl Write, found: &[Located]) -> io::Result<()> {
    serde_json::to_writer_pretty(&mut *out, &document(found))?;
    writeln!(out)
}

pub(super) fn yaml(out: &mut impl Write, found: &[Located]) -> io::Result<()> {
    let text = serde_saphyr::to_string(&document(found)).map_err(io::Error::other)?;
    writeln!(out, "{}", text.trim_end())
}

fn document(found: &[Located]) -> Value {
    let finding = |f: &Located| {
        json!({
            "file": f.file, "line": f.line, "column": f.column, "object": f.object, "path": f.path,
            "rule": f.rule.name, "level": f.rule.level.as_str(), "message": f.message,
            "reason": f.rule.reason, "remedy": f.rule.remedy, "link": f.rule.link(),
        })
    };
    let [errors, warnings, notes] = counts(found);
    json!({
        "findings": found.iter().map(finding).collect::<Vec<_>>(),
        "errors": errors, "warnings": warnings, "notes": notes,
    })
}

fn counts(found: &[Located]) -> [usize; 3] {
    [Level::Error, Level::Warning, Level::Note].map(|level| found.iter().filter(|f| f.rule.level == level).count())
}

fn style(level: Level) -> Style {
    let colour = match level {
        Level::Error => AnsiColor::Red,
        Level::Warning => AnsiColor::Yellow,
        Level::Note => AnsiColor::Cyan,
    };
    Style::new().fg_color(Some(colour.into())).bold()
}

/// A number with its noun.
pub(in crate::cli) fn counted(n: usize, noun: &str) -> String {
    if n == 1 { format!("1 {noun}") } else { format!("{n} {noun}s") }
}
