//! What a container is to have by a resize, written down before it is asked for: so it is the same for whoever asks, and however often.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::Rest;
use crate::policy::Resource;

/// Limits and requests of one container, in bytes and thousandths of a core.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Resize {
    /// Name of the container.
    pub container: String,
    /// The limits that it had.
    pub from: BTreeMap<Resource, u64>,
    /// The limits that it is to have, of the same resources.
    pub limits: BTreeMap<Resource, u64>,
    /// The requests that it is to have, of those of them that it has a request for.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub requests: BTreeMap<Resource, u64>,
    /// What a newer guardian added.
    #[serde(flatten)]
    pub rest: Rest,
}
