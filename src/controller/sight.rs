//! One set as its objects say it now, for whoever acts beside the controller: a command of its owner is claimed on the same view of the set, and
//! becomes the same request.

use std::collections::{BTreeMap, BTreeSet};

use guardian_core::lifecycle::{self, Observed};
use guardian_core::policy::Policies;
use jiff::Timestamp;
use serde::Deserialize as _;
use serde_json::Value;

use super::observed::{Pod, StatefulSet};
use super::policies::Guard;

/// A StatefulSet and its guarded pods.
pub(crate) struct Sight {
    set: StatefulSet,
    observed: Observed,
}

impl Sight {
    /// From the set and the guarded pods of its namespace, as the API server sent them. `hold` is the namespace's.
    ///
    /// # Errors
    /// When one of them is not what it should be.
    pub(crate) fn of(namespace: &str, hold: Option<&str>, set: &Value, pods: Vec<Value>) -> Result<Self, serde_json::Error> {
        let set = StatefulSet::deserialize(set)?;
        let pods: Vec<Pod> = pods.into_iter().map(serde_json::from_value).collect::<Result<_, _>>()?;
        let of_set = set.observed(hold);
        let by_ordinal = |pod: &Pod| -> Option<(u32, lifecycle::Pod)> {
            let pod = pod.observed(&of_set.uid)?;
            let ordinal = pod.name.strip_prefix(&of_set.name)?.strip_prefix('-')?.parse().ok()?;
            of_set.ordinals.contains(&ordinal).then_some((ordinal, pod))
        };
        let pods = pods.iter().filter_map(by_ordinal).collect();
        let observed = Observed {
            namespace: namespace.to_owned(),
            set: of_set,
            pods,
            departed: BTreeMap::new(),
            volumes: BTreeMap::new(),
            roles: BTreeMap::new(),
            gauges: BTreeMap::new(),
            watched: Timestamp::UNIX_EPOCH,
            hand_overs: Vec::new(),
            budgets: Vec::new(),
            services: Vec::new(),
            running: BTreeSet::new(),
            ends: BTreeMap::new(),
            refused: BTreeMap::new(),
        };
        Ok(Self { set, observed })
    }

    /// As the core sees it; of its runs, volumes and evictions nothing is known.
    pub(crate) const fn observed(&self) -> &Observed {
        &self.observed
    }

    /// Who guards it.
    pub(crate) fn guard(&self, policies: &Policies) -> Guard {
        Guard::of(&self.set, policies)
    }
}
