//! One start of a container, and which of two was earlier.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::Rest;

/// One start of the container in which hooks run. Pod uid and container id name it; the rest tells what it was.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Start {
    /// `metadata.uid` of the pod.
    pub pod_uid: String,
    /// `containerID`, with its scheme.
    pub container_id: String,
    /// Name of the container.
    pub container: String,
    /// `restartCount` of the container.
    pub restarts: u32,
    /// `metadata.creationTimestamp` of the pod.
    pub created: Timestamp,
    /// `state.running.startedAt`, where it was running when seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started: Option<Timestamp>,
    /// `controller-revision-hash` of the pod.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub revision: String,
    /// `status.podIP`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ip: Option<String>,
    /// `status.nodeInfo.bootID` of its node, where that is told.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub boot: String,
    /// `metadata.uid` of the pod's first volume claim, where it has one: what the pod's data lives in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub volume: Option<String>,
    /// What a newer guardian added.
    #[serde(flatten)]
    pub rest: Rest,
}

impl Start {
    /// Is it the same start?
    #[must_use]
    pub fn is(&self, other: &Self) -> bool {
        self.pod_uid == other.pod_uid && self.container_id == other.container_id
    }

    /// Was it before `other`? Then a view that shows it lags behind what is known.
    #[must_use]
    pub fn is_older_than(&self, other: &Self) -> bool {
        if self.pod_uid != other.pod_uid {
            return self.created < other.created;
        }
        // The count alone can fall back when a node loses its logs, the time alone when its clock is set: both together do not.
        let began_before = matches!((self.started, other.started), (Some(a), Some(b)) if a < b);
        self.restarts < other.restarts && began_before
    }

    /// Names it within its set: the first 8 digits of the pod's uid and the first 12 of the container's id.
    #[must_use]
    pub fn short(&self) -> String {
        let uid: String = self.pod_uid.chars().filter(char::is_ascii_alphanumeric).take(8).collect();
        let id = self.container_id.rsplit('/').next().unwrap_or_default();
        let id: String = id.chars().filter(char::is_ascii_alphanumeric).take(12).collect();
        format!("{uid}-{id}")
    }
}
