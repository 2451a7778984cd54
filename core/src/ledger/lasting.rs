//! What lasts for a time, and is undone.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::Rest;

/// A pod that no Service of `traffic` sends to, for a time.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Shed {
    /// Name of the pod.
    pub pod: String,
    /// When it began.
    pub since: Timestamp,
    /// When it ends, whatever happens; `None`: with its rule.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Timestamp>,
    /// Key of the rule that has shed it; `None`: a person.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
    /// Why, in the words of whoever asked for it.
    #[serde(default)]
    pub why: String,
    /// The hook that ends the connections which were there has run.
    #[serde(default)]
    pub drained: bool,
    /// What a newer guardian added.
    #[serde(flatten)]
    pub rest: Rest,
}

/// A rule that has set in for a pod.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Fired {
    /// Its name.
    pub rule: String,
    /// Name of the pod.
    pub pod: String,
    /// `metadata.uid` of the pod.
    pub pod_uid: String,
    /// When.
    pub since: Timestamp,
    /// Actions that had their turn.
    #[serde(default)]
    pub actions: u32,
    /// When the last one had.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub acted: Option<Timestamp>,
    /// Since when it is over, and being undone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub over: Option<Timestamp>,
    /// The tasks that undo it, as they were named when it set in.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub undo: Vec<String>,
    /// Of which so many had their turn.
    #[serde(default)]
    pub undone: u32,
    /// A task or a hook was run for it.
    #[serde(default)]
    pub ran: bool,
    /// What a newer guardian added.
    #[serde(flatten)]
    pub rest: Rest,
}
