//! Writes go on while the webhook is killed.

use futures::future::{Either, join, select, try_join_all};
use guardian_e2e::{Failure, Namespace, Outcome, Signal, application, is_guarded, namespace, policy};
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{DeleteParams, PostParams};
use serde_json::json;
use tokio::time::Instant;

use crate::{ALONE, APPLY, guardian_pods, policy_text, webhook_is_back};

/// The most writes of a kind.
const WRITES: usize = 20_000;

#[tokio::test]
async fn alone_writes_go_on_while_every_webhook_is_killed() -> Outcome {
    let _alone = ALONE.lock().await;
    namespace::enabled("kill-under-writes", async |ns| {
        ns.kubectl.apply_objects(&[policy("app", &policy_text("hooks: {preStop: {command: ['true']}}"), &[])]).await?;
        let kills = async {
            for _ in 0..2 {
                let pods = guardian_pods(ns, "webhook").await?;
                try_join_all(pods.iter().map(|pod| ns.signal(pod, Signal::Kill))).await?;
                webhook_is_back(ns).await?;
            }
            Ok::<_, Failure>(())
        };
        let writes = join(unrelated(ns), sets(ns));
        match select(std::pin::pin!(kills), std::pin::pin!(writes)).await {
            Either::Left((killed, _)) => killed?,
            Either::Right(((maps, sets), _)) => {
                return Err(Failure::Unexpected(format!("writes ended before the kills: {maps:?}, {sets:?}")));
            }
        }
        Ok(())
    })
    .await
}

/// Objects of a kind that nobody asks us about. Comes to an end only when one fails, or there were too many.
async fn unrelated(ns: &Namespace) -> Outcome<usize> {
    for n in 0..WRITES {
        let map = serde_json::from_value(json!({"metadata": {"name": format!("unrelated-{n}")}, "data": {"n": n.to_string()}}))?;
        ns.api::<ConfigMap>().create(&PostParams::default(), &map).await?;
    }
    Ok(WRITES)
}

/// StatefulSets: each goes through, within what the API server waits for us. Those that were guarded are deleted again.
async fn sets(ns: &Namespace) -> Outcome<usize> {
    let sets = ns.api::<StatefulSet>();
    for n in 0..WRITES {
        let name = format!("app-{n}");
        let set = serde_json::from_value(application(&name, 0))?;
        let started = Instant::now();
        let made = sets.create(&PostParams::default(), &set).await?;
        let took = started.elapsed();
        if took > APPLY {
            return Err(Failure::Unexpected(format!("a write took {took:?}")));
        }
        if is_guarded(&serde_json::to_value(made)?) {
            sets.delete(&name, &DeleteParams::default()).await?;
        }
    }
    Ok(WRITES)
}
