//! Passes over the sets: of those that are due each in its turn, never two of one set at a time, and a pause after a failure.

use std::collections::BTreeMap;
use std::error::Error;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;
use std::time::Duration;

use futures::stream::FuturesUnordered;
use futures::{Stream, StreamExt as _, poll};
use tokio::time::{Instant, sleep_until};

use super::due::Due;
use super::metrics::Trouble;
use super::{Context, SetKey, StoreError, reconcile};

/// Passes at once: at 5 ms a call they make 3,000 calls a second, more than the API server should be asked. One that changes something makes about
/// four, so a set waits for 20 ms until one of them ends, and for 20 ms more where 16 other namespaces have something due.
const MAX_PASSES: usize = 16;
/// Pause after the first failure: a conflict is over at once.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
/// The longest pause: an API server that comes back is found within a minute.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// Pause after a failure that lasts until a person acts.
const DENIED_PAUSE: Duration = Duration::from_secs(5 * 60);

/// Looks at every set that `changes` names, and again whenever a pass asks for it. Ends with `changes`.
pub(super) async fn work(changes: impl Stream<Item = SetKey>, context: Arc<Context>) {
    let (mut due, mut passes) = (Due::default(), FuturesUnordered::new());
    let mut changes = std::pin::pin!(changes);
    // Before, that something is not there means nothing. One waits for all: of several at a store only the last is woken.
    let (mut listed, mut is_listed) = (std::pin::pin!(context.cluster.listed()), false);
    loop {
        // All that has come is taken before a pass is begun: it is one pass then, over what is there now.
        while let Poll::Ready(change) = poll!(changes.next()) {
            let Some(set) = change else { return };
            due.name(set);
        }
        let now = Instant::now();
        while is_listed && passes.len() < MAX_PASSES {
            let Some(set) = due.next(now) else { break };
            passes.push(Box::pin(pass(set, Arc::clone(&context))));
        }
        // While there is no place, it is the end of a pass that makes a difference.
        let later = due.first().filter(|_| passes.len() < MAX_PASSES);
        tokio::select! {
            change = changes.next() => match change {
                Some(set) => due.name(set),
                None => return,
            },
            Some((set, again)) = passes.next() => due.ended(set, again.and_then(|pause| Instant::now().checked_add(pause))),
            () = sleep_until(later.unwrap_or(now)), if later.is_some() => {}
            result = &mut listed, if !is_listed => match result {
                Ok(()) => is_listed = true,
                // The watches have ended.
                Err(_) => return,
            },
        }
    }
}

/// One pass over a set, and after which pause it is to be looked at again, if nothing happens before.
async fn pass(key: SetKey, context: Arc<Context>) -> (SetKey, Option<Duration>) {
    let again = match context.cluster.set(&key) {
        Some(set) => reconcile(&key, &set, &context).await.unwrap_or_else(|error| Some(pause(&key, &error, &context))),
        None => {
            context.forget(&key);
            None
        }
    };
    (key, again)
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
        self.recorder.gone(set);
        self.failures.forget(set);
    }
}

/// After which pause a pass that failed is repeated.
fn pause(key: &SetKey, error: &StoreError, context: &Context) -> Duration {
    let count = context.failures.add(key);
    let doubled = FIRST_PAUSE.saturating_mul(2_u32.saturating_pow(count.saturating_sub(1))).min(LONGEST_PAUSE);
    let (trouble, pause) = match error {
        StoreError::Ledger(_) => (Trouble::Ledger, DENIED_PAUSE),
        StoreError::Api(error) if error.is_denied() => (Trouble::Denied, DENIED_PAUSE),
        StoreError::Api(error) if error.is_conflict() => (Trouble::Conflict, doubled),
        StoreError::Api(error) => (Trouble::Unavailable, doubled.max(error.retry_after().unwrap_or_default())),
    };
    context.recorder.metrics.failed(trouble);
    tracing::warn!(
        namespace = key.namespace,
        set = key.name,
        error = chain(error),
        pause_ms = pause.as_millis(),
        "a pass failed"
    );
    spread(pause, key, count)
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
