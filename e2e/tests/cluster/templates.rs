//! What was written into a template stays there, whatever the user's tools do.

use guardian_e2e::{Outcome, application, is_guarded, namespace, policy, record, uid};
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::Pod;

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

fn pre_stop(command: &str) -> String {
    policy_text("kept", &format!("hooks: {{preStop: {{command: ['{command}'], timeout: 40s}}}}"))
}

fn undo_policy(command: &str) -> String {
    policy_text("undo", &format!("hooks: {{preStop: {{command: ['{command}']}}}}"))
}

fn template(set: &StatefulSet) -> Option<serde_json::Value> {
    serde_json::to_value(&set.spec.as_ref()?.template).ok()
}

fn update_revision(set: &StatefulSet) -> Option<String> {
    set.status.as_ref()?.update_revision.clone()
}
