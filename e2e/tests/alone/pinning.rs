//! A new guardian and an edited policy, under sets that run.

use std::collections::BTreeMap;
use std::time::Duration;

use futures::future::try_join_all;
use guardian_e2e::{
    Failure, Kubectl, Namespace, Outcome, application, eventually, installation, namespace, policy, record, restarts, uid,
};
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt as _;
use kube::api::ListParams;
use serde_json::{Value, json};

use crate::{ALONE, init_image, policy_text, webhook_is_back};

const SETS: usize = 20;
/// Forty pods start, on a cluster whose nodes share two cores.
const WITHIN: Duration = Duration::from_secs(230);
/// What another version of the guardian writes differs by its image at least. Nothing may start with it here, so it need not exist.
const ANOTHER: &str = "localhost/stateful-guardian:another-version";

#[tokio::test]
async fn alone_another_version_and_an_edited_policy_restart_none_of_twenty_sets() -> Outcome {
    let _alone = ALONE.lock().await;
    namespace::enabled_within("twenty-sets", WITHIN, async |ns| {
        let sets: Vec<Value> = (0..SETS).map(|n| application(&format!("app-{n}"), 1)).collect();
        let first = [vec![marking("one")], sets.clone()].concat();
        ns.kubectl.apply_objects(&first).await?;
        let before = settled(ns).await?;

        let image = init_image(ns).await?;
        another_version(ANOTHER).await?;
        let touched = touch_all(ns, &sets).await;
        another_version(&image).await?;
        webhook_is_back(ns).await?;
        touched?;

        let after = settled(ns).await?;
        for (name, old) in &before {
            assert_eq!(after.get(name), Some(old), "{name}");
        }
        Ok(())
    })
    .await
}

/// Every set is labelled, scaled and applied again, with the edited policy in force and another version of the guardian serving.
async fn touch_all(ns: &Namespace, sets: &[Value]) -> Outcome {
    webhook_is_back(ns).await?;
    let pinned = record(&ns.kubectl.get("statefulset", "app-0").await?)?;
    ns.kubectl.apply_objects(&[marking("two")]).await?;
    let probe = application("app-0", 0);
    ns.until_webhook_writes_another_revision(&probe, &pinned["revision"]).await?;
    eventually("every webhook is of the other version", async || {
        for _ in 0..6 {
            let written = ns.rehearsed(&probe).await?["spec"]["template"]["spec"]["initContainers"][0]["image"].take();
            if written != ANOTHER {
                return Err(Failure::Unexpected(format!("it writes {written}")));
            }
        }
        Ok(())
    })
    .await?;
    ns.kubectl.run(&["label", "statefulsets", "--all", "team=shop"]).await?.ok()?;
    ns.kubectl.run(&["scale", "statefulsets", "--all", "--replicas=2"]).await?.ok()?;
    let again: Vec<Value> = sets.iter().cloned().map(with_two_replicas).collect();
    ns.kubectl.apply_objects(&again).await.map(drop)
}

fn with_two_replicas(mut set: Value) -> Value {
    set["spec"]["replicas"] = json!(2);
    set
}

fn marking(word: &str) -> Value {
    policy("app", &policy_text(&format!("hooks: {{preStop: {{command: ['echo', '{word}']}}}}")), &[])
}

/// What must not change of a set and its first pod.
#[derive(Debug, PartialEq)]
struct State {
    revisions: [Option<String>; 2],
    template: Value,
    pod: (String, i32),
}

async fn settled(ns: &Namespace) -> Outcome<BTreeMap<String, State>> {
    let sets = try_join_all((0..SETS).map(async |n| ns.settled(&format!("app-{n}")).await)).await?;
    let pods = ns.api::<Pod>().list(&ListParams::default()).await?.items;
    let states = sets.into_iter().map(|set| {
        let name = set.name_any();
        let first = pods.iter().find(|pod| pod.name_any() == format!("{name}-0"));
        let pod = first.map(|pod| (uid(pod), restarts(pod))).unwrap_or_default();
        let status = set.status.clone().unwrap_or_default();
        let template = serde_json::to_value(set.spec.as_ref().map(|s| &s.template))?;
        Ok((name, State { revisions: [status.current_revision, status.update_revision], template, pod }))
    });
    states.collect()
}

async fn another_version(image: &str) -> Outcome {
    let guardian = Kubectl { namespace: installation() };
    guardian.run(&["set", "env", "deployment/guardian-webhook", &format!("GUARDIAN_IMAGE={image}")]).await?.ok()?;
    guardian.run(&["rollout", "status", "deployment", "guardian-webhook", "--timeout=55s"]).await?.ok().map(drop)
}
