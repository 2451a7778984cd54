//! Policies: who may write what, and what an edit does.

use guardian_e2e::{Outcome, application, example, manifest, namespace, policy, record, uid};
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use serde_json::{Value, json};

use crate::admission::policy_text;

#[tokio::test]
async fn a_bad_policy_is_denied_with_its_place_and_the_earlier_one_stays() -> Outcome {
    namespace::enabled("bad-policy", async |ns| {
        ns.kubectl.apply(&example("policy.yaml")).await?;
        let maps = ns.api::<ConfigMap>();
        let good = maps.get("redis-policy").await?.metadata.resource_version;
        let text = manifest("policy.yaml")?;
        let cases = [
            (
                "timeout: 60s",
                "timeuot: 60s",
                "policy.yaml:14:5: hooks.rejoin.timeuot: unknown key `timeuot`: did you mean `timeout`?",
            ),
            (
                "script: rejoin.sh",
                "script: rejion.sh",
                "policy.yaml:13:13: hooks.rejoin.script: the ConfigMap has no key `rejion.sh`",
            ),
            ("timeout: 30s", "timeout: soon", "policy.yaml:19:14: hooks.preStop.timeout: `soon` is not a duration"),
            ("retries: 3", "retries: many", "policy.yaml:15:14: hooks.rejoin.retries"),
            ("kind: GuardianPolicy", "kind: GuardianPolice", "policy.yaml:2:7: kind: `GuardianPolice` is not supported"),
            ("    protect:", "    protect", "policy.yaml:"),
        ];
        for (right, wrong, words) in cases {
            assert_eq!(text.matches(right).count(), 1, "{right}");
            let denied = ns.kubectl.with_input(&["apply", "-f", "-"], &text.replace(right, wrong)).await?;
            assert_eq!(denied.code, Some(1), "{wrong} was taken");
            assert!(denied.stderr.contains(words), "{wrong}: {}", denied.stderr);
            assert!(
                denied.stderr.contains("policies.stateful-guardian.io"),
                "the API server says who refused: {}",
                denied.stderr
            );
        }
        assert_eq!(maps.get("redis-policy").await?.metadata.resource_version, good, "the earlier one stays");
        // What is in the language but not acted on yet is taken, and never silently.
        let later = text.replace("container: redis", "update: {strategy: guarded}");
        let taken = ns.kubectl.with_input(&["apply", "-f", "-"], &later).await?;
        assert_eq!(taken.code, Some(0), "{}", taken.stderr);
        assert!(taken.stderr.contains("Warning: NotYetActive: update"), "{}", taken.stderr);
        Ok(())
    })
    .await
}

/// What is not a policy is nobody's business, however much it looks like one.
#[tokio::test]
async fn other_config_maps_of_an_enabled_namespace_are_not_looked_at() -> Outcome {
    namespace::enabled("other-maps", async |ns| {
        let mut other = policy("other", "this: is no policy", &[]);
        other["metadata"]["labels"] = json!({"app": "other"});
        assert_eq!(ns.kubectl.apply_objects(&[other]).await?.stderr, "");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn an_edited_policy_restarts_no_pod_until_the_user_changes_the_template() -> Outcome {
    namespace::enabled("edited-policy", async |ns| {
        ns.kubectl.apply_objects(&[marking("one"), application("pinned", 1)]).await?;
        ns.ready("pinned-0").await?;
        let before = ns.settled("pinned").await?;
        let pod = ns.api::<Pod>().get("pinned-0").await?;
        let pinned = record(&ns.kubectl.get("statefulset", "pinned").await?)?;

        ns.kubectl.apply_objects(&[marking("two")]).await?;
        let fresh = ns.until_webhook_writes_another_revision(&application("pinned", 1), &pinned["revision"]).await?;
        ns.kubectl.run(&["label", "statefulset", "pinned", "team=shop"]).await?.ok()?;
        ns.kubectl.run(&["scale", "statefulset", "pinned", "--replicas=2"]).await?.ok()?;
        ns.kubectl.run(&["patch", "statefulset", "pinned", "-p", r#"{"spec": {"minReadySeconds": 1}}"#]).await?.ok()?;
        ns.ready("pinned-1").await?;
        let after = ns.settled("pinned").await?;
        assert_eq!(revisions(&after), revisions(&before), "current and update revision");
        assert_eq!(uid(&ns.api::<Pod>().get("pinned-0").await?), uid(&pod), "the pod is the same");
        assert_eq!(
            ns.kubectl.exec("pinned-1", &["cat", "/data/mark"]).await?.trim(),
            "one",
            "the new pod is as its template says"
        );
        assert_eq!(record(&ns.kubectl.get("statefulset", "pinned").await?)?, pinned);

        ns.kubectl.run(&["rollout", "restart", "statefulset", "pinned"]).await?.ok()?;
        assert_eq!(record(&ns.kubectl.get("statefulset", "pinned").await?)?["revision"], fresh);
        ns.replaced(&pod).await?;
        assert_eq!(ns.kubectl.exec("pinned-0", &["cat", "/data/mark"]).await?.trim(), "two", "the edit is taken up");
        Ok(())
    })
    .await
}

fn marking(word: &str) -> Value {
    let text = policy_text("pinned", "hooks: {init: {script: init.sh}}");
    policy("pinned", &text, &[("init.sh", &format!("#!/bin/sh\necho {word} > /data/mark\n"))])
}

fn revisions(set: &StatefulSet) -> [Option<String>; 2] {
    let status = set.status.clone().unwrap_or_default();
    [status.current_revision, status.update_revision]
}
