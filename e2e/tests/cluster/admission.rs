//! What `kubectl apply` does with sets of an enabled namespace.

use guardian_core::names;
use guardian_e2e::{Outcome, application, example, is_guarded, namespace, policy, record};
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::scheduling::v1::PriorityClass;
use kube::Api;
use kube::api::DeleteParams;
use serde_json::{Value, json};

#[tokio::test]
async fn a_second_apply_changes_nothing_and_kubectl_diff_is_empty() -> Outcome {
    namespace::enabled("apply-twice", async |ns| {
        ns.priority_class().await?;
        ns.kubectl.apply(&example("policy.yaml")).await?;
        ns.kubectl.apply(&example("statefulset.yaml")).await?;
        let settled = ns.settled("redis-sts").await?;

        let again = ns.kubectl.apply(&example("statefulset.yaml")).await?;
        assert_eq!(again.stderr, "", "nobody has anything to say");
        let now = ns.api::<StatefulSet>().get("redis-sts").await?;
        assert_eq!(now.metadata.generation, settled.metadata.generation);
        assert_eq!(now.metadata.resource_version, settled.metadata.resource_version);
        let file = example("statefulset.yaml").display().to_string();
        let diff = ns.kubectl.run(&["diff", "-f", &file]).await?;
        assert_eq!((diff.code, diff.stdout.as_str()), (Some(0), ""));

        let server_side = ns.kubectl.run(&["apply", "--server-side", "--force-conflicts", "-f", &file]).await?.ok()?;
        let now = ns.api::<StatefulSet>().get("redis-sts").await?;
        assert_eq!(now.metadata.generation, settled.metadata.generation, "server-side apply: {}", server_side.stderr);
        assert!(is_guarded(&ns.kubectl.get("statefulset", "redis-sts").await?));
        Ok(())
    })
    .await
}

/// Policy and set in one `kubectl apply` come within milliseconds of each other, the watch of policies may come later. Of a hundred pairs
/// each set comes right after its policy, ten pairs to an apply.
#[tokio::test]
async fn a_set_that_comes_right_after_its_policy_is_guarded_a_hundred_times_of_a_hundred() -> Outcome {
    namespace::enabled("at-once", async |ns| {
        for tens in 0..10 {
            let pairs = (0..10).flat_map(|ones| {
                let name = format!("at-once-{tens}{ones}");
                let text = policy_text(&name, "hooks: {preStop: {command: ['true']}}");
                [policy(&name, &text, &[]), application(&name, 0)]
            });
            ns.kubectl.apply_objects(&pairs.collect::<Vec<_>>()).await?;
        }
        let sets = ns.kubectl.run(&["get", "statefulsets", "-o", "json"]).await?.json()?;
        let sets = sets["items"].as_array().cloned().unwrap_or_default();
        assert_eq!(sets.len(), 100);
        let by_its_own = |set: &Value| is_guarded(set) && record(set).is_ok_and(|r| r["policy"] == set["metadata"]["name"]);
        let unguarded: Vec<_> = sets.iter().filter(|set| !by_its_own(set)).map(|set| &set["metadata"]["name"]).collect();
        assert!(unguarded.is_empty(), "{unguarded:?}");
        Ok(())
    })
    .await
}

/// The same with the PriorityClass that the policy names.
#[tokio::test]
async fn a_priority_class_that_comes_right_before_the_set_is_written() -> Outcome {
    namespace::enabled("class-at-once", async |ns| {
        let mut without = Vec::new();
        for n in 0..5 {
            let (class, name) = (format!("{}-{n}", ns.name), format!("class-{n}"));
            let text = policy_text(&name, &format!("protect: {{priorityClassName: {class}}}"));
            let class_object = json!({
                "apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", "metadata": {"name": class}, "value": 1000,
            });
            let applied = ns.kubectl.try_apply_objects(&[policy(&name, &text, &[]), class_object, application(&name, 0)]).await?;
            // Not in the namespace, so not deleted with it.
            let classes: Api<PriorityClass> = Api::all(ns.client.clone());
            classes.delete(&class, &DeleteParams::default()).await?;
            let applied = applied.ok()?;
            if ns.kubectl.get("statefulset", &name).await?["spec"]["template"]["spec"]["priorityClassName"] != class.as_str() {
                without.push(format!("{name}: {}", applied.stderr));
            }
        }
        assert_eq!(without, Vec::<String>::new());
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_set_that_says_no_is_left_alone() -> Outcome {
    namespace::enabled("says-no", async |ns| {
        let text = policy_text("no", "hooks: {preStop: {command: ['true']}}");
        let mut set = application("no", 0);
        set["metadata"]["annotations"] = json!({names::INJECT: "false"});
        let applied = ns.kubectl.apply_objects(&[policy("no", &text, &[]), set]).await?;
        assert_eq!(applied.stderr, "");
        assert!(!is_guarded(&ns.kubectl.get("statefulset", "no").await?));
        Ok(())
    })
    .await
}

pub(crate) fn policy_text(app: &str, rest: &str) -> String {
    format!(
        "apiVersion: stateful-guardian.io/v1alpha1\nkind: GuardianPolicy\nselector: {{matchLabels: {{app: {app}}}}}\n{rest}\n"
    )
}
