//! Waiting for what must come.

use std::fmt::Debug;
use std::pin::pin;
use std::time::Duration;

use futures::{Stream, StreamExt as _};
use kube::runtime::watcher::Config;
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Api, Resource};
use serde::de::DeserializeOwned;
use tokio::time::{Instant, sleep, timeout_at};

use crate::{Failure, Outcome, WAIT};

/// How often something inside a container is looked at: nothing tells when it changes.
const LOOK_AGAIN: Duration = Duration::from_millis(500);

/// Watches the object of this name until it is as wanted, and gives it. `look` says what is missing; while there is no object, nothing is
/// looked at.
///
/// # Errors
/// When it is not so within [`WAIT`].
pub async fn until<K>(api: &Api<K>, name: &str, what: &str, look: impl Fn(&K) -> Result<(), String>) -> Outcome<K>
where
    K: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
    K::DynamicType: Default,
{
    until_any(api, &format!("metadata.name={name}"), &format!("{name}: {what}"), look).await
}

/// Watches the objects that a field selector chooses until one is as wanted, and gives that one.
///
/// # Errors
/// When none is within [`WAIT`].
pub async fn until_any<K>(api: &Api<K>, fields: &str, what: &str, look: impl Fn(&K) -> Result<(), String>) -> Outcome<K>
where
    K: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
    K::DynamicType: Default,
{
    let stream = watcher(api.clone(), Config::default().fields(fields)).default_backoff().applied_objects();
    first(stream, what, look).await
}

async fn first<K>(
    stream: impl Stream<Item = Result<K, watcher::Error>>,
    what: &str,
    look: impl Fn(&K) -> Result<(), String>,
) -> Outcome<K> {
    let mut stream = pin!(stream);
    let end = Instant::now() + WAIT;
    let mut last = "nothing".to_owned();
    // The watch is made again after an error, so it never ends by itself.
    while let Ok(Some(event)) = timeout_at(end, stream.next()).await {
        match event {
            Ok(object) => match look(&object) {
                Ok(()) => return Ok(object),
                Err(missing) => last = missing,
            },
            Err(error) => last = error.to_string(),
        }
    }
    Err(Failure::NotInTime { what: what.to_owned(), within: WAIT, last })
}

/// Waits until no object has this name.
///
/// # Errors
/// When there still is one after [`WAIT`].
pub async fn until_gone<K>(api: &Api<K>, name: &str) -> Outcome
where
    K: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
    K::DynamicType: Default,
{
    let gone = kube::runtime::wait::await_condition(api.clone(), name, |object: Option<&K>| object.is_none());
    match tokio::time::timeout(WAIT, gone).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(error)) => Err(Failure::Unexpected(error.to_string())),
        Err(_) => Err(Failure::NotInTime { what: format!("{name} is gone"), within: WAIT, last: "it is there".to_owned() }),
    }
}

/// Repeats a look into a container until it succeeds: what an application says about itself is in no object that could be watched.
///
/// # Errors
/// The last failure, when there is no success within [`WAIT`].
pub async fn eventually<T>(what: &str, mut look: impl AsyncFnMut() -> Outcome<T>) -> Outcome<T> {
    let end = Instant::now() + WAIT;
    loop {
        match look().await {
            Ok(found) => return Ok(found),
            Err(failure) if Instant::now() >= end => {
                return Err(Failure::NotInTime { what: what.to_owned(), within: WAIT, last: failure.to_string() });
            }
            Err(_) => sleep(LOOK_AGAIN).await,
        }
    }
}
