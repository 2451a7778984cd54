//! A hook that fails.

use guardian_core::ledger::Verdict;
use guardian_e2e::ledger::attempts;
use guardian_e2e::{Outcome, application, container_id, is_ready, namespace, policy, until};
use jiff::SignedDuration;
use k8s_openapi::api::core::v1::Pod;
use serde_json::json;

use crate::admission::policy_text;

/// Counts its runs in the volume; the pod of ordinal 0 never succeeds, any other at its third attempt.
const SCRIPT: &str = r#"#!/bin/sh
set -eu
n=$(cat /data/runs 2>/dev/null || echo 0)
n=$((n + 1))
echo "$n" > /data/runs
echo "$GUARDIAN_ATTEMPT" >> /data/attempts
echo "run $n is not enough" >&2
[ "$GUARDIAN_ORDINAL" != 0 ] && [ "$n" -ge 3 ]
"#;

#[tokio::test]
async fn a_failing_rejoin_is_retried_with_a_growing_pause_and_recorded() -> Outcome {
    namespace::enabled("retried", async |ns| {
        let text = policy_text("app", "hooks: {rejoin: {script: rejoin.sh, retries: 3, backoff: 1s}}");
        ns.kubectl.apply_objects(&[policy("app", &text, &[("rejoin.sh", SCRIPT)]), application("app", 2)]).await?;
        ns.ready("app-0").await?;
        ns.ready("app-1").await?;
        let back = ns.kill_server("app-1").await?;
        let ledger = ns.until_answered("app", "app-1", &container_id(&back), Verdict::Succeeded).await?;

        let runs = attempts(&ledger, "rejoin", "app-1");
        let told: Vec<_> = runs.iter().map(|r| (r.attempt, r.verdict)).collect();
        assert_eq!(told, [(Some(1), Verdict::Retrying), (Some(2), Verdict::Retrying), (Some(3), Verdict::Succeeded)]);
        let pauses: Vec<_> = runs.windows(2).map(|two| two[1].at.duration_since(two[0].at)).collect();
        assert!(pauses[0] >= SignedDuration::from_secs(1) && pauses[1] >= SignedDuration::from_secs(2), "{pauses:?}");
        assert!(runs[0].message.contains("run 1 is not enough"), "its last words are kept: {}", runs[0].message);
        assert_eq!(ns.kubectl.exec("app-1", &["cat", "/data/attempts"]).await?, "1\n2\n3\n");
        ns.until_event("app-1", "Warning", "attempt 1 of 4").await?;
        assert!(attempts(&ledger, "rejoin", "app-0").is_empty(), "the other pod is left alone");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_rejoin_that_never_succeeds_ends_after_its_retries_with_a_warning() -> Outcome {
    namespace::enabled("given-up", async |ns| {
        let text = policy_text("app", "hooks: {rejoin: {script: rejoin.sh, retries: 2, backoff: 500ms}}");
        ns.kubectl.apply_objects(&[policy("app", &text, &[("rejoin.sh", SCRIPT)]), application("app", 2)]).await?;
        ns.ready("app-0").await?;
        ns.ready("app-1").await?;
        let first = ns.kill_server("app-0").await?;
        let ledger = ns.until_answered("app", "app-0", &container_id(&first), Verdict::Failed).await?;
        assert_eq!(attempts(&ledger, "rejoin", "app-0").len(), 3);
        ns.until_event("app-0", "Warning", "run 3 is not enough").await?;

        // Another pod of the set has its three attempts meanwhile: if this one were tried again, it would have been by then.
        let second = ns.kill_server("app-1").await?;
        ns.until_answered("app", "app-1", &container_id(&second), Verdict::Succeeded).await?;
        assert_eq!(ns.kubectl.exec("app-0", &["cat", "/data/runs"]).await?.trim(), "3");
        Ok(())
    })
    .await
}

/// A container that is ended because its probe failed looks like one that crashed; the kubelet's Event tells them apart.
#[tokio::test]
async fn a_container_that_its_liveness_probe_has_ended_is_told_so() -> Outcome {
    namespace::enabled("liveness", async |ns| {
        let text = policy_text("app", "hooks: {rejoin: {command: [sh, -c, 'echo \"$GUARDIAN_REASON\" >> /data/reasons']}}");
        let mut set = application("app", 2);
        let container = &mut set["spec"]["template"]["spec"]["containers"][0];
        // It ends at once and without an error when it is told to: a graceful end is no crash either.
        container["command"] = json!(["sh", "-c", "rm -f /data/sick; trap 'exit 0' TERM; sleep 86400 & wait"]);
        container["livenessProbe"] =
            json!({"exec": {"command": ["sh", "-c", "test ! -e /data/sick"]}, "periodSeconds": 1, "failureThreshold": 1});
        ns.kubectl.apply_objects(&[policy("app", &text, &[]), set]).await?;
        ns.ready("app-0").await?;
        let before = ns.ready("app-1").await?;
        ns.kubectl.exec("app-1", &["touch", "/data/sick"]).await?;
        let pods = ns.api::<Pod>();
        let back = until(&pods, "app-1", "its container runs again", |pod| {
            if container_id(pod) != container_id(&before) && is_ready(pod).is_ok() { Ok(()) } else { Err(container_id(pod)) }
        })
        .await?;
        ns.until_answered("app", "app-1", &container_id(&back), Verdict::Succeeded).await?;
        assert_eq!(ns.kubectl.exec("app-1", &["cat", "/data/reasons"]).await?, "LivenessFailed\n");

        let crashed = ns.kill_server("app-1").await?;
        ns.until_answered("app", "app-1", &container_id(&crashed), Verdict::Succeeded).await?;
        assert_eq!(
            ns.kubectl.exec("app-1", &["cat", "/data/reasons"]).await?,
            "LivenessFailed\nCrash\n",
            "the older Event does not count"
        );
        Ok(())
    })
    .await
}
