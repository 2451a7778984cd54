//! All that is known as one value, from which every page is made.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use guardian_core::ledger;
use guardian_core::names;
use guardian_core::policy::Approvals;
use guardian_core::standing::Standing;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::api::events::v1::Event;
use kube::ResourceExt as _;
use serde_json::Value;

use super::samples::{Samples, Taken};
use super::watch::{APPROVALS, NAMESPACES, Watched};
use crate::known::{self, Kept, Place, Pod, Policies, Set};

/// What is shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Scope {
    /// One namespace.
    Namespace(String),
    /// Every enabled namespace.
    Enabled,
}

/// All that is known.
pub(super) struct View {
    pub(super) scope: Scope,
    /// When it was made.
    pub(super) at: Timestamp,
    /// Everything was read, or refused.
    pub(super) settled: bool,
    /// By namespace and name.
    pub(super) sets: Vec<Set>,
    /// What the controller has told of each set, the newest first.
    pub(super) told: BTreeMap<Key, Vec<Told>>,
    /// What cannot be read or told.
    pub(super) notices: Vec<String>,
    pub(super) metrics: Taken,
}

/// Namespace and name.
pub(super) type Key = (String, String);

/// An Event of the controller about a set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Told {
    pub(super) at: Option<Timestamp>,
    pub(super) warning: bool,
    pub(super) reason: String,
    /// The hook, or `hold`.
    pub(super) action: String,
    pub(super) note: String,
}

/// Makes views, and remembers what is costly as long as nothing that it is made of has changed.
#[derive(Default)]
pub(super) struct Builder {
    policies: BTreeMap<String, (String, Arc<Policies>)>,
    standings: BTreeMap<Key, (String, Result<Arc<Standing>, String>)>,
    ledgers: BTreeMap<Key, (String, Arc<Result<Kept, String>>)>,
}

impl View {
    pub(super) fn empty(scope: &Scope) -> Self {
        Self {
            scope: scope.clone(),
            at: Timestamp::UNIX_EPOCH,
            settled: false,
            sets: Vec::new(),
            told: BTreeMap::new(),
            notices: Vec::new(),
            metrics: Taken::default(),
        }
    }

    /// A set by its name.
    pub(super) fn set(&self, namespace: &str, name: &str) -> Option<&Set> {
        self.sets.iter().find(|set| set.place.name == namespace && set.name == name)
    }
}

impl Builder {
    /// What is known now.
    pub(super) fn build(&mut self, scope: &Scope, watched: &Watched, samples: &Samples, now: Timestamp) -> View {
        let mut notices: Vec<String> =
            watched.problems(now).into_iter().map(|(what, why)| format!("{}: {why}", without(what))).collect();
        let (approvals, image) = (approvals(watched), watched.image());
        if approvals.is_none() && watched.is_listed(APPROVALS) {
            notices.push(format!("there is no ConfigMap {}: every policy is taken for approved", names::APPROVALS));
        }
        let approvals_of = approvals.as_ref().map_or("none".to_owned(), |(version, _)| version.clone());
        let mut places = BTreeMap::new();
        places.extend(watched.places.state().iter().map(|n| Place::from(n.as_ref())).map(|place| (place.name.clone(), place)));
        if let Scope::Namespace(name) = scope {
            // Whoever may not read the namespace is told so, and sees its sets as those of an enabled one.
            if watched.is_listed(NAMESPACES) && !places.contains_key(name) {
                notices.push(format!("there is no namespace {name}"));
            }
            let unknown = || Place { name: name.clone(), enabled: !watched.is_listed(NAMESPACES), hold: None };
            places.entry(name.clone()).or_insert_with(unknown);
        }
        let classes = watched.classes.state();
        let classes: Option<BTreeSet<String>> =
            (!classes.is_empty()).then(|| classes.iter().map(|class| class.name_any()).collect());
        let maps = watched.policies.state();
        let mut policies = BTreeMap::new();
        for namespace in places.keys() {
            let mut here: Vec<&ConfigMap> =
                maps.iter().map(AsRef::as_ref).filter(|m| m.namespace().as_ref() == Some(namespace)).collect();
            here.sort_by_key(|map| map.name_any());
            let versions: Vec<String> = here.iter().filter_map(|map| map.resource_version()).collect();
            let version = format!("{} {approvals_of} {classes:?}", versions.join(" "));
            let before = self.policies.remove(namespace).filter(|(before, _)| *before == version);
            let of = || Policies::of(namespace, here, approvals.as_ref().map(|(_, approvals)| approvals), classes.clone());
            let (_, made) = before.unwrap_or_else(|| (version.clone(), Arc::new(of())));
            notices.extend(made.problems.iter().cloned());
            policies.insert(namespace.clone(), (version, made));
        }
        self.policies = policies;
        self.read_ledgers(watched);
        let sets = self.sets(watched, &places, image.as_deref());
        notices.extend(sets.iter().filter_map(|set| set.problem().cloned()));
        let metrics = samples.taken();
        notices.extend(metrics.notice.clone());
        View { scope: scope.clone(), at: now, settled: watched.is_settled(), told: told(watched, &sets), sets, notices, metrics }
    }

    fn read_ledgers(&mut self, watched: &Watched) {
        let mut ledgers = BTreeMap::new();
        for map in watched.ledgers.state() {
            let key = (map.namespace().unwrap_or_default(), map.name_any());
            let version = map.resource_version().unwrap_or_default();
            let before = self.ledgers.remove(&key).filter(|(before, _)| *before == version);
            let kept = before.unwrap_or_else(|| (version, Arc::new(Kept::read(&map))));
            ledgers.insert(key, kept);
        }
        self.ledgers = ledgers;
    }

    fn sets(&mut self, watched: &Watched, places: &BTreeMap<String, Place>, image: Option<&str>) -> Vec<Set> {
        let pods = watched.pods.state();
        let pods: BTreeMap<String, Vec<Arc<Pod>>> = known::by_set(pods.iter().map(AsRef::as_ref));
        let (mut sets, mut standings) = (Vec::new(), BTreeMap::new());
        for object in watched.sets.state() {
            let key = (object.namespace().unwrap_or_default(), object.name_any());
            let Some(place) = places.get(&key.0) else { continue };
            let Some((version, policies)) = self.policies.get(&key.0) else { continue };
            let version = format!("{:?} {version} {image:?}", object.resource_version());
            // An object that came as JSON can be JSON again.
            let object = serde_json::to_value(object.as_ref()).unwrap_or(Value::Null);
            let before = self.standings.remove(&key).filter(|(before, _)| *before == version);
            let (_, standing) = before.unwrap_or_else(|| (version.clone(), known::standing(&object, &key.0, policies, image)));
            let ledger = self.ledgers.get(&(key.0.clone(), ledger::name_for(&key.1))).map(|(_, kept)| Arc::clone(kept));
            sets.push(Set::of(place, &object, standing.clone(), &pods, ledger));
            standings.insert(key, (version, standing));
        }
        self.standings = standings;
        sets.sort_by(|a, b| (&a.place.name, &a.name).cmp(&(&b.place.name, &b.name)));
        sets
    }
}

/// The version of the approvals, and what they say; `None`: not known.
fn approvals(watched: &Watched) -> Option<(String, Approvals)> {
    let map = watched.approvals.state().first().cloned()?;
    Some((map.resource_version().unwrap_or_default(), map.data.as_ref().map(Approvals::read).unwrap_or_default()))
}

/// What somebody does not see who may not read it.
fn without(what: &str) -> String {
    let lost = match what {
        NAMESPACES => "whether a namespace is enabled or on hold is not known",
        APPROVALS => "every policy is taken for approved",
        "the StatefulSets" => "no set is shown",
        "the guarded pods" => "pods and their roles are not shown",
        "the policies" => "every set seems to have none",
        "the ledgers" => "failures, and what goes on, are not shown",
        _ => "holds are not shown",
    };
    format!("{what} cannot be read: {lost}")
}

/// The Events of each set, the newest first.
fn told(watched: &Watched, sets: &[Set]) -> BTreeMap<Key, Vec<Told>> {
    let uids: BTreeMap<&str, Key> =
        sets.iter().map(|set| (set.uid.as_str(), (set.place.name.clone(), set.name.clone()))).collect();
    let mut told: BTreeMap<Key, Vec<Told>> = BTreeMap::new();
    for event in watched.events.state() {
        let about = event.regarding.as_ref().and_then(|object| object.uid.as_deref());
        if let Some(key) = about.and_then(|uid| uids.get(uid)) {
            told.entry(key.clone()).or_default().push(Told::from(event.as_ref()));
        }
    }
    told.values_mut().for_each(|told| told.sort_by(|a, b| (b.at, &b.note).cmp(&(a.at, &a.note))));
    told
}

impl From<&Event> for Told {
    fn from(event: &Event) -> Self {
        let text = |text: &Option<String>| text.clone().unwrap_or_default();
        Self {
            at: event.event_time.as_ref().map(|time| time.0),
            warning: event.type_.as_deref() == Some("Warning"),
            reason: text(&event.reason),
            action: text(&event.action),
            note: text(&event.note),
        }
    }
}
