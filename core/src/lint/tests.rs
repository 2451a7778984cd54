//! Each rule on what it is for, and on what is close to it and in order.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use super::{Objects, RULES, check};
use crate::policy::{self, Policy};

/// A set, its Service and its policy with nothing to say about.
struct World {
    policies: Vec<Policy>,
    sets: Vec<Value>,
    services: Vec<Value>,
    budgets: Vec<Value>,
    classes: Vec<&'static str>,
}

impl World {
    fn new() -> Self {
        let set = json!({
            "apiVersion": "apps/v1", "kind": "StatefulSet",
            "metadata": {"name": "db", "labels": {"app": "db"}},
            "spec": {
                "replicas": 3,
                "serviceName": "db",
                "template": {
                    "metadata": {"labels": {"app": "db"}},
                    "spec": {"containers": [{
                        "name": "db",
                        "resources": {"requests": {"memory": "64Mi"}},
                        "volumeMounts": [{"name": "data", "mountPath": "/data"}],
                    }]},
                },
                "volumeClaimTemplates": [{"metadata": {"name": "data"}}],
            },
        });
        let service = json!({"metadata": {"name": "db"}, "spec": {"clusterIP": "None", "publishNotReadyAddresses": true}});
        let policies = vec![policy("db", "hooks: {rejoin: {command: [rejoin]}, preStop: {command: [stop], timeout: 30s}}")];
        Self { policies, sets: vec![set], services: vec![service], budgets: Vec::new(), classes: vec!["critical"] }
    }

    fn findings(&self) -> Vec<String> {
        self.check().into_iter().map(|f| format!("{} {:?} {}", f.rule.name, f.subject, f.path.join("."))).collect()
    }

    fn check(&self) -> Vec<super::Finding> {
        let objects = Objects {
            policies: self.policies.iter().collect(),
            sets: self.sets.iter().collect(),
            services: self.services.iter().collect(),
            budgets: self.budgets.iter().collect(),
            classes: self.classes.clone(),
        };
        check(&objects)
    }

    fn template(&mut self) -> &mut Value {
        &mut self.sets[0]["spec"]["template"]["spec"]
    }

    fn container(&mut self) -> &mut Value {
        &mut self.template()["containers"][0]
    }

    fn policy(&mut self, rest: &str) {
        self.policies = vec![policy("db", rest)];
    }

    fn budget(&mut self, spec: &Value) {
        let mut spec = spec.clone();
        spec["selector"] = json!({"matchExpressions": [{"key": "app", "operator": "In", "values": ["db"]}]});
        self.budgets.push(json!({"metadata": {"name": format!("pdb-{}", self.budgets.len())}, "spec": spec}));
    }
}

/// A policy without what is not acted on yet, so that each test sees its own rule alone.
fn policy(name: &str, rest: &str) -> Policy {
    let text = format!(
        "apiVersion: stateful-guardian.io/v1alpha1\nkind: GuardianPolicy\nselector: {{matchLabels: {{app: db}}}}\n{rest}\n"
    );
    let mut policy = policy::parse(name, &BTreeMap::from([("policy.yaml".to_owned(), text)])).unwrap();
    policy.not_yet_active.clear();
    policy
}

const RESIZES: &str =
    "rules: [{name: a, when: {usage: memory, above: 85%}, do: [resize], resize: {memory: {max: 1Gi}, cpu: {max: 2}}}]";

#[test]
fn a_policy_that_selects_by_labels_of_the_pods_alone_says_so() {
    let told = |change: fn(&mut World)| {
        let mut world = World::new();
        change(&mut world);
        world.check().into_iter().map(|finding| finding.message).collect::<Vec<_>>()
    };
    let slip = told(|w| w.sets[0]["metadata"]["labels"] = json!({}));
    assert_eq!(
        slip,
        ["policy db selects none of the 1 StatefulSets given: the pods of db have its labels, and the set itself has not"]
    );
    let out = told(|w| w.sets[0]["metadata"]["annotations"] = json!({"stateful-guardian.io/inject": "false"}));
    assert_eq!(out, ["policy db selects none of the 1 StatefulSets given"]);
}

/// What is done to the world, and the findings then.
type Case = (&'static str, fn(&mut World), &'static [&'static str]);

#[test]
fn each_rule_finds_what_it_is_for_and_nothing_close_to_it() {
    let cases: &[Case] = &[
        ("all in order", |_| {}, &[]),
        ("nobody guards it", |w| w.sets[0]["metadata"]["labels"] = json!({}), &["policy-selects-nothing Policy(0) "]),
        (
            "taken out",
            |w| w.sets[0]["metadata"]["annotations"] = json!({"stateful-guardian.io/inject": "false"}),
            &["policy-selects-nothing Policy(0) "],
        ),
        ("a policy alone", |w| w.sets.clear(), &[]),
        ("two policies", |w| w.policies.push(policy("eb", "")), &["several-policies Set(0) metadata.labels"]),
        (
            "two policies, one is named",
            |w| {
                w.policies.push(policy("eb", ""));
                w.sets[0]["metadata"]["annotations"] = json!({"stateful-guardian.io/policy": "db"});
            },
            &["policy-selects-nothing Policy(1) "],
        ),
        ("no such container", |w| w.policy("container: web"), &["missing-container Set(0) spec.template.spec.containers"]),
        (
            "a hook's container",
            |w| w.policy("hooks: {leave: {command: [x], container: web}}"),
            &["missing-container Set(0) spec.template.spec.containers"],
        ),
        (
            "a volume of our name",
            |w| w.template()["volumes"] = json!([{"name": "guardian", "hostPath": {}}]),
            &["reserved-name Set(0) spec.template.spec.volumes"],
        ),
        ("our own volume", |w| w.template()["volumes"] = json!([{"name": "guardian", "emptyDir": {}}]), &[]),
        (
            "our mount path",
            |w| w.container()["volumeMounts"] = json!([{"name": "mine", "mountPath": "/guardian/"}]),
            &["reserved-name Set(0) spec.template.spec.containers.0.volumeMounts"],
        ),
        ("our own mount", |w| w.container()["volumeMounts"] = json!([{"name": "guardian", "mountPath": "/guardian"}]), &[]),
        (
            "readiness asks a later pod",
            |w| w.container()["readinessProbe"] = peers("ping db-2.db"),
            &["ordered-ready-probe Set(0) spec.template.spec.containers.0.readinessProbe"],
        ),
        (
            "startup asks a later pod",
            |w| w.container()["startupProbe"] = json!({"tcpSocket": {"host": "db-1.db"}}),
            &["ordered-ready-probe Set(0) spec.template.spec.containers.0.startupProbe"],
        ),
        ("readiness asks the first pod", |w| w.container()["readinessProbe"] = peers("ping db-0.db"), &[]),
        ("readiness asks another set", |w| w.container()["readinessProbe"] = peers("ping otherdb-1 db-1-clients db-1x"), &[]),
        (
            "in parallel",
            |w| {
                w.sets[0]["spec"]["podManagementPolicy"] = json!("Parallel");
                w.container()["readinessProbe"] = peers("ping db-2.db");
            },
            &[],
        ),
        (
            "bootstrap behind readyAfter",
            |w| w.policy("readyAfter: join\nhooks: {bootstrap: {command: [b]}, join: {command: [j]}}"),
            &["ordered-ready-bootstrap Set(0) spec"],
        ),
        (
            "a startup probe of the user's own",
            |w| {
                w.policy("readyAfter: join\nhooks: {join: {command: [j]}}");
                w.container()["startupProbe"] = json!({"tcpSocket": {"port": 1}});
            },
            &["own-startup-probe-stays Set(0) spec.template.spec.containers.0.startupProbe"],
        ),
        (
            "liveness after the startup probe of readyAfter",
            |w| {
                w.policy("readyAfter: join\nhooks: {join: {command: [j]}}");
                w.container()["livenessProbe"] = json!({"periodSeconds": 9});
            },
            &[],
        ),
        ("join when ready", |w| w.policy("hooks: {join: {command: [j], when: ready}}"), &[]),
        (
            "unready pods are hidden",
            |w| w.services[0]["spec"] = json!({"clusterIP": "None"}),
            &["headless-service-hides-unready Service(0) spec"],
        ),
        (
            "unready pods are hidden from no hook",
            |w| {
                w.services[0]["spec"] = json!({"clusterIP": "None"});
                w.policy("hooks: {preStop: {command: [stop]}}");
            },
            &[],
        ),
        ("not headless", |w| w.services[0]["spec"] = json!({}), &["service-not-headless Service(0) spec"]),
        (
            "another Service",
            |w| w.services[0]["metadata"]["name"] = json!("clients"),
            &["service-not-given Set(0) spec.serviceName"],
        ),
        (
            "no resources",
            |w| w.container()["resources"] = json!({"requests": {"cpu": "1"}}),
            &["no-resources Set(0) spec.template.spec.containers.0"],
        ),
        (
            "nothing to resize",
            |w| w.policy(RESIZES),
            &[
                "resize-of-no-use Set(0) spec.template.spec.containers.0",
                "resize-of-no-use Set(0) spec.template.spec.containers.0",
            ],
        ),
        (
            "a resize that restarts, and one at its max",
            |w| {
                w.policy(RESIZES);
                w.container()["resources"] = json!({"limits": {"memory": "512Mi", "cpu": 2}});
                w.container()["resizePolicy"] = json!([{"resourceName": "memory", "restartPolicy": "RestartContainer"}]);
            },
            &[
                "resize-of-no-use Set(0) spec.template.spec.containers.0",
                "resize-of-no-use Set(0) spec.template.spec.containers.0",
            ],
        ),
        (
            "a resize with room",
            |w| {
                w.policy(RESIZES);
                w.container()["resources"] = json!({"limits": {"memory": "512Mi", "cpu": "500m"}});
            },
            &[],
        ),
        ("a limit is a request too", |w| w.container()["resources"] = json!({"limits": {"memory": "1Gi"}}), &[]),
        (
            "data on an emptyDir",
            |w| {
                w.sets[0]["spec"]["volumeClaimTemplates"] = json!([]);
                w.template()["volumes"] = json!([{"name": "data", "emptyDir": {}}]);
            },
            &["data-on-empty-dir Set(0) spec.template.spec.containers.0.volumeMounts.0"],
        ),
        (
            "a cache on an emptyDir",
            |w| {
                w.sets[0]["spec"]["volumeClaimTemplates"] = json!([]);
                w.template()["volumes"] = json!([{"name": "cache", "emptyDir": {}}]);
                w.container()["volumeMounts"] = json!([{"name": "cache", "mountPath": "/tmp"}]);
            },
            &[],
        ),
        (
            "grace of the user too short",
            |w| w.template()["terminationGracePeriodSeconds"] = json!(39),
            &["grace-under-pre-stop Set(0) spec.template.spec.terminationGracePeriodSeconds"],
        ),
        ("grace that is just enough", |w| w.template()["terminationGracePeriodSeconds"] = json!(40), &[]),
        ("grace of nobody", |w| w.template()["terminationGracePeriodSeconds"] = json!(30), &[]),
        (
            "grace with the user's own sleep",
            |w| {
                w.template()["terminationGracePeriodSeconds"] = json!(44);
                w.container()["lifecycle"] = json!({"preStop": {"sleep": {"seconds": 5}}});
            },
            &["grace-under-pre-stop Set(0) spec.template.spec.terminationGracePeriodSeconds"],
        ),
        (
            "a preStop that cannot be chained",
            |w| w.container()["lifecycle"] = json!({"preStop": {"httpGet": {"port": 1}}}),
            &["own-pre-stop-stays Set(0) spec.template.spec.containers.0.lifecycle.preStop"],
        ),
        ("a preStop that is chained", |w| w.container()["lifecycle"] = json!({"preStop": {"exec": {"command": ["a"]}}}), &[]),
        (
            "liveness under rejoin",
            |w| w.container()["livenessProbe"] = json!({"periodSeconds": 9}),
            &["liveness-under-hook Set(0) spec.template.spec.containers.0.livenessProbe"],
        ),
        (
            "liveness after startup",
            |w| {
                w.container()["livenessProbe"] = json!({"periodSeconds": 9});
                w.container()["startupProbe"] = json!({"periodSeconds": 1});
            },
            &[],
        ),
        ("liveness with its defaults", |w| w.container()["livenessProbe"] = json!({}), &[]),
        (
            "a class of the cluster's own",
            |w| w.policy("protect: {priorityClassName: system-node-critical}"),
            &["reserved-priority-class Set(0) "],
        ),
        ("a class that is given", |w| w.policy("protect: {priorityClassName: critical}"), &[]),
        ("a class that is not", |w| w.policy("protect: {priorityClassName: critcal}"), &["priority-class-not-given Set(0) "]),
        (
            "a class of the set's own, which stays",
            |w| {
                w.policy("protect: {priorityClassName: missing}");
                w.template()["priorityClassName"] = json!("critical");
            },
            &[],
        ),
        (
            "a class of the set's own that is not given",
            |w| w.template()["priorityClassName"] = json!("missing"),
            &["priority-class-not-given Set(0) spec.template.spec.priorityClassName"],
        ),
        (
            "a class that replaces the set's own",
            |w| {
                w.policy("protect: {priorityClassName: missing, override: true}");
                w.template()["priorityClassName"] = json!("critical");
            },
            &["priority-class-not-given Set(0) "],
        ),
        (
            "the cluster's own classes are always there",
            |w| w.template()["priorityClassName"] = json!("system-node-critical"),
            &[],
        ),
        ("no pod may go", |w| w.budget(&json!({"maxUnavailable": 0})), &["budget-allows-nothing Budget(0) spec.maxUnavailable"]),
        (
            "no pod in a hundred may go",
            |w| w.budget(&json!({"maxUnavailable": "0%"})),
            &["budget-allows-nothing Budget(0) spec.maxUnavailable"],
        ),
        ("one pod in a hundred may go", |w| w.budget(&json!({"maxUnavailable": "1%"})), &[]),
        ("all must stay", |w| w.budget(&json!({"minAvailable": "67%"})), &["budget-allows-nothing Budget(0) spec.minAvailable"]),
        ("all but one must stay", |w| w.budget(&json!({"minAvailable": 2})), &[]),
        (
            "two budgets",
            |w| {
                w.budget(&json!({"maxUnavailable": 1}));
                w.budget(&json!({"maxUnavailable": 1}));
            },
            &["two-budgets Set(0) spec.template.metadata.labels"],
        ),
        (
            "a budget of others",
            |w| {
                w.budget(&json!({"maxUnavailable": 0}));
                w.sets[0]["spec"]["template"]["metadata"]["labels"] = json!({"app": "eb"});
            },
            &[],
        ),
        ("a quorum of more than all", |w| w.policy("protect: {quorum: 4}"), &["quorum-impossible Set(0) spec.replicas"]),
        ("a quorum of all", |w| w.policy("protect: {quorum: 100%}"), &["quorum-without-room Set(0) spec.replicas"]),
        ("a quorum", |w| w.policy("protect: {quorum: majority}"), &[]),
        ("too few", |w| w.policy("protect: {minReplicas: 4}"), &["below-min-replicas Set(0) spec.replicas"]),
        ("just enough", |w| w.policy("protect: {minReplicas: 3}"), &[]),
        (
            "a partition",
            |w| {
                w.policy("update: {strategy: guarded}");
                w.sets[0]["spec"]["updateStrategy"] = json!({"type": "RollingUpdate", "rollingUpdate": {"partition": 2}});
            },
            &["update-strategy-shadowed Set(0) spec.updateStrategy"],
        ),
        (
            "the default written out",
            |w| {
                w.policy("update: {strategy: guarded}");
                w.sets[0]["spec"]["updateStrategy"] = json!({"type": "RollingUpdate", "rollingUpdate": {"partition": 0}});
            },
            &[],
        ),
    ];
    for (what, change, expected) in cases {
        let mut world = World::new();
        change(&mut world);
        assert_eq!(world.findings(), *expected, "{what}");
    }
    // Told by the reader of the manifests, not by these rules; `not-yet-active` has a test of its own.
    let elsewhere = ["not-readable", "invalid-policy", "not-yet-active", "bare-policy", "policy-without-label"];
    let tried: BTreeSet<&str> = cases.iter().flat_map(|(_, _, found)| found.iter()).filter_map(|f| f.split(' ').next()).collect();
    let all: BTreeSet<&str> = RULES.iter().map(|rule| rule.name).filter(|name| !elsewhere.contains(name)).collect();
    assert_eq!(tried, all, "each rule is seen to fire");
}

#[test]
fn what_is_not_acted_on_is_said_for_each_part() {
    let mut world = World::new();
    let text = "apiVersion: stateful-guardian.io/v1alpha1\nkind: GuardianPolicy\nupdate: {strategy: guarded}\nhooks: {leave: {command: [x]}}\n";
    world.policies = vec![policy::parse("p", &BTreeMap::from([("policy.yaml".to_owned(), text.to_owned())])).unwrap()];
    let expected = world.policies[0].not_yet_active.len();
    let found = world.findings();
    assert_eq!(found.iter().filter(|f| f.starts_with("not-yet-active Policy(0)")).count(), expected, "{found:?}");
}

#[test]
fn objects_that_make_no_sense_are_looked_at_without_a_panic() {
    let strange = [
        json!(null),
        json!([]),
        json!({"metadata": 1, "spec": []}),
        json!({"spec": {"replicas": -1, "template": {"spec": {"containers": 7}}}}),
    ];
    let policies = [policy("db", "")];
    for object in &strange {
        let objects = Objects {
            policies: policies.iter().collect(),
            sets: vec![object],
            services: vec![object],
            budgets: vec![object, object],
            classes: Vec::new(),
        };
        let _ = check(&objects);
    }
}

fn peers(command: &str) -> Value {
    json!({"exec": {"command": ["sh", "-c", command]}})
}
