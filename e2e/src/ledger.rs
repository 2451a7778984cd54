//! Reading what the guardian keeps of a set, and the Events that it leaves.

use guardian_core::ledger::{self, Ledger, Record, Verdict};
use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::api::events::v1::Event;
use kube::api::ListParams;

use crate::{Failure, Namespace, Outcome, until, until_any};

/// `reportingController` of the guardian's Events.
const REPORTER: &str = "stateful-guardian.io/controller";

impl Namespace {
    /// The ledger of a set as it is now.
    ///
    /// # Errors
    /// When there is none, or none that can be read.
    pub async fn ledger(&self, set: &str) -> Outcome<Ledger> {
        read(&self.api::<ConfigMap>().get(&ledger::name_for(set)).await?).map_err(Failure::Unexpected)
    }

    /// Watches the ledger of a set until it is as wanted.
    ///
    /// # Errors
    /// When it is not so in time.
    pub async fn until_ledger(&self, set: &str, what: &str, look: impl Fn(&Ledger) -> Result<(), String>) -> Outcome<Ledger> {
        let map = until(&self.api::<ConfigMap>(), &ledger::name_for(set), what, |map| look(&read(map)?)).await?;
        read(&map).map_err(Failure::Unexpected)
    }

    /// Watches the ledger until the latest start of a pod is answered with this verdict, and nothing is open for it.
    ///
    /// # Errors
    /// When it is not so in time.
    pub async fn until_answered(&self, set: &str, pod: &str, container_id: &str, verdict: Verdict) -> Outcome<Ledger> {
        self.until_ledger(set, &format!("the start of {pod} is answered, {}", verdict.as_str()), |ledger| {
            let answered = ledger.state.answered.values().any(|start| start.container_id.ends_with(container_id));
            let open = ledger.state.episodes.values().any(|episode| episode.pod == pod);
            let last = ledger.records().filter(|record| record.pod == pod).last();
            match last {
                Some(record) if answered && !open && record.verdict == verdict => Ok(()),
                last => Err(format!("answered: {answered}, open: {open}, last record: {last:?}")),
            }
        })
        .await
    }

    /// Watches the Events of this namespace until there is one about `pod` of this type that says `words`.
    ///
    /// # Errors
    /// When there is none in time.
    pub async fn until_event(&self, pod: &str, type_: &str, words: &str) -> Outcome<Event> {
        let fields = format!("type={type_}");
        until_any(&self.api::<Event>(), &fields, &format!("an Event of type {type_} about {pod} that says `{words}`"), |event| {
            let about = event.regarding.as_ref().and_then(|r| r.name.as_deref()).unwrap_or_default();
            let text = format!("{} {}", event.reason.clone().unwrap_or_default(), event.note.clone().unwrap_or_default());
            if about == pod && text.contains(words) { Ok(()) } else { Err(format!("about {about}: {text}")) }
        })
        .await
    }

    /// Type and reason of every Event about a pod that the guardian has made. They are made before the ledger is written.
    ///
    /// # Errors
    /// When they cannot be listed.
    pub async fn our_events(&self, pod: &str) -> Outcome<Vec<(String, String)>> {
        let fields = format!("reportingController={REPORTER},regarding.name={pod}");
        let list = self.api::<Event>().list(&ListParams::default().fields(&fields)).await?;
        Ok(list.items.into_iter().map(|e| (e.type_.unwrap_or_default(), e.reason.unwrap_or_default())).collect())
    }
}

/// The attempts of a hook in a pod, oldest first.
#[must_use]
pub fn attempts(ledger: &Ledger, hook: &str, pod: &str) -> Vec<Record> {
    ledger.records().filter(|r| r.hook == hook && r.pod == pod && r.run.is_some()).collect()
}

fn read(map: &ConfigMap) -> Result<Ledger, String> {
    Ledger::read(&map.data.clone().unwrap_or_default()).map_err(|error| error.to_string())
}
