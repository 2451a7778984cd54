//! Guards: what a policy denies to whoever would shrink or delete its sets, and what switches that off.

use guardian_core::names;
use guardian_e2e::{Done, Kubectl, Namespace, Outcome, application, namespace, policy, until_gone};
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{self, ConfigMap};
use kube::Api;
use kube::api::DeleteParams;
use serde_json::{Value, json};

use crate::admission::policy_text;

#[tokio::test]
async fn no_way_of_scaling_leads_below_min_replicas() -> Outcome {
    namespace::enabled("min-replicas", async |ns| {
        let mut set = guarded(ns, "few", "protect: {minReplicas: 2}", 3).await?;
        let refusal = "policy few keeps StatefulSet few at 2 replicas at least";
        denied(&scale(ns, "few", 1).await?, refusal);
        denied(&ns.kubectl.run(&["scale", "statefulset", "few", "--replicas=1", "--dry-run=server"]).await?, refusal);
        denied(&ns.kubectl.run(&["patch", "statefulset", "few", "-p", r#"{"spec": {"replicas": 0}}"#]).await?, refusal);
        set["spec"]["replicas"] = json!(1);
        denied(&ns.kubectl.try_apply_objects(&[set.clone()]).await?, refusal);
        let server_side = ["apply", "--server-side", "--force-conflicts", "-f", "-"];
        denied(&ns.kubectl.with_input(&server_side, &set.to_string()).await?, refusal);
        set["metadata"]["labels"]["app"] = json!("other");
        denied(&ns.kubectl.try_apply_objects(&[set]).await?, refusal);
        assert_eq!(replicas(ns, "few").await?, 3);

        scale(ns, "few", 2).await?.ok()?;
        assert_eq!(replicas(ns, "few").await?, 2, "down to the bound is allowed");
        Ok(())
    })
    .await
}

/// A set that was small before its policy came can be raised, and everything else of it changed.
#[tokio::test]
async fn a_set_that_is_below_min_replicas_already_can_be_changed_and_raised() -> Outcome {
    namespace::enabled("below-min", async |ns| {
        guarded(ns, "small", "protect: {minReplicas: 3}", 0).await?;
        ns.kubectl.run(&["label", "statefulset", "small", "team=shop"]).await?.ok()?;
        scale(ns, "small", 1).await?.ok()?;
        denied(&scale(ns, "small", 0).await?, "at 3 replicas at least");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn with_a_leave_hook_replicas_go_down_one_by_one() -> Outcome {
    namespace::enabled("leave", async |ns| {
        guarded(ns, "leaving", "hooks: {leave: {command: ['true']}}", 3).await?;
        denied(&scale(ns, "leaving", 1).await?, "lower replicas by one, from 3 to 2");
        scale(ns, "leaving", 2).await?.ok()?;
        scale(ns, "leaving", 3).await?.ok()?;
        assert_eq!(replicas(ns, "leaving").await?, 3);
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_denied_deletion_names_the_annotation_that_allows_it() -> Outcome {
    namespace::enabled("deletion", async |ns| {
        guarded(ns, "kept", "protect: {deletion: deny}", 0).await?;
        let refusal = format!("annotate statefulset kept {}=true", names::ALLOW_DELETION);
        denied(&ns.kubectl.run(&["delete", "statefulset", "kept"]).await?, &refusal);
        denied(&ns.kubectl.run(&["delete", "statefulset", "kept", "--dry-run=server"]).await?, &refusal);
        denied(&ns.kubectl.run(&["delete", "statefulset", "kept", "--cascade=foreground"]).await?, &refusal);
        let sets = ns.api::<StatefulSet>();
        let all = sets.delete_collection(&DeleteParams::default(), &kube::api::ListParams::default()).await;
        assert!(all.is_err_and(|error| error.to_string().contains(&refusal)), "a whole collection is no way around");
        assert!(sets.get("kept").await?.metadata.deletion_timestamp.is_none());

        ns.kubectl.run(&["annotate", "statefulset", "kept", &format!("{}=true", names::ALLOW_DELETION)]).await?.ok()?;
        ns.kubectl.run(&["delete", "statefulset", "kept"]).await?.ok()?;
        until_gone(&sets, "kept").await
    })
    .await
}

#[tokio::test]
async fn a_deletion_that_leaves_the_pods_is_not_denied() -> Outcome {
    namespace::enabled("orphan", async |ns| {
        guarded(ns, "left", "protect: {deletion: deny}", 0).await?;
        ns.kubectl.run(&["delete", "statefulset", "left", "--cascade=orphan"]).await?.ok()?;
        until_gone(&ns.api::<StatefulSet>(), "left").await
    })
    .await
}

/// What was decided by deleting its owner is not decided again.
#[tokio::test]
async fn the_garbage_collector_takes_a_set_whose_owner_is_gone() -> Outcome {
    namespace::enabled("collected", async |ns| {
        let owner = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "owner"}});
        ns.kubectl.apply_objects(&[owner]).await?;
        let uid = ns.kubectl.get("configmap", "owner").await?["metadata"]["uid"].clone();
        let mut set = application("owned", 0);
        set["metadata"]["ownerReferences"] = json!([{"apiVersion": "v1", "kind": "ConfigMap", "name": "owner", "uid": uid}]);
        ns.kubectl.apply_objects(&[policy("owned", &policy_text("owned", "protect: {deletion: deny}"), &[]), set]).await?;
        denied(&ns.kubectl.run(&["delete", "statefulset", "owned"]).await?, "policy owned denies the deletion");
        ns.api::<ConfigMap>().delete("owner", &DeleteParams::background()).await?;
        until_gone(&ns.api::<StatefulSet>(), "owned").await
    })
    .await
}

/// A finalizer of somebody else's keeps the namespace terminating for as long as the test looks.
#[tokio::test]
async fn in_a_namespace_that_goes_whoever_may_delete_a_set_does() -> Outcome {
    namespace::enabled("going", async |ns| {
        let going = Kubectl { namespace: format!("{}-too", ns.name) };
        let label = json!({names::ENABLED: "true"});
        let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": going.namespace, "labels": label}});
        ns.kubectl.apply_objects(&[namespace]).await?;
        let mut set = application("going", 0);
        set["metadata"]["finalizers"] = json!(["e2e.stateful-guardian.io/kept"]);
        let policy = policy("going", &policy_text("going", "protect: {deletion: deny}"), &[]);
        going.apply_objects(&[policy, set]).await?;
        denied(&going.run(&["delete", "statefulset", "going", "--wait=false"]).await?, "policy going denies the deletion");

        Api::<v1::Namespace>::all(ns.client.clone()).delete(&going.namespace, &DeleteParams::background()).await?;
        // The namespace's own deletion may have been there before: then the set is being deleted already, and may be so once more.
        let by_hand = going.run(&["delete", "statefulset", "going", "--ignore-not-found", "--wait=false"]).await;
        going
            .run(&["patch", "statefulset", "going", "--type=merge", "-p", r#"{"metadata": {"finalizers": null}}"#])
            .await?
            .ok()?;
        by_hand?.ok()?;
        until_gone(&Api::<StatefulSet>::namespaced(ns.client.clone(), &going.namespace), "going").await
    })
    .await
}

#[tokio::test]
async fn a_hold_on_the_set_or_its_namespace_switches_every_denial_off() -> Outcome {
    namespace::enabled("hold", async |ns| {
        guarded(ns, "held", "protect: {minReplicas: 2, deletion: deny}", 2).await?;
        denied(&scale(ns, "held", 1).await?, "at 2 replicas at least");
        let hold = format!("{}=incident", names::HOLD);
        let end = format!("{}-", names::HOLD);

        ns.kubectl.run(&["annotate", "statefulset", "held", &hold]).await?.ok()?;
        let scaled = scale(ns, "held", 1).await?.ok()?;
        assert!(scaled.stderr.contains("on hold, or it would be denied"), "{}", scaled.stderr);
        ns.kubectl.run(&["annotate", "statefulset", "held", &end]).await?.ok()?;
        denied(&scale(ns, "held", 0).await?, "at 2 replicas at least");

        ns.kubectl.run(&["annotate", "namespace", &ns.name, &hold]).await?.ok()?;
        let deleted = ns.kubectl.run(&["delete", "statefulset", "held"]).await?.ok()?;
        assert!(deleted.stderr.contains("on hold, or it would be denied"), "{}", deleted.stderr);
        until_gone(&ns.api::<StatefulSet>(), "held").await
    })
    .await
}

/// Applies a policy and a set that it guards, and gives the set.
async fn guarded(ns: &Namespace, name: &str, rest: &str, replicas: u32) -> Outcome<Value> {
    let set = application(name, replicas);
    ns.kubectl.apply_objects(&[policy(name, &policy_text(name, rest), &[]), set.clone()]).await?;
    Ok(set)
}

async fn scale(ns: &Namespace, set: &str, replicas: u32) -> Outcome<Done> {
    ns.kubectl.run(&["scale", "statefulset", set, &format!("--replicas={replicas}")]).await
}

async fn replicas(ns: &Namespace, set: &str) -> Outcome<i32> {
    let set = ns.api::<StatefulSet>().get(set).await?;
    Ok(set.spec.and_then(|spec| spec.replicas).unwrap_or_default())
}

#[track_caller]
fn denied(done: &Done, words: &str) {
    assert_eq!(done.code, Some(1), "{} went through: {}", done.command, done.stdout);
    assert!(done.stderr.contains("guards.stateful-guardian.io"), "the API server says who refused: {}", done.stderr);
    assert!(done.stderr.contains(words), "{}", done.stderr);
}
