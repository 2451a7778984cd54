//! A rehearsal, for people and for programs.

use std::io::{self, Write};

use anstyle::Style;
use guardian_core::rehearse::{Ended, Report};
use serde_json::{Value, json};

use super::super::table::{self, printable};
use super::diff;

const HEADINGS: [&str; 3] = ["AFTER", "POD", "WHAT"];

/// What happens in the order of time; then how it ended, what is left, and what was taken for granted.
pub(super) fn text(out: &mut impl Write, report: &Report) -> io::Result<()> {
    let (bold, dim) = (Style::new().bold(), Style::new().dimmed());
    let Report { set, policy, scenario, .. } = report;
    writeln!(out, "{bold}Rehearsal of {scenario}{bold:#}: StatefulSet {set}, policy {policy}\n")?;
    let rows = report.lines.iter().map(|line| {
        let pod = line.pod.clone().unwrap_or_else(|| "-".to_owned());
        [seconds(line.at_ms), pod, line.sentence()]
    });
    table::write(out, HEADINGS, &rows.collect::<Vec<_>>())?;
    writeln!(out, "\n{}", how(report))?;
    for line in left(report) {
        writeln!(out, "{}", printable(&line))?;
    }
    writeln!(out, "{}", ready(report))?;
    writeln!(out, "\n{dim}Taken for granted:{dim:#}")?;
    for assumed in &report.assumptions {
        writeln!(out, "{dim}- {}{dim:#}", printable(assumed))?;
    }
    Ok(())
}

pub(super) fn json(out: &mut impl Write, report: &Report) -> io::Result<()> {
    writeln!(out, "{:#}", document(report))
}

pub(super) fn yaml(out: &mut impl Write, report: &Report) -> io::Result<()> {
    writeln!(out, "{}", diff::yaml(&document(report))?.trim_end())
}

fn document(report: &Report) -> Value {
    let mut document = json!(report);
    if let Some(members) = document.as_object_mut() {
        members.insert("quiet".to_owned(), json!(report.is_quiet()));
    }
    document
}

fn how(report: &Report) -> String {
    let after = seconds(report.after_ms);
    match (report.ended, report.is_quiet()) {
        (Ended::Quiet, true) => format!("Quiet after {after}: nothing is left to do."),
        (Ended::Quiet, false) => format!("Quiet after {after}, and this is left:"),
        (Ended::Time, _) => "Not quiet after an hour, which is as long as a rehearsal lasts. What is left:".to_owned(),
        (Ended::Passes, _) => {
            "Not quiet after 10,000 looks at the set, which are as many as a rehearsal takes. What is left:".to_owned()
        }
    }
}

fn left(report: &Report) -> impl Iterator<Item = String> {
    let open = report
        .open
        .iter()
        .map(|open| format!("- going on: {} of {} ({}), {} attempts so far", open.hook, open.pod, open.reason, open.attempts));
    let holds = report.holds.iter().map(|held| format!("- held: {}: {}", held.reason, held.message));
    let failed = report.failed.iter().map(|failed| format!("- failed: {} of {}: {}", failed.hook, failed.pod, failed.message));
    let not_ready = report.not_ready.iter().map(|pod| format!("- not ready: {pod}"));
    open.chain(holds).chain(failed).chain(not_ready)
}

fn ready(report: &Report) -> String {
    let Report { replicas, quorum, least_ready, .. } = report;
    let all = report.all_ready_at_ms.map(|at| format!("all {replicas} pods are ready since {}", seconds(at)));
    let all = all.unwrap_or_else(|| format!("not all {replicas} pods are ready at the end"));
    if report.scenario == "first-start" {
        return format!("Ready: {all}.");
    }
    let kept = if report.quorum_kept { "kept" } else { "not kept" };
    format!("Ready: {least_ready} at least, the quorum of {quorum} is {kept}; {all}.")
}

/// To the tenth.
fn seconds(millis: u64) -> String {
    format!("{}.{} s", millis / 1000, millis % 1000 / 100)
}
