//! The audit trail: one JSON line a decision, on standard output.
//!
//! Admission never waits for a slow pipe: lines go through a bounded buffer to one writer thread; what does not fit is dropped, counted,
//! and told in the next line that does. A line never holds an environment value, a Secret, or the text of a script: only names.

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;

use guardian_core::admission::{Decision, Reason, Review, Verb, Verdict};
use jiff::Timestamp;
use prometheus::{IntCounter, Registry};
use serde::Serialize;

/// Lines that may wait for the writer: at 1 KiB a line, 4 MiB of memory; a second's worth at 4,000 decisions a second.
const BUFFER: usize = 4096;

/// One decision. The field names are part of the product's contract; they are only added to.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Line<'a> {
    /// Always `audit`: tells these lines from the log's others.
    pub log: &'static str,
    /// When it was decided.
    pub time: Timestamp,
    /// Identity of the request, given by the API server.
    pub uid: &'a str,
    /// Who asked.
    pub user: &'a str,
    /// What was asked.
    pub operation: Verb,
    /// `group/version/Kind`.
    pub kind: &'a str,
    /// Of the kind, where one was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subresource: Option<&'a str>,
    /// Of the object.
    pub namespace: &'a str,
    /// Of the object.
    pub name: &'a str,
    /// Nothing was stored.
    pub dry_run: bool,
    /// `allowed`, `patched` or `denied`.
    pub decision: &'static str,
    /// Why, in one word of a closed list.
    pub reason: Reason,
    /// The policy that took part.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub policy: Option<&'a str>,
    /// Its revision.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub revision: Option<&'a str>,
    /// Names of what was changed.
    pub changes: &'a [&'static str],
    /// What the user was told.
    pub warnings: &'a [String],
    /// What a denied user was told.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<&'a str>,
    /// From the body's last byte to the decision, in microseconds.
    pub latency_micros: u64,
    /// Lines lost since the last one that was written.
    #[serde(skip_serializing_if = "is_zero")]
    pub dropped: u64,
}

fn is_zero(n: &u64) -> bool {
    *n == 0
}

/// Where decisions are written down.
#[derive(Clone, Debug)]
pub struct Audit {
    lines: SyncSender<Vec<u8>>,
    dropped: Arc<AtomicU64>,
    dropped_total: IntCounter,
}

impl Audit {
    /// Starts the writer thread; it ends when the last clone of this is gone.
    ///
    /// # Errors
    /// When `registry` has a metric of this name already.
    pub fn start(out: impl Write + Send + 'static, registry: &Registry) -> Result<Self, prometheus::Error> {
        let dropped_total =
            IntCounter::new("guardian_audit_lines_dropped_total", "Audit lines that did not fit into the buffer")?;
        registry.register(Box::new(dropped_total.clone()))?;
        let (lines, receiver) = sync_channel(BUFFER);
        std::thread::spawn(move || write(out, &receiver));
        Ok(Self { lines, dropped: Arc::default(), dropped_total })
    }

    /// Writes down what was decided about a request.
    pub fn record(&self, review: &Review<'_>, verdict: &Verdict, now: Timestamp, took: Duration) {
        let dropped = self.dropped.swap(0, Ordering::Relaxed);
        let line = Line {
            log: "audit",
            time: now,
            uid: &review.uid,
            user: &review.user,
            operation: review.verb,
            kind: &review.kind,
            subresource: review.subresource.as_deref(),
            namespace: &review.namespace,
            name: &review.name,
            dry_run: review.dry_run,
            decision: decision(&verdict.decision),
            reason: verdict.reason,
            policy: verdict.policy.as_ref().map(|(name, _)| name.as_str()),
            revision: verdict.policy.as_ref().map(|(_, revision)| revision.as_str()),
            changes: &verdict.changes,
            warnings: &verdict.warnings,
            message: match &verdict.decision {
                Decision::Denied { message, .. } => Some(message),
                Decision::Allowed | Decision::Patched => None,
            },
            latency_micros: u64::try_from(took.as_micros()).unwrap_or(u64::MAX),
            dropped,
        };
        let mut bytes = serde_json::to_vec(&line).unwrap_or_default(); // strings and numbers: serialising them cannot fail
        bytes.push(b'\n');
        if self.lines.try_send(bytes).is_err() {
            self.dropped.fetch_add(dropped + 1, Ordering::Relaxed);
            self.dropped_total.inc();
        }
    }
}

/// The word for a decision.
#[must_use]
pub fn decision(decision: &Decision) -> &'static str {
    match decision {
        Decision::Allowed => "allowed",
        Decision::Patched => "patched",
        Decision::Denied { .. } => "denied",
    }
}

/// A pipe that is gone takes the trail with it, not the service.
fn write(mut out: impl Write, lines: &Receiver<Vec<u8>>) {
    for line in lines {
        if out.write_all(&line).and_then(|()| out.flush()).is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::mpsc;

    use super::*;

    /// A pipe that takes a line only when the test says so.
    struct Gate {
        open: Receiver<()>,
        lines: mpsc::Sender<serde_json::Value>,
    }

    impl Write for Gate {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.open.recv().map_err(io::Error::other)?;
            self.lines.send(serde_json::from_slice(bytes)?).map_err(io::Error::other)?;
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    const REVIEW: &str = r#"{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","request":{"uid":"u","kind":{"group":"","version":"v1",
        "kind":"ConfigMap"},"operation":"CREATE","namespace":"n","name":"evil\n{\"log\":\"audit\"}","userInfo":{"username":"a\u001b[31m"}}}"#;

    #[test]
    fn a_blocked_pipe_never_delays_a_decision_and_the_loss_is_told() {
        let (open, gate) = mpsc::channel();
        let (sender, lines) = mpsc::channel();
        let registry = Registry::new();
        let audit = Audit::start(Gate { open: gate, lines: sender }, &registry).expect("a new registry");
        let review = Review::parse(REVIEW).expect("a review");
        let verdict = Verdict::untouched(Reason::NotAPolicy);
        // One line is with the writer, at most BUFFER wait; a hundred more cannot fit.
        for _ in 0..BUFFER + 101 {
            audit.record(&review, &verdict, Timestamp::UNIX_EPOCH, Duration::ZERO);
        }
        let lost = audit.dropped_total.get();
        assert!((100..=101).contains(&lost), "{lost}");
        for _ in 0..BUFFER + 101 {
            let _ = open.send(());
        }
        for _ in 0..BUFFER {
            lines.recv().expect("the lines that fitted");
        }
        audit.record(&review, &verdict, Timestamp::UNIX_EPOCH, Duration::ZERO);
        drop((audit, open));
        let last = lines.iter().last().expect("one more line");
        assert_eq!(last["dropped"], lost);
    }

    #[test]
    fn one_decision_is_one_line_whatever_the_names_hold() {
        let (open, gate) = mpsc::channel();
        let (sender, lines) = mpsc::channel();
        let audit = Audit::start(Gate { open: gate, lines: sender }, &Registry::new()).expect("a new registry");
        let review = Review::parse(REVIEW).expect("a review");
        audit.record(&review, &Verdict::untouched(Reason::NotAPolicy), Timestamp::UNIX_EPOCH, Duration::from_micros(7));
        open.send(()).expect("the writer waits");
        let line = lines.recv().expect("a line");
        assert_eq!(line["name"], "evil\n{\"log\":\"audit\"}");
        assert_eq!(line["latencyMicros"], 7);
        assert!(!line.to_string().contains('\u{1b}'), "control characters are escaped");
    }
}
