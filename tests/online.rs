//! The commands that ask a cluster, against one in memory.

#![expect(clippy::expect_used, clippy::indexing_slicing, reason = "a test ends where it fails")]

mod command;
#[path = "online/dashboard.rs"]
mod dashboard;
#[path = "online/history.rs"]
mod history;
mod http;
#[path = "online/logs.rs"]
mod logs;
#[path = "online/run.rs"]
mod run;
mod scene;

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use command::Done;
use guardian_core::names;
use guardian_core::policy;
use guardian_core::sim::{Key, Resource};
use guardian_testing::{Api, Fault, Served};
use serde_json::{Value, json};
use stateful_guardian::controller::Clock;
use tempfile::TempDir;

const POLICY: &str = "apiVersion: stateful-guardian.io/v1alpha1\nkind: GuardianPolicy\nselector: {matchLabels: {app: db}}\n\
                      hooks: {preStop: {command: [stop], timeout: 60s}}\n";

/// A cluster, and the CLI of somebody who may do everything there.
struct World {
    api: Api,
    _served: Served,
    folder: TempDir,
}

impl World {
    /// With the namespace `shop`, which is enabled, and a policy.
    fn new() -> Self {
        let api = Api::new(Clock::system());
        let served = Served::start(&api);
        let folder = tempfile::tempdir().expect("a folder");
        served.write_kubeconfig(&folder.path().join("config"), "shop");
        let world = Self { api, _served: served, folder };
        world.put("v1", "namespaces", "", "shop", json!({"metadata": {"labels": {(names::ENABLED): "true"}}}));
        world.policy(POLICY);
        world
    }

    #[expect(clippy::needless_pass_by_value, reason = "a literal is read best as it is")]
    fn put(&self, api_version: &str, plural: &str, namespace: &str, name: &str, object: Value) {
        self.api.put(api_version, plural, namespace, name, &object);
    }

    /// A policy, which is approved.
    fn policy(&self, text: &str) {
        self.unapproved(text);
        let digest = policy::digest(&BTreeMap::from([(names::POLICY_KEY.to_owned(), text.to_owned())]));
        self.approvals(&json!({format!("shop.{digest}"): ""}));
    }

    /// All approvals that there are.
    fn approvals(&self, data: &Value) {
        self.put("v1", "configmaps", "stateful-guardian", names::APPROVALS, json!({"data": data}));
    }

    fn unapproved(&self, text: &str) {
        let map = json!({
            "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"labels": {(names::POLICY): "true"}}, "data": {(names::POLICY_KEY): text},
        });
        self.put("v1", "configmaps", "shop", "db-policy", map);
    }

    /// As the webhook admits it.
    fn guarded(&self, name: &str) {
        let set = set(name).to_string();
        let policy = self.folder.path().join("policy.yaml");
        let map = json!({"kind": "ConfigMap", "metadata": {"name": "db-policy", "labels": {(names::POLICY): "true"}}, "data": {(names::POLICY_KEY): POLICY}});
        std::fs::write(&policy, map.to_string()).expect("a file");
        let done = command::guardian(&["inject", "-f", "-", "--policy", &policy.display().to_string(), "-o", "json"], &set);
        self.put("apps/v1", "statefulsets", "shop", name, serde_json::from_str(&done.stdout).expect("JSON"));
    }

    fn stored(&self, name: &str) -> Value {
        let key: Key = Resource::new("apps/v1", "statefulsets").named("shop", name);
        self.api.world(|world| world.get(&key).cloned()).expect("the set")
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_guardian"));
        command.args(arguments).env("KUBECONFIG", self.folder.path().join("config"));
        command
    }

    fn guardian(&self, arguments: &[&str]) -> Done {
        command::run(&mut self.command(arguments), "")
    }

    fn json(&self, arguments: &[&str]) -> Value {
        let done = self.guardian(arguments);
        assert_eq!(done.code, Some(0), "{arguments:?}: {}", done.stderr);
        serde_json::from_str(&done.stdout).expect("one JSON document")
    }
}

fn set(name: &str) -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": {"name": name, "labels": {"app": "db"}},
        "spec": {"replicas": 1, "serviceName": name, "template": {
            "metadata": {"labels": {"app": "db"}}, "spec": {"containers": [{"name": "db", "image": "db:1"}]},
        }},
    })
}

#[test]
fn status_tells_what_waits_for_the_next_change_of_each_template() {
    let world = World::new();
    world.guarded("kept");
    world.put("apps/v1", "statefulsets", "shop", "late", set("late"));
    let states = |document: &Value| -> Vec<String> {
        let sets = document["sets"].as_array().expect("sets").iter();
        sets.map(|s| {
            format!("{} {} {}", s["name"].as_str().unwrap_or_default(), s["state"].as_str().unwrap_or_default(), s["pending"])
        })
        .collect()
    };
    let before = world.json(&["status", "-o", "json"]);
    assert_eq!(states(&before), ["kept Guarded false", "late Unguarded true"]);
    assert_eq!(before["sets"][0]["recorded"]["revision"], before["sets"][0]["revision"]);

    world.policy(&POLICY.replace("60s", "61s"));
    let after = world.json(&["status", "-A", "-o", "json"]);
    assert_eq!(states(&after), ["kept Pending true", "late Unguarded true"]);
    assert_eq!(after["sets"][0]["recorded"], before["sets"][0]["recorded"]);
    assert_ne!(after["sets"][0]["recorded"]["revision"], after["sets"][0]["revision"]);
    let table = world.guardian(&["status", "-n", "shop", "kept"]).stdout;
    assert!(table.starts_with("NAMESPACE   SET    STATE     READY   POLICY"), "{table}");
    assert!(table.contains("the policy was edited") && !table.contains("shop        late"), "{table}");
}

#[test]
fn status_tells_a_hold_a_broken_policy_and_a_namespace_that_is_not_enabled() {
    let world = World::new();
    world.guarded("db");
    world.put("v1", "namespaces", "", "shop", json!({"metadata": {"labels": {}, "annotations": {(names::HOLD): "night shift"}}}));
    world.policy("this: is no policy");
    let status = world.json(&["status", "-o", "json"]);
    assert_eq!((&status["sets"][0]["state"], &status["sets"][0]["hold"]), (&json!("NotEnabled"), &json!("night shift")));
    assert!(status["problems"][0].as_str().is_some_and(|p| p.contains("db-policy")), "{status}");
    let nowhere = world.guardian(&["status", "-n", "nowhere"]);
    assert_eq!(nowhere.code, Some(1));
    assert!(nowhere.stderr.contains("there is no namespace nowhere"), "{}", nowhere.stderr);
}

#[test]
fn explain_of_a_stored_set_says_that_it_is_pinned_and_what_its_next_change_takes_up() {
    let world = World::new();
    world.guarded("db");
    let told = world.guardian(&["explain", "db", "-o", "text"]).stdout;
    assert!(told.contains("Guarded\nNothing is written now, nor at the next change"), "{told}");

    world.policy(&POLICY.replace("60s", "80s"));
    let told = world.guardian(&["explain", "-n", "shop", "db", "-o", "text"]).stdout;
    for words in [
        "Pending: the policy was edited",
        "its template is pinned",
        "terminationGracePeriodSeconds: 70 -> 90",
        "-      terminationGracePeriodSeconds: 70",
    ] {
        assert!(told.contains(words), "{words}: {told}");
    }
    let before = world.stored("db");
    let explained = world.json(&["explain", "db"]);
    assert_eq!(explained["sets"][0]["appliesAt"], "nextTemplateChange");
    assert_eq!(world.stored("db"), before, "nothing is written");
    let missing = world.guardian(&["explain", "none"]);
    assert!(missing.code == Some(1) && missing.stderr.contains("there is no StatefulSet none in shop"), "{}", missing.stderr);
}

#[test]
fn a_policy_that_nobody_approved_is_shown_as_waiting() {
    let world = World::new();
    world.put("apps/v1", "statefulsets", "shop", "db", set("db"));
    world.approvals(&json!({}));
    let run = "run `guardian approve -n shop db-policy`";

    let status = world.json(&["status", "-o", "json"]);
    let shown = &status["sets"][0];
    assert_eq!((&shown["state"], &shown["pending"]), (&json!("AwaitsApproval"), &json!(false)), "{status:#}");
    assert_eq!((&shown["policy"], &shown["awaits"]["policy"]), (&Value::Null, &json!("db-policy")), "{status:#}");
    assert!(shown["because"].as_str().is_some_and(|because| because.contains(run)), "{status:#}");
    assert_eq!(status["problems"], json!([]));

    let told = world.guardian(&["explain", "db", "-o", "text"]).stdout;
    for words in [run, "AwaitsApproval: ", "Once it is approved", "terminationGracePeriodSeconds: nothing -> 70"] {
        assert!(told.contains(words), "{words}: {told}");
    }
    assert_eq!(told.matches(run).count(), 1, "{told}");
    let explained = world.json(&["explain", "db"]);
    assert_eq!(explained["sets"][0]["appliesAt"], "nextTemplateChangeOnceApproved");

    let checked = world.guardian(&["check"]).stdout;
    assert!(
        checked.contains("FAILED   policies shop: ") && checked.contains("run: guardian approve -n shop db-policy"),
        "{checked}"
    );
    world.policy(POLICY);
    assert!(world.guardian(&["check"]).stdout.contains("ok       policies shop: none awaits approval"));
    assert_eq!(world.json(&["status", "-o", "json"])["sets"][0]["state"], "Unguarded");
}

#[test]
fn where_the_approvals_cannot_be_read_every_policy_is_believed_and_that_is_said_once() {
    let world = World::new();
    world.put("apps/v1", "statefulsets", "shop", "db", set("db"));
    world.put("v1", "namespaces", "", "other", json!({"metadata": {"labels": {(names::ENABLED): "true"}}}));
    world.approvals(&json!({}));
    let words = "every policy is taken for approved";
    let status = world.json(&["status", "-A", "--installation", "elsewhere", "-o", "json"]);
    assert_eq!(status["sets"][0]["state"], "Unguarded", "{status:#}");
    let problems = status["problems"].as_array().expect("problems");
    assert!(matches!(problems.as_slice(), [Value::String(only)] if only.contains(words)), "{status:#}");
    // There is none; and here they may not be read.
    world.api.fail_next("GET configmaps", Fault::Status(403));
    let explained = world.json(&["explain", "db"]);
    assert_eq!(explained["sets"][0]["appliesAt"], "nextTemplateChange");
    assert!(explained["sets"][0]["problems"].to_string().contains(words), "{explained:#}");
    let checked = world.guardian(&["check", "--installation", "elsewhere"]).stdout;
    assert!(checked.contains("skipped  policies: ") && checked.matches(words).count() == 1, "{checked}");
}

#[test]
fn eject_takes_out_what_was_written_after_the_namespace_is_opted_out() {
    let world = World::new();
    world.guarded("one");
    world.guarded("two");
    world.put("apps/v1", "statefulsets", "shop", "own", set("own"));
    let before = world.stored("one");
    let enabled = || {
        let key = Resource::new("v1", "namespaces").named("", "shop");
        world.api.world(|world| world.get(&key).cloned()).expect("the namespace")["metadata"]["labels"][names::ENABLED] == "true"
    };

    let asked = world.guardian(&["disable", "shop", "--eject"]);
    assert_eq!(asked.code, Some(2), "{}", asked.stderr);
    assert!(asked.stderr.contains("--yes"), "{}", asked.stderr);
    assert!(enabled(), "asked before anything is done");

    let rehearsed = world.guardian(&["disable", "shop", "--eject", "--dry-run"]);
    assert_eq!(rehearsed.code, Some(0), "{}", rehearsed.stderr);
    assert!(
        rehearsed.stdout.contains("StatefulSet one: ") && !rehearsed.stdout.contains("StatefulSet own"),
        "{}",
        rehearsed.stdout
    );
    assert_eq!(world.stored("one"), before);
    assert!(enabled());

    let done = world.guardian(&["disable", "shop", "--eject", "--yes"]);
    assert_eq!(done.code, Some(0), "{}", done.stderr);
    assert!(!enabled());
    for name in ["one", "two", "own"] {
        assert_eq!(world.stored(name)["spec"], set(name)["spec"], "{name}");
    }
    assert!(done.stdout.contains("StatefulSet two: ") && done.stdout.contains("1 pod is restarted"), "{}", done.stdout);
    let again = world.guardian(&["disable", "shop", "--eject"]);
    assert!(again.code == Some(0) && again.stdout.contains("no StatefulSet of shop"), "{}{}", again.stdout, again.stderr);
}

#[test]
fn a_namespace_that_another_installation_has_its_rights_in_is_not_called_enabled() {
    let world = World::new();
    let theirs = world.guardian(&["enable", "shop", "--installation", "elsewhere"]);
    assert_eq!(theirs.code, Some(0), "{}", theirs.stderr);
    let again = world.guardian(&["enable", "shop", "--installation", "elsewhere"]);
    assert_eq!(again.code, Some(0), "what is there is its own: {}", again.stderr);
    let ours = world.guardian(&["enable", "shop"]);
    assert_eq!((ours.code, ours.stdout.as_str()), (Some(1), ""), "{}", ours.stderr);
    for words in [
        "to guardian-controller of elsewhere, not to guardian-controller of stateful-guardian",
        "kubectl -n shop delete rolebinding",
    ] {
        assert!(ours.stderr.contains(words), "{}", ours.stderr);
    }
}

/// What keeps it from being seen to live must not wait for its end to be told.
#[test]
fn a_part_whose_probe_port_is_taken_says_so_and_ends() {
    let world = World::new();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("an address").to_string();
    for part in [&["certs"][..], &["webhook", "--image", "guardian:dev"], &["controller", "--identity", "one"]] {
        let done = world.guardian(&[part, &["--probe-listen", &address]].concat());
        assert!(done.code == Some(1) && done.stderr.contains(&address), "{part:?} {:?}: {}", done.code, done.stderr);
    }
}

#[test]
fn check_names_what_is_missing_and_what_to_do() {
    let world = World::new();
    let checked = world.guardian(&["check", "-o", "json"]);
    assert_eq!(checked.code, Some(1));
    let document: Value = serde_json::from_str(&checked.stdout).expect("one JSON document");
    let checks = document["checks"].as_array().expect("checks");
    let failed: Vec<&str> = checks.iter().filter(|c| c["state"] == "failed").filter_map(|c| c["name"].as_str()).collect();
    // Three Deployments, the endpoints, two configurations, the rights of two ServiceAccounts, of one of them twice, the RoleBinding; and this server lets a
    // broken policy through.
    let expected = [
        "deployment",
        "deployment",
        "deployment",
        "endpoints",
        "webhooks",
        "webhooks",
        "rights",
        "rights",
        "rights",
        "namespace",
        "webhook is asked",
    ];
    assert_eq!(failed, expected, "{document:#}");
    assert_eq!(document["failed"], expected.len());
    assert!(
        checks.iter().filter(|c| c["state"] != "ok").all(|c| c["remedy"].as_str().is_some_and(|r| !r.is_empty())),
        "{document:#}"
    );

    for name in ["guardian-certs", "guardian-webhook", "guardian-controller"] {
        let deployment = json!({"spec": {"replicas": 2, "selector": {}, "template": {}}, "status": {"availableReplicas": 1}});
        world.put("apps/v1", "deployments", "stateful-guardian", name, deployment);
    }
    let enabled = world.guardian(&["enable", "shop"]);
    assert_eq!(enabled.code, Some(0), "{}", enabled.stderr);
    let text = world.guardian(&["check"]);
    assert_eq!(text.code, Some(1));
    for words in [
        "ok       deployment stateful-guardian/guardian-webhook: 1 of 2 replicas are available",
        "ok       namespace shop: enabled, and the controller has its rights",
        "FAILED   webhooks MutatingWebhookConfiguration/stateful-guardian: there is none",
        "kubectl apply -k manifests/base",
        "guardian: 7 checks failed",
    ] {
        assert!(text.stdout.contains(words) || text.stderr.contains(words), "{words}: {}{}", text.stdout, text.stderr);
    }
}

/// Its overlay takes `guardian-certs` out; to install that again would make a second writer.
#[test]
fn check_asks_for_nothing_that_makes_certificates_where_cert_manager_does() {
    let world = World::new();
    let certs = |world: &World| {
        let text = world.guardian(&["check"]).stdout;
        text.lines().find(|line| line.contains("deployment stateful-guardian/guardian-certs")).expect("a line").to_owned()
    };
    assert!(certs(&world).starts_with("FAILED   "), "{}", certs(&world));
    let annotated =
        json!({"metadata": {"annotations": {"cert-manager.io/inject-ca-from": "stateful-guardian/guardian-webhook"}}});
    world.put("admissionregistration.k8s.io/v1", "validatingwebhookconfigurations", "", "stateful-guardian", annotated);
    assert!(certs(&world).starts_with("skipped  ") && certs(&world).contains("cert-manager"), "{}", certs(&world));
    world.api.fail_next("GET validatingwebhookconfigurations", Fault::Status(403));
    assert!(certs(&world).contains("cannot be read"));
}

#[test]
fn the_keys_of_each_json_document_are_the_documented_ones() {
    let world = World::new();
    world.guarded("db");
    world.policy(&POLICY.replace("60s", "61s"));
    let log = json!({
        "log": "audit", "time": "2027-01-01T10:00:00Z", "user": "u", "operation": "CREATE", "kind": "k", "namespace": "n", "name": "n",
        "decision": "allowed", "reason": "NoPolicy",
    });
    let file = world.folder.path().join("log");
    std::fs::write(&file, format!("{log}\n")).expect("a file");
    let file = file.display().to_string();
    for (command, arguments) in [
        ("lint", &["-f", "tests/testdata/lint/deadly.yaml"][..]),
        ("explain", &["db"]),
        ("status", &[]),
        ("audit", &["-f", &file]),
        ("check", &[]),
    ] {
        let done = world.guardian(&[&[command], arguments, &["-o", "json"]].concat());
        assert_documented(command, &serde_json::from_str(&done.stdout).expect("one JSON document"));
    }
}

/// The document of a command has the keys that the page says, and no others.
fn assert_documented(command: &str, document: &Value) {
    let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/operations.md")).expect("the page");
    // What stands in a document as a value, or inside of what is documented elsewhere.
    let no_keys = ["ok", "failed", "skipped"];
    let row = page.lines().find(|line| line.starts_with(&format!("| `{command}` |"))).expect("its row");
    let words = row.split('`').skip(3).step_by(2).map(|word| word.trim_end_matches("[]"));
    let documented: BTreeSet<&str> = words.collect();
    let mut keys: BTreeSet<&str> = document.as_object().expect("an object").keys().map(String::as_str).collect();
    if command != "audit" {
        let items = document.as_object().into_iter().flat_map(|o| o.values()).filter_map(|list| list.get(0));
        let changes = items.clone().filter_map(|item| item["changes"].get(0));
        keys.extend(items.chain(changes).filter_map(Value::as_object).flat_map(|item| item.keys()).map(String::as_str));
    }
    let undocumented: Vec<&&str> = keys.iter().filter(|key| !documented.contains(**key)).collect();
    let invented: Vec<&&str> = documented.iter().filter(|word| !keys.contains(**word) && !no_keys.contains(word)).collect();
    assert!(undocumented.is_empty() && invented.is_empty(), "{command}: not documented {undocumented:?}, not there {invented:?}");
}
