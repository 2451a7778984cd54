//! What is not ours is left as it came, and what is ours is put where it belongs, whoever had the object in his hands in between.

use serde_json::{Value, json};

use super::{NOW, ask, body, patched, policy, set, settings, snapshot};
use crate::admission::editor::Editor;
use crate::admission::tree::Tree;
use crate::admission::{Decision, Reason, Review, Verdict, judge, validate};
use crate::policy::Policy;

const IMAGE: &str = "guardian:1";

/// Everything that a policy can write.
fn everything() -> Policy {
    policy(
        "container: redis\nreadyAfter: join\nprotect: {priorityClassName: critical, spread: [zone], minReplicas: 9, deletion: deny}\n\
         hooks: {init: {command: [a]}, preStop: {command: [b], timeout: 60s}, rejoin: {command: [c]}, leave: {command: [d]}}\n",
    )
}

fn plain() -> Value {
    json!({"spec": {"containers": [{"name": "redis", "image": "redis:5"}]}})
}

fn create(object: &Value) -> Verdict {
    ask(&body("CREATE", &object.to_string(), "null"), &snapshot(Some(&everything())), IMAGE)
}

fn update(old: &Value, new: &Value) -> Verdict {
    ask(&body("UPDATE", &new.to_string(), &old.to_string()), &snapshot(Some(&everything())), IMAGE)
}

/// The set as it is stored.
fn stored() -> Value {
    let object = set(&plain());
    patched(&object, &create(&object))
}

fn paths(verdict: &Verdict) -> Vec<String> {
    let patch: Value = serde_json::from_slice(&verdict.patch.to_bytes()).unwrap();
    patch.as_array().unwrap().iter().map(|operation| operation["path"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn kinds_versions_verbs_and_subresources_that_are_not_ours_are_neither_changed_nor_denied() {
    let snapshot = snapshot(Some(&everything()));
    let set = set(&plain()).to_string();
    let of = |group: &str, version: &str, kind: &str, plural: &str, subresource: &str, verb: &str| {
        format!(
            r#"{{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","request":{{"uid":"u","namespace":"redis","name":"redis",
            "kind":{{"group":"{group}","version":"{version}","kind":"{kind}"}},"subResource":"{subresource}",
            "resource":{{"group":"{group}","version":"{version}","resource":"{plural}"}},"operation":"{verb}",
            "object":{set},"oldObject":{set}}}}}"#
        )
    };
    let cases = [
        ("apps", "v1beta1", "StatefulSet", "statefulsets", "", "UPDATE"),
        ("apps", "v1beta2", "StatefulSet", "statefulsets", "", "CREATE"),
        ("example.com", "v1", "StatefulSet", "statefulsets", "", "UPDATE"),
        ("", "v1", "StatefulSet", "statefulsets", "", "CREATE"),
        ("apps", "v1", "Deployment", "deployments", "", "UPDATE"),
        ("apps", "v1", "StatefulSet", "statefulsets", "status", "UPDATE"),
        ("apps", "v1", "StatefulSet", "statefulsets", "another", "UPDATE"),
        ("apps", "v1", "StatefulSet", "statefulsets", "", "CONNECT"),
        ("", "v1", "Pod", "pods", "", "CREATE"),
        ("", "v1", "Pod", "pods", "ephemeralcontainers", "UPDATE"),
        ("", "v1", "Pod", "pods", "exec", "CONNECT"),
        ("policy", "v1", "Eviction", "pods", "eviction", "DELETE"),
        ("autoscaling", "v1", "Scale", "deployments", "scale", "UPDATE"),
        ("autoscaling", "v2", "Scale", "statefulsets", "scale", "UPDATE"),
    ];
    for (group, version, kind, plural, subresource, verb) in cases {
        let body = of(group, version, kind, plural, subresource, verb);
        let review = Review::parse(&body).unwrap();
        for verdict in [judge(&review, &snapshot, &settings(IMAGE)), validate(&review, &snapshot, NOW)] {
            let seen = (&verdict.decision, verdict.reason, verdict.warnings.len());
            assert_eq!(seen, (&Decision::Allowed, Reason::NotOurs, 0), "{group}/{version} {kind}/{subresource} {verb}");
        }
    }
}

#[test]
fn missing_parents_are_made_once_and_in_the_same_patch() {
    // Two init containers into a list that is not there: the second is appended to what the first has made.
    let verdict = create(&set(&plain()));
    let paths = paths(&verdict);
    assert!(paths.iter().all(|path| !path.contains("/-/")), "{paths:?}");
    let made = |path: &str| paths.iter().filter(|p| *p == path).count();
    for parent in ["/spec/template/metadata", "/spec/template/spec/initContainers", "/spec/template/spec/containers/0/lifecycle"]
    {
        assert_eq!(made(parent), 1, "{parent} in {paths:?}");
    }
    assert_eq!(made("/spec/template/spec/initContainers/-"), 1, "{paths:?}");
    let names: Vec<Value> =
        stored()["spec"]["template"]["spec"]["initContainers"].as_array().unwrap().iter().map(|c| c["name"].clone()).collect();
    assert_eq!(names, ["guardian-init", "guardian-init-hook"]);
}

#[test]
fn keys_that_json_pointers_escape_or_take_for_an_index_are_addressed_rightly() {
    let keys = ["a/b~c", "~1", "~0", "", "-", "0", "é"];
    let mut editor = Editor::new("/root", Tree::from(&json!({"map": {"a": {}}, "~/": {}})));
    for key in keys {
        editor.set(&["map"], key, Tree::text("1"));
        editor.set(&["~/", key], key, Tree::List(Vec::new()));
        editor.ensure(&["~/", key], key, (key, Tree::from(&json!({"name": key}))), None);
    }
    editor.unset(&["map"], "~0", 1);
    let (edited, patch) = editor.finish();
    let edited = edited.value();
    let mut document = json!({"root": {"map": {"a": {}}, "~/": {}}});
    let patch: json_patch::Patch = serde_json::from_slice(&patch.to_bytes()).unwrap();
    json_patch::patch(&mut document, &patch).unwrap();
    assert_eq!(document["root"], edited, "what the API server makes of it is what was meant");
    assert_eq!(edited["map"].as_object().unwrap().len(), keys.len());

    let template = json!({"metadata": {"labels": {"-": "a", "0": "b"}, "annotations": {"a/b~c": "1", "": "2", "~1": "3"}},
        "spec": {"containers": [{"name": "redis", "~/": {"-": ["x"]}}]}});
    let object = set(&template);
    let after = patched(&object, &create(&object));
    for map in ["labels", "annotations"] {
        for (key, value) in template["metadata"][map].as_object().unwrap() {
            assert_eq!(&after["spec"]["template"]["metadata"][map][key], value, "{key:?}");
        }
    }
    assert_eq!(after["spec"]["template"]["spec"]["containers"][0]["~/"], json!({"-": ["x"]}));
}

#[test]
fn the_same_review_gets_the_same_bytes_and_its_own_output_gets_none() {
    let snapshot = snapshot(Some(&everything()));
    let answer = |object: &Value, dry: bool| {
        let body = body("CREATE", &object.to_string(), "null").replace(r#""uid":"u""#, &format!(r#""uid":"u","dryRun":{dry}"#));
        ask(&body, &snapshot, IMAGE).to_response("u")
    };
    let object = set(&plain());
    let first = answer(&object, false);
    assert_eq!((&answer(&object, false), &answer(&object, true)), (&first, &first), "a dry run is shown what would be");
    assert!(String::from_utf8(first).unwrap().contains("patchType"));
    let fed_back = String::from_utf8(answer(&stored(), false)).unwrap();
    assert!(!fed_back.contains("patch"), "{fed_back}");
}

#[test]
fn applying_the_same_manifest_again_changes_nothing() {
    let old = stored();
    // Both kinds of apply merge the manifest into what is stored; what changes is who manages which field.
    let mut new = old.clone();
    new["metadata"]["managedFields"] = json!([{"manager": "another", "operation": "Apply"}]);
    new["metadata"]["annotations"] = json!({"kubectl.kubernetes.io/last-applied-configuration": "{}"});
    let verdict = update(&old, &new);
    assert_eq!((verdict.reason, verdict.patch.is_empty(), verdict.warnings.len()), (Reason::TemplateUnchanged, true, 0));
}

#[test]
fn what_another_webhook_did_between_two_calls_of_one_admission_is_made_good() {
    type Meddle = fn(&mut Value);
    let meddlers: [(&str, Meddle); 5] = [
        ("adds a container in front", |spec| {
            spec["containers"].as_array_mut().unwrap().insert(0, json!({"name": "proxy", "image": "proxy:1"}));
        }),
        ("reorders", |spec| {
            spec["initContainers"].as_array_mut().unwrap().reverse();
            spec["volumes"].as_array_mut().unwrap().insert(0, json!({"name": "certs", "emptyDir": {}}));
        }),
        ("removes our container", |spec| drop(spec["initContainers"].as_array_mut().unwrap().remove(0))),
        ("removes our mount", |spec| spec["containers"][0]["volumeMounts"] = json!([])),
        ("removes our handler", |spec| drop(spec["containers"][0].as_object_mut().unwrap().remove("lifecycle"))),
    ];
    for (what, meddle) in meddlers {
        let mut again = stored();
        meddle(&mut again["spec"]["template"]["spec"]);
        let after = patched(&again, &create(&again));
        let spec = &after["spec"]["template"]["spec"];
        let names = |list: &str| spec[list].as_array().unwrap().iter().map(|i| i["name"].as_str().unwrap()).collect::<Vec<_>>();
        assert_eq!(names("initContainers"), ["guardian-init", "guardian-init-hook"], "{what}");
        for container in spec["containers"].as_array().unwrap() {
            assert_eq!(container["volumeMounts"], json!([{"name": "guardian", "mountPath": "/guardian"}]), "{what}: {container}");
        }
        assert_eq!(names("volumes").iter().filter(|name| **name == "guardian").count(), 1, "{what}");
        let redis = spec["containers"].as_array().unwrap().iter().find(|c| c["name"] == "redis").unwrap();
        assert_eq!(redis["lifecycle"]["preStop"]["exec"]["command"][1], "stop", "{what}");
        assert!(create(&after).patch.is_empty(), "{what}: no third call is needed");
    }
}

#[test]
fn fields_of_a_newer_kubernetes_and_native_sidecars_stay_byte_for_byte() {
    let unknown = r#"{"a/b":[1,null,{"~":""}],"number":1.0e2,"big":123456789012345678901234567890,"dup":1,"dup":2,"text":"\u00e9\ud83d\ude00"}"#;
    let sidecar = r#"{"name":"proxy","image":"proxy:1","restartPolicy":"Always","startupProbe":{"tcpSocket":{"port":1}}}"#;
    let template = format!(
        r#"{{"future":{unknown},"spec":{{"future":{unknown},"initContainers":[{sidecar}],"ephemeralContainers":[{{"name":"debug"}}],
        "containers":[{{"name":"redis","future":{unknown}}}]}}}}"#
    );
    let object =
        format!(r#"{{"future":{unknown},"metadata":{{"name":"redis"}},"spec":{{"future":{unknown},"template":{template}}}}}"#);
    let verdict = ask(&body("CREATE", &object, "null"), &snapshot(Some(&everything())), IMAGE);
    assert_eq!(verdict.reason, Reason::Injected);
    // An operation touches what it names and nothing else: so nothing of this is named, or carried by a value.
    for operation in serde_json::from_slice::<Vec<Value>>(&verdict.patch.to_bytes()).unwrap() {
        let path = operation["path"].as_str().unwrap();
        assert!(!path.contains("future") && !path.contains("phemeral"), "{operation}");
        assert!(!operation.to_string().contains("proxy"), "{operation}");
        assert_ne!((path, operation["op"].as_str()), ("/spec/template/spec/initContainers", Some("replace")));
    }
}

#[test]
fn two_handlers_or_two_probes_never_come_of_two_owners() {
    let own = |c: &mut Value| {
        c["lifecycle"] = json!({"preStop": {"httpGet": {"port": 1}}});
        c["startupProbe"] = json!({"grpc": {"port": 1}, "failureThreshold": 3});
    };
    let mut template = plain();
    own(&mut template["spec"]["containers"][0]);
    let object = set(&template);
    let verdict = create(&object);
    assert_eq!(verdict.warnings.len(), 2, "each field that is kept is named: {:?}", verdict.warnings);
    let container = |object: &Value| object["spec"]["template"]["spec"]["containers"][0].clone();
    let kept = container(&patched(&object, &verdict));
    assert_eq!(
        (&kept["lifecycle"], &kept["startupProbe"]),
        (&container(&object)["lifecycle"], &container(&object)["startupProbe"])
    );

    // As a merge of the owner's later wish into what is stored leaves them: his beside ours.
    let mut merged = stored();
    let fields = &mut merged["spec"]["template"]["spec"]["containers"][0];
    fields["lifecycle"]["preStop"]["httpGet"] = json!({"port": 1});
    fields["startupProbe"]["grpc"] = json!({"port": 1});
    let after = container(&patched(&merged, &update(&stored(), &merged)));
    assert_eq!(after["lifecycle"]["preStop"], json!({"httpGet": {"port": 1}}));
    assert_eq!(after["startupProbe"], json!({"grpc": {"port": 1}}));
}

#[test]
fn a_container_name_that_the_api_server_will_refuse_is_written_once_too() {
    for name in ["/guardian", "", "a/lifecycle/preStop", "~1"] {
        let mut template = plain();
        template["spec"]["containers"][0]["name"] = json!(name);
        let anywhere = policy("readyAfter: join\nhooks: {preStop: {command: [b]}, rejoin: {command: [c]}}\n");
        let ask = |object: &Value| ask(&body("CREATE", &object.to_string(), "null"), &snapshot(Some(&anywhere)), IMAGE);
        let object = set(&template);
        let after = patched(&object, &ask(&object));
        assert!(ask(&after).patch.is_empty(), "{name:?}");
    }
}
