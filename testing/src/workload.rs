//! A guarded Redis set in the namespace `shop`, and what a kubelet does to its pods.

use std::collections::BTreeMap;

use guardian_core::names;
use guardian_core::policy::digest;
use guardian_core::sim::{Key, Resource};
use serde_json::{Value, json};

use crate::stage::{MAX_LEADERS, Stage, installation};

pub(crate) const NAMESPACE: &str = "shop";
pub(crate) const SET: &str = "redis";

/// The key of an object of the namespace.
pub(crate) fn key(api_version: &str, plural: &str, name: &str) -> Key {
    Resource::new(api_version, plural).named(NAMESPACE, name)
}

/// The key under which a policy of this text and nothing else is approved in a namespace.
#[must_use]
pub fn approval(namespace: &str, text: &str) -> String {
    let data = BTreeMap::from([(names::POLICY_KEY.to_owned(), text.to_owned())]);
    format!("{namespace}.{}", digest(&data))
}

impl Stage {
    /// Opts the namespace in.
    pub fn enable(&self) {
        let namespace = json!({
            "apiVersion": "v1", "kind": "Namespace", "metadata": {"labels": {(names::ENABLED): "true"}},
        });
        self.create(&Resource::new("v1", "namespaces").named("", NAMESPACE), namespace);
    }

    /// Applies a policy, by somebody who may: it is approved.
    pub fn apply_policy(&self, text: &str) {
        self.approve_policy(text);
        self.sneak_policy(text);
    }

    /// A policy comes in, or is edited, past the webhook: nobody has approved it.
    pub fn sneak_policy(&self, text: &str) {
        let map = json!({
            "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"labels": {(names::POLICY): "true"}},
            "data": {(names::POLICY_KEY): text},
        });
        let key = key("v1", "configmaps", "redis-policy");
        match self.get(&key) {
            Value::Null => self.create(&key, map),
            _ => self.edit(&key, |stored| stored["data"] = map["data"].clone()),
        }
    }

    /// The policy of this text is approved, as the webhook does it, for all controllers of the stage.
    pub fn approve_policy(&self, text: &str) {
        let approval = approval(NAMESPACE, text);
        for map in self.approvals() {
            self.edit(&map, |map| map["data"][&approval] = json!(""));
        }
    }

    /// No policy is approved any more.
    pub fn revoke_approvals(&self) {
        for map in self.approvals() {
            self.edit(&map, |map| map["data"] = json!({}));
        }
    }

    /// The ConfigMaps with the approvals, one for each controller of the stage; made where they are missing.
    pub(crate) fn approvals(&self) -> Vec<Key> {
        let maps = (0..MAX_LEADERS).map(|n| Resource::new("v1", "configmaps").named(&installation(n), names::APPROVALS));
        let maps: Vec<Key> = maps.collect();
        for map in maps.iter().filter(|map| self.get(map).is_null()) {
            self.create(map, json!({"apiVersion": "v1", "kind": "ConfigMap", "data": {}}));
        }
        maps
    }

    /// Applies the set; its pods run.
    pub fn apply_set(&self, replicas: u32) {
        self.create_set(replicas, &json!({}));
        for ordinal in 0..replicas {
            self.new_pod(ordinal, "r1");
        }
    }

    /// Applies the set with volume claims. Its pods run, each on the claim that is there, or else on a new one.
    pub fn apply_set_with_claims(&self, replicas: u32) {
        self.create_set(replicas, &json!({"volumeClaimTemplates": [{"metadata": {"name": "data"}}]}));
        for ordinal in 0..replicas {
            let claim = key("v1", "persistentvolumeclaims", &format!("data-{SET}-{ordinal}"));
            if self.get(&claim).is_null() {
                self.create(&claim, json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim"}));
            }
            self.new_pod(ordinal, "r1");
        }
    }

    fn create_set(&self, replicas: u32, more: &Value) {
        let labels = json!({"app": SET});
        let mut spec = json!({
            "replicas": replicas, "serviceName": SET,
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels, "annotations": {(names::INJECTED): "{}"}}},
        });
        json_patch::merge(&mut spec, more);
        let set = json!({
            "apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": {"labels": {"app": SET}, "generation": 1}, "spec": spec,
        });
        self.create(&key("apps/v1", "statefulsets", SET), set);
    }

    /// The set and its pods are deleted. Its claims stay.
    pub fn delete_set(&self) {
        self.api.world(|world| world.delete(&key("apps/v1", "statefulsets", SET))).expect("the set is there");
        let pods = self.api.world(|world| world.list(&Resource::new("v1", "pods"), NAMESPACE).count());
        for ordinal in 0..u32::try_from(pods).expect("a few") {
            self.vanish(ordinal);
        }
    }

    /// The claims of the set are deleted.
    pub fn delete_claims(&self) {
        let resource = Resource::new("v1", "persistentvolumeclaims");
        self.api.world(|world| {
            let names: Vec<String> = world
                .list(&resource, NAMESPACE)
                .filter_map(|claim| Some(claim["metadata"]["name"].as_str()?.to_owned()))
                .collect();
            names.iter().for_each(|name| drop(world.delete(&resource.named(NAMESPACE, name))));
        });
    }

    /// The claims that have the guardian's mark, by name, and what it says.
    #[must_use]
    pub fn marks(&self) -> Vec<String> {
        let resource = Resource::new("v1", "persistentvolumeclaims");
        self.api.world(|world| {
            let marked = world.list(&resource, NAMESPACE).filter_map(|claim| {
                let mark = claim["metadata"]["annotations"][names::MEMBER].as_str()?;
                Some(format!("{} {mark}", claim["metadata"]["name"].as_str()?))
            });
            marked.collect()
        })
    }

    /// A pod is evicted and gone, as soon as somebody has asked for it.
    pub async fn let_evicted_pod_go(&self, ordinal: u32) {
        self.until("the pod is evicted", |stage| stage.is_evicted(ordinal)).await;
        self.vanish(ordinal);
    }

    /// A namespace, a policy, a set of two, all at rest.
    pub fn usual(&self, policy: &str) {
        self.enable();
        self.apply_policy(policy);
        self.apply_set(2);
    }

    /// An annotation of the set; `None` takes it away.
    pub fn annotate_set(&self, name: &str, value: Option<&str>) {
        self.edit(&key("apps/v1", "statefulsets", SET), |set| {
            set["metadata"]["annotations"] = value.map_or_else(|| json!({}), |value| json!({name: value}));
        });
    }

    /// The webhook has written into the template of the set; or has not.
    pub fn inject(&self, injected: bool) {
        let annotations = if injected { json!({(names::INJECTED): "{}"}) } else { Value::Null };
        self.edit(&key("apps/v1", "statefulsets", SET), |set| {
            set["spec"]["template"]["metadata"]["annotations"] = annotations;
            set["metadata"]["generation"] = json!(set["metadata"]["generation"].as_u64().unwrap_or_default() + 1);
        });
    }

    /// A pod is made, scheduled and started.
    pub fn new_pod(&self, ordinal: u32, revision: &str) {
        let set = self.get(&key("apps/v1", "statefulsets", SET));
        let mut labels = set["spec"]["template"]["metadata"]["labels"].clone();
        json_patch::merge(&mut labels, &json!({(names::GUARDED): "true", "controller-revision-hash": revision}));
        let pod = json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {
                "labels": labels,
                "ownerReferences": [{
                    "apiVersion": "apps/v1", "kind": "StatefulSet", "name": SET, "uid": set["metadata"]["uid"], "controller": true,
                }],
            },
            "spec": {"containers": [{"name": SET}]},
            "status": {"phase": "Pending"},
        });
        self.create(&pod_key(ordinal), pod);
        self.start_container(ordinal);
    }

    /// The pod is deleted, as `kubectl delete pod` does, and gone a while later.
    pub async fn delete_pod(&self, ordinal: u32) {
        let now = self.now();
        self.edit(&pod_key(ordinal), |pod| {
            pod["metadata"]["deletionTimestamp"] = json!(now);
            pod["metadata"]["deletionGracePeriodSeconds"] = json!(30);
        });
        tokio::time::sleep(std::time::Duration::from_secs(5)).await;
        self.vanish(ordinal);
    }

    /// Somebody asks for the pod to go, for this reason of its condition `DisruptionTarget` if there is one. It has 30 s.
    pub fn stop_pod(&self, ordinal: u32, disruption: Option<&str>) {
        let now = self.now();
        self.edit(&pod_key(ordinal), |pod| {
            pod["metadata"]["deletionTimestamp"] = json!(now);
            let condition = disruption.map(|reason| json!({"type": "DisruptionTarget", "status": "True", "reason": reason}));
            if let Some(conditions) = pod["status"]["conditions"].as_array_mut() {
                conditions.extend(condition);
            }
        });
    }

    /// The set is changed: so many replicas, or another revision that is rolled out.
    pub fn change_set(&self, replicas: u32, update_revision: &str) {
        self.edit(&key("apps/v1", "statefulsets", SET), |set| {
            set["spec"]["replicas"] = json!(replicas);
            set["metadata"]["generation"] = json!(2);
            set["status"] = json!({"observedGeneration": 2, "updateRevision": update_revision});
        });
    }

    /// The pod is gone from one moment to the next.
    pub fn vanish(&self, ordinal: u32) {
        self.api.world(|world| world.delete(&pod_key(ordinal))).expect("the pod is there");
    }

    /// Its readiness probe says something else from now on.
    pub fn set_ready(&self, ordinal: u32, ready: bool) {
        let (status, now) = (if ready { "True" } else { "False" }, self.now());
        self.edit(&pod_key(ordinal), |pod| {
            pod["status"]["conditions"] = json!([{"type": "Ready", "status": status, "lastTransitionTime": now}]);
        });
    }

    /// Has somebody asked for the pod to go?
    #[must_use]
    pub fn is_evicted(&self, ordinal: u32) -> bool {
        self.get(&pod_key(ordinal))["metadata"]["deletionTimestamp"].is_string()
    }

    /// The container ends; the kubelet waits before it starts it again.
    pub fn stop_container(&self, ordinal: u32, reason: &str, exit_code: i32) {
        self.edit(&pod_key(ordinal), |pod| {
            let status = &mut pod["status"]["containerStatuses"][0];
            let began = status["state"]["running"]["startedAt"].clone();
            status["lastState"] = json!({"terminated": {"reason": reason, "exitCode": exit_code, "startedAt": began}});
            status["state"] = json!({"waiting": {"reason": "CrashLoopBackOff"}});
        });
    }

    /// The kubelet starts the container.
    pub fn start_container(&self, ordinal: u32) {
        let (id, now) = (self.next_container(), self.now());
        self.edit(&pod_key(ordinal), |pod| {
            let before = pod["status"]["containerStatuses"][0].clone();
            let restarts = before["restartCount"].as_u64().map_or(0, |n| n + 1);
            let sidecars = pod["status"]["initContainerStatuses"].take();
            pod["status"] = json!({
                "phase": "Running",
                "podIP": format!("10.0.0.{}", 10 + ordinal),
                "conditions": [{"type": "Ready", "status": "True"}],
                "containerStatuses": [{
                    "name": SET, "containerID": id, "restartCount": restarts,
                    "state": {"running": {"startedAt": now}},
                    "resources": pod["spec"]["containers"][0]["resources"],
                    "lastState": if before["lastState"].is_object() { before["lastState"].clone() } else { json!({}) },
                }],
                "initContainerStatuses": if sidecars.is_array() { sidecars } else { json!([]) },
            });
        });
    }

    /// The container ends and runs again at once.
    pub fn restart_container(&self, ordinal: u32, reason: &str, exit_code: i32) {
        self.stop_container(ordinal, reason, exit_code);
        self.start_container(ordinal);
    }

    /// The label of the role of each pod, by ordinal; empty where there is none.
    #[must_use]
    pub fn roles(&self) -> Vec<String> {
        let pods = Resource::new("v1", "pods");
        let role = |pod: &Value| pod["metadata"]["labels"][names::ROLE].as_str().unwrap_or_default().to_owned();
        self.api.world(|world| world.list(&pods, NAMESPACE).map(role).collect())
    }

    /// Somebody else sets or removes the label of a role.
    pub fn set_role(&self, ordinal: u32, role: Option<&str>) {
        self.edit(&pod_key(ordinal), |pod| {
            let Some(labels) = pod["metadata"]["labels"].as_object_mut() else { return };
            match role {
                Some(role) => drop(labels.insert(names::ROLE.to_owned(), json!(role))),
                None => drop(labels.remove(names::ROLE)),
            }
        });
    }

    /// An eviction of this pod was asked for, and waits: the webhook has made its Lease, for each of the controllers.
    pub fn hand_over(&self, ordinal: u32) {
        let (pod, now) = (self.get(&pod_key(ordinal)), self.micros());
        let lease = json!({
            "apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"labels": {(names::HAND_OVER): "true"}},
            "spec": {"holderIdentity": format!("{NAMESPACE}/{SET}-{ordinal}"), "acquireTime": now, "leaseDurationSeconds": 100},
        });
        let name = format!("{}{}", names::HAND_OVER_PREFIX, pod["metadata"]["uid"].as_str().unwrap_or_default());
        for n in 0..MAX_LEADERS {
            self.create(&Resource::new("coordination.k8s.io/v1", "leases").named(&installation(n), &name), lease.clone());
        }
    }

    /// How many evictions wait, as the first controller knows it.
    #[must_use]
    pub fn hand_overs(&self) -> usize {
        let leases = Resource::new("coordination.k8s.io/v1", "leases");
        let waits = |lease: &&Value| lease["metadata"]["labels"][names::HAND_OVER] == "true";
        self.api.world(|world| world.list(&leases, &installation(0)).filter(waits).count())
    }

    /// The ledger's state; null when there is none.
    #[must_use]
    pub fn state(&self) -> Value {
        let ledger = self.get(&key("v1", "configmaps", "guardian-ledger-redis"));
        ledger["data"]["state"].as_str().map_or(Value::Null, |text| serde_json::from_str(text).expect("JSON"))
    }

    /// The reasons that hold the set, as its ledger has them.
    #[must_use]
    pub fn held_by(&self) -> Vec<String> {
        reasons(&self.state())
    }

    /// The ledger is lost.
    pub fn delete_ledger(&self) {
        self.api.world(|world| world.delete(&key("v1", "configmaps", "guardian-ledger-redis"))).expect("there is a ledger");
    }

    /// Somebody else writes the ledger.
    pub fn set_state(&self, text: &str) {
        self.edit(&key("v1", "configmaps", "guardian-ledger-redis"), |map| map["data"]["state"] = json!(text));
    }

    /// The records of the ledger's history, oldest first.
    #[must_use]
    pub fn history(&self) -> Vec<Value> {
        let ledger = self.get(&key("v1", "configmaps", "guardian-ledger-redis"));
        let text = ledger["data"]["history"].as_str().unwrap_or_default();
        text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
    }

    /// Reason, verdict and attempt of each record, oldest first, without the first starts.
    #[must_use]
    pub fn told(&self) -> Vec<String> {
        let word = |record: &Value, name: &str| record[name].as_str().unwrap_or_default().to_owned();
        let records = self.history().into_iter().filter(|r| r["verdict"] != "Noted");
        records.map(|r| format!("{} {} {}", word(&r, "reason"), word(&r, "verdict"), r["attempt"])).collect()
    }

    /// The Events: kind of the object, reason and note.
    #[must_use]
    pub fn events(&self) -> Vec<String> {
        self.events_in(NAMESPACE)
    }

    /// The same of another namespace.
    #[must_use]
    pub fn events_in(&self, namespace: &str) -> Vec<String> {
        let word = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        self.api.world(|world| {
            let resource = Resource::new("events.k8s.io/v1", "events");
            let events = world.list(&resource, namespace);
            let mut told: Vec<String> = events
                .map(|e| {
                    format!("{} {} {}: {}", word(&e["type"]), word(&e["regarding"]["kind"]), word(&e["reason"]), word(&e["note"]))
                })
                .collect();
            told.sort();
            told
        })
    }

    /// Is every running container answered, with nothing open?
    #[must_use]
    pub fn is_settled(&self) -> bool {
        let state = self.state();
        let none = |name: &str| state[name].as_object().is_some_and(serde_json::Map::is_empty);
        let pods: Vec<Value> = self.api.world(|world| world.list(&Resource::new("v1", "pods"), NAMESPACE).cloned().collect());
        none("episodes")
            && none("runs")
            && pods.iter().all(|pod| {
                let name = pod["metadata"]["name"].as_str().unwrap_or_default();
                let answered = &state["answered"][name.rsplit('-').next().unwrap_or_default()];
                let status = &pod["status"]["containerStatuses"][0];
                !status["state"]["running"].is_object()
                    || (answered["podUid"] == pod["metadata"]["uid"] && answered["containerId"] == status["containerID"])
            })
    }
}

/// Of what is held, by the state of a ledger.
pub(crate) fn reasons(state: &Value) -> Vec<String> {
    let holds = state["holds"].as_array().into_iter().flatten();
    holds.map(|hold| hold["reason"].as_str().unwrap_or_default().to_owned()).collect()
}

pub(crate) fn pod_key(ordinal: u32) -> Key {
    key("v1", "pods", &format!("{SET}-{ordinal}"))
}
