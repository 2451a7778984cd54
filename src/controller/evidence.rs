//! What only an Event tells: that the kubelet has ended a container because a probe failed. Its status has the same words then as after a crash. The Events
//! are asked for once for each restart, when it is to be judged; where they cannot be read, or are gone, it counts as a crash.

use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard, PoisonError};

use guardian_core::ledger::State;
use guardian_core::lifecycle::{Container, Observed};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Event;
use kube::api::ListParams;
use kube::{Api, Client};

use super::api::call;
use super::queue;

/// Restarts of which it is remembered what they were; 100 bytes each. Beyond, all are forgotten, and asked for again if need be.
const REMEMBERED: usize = 10_000;
/// Events of one pod and reason that are read: the API server keeps one for each message, and counts.
const EVENTS: u32 = 50;
/// What the kubelet writes before it restarts a container (`computePodActions` in `kuberuntime_manager.go`).
const PROBES: [&str; 2] = ["failed liveness probe", "failed startup probe"];

/// Reads Events, and remembers what they said.
pub(super) struct Evidence {
    client: Client,
    known: Mutex<Known>,
}

/// Ids of the containers that run now.
#[derive(Default)]
struct Known {
    asked: BTreeSet<String>,
    by_probe: BTreeSet<String>,
}

impl Evidence {
    pub(super) fn new(client: Client) -> Self {
        Self { client, known: Mutex::default() }
    }

    /// Adds to what is observed of restarts that are not dealt with yet, as far as the ledger is known.
    pub(super) async fn complete(&self, observed: &mut Observed, ledger: Option<&State>) {
        for (ordinal, pod) in &mut observed.pods {
            let (name, uid) = (pod.name.clone(), pod.uid.clone());
            let answered = ledger.and_then(|state| state.answered.get(ordinal)).filter(|answered| answered.pod_uid == uid);
            let is_open = |id: &str| {
                let mut starts = ledger.into_iter().flat_map(|state| state.episodes.values()).filter_map(|e| e.start.as_ref());
                starts.any(|start| start.container_id == id)
            };
            for (container, status) in &mut pod.containers {
                let is_known = answered.is_some_and(|a| a.container != *container || a.container_id == status.id);
                if is_known || is_open(&status.id) || !is_open_to_doubt(status) {
                    continue;
                }
                let by_probe = self.by_probe(&observed.namespace, (&name, &uid), container, status).await;
                status.last.iter_mut().for_each(|last| last.by_probe = by_probe);
            }
        }
    }

    async fn by_probe(&self, namespace: &str, (pod, uid): (&str, &str), container: &str, status: &Container) -> bool {
        {
            let known = self.known();
            if known.asked.contains(&status.id) {
                return known.by_probe.contains(&status.id);
            }
        }
        let events: Api<Event> = Api::namespaced(self.client.clone(), namespace);
        let fields = format!("involvedObject.uid={uid},reason=Killing");
        let found =
            match call("read the Events of a pod", events.list(&ListParams::default().fields(&fields).limit(EVENTS))).await {
                Ok(found) => found.items,
                Err(error) => {
                    tracing::warn!(
                        namespace,
                        pod,
                        error = queue::chain(&error),
                        "whether a probe has ended its container is not known"
                    );
                    return false;
                }
            };
        let began = status.last.as_ref().and_then(|last| last.began);
        let by_probe = found.iter().any(|event| tells(event, uid, container, began));
        let mut known = self.known();
        if known.asked.len() >= REMEMBERED {
            *known = Known::default();
        }
        known.asked.insert(status.id.clone());
        if by_probe {
            known.by_probe.insert(status.id.clone());
        }
        by_probe
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// It runs again, and nothing in its status tells what ended it.
fn is_open_to_doubt(status: &Container) -> bool {
    status.running_since.is_some() && status.last.as_ref().is_some_and(|last| last.reason != "OOMKilled")
}

/// Does it say that a probe has ended the run of this container that began then?
fn tells(event: &Event, uid: &str, container: &str, began: Option<Timestamp>) -> bool {
    let about = &event.involved_object;
    let of_container = about.field_path.as_deref() == Some(&format!("spec.containers{{{container}}}"));
    let last = event.last_timestamp.as_ref().map(|time| time.0).or(event.event_time.as_ref().map(|time| time.0));
    // In whole seconds, both. A probe fails a second after the start at the soonest; what was in the same second has ended the run before.
    let in_its_time = last.zip(began).is_some_and(|(last, began)| last > began);
    let words = event.message.as_deref().unwrap_or_default();
    event.reason.as_deref() == Some("Killing")
        && about.uid.as_deref() == Some(uid)
        && of_container
        && in_its_time
        && PROBES.iter().any(|probe| words.contains(probe))
}
