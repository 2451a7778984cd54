//! What is known of a set, for whoever looks at it: `guardian status` and the dashboard tell the same.
//!
//! Pure: the one lists what it is made of, the other watches it.

mod ledger;
mod pod;
mod policies;

use std::collections::BTreeMap;
use std::sync::Arc;

use guardian_core::admission::Settings;
use guardian_core::ledger::{Hold, Record};
use guardian_core::names;
use guardian_core::standing::{self, Standing, State};
use k8s_openapi::api::core::v1::Namespace;
use kube::ResourceExt as _;
use kube::api::PartialObjectMeta;
use serde_json::{Value, json};

pub(crate) use ledger::Kept;
pub(crate) use pod::{Pod, by_set};
pub(crate) use policies::{Policies, stored};

/// What a namespace says of itself.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    pub(crate) name: String,
    pub(crate) enabled: bool,
    /// Everything in it is on hold, and why.
    pub(crate) hold: Option<String>,
}

/// A set.
#[derive(Clone, Debug)]
pub(crate) struct Set {
    pub(crate) place: Place,
    pub(crate) name: String,
    pub(crate) uid: String,
    /// How it stands to its policy, or why that cannot be told.
    pub(crate) standing: Result<Arc<Standing>, String>,
    pub(crate) replicas: u64,
    pub(crate) ready: u64,
    /// Its guarded pods, by ordinal.
    pub(crate) pods: Vec<Arc<Pod>>,
    /// What its ledger holds, or why that cannot be told; `None`: it has none.
    pub(crate) ledger: Option<Arc<Result<Kept, String>>>,
}

/// What the webhook would be told: the installation's image, or, where that is not known, the one that was written into the set.
pub(crate) fn settings(image: Option<&str>, set: &Value) -> Settings {
    let inits = set.pointer("/spec/template/spec/initContainers").and_then(Value::as_array).into_iter().flatten();
    let mut written =
        inits.filter(|c| c.get("name").and_then(Value::as_str) == Some(names::INIT)).filter_map(|c| c.get("image")?.as_str());
    let image = image.or_else(|| written.next()).unwrap_or(concat!("stateful-guardian:", env!("CARGO_PKG_VERSION")));
    Settings { image: image.to_owned() }
}

/// The name of an object.
pub(crate) fn name(object: &Value) -> &str {
    text(object, "/metadata/name")
}

/// How a set stands, as the API server sent it, to the policies of its namespace.
pub(crate) fn standing(set: &Value, namespace: &str, policies: &Policies, image: Option<&str>) -> Result<Arc<Standing>, String> {
    let standing = standing::of_stored(set, namespace, &policies.snapshot, &settings(image, set));
    standing.map(Arc::new).map_err(|error| error.to_string())
}

impl Set {
    /// From the set as the API server sent it, and what was found beside it.
    pub(crate) fn of(
        place: &Place,
        set: &Value,
        standing: Result<Arc<Standing>, String>,
        pods: &BTreeMap<String, Vec<Arc<Pod>>>,
        ledger: Option<Arc<Result<Kept, String>>>,
    ) -> Self {
        let number = |pointer: &str| set.pointer(pointer).and_then(Value::as_u64);
        let uid = text(set, "/metadata/uid");
        Self {
            place: place.clone(),
            name: name(set).to_owned(),
            uid: uid.to_owned(),
            standing,
            replicas: number("/spec/replicas").unwrap_or(1),
            ready: number("/status/readyReplicas").unwrap_or_default(),
            pods: pods.get(uid).cloned().unwrap_or_default(),
            ledger,
        }
    }

    /// The state, or why there is none: in a namespace that is not enabled nothing is written, whatever its policies say.
    pub(crate) fn state(&self) -> String {
        match &self.standing {
            Err(_) => "Unreadable".to_owned(),
            Ok(_) if !self.place.enabled => "NotEnabled".to_owned(),
            Ok(standing) => format!("{:?}", standing.state),
        }
    }

    /// Why it is in that state; empty where that needs no word.
    pub(crate) fn because(&self) -> String {
        match &self.standing {
            Err(error) => error.clone(),
            Ok(standing) if !self.place.enabled && standing.record.is_some() => {
                "the namespace is not enabled; what was written stays and works alone".to_owned()
            }
            Ok(_) if !self.place.enabled => "the namespace is not enabled".to_owned(),
            Ok(standing) => standing.because(),
        }
    }

    /// The set's own hold, or its namespace's.
    pub(crate) fn hold(&self) -> Option<&String> {
        let own = self.standing.as_ref().ok().and_then(|standing| standing.hold.as_ref());
        own.or(self.place.hold.as_ref())
    }

    /// Does something wait for its next template change?
    pub(crate) fn is_pending(&self) -> bool {
        let waits = |standing: &Arc<Standing>| matches!(standing.state, State::Pending | State::Unguarded | State::Leaving);
        self.place.enabled && self.standing.as_ref().is_ok_and(waits)
    }

    /// Ready pods of all.
    pub(crate) fn readiness(&self) -> String {
        format!("{}/{}", self.ready, self.replicas)
    }

    /// The name of the policy that guards it, would once it is approved, or did when its template was written.
    pub(crate) fn policy(&self) -> Option<&String> {
        let standing = self.standing.as_ref().ok()?;
        let guards = standing.policy.as_ref().or(standing.awaits.as_ref());
        guards.map(|(name, _)| name).or(standing.record.as_ref().map(|record| &record.policy))
    }

    /// The revision of the policy that is in its template.
    pub(crate) fn written(&self) -> Option<&String> {
        Some(&self.standing.as_ref().ok()?.record.as_ref()?.revision)
    }

    /// The revision of the policy that is in force.
    pub(crate) fn in_force(&self) -> Option<&String> {
        Some(&self.standing.as_ref().ok()?.policy.as_ref()?.1)
    }

    /// What its ledger holds, where that can be told.
    pub(crate) fn kept(&self) -> Option<&Kept> {
        self.ledger.as_ref()?.as_ref().as_ref().ok()
    }

    /// The ledger cannot be read, and why.
    pub(crate) fn problem(&self) -> Option<&String> {
        self.ledger.as_ref()?.as_ref().as_ref().err()
    }

    /// The last failure, and what was done about it last.
    pub(crate) fn last_failure(&self) -> Option<&Record> {
        self.kept()?.last_failure()
    }

    /// What is due and not done.
    pub(crate) fn holds(&self) -> &[Hold] {
        self.kept().map(|kept| kept.state.holds.as_slice()).unwrap_or_default()
    }

    /// What goes on in a pod, or waits there, in a few words.
    pub(crate) fn going_on(&self, pod: &str) -> Option<String> {
        self.kept()?.state.episodes.values().find(|episode| episode.pod == pod).map(ledger::words)
    }

    /// For scripts.
    pub(crate) fn document(&self) -> Value {
        let standing = self.standing.as_ref().ok();
        json!({
            "namespace": self.place.name,
            "name": self.name,
            "state": self.state(),
            "because": self.because(),
            "policy": standing.and_then(|s| s.policy.as_ref()).map(|(name, _)| name),
            "revision": self.in_force(),
            "awaits": standing.and_then(|s| s.awaits.as_ref()).map(|(name, revision)| json!({"policy": name, "revision": revision})),
            "recorded": standing
                .and_then(|s| s.record.as_ref())
                .map(|record| json!({"policy": record.policy, "revision": record.revision})),
            "hold": self.hold(),
            "pending": self.is_pending(),
            "warnings": standing.map(|s| s.warnings.as_slice()).unwrap_or_default(),
            "replicas": self.replicas,
            "ready": self.ready,
            "pods": self.pods.iter().map(|pod| pod.document()).collect::<Vec<_>>(),
            "lastFailure": self.last_failure(),
            "holds": self.holds(),
            "open": self.kept().map(|kept| &kept.state.episodes).cloned().unwrap_or_default(),
        })
    }
}

fn text<'o>(object: &'o Value, pointer: &str) -> &'o str {
    object.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

impl From<&PartialObjectMeta<Namespace>> for Place {
    fn from(namespace: &PartialObjectMeta<Namespace>) -> Self {
        Self {
            enabled: namespace.labels().get(names::ENABLED).is_some_and(|enabled| enabled == "true"),
            hold: namespace.annotations().get(names::HOLD).cloned(),
            name: namespace.name_any(),
        }
    }
}
