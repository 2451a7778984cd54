//! Which revision of each policy is in force: the last one that can be read and is approved.
//!
//! An edit that cannot be read, or that nobody approved, leaves what is in force as it was. What is in force ends with its approval, or
//! with the policy.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{Approvals, Invalid, Policy, parse};

/// Policies by namespace, then by name.
pub type ByNamespace = BTreeMap<String, BTreeMap<String, Arc<Policy>>>;

/// All policies that are stored, and the approvals.
#[derive(Clone, Debug, Default)]
pub struct Policies {
    stored: BTreeMap<String, BTreeMap<String, Revisions>>,
    approvals: Approvals,
}

/// What is known of one policy.
#[derive(Clone, Debug)]
pub struct Revisions {
    /// What is stored now, or why it cannot be read.
    pub stored: Result<Arc<Policy>, String>,
    /// What is acted on.
    pub in_force: Option<Arc<Policy>>,
}

impl Revisions {
    /// The stored revision, where it can be read and is not in force: it is not approved.
    #[must_use]
    pub fn waiting(&self) -> Option<&Arc<Policy>> {
        self.stored.as_ref().ok().filter(|stored| self.in_force.as_ref().is_none_or(|known| known.digest != stored.digest))
    }

    fn settle(&mut self, namespace: &str, approvals: &Approvals) {
        let is_approved = |policy: &&Arc<Policy>| approvals.contains(namespace, &policy.digest);
        let stored = self.stored.as_ref().ok().filter(is_approved);
        self.in_force = stored.or(self.in_force.as_ref().filter(is_approved)).cloned();
    }
}

impl Policies {
    /// A policy ConfigMap is stored with this data.
    ///
    /// # Errors
    /// When it cannot be read. That is remembered.
    pub fn put(&mut self, namespace: &str, name: &str, data: &BTreeMap<String, String>) -> Result<(), Invalid> {
        let parsed = parse(name, data);
        let stored = parsed.as_ref().map(|policy| Arc::new(policy.clone())).map_err(ToString::to_string);
        let of_namespace = self.stored.entry(namespace.to_owned()).or_default();
        let in_force = of_namespace.remove(name).and_then(|before| before.in_force);
        let mut revisions = Revisions { stored, in_force };
        revisions.settle(namespace, &self.approvals);
        of_namespace.insert(name.to_owned(), revisions);
        parsed.map(drop)
    }

    /// A policy ConfigMap is gone, or is none any more.
    pub fn remove(&mut self, namespace: &str, name: &str) {
        if let Some(of_namespace) = self.stored.get_mut(namespace) {
            of_namespace.remove(name);
            if of_namespace.is_empty() {
                self.stored.remove(namespace);
            }
        }
    }

    /// Only these policies are there; yields the namespaces that have lost one.
    pub fn retain(&mut self, is_there: impl Fn(&str, &str) -> bool) -> Vec<String> {
        let mut concerned = Vec::new();
        for (namespace, of_namespace) in &mut self.stored {
            let before = of_namespace.len();
            of_namespace.retain(|name, _| is_there(namespace, name));
            if of_namespace.len() < before {
                concerned.push(namespace.clone());
            }
        }
        self.stored.retain(|_, of_namespace| !of_namespace.is_empty());
        concerned
    }

    /// These are all approvals now; yields the namespaces in which something else is in force, or waits, than before.
    pub fn approve(&mut self, approvals: Approvals) -> Vec<String> {
        self.approvals = approvals;
        let digest = |revisions: &Revisions| revisions.in_force.as_ref().map(|policy| policy.digest.clone());
        let mut concerned = Vec::new();
        for (namespace, of_namespace) in &mut self.stored {
            let mut changed = false;
            for revisions in of_namespace.values_mut() {
                let before = digest(revisions);
                revisions.settle(namespace, &self.approvals);
                changed |= digest(revisions) != before;
            }
            if changed {
                concerned.push(namespace.clone());
            }
        }
        concerned
    }

    /// Is this content of a policy approved in this namespace?
    #[must_use]
    pub fn is_approved(&self, namespace: &str, digest: &str) -> bool {
        self.approvals.contains(namespace, digest)
    }

    /// Is a policy of this content stored or in force in this namespace?
    #[must_use]
    pub fn is_in_use(&self, namespace: &str, digest: &str) -> bool {
        let both = |r: &Revisions| r.stored.as_ref().ok().into_iter().chain(&r.in_force).any(|policy| policy.digest == digest);
        self.stored.get(namespace).is_some_and(|of_namespace| of_namespace.values().any(both))
    }

    /// The policies of a namespace, by name.
    pub fn of(&self, namespace: &str) -> impl Iterator<Item = (&str, &Revisions)> {
        self.stored.get(namespace).into_iter().flatten().map(|(name, revisions)| (name.as_str(), revisions))
    }

    /// The same without those of other namespaces.
    #[must_use]
    pub fn only(&self, namespace: &str) -> Self {
        let of_namespace = self.stored.get_key_value(namespace);
        let stored = of_namespace.map(|(namespace, policies)| (namespace.clone(), policies.clone())).into_iter().collect();
        Self { stored, approvals: self.approvals.clone() }
    }

    /// How many are in force, and how many wait.
    #[must_use]
    pub fn count(&self) -> (usize, usize) {
        let all = || self.stored.values().flat_map(BTreeMap::values);
        (all().filter(|r| r.in_force.is_some()).count(), all().filter(|r| r.waiting().is_some()).count())
    }

    /// What is in force.
    #[must_use]
    pub fn in_force(&self) -> ByNamespace {
        self.select(|revisions| revisions.in_force.as_ref())
    }

    /// What is stored and not approved.
    #[must_use]
    pub fn waiting(&self) -> ByNamespace {
        self.select(Revisions::waiting)
    }

    fn select(&self, which: impl Fn(&Revisions) -> Option<&Arc<Policy>>) -> ByNamespace {
        let of_one = |policies: &BTreeMap<String, Revisions>| -> BTreeMap<_, _> {
            policies.iter().filter_map(|(name, revisions)| Some((name.clone(), Arc::clone(which(revisions)?)))).collect()
        };
        let all = self.stored.iter().map(|(namespace, policies)| (namespace.clone(), of_one(policies)));
        all.filter(|(_, policies)| !policies.is_empty()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::names::POLICY_KEY;

    /// A content of a policy: `0` cannot be read, all others can.
    fn data(content: char) -> BTreeMap<String, String> {
        let head = "apiVersion: stateful-guardian.io/v1alpha1\nkind: GuardianPolicy\n";
        let text = if content == '0' { "nonsense".to_owned() } else { format!("{head}protect: {{minReplicas: {content}}}\n") };
        BTreeMap::from([(POLICY_KEY.to_owned(), text)])
    }

    fn digest(content: char) -> String {
        super::super::digest(&data(content))
    }

    fn approvals(contents: &str) -> Approvals {
        Approvals::read(&contents.chars().map(|content| (format!("shop.{}", digest(content)), String::new())).collect())
    }

    fn content(policy: Option<&Arc<Policy>>) -> String {
        policy.and_then(|policy| policy.protect.min_replicas).map_or("-".to_owned(), |n| n.to_string())
    }

    /// What is in force and what waits, such as `1 2`.
    fn standing(policies: &Policies) -> String {
        let of = |all: &ByNamespace| content(all.get("shop").and_then(|shop| shop.get("redis")));
        format!("{} {}", of(&policies.in_force()), of(&policies.waiting()))
    }

    /// What happens, one after the other: `=1` is written, `+12` are all the approvals, `x` is deleted.
    fn play(story: &str) -> String {
        let mut policies = Policies::default();
        for happens in story.split(' ') {
            let (what, contents) = happens.split_at(1);
            match what {
                "=" => drop(policies.put("shop", "redis", &data(contents.chars().next().unwrap()))),
                "+" => drop(policies.approve(approvals(contents))),
                _ => policies.remove("shop", "redis"),
            }
        }
        standing(&policies)
    }

    #[test]
    fn the_last_revision_that_is_readable_and_approved_is_in_force() {
        for (story, expected) in [
            // Whichever is seen first, the policy or its approval.
            ("+1 =1", "1 -"),
            ("=1 +1", "1 -"),
            ("=1", "- 1"),
            ("=0", "- -"),
            ("+0 =0", "- -"),
            // An edit waits, and what was in force stays.
            ("+1 =1 =2", "1 2"),
            ("+1 =1 =2 +12", "2 -"),
            ("+1 =1 =2 =1", "1 -"),
            ("+1 =1 =2 =3 +13", "3 -"),
            ("+1 =1 =0", "1 -"),
            ("+1 =1 =0 =2", "1 2"),
            ("+12 =1 =2", "2 -"),
            ("+12 =1 =2 =0", "2 -"),
            // An approval that is taken back.
            ("+1 =1 +", "- 1"),
            ("+1 =1 =2 +", "- 2"),
            ("+1 =1 =0 +", "- -"),
            ("+12 =1 =2 +1", "- 2"),
            ("+1 =1 + +1", "1 -"),
            // A policy that is gone leaves nothing behind.
            ("+1 =1 x", "- -"),
            ("+1 =1 x =2", "- 2"),
            ("+1 =1 x =1", "1 -"),
        ] {
            assert_eq!(play(story), expected, "{story}");
        }
    }

    #[test]
    fn an_approval_counts_in_its_namespace_alone() {
        let mut policies = Policies::default();
        policies.approve(approvals("1"));
        policies.put("bank", "redis", &data('1')).unwrap();
        assert!(policies.in_force().is_empty());
        assert_eq!(policies.of("bank").filter_map(|(_, revisions)| revisions.waiting()).count(), 1);
    }

    #[test]
    fn whoever_is_concerned_by_a_change_of_the_approvals_is_told() {
        let mut policies = Policies::default();
        policies.put("shop", "redis", &data('1')).unwrap();
        policies.put("bank", "redis", &data('1')).unwrap();
        assert_eq!(policies.approve(approvals("1")), ["shop"]);
        assert!(policies.approve(approvals("12")).is_empty());
        assert_eq!(policies.approve(approvals("2")), ["shop"]);
    }

    #[test]
    fn in_use_is_what_is_stored_and_what_is_in_force() {
        let mut policies = Policies::default();
        policies.approve(approvals("1"));
        policies.put("shop", "redis", &data('1')).unwrap();
        policies.put("shop", "redis", &data('2')).unwrap();
        let in_use = |namespace| ['1', '2', '3'].map(|content| policies.is_in_use(namespace, &digest(content)));
        assert_eq!(in_use("shop"), [true, true, false]);
        assert_eq!(in_use("bank"), [false, false, false]);
    }

    #[test]
    fn what_a_list_does_not_show_is_gone() {
        let mut policies = Policies::default();
        policies.approve(approvals("1"));
        policies.put("shop", "redis", &data('1')).unwrap();
        assert!(policies.retain(|_, _| true).is_empty());
        assert_eq!(policies.retain(|_, name| name != "redis"), ["shop"]);
        assert_eq!(standing(&policies), "- -");
    }
}
