//! Nothing that happens to a policy or to the guardian restarts a pod: five hundred sets live through an edit of both.

use serde_json::{Value, json};

use super::{ask, body, patched, policy, set, snapshot};
use crate::admission::Reason;

const SETS: usize = 500;

/// Sets as different as users write them: with and without each of the fields that a policy writes.
fn template(n: usize) -> Value {
    let mut spec = json!({"containers": [{"name": "redis", "image": format!("redis:{n}")}]});
    let own = [
        ("priorityClassName", json!("own")),
        ("terminationGracePeriodSeconds", json!(30 + n)),
        ("topologySpreadConstraints", json!([{"topologyKey": "zone", "maxSkew": 1, "whenUnsatisfiable": "DoNotSchedule"}])),
        ("initContainers", json!([{"name": "prepare", "image": "prepare:1"}])),
        ("volumes", json!([{"name": "scratch", "emptyDir": {}}])),
    ];
    for (bit, (field, value)) in own.into_iter().enumerate() {
        if n >> bit & 1 == 1 {
            spec[field] = value;
        }
    }
    json!({"metadata": {"labels": {"app": "redis", "n": n.to_string()}}, "spec": spec})
}

#[test]
fn an_edited_policy_and_another_guardian_change_no_template_of_five_hundred_sets_before_their_users_do() {
    let before = snapshot(Some(&policy(
        "protect: {priorityClassName: one, spread: [host]}\nhooks: {init: {command: [a]}, preStop: {command: [b], timeout: 60s}}",
    )));
    let after = snapshot(Some(&policy(
        "protect: {priorityClassName: two, override: true}\nreadyAfter: join\ninject: {initOrder: last}\n\
         hooks: {preStop: {command: [c], timeout: 90s}, rejoin: {command: [d]}}",
    )));
    for n in 0..SETS {
        let object = set(&template(n));
        let stored = patched(&object, &ask(&body("CREATE", &object.to_string(), "null"), &before, "guardian:1"));

        let mut touched = stored.clone();
        touched["metadata"]["labels"] = json!({"team": "shop"});
        touched["spec"]["replicas"] = json!(5);
        let verdict = ask(&body("UPDATE", &touched.to_string(), &stored.to_string()), &after, "guardian:2");
        assert_eq!((verdict.reason, verdict.patch.is_empty()), (Reason::TemplateUnchanged, true), "{n}");

        // As a pipeline has it: the user's manifest, with none of our parts.
        let mut replaced = object.clone();
        replaced["spec"]["replicas"] = json!(5);
        let verdict = ask(&body("UPDATE", &replaced.to_string(), &stored.to_string()), &after, "guardian:2");
        assert_eq!(verdict.reason, Reason::Restored, "{n}");
        assert_eq!(patched(&replaced, &verdict)["spec"]["template"], stored["spec"]["template"], "{n}");

        touched["spec"]["template"]["metadata"]["annotations"]["kubectl.kubernetes.io/restartedAt"] = json!("now");
        let verdict = ask(&body("UPDATE", &touched.to_string(), &stored.to_string()), &after, "guardian:2");
        assert_eq!(verdict.reason, Reason::Injected, "{n}: and with the user's change it is taken up");
    }
}
