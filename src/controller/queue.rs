//! The queue of sets to look at: each at most once, never two passes of one set at a time, and a pause after a failure.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::error::Error;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::{Stream, StreamExt as _, future};
use kube::runtime::controller::{self, Action, applier};
use kube::runtime::reflector::ObjectRef;

use super::metrics::Trouble;
use super::observed::StatefulSet;
use super::{Context, PassError, SetKey, StoreError, reconcile};

/// Pause after the first failure: a conflict is over at once.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
/// The longest pause: an API server that comes back is found within a minute.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// Pause after a failure that lasts until a person acts.
const DENIED_PAUSE: Duration = Duration::from_secs(5 * 60);

/// Looks at every set that `changes` names, and again whenever a pass asks for it.
pub(super) async fn work(changes: impl Stream<Item = SetKey>, context: Arc<Context>) {
    let queue = changes.map(|key| Ok::<_, Infallible>(ObjectRef::<StatefulSet>::new(&key.name).within(&key.namespace)));
    let sets = context.cluster.sets();
    let passes = applier(
        |set, context| Box::pin(reconcile(set, context)),
        pause,
        Arc::clone(&context),
        sets,
        queue,
        controller::Config::default(),
    );
    passes
        .for_each(|passed| {
            if let Err(controller::Error::ObjectNotFound(set)) = passed {
                let key = SetKey { namespace: set.namespace.clone().unwrap_or_default(), name: set.name.clone() };
                context.forget(&key);
            }
            future::ready(())
        })
        .await;
}

/// How often in a row the passes of a set failed.
#[derive(Default)]
pub(super) struct Failures(Mutex<BTreeMap<SetKey, u32>>);

impl Failures {
    pub(super) fn forget(&self, set: &SetKey) {
        self.counts().remove(set);
    }

    /// Counts one more.
    fn add(&self, set: &SetKey) -> u32 {
        let mut counts = self.counts();
        let count = counts.entry(set.clone()).or_default();
        *count = count.saturating_add(1);
        *count
    }

    fn counts(&self) -> MutexGuard<'_, BTreeMap<SetKey, u32>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Context {
    /// A set that is gone. Its ledger stays.
    fn forget(&self, set: &SetKey) {
        self.runs.keep_only(set, |_| false);
        self.collector.forget(set);
        self.ledgers.forget(set);
        self.recorder.forget(set);
        self.recorder.metrics.forget(set);
        self.failures.forget(set);
    }
}

#[expect(clippy::needless_pass_by_value, reason = "the applier's signature")]
fn pause(set: Arc<StatefulSet>, error: &PassError, context: Arc<Context>) -> Action {
    let Some(key) = SetKey::of(&set.metadata) else {
        return Action::await_change();
    };
    let count = context.failures.add(&key);
    let doubled = FIRST_PAUSE.saturating_mul(2_u32.saturating_pow(count.saturating_sub(1))).min(LONGEST_PAUSE);
    let (trouble, pause) = match error {
        PassError::Store(StoreError::Ledger(_)) => (Trouble::Ledger, DENIED_PAUSE),
        PassError::Store(StoreError::Api(error)) if error.is_denied() => (Trouble::Denied, DENIED_PAUSE),
        PassError::Store(StoreError::Api(error)) if error.is_conflict() => (Trouble::Conflict, doubled),
        PassError::Store(StoreError::Api(error)) => (Trouble::Unavailable, doubled.max(error.retry_after().unwrap_or_default())),
        PassError::Ended => return Action::await_change(),
    };
    context.recorder.metrics.failed(trouble);
    tracing::warn!(
        namespace = key.namespace,
        set = key.name,
        error = chain(error),
        pause_ms = pause.as_millis(),
        "a pass failed"
    );
    Action::requeue(spread(pause, &key, count))
}

/// Up to a quarter more, so that sets which failed together do not come back together; the same for the same set and count.
fn spread(pause: Duration, set: &SetKey, count: u32) -> Duration {
    let mut hasher = DefaultHasher::new();
    (set, count).hash(&mut hasher);
    let part = u32::try_from(hasher.finish() % 256).unwrap_or_default();
    pause + pause / 1024 * part
}

/// An error and all that it came from, in one line.
pub(super) fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.ends_with(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}
