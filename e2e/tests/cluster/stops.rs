//! A pod that stops is told why, in time for its preStop.

use guardian_core::names;
use guardian_e2e::{Failure, Namespace, Outcome, application, namespace, policy, until, until_gone};
use k8s_openapi::api::core::v1::Pod;
use kube::api::EvictParams;

use crate::admission::policy_text;

/// Writes into the volume, which the next pod has too.
const STOP: &str =
    "#!/bin/sh\nset -eu\necho \"$GUARDIAN_REASON $GUARDIAN_REPLICAS ${GUARDIAN_READY_PEERS:-none}\" >> /data/stops\n";

#[tokio::test]
async fn each_stop_is_told_by_its_reason() -> Outcome {
    namespace::enabled("stops", async |ns| {
        let text = policy_text("app", "hooks: {preStop: {script: stop.sh, timeout: 5s}}");
        ns.kubectl.apply_objects(&[policy("app", &text, &[("stop.sh", STOP)]), application("app", 2)]).await?;
        let peer = format!("app-0.app.{}.svc", ns.name);
        ns.ready("app-0").await?;
        let mut pod = ns.ready("app-1").await?;

        ns.kubectl.run(&["delete", "pod", "app-1", "--wait=false"]).await?.ok()?;
        pod = ns.replaced(&pod).await?;
        told(ns, &[format!("Delete 2 {peer}")]).await?;

        ns.api::<Pod>().evict("app-1", &EvictParams::default()).await?;
        pod = ns.replaced(&pod).await?;
        told(ns, &[format!("Drain 2 {peer}")]).await?;

        ns.kubectl.run(&["rollout", "restart", "statefulset/app"]).await?.ok()?;
        ns.replaced(&pod).await?;
        told(ns, &[format!("Update 2 {peer}")]).await?;
        ns.settled("app").await?;

        ns.kubectl.run(&["scale", "statefulset/app", "--replicas=1"]).await?.ok()?;
        until_gone(&ns.api::<Pod>(), "app-1").await?;
        ns.kubectl.run(&["scale", "statefulset/app", "--replicas=2"]).await?.ok()?;
        ns.ready("app-1").await?;
        told(ns, &[format!("ScaleIn 1 {peer}")]).await?;
        Ok(())
    })
    .await
}

#[tokio::test]
async fn without_a_policy_in_force_and_without_asking_nothing_is_waited_for() -> Outcome {
    namespace::enabled("stops-quiet", async |ns| {
        let text = policy_text("app", "hooks: {preStop: {command: [sh, -c, 'echo stopped >> /data/stops']}}");
        ns.kubectl.apply_objects(&[policy("app", &text, &[]), application("app", 1)]).await?;
        let pod = ns.ready("app-0").await?;
        let set = ns.kubectl.get("statefulset", "app").await?;
        assert!(!set.to_string().contains("GUARDIAN_REASON"));
        // 30 s of the hook and 10 s for the application, and nothing for a reason: it is the grace period of 40 s.
        assert_eq!(set["spec"]["template"]["spec"]["terminationGracePeriodSeconds"], 40);
        ns.kubectl.run(&["delete", "pod", "app-0", "--wait=false"]).await?.ok()?;
        ns.replaced(&pod).await?;
        assert_eq!(ns.kubectl.exec("app-0", &["cat", "/data/stops"]).await?.trim(), "stopped");
        assert_eq!(set["spec"]["template"]["metadata"]["labels"][names::GUARDED], "true");
        Ok(())
    })
    .await
}

/// The last lines that preStop wrote in the volume of `app-1`.
async fn told(ns: &Namespace, expected: &[String]) -> Outcome {
    until(&ns.api::<Pod>(), "app-1", "the new pod runs", guardian_e2e::is_ready).await?;
    let all = ns.kubectl.exec("app-1", &["cat", "/data/stops"]).await?;
    let lines: Vec<&str> = all.lines().collect();
    if lines.ends_with(&expected.iter().map(String::as_str).collect::<Vec<_>>()) {
        Ok(())
    } else {
        Err(Failure::Unexpected(format!("{expected:?} in {lines:?}")))
    }
}
