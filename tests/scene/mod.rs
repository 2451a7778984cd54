//! A shop with six sets, as a cluster would have them in a bad hour, and the dashboard of somebody who may see it.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};

use guardian_core::names;
use guardian_core::policy;
use guardian_core::sim::Resource;
use guardian_testing::{Api, Served};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use stateful_guardian::controller::Clock;
use tempfile::TempDir;

use super::command;

/// A cluster in memory.
pub(crate) struct Scene {
    pub(crate) api: Api,
    _served: Served,
    folder: TempDir,
    now: Timestamp,
}

/// A dashboard that runs.
pub(crate) struct Dashboard {
    pub(crate) child: Child,
    /// What it printed.
    pub(crate) address: String,
}

impl Drop for Dashboard {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Scene {
    /// Everything that a shop has.
    pub(crate) fn new() -> Self {
        let api = Api::new(Clock::system());
        let served = Served::start(&api);
        let folder = tempfile::tempdir().expect("a folder");
        served.write_kubeconfig(&folder.path().join("config"), "shop");
        let scene = Self { api, _served: served, folder, now: Clock::system().now() };
        scene.api.put("v1", "namespaces", "", "shop", &json!({"metadata": {"labels": {(names::ENABLED): "true"}}}));
        let policies: Vec<String> =
            ["redis", "orders-postgres", "kafka", "etcd", "search"].map(|app| policy_of(app, 60)).to_vec();
        let policies = [policies, vec![policy_of("orders-postgres", 90)]].concat();
        let approvals: BTreeMap<String, String> = policies
            .iter()
            .map(|text| BTreeMap::from([(names::POLICY_KEY.to_owned(), text.clone())]))
            .map(|data| (format!("shop.{}", policy::digest(&data)), String::new()))
            .collect();
        scene.api.put("v1", "configmaps", "stateful-guardian", names::APPROVALS, &json!({"data": approvals}));
        scene.set("redis", 3, 2, Some("main"));
        scene.set("orders-postgres", 3, 3, Some("main"));
        scene.set("kafka", 5, 5, Some("main"));
        scene.set("etcd", 3, 3, Some("main"));
        scene.set("search", 4, 4, None);
        scene.set("mail", 1, 1, None);
        scene.policy("orders-postgres", 90);
        scene.annotate("kafka", names::HOLD, "INC-4711: volume move of rack B");
        scene.pods("redis", &["primary", "replica", "replica"], &[0, 1, 6], 1);
        scene.pods("orders-postgres", &["leader", "replica", "replica"], &[0, 0, 2], 0);
        scene.pods("kafka", &["controller", "broker", "broker", "broker", "broker"], &[0; 5], 0);
        scene.pods("etcd", &["leader", "member", "member"], &[1, 0, 0], 0);
        scene.ledgers();
        scene.events();
        scene.controller(0.0);
        scene
    }

    /// Starts the dashboard; it has printed where it is.
    pub(crate) fn dashboard(&self, arguments: &[&str]) -> Dashboard {
        let mut command = Command::new(env!("CARGO_BIN_EXE_guardian"));
        command
            .arg("dashboard")
            .args(arguments)
            .env("KUBECONFIG", self.folder.path().join("config"))
            .env_remove("GUARDIAN_INSTALLATION");
        let mut child = command.stdout(Stdio::piped()).spawn().expect("the binary runs");
        let mut address = String::new();
        BufReader::new(child.stdout.take().expect("a pipe")).read_line(&mut address).expect("a line");
        Dashboard { child, address: address.trim_end().to_owned() }
    }

    /// Runs a command to its end.
    pub(crate) fn run(&self, arguments: &[&str]) -> command::Done {
        let mut command = Command::new(env!("CARGO_BIN_EXE_guardian"));
        command::run(command.args(arguments).env("KUBECONFIG", self.folder.path().join("config")), "")
    }

    /// How long ago.
    pub(crate) fn ago(&self, minutes: f64) -> Timestamp {
        self.now - SignedDuration::from_millis((minutes * 60_000.0) as i64)
    }

    /// Writes a ledger: its episodes and its records, oldest first.
    pub(crate) fn ledger(&self, set: &str, episodes: &Value, runs: &Value, records: &[Value]) {
        let state = json!({"format": 1, "setUid": "s", "bootstrapped": true, "episodes": episodes, "runs": runs});
        let lines: Vec<String> = records.iter().map(Value::to_string).collect();
        let object = json!({
            "metadata": {"labels": {"stateful-guardian.io/ledger": "true"}},
            "data": {"state": state.to_string(), "history": lines.join("\n")},
        });
        self.api.put("v1", "configmaps", "shop", &format!("guardian-ledger-{set}"), &object);
    }

    /// A record of so many minutes ago.
    pub(crate) fn record(&self, minutes: f64, pod: &str, what: [&str; 3], attempt: u32, message: &str) -> Value {
        let [reason, hook, verdict] = what;
        let at = self.ago(minutes);
        json!({
            "at": at, "hook": hook, "reason": reason, "verdict": verdict, "pod": pod, "podUid": "u", "attempt": attempt, "message": message,
        })
    }

    /// What the controller shows now, which rises and falls with `time`.
    pub(crate) fn controller(&self, time: f64) {
        let mut page = String::new();
        let mut family = |name: &str, help: &str, kind: &str, values: &[(&str, f64)]| {
            page += &format!("# HELP {name} {help}\n# TYPE {name} {kind}\n");
            for (pod, value) in values {
                page += &format!("{name}{{namespace=\"shop\",set=\"redis\",pod=\"redis-{pod}\"}} {value:.3}\n");
            }
        };
        let wave = |period: f64, phase: f64| (time / period + phase).sin() + 0.35 * (time * 2.3 / period + phase * 5.0).sin();
        let memory =
            [("0", 0.61 + 0.03 * wave(9.0, 0.0)), ("1", 0.55 + 0.02 * wave(7.0, 2.0)), ("2", 0.5 + 0.4 * (time % 13.0) / 13.0)];
        family("guardian_pod_memory_ratio", "Memory that the pod uses, of its limit", "gauge", &memory);
        let clients =
            [("0", 412.0 + 60.0 * wave(8.0, 1.0)), ("1", 38.0 + 6.0 * wave(6.0, 3.0)), ("2", 21.0 + 14.0 * wave(4.0, 0.4))];
        family("redis_connected_clients", "Clients that are connected", "gauge", &clients);
        let commands = |rate: f64, phase: f64| 1e6 + rate * time + rate * 2.0 * (time / 5.0 + phase).sin();
        let commands = [("0", commands(5_210.0, 0.0)), ("1", commands(812.0, 1.0)), ("2", commands(300.0, 2.0))];
        family("redis_commands_processed_total", "Commands that were processed", "counter", &commands);
        let lag = [("1", 0.2 + 0.1 * wave(5.0, 1.0).abs()), ("2", 3.0 + 2.4 * wave(6.0, 2.0).abs())];
        family("redis_replication_lag_seconds", "How far a replica is behind its primary", "gauge", &lag);
        let pod = json!({
            "metadata": {"labels": {"app.kubernetes.io/name": "guardian-controller"}}, "spec": {"containers": []}, "metrics": page,
        });
        self.api.put("v1", "pods", "stateful-guardian", "guardian-controller-0", &pod);
    }

    fn policy(&self, app: &str, timeout: u32) {
        let object =
            json!({"metadata": {"labels": {(names::POLICY): "true"}}, "data": {(names::POLICY_KEY): policy_of(app, timeout)}});
        self.api.put("v1", "configmaps", "shop", &format!("{app}-policy"), &object);
    }

    /// A set; where `guarded`, as the webhook admits it.
    fn set(&self, name: &str, replicas: u32, ready: u32, guarded: Option<&str>) {
        let mut set = json!({
            "apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": {"name": name, "labels": {"app": name}},
            "spec": {"replicas": replicas, "serviceName": name, "template": {
                "metadata": {"labels": {"app": name}}, "spec": {"containers": [{"name": name, "image": format!("{name}:1")}]},
            }},
        });
        if name != "mail" {
            self.policy(name, 60);
        }
        if guarded.is_some() {
            let file = self.folder.path().join("policy.json");
            let metadata = json!({"name": format!("{name}-policy"), "labels": {(names::POLICY): "true"}});
            let map = json!({"kind": "ConfigMap", "metadata": metadata, "data": {(names::POLICY_KEY): policy_of(name, 60)}});
            std::fs::write(&file, map.to_string()).expect("a file");
            let done = command::guardian(
                &["inject", "-f", "-", "--policy", &file.display().to_string(), "-o", "json"],
                &set.to_string(),
            );
            set = serde_json::from_str(&done.stdout).expect("JSON");
        }
        set["status"] = json!({"replicas": replicas, "readyReplicas": ready});
        self.api.put("apps/v1", "statefulsets", "shop", name, &set);
    }

    fn annotate(&self, set: &str, name: &str, value: &str) {
        let key = Resource::new("apps/v1", "statefulsets").named("shop", set);
        assert!(self.api.world(|world| world.edit(&key, |set| set["metadata"]["annotations"][name] = json!(value))));
    }

    /// The uid of a set.
    fn uid(&self, set: &str) -> String {
        let key = Resource::new("apps/v1", "statefulsets").named("shop", set);
        self.api.world(|world| world.get(&key).expect("a set")["metadata"]["uid"].as_str().unwrap_or_default().to_owned())
    }

    /// Its pods, of which the last `lacking` are not ready.
    fn pods(&self, set: &str, roles: &[&str], restarts: &[u32], lacking: usize) {
        let uid = self.uid(set);
        for (n, (role, restarts)) in roles.iter().zip(restarts).enumerate() {
            let ready = if n + lacking < roles.len() { "True" } else { "False" };
            let pod = json!({
                "metadata": {
                    "labels": {(names::GUARDED): "true", (names::ROLE): role, "controller-revision-hash": format!("{set}-6d5f7c9b8")},
                    "ownerReferences": [{"apiVersion": "apps/v1", "kind": "StatefulSet", "name": set, "uid": uid, "controller": true}],
                },
                "spec": {"containers": [], "nodeName": format!("node-{}", n % 3 + 1)},
                "status": {
                    "conditions": [{"type": "Ready", "status": ready}],
                    "containerStatuses": [{"name": set, "restartCount": restarts, "image": "", "imageID": "", "ready": ready == "True"}],
                },
            });
            self.api.put("v1", "pods", "shop", &format!("{set}-{n}"), &pod);
        }
    }

    fn ledgers(&self) {
        let oom = "killed at its memory limit (exit code 137)";
        let done = "rejoin ended with exit code 0";
        let records = [
            self.record(
                326.0,
                "redis-1",
                ["Crash", "rejoin", "Retrying"],
                1,
                "rejoin ended with exit code 7: no route to redis-0.redis",
            ),
            self.record(325.4, "redis-1", ["Crash", "rejoin", "Succeeded"], 2, done),
            self.record(271.0, "redis-2", ["OOMKilled", "rejoin", "Succeeded"], 1, done),
            self.record(190.0, "redis-0", ["Drained", "switchover", "Succeeded"], 1, "the role primary moved to redis-1"),
            self.record(188.5, "redis-0", ["Drained", "rejoin", "Succeeded"], 1, done),
            self.record(122.0, "redis-2", ["OOMKilled", "rejoin", "Retrying"], 1, "rejoin was killed at its time out of 60 s"),
            self.record(121.0, "redis-2", ["OOMKilled", "rejoin", "Succeeded"], 2, done),
            self.record(
                64.0,
                "redis-1",
                ["Drained", "switchover", "Failed"],
                1,
                "switchover ended with exit code 1: ERR no good replica",
            ),
            self.record(61.0, "redis-1", ["Drained", "rejoin", "Succeeded"], 1, done),
            self.record(33.0, "redis-2", ["OOMKilled", "rejoin", "Superseded"], 1, "the container was replaced meanwhile"),
            self.record(32.0, "redis-2", ["OOMKilled", "rejoin", "Succeeded"], 1, done),
            self.record(
                4.5,
                "redis-2",
                ["OOMKilled", "rejoin", "Retrying"],
                1,
                "rejoin ended with exit code 7: MASTERDOWN link with MASTER is down",
            ),
        ];
        let episodes = json!({"start-2": {
            "scenario": "start", "hook": "rejoin", "scope": {"pod": "u"}, "reason": "OOMKilled", "why": oom, "pod": "redis-2", "ordinal": 2,
            "opened": self.ago(5.0), "attempts": 2, "next": self.ago(-4.0),
        }});
        self.ledger("redis", &episodes, &json!({}), &records);
        let records = [
            self.record(2_900.0, "orders-postgres-2", ["NodeLost", "rejoin", "Succeeded"], 1, done),
            self.record(
                2_880.0,
                "orders-postgres-1",
                ["Crash", "rejoin", "Failed"],
                3,
                "rejoin ended with exit code 1: pg_rewind: no common ancestor",
            ),
        ];
        self.ledger("orders-postgres", &json!({}), &json!({}), &records);
        self.ledger(
            "kafka",
            &json!({}),
            &json!({}),
            &[self.record(720.0, "kafka-3", ["LivenessFailed", "rejoin", "Succeeded"], 1, done)],
        );
        self.ledger(
            "etcd",
            &json!({}),
            &json!({}),
            &[self.record(9_000.0, "etcd-0", ["FirstStart", "join", "Noted"], 1, "a first start")],
        );
    }

    fn events(&self) {
        let told = [
            (64.0, "Warning", "Drained", "switchover", "redis-1: switchover ended with exit code 1: ERR no good replica"),
            (33.5, "Warning", "Quorum", "hold", "2 of 3 pods must stay ready: redis-0 is updated once redis-2 is ready"),
            (32.0, "Normal", "OOMKilled", "rejoin", "redis-2: rejoin ended with exit code 0"),
        ];
        for (n, (minutes, kind, reason, action, note)) in told.into_iter().enumerate() {
            let event = json!({
                "eventTime": self.ago(minutes).strftime("%Y-%m-%dT%H:%M:%S.000000Z").to_string(), "type": kind, "reason": reason, "action": action,
                "note": note, "reportingController": "stateful-guardian.io/controller", "reportingInstance": "guardian-controller-0",
                "regarding": {"kind": "StatefulSet", "name": "redis", "uid": self.uid("redis")},
            });
            self.api.put("events.k8s.io/v1", "events", "shop", &format!("redis.{n}"), &event);
        }
    }
}

fn policy_of(app: &str, timeout: u32) -> String {
    format!(
        "apiVersion: stateful-guardian.io/v1alpha1\nkind: GuardianPolicy\nselector: {{matchLabels: {{app: {app}}}}}\n\
         hooks:\n  rejoin: {{command: [rejoin], timeout: 60s, retries: 3}}\n  preStop: {{command: [stop], timeout: {timeout}s}}\n"
    )
}
