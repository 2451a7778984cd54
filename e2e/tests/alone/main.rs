//! The guardian itself fails. Nothing else may be tested meanwhile: `make e2e` runs these after the others, one at a time.

#![expect(clippy::indexing_slicing, reason = "a `Value` has null where there is nothing")]

mod clients;
mod drain;
mod large;
mod nodes;
mod pinning;
mod priority;
mod rotation;
mod writes;

use std::time::Duration;

use futures::future::try_join_all;
use guardian_core::ledger::Verdict;
use guardian_e2e::ledger::attempts;
use guardian_e2e::{
    Failure, Kubectl, Namespace, Outcome, Signal, application, container_id, eventually, guardian, installation, is_guarded,
    is_ready, namespace, policy, until, until_any, until_gone,
};
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Pod;
use kube::api::ListParams;
use kube::{Api, ResourceExt as _};
use serde_json::json;
use tokio::sync::Mutex;

/// What the API server waits for our webhook (`timeoutSeconds: 2`), and 3 s for `kubectl` itself on a busy machine.
const APPLY: Duration = Duration::from_secs(5);

/// Within one test program, too, these run one after the other.
static ALONE: Mutex<()> = Mutex::const_new(());

#[tokio::test]
async fn alone_without_a_webhook_sets_are_applied_unguarded_and_taken_up_later() -> Outcome {
    let _alone = ALONE.lock().await;
    namespace::enabled("no-webhook", async |ns| {
        ns.kubectl.apply_objects(&[pre_stop_policy()]).await?;
        let guardian = Kubectl { namespace: installation() };
        let replicas = guardian.get("deployment", "guardian-webhook").await?["spec"]["replicas"].to_string();
        let pods = guardian_pods(ns, "webhook").await?;
        guardian.run(&["scale", "deployment", "guardian-webhook", "--replicas=0"]).await?.ok()?;
        let meanwhile = without_webhook(ns, &pods).await;
        guardian.run(&["scale", "deployment", "guardian-webhook", &format!("--replicas={replicas}")]).await?.ok()?;
        webhook_is_back(ns).await?;
        meanwhile?;
        taken_up(ns).await
    })
    .await
}

async fn without_webhook(ns: &Namespace, pods: &[Pod]) -> Outcome {
    // A Deployment does not count pods that end; they serve until they have.
    let api: Api<Pod> = Api::namespaced(ns.client.clone(), &installation());
    for pod in pods {
        until_gone(&api, &pod.name_any()).await?;
    }
    applied_unguarded(ns).await?;
    let refused = ns.kubectl.try_apply_objects(&[policy("another", "this: is no policy", &[])]).await?;
    let named = refused.stderr.contains("policies.stateful-guardian.io");
    expect(refused.code == Some(1) && named, &format!("a policy that nobody checked: {refused:?}"))
}

/// The worst of ways to fail: connections are taken, and nobody answers.
#[tokio::test]
async fn alone_a_webhook_that_hangs_holds_an_apply_up_for_its_timeout_at_most() -> Outcome {
    let _alone = ALONE.lock().await;
    namespace::enabled("hung-webhook", async |ns| {
        ns.kubectl.apply_objects(&[pre_stop_policy()]).await?;
        let pods = guardian_pods(ns, "webhook").await?;
        // At once: one that is not ready any more is not asked either.
        try_join_all(pods.iter().map(|pod| ns.signal(pod, Signal::Stop))).await?;
        let meanwhile = applied_unguarded(ns).await;
        try_join_all(pods.iter().map(|pod| ns.signal(pod, Signal::Continue))).await?;
        webhook_is_back(ns).await?;
        meanwhile?;
        taken_up(ns).await
    })
    .await
}

#[tokio::test]
async fn alone_a_killed_webhook_comes_back_and_answers() -> Outcome {
    let _alone = ALONE.lock().await;
    namespace::enabled("killed-webhook", async |ns| {
        ns.kubectl.apply_objects(&[pre_stop_policy()]).await?;
        for pod in &guardian_pods(ns, "webhook").await? {
            ns.signal(pod, Signal::Kill).await?;
            let applied = ns.kubectl.apply_objects(&[application("app", 0)]).await?;
            assert!(applied.took < APPLY, "{:?}", applied.took);
            ns.kubectl.run(&["delete", "statefulset", "app"]).await?.ok()?;
        }
        webhook_is_back(ns).await?;
        ns.kubectl.apply_objects(&[application("app", 0)]).await?;
        assert!(is_guarded(&ns.kubectl.get("statefulset", "app").await?));
        Ok(())
    })
    .await
}

/// Writes down that it runs, and waits until it is let go.
const LONG: &str = "#!/bin/sh\necho started >> /data/starts\nuntil [ -e /data/go ]; do sleep 0.1; done\n";

#[tokio::test]
async fn alone_a_hook_that_runs_while_the_controller_is_killed_runs_once_and_is_recorded() -> Outcome {
    let _alone = ALONE.lock().await;
    namespace::enabled("killed-controller", async |ns| {
        let text = policy_text("hooks: {rejoin: {script: rejoin.sh, timeout: 90s, retries: 3, backoff: 1s}}");
        ns.kubectl.apply_objects(&[policy("app", &text, &[("rejoin.sh", LONG)]), application("app", 1)]).await?;
        ns.ready("app-0").await?;
        let back = ns.kill_server("app-0").await?;
        ns.until_ledger(
            "app",
            "the hook is claimed",
            |l| if l.state.runs.is_empty() { Err("no run".to_owned()) } else { Ok(()) },
        )
        .await?;
        // Nothing but the volume tells that the script has begun.
        let begun = async || (starts(ns).await? == 1).then_some(()).ok_or(Failure::Unexpected("not yet".to_owned()));
        eventually("the script has begun", begun).await?;

        for pod in &guardian_pods(ns, "controller").await? {
            ns.signal(pod, Signal::Kill).await?;
        }
        let killed = now();
        let leases: Api<Lease> = Api::namespaced(ns.client.clone(), &installation());
        until_any(&leases, "", "a controller holds the Lease again", |lease| {
            let renewed = lease.spec.clone().unwrap_or_default().renew_time.map(|t| t.0);
            if renewed.is_some_and(|at| at > killed) { Ok(()) } else { Err(format!("renewed at {renewed:?}")) }
        })
        .await?;
        ns.kubectl.exec("app-0", &["touch", "/data/go"]).await?;
        let ledger = ns.until_answered("app", "app-0", &container_id(&back), Verdict::Succeeded).await?;
        assert_eq!(attempts(&ledger, "rejoin", "app-0").len(), 1);
        assert_eq!(starts(ns).await?, 1, "the second controller attached to the run of the first");
        Ok(())
    })
    .await
}

async fn starts(ns: &Namespace) -> Outcome<usize> {
    Ok(ns.kubectl.exec("app-0", &["cat", "/data/starts"]).await?.lines().count())
}

/// Gives its failure to the caller, who has a webhook to bring back first.
async fn applied_unguarded(ns: &Namespace) -> Outcome {
    let applied = ns.kubectl.apply_objects(&[application("app", 0)]).await?;
    expect(applied.took < APPLY, &format!("the apply took {:?}", applied.took))?;
    let set = ns.kubectl.get("statefulset", "app").await?;
    expect(!is_guarded(&set), "the set is guarded, so somebody was there")
}

fn expect(holds: bool, otherwise: &str) -> Outcome {
    if holds { Ok(()) } else { Err(Failure::Unexpected(otherwise.to_owned())) }
}

async fn taken_up(ns: &Namespace) -> Outcome {
    let status = guardian(&["status", "-n", &ns.name, "--installation", &installation(), "-o", "json"]).await?.json()?;
    assert_eq!((&status["sets"][0]["name"], &status["sets"][0]["state"]), (&json!("app"), &json!("Unguarded")), "{status}");
    ns.kubectl.run(&["rollout", "restart", "statefulset", "app"]).await?.ok()?;
    assert!(is_guarded(&ns.kubectl.get("statefulset", "app").await?), "the next change of the template takes it up");
    Ok(())
}

/// Ready is what the kubelet says; that the API server reaches it is seen by asking.
async fn webhook_is_back(ns: &Namespace) -> Outcome {
    let deployments: Api<Deployment> = Api::namespaced(ns.client.clone(), &installation());
    until(&deployments, "guardian-webhook", "all its pods are available", |d| {
        let wanted = d.spec.as_ref().and_then(|s| s.replicas);
        let status = d.status.clone().unwrap_or_default();
        let seen = status.observed_generation == d.metadata.generation;
        if seen && status.available_replicas == wanted && status.replicas == wanted { Ok(()) } else { Err(format!("{status:?}")) }
    })
    .await?;
    eventually("the webhook is asked again", async || {
        // A Service spreads by chance: several in a row have asked each of its endpoints.
        for _ in 0..6 {
            if !is_guarded(&ns.rehearsed(&application("app", 0)).await?) {
                return Err(Failure::Unexpected("it was not asked".to_owned()));
            }
        }
        Ok(())
    })
    .await
}

/// The image that the webhook writes into templates now.
async fn init_image(ns: &Namespace) -> Outcome<String> {
    let written = ns.rehearsed(&application("app-0", 0)).await?;
    let image = written["spec"]["template"]["spec"]["initContainers"][0]["image"].as_str().map(str::to_owned);
    image.ok_or_else(|| Failure::Unexpected(format!("no init container in {written}")))
}

/// The pods of a part, once all of them are ready: one that is being deleted, after a change of its Deployment, still serves.
async fn guardian_pods(ns: &Namespace, part: &str) -> Outcome<Vec<Pod>> {
    let pods: Api<Pod> = Api::namespaced(ns.client.clone(), &installation());
    let params = ListParams::default().labels(&format!("app.kubernetes.io/name=guardian-{part}"));
    eventually(&format!("all pods of the {part} are ready"), async || {
        let list = pods.list(&params).await?.items;
        for pod in &list {
            is_ready(pod).map_err(|why| Failure::Unexpected(format!("{}: {why}", pod.name_any())))?;
        }
        if list.is_empty() { Err(Failure::Unexpected(format!("the guardian has no {part}"))) } else { Ok(list) }
    })
    .await
}

fn pre_stop_policy() -> serde_json::Value {
    policy("app", &policy_text("hooks: {preStop: {command: ['true']}}"), &[])
}

fn policy_text(hooks: &str) -> String {
    format!("apiVersion: stateful-guardian.io/v1alpha1\nkind: GuardianPolicy\n{hooks}\n")
}

#[expect(clippy::disallowed_methods, reason = "a test has the machine's clock")]
fn now() -> Timestamp {
    Timestamp::now()
}
