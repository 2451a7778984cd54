//! The policies of a namespace, as far as somebody who is not the webhook can tell which are in force.

use std::collections::{BTreeMap, BTreeSet};

use guardian_core::admission::Snapshot;
use guardian_core::policy::{self, Approvals};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::ResourceExt as _;

/// The policies of a namespace.
pub(crate) struct Policies {
    /// In force is, and waits, what the approvals say; where those are not known, everything is believed to be in force.
    pub(crate) snapshot: Snapshot,
    /// Policies that cannot be read, and why. Their last good revision is in force; only the webhook knows which that is.
    pub(crate) problems: Vec<String>,
}

/// The policies that their ConfigMaps hold, under these approvals, and what is wrong with those that cannot be read.
pub(crate) fn stored<'m>(
    namespace: &str,
    maps: impl IntoIterator<Item = &'m ConfigMap>,
    approvals: Approvals,
) -> (policy::Policies, Vec<String>) {
    let mut policies = policy::Policies::default();
    policies.approve(approvals);
    let mut problems = Vec::new();
    for map in maps {
        let name = map.name_any();
        if let Err(invalid) = policies.put(namespace, &name, map.data.as_ref().unwrap_or(&BTreeMap::new())) {
            problems.push(format!("policy {name} of {namespace}: {invalid}"));
        }
    }
    (policies, problems)
}

impl Policies {
    /// From their ConfigMaps. `classes`: the PriorityClasses that there are, where that is known.
    pub(crate) fn of<'m>(
        namespace: &str,
        maps: impl IntoIterator<Item = &'m ConfigMap>,
        approvals: Option<&Approvals>,
        classes: Option<BTreeSet<String>>,
    ) -> Self {
        let (policies, problems) = stored(namespace, maps, approvals.cloned().unwrap_or_default());
        let (in_force, waiting) = match approvals {
            Some(_) => (policies.in_force(), policies.waiting()),
            // Without an approval all of them wait.
            None => (policies.waiting(), BTreeMap::new()),
        };
        let snapshot = Snapshot { policies: in_force, waiting, priority_classes: classes, ..Snapshot::default() };
        Self { snapshot, problems }
    }
}
