//! What happened when, as a drawing: a lane for each pod, a mark for each record, a bar for what is open. The table of the history is the same
//! in words.

use std::collections::BTreeSet;

use guardian_core::ledger::{Episode, Record, Verdict};
use jiff::{SignedDuration, Timestamp};
use maud::{Markup, html};

use super::words;
use crate::known::{Kept, Set};

/// Spans that are drawn, in words and minutes.
const SPANS: [(&str, i64); 6] =
    [("hour", 60), ("6 hours", 360), ("24 hours", 1_440), ("7 days", 10_080), ("30 days", 43_200), ("year", 525_600)];
/// The shortest span that holds so many of the newest records is drawn.
const NEWEST: usize = 20;
/// Lanes that are drawn.
const LANES: usize = 24;
/// The end of the drawing moves by so much at a time: what has not changed is not drawn again every second.
const STEP: i64 = 60;

/// The part of the page.
pub(super) fn section(set: &Set, now: Timestamp) -> Markup {
    let Some(kept) = set.kept().filter(|kept| !(kept.records.is_empty() && kept.state.episodes.is_empty())) else {
        return html! {};
    };
    let span = Span::of(kept, now);
    let shown: Vec<&Record> = kept.records.iter().filter(|record| span.position(record.at).is_some()).collect();
    let pods: BTreeSet<(usize, &str)> = shown
        .iter()
        .map(|record| record.pod.as_str())
        .chain(kept.state.episodes.values().map(|episode| episode.pod.as_str()))
        .map(|pod| (pod.len(), pod))
        .collect();
    html! {
        section aria-labelledby="timeline-h" {
            h2 #timeline-h { "Time line" }
            p.sub { "The last " (span.words) ": " (shown.len()) " of " (kept.records.len()) " records." }
            div.timeline {
                @for (_, pod) in pods.iter().take(LANES) { (lane(pod, &shown, kept, &span)) }
                @if pods.len() > LANES { p.sub { "and " (pods.len() - LANES) " more pods, in the history" } }
                (axis(&span))
            }
            (legend())
        }
    }
}

/// What is drawn, from one time to another.
struct Span {
    words: &'static str,
    from: Timestamp,
    to: Timestamp,
}

impl Span {
    fn of(kept: &Kept, now: Timestamp) -> Self {
        let to = Timestamp::from_second((now.as_second() / STEP + 1) * STEP).unwrap_or(now);
        let oldest = kept.records.iter().rev().take(NEWEST).map(|record| record.at).min().unwrap_or(to);
        let (words, minutes) = SPANS
            .into_iter()
            .find(|(_, minutes)| to.duration_since(oldest) <= SignedDuration::from_mins(*minutes))
            .unwrap_or(("year", 525_600));
        Self { words, from: to.saturating_sub(SignedDuration::from_mins(minutes)).unwrap_or(Timestamp::MIN), to }
    }

    /// Where a time is, in percent of the width; `None`: not in the drawing.
    fn position(&self, at: Timestamp) -> Option<f64> {
        let whole = self.to.duration_since(self.from).as_secs_f64();
        let part = at.duration_since(self.from).as_secs_f64() / whole * 100.0;
        (0.0..=100.0).contains(&part).then_some(part)
    }
}

fn lane(pod: &str, shown: &[&Record], kept: &Kept, span: &Span) -> Markup {
    let mut records: Vec<&&Record> = shown.iter().filter(|record| record.pod == pod).collect();
    // What matters more is drawn over what matters less.
    records.sort_by_key(|record| words::verdict(record.verdict));
    let open: Vec<&Episode> = kept.state.episodes.values().filter(|episode| episode.pod == pod).collect();
    let name = if pod.is_empty() { "the set" } else { pod };
    let failed = records.iter().filter(|record| record.verdict == Verdict::Failed).count();
    let label = format!("{name}: {} records, {failed} of them failed, {} open", records.len(), open.len());
    html! {
        div.lane {
            span.lane-name { (name) }
            svg width="100%" height="22" role="img" aria-label=(label) {
                line.base x1="0" y1="11" x2="100%" y2="11" {}
                @for episode in &open { (bar(episode, span)) }
                @for record in &records { @if let Some(x) = span.position(record.at) { (point(record, x)) } }
            }
        }
    }
}

/// What is open reaches from its beginning to the edge.
fn bar(episode: &Episode, span: &Span) -> Markup {
    let from = span.position(episode.opened).unwrap_or(0.0);
    let width = format!("{:.2}%", (100.0 - from).max(0.6));
    html! {
        rect.open x=(percent(from)) y="7" width=(width) height="8" rx="4" {
            title { "open: " (episode.hook) " (" (episode.reason) ") since " (words::text(episode.opened)) }
        }
    }
}

fn point(record: &Record, x: f64) -> Markup {
    html! {
        svg x=(percent(x)) y="11" overflow="visible" class={ "point " (words::verdict(record.verdict).class()) } {
            title { (words::text(record.at)) " " (record.reason) ", " (record.hook) " " (record.verdict.as_str()) }
            (shape(record.verdict))
        }
    }
}

/// Every verdict has a shape of its own.
fn shape(verdict: Verdict) -> Markup {
    html! {
        @match verdict {
            Verdict::Succeeded => circle cx="0" cy="0" r="4.5" {},
            Verdict::Failed => path.line d="M-4-4 4 4M4-4-4 4" {},
            Verdict::Retrying => path d="M0-5.5 5 4H-5Z" {},
            Verdict::Superseded | Verdict::Skipped => path d="M0-5 5 0 0 5-5 0Z" {},
            Verdict::Noted => circle cx="0" cy="0" r="2" {},
        }
    }
}

fn axis(span: &Span) -> Markup {
    let whole = span.to.duration_since(span.from);
    let pattern = if whole <= SignedDuration::from_hours(24) { "%H:%M" } else { "%d %b" };
    html! {
        div.lane.axis aria-hidden="true" {
            span.lane-name {}
            svg width="100%" height="16" {
                @for quarter in 0..=4_i32 {
                    @let at = span.from + whole / 4 * quarter;
                    @let anchor = match quarter { 0 => "start", 4 => "end", _ => "middle" };
                    text x=(percent(f64::from(quarter) * 25.0)) y="12" text-anchor=(anchor) { (at.strftime(pattern)) }
                }
            }
        }
    }
}

fn legend() -> Markup {
    let verdicts = [Verdict::Succeeded, Verdict::Retrying, Verdict::Failed, Verdict::Superseded, Verdict::Noted];
    html! {
        ul.legend aria-label="Legend" {
            @for verdict in verdicts {
                li {
                    svg viewBox="-6 -6 12 12" width="12" height="12" aria-hidden="true" class={ "point " (words::verdict(verdict).class()) } { (shape(verdict)) }
                    (verdict.as_str())
                }
            }
            li { svg viewBox="0 0 18 12" width="18" height="12" aria-hidden="true" { rect.open x="0" y="2" width="18" height="8" rx="4" {} } "Open" }
        }
    }
}

fn percent(position: f64) -> String {
    format!("{position:.2}%")
}
