//! What a person reads: every warning and every refusal comes through the API server to whoever ran `kubectl`.

use guardian_e2e::{Outcome, application, is_guarded, namespace, policy};
use serde_json::{Value, json};

use crate::admission::policy_text;

/// What a policy says, what a set has of its own, and the warning of the set's admission.
type Case = (&'static str, fn(&mut Value), &'static str);

/// Each field that a user keeps, and each that cannot be written.
const CASES: &[Case] = &[
    (
        "protect: {priorityClassName: stateful-critical}",
        |spec| spec["priorityClassName"] = json!("system-cluster-critical"),
        "priorityClassName stays system-cluster-critical as you set it; the policy would write stateful-critical",
    ),
    (
        "protect: {priorityClassName: not-there}",
        |_| {},
        "priorityClassName not-there is not written: there is no such PriorityClass",
    ),
    (
        "protect: {priorityClassName: system-node-critical}",
        |_| {},
        "priorityClassName system-node-critical is not written: names that begin with system-",
    ),
    (
        "protect: {spread: [kubernetes.io/hostname]}",
        |spec| {
            spec["topologySpreadConstraints"] =
                json!([{"topologyKey": "zone", "maxSkew": 1, "whenUnsatisfiable": "ScheduleAnyway", "labelSelector": {}}]);
        },
        "topologySpreadConstraints stays as you set it; the policy would write one for kubernetes.io/hostname",
    ),
    (
        "hooks: {preStop: {command: [a], timeout: 60s}}",
        |spec| spec["terminationGracePeriodSeconds"] = json!(35),
        "terminationGracePeriodSeconds stays 35 as you set it; the preStop handlers may take",
    ),
    (
        "hooks: {preStop: {command: [a]}}",
        |spec| spec["containers"][0]["lifecycle"] = json!({"preStop": {"httpGet": {"port": 80}}}),
        "keeps its own httpGet preStop: the policy's preStop hook will not run",
    ),
    (
        "readyAfter: join\nhooks: {rejoin: {command: [a]}}",
        |spec| spec["containers"][0]["startupProbe"] = json!({"exec": {"command": ["true"]}}),
        "keeps its own startupProbe: it may be ready before its hook has run",
    ),
    ("inject: {initOrder: 'after:nobody'}\nhooks: {init: {command: [a]}}", |_| {}, "there is no init container nobody"),
    ("container: nobody\nhooks: {preStop: {command: [a]}}", |_| {}, "not guarded: policy case-8 names the container nobody"),
    (
        "hooks: {preStop: {command: [a]}}",
        |spec| spec["volumes"] = json!([{"name": "guardian", "configMap": {"name": "own"}}]),
        "not guarded: the volume name guardian is reserved",
    ),
];

#[tokio::test]
async fn each_field_that_stays_as_it_is_comes_with_a_warning_and_the_set_goes_through() -> Outcome {
    namespace::enabled("warnings", async |ns| {
        ns.priority_class().await?;
        for (n, (text, own, warning)) in CASES.iter().enumerate() {
            let name = format!("case-{n}");
            ns.kubectl.apply_objects(&[policy(&name, &policy_text(&name, text), &[])]).await?;
            let mut set = application(&name, 0);
            own(&mut set["spec"]["template"]["spec"]);
            let applied = ns.kubectl.apply_objects(&[set]).await?;
            let told = applied.stderr.lines().any(|line| line.starts_with("Warning: ") && line.contains(warning));
            assert!(told, "{name}: {}", applied.stderr);
            let guarded = is_guarded(&ns.kubectl.get("statefulset", &name).await?);
            assert_eq!(guarded, !warning.starts_with("not guarded"), "{name}");
        }
        Ok(())
    })
    .await
}

#[tokio::test]
async fn of_two_policies_the_one_that_guards_is_named_and_what_is_not_active_yet_too() -> Outcome {
    namespace::enabled("two-policies", async |ns| {
        let first = policy("a-first", &policy_text("app", "hooks: {preStop: {command: [a]}}"), &[]);
        let second = policy("b-second", &policy_text("app", "tasks: {nightly: {command: [b], schedule: \"0 3 * * *\"}}"), &[]);
        let applied = ns.kubectl.apply_objects(&[first, second]).await?;
        assert!(applied.stderr.contains("NotYetActive: tasks.nightly.schedule"), "{}", applied.stderr);
        let applied = ns.kubectl.apply_objects(&[application("app", 0)]).await?;
        assert!(applied.stderr.contains("policy a-first guards this set, b-second would too"), "{}", applied.stderr);
        Ok(())
    })
    .await
}

/// The API server judges after us: its own refusals must not be covered by what we have written.
#[tokio::test]
async fn what_the_api_server_refuses_it_refuses_in_its_own_words() -> Outcome {
    namespace::enabled("refused", async |ns| {
        let text = policy_text("app", "hooks: {preStop: {command: [a]}}");
        ns.kubectl.apply_objects(&[policy("app", &text, &[]), application("app", 0)]).await?;
        let before = ns.kubectl.get("statefulset", "app").await?;
        for field in ["serviceName", "podManagementPolicy", "volumeClaimTemplates"] {
            let mut set = application("app", 0);
            set["spec"][field] = match field {
                "serviceName" => json!("another"),
                "podManagementPolicy" => json!("OrderedReady"),
                _ => json!([]),
            };
            let refused = ns.kubectl.try_apply_objects(&[set]).await?;
            let words = "updates to statefulset spec for fields other than";
            assert!(refused.code == Some(1) && refused.stderr.contains(words), "{field}: {}", refused.stderr);
            assert!(!refused.stderr.contains("guardian"), "{field}: {}", refused.stderr);
        }
        let mut twice = application("twice", 0);
        let container = twice["spec"]["template"]["spec"]["containers"][0].clone();
        twice["spec"]["template"]["spec"]["containers"] = json!([container, container]);
        let refused = ns.kubectl.try_apply_objects(&[twice]).await?;
        assert!(refused.code == Some(1) && refused.stderr.contains("Duplicate value"), "{}", refused.stderr);

        let status = json!({"status": {"replicas": 0, "currentRevision": "another"}}).to_string();
        let patch = ["patch", "statefulset", "app", "--subresource=status", "--type=merge", "--patch", &status];
        let patched = ns.kubectl.run(&patch).await?.ok()?;
        assert_eq!(patched.stderr, "", "the status is nobody's business");
        let after = ns.kubectl.get("statefulset", "app").await?;
        assert_eq!((&after["spec"], &after["metadata"]["generation"]), (&before["spec"], &before["metadata"]["generation"]));
        Ok(())
    })
    .await
}
