//! The one place that tells the world: an Event on the pod and on the set, a log line, metrics. The ledger's history has the same record.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use guardian_core::ledger::{Record, Verdict};
use guardian_core::lifecycle::{Held, Observed, RunEnd};
use guardian_core::reason;
use k8s_openapi::api::core::v1::ObjectReference;
use kube::api::ObjectMeta;

use super::SetKey;
use super::brake::Said;
use super::clock::Clock;
use super::events::{Events, Telling, Told, hash, object, told};
use super::metrics::Metrics;
use super::runs::Bounds;

/// Tells.
pub(super) struct Recorder {
    clock: Clock,
    events: Events,
    pub(super) metrics: Metrics,
    /// The holds that were told and still last.
    told: Mutex<BTreeMap<SetKey, BTreeSet<(reason::Hold, String)>>>,
    /// The sets of which it was told that nothing is written into them, and that still stand so.
    unguarded: Mutex<BTreeSet<SetKey>>,
}

/// The word of an Event for a set that a policy guards and into whose template nothing is written, as in `guardian status`.
const UNGUARDED: &str = "Unguarded";

impl Recorder {
    pub(super) fn new(clock: Clock, events: Events, metrics: Metrics) -> Self {
        Self { clock, events, metrics, told: Mutex::default(), unguarded: Mutex::default() }
    }

    /// The Events of records. They come before the ledger is written, under names that follow from the record: whoever dies in between
    /// comes here again, and makes no second one. Where they take long they follow it.
    pub(super) async fn announce(&self, observed: &Observed, records: impl Iterator<Item = &Record>) {
        told(records.flat_map(|record| self.events_of(observed, record)).collect()).await;
    }

    fn events_of(&self, observed: &Observed, record: &Record) -> Vec<Told> {
        if matches!(record.verdict, Verdict::Noted | Verdict::Skipped) {
            return Vec::new();
        }
        let telling = Telling {
            warning: matches!(record.verdict, Verdict::Failed | Verdict::Retrying),
            reason: &record.reason,
            action: &record.hook,
            note: &record.message,
            id: hash(&(&record.pod_uid, &record.run, &record.reason, record.verdict.as_str(), record.attempt)),
        };
        let of_pod = self.events.tell(&observed.namespace, &object("v1", "Pod", &record.pod, &record.pod_uid), &telling);
        if record.verdict == Verdict::Retrying {
            return vec![of_pod];
        }
        let note = format!("{}: {}", record.pod, record.message);
        vec![of_pod, self.events.tell(&observed.namespace, &about(observed), &Telling { note: &note, ..telling })]
    }

    /// The log line and the metrics of a record that is in the ledger.
    pub(super) fn written(&self, set: &SetKey, observed: &Observed, record: &Record) {
        let took = record.run.as_ref().and_then(|run| match observed.ends.get(run)? {
            RunEnd::Outcome(outcome) => Some(Duration::from_millis(outcome.duration_ms)),
            RunEnd::Lost { .. } => None,
        });
        self.metrics.written(set, record, took);
        tracing::info!(
            namespace = set.namespace,
            set = set.name,
            pod = record.pod,
            pod_uid = record.pod_uid,
            hook = record.hook,
            reason = record.reason,
            verdict = record.verdict.as_str(),
            run = record.run,
            attempt = record.attempt,
            message = record.message,
        );
    }

    /// What is due and not done: each is told once, and again when it has ended and comes back.
    pub(super) fn held(&self, set: &SetKey, observed: &Observed, holds: &[Held]) {
        let now: BTreeSet<_> = holds.iter().map(|held| (held.reason, held.why.clone())).collect();
        let fresh: Vec<_> = {
            let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
            let before = if now.is_empty() { told.remove(set) } else { told.insert(set.clone(), now.clone()) };
            now.difference(&before.unwrap_or_default()).cloned().collect()
        };
        let words = |(reason, _): &(reason::Hold, String)| reason.as_str();
        self.metrics.held(set, now.iter().map(words), fresh.iter().map(words));
        // A storm is told once for its namespace.
        for (reason, why) in fresh.into_iter().filter(|(reason, _)| *reason != reason::Hold::Braked) {
            tracing::warn!(namespace = set.namespace, set = set.name, reason = reason.as_str(), why, "held");
            let id = hash(&(&observed.set.uid, reason.as_str(), &why));
            let telling = Telling { warning: true, reason: reason.as_str(), action: "hold", note: &why, id };
            drop(self.events.tell(&observed.namespace, &about(observed), &telling));
        }
    }

    /// Whether a set is guarded; `None`: no policy guards it. Of one into which nothing is written that is told once, until something is: whoever applied it
    /// while the webhook was away got no warning.
    pub(super) fn guards(&self, key: &SetKey, set: &ObjectMeta, guarded: Option<bool>) {
        self.metrics.guards(key, guarded);
        let is_new = {
            let mut unguarded = self.unguarded.lock().unwrap_or_else(PoisonError::into_inner);
            if guarded == Some(false) {
                unguarded.insert(key.clone())
            } else {
                unguarded.remove(key);
                false
            }
        };
        let Some(uid) = set.uid.as_deref().filter(|_| is_new) else { return };
        let SetKey { namespace, name } = key;
        let note = format!(
            "a policy guards it, and nothing is written into its template: it was admitted before the policy, or while the webhook was away, or the policy \
             cannot be applied to it. It is taken up at the next change of its template; `guardian explain -n {namespace} {name}` says with what"
        );
        tracing::warn!(namespace, set = name, "nothing is written into its template, though a policy guards it");
        // Another process tells it no second time, unless the set was changed meanwhile.
        let id = hash(&(uid, UNGUARDED, set.generation));
        let telling = Telling { warning: true, reason: UNGUARDED, action: "guard", note: &note, id };
        drop(self.events.tell(namespace, &object("apps/v1", "StatefulSet", name, uid), &telling));
    }

    /// More hooks are due in a namespace than may run at a time, or that is over: told on the set that was the first to wait, where it is still there.
    pub(super) fn braked(&self, said: &Said, set_uid: Option<&str>, bounds: Bounds) {
        let SetKey { namespace, name } = &said.set;
        let Bounds { global, per_namespace } = bounds;
        let note = match said.lasted {
            None => format!(
                "more hooks are due in namespace {namespace} than run at a time ({per_namespace}, and {global} in all), and wait for each other; others are served"
            ),
            Some(lasted) => {
                format!("hooks in namespace {namespace} wait for each other no longer: they did for {} s", lasted.as_secs())
            }
        };
        let warning = said.lasted.is_none();
        if warning {
            tracing::warn!(namespace, set = name, why = note, "braked");
        } else {
            tracing::info!(namespace, set = name, why = note, "no longer braked");
        }
        let Some(set_uid) = set_uid else { return };
        let action = if warning { "hold" } else { "release" };
        let id = hash(&(set_uid, action, self.clock.now().as_second()));
        let telling = Telling { warning, reason: reason::Hold::Braked.as_str(), action, note: &note, id };
        drop(self.events.tell(namespace, &object("apps/v1", "StatefulSet", name, set_uid), &telling));
    }

    /// Forgets what holds a set that has no pods, or is gone.
    pub(super) fn forget(&self, set: &SetKey) {
        self.metrics.rests(set);
        self.told.lock().unwrap_or_else(PoisonError::into_inner).remove(set);
    }

    /// Forgets a set that is gone.
    pub(super) fn gone(&self, set: &SetKey) {
        self.forget(set);
        self.metrics.forget(set);
        self.unguarded.lock().unwrap_or_else(PoisonError::into_inner).remove(set);
    }
}

fn about(observed: &Observed) -> ObjectReference {
    object("apps/v1", "StatefulSet", &observed.set.name, &observed.set.uid)
}
