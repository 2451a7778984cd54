//! The webhook: from the bytes of a review to the bytes of its answer.

use std::sync::Arc;
use std::time::Instant;

use guardian_core::admission::{self, Reason, Review, Settings, Snapshot, Verdict};
use guardian_core::policy::Approval;
use hyper::StatusCode;
use hyper::body::Bytes;
use jiff::Timestamp;
use prometheus::{HistogramOpts, HistogramVec, IntCounterVec, Opts, Registry};
use tokio::sync::Mutex;

use crate::audit::{self, Audit};
use crate::server::{Answer, Handler};
use crate::store::Store;

/// Path of the mutating webhook.
const MUTATE: &str = "/mutate";
/// Path of the validating webhooks. An API server refuses a patch from there.
const VALIDATE: &str = "/validate";

/// Reviews of more bytes are judged one at a time: their templates are trees meanwhile, each with a copy, of 64 MiB at most.
const LARGE: usize = 64 << 10;

/// Answers reviews.
pub struct Webhook {
    store: Arc<Store>,
    settings: Settings,
    /// Held while a [`LARGE`] review is judged.
    large: Mutex<()>,
    audit: Audit,
    clock: Box<dyn Fn() -> Timestamp + Send + Sync>,
    requests: IntCounterVec,
    seconds: HistogramVec,
}

impl Webhook {
    /// A webhook over `store`. What `clock` says is written down, in the audit trail, with approvals and hand-overs, and ends a hand-over that
    /// takes too long.
    ///
    /// # Errors
    /// When `registry` has metrics of these names already.
    pub fn new(
        store: Arc<Store>,
        settings: Settings,
        audit: Audit,
        clock: impl Fn() -> Timestamp + Send + Sync + 'static,
        registry: &Registry,
    ) -> Result<Self, prometheus::Error> {
        let requests = IntCounterVec::new(
            Opts::new("guardian_admission_requests_total", "Admission requests by decision and reason"),
            &["decision", "reason"],
        )?;
        // From a tenth of a millisecond, which is a full rewrite, to the second that the API server will wait.
        let buckets = vec![0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0];
        let seconds = HistogramVec::new(
            HistogramOpts::new("guardian_admission_seconds", "Time from a review's last byte to its decision").buckets(buckets),
            &["decision"],
        )?;
        registry.register(Box::new(requests.clone()))?;
        registry.register(Box::new(seconds.clone()))?;
        Ok(Self { store, settings, large: Mutex::new(()), audit, clock: Box::new(clock), requests, seconds })
    }

    async fn decide(&self, path: &str, review: &Review<'_>, large: bool, now: Timestamp) -> Verdict {
        let mut snapshot = self.store.snapshot();
        let mut verdict = self.judge(path, review, &snapshot, large, now).await;
        let mut asked = Vec::new();
        while let Some(question) = verdict.question.take().filter(|question| !asked.contains(question)) {
            let Some(better) = self.store.ask(&question, review, &snapshot).await else { break };
            snapshot = Arc::new(better);
            verdict = self.judge(path, review, &snapshot, large, now).await;
            asked.push(question);
        }
        verdict
    }

    async fn judge(&self, path: &str, review: &Review<'_>, snapshot: &Snapshot, large: bool, now: Timestamp) -> Verdict {
        let _turn = if large { Some(self.large.lock().await) } else { None };
        match path {
            VALIDATE => admission::validate(review, snapshot, now),
            _ => admission::judge(review, snapshot, &self.settings),
        }
    }

    /// What is approved is written down first: should it then not be stored, nothing is harmed.
    async fn approve(&self, verdict: Verdict, approval: &Approval, now: Timestamp) -> Verdict {
        let Err(error) = self.store.record(approval, now).await else { return verdict };
        let message = format!("the approval of policy {} could not be recorded, so it is not stored: {error}", approval.policy);
        let denied = Verdict::deny(Reason::NotRecorded, 503, message);
        Verdict { policy: verdict.policy, ..denied }
    }

    /// Writes down what a verdict rests on, before it is given.
    async fn keep(&self, review: &Review<'_>, mut verdict: Verdict, now: Timestamp) -> Verdict {
        if let Some(approval) = verdict.approval.take() {
            return self.approve(verdict, &approval, now).await;
        }
        let Some(hand_over) = verdict.hand_over.take().filter(|_| !review.dry_run) else { return verdict };
        match self.store.begin(&hand_over, now).await {
            Some(true) => verdict.changes.push("hand-over"),
            Some(false) => {}
            None => return admission::unrecorded(verdict),
        }
        verdict
    }

    fn record(&self, review: &Review<'_>, verdict: &Verdict, now: Timestamp, started: Instant) {
        let took = started.elapsed();
        let decision = audit::decision(&verdict.decision);
        self.requests.with_label_values(&[decision, &format!("{:?}", verdict.reason)]).inc();
        self.seconds.with_label_values(&[decision]).observe(took.as_secs_f64());
        self.audit.record(review, verdict, now, took);
    }
}

impl Handler for Webhook {
    fn paths(&self) -> &'static [&'static str] {
        &[MUTATE, VALIDATE]
    }

    async fn handle(&self, path: &str, body: Bytes) -> Answer {
        let started = Instant::now();
        // An empty store would look like a namespace without policies. The API server takes this for our absence, which is what it is.
        if let Err(why) = self.store.ready() {
            return Answer::error(StatusCode::SERVICE_UNAVAILABLE, &why);
        }
        let Ok(body) = std::str::from_utf8(&body) else {
            return Answer::error(StatusCode::BAD_REQUEST, "the body is not UTF-8");
        };
        let review = match Review::parse(body) {
            Ok(review) => review,
            Err(error) => return Answer::error(StatusCode::BAD_REQUEST, &error.to_string()),
        };
        let now = (self.clock)();
        let verdict = self.decide(path, &review, body.len() > LARGE, now).await;
        let verdict = self.keep(&review, verdict, now).await;
        self.record(&review, &verdict, now, started);
        Answer::ok(verdict.to_response(&review.uid))
    }
}
