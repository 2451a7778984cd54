//! A policy is code that runs in pods: whose is taken, and what becomes of a set whose policy nobody has stood up for.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Value, json};

use super::{NOW, patched, policy, set, settings, snapshot};
use crate::admission::{Author, Decision, Question, Reason, Review, Snapshot, Verdict, judge, validate};
use crate::names;
use crate::policy::{Approval, Policy, digest};

const TEXT: &str = "apiVersion: stateful-guardian.io/v1alpha1\nkind: GuardianPolicy\nhooks: {rejoin: {script: a.sh}}\n";

/// The stored policy, with its keys by name.
fn stored() -> Value {
    json!({
        "metadata": {"name": "redis", "labels": {names::POLICY: "true"}, "annotations": {names::APPROVE: "once"}},
        "data": {"policy.yaml": TEXT, "a.sh": "#!/bin/sh\n"},
    })
}

fn edited(change: impl FnOnce(&mut Value)) -> Value {
    let mut map = stored();
    change(&mut map);
    map
}

fn write(object: &Value, old: &Value, dry_run: bool, may_exec: Option<bool>) -> Verdict {
    let operation = if old.is_null() { "CREATE" } else { "UPDATE" };
    let body = json!({
        "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview",
        "request": {
            "uid": "u", "kind": {"group": "", "version": "v1", "kind": "ConfigMap"},
            "resource": {"group": "", "version": "v1", "resource": "configmaps"},
            "operation": operation, "namespace": "shop", "name": "redis", "dryRun": dry_run,
            "userInfo": {"username": "ann"}, "object": object, "oldObject": old,
        },
    });
    validate(&Review::parse(&body.to_string()).unwrap(), &Snapshot { may_exec, ..Snapshot::default() }, NOW)
}

/// What each kind of change asks about its author.
#[test]
fn the_author_of_what_runs_is_asked_about_and_of_nothing_else() {
    let data = |key: &'static str, value: Value| edited(|map| map["data"][key] = value);
    let metadata = |part: &'static str, value: Value| edited(|map| map["metadata"][part] = value);
    let plain = metadata("labels", json!({"app": "redis"}));
    let other = |map: &Value| {
        let mut map = map.clone();
        map["metadata"]["labels"][names::POLICY] = json!("yes");
        map
    };
    let spoilt = edited(|map| map["binaryData"] = json!({"blob": "AAAA"}));
    let asked = [
        ("a new policy", Value::Null, stored()),
        ("a script is changed", stored(), data("a.sh", json!("#!/bin/sh\nevil\n"))),
        ("the policy is changed", stored(), data("policy.yaml", json!(format!("{TEXT}container: redis\n")))),
        ("a key that nothing names is added", stored(), data("b.sh", json!("#!/bin/sh\n"))),
        ("a key that nothing names is taken out", data("b.sh", json!("#!/bin/sh\n")), stored()),
        ("the label is put on", plain.clone(), stored()),
        ("the label gets its value", other(&stored()), stored()),
        ("the label is taken off", stored(), plain.clone()),
        ("the label loses its value", stored(), other(&stored())),
        ("what is not read is taken out", spoilt.clone(), stored()),
        ("the annotation is set", metadata("annotations", json!({})), stored()),
        ("the annotation is set to something else", stored(), metadata("annotations", json!({names::APPROVE: "twice"}))),
        ("the old one cannot be read", json!({"metadata": 5}), stored()),
    ];
    for (what, old, new) in &asked {
        for dry_run in [false, true] {
            let verdicts = [None, Some(false), Some(true)].map(|may_exec| write(new, old, dry_run, may_exec));
            let [unknown, no, yes] = &verdicts;
            assert_eq!((unknown.reason, &unknown.question), (Reason::NotAnswered, &Some(Question::MayExec)), "{what}");
            assert!(matches!(&unknown.decision, Decision::Denied { code: 503, .. }), "{what}");
            assert_eq!((no.reason, &no.question), (Reason::NotApproved, &None), "{what}");
            assert!(matches!(&no.decision, Decision::Denied { code: 403, .. }), "{what}");
            assert_eq!((&yes.decision, &yes.question), (&Decision::Allowed, &None), "{what}");
            assert!(unknown.approval.is_none() && no.approval.is_none(), "{what}: only what is allowed is approved");
            let is_policy = new["metadata"]["labels"][names::POLICY] == "true";
            assert_eq!(yes.approval.is_some(), is_policy && !dry_run, "{what}, dry run: {dry_run}");
        }
    }
    let not_asked = [
        ("nothing is changed", stored(), stored()),
        ("another label", stored(), edited(|map| map["metadata"]["labels"]["team"] = json!("shop"))),
        ("another annotation", stored(), edited(|map| map["metadata"]["annotations"]["note"] = json!("x"))),
        ("the annotation is taken off", stored(), metadata("annotations", json!({}))),
        ("no policy before and after", plain.clone(), edited(|map| map["metadata"]["labels"] = json!({}))),
        ("a new ConfigMap that is no policy", Value::Null, plain),
    ];
    for (what, old, new) in &not_asked {
        for may_exec in [None, Some(false), Some(true)] {
            let verdict = write(new, old, false, may_exec);
            assert_eq!((&verdict.decision, &verdict.question), (&Decision::Allowed, &None), "{what}");
            assert_eq!(verdict.approval, None, "{what}");
        }
    }
    for bad in [spoilt, data("policy.yaml", json!("nonsense"))] {
        let verdict = write(&bad, &stored(), false, None);
        assert_eq!((verdict.reason, verdict.question), (Reason::InvalidPolicy, None), "its errors come first");
    }
}

#[test]
fn what_is_approved_is_what_this_request_stores() {
    let object = edited(|map| map["data"]["a.sh"] = json!("#!/bin/sh\nnew\n"));
    let data: BTreeMap<String, String> = serde_json::from_value(object["data"].clone()).unwrap();
    let [namespace, policy, user] = ["shop", "redis", "ann"].map(str::to_owned);
    let expected = Approval { namespace, policy, digest: digest(&data), user };
    let verdict = write(&object, &stored(), false, Some(true));
    assert_eq!((verdict.approval, verdict.changes), (Some(expected), vec!["approval"]));
}

#[test]
fn a_denial_says_which_right_is_missing_where() {
    let said = |may_exec| match write(&stored(), &Value::Null, false, may_exec).decision {
        Decision::Denied { message, .. } => message,
        other => panic!("{other:?}"),
    };
    for words in ["policy redis", "ann", "create pods/exec in namespace shop", "have somebody who has it"] {
        assert!(said(Some(false)).contains(words), "{}", said(Some(false)));
    }
    assert!(said(None).ends_with("try again"), "{}", said(None));
}

#[test]
fn all_that_is_known_of_the_author_is_read() {
    let author = |user_info: &str| {
        let request = format!(
            r#"{{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","request":{{"uid":"u","operation":"CREATE",
            "kind":{{"group":"","version":"v1","kind":"ConfigMap"}},"userInfo":{user_info}}}}}"#
        );
        Review::parse(&request).unwrap().author()
    };
    let whole = r#"{"username":"ann","uid":"7","groups":["dev","ops"],"extra":{"scopes.example.com":["a","b"],"x":[]}}"#;
    let expected = Author {
        user: "ann".to_owned(),
        uid: Some("7".to_owned()),
        groups: vec!["dev".to_owned(), "ops".to_owned()],
        extra: BTreeMap::from([
            ("scopes.example.com".to_owned(), vec!["a".to_owned(), "b".to_owned()]),
            ("x".to_owned(), Vec::new()),
        ]),
    };
    assert_eq!(author(whole).unwrap(), expected);
    let alone = Author { user: "ann".to_owned(), uid: None, groups: Vec::new(), extra: BTreeMap::new() };
    for user_info in [r#"{"username":"ann"}"#, r#"{"username":"ann","uid":null,"groups":null,"extra":null}"#] {
        assert_eq!(author(user_info).unwrap(), alone);
    }
    for user_info in [r#"{"username":"ann","groups":"dev"}"#, r#"{"username":"ann","extra":{"x":"a"}}"#] {
        assert!(author(user_info).is_err(), "{user_info}: nobody is asked about half an author");
    }
}

/// Snapshots in which these policies are in force and wait.
fn known(in_force: Option<&Policy>, waiting: &Policy) -> Snapshot {
    let waiting = BTreeMap::from([(waiting.name.clone(), Arc::new(waiting.clone()))]);
    Snapshot { waiting: BTreeMap::from([("redis".to_owned(), waiting)]), ..snapshot(in_force) }
}

fn template(image: &str) -> Value {
    json!({"metadata": {"labels": {"app": "redis"}}, "spec": {"containers": [{"name": "redis", "image": image}]}})
}

fn ask(object: &Value, old: &Value, snapshot: &Snapshot) -> Verdict {
    let operation = if old.is_null() { "CREATE" } else { "UPDATE" };
    let body = super::body(operation, &object.to_string(), &old.to_string());
    judge(&Review::parse(&body).unwrap(), snapshot, &settings("guardian:1"))
}

#[test]
fn a_policy_that_waits_writes_nothing_and_the_warning_says_how_it_is_approved() {
    let policy = policy("hooks: {preStop: {command: [save]}}");
    let verdict = ask(&set(&template("redis:5")), &Value::Null, &known(None, &policy));
    assert_eq!((&verdict.decision, verdict.reason), (&Decision::Allowed, Reason::AwaitsApproval));
    assert!(verdict.patch.is_empty());
    assert_eq!(verdict.question, Some(Question::Policies), "it may have been approved by now");
    let said = "not guarded: policy redis-policy is not approved: run `guardian approve -n redis redis-policy`";
    assert_eq!(verdict.warnings, [said]);
    assert_eq!(verdict.policy, Some(("redis-policy".to_owned(), policy.revision)));

    let mut other = set(&template("redis:5"));
    other["metadata"]["annotations"] = json!({names::POLICY: "other"});
    assert_eq!(ask(&other, &Value::Null, &known(None, &super::policy(""))).reason, Reason::NoPolicy);
}

#[test]
fn an_edit_that_waits_leaves_the_approved_revision_in_force_and_that_is_said() {
    let (approved, edit) = (policy("hooks: {preStop: {command: [save]}}"), policy("hooks: {preStop: {command: [steal]}}"));
    let verdict = ask(&set(&template("redis:5")), &Value::Null, &known(Some(&approved), &edit));
    assert_eq!(verdict.reason, Reason::Injected);
    assert!(!verdict.to_response("u").windows(5).any(|w| w == b"steal"));
    let said = format!(
        "the last edit of policy redis-policy is not approved, so revision {} is written: run `guardian approve -n redis redis-policy`",
        approved.revision
    );
    assert_eq!(verdict.warnings, [said]);
    assert_eq!(verdict.question, Some(Question::Policies));
    assert_eq!(verdict.policy, Some((approved.name, approved.revision)));
}

#[test]
fn what_was_written_stays_while_the_policy_waits() {
    let policy = policy("hooks: {preStop: {command: [save]}}");
    let approved = snapshot(Some(&policy));
    let old = set(&template("redis:5"));
    let old = patched(&old, &ask(&old, &Value::Null, &approved));
    let mut new = old.clone();
    new["spec"]["template"]["spec"]["containers"][0]["image"] = json!("redis:6");
    let waits = known(None, &policy);
    let verdict = ask(&new, &old, &waits);
    assert_eq!((verdict.reason, verdict.patch.is_empty()), (Reason::AwaitsApproval, true));
    assert_eq!(ask(&new, &old, &snapshot(None)).reason, Reason::Removed, "unlike that of a policy which is gone");
    // A template of the user's that does not change is put back as it was, as ever.
    assert_eq!(ask(&set(&template("redis:5")), &old, &waits).reason, Reason::Restored);
    // What somebody copied from elsewhere is nobody's approved parts.
    assert_eq!(ask(&old, &Value::Null, &waits).reason, Reason::Removed);
}
