//! Many large reviews at once, under the memory limit of the webhook's own manifest.

use futures::future::join_all;
use guardian_e2e::{Failure, Namespace, Outcome, application, is_guarded, namespace, policy, restarts, uid};
use k8s_openapi::api::apps::v1::StatefulSet;
use kube::ResourceExt as _;
use kube::api::PostParams;
use serde_json::{Value, json};

use crate::{ALONE, guardian_pods, policy_text};

/// Variables of a set of 1.4 MiB: a little less than an API server stores.
const VARIABLES: usize = 25_000;
const AT_ONCE: usize = 24;

#[tokio::test]
async fn alone_a_webhook_under_large_reviews_sheds_some_serves_small_ones_and_is_not_killed() -> Outcome {
    let _alone = ALONE.lock().await;
    namespace::enabled("large", async |ns| {
        ns.kubectl.apply_objects(&[policy("app", &policy_text("hooks: {preStop: {command: ['true']}}"), &[])]).await?;
        let before = lives(ns).await?;
        let variables: Vec<Value> =
            (0..VARIABLES).map(|n| json!({"name": format!("VARIABLE_{n:05}"), "value": "of some bytes"})).collect();
        let mut large = application("app", 0);
        large["spec"]["template"]["spec"]["containers"][0]["env"] = Value::from(variables);
        let small = application("app", 0);
        let (large, small) = futures::join!(dry_runs(ns, &large, AT_ONCE), dry_runs(ns, &small, AT_ONCE));
        // What is shed goes through as it came: the API server takes a 503 for a webhook that is not there.
        let guarded = large?.into_iter().filter(is_guarded).count();
        assert!(guarded > 0, "none of {AT_ONCE} large ones was guarded");
        let guarded = small?.into_iter().filter(is_guarded).count();
        assert!(guarded > 0, "none of {AT_ONCE} small ones was guarded meanwhile");
        assert_eq!(lives(ns).await?, before, "nobody was killed for its memory");
        assert!(is_guarded(&ns.rehearsed(&application("app", 0)).await?), "and afterwards all is as before");
        Ok(())
    })
    .await
}

async fn dry_runs(ns: &Namespace, set: &Value, number: usize) -> Outcome<Vec<Value>> {
    let params = PostParams { dry_run: true, ..PostParams::default() };
    let set: StatefulSet = serde_json::from_value(set.clone())?;
    let sets = ns.api::<StatefulSet>();
    let made = join_all((0..number).map(|n| {
        let (sets, params, mut set) = (sets.clone(), params.clone(), set.clone());
        set.metadata.name = Some(format!("app-{n}"));
        async move { sets.create(&params, &set).await }
    }));
    made.await.into_iter().map(|made| Ok(serde_json::to_value(made.map_err(Failure::from)?)?)).collect()
}

/// Name, uid and restarts of each webhook.
async fn lives(ns: &Namespace) -> Outcome<Vec<(String, String, i32)>> {
    Ok(guardian_pods(ns, "webhook").await?.iter().map(|pod| (pod.name_any(), uid(pod), restarts(pod))).collect())
}
