//! The start page: every set in a row.

use std::collections::BTreeMap;

use guardian_core::ledger::Episode;
use maud::{Markup, html};

use super::words::{self, Tone};
use crate::dashboard::view::{Scope, View};
use crate::known::Set;

/// Sets in the table. A row has about 1.5 kB, and the table is sent as a whole when something of it changes: 750 kB to each viewer.
const ROWS: usize = 500;
/// Chips of pods in one row.
const CHIPS: usize = 9;
/// What goes on, in one row.
const EPISODES: usize = 3;

/// How many sets there are, and how they are.
pub(super) fn summary(view: &View) -> Markup {
    let mut states: BTreeMap<String, usize> = BTreeMap::new();
    view.sets.iter().for_each(|set| *states.entry(set.state()).or_default() += 1);
    let count = |is: fn(&Set) -> bool| view.sets.iter().filter(|set| is(set)).count();
    let rest = [
        ("not fully ready", count(|set| set.ready < set.replicas)),
        ("with something going on", count(|set| set.kept().is_some_and(|kept| !kept.state.episodes.is_empty()))),
        ("on hold", count(|set| set.hold().is_some())),
    ];
    html! {
        @if view.settled {
            ul.summary aria-label="Summary" {
                li { b.num { (view.sets.len()) } @if view.sets.len() == 1 { " set" } @else { " sets" } }
                @for (state, n) in &states { li { b.num { (n) } " " (state) } }
                @for (words, n) in rest.iter().filter(|(_, n)| *n > 0) { li { b.num { (n) } " " (words) } }
            }
        }
    }
}

/// The table.
pub(super) fn sets(view: &View, base: &str) -> Markup {
    let all = view.scope == Scope::Enabled;
    html! {
        @if view.sets.is_empty() {
            p.empty { @if view.settled { "There is no StatefulSet here." } @else { "Being read." } }
        } @else {
            table.stacks role="table" aria-label="StatefulSets" {
                thead role="rowgroup" {
                    tr role="row" {
                        @for heading in ["Set", "State", "Ready", "Pods", "Policy", "Last failure", "Going on"] {
                            th scope="col" role="columnheader" { (heading) }
                        }
                    }
                }
                tbody role="rowgroup" { @for set in view.sets.iter().take(ROWS) { (row(set, all, base)) } }
            }
            @if view.sets.len() > ROWS {
                p.sub { "and " (view.sets.len() - ROWS) " more, which are not shown: name a namespace with -n" }
            }
        }
    }
}

fn row(set: &Set, all: bool, base: &str) -> Markup {
    let address = format!("{base}sets/{}/{}", set.place.name, set.name);
    html! {
        tr role="row" {
            th scope="row" role="rowheader" {
                @if all { span.muted { (set.place.name) "/" } }
                a href=(address) { (set.name) }
            }
            td role="cell" data-label="State" { (state(set)) }
            td role="cell" data-label="Ready" { (words::ready(set)) }
            td role="cell" data-label="Pods" { (chips(set)) }
            td role="cell" data-label="Policy" { (policy(set)) }
            td role="cell" data-label="Last failure" { (last_failure(set)) }
            td role="cell" data-label="Going on" { (going_on(set)) }
        }
    }
}

/// The state, and whatever stands in the way.
fn state(set: &Set) -> Markup {
    html! {
        div.badges {
            (words::state(set))
            @if let Some(reason) = set.hold() { span.badge.wait title=(reason) { (words::mark(Tone::Wait)) "on hold" } }
        }
    }
}

fn chips(set: &Set) -> Markup {
    html! {
        @if set.pods.is_empty() { span.muted { "-" } } @else {
            span.chips {
                @for pod in set.pods.iter().take(CHIPS) { (words::chip(pod)) }
                @if set.pods.len() > CHIPS { span.muted { "and " (set.pods.len() - CHIPS) " more" } }
            }
        }
    }
}

/// Its name and revision; two where another is written than is in force.
pub(super) fn policy(set: &Set) -> Markup {
    html! {
        @match set.policy() {
            None => span.muted { "-" },
            Some(name) => {
                span { (name) }
                span.revisions {
                    @match (set.written(), set.in_force()) {
                        (Some(written), Some(force)) if written != force => {
                            (words::revision(written)) span aria-label="waits for" { " \u{2192} " } (words::revision(force))
                        }
                        (Some(one), _) | (None, Some(one)) => (words::revision(one)),
                        (None, None) => {}
                    }
                }
            }
        }
    }
}

fn last_failure(set: &Set) -> Markup {
    html! {
        @match set.last_failure() {
            None => span.muted { "-" },
            Some(last) => {
                div.what { (last.pod) " " b { (last.reason) } }
                div.sub { (words::age(last.at)) ", " (last.hook) " " (last.verdict.as_str()) }
            }
        }
    }
}

fn going_on(set: &Set) -> Markup {
    let open: Vec<&Episode> = set.kept().map(|kept| kept.state.episodes.values().collect()).unwrap_or_default();
    html! {
        @if open.is_empty() { span.muted { "-" } }
        @for episode in open.iter().take(EPISODES) {
            div.what { @if !episode.pod.is_empty() { (episode.pod) " " } b { (episode.hook) } }
            div.sub {
                (episode.reason) ", "
                @match episode.next {
                    Some(next) => { "attempt " (episode.attempts + 1) ", " (words::age(next)) }
                    None => { "attempt " (episode.attempts) }
                }
            }
        }
        @if open.len() > EPISODES { div.muted { "and " (open.len() - EPISODES) " more" } }
    }
}
