//! What may happen to a set.

use std::fmt;
use std::str::FromStr;

use crate::policy::nearest;

/// What is rehearsed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scenario {
    /// The set is made, on new volumes.
    FirstStart,
    /// The application of a pod ends with an error.
    Crash,
    /// The kernel kills it at its memory limit.
    Oom,
    /// The kubelet ends it because its liveness probe fails.
    Liveness,
    /// Somebody deletes a pod.
    Delete,
    /// A pod is evicted, as a drain of its node does it.
    Drain,
    /// The node of a pod is gone and never comes back.
    NodeLost,
    /// The nodes of several pods lose their power, and come back.
    ZoneOutage,
    /// The set is given more replicas.
    ScaleOut,
    /// The set is given fewer replicas.
    ScaleIn,
    /// The template of the set is changed.
    Rollout,
    /// What a rule of the policy looks at is beyond its bound for a time.
    Rule(String),
}

/// What the scenario of a rule begins with.
const RULE: &str = "rule:";

/// A word that names no scenario.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("there is no scenario {word:?}{}", .nearest.as_ref().map_or_else(|| format!(": there are {}", all()), |n| format!(": did you mean {n}?")))]
pub struct NoScenario {
    word: String,
    nearest: Option<String>,
}

impl Scenario {
    /// Those with a name of their own, and what happens in each.
    pub const NAMED: &'static [(&'static str, Self, &'static str)] = &[
        ("first-start", Self::FirstStart, "The set is made, on new volumes"),
        ("crash", Self::Crash, "The application of a pod ends with an error"),
        ("oom", Self::Oom, "The kernel kills it at its memory limit"),
        ("liveness", Self::Liveness, "The kubelet ends it, because its liveness probe fails"),
        ("delete", Self::Delete, "Somebody deletes a pod"),
        ("drain", Self::Drain, "A pod is evicted, as `kubectl drain` does it"),
        ("node-lost", Self::NodeLost, "The node of a pod is gone, and never comes back"),
        ("zone-outage", Self::ZoneOutage, "The nodes of several pods lose their power for a time"),
        ("scale-out", Self::ScaleOut, "The set is given more replicas"),
        ("scale-in", Self::ScaleIn, "The set is given fewer replicas"),
        ("rollout", Self::Rollout, "The template is changed, as `kubectl rollout restart` does it"),
    ];

    /// Does it happen to certain pods?
    #[must_use]
    pub const fn is_about_pods(&self) -> bool {
        !matches!(self, Self::FirstStart | Self::ScaleOut | Self::ScaleIn | Self::Rollout)
    }

    /// Does it come again, if it is asked for?
    #[must_use]
    pub const fn repeats(&self) -> bool {
        matches!(self, Self::Crash | Self::Oom | Self::Liveness)
    }

    /// Does it change the number of replicas?
    #[must_use]
    pub const fn scales(&self) -> bool {
        matches!(self, Self::ScaleOut | Self::ScaleIn)
    }
}

impl FromStr for Scenario {
    type Err = NoScenario;

    fn from_str(word: &str) -> Result<Self, NoScenario> {
        if let Some(rule) = word.strip_prefix(RULE).filter(|rule| !rule.is_empty()) {
            return Ok(Self::Rule(rule.to_owned()));
        }
        let mut named = Self::NAMED.iter();
        let found = named.find(|(name, ..)| *name == word).map(|(_, scenario, _)| scenario.clone());
        let names = || Self::NAMED.iter().map(|(name, ..)| *name);
        found.ok_or_else(|| NoScenario { word: word.to_owned(), nearest: nearest(word, names()) })
    }
}

impl fmt::Display for Scenario {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Self::Rule(rule) = self {
            return write!(f, "{RULE}{rule}");
        }
        let name = Self::NAMED.iter().find(|(_, scenario, _)| scenario == self).map_or("", |(name, ..)| name);
        f.pad(name)
    }
}

fn all() -> String {
    let names: Vec<&str> = Scenario::NAMED.iter().map(|(name, ..)| *name).collect();
    format!("{} and {RULE}NAME", names.join(", "))
}
