//! Validation of policy ConfigMaps.

use super::review::ConfigMap;
use super::verdict::{Reason, Verdict};
use crate::names;
use crate::policy;

/// Is this ConfigMap a policy, and one that can be acted on?
pub(super) fn policy(map: &ConfigMap) -> Verdict {
    if map.metadata.labels.get(names::POLICY).map(String::as_str) != Some("true") {
        return Verdict::untouched(Reason::NotAPolicy);
    }
    if !map.binary_data.is_empty() {
        let keys: Vec<&str> = map.binary_data.keys().map(String::as_str).collect();
        let keys = keys.join(", ");
        return Verdict::deny(Reason::InvalidPolicy, 422, format!("binaryData is not read ({keys}): put text into `data`"));
    }
    match policy::parse(&map.metadata.name, &map.data) {
        Ok(policy) => {
            let mut verdict = Verdict::untouched(Reason::ValidPolicy);
            verdict.warnings.extend(policy.warnings());
            verdict.policy = Some((policy.name, policy.revision));
            verdict
        }
        Err(invalid) => Verdict::deny(Reason::InvalidPolicy, 422, invalid.to_string()),
    }
}
