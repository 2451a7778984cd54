//! What is served, in pieces: no page is ever whole in memory.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use super::agenda::{Question, Work};
use crate::metric::{self, Expected, Text, UP};
use crate::protocol::{COLLECT_PATH, Collected, Family, METRICS_PATH, Working};
use crate::runner::home::Pod;
use crate::runner::run::line;

/// A page on its way.
pub(super) struct Page {
    kind: Kind,
    /// The agenda that it is of.
    taken: u64,
    /// The piece that comes next.
    next: usize,
}

#[derive(Clone, Copy)]
enum Kind {
    Collect,
    Metrics,
}

/// What comes next of a page.
pub(super) enum Piece {
    Bytes(Vec<u8>),
    End,
    /// There is no such page any more: another agenda was taken.
    Gone,
}

impl Page {
    pub(super) fn at(path: &str, work: &Work) -> Option<Self> {
        let kind = match path {
            COLLECT_PATH => Kind::Collect,
            METRICS_PATH => Kind::Metrics,
            _ => return None,
        };
        Some(Self { kind, taken: work.taken, next: 0 })
    }

    pub(super) const fn content_type(&self) -> &'static str {
        match self.kind {
            Kind::Collect => "application/x-ndjson",
            Kind::Metrics => "text/plain; version=0.0.4; charset=utf-8",
        }
    }

    /// The next piece, which is never empty.
    pub(super) fn next(&mut self, work: &Work, pod: Option<&Pod>, now: u64) -> Piece {
        if self.taken != work.taken {
            return Piece::Gone;
        }
        loop {
            let at = self.next;
            self.next += 1;
            let piece = match (self.kind, at.checked_sub(1).map(|n| work.questions().get(n))) {
                (Kind::Collect, None) => {
                    let pod_uid = pod.map(|pod| pod.uid.clone()).unwrap_or_default();
                    line(&Collected::Agent(Working { pod_uid, revision: work.revision.clone() }))
                }
                (Kind::Collect, Some(Some(question))) => told(question, now),
                (Kind::Metrics, None) => whether_measured(work, pod, now).into_bytes(),
                (Kind::Metrics, Some(Some(question))) => question.text(now).unwrap_or_default().to_vec(),
                (_, Some(None)) => return Piece::End,
            };
            if !piece.is_empty() {
                return Piece::Bytes(piece);
            }
        }
    }
}

fn told(question: &Question, now: u64) -> Vec<u8> {
    match question.last(now) {
        // An object, which has members already.
        Some((json, age)) => {
            let mut line = json.strip_suffix(b"}").unwrap_or(json).to_vec();
            line.extend_from_slice(format!(",\"ageMs\":{age}}}\n").as_bytes());
            line
        }
        None => line(&Collected::Waits { name: question.asked().probe.name.clone(), age_ms: question.waits_for(now) }),
    }
}

/// What a command printed, as the controller serves it; none where that cannot be read.
pub(super) fn family(family: &Family, output: &str, pod: &Pod) -> Option<String> {
    let Family { name, kind, help, labels } = family;
    let reading = metric::parse(Expected { name, kind: *kind, labels }, output).ok()?;
    let mut text = Text::default();
    for (values, value) in &reading.series {
        let own = labels.iter().map(String::as_str).zip(values.iter().map(String::as_str));
        text.add((name, *kind, help), of_pod(pod).into_iter().chain(own), value);
    }
    Some(text.finish())
}

fn whether_measured(work: &Work, pod: Option<&Pod>, now: u64) -> String {
    let mut text = Text::default();
    for question in work.questions() {
        if let (Some(family), Some(_), Some(pod)) = (&question.asked().metric, question.last(now), pod) {
            let labels = of_pod(pod).into_iter().chain([("metric", family.name.as_str())]);
            text.add(UP, labels, u8::from(question.is_up(now)));
        }
    }
    text.finish()
}

fn of_pod(pod: &Pod) -> [(&str, &str); 3] {
    [("namespace", &pod.namespace), ("set", &pod.set), ("pod", &pod.name)]
}
