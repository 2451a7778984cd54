//! Where the guardian acts, and under what rules of a namespace its pods still run.

use std::collections::BTreeMap;

use guardian_e2e::{Outcome, application, example, guardian, installation, is_guarded, namespace, policy};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::rbac::v1::RoleBinding;
use serde_json::{Value, json};

use crate::admission::policy_text;

#[tokio::test]
async fn a_namespace_that_is_not_enabled_is_untouched() -> Outcome {
    namespace::not_enabled("not-enabled", async |ns| {
        let broken = policy("redis-policy", "this: is no policy", &[]);
        let applied = ns.kubectl.apply_objects(&[broken]).await?;
        assert_eq!(applied.stderr, "", "nobody looks at policies here");
        let applied = ns.kubectl.apply(&example("statefulset.yaml")).await?;
        assert_eq!(applied.stderr, "", "and nobody warns");
        let set = ns.kubectl.get("statefulset", "redis-sts").await?;
        let text = set["spec"].to_string();
        assert!(!text.contains("guardian"), "{text}");
        assert_eq!(set["spec"]["template"]["spec"]["terminationGracePeriodSeconds"], 30);
        Ok(())
    })
    .await
}

/// `enable`, then the user's next change, then `disable`, then the next one.
#[tokio::test]
async fn enabling_and_disabling_act_at_the_next_change_of_the_template_and_never_before() -> Outcome {
    namespace::not_enabled("enabling", async |ns| {
        let text = policy_text("late", "hooks: {preStop: {command: ['true']}}");
        ns.kubectl.apply_objects(&[policy("late", &text, &[]), application("late", 0)]).await?;

        let target = ["--installation", &installation()];
        let run = async |verb: &[&str]| guardian(&[verb, &[ns.name.as_str()], &target[..]].concat()).await?.ok();
        run(&["enable", "--approve"]).await?;
        assert!(ns.api::<RoleBinding>().get_opt("guardian-controller").await?.is_some(), "the controller has its rights");
        ns.kubectl.run(&["scale", "statefulset", "late", "--replicas=1"]).await?.ok()?;
        assert!(!is_guarded(&ns.kubectl.get("statefulset", "late").await?), "scaling is no change of the template");
        ns.ready("late-0").await?;
        ns.kubectl.run(&["scale", "statefulset", "late", "--replicas=0"]).await?.ok()?;
        ns.kubectl.run(&["rollout", "restart", "statefulset", "late"]).await?.ok()?;
        assert!(is_guarded(&ns.kubectl.get("statefulset", "late").await?));

        run(&["disable"]).await?;
        assert!(ns.api::<RoleBinding>().get_opt("guardian-controller").await?.is_none(), "the rights are gone");
        // Not a second `rollout restart`: kubectl refuses two within one second, which is how its annotation tells them apart.
        let touched = json!({"spec": {"template": {"metadata": {"annotations": {"touched": "after disable"}}}}}).to_string();
        ns.kubectl.run(&["patch", "statefulset", "late", "--type=merge", "--patch", &touched]).await?.ok()?;
        assert!(is_guarded(&ns.kubectl.get("statefulset", "late").await?), "what was written stays and works alone");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn guarded_pods_run_under_the_restricted_pod_security_standard() -> Outcome {
    let labels = [("pod-security.kubernetes.io/enforce", "restricted"), ("pod-security.kubernetes.io/warn", "restricted")];
    namespace::labelled("restricted", &labels, async |ns| {
        let applied = ns.kubectl.apply_objects(&guarded_application()).await?;
        assert_eq!(applied.stderr, "", "no warning of what we wrote");
        let pod = ns.ready("app-0").await?;
        assert_eq!(init_containers(&pod), ["guardian-init", "guardian-init-hook"]);
        assert_eq!(ns.kubectl.exec("app-0", &["cat", "/data/mark"]).await?.trim(), "app-0", "the hook ran as the pod's user");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn guarded_pods_fit_into_a_quota_and_keep_their_class_of_service() -> Outcome {
    namespace::enabled("quota", async |ns| {
        // Every container, ours too, must say what it takes, or the pod is refused; and all that one pod takes is what the user asked for.
        let hard = BTreeMap::from([
            ("requests.cpu", "20m"),
            ("requests.memory", "32Mi"),
            ("limits.cpu", "20m"),
            ("limits.memory", "32Mi"),
        ]);
        let quota = json!({"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "quota"}, "spec": {"hard": hard}});
        ns.kubectl.apply_objects(&[quota]).await?;
        let [policy, mut set] = guarded_application();
        let exact = json!({"cpu": "20m", "memory": "32Mi"});
        set["spec"]["template"]["spec"]["containers"][0]["resources"] = json!({"requests": exact, "limits": exact});
        ns.kubectl.apply_objects(&[policy, set]).await?;
        let pod = ns.ready("app-0").await?;
        assert_eq!(init_containers(&pod).len(), 2);
        assert_eq!(pod.status.and_then(|s| s.qos_class).as_deref(), Some("Guaranteed"));
        Ok(())
    })
    .await
}

/// A LimitRange fills in what a container does not say, and refuses what it says wrongly: ours say what the hook's container says.
#[tokio::test]
async fn guarded_pods_pass_a_limit_range_that_their_own_containers_pass() -> Outcome {
    namespace::enabled("limit-range", async |ns| {
        let limits = json!([{
            "type": "Container",
            "min": {"cpu": "5m", "memory": "16Mi"},
            "max": {"cpu": "500m", "memory": "32Mi"},
            "default": {"cpu": "20m", "memory": "24Mi"},
            "defaultRequest": {"cpu": "10m", "memory": "20Mi"},
        }]);
        let range = json!({"apiVersion": "v1", "kind": "LimitRange", "metadata": {"name": "range"}, "spec": {"limits": limits}});
        ns.kubectl.apply_objects(&[range]).await?;
        let [policy, set] = guarded_application();
        let mut silent = application("silent", 1);
        silent["spec"]["template"]["spec"]["containers"][0]["resources"] = json!({});
        silent["metadata"]["labels"] = json!({"app": "app"});
        ns.kubectl.apply_objects(&[policy, set, silent]).await?;
        assert_eq!(init_containers(&ns.ready("app-0").await?).len(), 2);
        let pod = ns.ready("silent-0").await?;
        let requests =
            pod.spec.iter().flat_map(|s| s.init_containers.iter().flatten()).map(|c| {
                c.resources.as_ref().and_then(|r| r.requests.as_ref()).and_then(|r| r.get("memory")).map(|q| q.0.clone())
            });
        assert_eq!(requests.collect::<Vec<_>>(), [Some("20Mi".to_owned()), Some("20Mi".to_owned())], "the defaults of the range");
        Ok(())
    })
    .await
}

fn guarded_application() -> [Value; 2] {
    let text = policy_text("app", "hooks: {init: {script: init.sh}, preStop: {command: ['true']}}");
    let script = "#!/bin/sh\nset -eu\necho \"$GUARDIAN_POD\" > /data/mark\n";
    [policy("app", &text, &[("init.sh", script)]), application("app", 1)]
}

fn init_containers(pod: &Pod) -> Vec<&str> {
    pod.spec.iter().flat_map(|s| s.init_containers.iter().flatten()).map(|c| c.name.as_str()).collect()
}
