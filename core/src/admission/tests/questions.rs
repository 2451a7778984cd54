//! A snapshot that may be too old is not the last word.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::{ask, body, policy, set, snapshot};
use crate::admission::{Question, Snapshot};

fn template() -> Value {
    json!({"metadata": {}, "spec": {"containers": [{"name": "redis", "image": "redis:5"}]}})
}

fn create(set: &Value, snapshot: &Snapshot) -> Option<Question> {
    ask(&body("CREATE", &set.to_string(), "null"), snapshot, "guardian:1").question
}

#[test]
fn a_set_without_a_policy_asks_whether_there_is_one_by_now() {
    assert_eq!(create(&set(&template()), &snapshot(None)), Some(Question::Policies));
    let mut out = set(&template());
    out["metadata"]["annotations"] = json!({"stateful-guardian.io/inject": "false"});
    assert_eq!(create(&out, &snapshot(None)), None, "its owner has answered already");
}

#[test]
fn a_priority_class_that_is_not_known_is_asked_for_once() {
    let policy = policy("protect: {priorityClassName: critical}\n");
    let mut known = snapshot(Some(&policy));
    assert_eq!(create(&set(&template()), &known), None, "there is no cluster to ask");
    known.priority_classes = Some(BTreeSet::new());
    assert_eq!(create(&set(&template()), &known), Some(Question::PriorityClass("critical".to_owned())));
    known.priority_classes = Some(BTreeSet::from(["critical".to_owned()]));
    assert_eq!(create(&set(&template()), &known), None);
}

#[test]
fn a_template_that_does_not_change_asks_nothing() {
    let text = set(&template()).to_string();
    assert_eq!(ask(&body("UPDATE", &text, &text), &snapshot(None), "guardian:1").question, None);
}
