//! Changes, and how a watch with a label selector sees them.

use std::collections::BTreeMap;

use serde_json::Value;

use super::{Key, Resource};

/// One change of one object.
#[derive(Clone, Debug, PartialEq)]
pub struct Change {
    /// The world's version with it.
    pub version: u64,
    /// The object.
    pub key: Key,
    /// What it was; `None` when it was made.
    pub before: Option<Value>,
    /// What it is; `None` when it is gone.
    pub after: Option<Value>,
}

/// What a watch is told.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    /// `type`.
    pub kind: EventKind,
    /// `object`.
    pub object: Value,
}

/// `type` of a watch event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventKind {
    /// It is there, or matches from now on.
    Added,
    /// It has changed.
    Modified,
    /// It is gone, or does not match any more.
    Deleted,
}

impl EventKind {
    /// The word on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Added => "ADDED",
            Self::Modified => "MODIFIED",
            Self::Deleted => "DELETED",
        }
    }
}

impl Change {
    /// What a watch of `resource` in `namespace` (empty: all) for objects with these labels is told of it.
    #[must_use]
    pub fn event(&self, resource: &Resource, namespace: &str, labels: &BTreeMap<String, String>) -> Option<Event> {
        if self.key.resource != *resource || !(namespace.is_empty() || self.key.namespace == namespace) {
            return None;
        }
        let before = self.before.as_ref().filter(|o| has_labels(o, labels));
        let after = self.after.as_ref().filter(|o| has_labels(o, labels));
        let (kind, object) = match (before, after) {
            (None, None) => return None,
            (None, Some(after)) => (EventKind::Added, after.clone()),
            (Some(_), Some(after)) => (EventKind::Modified, after.clone()),
            (Some(before), None) => {
                let mut object = before.clone();
                object["metadata"]["resourceVersion"] = Value::String(self.version.to_string());
                (EventKind::Deleted, object)
            }
        };
        Some(Event { kind, object })
    }
}

/// Has the object all of these labels?
#[must_use]
pub fn has_labels(object: &Value, labels: &BTreeMap<String, String>) -> bool {
    labels.iter().all(|(key, value)| object["metadata"]["labels"][key] == *value.as_str())
}
