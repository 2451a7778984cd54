//! The smallest parts: times, marks and badges. A mark has a shape of its own, so that no colour is needed to tell it.

use guardian_core::ledger::Verdict;
use jiff::Timestamp;
use maud::{Markup, html};

use crate::known::{Pod, Set};

/// How something is meant, what matters least first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Tone {
    /// Nothing to say.
    Idle,
    /// As it should be.
    Good,
    /// Something waits, or goes on.
    Wait,
    /// Something failed.
    Bad,
}

impl Tone {
    pub(super) const fn class(self) -> &'static str {
        match self {
            Self::Good => "good",
            Self::Wait => "wait",
            Self::Bad => "bad",
            Self::Idle => "idle",
        }
    }
}

/// A tick, a clock, a cross, a dash.
pub(super) fn mark(tone: Tone) -> Markup {
    let path = match tone {
        Tone::Good => "M3.2 6.3 5.2 8.3 8.9 3.9",
        Tone::Wait => "M6 3.2V6.2L8 7.4",
        Tone::Bad => "M4 4 8 8M8 4 4 8",
        Tone::Idle => "M3.6 6H8.4",
    };
    html! {
        svg class={ "mark " (tone.class()) } viewBox="0 0 12 12" width="12" height="12" aria-hidden="true" focusable="false" {
            @if tone != Tone::Good { circle cx="6" cy="6" r="5.2" {} } @else { circle.full cx="6" cy="6" r="6" {} }
            path d=(path) {}
        }
    }
}

/// A mark and its word.
pub(super) fn badge(tone: Tone, word: &str) -> Markup {
    html! { span class={ "badge " (tone.class()) } { (mark(tone)) (word) } }
}

/// The state of a set.
pub(super) fn state(set: &Set) -> Markup {
    let word = set.state();
    let tone = match word.as_str() {
        "Guarded" => Tone::Good,
        "Pending" | "Unguarded" | "AwaitsApproval" | "Leaving" => Tone::Wait,
        "NotApplicable" | "Unreadable" => Tone::Bad,
        _ => Tone::Idle,
    };
    badge(tone, &word)
}

/// What came of something.
pub(super) const fn verdict(verdict: Verdict) -> Tone {
    match verdict {
        Verdict::Succeeded => Tone::Good,
        Verdict::Retrying => Tone::Wait,
        Verdict::Failed => Tone::Bad,
        Verdict::Superseded | Verdict::Skipped | Verdict::Noted => Tone::Idle,
    }
}

/// Ready pods of all. Less than all is marked.
pub(super) fn ready(set: &Set) -> Markup {
    let tone = if set.ready >= set.replicas { "num" } else { "num lacking" };
    html! { span class=(tone) { (set.ready) "/" (set.replicas) } @if set.ready < set.replicas { span.hidden { " not all are ready" } } }
}

/// A pod as a small chip: its number and its role.
pub(super) fn chip(pod: &Pod) -> Markup {
    let word = match (pod.stopping, pod.ready) {
        (true, _) => "stopping",
        (_, true) => "ready",
        _ => "not ready",
    };
    let class = if pod.ready && !pod.stopping { "chip" } else { "chip lacking" };
    html! {
        span class=(class) title={ (pod.name) ": " (word) } {
            svg.dot viewBox="0 0 8 8" width="8" height="8" aria-hidden="true" focusable="false" {
                @if pod.stopping { path d="M1 4H7" {} } @else if pod.ready { circle.full cx="4" cy="4" r="3.5" {} }
                @else { circle cx="4" cy="4" r="3" {} }
            }
            (pod.ordinal())
            @if let Some(role) = &pod.role { " " b { (role) } }
            span.hidden { " " (word) }
        }
    }
}

/// A revision, short; the whole of it on demand.
pub(super) fn revision(revision: &str) -> Markup {
    let short: String = revision.chars().take(8).collect();
    html! { code.revision title=(revision) { (short) } }
}

/// A time that a script may tell as an age.
pub(super) fn age(at: Timestamp) -> Markup {
    html! { time.age datetime=(stamp(at)) { (text(at)) } }
}

/// A time as it is.
pub(super) fn time(at: Timestamp) -> Markup {
    html! { time datetime=(stamp(at)) { (text(at)) } }
}

pub(super) fn text(at: Timestamp) -> String {
    at.strftime("%Y-%m-%d %H:%M:%S").to_string()
}

fn stamp(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}
