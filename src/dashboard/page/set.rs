//! The page of a set.

use guardian_core::ledger::{Episode, Record, State};
use guardian_core::standing::{Change, Standing};
use maud::{Markup, html};
use serde_json::Value;

use super::start;
use super::words::{self, Tone};
use crate::dashboard::view::Told;
use crate::known::{Pod, Set};

/// The fragments beside head and notices, in their order.
pub(super) const PARTS: [&str; 6] = ["doing", "pods", "timeline", "plots", "told", "history"];

/// Events that are shown: the API server keeps those of the last hour.
const TOLD: usize = 30;
/// Most letters of a value in the list of what waits.
const VALUE: usize = 120;

/// Its name, how it stands, and what waits for its next template change.
pub(super) fn head(set: &Set) -> Markup {
    let standing = set.standing.as_ref().ok();
    html! {
        div.title { h1 { (set.name) } (words::state(set)) @if set.hold().is_some() { (words::badge(Tone::Wait, "on hold")) } }
        @if !set.because().is_empty() { p.because { (set.because()) } }
        dl.facts {
            div { dt { "Ready" } dd { (words::ready(set)) } }
            div { dt { "Policy" } dd { (start::policy(set)) } }
            @if let Some((name, revision)) = standing.and_then(|s| s.awaits.as_ref()) {
                div { dt { "Awaits approval" } dd { (name) " " (words::revision(revision)) } }
            }
            @if let Some(reason) = set.hold() { div { dt { "On hold" } dd { (reason) } } }
            @if let Some(kept) = set.kept() {
                div { dt { "Bootstrapped" } dd { @if kept.state.bootstrapped { "yes" } @else { "not yet" } } }
            }
        }
        @if let Some(standing) = standing.filter(|standing| !standing.next.is_empty()) { (next(standing)) }
    }
}

/// What its next template change takes up.
fn next(standing: &Standing) -> Markup {
    html! {
        details #next {
            summary { "What its next template change takes up: " (standing.next.len()) @if standing.next.len() == 1 { " field" } @else { " fields" } }
            ul.changes { @for change in &standing.next { (item(change)) } }
            @for warning in &standing.warnings { p.sub { (warning) } }
        }
    }
}

fn item(change: &Change) -> Markup {
    let value = |value: &Value| match value {
        Value::Null => "nothing".to_owned(),
        value => {
            let text = value.to_string();
            let cut: String = text.chars().take(VALUE).collect();
            if cut.len() < text.len() { format!("{cut}...") } else { cut }
        }
    };
    html! {
        li { code { (change.path) } ": " span.was { (value(&change.before)) } " \u{2192} " span { (value(&change.after)) } div.sub { (change.reason) } }
    }
}

/// What goes on, what was given up, and what is due and not done.
pub(super) fn doing(set: &Set) -> Markup {
    let Some(kept) = set.kept() else { return html! {} };
    let (open, given_up, holds) = (&kept.state.episodes, &kept.state.given_up, &kept.state.holds);
    html! {
        @if !open.is_empty() || !given_up.is_empty() || !holds.is_empty() {
            section aria-labelledby="doing-h" {
                h2 #doing-h { "Going on" }
                @for (scenario, what) in given_up {
                    p.because { (words::badge(Tone::Bad, "given up")) " " b { (scenario) } ": " (what.why) }
                }
                @for hold in holds {
                    p.because { (words::badge(Tone::Wait, "held")) " " b { (hold.reason) } ": " (hold.why) span.sub { ", since " (words::age(hold.since)) } }
                }
                @if !open.is_empty() {
                    table.stacks role="table" aria-labelledby="doing-h" {
                        (headings(&["Pod", "Hook", "Because of", "Attempt", "Next", "Since"]))
                        tbody role="rowgroup" { @for (id, episode) in open { (going_on(id, episode, &kept.state)) } }
                    }
                }
            }
        }
    }
}

fn going_on(id: &str, episode: &Episode, state: &State) -> Markup {
    let run = state.runs.values().find(|run| run.episode == id);
    html! {
        tr role="row" {
            th scope="row" role="rowheader" { @if episode.pod.is_empty() { "the set" } @else { (episode.pod) } }
            td role="cell" data-label="Hook" {
                div { b { (episode.hook) } @if let Some(then) = &episode.then { span.sub { ", then " (then) } } }
            }
            td role="cell" data-label="Because of" { (episode.reason) div.sub { (episode.why) } }
            td.num role="cell" data-label="Attempt" { (episode.attempts) }
            td role="cell" data-label="Next" {
                div {
                    @match (run, episode.next) {
                        (Some(run), _) => { "runs since " (words::time(run.claimed)) ", " (run.timeout_ms / 1000) " s at most" }
                        (None, Some(next)) => (words::age(next)),
                        (None, None) => "waits for its turn",
                    }
                }
            }
            td role="cell" data-label="Since" { (words::age(episode.opened)) }
        }
    }
}

/// Its pods.
pub(super) fn pods(set: &Set) -> Markup {
    html! {
        section aria-labelledby="pods-h" {
            h2 #pods-h { "Pods" }
            @if set.pods.is_empty() { p.empty { "No guarded pod is there, or none that may be seen." } } @else {
                table.stacks role="table" aria-labelledby="pods-h" {
                    (headings(&["Pod", "Ready", "Role", "Restarts", "Node", "Revision", "Going on"]))
                    tbody role="rowgroup" { @for pod in &set.pods { (pod_row(set, pod)) } }
                }
            }
        }
    }
}

fn pod_row(set: &Set, pod: &Pod) -> Markup {
    let ready = match (pod.stopping, pod.ready) {
        (true, _) => words::badge(Tone::Wait, "stopping"),
        (_, true) => words::badge(Tone::Good, "yes"),
        _ => words::badge(Tone::Bad, "no"),
    };
    html! {
        tr role="row" {
            th scope="row" role="rowheader" { (pod.name) }
            td role="cell" data-label="Ready" { (ready) }
            td role="cell" data-label="Role" { (or_dash(pod.role.as_deref())) }
            td.num role="cell" data-label="Restarts" { (pod.restarts) }
            td role="cell" data-label="Node" { (or_dash(pod.node.as_deref())) }
            td role="cell" data-label="Revision" { code.revision { (or_dash(pod.revision.as_deref().map(last_part))) } }
            td role="cell" data-label="Going on" { (or_dash(set.going_on(&pod.name).as_deref())) }
        }
    }
}

/// The Events of the controller about the set: what it holds, and what it has done.
pub(super) fn told(told: &[Told]) -> Markup {
    html! {
        section aria-labelledby="told-h" {
            h2 #told-h { "Events and holds" }
            @if told.is_empty() { p.empty { "The controller has told nothing of this set in the last hour." } } @else {
                table.stacks role="table" aria-labelledby="told-h" {
                    (headings(&["Time", "Kind", "Reason", "What"]))
                    tbody role="rowgroup" {
                        @for event in told.iter().take(TOLD) {
                            tr role="row" {
                                td.time role="cell" data-label="Time" { @if let Some(at) = event.at { (words::time(at)) } @else { "-" } }
                                td role="cell" data-label="Kind" { (kind(event)) }
                                td role="cell" data-label="Reason" { (event.reason) }
                                td role="cell" data-label="What" { (event.note) }
                            }
                        }
                    }
                }
                @if told.len() > TOLD { p.sub { "The newest " (TOLD) " of " (told.len()) "." } }
            }
        }
    }
}

fn kind(event: &Told) -> Markup {
    match (event.action.as_str(), event.warning) {
        ("hold", _) => words::badge(Tone::Wait, "hold"),
        (action, true) => words::badge(Tone::Bad, action),
        (action, false) => words::badge(Tone::Good, action),
    }
}

/// What its ledger has recorded, the newest first.
pub(super) fn history(set: &Set) -> Markup {
    let records = set.kept().map(|kept| kept.records.as_slice()).unwrap_or_default();
    html! {
        section aria-labelledby="history-h" {
            h2 #history-h { "History" }
            @if records.is_empty() { p.empty { "Nothing is recorded of this set." } } @else {
                table.stacks role="table" aria-labelledby="history-h" {
                    (headings(&["Time", "Pod", "Reason", "Hook", "Attempt", "Verdict", "Message"]))
                    tbody role="rowgroup" { @for record in records.iter().rev() { (record_row(record)) } }
                }
            }
        }
    }
}

fn record_row(record: &Record) -> Markup {
    html! {
        tr role="row" {
            td.time role="cell" data-label="Time" { (words::time(record.at)) }
            td role="cell" data-label="Pod" { (record.pod) }
            td role="cell" data-label="Reason" { (record.reason) }
            td role="cell" data-label="Hook" { (record.hook) }
            td.num role="cell" data-label="Attempt" { @if let Some(attempt) = record.attempt { (attempt) } @else { "-" } }
            td role="cell" data-label="Verdict" { (words::badge(words::verdict(record.verdict), record.verdict.as_str())) }
            td.message role="cell" data-label="Message" { (record.message) }
        }
    }
}

fn headings(headings: &[&str]) -> Markup {
    html! { thead role="rowgroup" { tr role="row" { @for heading in headings { th scope="col" role="columnheader" { (heading) } } } } }
}

fn or_dash(text: Option<&str>) -> &str {
    text.unwrap_or("-")
}

/// Of `redis-6d5f7c`, what is different from one revision to the next.
fn last_part(revision: &str) -> &str {
    revision.rsplit('-').next().unwrap_or(revision)
}
