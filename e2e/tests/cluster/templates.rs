//! What was written into a template stays there, whatever the user's tools do.

use guardian_e2e::{Failure, Outcome, application, is_guarded, namespace, policy, record, uid};
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};

use crate::admission::policy_text;

#[tokio::test]
async fn a_replace_that_drops_our_fields_gets_them_back_without_a_restart() -> Outcome {
    namespace::enabled("replaced", async |ns| {
        let set = application("kept", 1);
        ns.kubectl.apply_objects(&[policy("kept", &pre_stop("true"), &[]), set.clone()]).await?;
        let pod = ns.ready("kept-0").await?;
        let before = ns.settled("kept").await?;

        let replaced = ns.kubectl.with_input(&["replace", "-f", "-"], &set.to_string()).await?.ok()?;
        assert!(replaced.stderr.contains("put back"), "the user is told: {}", replaced.stderr);
        let after = ns.api::<StatefulSet>().get("kept").await?;
        assert_eq!(template(&after), template(&before), "to the byte");
        assert_eq!(after.metadata.generation, before.metadata.generation, "no new generation, so nothing to roll out");
        assert_eq!(uid(&ns.api::<Pod>().get("kept-0").await?), uid(&pod));
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_rollout_undo_brings_back_what_was_written_into_that_revision() -> Outcome {
    namespace::enabled("undone", async |ns| {
        let set = application("undo", 0);
        ns.kubectl.apply_objects(&[policy("undo", &undo_policy("true"), &[]), set.clone()]).await?;
        let first = ns.settled("undo").await?;

        // Another policy and another template: the second revision differs in the user's part and in ours.
        ns.kubectl.apply_objects(&[policy("undo", &undo_policy("false"), &[])]).await?;
        let pinned = record(&ns.kubectl.get("statefulset", "undo").await?)?;
        ns.until_webhook_writes_another_revision(&set, &pinned["revision"]).await?;
        ns.kubectl.run(&["set", "env", "statefulset/undo", "COLOUR=blue"]).await?.ok()?;
        let second = ns.settled("undo").await?;
        assert_ne!(update_revision(&second), update_revision(&first));
        assert_ne!(record(&ns.kubectl.get("statefulset", "undo").await?)?["revision"], pinned["revision"]);

        let undone = ns.kubectl.run(&["rollout", "undo", "statefulset/undo"]).await?.ok()?;
        assert!(!undone.stderr.contains("guardian"), "nothing to say: {}", undone.stderr);
        let third = ns.settled("undo").await?;
        assert_eq!(template(&third), template(&first), "the first template, with the first policy's part");
        assert_eq!(update_revision(&third), update_revision(&first), "the same revision to the StatefulSet controller");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_deleted_policy_leaves_the_template_alone_until_the_user_changes_it() -> Outcome {
    namespace::enabled("no-policy", async |ns| {
        let set = application("kept", 0);
        ns.kubectl.apply_objects(&[policy("kept", &pre_stop("true"), &[]), set.clone()]).await?;
        ns.kubectl.run(&["delete", "configmap", "kept"]).await?.ok()?;
        ns.until_webhook_writes_nothing(&set).await?;
        ns.kubectl.run(&["label", "statefulset", "kept", "team=shop"]).await?.ok()?;
        assert!(is_guarded(&ns.kubectl.get("statefulset", "kept").await?), "a label is no change of the template");
        ns.kubectl.run(&["rollout", "restart", "statefulset", "kept"]).await?.ok()?;
        let stripped = ns.kubectl.get("statefulset", "kept").await?;
        let text = stripped["spec"].to_string();
        assert!(!text.contains("guardian"), "all of it is gone: {text}");
        Ok(())
    })
    .await
}

/// Lists that have keys are merged by them, in the order that the applying side gives. That is the user's own change of the template:
/// what we wrote must be in it once, and whole, and the same apply again must be none.
#[tokio::test]
async fn a_server_side_apply_with_reordered_lists_leaves_our_parts_whole_and_is_then_stable() -> Outcome {
    namespace::enabled("reordered", async |ns| {
        let text = policy_text("kept", "hooks: {init: {command: ['true']}, preStop: {command: ['true']}}");
        let mut set = application("kept", 0);
        let pod = &mut set["spec"]["template"]["spec"];
        let app = pod["containers"][0].clone();
        let named = |name: &str| merged(&app, &json!({"name": name}));
        pod["containers"] = json!([named("app"), named("exporter")]);
        pod["initContainers"] = json!([named("first"), named("second")]);
        pod["volumes"] = json!([{"name": "one", "emptyDir": {}}, {"name": "two", "emptyDir": {}}]);
        let apply = async |set: &Value| {
            ns.kubectl.with_input(&["apply", "--server-side", "-f", "-"], &set.to_string()).await?.ok()?;
            ns.kubectl.get("statefulset", "kept").await
        };
        ns.kubectl.apply_objects(&[policy("kept", &text, &[])]).await?;
        let first = apply(&set).await?;
        assert_eq!(container_names(&first, "initContainers"), ["guardian-init", "guardian-init-hook", "first", "second"]);

        for list in ["containers", "initContainers", "volumes"] {
            if let Some(list) = set["spec"]["template"]["spec"][list].as_array_mut() {
                list.reverse();
            }
        }
        let second = apply(&set).await?;
        assert_whole(&second);
        let third = apply(&set).await?;
        assert_eq!(third["metadata"]["generation"], second["metadata"]["generation"], "the same apply again is no change");
        assert_eq!(third["spec"], second["spec"]);
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_field_that_the_user_takes_over_stays_the_users_through_every_later_change() -> Outcome {
    namespace::enabled("taken-over", async |ns| {
        let mut set = application("kept", 0);
        let grace = async || {
            let set = ns.kubectl.get("statefulset", "kept").await?;
            Ok::<_, Failure>(set["spec"]["template"]["spec"]["terminationGracePeriodSeconds"].clone())
        };
        ns.kubectl.apply_objects(&[policy("kept", &pre_stop("true"), &[]), set.clone()]).await?;
        let written = grace().await?;
        assert!(written.as_i64() > Some(40), "raised for a preStop of 40 s: {written}");

        set["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] = json!(33);
        let warned = ns.kubectl.apply_objects(&[set.clone()]).await?;
        assert_eq!(grace().await?, 33);
        assert!(warned.stderr.contains("terminationGracePeriodSeconds"), "the user is told: {}", warned.stderr);
        set["spec"]["template"]["metadata"]["annotations"] = json!({"touched": "once"});
        ns.kubectl.apply_objects(&[set.clone()]).await?;
        assert_eq!(grace().await?, 33, "through another change of the template");

        // Given back, it is ours again.
        if let Some(spec) = set["spec"]["template"]["spec"].as_object_mut() {
            spec.remove("terminationGracePeriodSeconds");
        }
        ns.kubectl.apply_objects(&[set]).await?;
        assert_eq!(grace().await?, written);
        Ok(())
    })
    .await
}

fn merged(base: &Value, over: &Value) -> Value {
    let (mut merged, over) = (base.clone(), over.as_object().cloned().unwrap_or_default());
    if let Some(fields) = merged.as_object_mut() {
        fields.extend(over);
    }
    merged
}

fn container_names(set: &Value, list: &str) -> Vec<String> {
    let containers = set["spec"]["template"]["spec"][list].as_array().cloned().unwrap_or_default();
    containers.iter().map(|c| c["name"].as_str().unwrap_or_default().to_owned()).collect()
}

/// Every part of ours is there once, in its place, and the user's parts are in the user's order.
fn assert_whole(set: &Value) {
    assert_eq!(container_names(set, "initContainers"), ["guardian-init", "guardian-init-hook", "second", "first"]);
    assert_eq!(container_names(set, "containers"), ["exporter", "app"]);
    let pod = &set["spec"]["template"]["spec"];
    let volumes: Vec<_> = pod["volumes"].as_array().into_iter().flatten().filter(|v| v["name"] == "guardian").collect();
    assert_eq!(volumes.len(), 1);
    for container in pod["containers"].as_array().into_iter().flatten() {
        let mounts = container["volumeMounts"].as_array().into_iter().flatten().filter(|m| m["name"] == "guardian").count();
        assert_eq!(mounts, 1, "{}", container["name"]);
    }
}

fn pre_stop(command: &str) -> String {
    policy_text("kept", &format!("hooks: {{preStop: {{command: ['{command}'], timeout: 40s}}}}"))
}

fn undo_policy(command: &str) -> String {
    policy_text("undo", &format!("hooks: {{preStop: {{command: ['{command}']}}}}"))
}

fn template(set: &StatefulSet) -> Option<Value> {
    serde_json::to_value(&set.spec.as_ref()?.template).ok()
}

fn update_revision(set: &StatefulSet) -> Option<String> {
    set.status.as_ref()?.update_revision.clone()
}
