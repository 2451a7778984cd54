//! What stands around the set in the namespace `shop`: Services with their endpoints, and PodDisruptionBudgets.

use guardian_core::names;
use guardian_core::sim::Resource;
use serde_json::{Value, json};

use crate::stage::Stage;
use crate::workload::{NAMESPACE, SET, key, pod_key};

impl Stage {
    /// Two pods from a template with the label `serving`, and the Service `clients`, which asks for it; all starts are answered.
    pub async fn serving_set(&self, policy: &str) {
        self.enable();
        self.apply_policy(policy);
        self.apply_set(0);
        self.label_template(true);
        self.change_set(2, "r1");
        [0, 1].into_iter().for_each(|ordinal| self.new_pod(ordinal, "r1"));
        self.endpoints("clients", &[0, 1], None);
        self.apply_service("clients", &json!({}));
        self.until("the Service asks for the label", |s| s.asks("clients")).await;
        self.until_settled().await;
    }

    /// The template has the label `serving`, or no longer has it. Pods that are made from now on follow.
    pub fn label_template(&self, serving: bool) {
        self.edit(&key("apps/v1", "statefulsets", SET), |set| {
            let value = if serving { json!("true") } else { Value::Null };
            json_patch::merge(&mut set["spec"]["template"]["metadata"]["labels"], &json!({(names::SERVING): value}));
        });
    }

    /// A Service for the pods of the set.
    pub fn apply_service(&self, name: &str, spec: &Value) {
        let mut whole = json!({"clusterIP": "10.0.0.1", "selector": {"app": SET}});
        json_patch::merge(&mut whole, spec);
        let service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {}, "spec": whole});
        self.create(&key("v1", "services", name), service);
    }

    /// Somebody else writes the selector of a Service.
    pub fn select(&self, name: &str, selector: &Value) {
        self.edit(&key("v1", "services", name), |service| service["spec"]["selector"] = selector.clone());
    }

    /// The endpoints of a Service, as its controller keeps them: the pods of these ordinals, and an address that is none.
    pub fn endpoints(&self, service: &str, ordinals: &[u32], stranger: Option<&str>) {
        let of_pod = |ordinal: &u32| {
            let pod = self.get(&pod_key(*ordinal));
            let target = json!({"kind": "Pod", "name": pod["metadata"]["name"], "uid": pod["metadata"]["uid"]});
            json!({"addresses": [format!("10.0.0.{}", 10 + ordinal)], "targetRef": target})
        };
        let endpoints: Vec<Value> =
            ordinals.iter().map(of_pod).chain(stranger.map(|address| json!({"addresses": [address]}))).collect();
        let slice = json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
            "metadata": {"labels": {"kubernetes.io/service-name": service}}, "endpoints": endpoints,
        });
        let key = key("discovery.k8s.io/v1", "endpointslices", service);
        match self.get(&key) {
            Value::Null => self.create(&key, slice),
            _ => self.edit(&key, |stored| stored["endpoints"] = slice["endpoints"].clone()),
        }
    }

    /// Does the selector of a Service ask for the label `serving`?
    #[must_use]
    pub fn asks(&self, service: &str) -> bool {
        self.get(&key("v1", "services", service))["spec"]["selector"][names::SERVING] == "true"
    }

    /// Label `serving` of each pod, by name; empty where it has none.
    #[must_use]
    pub fn serving(&self) -> Vec<String> {
        let label = |pod: &Value| pod["metadata"]["labels"][names::SERVING].as_str().unwrap_or_default().to_owned();
        self.api.world(|world| world.list(&Resource::new("v1", "pods"), NAMESPACE).map(label).collect())
    }

    /// Somebody asks that a pod be shed for so many seconds, or withdraws it.
    pub fn ask_shed(&self, ordinal: u32, seconds: Option<i64>) {
        let until = seconds.map(|seconds| {
            let until = self.time() + jiff::SignedDuration::from_secs(seconds);
            format!("{until} too much")
        });
        let annotations = until.map_or_else(|| json!({}), |until| json!({(names::SHED): until}));
        self.edit(&pod_key(ordinal), |pod| pod["metadata"]["annotations"] = annotations);
    }

    /// Somebody makes a PodDisruptionBudget.
    pub fn apply_budget(&self, name: &str, spec: &Value) {
        let budget = json!({"apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": {}, "spec": spec});
        self.create(&key("policy/v1", "poddisruptionbudgets", name), budget);
    }

    /// He deletes it.
    pub fn delete_budget(&self, name: &str) {
        self.api.world(|world| world.delete(&key("policy/v1", "poddisruptionbudgets", name))).expect("the budget is there");
    }

    /// Name and `maxUnavailable` of each PodDisruptionBudget, by name.
    #[must_use]
    pub fn budgets(&self) -> Vec<String> {
        let resource = Resource::new("policy/v1", "poddisruptionbudgets");
        let told = |budget: &Value| {
            let name = budget["metadata"]["name"].as_str().unwrap_or_default().to_owned();
            format!("{name} {}", budget["spec"]["maxUnavailable"])
        };
        self.api.world(|world| world.list(&resource, NAMESPACE).map(told).collect())
    }
}
