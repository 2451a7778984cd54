//! CA and leaf are replaced while the API server asks the webhook all the time.

use std::collections::BTreeSet;
use std::time::Duration;

use futures::future::{join_all, select};
use futures::{StreamExt as _, TryStreamExt as _};
use guardian_e2e::{Failure, Namespace, Outcome, application, eventually, installation, is_guarded, namespace, policy};
use k8s_openapi::api::apps::v1::{Deployment, StatefulSet};
use k8s_openapi::api::core::v1::{ConfigMap, Pod, Secret};
use kube::api::{ListParams, Patch, PatchParams, PostParams};
use kube::runtime::watcher::Config;
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Api, ResourceExt as _};
use serde_json::{Value, json};
use tokio::time::{Instant, interval};

use crate::{ALONE, guardian_pods, policy_text};

/// How long the API server asks, in seconds: two leaves and two CAs in twenty seconds. `make rotation` takes two minutes, for whole lives of both.
const LOAD: &str = "GUARDIAN_ROTATION_SECONDS";
const USUAL_LOAD: u64 = 20;
/// To begin it and to bring long lives back, a minute each.
const BESIDE: Duration = Duration::from_secs(120);
/// Callers at a time, each with one call under way, and how often one begins the next: 100 calls a second. More of them would
/// be a load for the machine, which runs other tests beside this one, and no harder for a rotation.
const CALLERS: usize = 4;
const EVERY: Duration = Duration::from_millis(40);
/// A leaf is renewed every 30 s, and its server has 15 s to read it; a CA every 90 s, which is the shortest life that fits.
const SHORT: [&str; 7] = ["certs", "--leaf-life", "45s", "--ca-life", "135s", "--settle", "5s"];
const LONG: [&str; 3] = ["certs", "--settle", "5s"];
/// In which a leaf is renewed four times and a CA replaced by its own end.
const WHOLE_LIVES: Duration = Duration::from_secs(120);
const SECRET: &str = "guardian-webhook-certificates";

#[tokio::test]
async fn alone_certificates_are_rotated_under_load_and_no_call_fails() -> Outcome {
    let _alone = ALONE.lock().await;
    let load = load();
    namespace::enabled_within("rotation", load + BESIDE, async |ns| {
        ns.kubectl.apply_objects(&[policy("app", &policy_text("hooks: {preStop: {command: ['true']}}"), &[])]).await?;
        let args = certs_run_with(ns, &SHORT).await?;
        let rotated = rotated_under_load(ns, load).await;
        long_lives_again(ns, &args).await?;
        let (calls, failed, seen) = rotated?;
        tell(calls, failed.len(), &seen);
        assert!(failed.is_empty(), "{} of {calls} calls failed: {:#?}", failed.len(), failed.first());
        let (leaves, bundles) = if load >= WHOLE_LIVES { (4, 3) } else { (2, 2) };
        assert!(seen.leaves.len() >= leaves, "{} leaves", seen.leaves.len());
        assert!(seen.bundles.len() >= bundles, "{} bundles of CAs", seen.bundles.len());
        Ok(())
    })
    .await
}

#[expect(clippy::print_stderr, reason = "the figures, for whoever runs it with --no-capture")]
fn tell(calls: usize, failed: usize, seen: &Seen) {
    eprintln!("{calls} calls, {failed} failed, {} leaves, {} bundles of CAs", seen.leaves.len(), seen.bundles.len());
}

/// What the Secret held, one after the other.
#[derive(Default)]
struct Seen {
    leaves: BTreeSet<Vec<u8>>,
    bundles: BTreeSet<Vec<u8>>,
}

fn load() -> Duration {
    let asked = std::env::var(LOAD).ok().and_then(|seconds| seconds.parse().ok());
    Duration::from_secs(asked.unwrap_or(USUAL_LOAD))
}

async fn rotated_under_load(ns: &Namespace, load: Duration) -> Outcome<(usize, Vec<String>, Seen)> {
    let end = Instant::now() + load;
    make_another_ca(ns).await?;
    let load = join_all((0..CALLERS).map(|caller| calls(ns, caller, end)));
    let mut seen = Seen::default();
    let of_all = {
        let follow = std::pin::pin!(follow(ns, &mut seen));
        match select(std::pin::pin!(load), follow).await {
            futures::future::Either::Left((of_all, _)) => of_all,
            futures::future::Either::Right((ended, _)) => return Err(ended.err().unwrap_or_else(watch_ended)),
        }
    };
    let calls = of_all.iter().map(|(calls, _)| calls).sum();
    let failed = of_all.into_iter().flat_map(|(_, failed)| failed).collect();
    Ok((calls, failed, seen))
}

fn watch_ended() -> Failure {
    Failure::Unexpected("the watch of the Secret ended".to_owned())
}

/// Calls that reach both kinds of our webhooks until `end`: how many, and what came of those that failed.
async fn calls(ns: &Namespace, caller: usize, end: Instant) -> (usize, Vec<String>) {
    let (mut count, mut failed) = (0, Vec::new());
    let mut pace = interval(EVERY);
    while pace.tick().await < end {
        count += 1;
        let made = if count % 2 == 0 { a_policy(ns, caller).await } else { a_set(ns, caller).await };
        failed.extend(made.err().map(|e| e.to_string()));
    }
    (count, failed)
}

/// One that fails open: without an answer the set comes through, unguarded.
async fn a_set(ns: &Namespace, caller: usize) -> Outcome {
    let set = serde_json::from_value(application(&format!("app-{caller}"), 0))?;
    let made = ns.api::<StatefulSet>().create(&dry_run(), &set).await?;
    if is_guarded(&serde_json::to_value(made)?) { Ok(()) } else { Err(Failure::Unexpected("it is unguarded".to_owned())) }
}

/// One that fails closed.
async fn a_policy(ns: &Namespace, caller: usize) -> Outcome {
    let map = policy(&format!("policy-{caller}"), &policy_text("hooks: {preStop: {command: ['false']}}"), &[]);
    ns.api::<ConfigMap>().create(&dry_run(), &serde_json::from_value(map)?).await?;
    Ok(())
}

fn dry_run() -> PostParams {
    PostParams { dry_run: true, ..PostParams::default() }
}

/// Notes what the Secret holds, and has the kubelet write it into the pods: by itself it does so once a minute or so, and whenever a pod
/// changes.
async fn follow(ns: &Namespace, seen: &mut Seen) -> Outcome {
    let secrets: Api<Secret> = Api::namespaced(ns.client.clone(), &installation());
    let config = Config::default().fields(&format!("metadata.name={SECRET}"));
    let mut states = watcher(secrets, config).default_backoff().applied_objects().boxed();
    while let Some(secret) = states.try_next().await.map_err(|e| Failure::Unexpected(e.to_string()))? {
        let held = |key: &str| secret.data.as_ref().and_then(|data| data.get(key)).map(|bytes| bytes.0.clone());
        seen.leaves.extend(held("tls.crt"));
        seen.bundles.extend(held("ca.crt"));
        prompt_kubelet(ns, &secret.resource_version().unwrap_or_default()).await?;
    }
    Err(watch_ended())
}

async fn prompt_kubelet(ns: &Namespace, revision: &str) -> Outcome {
    let pods: Api<Pod> = Api::namespaced(ns.client.clone(), &installation());
    let of_webhook = ListParams::default().labels("app.kubernetes.io/name=guardian-webhook");
    for pod in pods.list(&of_webhook).await? {
        let touched = json!({"metadata": {"annotations": {"e2e/certificates": revision}}});
        match pods.patch(&pod.name_any(), &PatchParams::default(), &Patch::Merge(touched)).await {
            // One of an earlier rollout, which is gone meanwhile.
            Err(kube::Error::Api(status)) if status.code == 404 => {}
            patched => drop(patched?),
        }
    }
    Ok(())
}

/// Without its key the CA cannot sign: another one is made, of the life that is now asked for, and the old one stays trusted.
async fn make_another_ca(ns: &Namespace) -> Outcome {
    let secrets: Api<Secret> = Api::namespaced(ns.client.clone(), &installation());
    secrets.patch(SECRET, &PatchParams::default(), &Patch::Merge(json!({"data": {"ca.key": null}}))).await?;
    Ok(())
}

/// Gives the arguments that it ran with before.
async fn certs_run_with(ns: &Namespace, args: &[&str]) -> Outcome<Value> {
    let deployments: Api<Deployment> = Api::namespaced(ns.client.clone(), &installation());
    let before = serde_json::to_value(deployments.get("guardian-certs").await?)?;
    let before = before["spec"]["template"]["spec"]["containers"][0]["args"].clone();
    set_args(ns, &json!(args)).await?;
    Ok(before)
}

async fn set_args(ns: &Namespace, args: &Value) -> Outcome {
    let guardian = guardian_e2e::Kubectl { namespace: installation() };
    let patch = json!([{"op": "replace", "path": "/spec/template/spec/containers/0/args", "value": args}]).to_string();
    guardian.run(&["patch", "deployment", "guardian-certs", "--type=json", "--patch", &patch]).await?.ok()?;
    guardian.run(&["rollout", "status", "deployment", "guardian-certs", "--timeout=50s"]).await?.ok()?;
    guardian_pods(ns, "certs").await.map(drop)
}

/// Until both webhooks present a leaf that lives for long: the tests to come know nothing of short ones.
async fn long_lives_again(ns: &Namespace, args: &Value) -> Outcome {
    set_args(ns, &json!(LONG)).await?;
    make_another_ca(ns).await?;
    eventually("every webhook presents a leaf that lives for long", async || {
        prompt_kubelet(ns, "long lives").await?;
        for pod in guardian_pods(ns, "webhook").await? {
            let expiry = expiry(&pod).await?;
            if expiry < (crate::now().as_second() + 24 * 3600) as f64 {
                return Err(Failure::Unexpected(format!("{} presents one that expires at {expiry}", pod.name_any())));
            }
        }
        Ok(())
    })
    .await?;
    set_args(ns, args).await
}

/// `guardian_certificate_expiry_timestamp_seconds` of a webhook.
async fn expiry(pod: &Pod) -> Outcome<f64> {
    let path = format!("/api/v1/namespaces/{}/pods/{}:8080/proxy/metrics", installation(), pod.name_any());
    let kubectl = guardian_e2e::Kubectl { namespace: installation() };
    let metrics = kubectl.run(&["get", "--raw", &path]).await?.ok()?.stdout;
    let line = metrics.lines().find_map(|line| line.strip_prefix("guardian_certificate_expiry_timestamp_seconds "));
    let value = line.and_then(|value| value.trim().parse().ok());
    value.ok_or_else(|| Failure::Unexpected(format!("{} does not tell when its certificate expires", pod.name_any())))
}
