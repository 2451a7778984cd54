//! Pods of a real Redis that are asked by their own agent: the role becomes their label, and the metrics are served by the controller and by the pods,
//! with no exec but for new questions.

use guardian_e2e::{Failure, Kubectl, Namespace, Outcome, eventually, example, namespace, policy, restarts, uid};
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt as _;

use crate::admission::policy_text;
use crate::metrics::{FIRST, KEYS, MEMORY, SCRIPTS, SECOND, scrape, value};

const ROLE: &str = "collect: agent\nrole: {script: role.sh, every: 2s}\n";
const ROLE_SCRIPT: (&str, &str) = (
    "role.sh",
    "#!/bin/sh\nset -eu\ninfo=$(redis-cli info replication)\necho \"$info\" | awk -F'[:\\r]' '$1 == \"role\" {print $2}'\n",
);

#[tokio::test]
async fn a_redis_with_agents_has_roles_and_metrics_and_follows_its_policy_without_a_restart() -> Outcome {
    namespace::enabled("redis-agents", async |ns| {
        let measure = async |metrics: &str| {
            let text = policy_text("redis", &format!("{ROLE}metrics:\n{metrics}"));
            ns.kubectl.apply_objects(&[policy("redis-policy", &text, &[&SCRIPTS[..], &[ROLE_SCRIPT]].concat())]).await
        };
        measure(KEYS).await?;
        ns.kubectl.apply(&example("statefulset.yaml")).await?;
        let before = [ns.ready(FIRST).await?, ns.ready(SECOND).await?];
        for pod in &before {
            let inits = pod.status.iter().flat_map(|status| status.init_container_statuses.iter().flatten());
            let runs = |state: Option<&k8s_openapi::api::core::v1::ContainerState>| state.is_some_and(|s| s.running.is_some());
            assert!(inits.into_iter().any(|s| s.name == "guardian-agent" && runs(s.state.as_ref())), "{:?}", pod.status);
        }
        ns.kubectl.exec(FIRST, &["redis-cli", "set", "greeting", "hello"]).await?;
        eventually("both pods have their role", async || {
            for pod in [FIRST, SECOND] {
                let pod = ns.api::<Pod>().get(pod).await?;
                if pod.labels().get("stateful-guardian.io/role").map(String::as_str) != Some("master") {
                    return Err(Failure::Unexpected(format!("{} has the labels {:?}", pod.name_any(), pod.labels())));
                }
            }
            Ok(())
        })
        .await?;
        eventually("the key is counted, by the controller and by the pod", async || {
            let keys = [
                value(&scrape(ns).await?, "redis_keys", ns, FIRST, ",db=\"db0\"")?,
                value(&page(ns, FIRST).await?, "redis_keys", ns, FIRST, ",db=\"db0\"")?,
            ];
            if keys.iter().all(|keys| *keys >= 1.0) { Ok(()) } else { Err(Failure::Unexpected(format!("{keys:?} keys"))) }
        })
        .await?;

        measure(&format!("{KEYS}{MEMORY}")).await?;
        eventually("the new metric is served by both", async || {
            for text in [scrape(ns).await?, page(ns, SECOND).await?] {
                value(&text, "redis_memory_bytes", ns, SECOND, "")?;
                value(&text, "guardian_metric_up", ns, SECOND, ",metric=\"redis_memory_bytes\"")?;
            }
            Ok(())
        })
        .await?;
        for (pod, before) in [FIRST, SECOND].into_iter().zip(&before) {
            let now = ns.api::<Pod>().get(pod).await?;
            assert_eq!((uid(&now), restarts(&now)), (uid(before), restarts(before)), "no pod was touched");
        }
        let text = scrape(ns).await?;
        assert!(
            value(&text, "guardian_container_memory_bytes", ns, FIRST, ",container=\"guardian-agent\"").is_err(),
            "not the sidecar's own"
        );
        Ok(())
    })
    .await
}

/// What the agent of a pod serves for Prometheus.
async fn page(ns: &Namespace, pod: &str) -> Outcome<String> {
    let path = format!("/api/v1/namespaces/{}/pods/{pod}:9188/proxy/metrics", ns.name);
    Ok(Kubectl { namespace: ns.name.clone() }.run(&["get", "--raw", &path]).await?.ok()?.stdout)
}
