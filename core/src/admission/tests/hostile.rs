//! Input that no API server sends, or that somebody made up to break the webhook: a clear answer, and never a panic.

use super::{ask, body, patched, policy, set, snapshot};
use crate::admission::{Decision, Reason, Review, Verdict};
use serde_json::{Value, json};

const TEMPLATE: &str = r#"{"spec":{"containers":[{"name":"redis","image":"redis:5"}]}}"#;

fn create(object: &str) -> Verdict {
    ask(
        &body("CREATE", object, "null"),
        &snapshot(Some(&policy("hooks: {init: {command: [a]}, preStop: {command: [b]}}"))),
        "g:1",
    )
}

fn with_template(template: &str) -> Verdict {
    create(&format!(r#"{{"metadata":{{"name":"redis"}},"spec":{{"template":{template}}}}}"#))
}

/// Goes through as it came, with one warning that holds `expected`.
#[track_caller]
fn let_through(verdict: &Verdict, expected: &str) {
    assert_eq!(verdict.decision, Decision::Allowed);
    let [warning] = verdict.warnings.as_slice() else { panic!("{:?}", verdict.warnings) };
    assert!(warning.contains(expected), "{warning}");
    assert!(warning.len() <= 200, "{warning}");
}

#[test]
fn a_template_of_another_shape_goes_through_with_the_path_of_what_is_wrong() {
    let cases = [
        (r#""a text""#, "invalid type: string"),
        ("5", "invalid type: integer"),
        ("[]", "the pod template cannot be read: invalid type: sequence, expected an object"),
        (r#"{"spec":[1]}"#, "spec: invalid type: sequence"),
        (r#"{"spec":{"containers":"redis"}}"#, "spec.containers: invalid type: string"),
        (r#"{"spec":{"containers":["redis"]}}"#, "spec.containers[0]: invalid type: string"),
        (r#"{"spec":{"containers":[{"image":"redis"}]}}"#, "spec.containers[0]: missing field `name`"),
        (r#"{"spec":{"containers":[{"name":5}]}}"#, "spec.containers[0].name: invalid type: integer"),
        (r#"{"spec":{"containers":[{"name":"a","volumeMounts":{}}]}}"#, "spec.containers[0].volumeMounts: invalid type: map"),
        (r#"{"spec":{"containers":[{"name":"a","lifecycle":{"preStop":[]}}]}}"#, "spec.containers[0].lifecycle.preStop: "),
        (r#"{"spec":{"containers":[{"name":"a"}],"volumes":[[]]}}"#, "spec.volumes[0]"),
        (r#"{"spec":{"containers":[{"name":"a"}],"initContainers":"x"}}"#, "spec.initContainers: "),
        (r#"{"metadata":{"labels":[]},"spec":{"containers":[{"name":"a"}]}}"#, "metadata.labels: "),
        (r#"{"spec":{"containers":[{"name":"a"}],"terminationGracePeriodSeconds":"30"}}"#, "terminationGracePeriodSeconds: "),
        (r#"{"spec":{"containers":[]}}"#, "no container"),
        ("{}", "no container"),
        (r#"{"spec":null}"#, "no container"),
    ];
    for (template, expected) in cases {
        let_through(&with_template(template), expected);
    }
}

#[test]
fn a_repeated_field_that_is_read_is_refused_and_any_other_is_copied() {
    let_through(&with_template(r#"{"spec":{"containers":[{"name":"a"}]},"spec":{}}"#), "duplicate field `spec`");
    let_through(&with_template(r#"{"spec":{"containers":[{"name":"a","name":"b"}]}}"#), "duplicate field `name`");
    let_through(&create(r#"{"spec":{"template":{},"template":{}}}"#), "duplicate field `template`");
    let verdict = with_template(r#"{"spec":{"containers":[{"name":"a","x":1,"x":2}],"y":1,"y":2}}"#);
    assert_eq!(verdict.reason, Reason::Injected);
}

#[test]
fn deep_nesting_overflows_no_stack() {
    let deep = format!("{}{}", "[".repeat(10_000), "]".repeat(10_000));
    let_through(&with_template(&deep), "invalid type");
    // What the init container is to have is read.
    let_through(&with_template(&format!(r#"{{"spec":{{"containers":[{{"name":"a","env":{deep}}}]}}}}"#)), "recursion limit");
    // Beside what is read, it is left as it came.
    let verdict = with_template(&format!(r#"{{"x":{deep},"spec":{{"containers":[{{"name":"a","x":{deep}}}]}}}}"#));
    assert_eq!(verdict.reason, Reason::Injected);
    let verdict = create(&format!(r#"{{"x":{deep},"metadata":{{"y":{deep}}},"spec":{{"z":{deep},"template":{TEMPLATE}}}}}"#));
    assert_eq!(verdict.reason, Reason::Injected);
    assert!(Review::parse(&deep).is_err());
}

/// A tree of them would take more memory than one review may.
#[test]
fn a_million_keys_in_a_template_are_not_worked_on_and_beside_it_are_nobodys_business() {
    let keys: String = (0..1_000_000).map(|n| format!("\"k{n}\":{n},")).collect();
    let_through(
        &with_template(&format!(r#"{{{keys}"spec":{{"containers":[{{"name":"a"}}]}}}}"#)),
        "MiB of memory, and 64 are the most",
    );
    let verdict =
        create(&format!(r#"{{"x":{{{keys}"last":0}},"metadata":{{"name":"redis"}},"spec":{{"template":{TEMPLATE}}}}}"#));
    assert_eq!(verdict.reason, Reason::Injected);
}

/// As large as an API server stores one, and of small objects throughout.
#[test]
fn a_template_of_a_mebibyte_and_a_half_is_worked_on() {
    let variable = r#"{"name":"A_VARIABLE","value":"of forty bytes"}"#;
    let variables = vec![variable; (3 << 19) / (variable.len() + 1)].join(",");
    let verdict = with_template(&format!(r#"{{"spec":{{"containers":[{{"name":"a","env":[{variables}]}}]}}}}"#));
    assert_eq!(verdict.reason, Reason::Injected);
}

#[test]
fn a_thousand_containers_are_all_mounted() {
    let containers: Vec<Value> = (0..1000).map(|n| json!({"name": format!("c{n}")})).collect();
    let object = set(&json!({"spec": {"containers": containers}}));
    let after = patched(&object, &create(&object.to_string()));
    let containers = after["spec"]["template"]["spec"]["containers"].as_array().unwrap();
    assert!(containers.iter().all(|c| c["volumeMounts"][0]["name"] == "guardian"));
}

#[test]
fn what_json_does_not_know_is_no_review() {
    for text in ["NaN", "Infinity", "01", "'a'", "\"\u{1}\""] {
        let object = format!(r#"{{"spec":{{"template":{{"spec":{{"containers":[{{"name":"a","x":{text}}}]}}}}}}}}"#);
        assert!(Review::parse(&body("CREATE", &object, "null")).is_err(), "{text}");
    }
}

#[test]
fn what_no_value_can_hold_is_left_as_it_came_unless_it_is_read() {
    for text in [r#""\ud800""#, "1e999"] {
        let with = |field: &str| with_template(&format!(r#"{{"spec":{{"containers":[{{"name":"a","{field}":{text}}}]}}}}"#));
        for read in ["name", "env", "lifecycle", "startupProbe"] {
            assert_eq!(with(read).decision, Decision::Allowed, "{read}");
        }
        for read in ["lifecycle", "startupProbe"] {
            let handler = format!(r#"{{"exec":{{"command":[{text}]}}}}"#);
            let value = if read == "lifecycle" { format!(r#"{{"preStop":{handler}}}"#) } else { handler };
            let template = format!(r#"{{"spec":{{"containers":[{{"name":"a","{read}":{value}}}]}}}}"#);
            let_through(&with_template(&template), "not guarded: ");
        }
        let verdict = with("x");
        assert_eq!(verdict.reason, Reason::Injected);
        assert!(!String::from_utf8(verdict.patch.to_bytes()).unwrap().contains(text), "{text}");
    }
}

/// Whatever the text of a template looks like, it says the same: the record, and so the digests in it, may not depend on it.
#[test]
fn the_order_of_members_and_the_spelling_of_values_do_not_matter() {
    let spellings = [
        r#"{"spec":{"containers":[{"env":[{"name":"A","value":"a/\u0001é"}],"image":"i","name":"a","securityContext":{"a":1,"b":[-0.0,1e2]}}]}}"#,
        r#"{ "spec" : {"containers":[ {"name":"\u0061","securityContext":{"b":[-0.0, 100.0],"a":1,"b":[-0.0,1e2]},
            "image":"\u0069","env":[{"value":"\u0061\/\u0001\u00e9","name":"A"}]}]}}"#,
    ];
    let records = spellings.map(|template| {
        let object: Value = serde_json::from_str(&format!(r#"{{"spec":{{"template":{template}}}}}"#)).unwrap();
        let after = patched(&object, &with_template(template));
        after["spec"]["template"]["metadata"]["annotations"].clone()
    });
    assert_eq!(records[0], records[1]);
    assert!(records[0].to_string().contains("guardian-init-hook"), "{records:?}");
}

#[test]
fn null_is_as_good_as_absent() {
    let nulls = r#"{"metadata":{"labels":null,"annotations":null},"spec":{"initContainers":null,"volumes":null,
        "terminationGracePeriodSeconds":null,"priorityClassName":null,
        "containers":[{"name":"a","volumeMounts":null,"lifecycle":null,"resources":null}]}}"#;
    let metadata = r#"{"name":"redis","labels":null,"annotations":null,"deletionTimestamp":null}"#;
    let object = format!(r#"{{"metadata":{metadata},"spec":{{"template":{nulls}}}}}"#);
    let verdict = create(&object);
    assert_eq!((verdict.reason, verdict.warnings.len()), (Reason::Injected, 0));
    let after = patched(&serde_json::from_str(&object).unwrap(), &verdict);
    assert_eq!(create(&after.to_string()).reason, Reason::AlreadyInjected);
    assert_eq!(create(r#"{"metadata":null,"spec":null}"#).reason, Reason::NotOurs);
}

#[test]
fn an_unreadable_set_goes_through_and_an_unreadable_policy_does_not() {
    let_through(&create("5"), "the StatefulSet cannot be read");
    let_through(&create(r#"{"metadata":{"labels":[]}}"#), "the StatefulSet cannot be read");
    let map = body("CREATE", r#"{"data":{"a":5}}"#, "null").replace("\"apps\"", "\"\"").replace("StatefulSet", "ConfigMap");
    let verdict = crate::admission::validate(&Review::parse(&map).unwrap(), &snapshot(None), super::NOW);
    assert!(matches!(&verdict.decision, Decision::Denied { code: 422, message } if message.contains("cannot be read")));
}

/// A parser quotes what it did not expect, however long that is.
#[test]
fn a_denial_quotes_no_more_of_an_object_than_a_person_reads() {
    let map = format!(r#"{{"data":"{}"}}"#, "é".repeat(1 << 19));
    let map = body("CREATE", &map, "null").replace("\"apps\"", "\"\"").replace("StatefulSet", "ConfigMap");
    let verdict = crate::admission::validate(&Review::parse(&map).unwrap(), &snapshot(None), super::NOW);
    let Decision::Denied { message, .. } = &verdict.decision else { panic!("{:?}", verdict.decision) };
    assert!(message.len() <= 4096 && message.contains("cannot be read") && message.ends_with('…'), "{}", message.len());
    assert!(verdict.to_response("u").len() < 5000);
}

#[test]
fn an_update_without_its_old_object_changes_nothing() {
    let verdict =
        ask(&body("UPDATE", &format!(r#"{{"spec":{{"template":{TEMPLATE}}}}}"#), "null"), &snapshot(Some(&policy(""))), "g:1");
    let_through(&verdict, "no old object");
}

#[test]
fn what_is_no_review_is_refused_with_the_reason() {
    let review = |kind: &str, version: &str, request: &str| format!(r#"{{"kind":"{kind}","apiVersion":"{version}"{request}}}"#);
    let cases = [
        (String::new(), "EOF while parsing"),
        ("nonsense".to_owned(), "expected"),
        ("[]".to_owned(), "invalid length"),
        ("{}".to_owned(), "missing field"),
        (
            review("AdmissionReview", "admission.k8s.io/v1beta1", ""),
            "admission.k8s.io/v1beta1/AdmissionReview is not served here",
        ),
        (review("Pod", "v1", ""), "v1/Pod is not served here"),
        (review("AdmissionReview", "admission.k8s.io/v1", ""), "no request"),
        (review("AdmissionReview", "admission.k8s.io/v1", r#","request":null"#), "no request"),
        (body("CREATE", "null", "null").replace(r#""uid":"u""#, r#""uid":"""#), "no uid"),
        (body("PATCH", "null", "null"), "unknown variant `PATCH`"),
        (body("CREATE", "null", "null").replace(r#""uid":"u""#, r#""uid":"u","uid":"v""#), "duplicate field `uid`"),
        (body("CREATE", "null", "null").replace(r#""uid":"u""#, r#""uid":"\ud800""#), "the body is not an AdmissionReview"),
    ];
    for (body, expected) in cases {
        let message = Review::parse(&body).unwrap_err().to_string();
        assert!(message.contains(expected), "{body}: {message}");
    }
}

#[test]
fn other_verbs_and_subresources_are_left_alone() {
    let object = format!(r#"{{"spec":{{"template":{TEMPLATE}}}}}"#);
    let asked = |body: &str| ask(body, &snapshot(Some(&policy("hooks: {}"))), "g:1").reason;
    for verb in ["DELETE", "CONNECT"] {
        assert_eq!(asked(&body(verb, &object, "null")), Reason::NotOurs);
    }
    let status = body("UPDATE", &object, &object).replace(r#""uid":"u""#, r#""uid":"u","subResource":"status""#);
    assert_eq!(asked(&status), Reason::NotOurs);
}

#[test]
fn long_names_do_not_make_long_warnings() {
    let long = "a".repeat(253);
    let body = body(
        "CREATE",
        &format!(
            r#"{{"metadata":{{"annotations":{{"stateful-guardian.io/policy":"{long}"}}}},"spec":{{"template":{TEMPLATE}}}}}"#
        ),
        "null",
    );
    let_through(&ask(&body, &snapshot(None), "g:1"), "stateful-guardian.io/policy names a");
}
