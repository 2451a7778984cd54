//! Which policies are in force, kept current by two watches: of the policies, and of the approvals.

use std::collections::{BTreeMap, BTreeSet};

use guardian_core::names;
use guardian_core::policy::{self, Approvals, Policies};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::ResourceExt as _;
use kube::runtime::watcher::{Config, Event};
use prometheus::{IntCounter, IntGauge, Registry};

/// Policies and approvals, as their watches tell them.
pub(crate) struct Watched {
    policies: Policies,
    /// What the list under way has shown: nothing of it counts before it is complete.
    listed: Vec<ConfigMap>,
    /// The approvals that the list under way has shown.
    listed_approvals: Option<ConfigMap>,
    /// Version of the ConfigMap that the approvals were read from.
    version: Option<u64>,
    in_force: IntGauge,
    waiting: IntGauge,
    rejects: IntCounter,
}

impl Watched {
    /// Knows nothing yet.
    pub(crate) fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let in_force = IntGauge::new("guardian_policies", "Policies in force")?;
        let waiting = IntGauge::new("guardian_policies_waiting", "Policies whose stored revision is not approved")?;
        let rejects = IntCounter::new("guardian_policy_rejects_total", "Policy ConfigMaps that could not be taken")?;
        registry.register(Box::new(in_force.clone()))?;
        registry.register(Box::new(waiting.clone()))?;
        registry.register(Box::new(rejects.clone()))?;
        let (policies, listed) = (Policies::default(), Vec::new());
        Ok(Self { policies, listed, listed_approvals: None, version: None, in_force, waiting, rejects })
    }

    /// What is known by now.
    pub(crate) fn known(&self) -> &Policies {
        &self.policies
    }

    /// Takes an event of the watch of policies; yields the namespaces that it concerns.
    pub(crate) fn take(&mut self, event: Event<ConfigMap>) -> Vec<String> {
        let concerned = match event {
            Event::Init => {
                self.listed.clear();
                Vec::new()
            }
            Event::InitApply(map) => {
                self.listed.push(map);
                Vec::new()
            }
            Event::InitDone => {
                let listed = std::mem::take(&mut self.listed);
                let names: BTreeSet<_> = listed.iter().map(identity).collect();
                let gone = self.policies.retain(|namespace, name| names.contains(&(namespace.to_owned(), name.to_owned())));
                listed.iter().map(|map| self.put(map)).chain(gone).collect()
            }
            Event::Apply(map) => vec![self.put(&map)],
            Event::Delete(map) => {
                let (namespace, name) = identity(&map);
                self.policies.remove(&namespace, &name);
                vec![namespace]
            }
        };
        self.count();
        concerned
    }

    /// Does an event of the watch of policies bring something that is not approved, as far as is known?
    pub(crate) fn is_unapproved(&self, event: &Event<ConfigMap>) -> bool {
        let is = |map: &ConfigMap| {
            let digest = policy::digest(map.data.as_ref().unwrap_or(&BTreeMap::new()));
            !self.policies.is_approved(&identity(map).0, &digest)
        };
        match event {
            Event::Apply(map) => is(map),
            Event::InitDone => self.listed.iter().any(is),
            Event::Init | Event::InitApply(_) | Event::Delete(_) => false,
        }
    }

    /// Takes an event of the watch of approvals; yields the namespaces that it concerns.
    pub(crate) fn take_approvals(&mut self, event: Event<ConfigMap>) -> Vec<String> {
        match event {
            Event::Init => {
                self.listed_approvals = None;
                Vec::new()
            }
            Event::InitApply(map) => {
                self.listed_approvals = Some(map);
                Vec::new()
            }
            Event::InitDone => {
                // A list is believed, however old its version: the cluster may have been restored from a backup.
                self.version = None;
                let map = self.listed_approvals.take();
                self.approve(map.as_ref())
            }
            Event::Apply(map) => self.approve(Some(&map)),
            Event::Delete(_) => {
                self.version = None;
                self.approve(None)
            }
        }
    }

    /// Takes the approvals as they were read or written; `None`: there is no such ConfigMap. Older ones than are known change nothing:
    /// what was written here a moment ago may come back through the watch only after what others wrote before it.
    pub(crate) fn approve(&mut self, map: Option<&ConfigMap>) -> Vec<String> {
        let version = map.and_then(|map| map.metadata.resource_version.as_ref()?.parse().ok());
        if version.is_some() && version < self.version {
            return Vec::new();
        }
        self.version = version;
        let concerned = self.policies.approve(approvals(map));
        self.count();
        concerned
    }

    /// Reads one ConfigMap; yields its namespace. One that is being deleted stays as it was.
    fn put(&mut self, map: &ConfigMap) -> String {
        let (namespace, _) = identity(map);
        if !put(&mut self.policies, map) {
            self.rejects.inc();
        }
        namespace
    }

    fn count(&self) {
        let (in_force, waiting) = self.policies.count();
        self.in_force.set(in_force.try_into().unwrap_or(i64::MAX));
        self.waiting.set(waiting.try_into().unwrap_or(i64::MAX));
    }
}

/// Reads one ConfigMap into `policies`, unless it is being deleted; can it be read?
pub(crate) fn put(policies: &mut Policies, map: &ConfigMap) -> bool {
    let (namespace, name) = identity(map);
    if map.metadata.deletion_timestamp.is_some() {
        return true;
    }
    let read = policies.put(&namespace, &name, map.data.as_ref().unwrap_or(&BTreeMap::new()));
    if let Err(invalid) = &read {
        tracing::warn!(namespace, name, error = %invalid, "a policy cannot be taken; its last good revision stays in force");
    }
    read.is_ok()
}

/// What a ConfigMap of approvals says; nothing is approved where there is none.
pub(crate) fn approvals(map: Option<&ConfigMap>) -> Approvals {
    map.and_then(|map| map.data.as_ref()).map(Approvals::read).unwrap_or_default()
}

/// Which ConfigMaps hold policies.
pub(crate) fn label_selector() -> String {
    format!("{}=true", names::POLICY)
}

/// `config` for the approvals alone.
pub(crate) fn only_approvals(config: Config) -> Config {
    config.fields(&format!("metadata.name={}", names::APPROVALS))
}

fn identity(map: &ConfigMap) -> (String, String) {
    (map.namespace().unwrap_or_default(), map.name_any())
}

#[cfg(test)]
mod tests {
    use guardian_core::names::POLICY_KEY;
    use guardian_core::policy::digest;
    use kube::api::ObjectMeta;

    use super::*;

    const GOOD: &str = "apiVersion: stateful-guardian.io/v1alpha1\nkind: GuardianPolicy\n";
    const BAD: &str = "nonsense: [";

    fn map(text: &str) -> ConfigMap {
        let metadata = ObjectMeta { name: Some("redis".into()), namespace: Some("shop".into()), ..ObjectMeta::default() };
        ConfigMap { metadata, data: Some(data(text)), ..ConfigMap::default() }
    }

    fn data(text: &str) -> BTreeMap<String, String> {
        BTreeMap::from([(POLICY_KEY.to_owned(), text.to_owned())])
    }

    fn approving(version: &str, text: &str) -> ConfigMap {
        let metadata = ObjectMeta { resource_version: Some(version.to_owned()), ..ObjectMeta::default() };
        let data = BTreeMap::from([(format!("shop.{}", digest(&data(text))), String::new())]);
        ConfigMap { metadata, data: Some(data), ..ConfigMap::default() }
    }

    fn watched() -> Watched {
        Watched::new(&Registry::new()).unwrap()
    }

    fn counted(watched: &Watched) -> (i64, i64, u64) {
        (watched.in_force.get(), watched.waiting.get(), watched.rejects.get())
    }

    #[test]
    fn an_unreadable_edit_leaves_the_last_good_revision_in_force() {
        let mut watched = watched();
        watched.approve(Some(&approving("1", GOOD)));
        assert_eq!(watched.take(Event::Apply(map(GOOD))), ["shop"]);
        watched.take(Event::Apply(map(BAD)));
        assert_eq!(counted(&watched), (1, 0, 1));
        for event in [Event::Init, Event::InitApply(map(BAD)), Event::InitDone] {
            watched.take(event);
        }
        assert_eq!(counted(&watched), (1, 0, 2), "and a list does not change that");
    }

    #[test]
    fn a_policy_that_went_away_unseen_is_gone_after_a_list() {
        let mut watched = watched();
        watched.approve(Some(&approving("1", GOOD)));
        watched.take(Event::Apply(map(GOOD)));
        watched.take(Event::Init);
        assert_eq!(counted(&watched), (1, 0, 0), "as long as the list is under way");
        assert_eq!(watched.take(Event::InitDone), ["shop"]);
        assert_eq!(counted(&watched), (0, 0, 0));
    }

    #[test]
    fn a_policy_on_its_way_out_is_not_read_again() {
        let mut watched = watched();
        let mut leaving = map(GOOD);
        leaving.metadata.deletion_timestamp = serde_json::from_str(r#""2026-01-01T00:00:00Z""#).unwrap();
        watched.take(Event::Apply(leaving));
        assert_eq!(counted(&watched), (0, 0, 0));
    }

    #[test]
    fn approvals_never_go_back_but_by_a_list() {
        let mut watched = watched();
        watched.take(Event::Apply(map(GOOD)));
        assert_eq!(counted(&watched), (0, 1, 0));
        assert_eq!(watched.approve(Some(&approving("12", GOOD))), ["shop"]);
        assert!(watched.take_approvals(Event::Apply(approving("9", "other"))).is_empty(), "written before, seen later");
        assert_eq!(counted(&watched), (1, 0, 0));
        for event in [Event::Init, Event::InitApply(approving("3", "other"))] {
            assert!(watched.take_approvals(event).is_empty());
        }
        assert_eq!(watched.take_approvals(Event::InitDone), ["shop"]);
        assert_eq!(counted(&watched), (0, 1, 0));
    }

    #[test]
    fn without_the_config_map_nothing_is_approved() {
        let mut watched = watched();
        watched.take(Event::Apply(map(GOOD)));
        watched.approve(Some(&approving("1", GOOD)));
        assert_eq!(watched.take_approvals(Event::Delete(approving("2", GOOD))), ["shop"]);
        watched.approve(Some(&approving("3", GOOD)));
        watched.take_approvals(Event::Init);
        assert_eq!(watched.take_approvals(Event::InitDone), ["shop"]);
        assert_eq!(counted(&watched), (0, 1, 0));
    }
}
