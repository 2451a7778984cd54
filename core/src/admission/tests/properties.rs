//! Properties of the rewriting over generated templates and policies. `PROPTEST_CASES` raises the number of cases.

use proptest::prelude::{
    Just, ProptestConfig, Strategy, any, prop, prop_assert, prop_assert_eq, prop_assume, prop_oneof, proptest,
};
use proptest::strategy::BoxedStrategy;
use serde_json::{Value, json};

use super::{ask, body, patched, policy, set, snapshot};
use crate::admission::canonical::canonical;
use crate::admission::pin::{self, Record, complete, drop_empties};
use crate::admission::tree::Tree;
use crate::admission::{Decision, Reason, Verdict};
use crate::names;
use crate::policy::Policy;

const IMAGE: &str = "guardian:1";

fn cases() -> ProptestConfig {
    let cases = std::env::var("PROPTEST_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(2000);
    ProptestConfig { cases, failure_persistence: None, max_global_rejects: cases.max(1024), ..ProptestConfig::default() }
}

/// Keys that patches have got wrong: those that JSON pointers escape, and those that look like an index.
fn key() -> impl Strategy<Value = String> {
    prop_oneof![
        Just("a/b".to_owned()),
        Just("~1~0".to_owned()),
        Just(String::new()),
        Just("-".to_owned()),
        Just("0".to_owned()),
        "[a-z~/.é]{1,6}"
    ]
}

fn unknown() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        "[a-z/~\"$é]{0,5}".prop_map(Value::from)
    ];
    leaf.prop_recursive(3, 12, 3, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
            prop::collection::btree_map(key(), inner, 0..3).prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

fn maybe(value: impl Strategy<Value = Value> + 'static) -> BoxedStrategy<Option<Value>> {
    prop_oneof![2 => Just(None), 1 => Just(Some(Value::Null)), 5 => value.prop_map(Some)].boxed()
}

/// An object of these members, those that are `None` left out.
fn object(members: &[(&str, Option<Value>)]) -> Value {
    let members = members.iter().filter_map(|(key, value)| Some(((*key).to_owned(), value.clone()?)));
    Value::Object(members.collect())
}

fn handler() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(json!({"exec": {"command": ["/bin/sh", "-c", "save"]}})),
        (1..100_u64).prop_map(|s| json!({"sleep": {"seconds": s}})),
        Just(json!({"httpGet": {"path": "/stop", "port": 80, "x": null}})),
        Just(json!({"tcpSocket": {"port": 80}})),
    ]
}

fn container(name: &'static str) -> impl Strategy<Value = Value> {
    let mounts = maybe(prop_oneof![Just(json!([])), Just(json!([{"name": "data", "mountPath": "/data"}]))]);
    let lifecycle = maybe(maybe(handler()).prop_map(|h| object(&[("preStop", h), ("postStart", Some(json!({"x": 1})))])));
    let resources = maybe(Just(json!({"limits": {"cpu": "1", "gpu": 1}, "requests": {"memory": "1Gi"}})));
    let probe =
        maybe(prop_oneof![Just(json!({})), (1..9_u64).prop_map(|n| json!({"exec": {"command": ["up"]}, "periodSeconds": n}))]);
    let taken = json!([{"containerPort": 9188}]);
    let ports = maybe(prop_oneof![7 => Just(json!([{"containerPort": 80, "name": "http"}])), 1 => Just(taken)]);
    (mounts, lifecycle, resources, maybe(unknown()), "[a-z:]{1,8}", (probe, ports)).prop_map(
        move |(mounts, lifecycle, resources, unknown, image, (probe, ports))| {
            object(&[
                ("ports", ports),
                ("name", Some(json!(name))),
                ("image", Some(json!(image))),
                ("volumeMounts", mounts),
                ("lifecycle", lifecycle),
                ("resources", resources),
                ("startupProbe", probe),
                ("future/~field", unknown),
            ])
        },
    )
}

fn keys() -> BoxedStrategy<Option<Value>> {
    maybe(
        prop::collection::btree_map(key(), "[a-z]{0,4}".prop_map(Value::from), 0..3)
            .prop_map(|m| Value::Object(m.into_iter().collect())),
    )
}

/// A pod template as users write it.
fn template() -> impl Strategy<Value = Value> {
    let metadata = maybe((keys(), keys(), maybe(unknown())).prop_map(|(labels, annotations, unknown)| {
        object(&[("labels", labels), ("annotations", annotations), ("future", unknown)])
    }));
    let sidecar = container("proxy").prop_map(|mut c| {
        c["restartPolicy"] = json!("Always");
        c
    });
    let inits = maybe(prop_oneof![Just(json!([])), (container("prepare"), sidecar).prop_map(|(a, b)| json!([a, b]))]);
    let containers = (container("redis"), prop::option::of(container("exporter")))
        .prop_map(|(a, b)| Value::Array([Some(a), b].into_iter().flatten().collect()));
    let volumes = maybe(prop_oneof![Just(json!([])), Just(json!([{"name": "data", "emptyDir": {"medium": "Memory"}}]))]);
    let grace = maybe(prop_oneof![Just(json!(30)), (0..4000_u64).prop_map(Value::from)]);
    let class = maybe(prop_oneof![Just(json!("own")), Just(json!(""))]);
    let spread = maybe(prop_oneof![Just(json!([])), Just(json!([{"maxSkew": 2, "topologyKey": "rack"}]))]);
    let scalars = (volumes, grace, class, spread, maybe(unknown()));
    (metadata, inits, containers, scalars).prop_map(|(metadata, inits, containers, (volumes, grace, class, spread, unknown))| {
        let spec = object(&[
            ("initContainers", inits),
            ("containers", Some(containers)),
            ("volumes", volumes),
            ("terminationGracePeriodSeconds", grace),
            ("priorityClassName", class),
            ("topologySpreadConstraints", spread),
            ("future/~field", unknown),
        ]);
        object(&[("metadata", metadata), ("spec", Some(spec))])
    })
}

/// Every combination of what a policy can write, the preStop hook with a short and with a long time.
fn policies() -> impl Strategy<Value = Policy> {
    const ORDERS: [&str; 5] = ["first", "last", "before:proxy", "after:prepare", "after:nobody"];
    const OWN: [&str; 4] = ["", ", ownPreStop: keep", ", ownPreStop: chain", ", ownPreStop: replace"];
    (0..512_u32, prop::sample::select(&ORDERS[..]), prop::sample::select(&OWN[..])).prop_map(|(n, order, own)| {
        let has = |bit: u32, line: &str| if n & bit == 0 { String::new() } else { line.to_owned() };
        let text = [
            "hooks:\n  rejoin: {command: [rejoin]}\n".to_owned(),
            has(1, "  init: {command: [init, \"$(X) $$\"]}\n"),
            has(2, &format!("  preStop: {{command: [stop], timeout: {}s}}\n", if n & 16 == 0 { 5 } else { 500 })),
            format!("inject: {{initOrder: \"{order}\"{own}}}\nprotect:\n  minReplicas: 2\n"),
            has(4, "  priorityClassName: critical\n"),
            has(32, "  override: true\n"),
            has(64, "  spread: [zone, kubernetes.io/hostname]\n"),
            has(8, "container: redis\n"),
            has(128, "readyAfter: join\n"),
            has(256, "collect: agent\n"),
        ];
        policy(&text.concat())
    })
}

fn create(template: &Value, policy: Option<&Policy>) -> Verdict {
    ask(&body("CREATE", &set(template).to_string(), "null"), &snapshot(policy), IMAGE)
}

fn update(old: &Value, new: &Value, policy: Option<&Policy>, image: &str) -> Verdict {
    ask(&body("UPDATE", &set(new).to_string(), &set(old).to_string()), &snapshot(policy), image)
}

/// The template after the verdict.
fn after(template: &Value, verdict: &Verdict) -> Value {
    patched(&set(template), verdict)["spec"]["template"].clone()
}

fn injected(template: &Value, policy: &Policy) -> Value {
    let verdict = create(template, Some(policy));
    assert_eq!((verdict.reason, &verdict.decision), (Reason::Injected, &Decision::Patched));
    after(template, &verdict)
}

/// Without what stands for nothing, where the rewriting may drop it.
fn plain(template: &Value) -> Value {
    strip(template, None)
}

fn strip(template: &Value, record: Option<&Record>) -> Value {
    pin::strip(&Tree::from(template), record).value()
}

fn record(template: &Value) -> Option<Record> {
    pin::record(&Tree::from(template))
}

/// All of it, without what stands for nothing.
fn tidy(template: &Value) -> Value {
    let mut template = Tree::from(template);
    drop_empties(&mut template);
    template.value()
}

fn is_named(item: &Value, name: &str) -> bool {
    item["name"] == name
}

/// What may become of our parts on their way through other hands.
fn damaged(mut template: Value, how: usize) -> Value {
    let spec = &mut template["spec"];
    let retain = |list: &mut Value, keep: &dyn Fn(&Value) -> bool| list.as_array_mut().into_iter().for_each(|l| l.retain(keep));
    match how {
        0 => retain(&mut spec["initContainers"], &|c| !is_named(c, names::INIT)),
        1 => retain(&mut spec["volumes"], &|v| !is_named(v, names::VOLUME)),
        2 => retain(&mut spec["containers"][0]["volumeMounts"], &|m| !is_named(m, names::VOLUME)),
        3 => template["metadata"]["annotations"][names::INJECTED] = Value::Null,
        4 => template["metadata"]["annotations"][names::INJECTED] = json!("not a record"),
        5 => template["metadata"]["labels"][names::GUARDED] = json!("false"),
        6 => {
            let inits = spec["initContainers"].as_array_mut().into_iter().flatten();
            inits.filter(|c| is_named(c, names::INIT)).for_each(|c| c["image"] = json!("another"));
        }
        _ => {}
    }
    template
}

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn the_result_is_complete_and_stays_as_it_is(template in template(), policy in policies()) {
        let result = injected(&template, &policy);
        let record = record(&result).unwrap();
        prop_assert!(complete(&Tree::from(&result), &record), "{result}");
        prop_assert_eq!(&record.policy, &policy.name);
        for container in result["spec"]["containers"].as_array().unwrap() {
            prop_assert!(container["volumeMounts"].as_array().is_some_and(|m| m.iter().any(|m| is_named(m, names::VOLUME))));
        }
        prop_assert_eq!(create(&result, Some(&policy)).reason, Reason::AlreadyInjected);
        prop_assert!(update(&template, &result, Some(&policy), IMAGE).patch.is_empty());
        prop_assert!(update(&result, &result, None, IMAGE).patch.is_empty());
    }

    #[test]
    fn what_was_written_can_be_taken_out_again(template in template(), policy in policies()) {
        let result = injected(&template, &policy);
        let stripped = strip(&result, record(&result).as_ref());
        prop_assert_eq!(stripped, plain(&template));
        let removed = create(&result, None);
        prop_assert_eq!(removed.reason, Reason::Removed);
        prop_assert_eq!(plain(&after(&result, &removed)), plain(&template));
        prop_assert_eq!(record(&after(&result, &removed)), None);
    }

    #[test]
    fn a_template_that_the_user_left_alone_stays_whatever_else_changed(
        template in template(), policy in policies(), edited in policies(), gone in any::<bool>(), how in 0..7_usize,
    ) {
        let old = injected(&template, &policy);
        let edited = (!gone).then_some(&edited);
        let same = update(&old, &old, edited, "guardian:2");
        prop_assert_eq!((same.reason, same.patch.is_empty()), (Reason::TemplateUnchanged, true));
        // As `kubectl replace` sends it: without any of our parts.
        for new in [template.clone(), plain(&template), damaged(old.clone(), how)] {
            let verdict = update(&old, &new, edited, "guardian:2");
            if new != old && how != 6 {
                prop_assert_eq!(verdict.reason, Reason::Restored, "{} became {}", old, new);
                let patch = String::from_utf8(verdict.patch.to_bytes()).unwrap();
                prop_assert!(patch.contains(&format!("\"path\":\"/spec/template\",\"value\":{old}}}")), "not the bytes: {patch}");
            }
            prop_assert_eq!(after(&new, &verdict), old.clone());
        }
    }

    #[test]
    fn a_template_that_the_user_changed_is_written_as_if_it_were_new(
        template in template(), policy in policies(), edited in policies(), changed in template(), how in prop::sample::select(vec![0, 1, 2, 5, 7]),
    ) {
        prop_assume!(plain(&template) != plain(&changed));
        let old = injected(&template, &policy);
        // A value that happens to be what was written counts as ours.
        let mut written = record(&old).into_iter().flat_map(|record| record.scalars);
        prop_assume!(!written.any(|(path, scalar)| path.read(&Tree::from(&changed)) == scalar.wrote));
        let expected = injected(&changed, &edited);
        // As `kubectl replace` sends it, and as `kubectl apply` does: with our parts, perhaps damaged. Only without its record would a
        // value that was written for other circumstances than the old ones count as the user's; and what another webhook makes of our
        // containers stays.
        let merged = damaged(injected(&changed, &policy), how);
        for new in [changed.clone(), merged] {
            let verdict = update(&old, &new, Some(&edited), IMAGE);
            if verdict.reason == Reason::PinnedByRecord {
                continue; // Complete, by a record other than the old one: an undo.
            }
            prop_assert_eq!(tidy(&after(&new, &verdict)), tidy(&expected), "{:?}", verdict.reason);
        }
    }

    #[test]
    fn the_canonical_text_of_a_value_is_what_it_prints(value in unknown()) {
        let pretty = serde_json::to_string_pretty(&value).unwrap();
        prop_assert_eq!(canonical(&pretty).unwrap(), value.to_string());
    }

    #[test]
    fn any_value_at_all_gets_an_answer(template in unknown(), old in unknown(), policy in policies()) {
        let verdict = create(&template, Some(&policy));
        prop_assert!(verdict.patch.is_empty());
        let verdict = update(&old, &template, Some(&policy), IMAGE);
        prop_assert!(verdict.patch.is_empty());
    }
}
