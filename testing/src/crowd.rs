//! Many sets, of many namespaces, with one pod each.

use guardian_core::names;
use guardian_core::sim::{Key, Resource};
use serde_json::{Value, json};

use crate::stage::Stage;
use crate::workload::{SET, approval, reasons};

impl Stage {
    /// A namespace that is opted in, with an approved policy, and so many sets of one pod that runs: `redis-0`, `redis-1` and so on. They have no
    /// volumes.
    pub fn crowd(&self, namespace: &str, policy: &str, sets: usize) {
        let opted_in = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"labels": {(names::ENABLED): "true"}}});
        self.create(&Resource::new("v1", "namespaces").named("", namespace), opted_in);
        for map in self.approvals() {
            self.edit(&map, |map| map["data"][approval(namespace, policy)] = json!(""));
        }
        let map = json!({
            "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"labels": {(names::POLICY): "true"}},
            "data": {(names::POLICY_KEY): policy},
        });
        self.create(&Resource::new("v1", "configmaps").named(namespace, "redis-policy"), map);
        (0..sets).for_each(|n| self.one_of_crowd(namespace, n));
    }

    fn one_of_crowd(&self, namespace: &str, n: usize) {
        let (name, labels) = (format!("{SET}-{n}"), json!({"app": SET}));
        let template = json!({"metadata": {"labels": labels, "annotations": {(names::INJECTED): "{}"}}});
        let set = json!({
            "apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": {"labels": labels, "generation": 1},
            "spec": {"replicas": 1, "selector": {"matchLabels": labels}, "template": template},
        });
        let set_key = Resource::new("apps/v1", "statefulsets").named(namespace, &name);
        self.create(&set_key, set);
        let pod = json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {
                "labels": {"app": SET, (names::GUARDED): "true", "controller-revision-hash": "r1"},
                "ownerReferences": [{
                    "apiVersion": "apps/v1", "kind": "StatefulSet", "name": name, "controller": true,
                    "uid": self.get(&set_key)["metadata"]["uid"],
                }],
            },
            "spec": {"containers": [{"name": SET}]},
            "status": self.status_of_crowd(0),
        });
        self.create(&pod_of_crowd(namespace, n), pod);
    }

    /// The container of one of them ends, and runs again at once.
    pub fn restart_in_crowd(&self, namespace: &str, n: usize) {
        let key = pod_of_crowd(namespace, n);
        let restarts = self.get(&key)["status"]["containerStatuses"][0]["restartCount"].as_u64().unwrap_or_default();
        let status = self.status_of_crowd(restarts + 1);
        self.edit(&key, |pod| pod["status"] = status);
    }

    fn status_of_crowd(&self, restarts: u64) -> Value {
        let last = if restarts == 0 { json!({}) } else { json!({"terminated": {"reason": "Error", "exitCode": 1}}) };
        json!({
            "phase": "Running", "podIP": "10.0.0.10", "conditions": [{"type": "Ready", "status": "True"}],
            "containerStatuses": [{
                "name": SET, "containerID": self.next_container(), "restartCount": restarts, "lastState": last,
                "state": {"running": {"startedAt": self.now()}},
            }],
        })
    }

    /// The state of the ledger of one of them; null when there is none.
    #[must_use]
    pub fn state_in_crowd(&self, namespace: &str, n: usize) -> Value {
        let ledger = self.get(&Resource::new("v1", "configmaps").named(namespace, &format!("guardian-ledger-{SET}-{n}")));
        ledger["data"]["state"].as_str().map_or(Value::Null, |text| serde_json::from_str(text).expect("JSON"))
    }

    /// The reasons that hold one of them, as its ledger has them.
    #[must_use]
    pub fn holds_in_crowd(&self, namespace: &str, n: usize) -> Vec<String> {
        reasons(&self.state_in_crowd(namespace, n))
    }

    /// Is the start that runs answered in all sets of this crowd?
    #[must_use]
    pub fn is_crowd_settled(&self, namespace: &str, sets: usize) -> bool {
        (0..sets).all(|n| {
            let (state, pod) = (self.state_in_crowd(namespace, n), self.get(&pod_of_crowd(namespace, n)));
            state["answered"]["0"]["containerId"] == pod["status"]["containerStatuses"][0]["containerID"]
                && state["runs"].as_object().is_some_and(serde_json::Map::is_empty)
        })
    }
}

fn pod_of_crowd(namespace: &str, n: usize) -> Key {
    Resource::new("v1", "pods").named(namespace, &format!("{SET}-{n}-0"))
}
