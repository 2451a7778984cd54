use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Value, json};

use super::{Standing, State, of_new, of_stored, snapshot};
use crate::admission::{Settings, Snapshot, eject};
use crate::policy;

const NAMESPACE: &str = "shop";

fn with_policies(texts: &[(&str, &str)]) -> Snapshot {
    let policies = texts.iter().map(|(name, rest)| {
        let text = format!("apiVersion: stateful-guardian.io/v1alpha1\nkind: GuardianPolicy\n{rest}\n");
        let data = BTreeMap::from([("policy.yaml".to_owned(), text)]);
        ((*name).to_owned(), Arc::new(policy::parse(name, &data).unwrap()))
    });
    snapshot(NAMESPACE, policies.collect())
}

fn settings(image: &str) -> Settings {
    Settings { image: image.to_owned() }
}

fn set() -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": {"name": "db"},
        "spec": {"template": {"spec": {"containers": [{"name": "db", "image": "db:1"}]}}},
    })
}

const STOP: &str = "hooks: {preStop: {command: [stop], timeout: 60s}}";

fn stored(set: &Value, snapshot: &Snapshot) -> Standing {
    of_stored(set, NAMESPACE, snapshot, &settings("guardian:1")).unwrap()
}

#[test]
fn a_new_set_is_told_every_field_with_the_key_that_wants_it() {
    let cluster = with_policies(&[("p", &format!("protect: {{priorityClassName: high}}\n{STOP}"))]);
    let standing = of_new(&set(), NAMESPACE, &cluster, &settings("guardian:1")).unwrap();
    let told: Vec<(&str, Option<&str>)> = standing.next.iter().map(|c| (c.path.as_str(), c.key)).collect();
    let mut sorted = told.clone();
    sorted.sort_unstable();
    assert_eq!(
        sorted,
        [
            ("spec.template.metadata.annotations.stateful-guardian.io/injected", None),
            ("spec.template.metadata.labels.stateful-guardian.io/guarded", None),
            ("spec.template.spec.containers[db].lifecycle.preStop", Some("hooks.preStop")),
            ("spec.template.spec.containers[db].volumeMounts[guardian]", None),
            ("spec.template.spec.initContainers[guardian-init]", None),
            ("spec.template.spec.priorityClassName", Some("protect.priorityClassName")),
            ("spec.template.spec.terminationGracePeriodSeconds", Some("hooks.preStop.timeout")),
            ("spec.template.spec.volumes[guardian]", None),
        ]
    );
    let grace = standing.next.iter().find(|c| c.path.ends_with("Seconds")).unwrap();
    assert_eq!((&grace.before, &grace.after), (&Value::Null, &json!(70)));
    assert!(grace.reason.contains("60 s") && grace.reason.contains("10 s"), "{}", grace.reason);
}

#[test]
fn a_set_stands_as_its_record_and_the_policy_in_force_say() {
    let cluster = with_policies(&[("p", STOP)]);
    let guarded = of_new(&set(), NAMESPACE, &cluster, &settings("guardian:1")).unwrap().after;
    let edited = with_policies(&[("p", "hooks: {preStop: {command: [halt], timeout: 60s}}")]);
    let renamed = with_policies(&[("q", STOP)]);
    let broken = with_policies(&[("p", "container: web")]);
    let none = with_policies(&[]);
    let cases = [
        (&guarded, &cluster, State::Guarded, ""),
        (&guarded, &edited, State::Pending, "edited"),
        (&guarded, &renamed, State::Pending, "policy q guards it now, p did before"),
        (&guarded, &broken, State::NotApplicable, "the container web"),
        (&guarded, &none, State::Leaving, "no policy guards it any more"),
        (&set(), &cluster, State::Unguarded, "while the webhook was away"),
        (&set(), &broken, State::NotApplicable, "the container web"),
        (&set(), &none, State::NoPolicy, "no policy selects it"),
    ];
    for (set, cluster, state, words) in cases {
        let standing = stored(set, cluster);
        assert_eq!(standing.state, state, "{}", standing.because());
        assert!(standing.because().contains(words), "{state:?}: {}", standing.because());
        assert_eq!(
            standing.next.is_empty(),
            matches!(state, State::Guarded | State::NoPolicy) || (*set == self::set() && state == State::NotApplicable),
            "{:?}",
            standing.next
        );
    }
}

#[test]
fn a_policy_that_awaits_approval_is_told_with_what_it_would_write() {
    let cluster = with_policies(&[("p", STOP)]);
    let waiting = |of: Snapshot| Snapshot { waiting: of.policies, ..Snapshot::default() };
    let guarded = of_new(&set(), NAMESPACE, &cluster, &settings("guardian:1")).unwrap().after;
    let edited = with_policies(&[("p", "hooks: {preStop: {command: [stop], timeout: 80s}}")]);
    for (set, approved) in [(&set(), cluster.clone()), (&guarded, edited), (&guarded, cluster)] {
        let once = stored(set, &approved);
        let awaits = stored(set, &waiting(approved));
        assert_eq!((awaits.state, awaits.policy.as_ref()), (State::AwaitsApproval, None));
        assert_eq!(awaits.awaits, once.policy);
        assert!(awaits.because().contains("run `guardian approve -n shop p`"), "{}", awaits.because());
        assert_eq!((awaits.after, awaits.next.len()), (once.after, once.next.len()));
    }
}

#[test]
fn another_form_of_the_same_revision_is_pending_and_says_so() {
    let cluster = with_policies(&[("p", STOP)]);
    let guarded = of_new(&set(), NAMESPACE, &cluster, &settings("guardian:1")).unwrap().after;
    let standing = of_stored(&guarded, NAMESPACE, &cluster, &settings("guardian:2")).unwrap();
    assert_eq!(standing.state, State::Pending);
    assert!(standing.because().contains("another form"), "{}", standing.because());
    let paths: Vec<&str> = standing.next.iter().map(|c| c.path.as_str()).collect();
    assert!(paths.contains(&"spec.template.spec.initContainers[guardian-init]"), "{paths:?}");
}

#[test]
fn the_rehearsal_leaves_no_mark() {
    let cluster = with_policies(&[("p", STOP)]);
    let guarded = of_new(&set(), NAMESPACE, &cluster, &settings("guardian:1")).unwrap().after;
    assert_eq!(stored(&guarded, &cluster).after, guarded);
    let mut restarted = guarded;
    restarted["spec"]["template"]["metadata"]["annotations"]["kubectl.kubernetes.io/restartedAt"] = json!("monday");
    assert_eq!(stored(&restarted, &cluster).after, restarted, "the user's own mark stays");
}

#[test]
fn a_hold_is_told_and_what_is_no_set_is_an_error() {
    let mut held = set();
    held["metadata"]["annotations"] = json!({"stateful-guardian.io/hold": "night shift"});
    assert_eq!(stored(&held, &with_policies(&[])).hold.as_deref(), Some("night shift"));
    held["spec"]["template"]["spec"]["containers"] = json!(7);
    assert!(of_stored(&held, NAMESPACE, &with_policies(&[("p", STOP)]), &settings("g")).is_err());
}

#[test]
fn what_is_ejected_leaves_the_set_as_its_owner_wrote_it() {
    let cluster = with_policies(&[("p", &format!("protect: {{priorityClassName: high, override: true}}\n{STOP}"))]);
    let mut own = set();
    own["spec"]["template"]["metadata"] = json!({"labels": {"app": "db"}});
    own["spec"]["template"]["spec"]["priorityClassName"] = json!("low");
    own["spec"]["template"]["spec"]["containers"][0]["lifecycle"] = json!({"preStop": {"exec": {"command": ["mine"]}}});
    let guarded = of_new(&own, NAMESPACE, &cluster, &settings("guardian:1")).unwrap().after;
    assert_ne!(guarded, own);
    let patch: json_patch::Patch = serde_json::from_slice(&eject(&guarded).to_bytes()).unwrap();
    let mut ejected = guarded;
    json_patch::patch(&mut ejected, &patch).unwrap();
    assert_eq!(ejected, own);
    assert!(eject(&own).is_empty(), "nothing of ours, nothing to do");
}
