//! Events, made beside all else: an API server that is slow with them, or limits them, keeps no hook waiting.

use std::hash::{DefaultHasher, Hasher as _};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use futures::channel::oneshot;
use futures::future::join_all;
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use kube::api::PostParams;
use kube::{Api, Client};
use prometheus::{IntCounterVec, Opts, Registry};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::api::call;
use super::clock::Clock;

/// `reportingController` of our Events.
pub(crate) const REPORTER: &str = "stateful-guardian.io/controller";
/// Most bytes of an Event's note (events.k8s.io/v1).
const MAX_NOTE: usize = 1024;
/// Events on their way to the API server, of about 2 KiB each: half a megabyte. What comes beyond is not made, and counted.
const MOST: usize = 256;
/// How long a pass waits for the Events of what it is about to write down. One takes some 5 ms; longer than this nothing is held up by them, a hand-over of
/// 100 s least of all.
const PATIENCE: Duration = Duration::from_secs(1);

/// Makes them.
pub(super) struct Events {
    client: Client,
    clock: Clock,
    identity: String,
    under_way: Mutex<JoinSet<()>>,
    made: IntCounterVec,
}

/// What an Event says.
pub(super) struct Telling<'a> {
    pub(super) warning: bool,
    pub(super) reason: &'a str,
    pub(super) action: &'a str,
    pub(super) note: &'a str,
    /// Names the Event, with its object: the same telling twice is one Event.
    pub(super) id: u64,
}

/// Done, however it went.
pub(super) type Told = oneshot::Receiver<()>;

impl Events {
    pub(super) fn new(client: Client, clock: Clock, identity: String, registry: &Registry) -> Result<Self, prometheus::Error> {
        let made = Opts::new(
            "guardian_events_total",
            "Events about sets and pods: made, failed, or dropped because too many were on their way",
        );
        let made = IntCounterVec::new(made, &["result"])?;
        registry.register(Box::new(made.clone()))?;
        Ok(Self { client, clock, identity, under_way: Mutex::default(), made })
    }

    /// Makes an Event. It is a courtesy: a failure is logged and counted, and whoever waits for it waits for no more than [`told`].
    pub(super) fn tell(&self, namespace: &str, object: &ObjectReference, telling: &Telling<'_>) -> Told {
        let (done, told) = oneshot::channel();
        let event = self.event(namespace, object, telling);
        let (api, made): (Api<Event>, _) = (Api::namespaced(self.client.clone(), namespace), self.made.clone());
        let mut under_way = self.under_way.lock().unwrap_or_else(PoisonError::into_inner);
        while under_way.try_join_next().is_some() {}
        if under_way.len() >= MOST {
            made.with_label_values(&["dropped"]).inc();
            return told;
        }
        under_way.spawn(async move {
            let result = match call("make an Event", api.create(&PostParams::default(), &event)).await {
                Ok(_) => "made",
                Err(error) if error.code() == Some(409) => "made",
                Err(error) => {
                    let (namespace, reason) = (&event.metadata.namespace, &event.reason);
                    tracing::warn!(namespace, reason, error = &error as &dyn std::error::Error, "no Event was made");
                    "failed"
                }
            };
            made.with_label_values(&[result]).inc();
            let _ = done.send(());
        });
        told
    }

    fn event(&self, namespace: &str, object: &ObjectReference, telling: &Telling<'_>) -> Event {
        let object = ObjectReference { namespace: Some(namespace.to_owned()), ..object.clone() };
        let name = format!("{}.{:016x}", object.name.as_deref().unwrap_or_default(), telling.id);
        let mut note = telling.note.to_owned();
        note.truncate(note.floor_char_boundary(MAX_NOTE));
        Event {
            metadata: ObjectMeta { name: Some(name), namespace: Some(namespace.to_owned()), ..ObjectMeta::default() },
            event_time: Some(MicroTime(self.clock.now())),
            reporting_controller: Some(REPORTER.to_owned()),
            reporting_instance: Some(self.identity.clone()),
            action: Some(telling.action.to_owned()),
            reason: Some(telling.reason.to_owned()),
            note: Some(note),
            type_: Some(if telling.warning { "Warning" } else { "Normal" }.to_owned()),
            regarding: Some(object),
            ..Event::default()
        }
    }
}

/// Waits until these are made, or for as long as a pass has patience.
pub(super) async fn told(events: Vec<Told>) {
    if !events.is_empty() {
        let _ = timeout(PATIENCE, join_all(events)).await;
    }
}

pub(super) fn object(api_version: &str, kind: &str, name: &str, uid: &str) -> ObjectReference {
    ObjectReference {
        api_version: Some(api_version.to_owned()),
        kind: Some(kind.to_owned()),
        name: Some(name.to_owned()),
        uid: Some(uid.to_owned()),
        ..ObjectReference::default()
    }
}

/// The same for the same value in every process of this build.
pub(super) fn hash(value: &impl std::hash::Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}
