//! The nodes that the pods of the set run on.

use guardian_core::sim::{Key, Resource};
use serde_json::{Value, json};

use crate::stage::Stage;
use crate::workload::{key, pod_key};

fn node_key(ordinal: u32) -> Key {
    Resource::new("v1", "nodes").named("", &format!("node-{ordinal}"))
}

impl Stage {
    /// The pod of each ordinal is on a node of its own, `node-ORDINAL`, which is heard of.
    pub fn spread(&self, replicas: u32) {
        for ordinal in 0..replicas {
            let ready = json!([{"type": "Ready", "status": "True", "lastTransitionTime": self.now()}]);
            let status = json!({"conditions": ready, "nodeInfo": {"bootID": "boot-1"}});
            self.create(&node_key(ordinal), json!({"apiVersion": "v1", "kind": "Node", "status": status}));
            self.edit(&pod_key(ordinal), |pod| pod["spec"]["nodeName"] = json!(format!("node-{ordinal}")));
        }
    }

    /// The node of this ordinal falls silent, and its pod is marked for deletion, as the taint manager does it. It should have stopped by now.
    pub fn lose_node(&self, ordinal: u32) {
        let now = self.now();
        self.edit(&node_key(ordinal), |node| {
            node["status"]["conditions"] = json!([{"type": "Ready", "status": "Unknown", "lastTransitionTime": now}]);
        });
        self.edit(&pod_key(ordinal), |pod| {
            pod["status"]["conditions"] = json!([
                {"type": "Ready", "status": "False"},
                {"type": "DisruptionTarget", "status": "True", "reason": "DeletionByTaintManager"},
            ]);
        });
        self.edit(&pod_key(ordinal), |pod| pod["metadata"]["deletionTimestamp"] = json!(now));
    }

    /// The node is heard of again, after a start of the machine; with it the containers of its pod were started.
    pub fn reboot_node(&self, ordinal: u32) {
        self.edit(&node_key(ordinal), |node| node["status"]["nodeInfo"]["bootID"] = json!("boot-2"));
        self.restart_container(ordinal, "Unknown", 255);
    }

    /// Is the pod of this ordinal there?
    #[must_use]
    pub fn has_pod(&self, ordinal: u32) -> bool {
        !self.get(&pod_key(ordinal)).is_null()
    }

    /// The kubelet says that it ends the container of a pod because its probe failed, and does.
    pub fn fail_liveness(&self, ordinal: u32) {
        let pod = self.get(&pod_key(ordinal));
        let event = json!({
            "apiVersion": "v1", "kind": "Event", "reason": "Killing", "lastTimestamp": self.now(),
            "message": "Container redis failed liveness probe, will be restarted",
            "involvedObject": {
                "kind": "Pod", "name": pod["metadata"]["name"], "uid": pod["metadata"]["uid"], "fieldPath": "spec.containers{redis}",
            },
        });
        self.create(&key("v1", "events", &format!("killing-{}", self.next_container().replace([':', '/'], ""))), event);
        self.restart_container(ordinal, "Error", 137);
    }

    /// The holds that stand in the ledger: reason and sentence.
    #[must_use]
    pub fn holds(&self) -> Vec<String> {
        let state = self.state();
        let holds = state["holds"].as_array().cloned().unwrap_or_default();
        let word = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        holds.iter().map(|hold| format!("{}: {}", word(&hold["reason"]), word(&hold["why"]))).collect()
    }
}
