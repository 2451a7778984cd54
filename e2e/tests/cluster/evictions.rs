//! Drains: a pod is evicted with its role only when the role cannot be handed over. That the wait ends by itself takes 100 s, and is shown
//! without a cluster.

use guardian_core::names;
use guardian_e2e::{Done, Namespace, Outcome, application, installation, namespace, policy, uid, until};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Pod;
use kube::{Api, ResourceExt as _};
use serde_json::{Value, json};

use crate::admission::policy_text;

/// The role is what a file in the volume says; the hook moves nothing.
const SWITCHOVER: &str = r#"role: {command: [cat, /data/role], every: 1s}
hooks: {switchover: {command: ['true'], target: "role:primary"}}"#;

#[tokio::test]
async fn the_primary_is_evicted_once_it_has_lost_its_role_and_its_replica_at_any_time() -> Outcome {
    namespace::enabled("hand-over", async |ns| {
        let lease = primary(ns, "moved").await?;
        let leases = leases(ns);

        for dry_run in
            [evict(ns, "moved-0", "?dryRun=All", &json!({})).await?, evict(ns, "moved-0", "", &json!({"dryRun": ["All"]})).await?]
        {
            refused(&dry_run);
        }
        assert!(leases.get_opt(&lease).await?.is_none(), "a dry run writes nothing");

        refused(&evict(ns, "moved-0", "", &json!({})).await?);
        let spec = leases.get(&lease).await?.spec.unwrap_or_default();
        assert_eq!(spec.holder_identity, Some(format!("{}/moved-0", ns.name)));
        assert!(spec.acquire_time.is_some());
        refused(&evict(ns, "moved-0", "", &json!({})).await?);

        let (primary, replica) = (ns.api::<Pod>().get("moved-0").await?, ns.api::<Pod>().get("moved-1").await?);
        evict(ns, "moved-1", "", &json!({})).await?.ok()?;
        ns.replaced(&replica).await?;
        tell(ns, "moved-0", "replica").await?;
        evict(ns, "moved-0", "", &json!({})).await?.ok()?;
        ns.replaced(&primary).await?;
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_hold_lets_the_primary_be_evicted() -> Outcome {
    namespace::enabled("hand-over-held", async |ns| {
        let lease = primary(ns, "held").await?;
        let pod = ns.api::<Pod>().get("held-0").await?;
        ns.kubectl.run(&["annotate", "statefulset", "held", &format!("{}=incident", names::HOLD)]).await?.ok()?;
        let evicted = evict(ns, "held-0", "", &json!({})).await?.ok()?;
        assert!(evicted.stderr.contains("on hold, or the role primary would be handed over first"), "{}", evicted.stderr);
        assert!(leases(ns).get_opt(&lease).await?.is_none());
        ns.replaced(&pod).await?;
        Ok(())
    })
    .await
}

/// Makes a guarded set of two pods of which the first has the role, and gives the name of the Lease for it.
async fn primary(ns: &Namespace, name: &str) -> Outcome<String> {
    ns.kubectl.apply_objects(&[policy(name, &policy_text(name, SWITCHOVER), &[]), application(name, 2)]).await?;
    ns.settled(name).await?;
    let pod = format!("{name}-0");
    tell(ns, &format!("{name}-1"), "replica").await?;
    tell(ns, &pod, "primary").await?;
    Ok(format!("{}{}", names::HAND_OVER_PREFIX, uid(&ns.api::<Pod>().get(&pod).await?)))
}

/// Gives a pod a role, and waits until it is its label.
async fn tell(ns: &Namespace, pod: &str, role: &str) -> Outcome {
    ns.kubectl.exec(pod, &["sh", "-c", &format!("echo {role} > /data/role")]).await?;
    until(&ns.api::<Pod>(), pod, &format!("it is labelled {role}"), |pod| {
        let label = pod.labels().get(names::ROLE);
        if label.is_some_and(|label| label == role) { Ok(()) } else { Err(format!("{label:?}")) }
    })
    .await
    .map(drop)
}

fn leases(ns: &Namespace) -> Api<Lease> {
    Api::namespaced(ns.client.clone(), &installation())
}

/// One request, as a drainer makes it. `kubectl create --raw` does not repeat what it has read from standard input.
async fn evict(ns: &Namespace, pod: &str, query: &str, options: &Value) -> Outcome<Done> {
    let eviction = json!({
        "apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": pod, "namespace": ns.name}, "deleteOptions": options,
    });
    let path = format!("/api/v1/namespaces/{}/pods/{pod}/eviction{query}", ns.name);
    ns.kubectl.with_input(&["create", "--raw", &path, "-f", "-"], &eviction.to_string()).await
}

#[track_caller]
fn refused(done: &Done) {
    assert_eq!(done.code, Some(1), "{} went through: {}", done.command, done.stdout);
    for words in ["TooManyRequests", "evictions.stateful-guardian.io", "holds the role primary", "hands over first"] {
        assert!(done.stderr.contains(words), "{words}: {}", done.stderr);
    }
}
