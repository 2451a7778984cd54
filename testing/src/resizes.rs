//! What the containers of the set may use: the subresource `pods/resize`, and what a kubelet makes of it (KEP-1287).

use guardian_core::sim::{Key, Refused, World};
use serde_json::{Value, json};

use crate::stage::Stage;
use crate::workload::pod_key;

impl Stage {
    /// The container of a new pod has these resources, and has been given them.
    pub fn allot(&self, ordinal: u32, resources: &Value) {
        self.edit(&pod_key(ordinal), |pod| {
            pod["metadata"]["generation"] = json!(1);
            pod["spec"]["containers"][0]["resources"] = resources.clone();
            pod["status"]["containerStatuses"][0]["resources"] = resources.clone();
        });
    }

    /// What the container of a pod is to have, and how often that was changed.
    #[must_use]
    pub fn allotted(&self, ordinal: u32) -> (Value, u64) {
        let pod = self.get(&pod_key(ordinal));
        (
            pod["spec"]["containers"][0]["resources"].clone(),
            pod["metadata"]["generation"].as_u64().map_or(0, |generation| generation - 1),
        )
    }

    /// The kubelet gives a container what it is to have.
    pub fn give(&self, ordinal: u32) {
        self.edit(&pod_key(ordinal), |pod| {
            pod["status"]["containerStatuses"][0]["resources"] = pod["spec"]["containers"][0]["resources"].clone();
            drop_conditions(pod);
        });
    }

    /// The kubelet does not give it: `Deferred` or `Infeasible`.
    pub fn refuse_to_give(&self, ordinal: u32, reason: &str, message: &str) {
        self.edit(&pod_key(ordinal), |pod| {
            drop_conditions(pod);
            let generation = pod["metadata"]["generation"].clone();
            let condition = json!({
                "type": "PodResizePending", "status": "True", "reason": reason, "message": message, "observedGeneration": generation,
            });
            if let Some(conditions) = pod["status"]["conditions"].as_array_mut() {
                conditions.push(condition);
            }
        });
    }
}

fn drop_conditions(pod: &mut Value) {
    if let Some(conditions) = pod["status"]["conditions"].as_array_mut() {
        conditions.retain(|condition| !condition["type"].as_str().unwrap_or_default().starts_with("PodResize"));
    }
}

/// Requests and limits of containers are merged, as a strategic merge patch has them; nothing else of the pod changes, and its QoS class may not.
pub(crate) fn resize(world: &mut World, key: &Key, patch: &Value) -> Result<Value, Refused> {
    let mut pod = world.get(key)?.clone();
    let uid = &patch["metadata"]["uid"];
    if uid.is_string() && *uid != pod["metadata"]["uid"] {
        return Err(Refused { code: 409, reason: "Conflict", message: "the uid in the precondition does not match".to_owned() });
    }
    let before = is_guaranteed(&pod);
    let old = pod["spec"].clone();
    for asked in patch["spec"]["containers"].as_array().into_iter().flatten() {
        let there = pod["spec"]["containers"].as_array_mut().into_iter().flatten().find(|there| there["name"] == asked["name"]);
        let Some(there) = there else {
            return Err(Refused { code: 422, reason: "Invalid", message: "containers may not be added".to_owned() });
        };
        json_patch::merge(&mut there["resources"], &asked["resources"]);
    }
    if is_guaranteed(&pod) != before {
        let message = "Pod QOS Class may not change as a result of resizing".to_owned();
        return Err(Refused { code: 422, reason: "Invalid", message });
    }
    if pod["spec"] != old {
        let generation = pod["metadata"]["generation"].as_u64().unwrap_or_default();
        pod["metadata"]["generation"] = json!(generation + 1);
    }
    world.update(key, pod).cloned()
}

fn is_guaranteed(pod: &Value) -> bool {
    let all = pod["spec"]["containers"].as_array();
    all.is_some_and(|all| {
        all.iter().all(|c| c["resources"]["limits"].is_object() && c["resources"]["limits"] == c["resources"]["requests"])
    })
}
