//! `readyAfter: join`: in what order things happen to a pod that is to be ready only once its hook has run.

use std::time::Duration;

use guardian_core::ledger::Verdict;
use guardian_e2e::ledger::attempts;
use guardian_e2e::{
    Failure, Namespace, Outcome, Signal, application, container_id, eventually, is_ready, namespace, policy, restarts, until,
};
use k8s_openapi::api::core::v1::{ContainerStatus, Pod};

use crate::admission::policy_text;

/// The first start of a pod runs no hook yet, so there the probe gives up waiting after 60 s: this test waits for that, and for a restart.
const WITHIN: Duration = Duration::from_secs(230);

/// Says that it runs, and waits until it is let go.
const REJOIN: &str = "#!/bin/sh\ntouch /data/begun\nuntil [ -e /data/go ]; do sleep 0.1; done\n";

#[tokio::test]
async fn a_restarted_pod_is_ready_only_after_its_rejoin_and_a_first_start_once_nobody_came() -> Outcome {
    namespace::enabled_within("ready-after", WITHIN, async |ns| {
        let text =
            policy_text("app", "readyAfter: join\nhooks: {rejoin: {script: rejoin.sh, timeout: 50s, retries: 5, backoff: 1s}}");
        ns.kubectl.apply_objects(&[policy("app", &text, &[("rejoin.sh", REJOIN)]), application("app", 1)]).await?;
        let pods = ns.api::<Pod>();
        let running = until(&pods, "app-0", "its container runs", |pod| is_running(pod, 0)).await?;
        is_ready(&running).expect_err("a container that has just begun is not ready yet");
        // It fails open after 60 s, and for no longer is anything waited for here: so twice.
        let first = match ns.ready("app-0").await {
            Ok(first) => first,
            Err(_) => ns.ready("app-0").await?,
        };
        let ledger = ns.until_answered("app", "app-0", &container_id(&first), Verdict::Noted).await?;
        assert!(attempts(&ledger, "rejoin", "app-0").is_empty(), "a first start runs no hook");

        ns.signal(&first, Signal::Kill).await?;
        let back = until(&pods, "app-0", "its container runs again", |pod| is_running(pod, restarts(&first) + 1)).await?;
        is_ready(&back).expect_err("it has not rejoined");
        eventually("the script has begun", async || ns.kubectl.exec("app-0", &["ls", "/data/begun"]).await).await?;
        let meanwhile = pods.get("app-0").await?;
        assert_eq!((is_started(&meanwhile), container_id(&meanwhile)), (false, container_id(&back)), "not while its hook runs");

        ns.kubectl.exec("app-0", &["touch", "/data/go"]).await?;
        let ready = ns.ready("app-0").await?;
        assert_eq!((restarts(&ready), container_id(&ready)), (restarts(&back), container_id(&back)), "in the same life");
        let ledger = ns.until_answered("app", "app-0", &container_id(&back), Verdict::Succeeded).await?;
        let runs = attempts(&ledger, "rejoin", "app-0");
        let [run] = runs.as_slice() else { return Err(Failure::Unexpected(format!("one run, not {runs:?}"))) };
        assert_eq!(run.attempt, Some(1));
        still_ready(ns).await
    })
    .await
}

/// Does its container run, after at least so many restarts?
fn is_running(pod: &Pod, after: i32) -> Result<(), String> {
    let running = container(pod).is_some_and(|c| c.state.as_ref().is_some_and(|state| state.running.is_some()));
    if running && restarts(pod) >= after { Ok(()) } else { Err(format!("running: {running}, {} restarts", restarts(pod))) }
}

/// Has its startup probe succeeded?
fn is_started(pod: &Pod) -> bool {
    container(pod).and_then(|c| c.started).unwrap_or_default()
}

fn container(pod: &Pod) -> Option<&ContainerStatus> {
    pod.status.as_ref()?.container_statuses.as_ref()?.first()
}

async fn still_ready(ns: &Namespace) -> Outcome {
    is_ready(&ns.api::<Pod>().get("app-0").await?).map_err(Failure::Unexpected)
}
