//! Who guards a set.

use std::sync::Arc;

use guardian_core::names;
use guardian_core::policy::{Policies, Policy, Revisions};
use guardian_core::reason;

use super::observed::StatefulSet;

/// Who guards a set.
pub(crate) enum Guard {
    /// A policy; with what is to be said of a later edit of it that is not in force.
    Policy(Arc<Policy>, Option<(reason::Hold, String)>),
    Nobody,
    /// A policy that is not approved.
    Waits(String),
    /// Perhaps a policy that cannot be read.
    Invalid(String),
}

impl Guard {
    /// The policy in force.
    pub(super) fn policy(&self) -> Option<&Policy> {
        match self {
            Self::Policy(policy, _) => Some(policy),
            _ => None,
        }
    }

    /// The guard of `set` among all policies.
    pub(super) fn of(set: &StatefulSet, policies: &Policies) -> Self {
        let namespace = set.metadata.namespace.as_deref().unwrap_or_default();
        let named = set.annotation(names::POLICY);
        let choose = |revision: for<'r> fn(&'r Revisions) -> Option<&'r Arc<Policy>>| {
            let candidates = policies.of(namespace).filter_map(|(_, revisions)| revision(revisions)).map(Arc::as_ref);
            let (chosen, _) = Policy::choose(candidates, named, set.labels())?;
            policies.of(namespace).find(|(name, _)| *name == chosen.name).map(|(_, revisions)| revisions)
        };
        let approve = |name: &str| format!("run `guardian approve -n {namespace} {name}`");
        if let Some(revisions) = choose(|revisions| revisions.in_force.as_ref())
            && let Some(policy) = &revisions.in_force
        {
            let (name, revision) = (&policy.name, &policy.revision);
            let edited = match &revisions.stored {
                Err(error) => Some((reason::Hold::PolicyInvalid, "cannot be read", error.clone())),
                Ok(_) => revisions.waiting().map(|_| (reason::Hold::PolicyNotApproved, "is not approved", approve(name))),
            };
            let edited = edited.map(|(reason, is, then)| {
                (reason, format!("the last edit of policy {name} {is}, so revision {revision} stays in force: {then}"))
            });
            return Self::Policy(Arc::clone(policy), edited);
        }
        if let Some(policy) = choose(Revisions::waiting).and_then(Revisions::waiting) {
            return Self::Waits(format!("policy {} is not approved: {}", policy.name, approve(&policy.name)));
        }
        let mut bad = policies.of(namespace).filter_map(|(name, revisions)| Some((name, revisions.stored.as_ref().err()?)));
        let bad = bad.find(|(name, _)| named.is_none_or(|named| named == *name));
        bad.map_or(Self::Nobody, |(name, error)| Self::Invalid(format!("policy {name} cannot be read: {error}")))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use guardian_core::names::POLICY_KEY;
    use guardian_core::policy::{Approvals, digest};
    use serde_json::json;

    use super::*;

    /// A policy for sets of an application; the word makes it another revision.
    fn data(app: &str, word: &str) -> BTreeMap<String, String> {
        let head = "apiVersion: stateful-guardian.io/v1alpha1\nkind: GuardianPolicy\n";
        let text =
            if app.is_empty() { "nonsense: [".to_owned() } else { format!("{head}selector: {{matchLabels: {{app: {app}}}}}\n") };
        BTreeMap::from([(POLICY_KEY.to_owned(), text), ("word".to_owned(), word.to_owned())])
    }

    /// A policy that is written: its name, its application, and a word.
    type Written<'t> = (&'t str, &'t str, &'t str);

    /// Policies are written one after the other: name, application and word; those whose word is `ok` are approved.
    fn guard(written: &[Written<'_>], named: Option<&str>) -> String {
        let mut policies = Policies::default();
        let approved = written.iter().filter(|(_, _, word)| *word == "ok");
        let keys = approved.map(|(_, app, word)| (format!("shop.{}", digest(&data(app, word))), String::new()));
        policies.approve(Approvals::read(&keys.collect()));
        for (name, app, word) in written {
            let _ = policies.put("shop", name, &data(app, word));
        }
        let annotations: BTreeMap<&str, &str> = named.map(|name| (names::POLICY, name)).into_iter().collect();
        let metadata = json!({"name": "redis", "namespace": "shop", "labels": {"app": "redis"}, "annotations": annotations});
        match Guard::of(&serde_json::from_value(json!({"metadata": metadata})).unwrap(), &policies) {
            Guard::Policy(policy, edited) => {
                format!("{}{}", policy.name, edited.map_or(String::new(), |(reason, why)| format!(", {reason}: {why}")))
            }
            Guard::Nobody => "nobody".into(),
            Guard::Waits(why) | Guard::Invalid(why) => why,
        }
    }

    #[test]
    fn the_approved_policy_guards_and_whatever_else_may_be_meant_is_named() {
        let named = Some("b");
        let waits = "policy b is not approved: run `guardian approve -n shop b`";
        let cases: [(&[Written<'_>], Option<&str>, &str); 11] = [
            (&[], None, "nobody"),
            (&[("a", "other", "ok"), ("b", "other", "new")], None, "nobody"),
            (&[("a", "redis", "ok")], None, "a"),
            (&[("b", "redis", "new")], None, waits),
            (&[("a", "redis", "ok"), ("b", "redis", "new")], None, "a"),
            (&[("a", "redis", "new"), ("b", "redis", "ok")], None, "b"),
            (&[("a", "redis", "ok"), ("b", "other", "new")], named, waits),
            (&[("a", "redis", "ok"), ("b", "other", "ok")], named, "b"),
            (&[("a", "", "ok")], None, "policy a cannot be read: "),
            (&[("a", "", "ok")], named, "nobody"),
            // An edit that would guard the set, where the revision in force does not.
            (&[("b", "other", "ok"), ("b", "redis", "new")], None, waits),
        ];
        for (written, named, expected) in cases {
            let is = guard(written, named);
            assert!(is == expected || (expected.ends_with(": ") && is.starts_with(expected)), "{written:?}: {is}");
        }
    }

    #[test]
    fn an_edit_that_is_not_approved_or_cannot_be_read_is_told_beside_the_revision_that_stays_in_force() {
        for (app, word, expected) in [
            ("redis", "new", "b, PolicyNotApproved: the last edit of policy b is not approved, so revision "),
            ("", "ok", "b, PolicyInvalid: the last edit of policy b cannot be read, so revision "),
            ("", "new", "b, PolicyInvalid: the last edit of policy b cannot be read, so revision "),
        ] {
            let edited = guard(&[("b", "redis", "ok"), ("b", app, word)], None);
            assert!(edited.starts_with(expected) && edited.contains(" stays in force: "), "{edited}");
        }
    }
}
