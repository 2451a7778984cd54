//! Usage and metrics of the application as small plots: one family in a card, a line for each pod.

use jiff::Timestamp;
use maud::{Markup, html};

use crate::dashboard::samples::Plot;

/// Lines of one card.
const LINES: usize = 16;
/// Size of the drawing, in its own units: it is stretched to its place.
const WIDTH: f64 = 160.0;
const HEIGHT: f64 = 26.0;

/// The part of the page.
pub(super) fn section(plots: &[Plot]) -> Markup {
    html! {
        section aria-labelledby="plots-h" {
            h2 #plots-h { "Usage and metrics" }
            @if plots.is_empty() {
                p.empty { "The controller shows no metric of this set." }
            } @else {
                div.cards { @for plot in plots { (card(plot)) } }
            }
        }
    }
}

fn card(plot: &Plot) -> Markup {
    let rate = plot.family.kind == "counter";
    html! {
        div.card {
            h3 { (plot.name) @if rate { span.unit { " a second" } } }
            @if !plot.family.help.is_empty() { p.sub { (plot.family.help) } }
            @for (name, points) in plot.lines.iter().take(LINES) { (line(&plot.name, name, points)) }
            @if plot.lines.len() > LINES { p.sub { "and " (plot.lines.len() - LINES) " more" } }
        }
    }
}

fn line(family: &str, name: &str, points: &[(Timestamp, f64)]) -> Markup {
    let name = if name.is_empty() { "the set" } else { name };
    let values = || points.iter().map(|(_, value)| *value);
    let (least, most) = (values().fold(f64::INFINITY, f64::min), values().fold(f64::NEG_INFINITY, f64::max));
    let Some((_, latest)) = points.last() else {
        return html! { div.plot { span.plot-name { (name) } span {} span.num.muted { "-" } } };
    };
    let label = format!(
        "{family} of {name}: {} now, from {} to {} in {} samples",
        number(*latest),
        number(least),
        number(most),
        points.len()
    );
    html! {
        div.plot {
            span.plot-name title=(name) { (name) }
            svg viewBox={ "0 0 " (WIDTH) " " (HEIGHT) } preserveAspectRatio="none" role="img" aria-label=(label) {
                title { (number(least)) " to " (number(most)) }
                polyline points=(drawn(points, least, most)) {}
            }
            span.num { (number(*latest)) }
        }
    }
}

/// From the first sample to the last over the whole width; what never changes is a line in the middle.
fn drawn(points: &[(Timestamp, f64)], least: f64, most: f64) -> String {
    let (Some((first, _)), Some((last, _))) = (points.first(), points.last()) else { return String::new() };
    let whole = last.duration_since(*first).as_secs_f64();
    let place = |(at, value): &(Timestamp, f64)| {
        let x = if whole > 0.0 { at.duration_since(*first).as_secs_f64() / whole * WIDTH } else { 0.0 };
        let part = if most > least { (value - least) / (most - least) } else { 0.5 };
        format!("{x:.1},{:.1}", HEIGHT - 2.0 - part * (HEIGHT - 4.0))
    };
    let mut drawn: Vec<String> = points.iter().map(place).collect();
    if points.len() == 1 {
        drawn.push(format!("{WIDTH:.1},{:.1}", HEIGHT / 2.0));
    }
    drawn.join(" ")
}

/// Three digits that count, with a prefix of a thousand where it is long.
pub(super) fn number(value: f64) -> String {
    let (scaled, prefix) = match value.abs() {
        size if size >= 1e12 => (value / 1e12, "T"),
        size if size >= 1e9 => (value / 1e9, "G"),
        size if size >= 1e6 => (value / 1e6, "M"),
        size if size >= 1e4 => (value / 1e3, "k"),
        _ => (value, ""),
    };
    let digits = match scaled.abs() {
        size if size >= 100.0 || scaled.fract() == 0.0 => 0,
        size if size >= 10.0 => 1,
        size if size >= 0.1 => 2,
        _ => 4,
    };
    format!("{scaled:.digits$}{prefix}")
}
