//! A Service that asks for the label `serving` goes on asking, whoever writes it without: a Helm upgrade, a server-side apply or `kubectl replace` bring the
//! selector as its author knows it, and until the controller had put the label back, Services would send to pods that were taken out of them.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::patch::Patch;
use super::review::Review;
use super::tree::Tree;
use super::{Decision, Reason, Snapshot, Verdict};
use crate::names;

/// The ServiceAccount of the controller, in whatever namespace it is installed: it alone takes the label out again.
const CONTROLLER: (&str, &str) = ("system:serviceaccount:", ":guardian-controller");

#[derive(Deserialize)]
struct Service {
    #[serde(default)]
    spec: Spec,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Spec {
    selector: Option<BTreeMap<String, String>>,
    #[serde(default)]
    r#type: Option<String>,
}

impl Service {
    fn asks(&self) -> bool {
        self.spec.selector.as_ref().is_some_and(|selector| selector.contains_key(names::SERVING))
    }

    /// Does it choose pods at all?
    fn selects(&self) -> bool {
        let is_name = self.spec.r#type.as_deref() == Some("ExternalName");
        !is_name && self.spec.selector.as_ref().is_some_and(|selector| !selector.is_empty())
    }
}

/// Puts the label back where the stored Service has it, the new one has not, and a policy names the Service.
pub(super) fn judge(review: &Review<'_>, snapshot: &Snapshot) -> Verdict {
    let (prefix, suffix) = CONTROLLER;
    let by_controller = review.user.starts_with(prefix) && review.user.ends_with(suffix);
    let (Ok(Some(old)), Ok(Some(new))) = (review.old_object::<Service>(), review.object::<Service>()) else {
        return Verdict::untouched(Reason::Unreadable);
    };
    if by_controller || !old.asks() || new.asks() || !new.selects() {
        return Verdict::untouched(Reason::NotOurs);
    }
    let (namespace, name) = (review.namespace.as_ref(), review.name.as_ref());
    let policies = snapshot.policies.get(namespace).into_iter().flat_map(BTreeMap::values);
    let names_it = |traffic: &crate::policy::Traffic| traffic.services.iter().any(|service| service == name);
    let Some(policy) = policies.into_iter().find(|policy| policy.traffic.as_ref().is_some_and(names_it)) else {
        return Verdict::untouched(Reason::NoPolicy);
    };
    let mut patch = Patch::default();
    patch.add(&format!("/spec/selector/{}", names::SERVING.replace('/', "~1")), &Tree::string("true"));
    let why = format!("the selector keeps {}: policy {} names this Service in traffic", names::SERVING, policy.name);
    Verdict {
        decision: Decision::Patched,
        patch,
        changes: vec!["serving"],
        policy: Some((policy.name.clone(), policy.revision.clone())),
        ..Verdict::untouched(Reason::Restored).warn(why)
    }
}
