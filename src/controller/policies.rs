//! The policies in force, by namespace: of each the last revision that could be read.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use guardian_core::names;
use guardian_core::policy::{self, Policy};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::runtime::watcher::Event;

use super::observed::StatefulSet;

/// All policies of the cluster.
#[derive(Default)]
pub(super) struct Policies {
    known: BTreeMap<String, BTreeMap<String, Known>>,
    /// Namespace and name of those that the list under way has shown.
    listed: BTreeSet<(String, String)>,
}

/// The last good revision, or why there is none.
type Known = Result<Arc<Policy>, String>;

/// Who guards a set.
pub(super) enum Guard {
    Policy(Arc<Policy>),
    Nobody,
    /// Perhaps a policy that cannot be read.
    Invalid(String),
}

impl Policies {
    /// Takes an event of the watch; yields the namespaces it concerns.
    pub(super) fn take(&mut self, event: Event<ConfigMap>) -> Vec<String> {
        match event {
            Event::Init => {
                self.listed.clear();
                Vec::new()
            }
            Event::InitApply(map) => {
                self.listed.insert(identity(&map));
                vec![self.read(&map)]
            }
            Event::InitDone => {
                let listed = std::mem::take(&mut self.listed);
                self.drop_unlisted(&listed)
            }
            Event::Apply(map) => vec![self.read(&map)],
            Event::Delete(map) => {
                let (namespace, name) = identity(&map);
                self.known.entry(namespace.clone()).or_default().remove(&name);
                vec![namespace]
            }
        }
    }

    /// The policy of a set.
    pub(super) fn guard(&self, set: &StatefulSet) -> Guard {
        let namespace = set.metadata.namespace.as_deref().unwrap_or_default();
        let Some(known) = self.known.get(namespace) else {
            return Guard::Nobody;
        };
        let named = set.annotation(names::POLICY);
        if let Some((chosen, _)) = Policy::choose(known.values().filter_map(|k| k.as_deref().ok()), named, set.labels()) {
            let chosen = known.get(&chosen.name).and_then(|k| k.as_ref().ok());
            return chosen.map_or(Guard::Nobody, |policy| Guard::Policy(Arc::clone(policy)));
        }
        let bad = known.iter().filter_map(|(name, known)| Some((name, known.as_ref().err()?)));
        let mut bad = bad.filter(|(name, _)| named.is_none_or(|named| named == name.as_str()));
        bad.next().map_or(Guard::Nobody, |(name, error)| Guard::Invalid(format!("policy {name} cannot be read: {error}")))
    }

    fn read(&mut self, map: &ConfigMap) -> String {
        let (namespace, name) = identity(map);
        let known = self.known.entry(namespace.clone()).or_default();
        match policy::parse(&name, map.data.as_ref().unwrap_or(&BTreeMap::new())) {
            Ok(policy) => drop(known.insert(name, Ok(Arc::new(policy)))),
            Err(invalid) => {
                tracing::warn!(namespace, name, error = %invalid, "a policy cannot be taken; its last good revision stays in force");
                match known.get(&name) {
                    Some(Ok(_)) => {}
                    _ => drop(known.insert(name, Err(invalid.to_string()))),
                }
            }
        }
        namespace
    }

    fn drop_unlisted(&mut self, listed: &BTreeSet<(String, String)>) -> Vec<String> {
        let mut concerned = Vec::new();
        for (namespace, known) in &mut self.known {
            let before = known.len();
            known.retain(|name, _| listed.contains(&(namespace.clone(), name.clone())));
            if known.len() < before {
                concerned.push(namespace.clone());
            }
        }
        self.known.retain(|_, known| !known.is_empty());
        concerned
    }
}

fn identity(map: &ConfigMap) -> (String, String) {
    (map.metadata.namespace.clone().unwrap_or_default(), map.metadata.name.clone().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use guardian_core::names::POLICY_KEY;
    use kube::api::ObjectMeta;
    use serde_json::json;

    use super::*;

    fn map(name: &str, text: &str) -> ConfigMap {
        let metadata = ObjectMeta { name: Some(name.into()), namespace: Some("shop".into()), ..ObjectMeta::default() };
        let data = Some(BTreeMap::from([(POLICY_KEY.to_owned(), text.to_owned())]));
        ConfigMap { metadata, data, ..ConfigMap::default() }
    }

    const GOOD: &str = "apiVersion: stateful-guardian.io/v1alpha1\nkind: GuardianPolicy\nselector: {matchLabels: {app: redis}}\n";

    fn set() -> StatefulSet {
        let set = json!({"metadata": {"name": "redis", "namespace": "shop", "labels": {"app": "redis"}}});
        serde_json::from_value(set).unwrap()
    }

    fn guard(policies: &Policies) -> String {
        match policies.guard(&set()) {
            Guard::Policy(policy) => format!("policy {}", policy.name),
            Guard::Nobody => "nobody".into(),
            Guard::Invalid(why) => why,
        }
    }

    #[test]
    fn an_unreadable_edit_leaves_the_last_good_revision_in_force() {
        let mut policies = Policies::default();
        assert_eq!(guard(&policies), "nobody");
        assert_eq!(policies.take(Event::Apply(map("redis", GOOD))), ["shop"]);
        policies.take(Event::Apply(map("redis", "nonsense: [")));
        assert_eq!(guard(&policies), "policy redis");
        for event in [Event::Init, Event::InitApply(map("redis", "nonsense: [")), Event::InitDone] {
            policies.take(event);
        }
        assert_eq!(guard(&policies), "policy redis", "and a list does not change that");
    }

    #[test]
    fn a_policy_that_was_never_readable_is_not_the_same_as_none() {
        let mut policies = Policies::default();
        policies.take(Event::Apply(map("redis", "nonsense: [")));
        assert!(guard(&policies).starts_with("policy redis cannot be read: "), "{}", guard(&policies));
        policies.take(Event::Delete(map("redis", "nonsense: [")));
        assert_eq!(guard(&policies), "nobody");
    }

    #[test]
    fn a_policy_that_went_away_unseen_is_gone_after_a_list() {
        let mut policies = Policies::default();
        policies.take(Event::Apply(map("redis", GOOD)));
        policies.take(Event::Init);
        assert_eq!(guard(&policies), "policy redis", "as long as the list is under way");
        assert_eq!(policies.take(Event::InitDone), ["shop"]);
        assert_eq!(guard(&policies), "nobody");
    }
}
