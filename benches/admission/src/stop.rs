//! How long a pod's preStop waits for the reason of its stop: from the request that deletes the pod to the first command of the hook, which has
//! the reason by then; and beside it the same of a hook that asks for no reason, which has the kubelet alone to wait for.
//!
//! The hook leaves reason and time as the container's termination message, so they come with the pod's last state, whatever becomes of the pod.

use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures::{StreamExt as _, TryStreamExt as _};
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Pod};
use kube::api::{DeleteParams, ListParams, PostParams, WatchEvent, WatchParams};
use kube::{Api, Client};
use serde_json::json;

use crate::report::percentile;
use crate::{BenchError, RETRY, progress, result};

/// All pods of the set run, or run again, within this.
const READY: Duration = Duration::from_secs(120);
/// The longest that a watch may be asked for; client and server agree on less.
const WATCH: u32 = 290;
/// A kubelet looks at a pod that it has just started only once a second; whatever its preStop asks for, it begins up to a second late then.
const SETTLED: Duration = Duration::from_secs(3);
/// The sets: one asks for its reason, one does not.
const SETS: [&str; 2] = ["asks", "bare"];

/// What the reason of a stop costs a preStop, on the cluster of KUBECONFIG, with the guardian installed
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The guardian's binary, which opts the namespace in
    #[arg(long, value_name = "FILE")]
    guardian: PathBuf,
    /// Pods that are deleted at once
    #[arg(long, default_value_t = 4)]
    pods: i32,
    /// Times that all of them are
    #[arg(long, default_value_t = 25)]
    rounds: usize,
}

/// Makes a namespace, measures, and takes it away.
pub(crate) async fn run(args: &Args) -> Result<(), BenchError> {
    let client = Client::try_default().await?;
    let name = format!("guardian-bench-stop-{}", std::process::id());
    let namespaces: Api<Namespace> = Api::all(client.clone());
    namespaces.create(&PostParams::default(), &serde_json::from_value(json!({"metadata": {"name": name}}))?).await?;
    let measured = async {
        let enabled = tokio::process::Command::new(&args.guardian).args(["enable", &name]).output().await;
        let enabled = enabled.map_err(|source| BenchError::Start { program: args.guardian.clone().into(), source })?;
        if !enabled.status.success() {
            return Err(BenchError::Unfit(String::from_utf8_lossy(&enabled.stderr).into_owned()));
        }
        measure(&client, &name, args).await
    };
    let measured = measured.await;
    if let Err(error) = namespaces.delete(&name, &DeleteParams::default()).await {
        progress(&format!("the namespace {name} is left behind: {error}"));
    }
    measured
}

async fn measure(client: &Client, namespace: &str, args: &Args) -> Result<(), BenchError> {
    let policies: Api<ConfigMap> = Api::namespaced(client.clone(), namespace);
    let sets: Api<StatefulSet> = Api::namespaced(client.clone(), namespace);
    for name in SETS {
        policies.create(&PostParams::default(), &policy(name)?).await?;
        sets.create(&PostParams::default(), &set(name, args.pods)?).await?;
    }
    let pods: Api<Pod> = Api::namespaced(client.clone(), namespace);
    let mut times = SETS.map(|_| Vec::new());
    let mut unknown = 0;
    for round in 1..=args.rounds {
        for (name, times) in SETS.iter().zip(&mut times) {
            ready(&pods, args.pods * 2).await?;
            tokio::time::sleep(SETTLED).await;
            let stops = (0..args.pods).map(|ordinal| delete(&pods, format!("{name}-{ordinal}")));
            for (reason, took) in futures::future::try_join_all(stops).await? {
                times.push(took);
                unknown += usize::from(reason == "Unknown");
            }
        }
        progress(&format!("round {round}/{}", args.rounds));
    }
    let milliseconds = |time: Duration| time.as_secs_f64() * 1e3;
    let figures = times.map(|mut times| {
        times.sort_unstable();
        [50, 99, 100].map(|percent| milliseconds(percentile(&times, percent)))
    });
    let [[p50, p99, most], [bare_p50, bare_p99, bare_most]] = figures;
    let (at_once, n) = (args.pods, args.rounds * usize::try_from(args.pods).unwrap_or_default());
    result(&format!(
        "stop/{at_once} n={n} p50={p50:.0}ms p99={p99:.0}ms max={most:.0}ms unknown={unknown} bare_p50={bare_p50:.0}ms bare_p99={bare_p99:.0}ms \
         bare_max={bare_most:.0}ms"
    ));
    Ok(())
}

/// Waits until all pods are ready.
async fn ready(pods: &Api<Pod>, expected: i32) -> Result<(), BenchError> {
    let ready = |pod: &Pod| {
        let conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
        pod.metadata.deletion_timestamp.is_none()
            && conditions.into_iter().any(|condition| condition.type_ == "Ready" && condition.status == "True")
    };
    let all = async {
        while pods.list(&ListParams::default()).await?.iter().filter(|pod| ready(pod)).count() != expected as usize {
            tokio::time::sleep(RETRY).await;
        }
        Ok::<_, BenchError>(())
    };
    let in_time = tokio::time::timeout(READY, all).await;
    in_time.map_err(|_elapsed| BenchError::Unfit(format!("{expected} pods are not ready within {READY:?}")))?
}

/// Deletes a pod; the reason that its preStop was told, and how long after the request.
async fn delete(pods: &Api<Pod>, name: String) -> Result<(String, Duration), BenchError> {
    let before = pods.get(&name).await?;
    let version = before.metadata.resource_version.clone().unwrap_or_default();
    let only = WatchParams::default().fields(&format!("metadata.name={name}")).timeout(WATCH);
    let mut events = pods.watch(&only, &version).await?.boxed();
    let asked = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    pods.delete(&name, &DeleteParams::default()).await?;
    while let Some(event) = events.try_next().await? {
        let (WatchEvent::Modified(pod) | WatchEvent::Deleted(pod)) = event else { continue };
        if pod.metadata.uid != before.metadata.uid {
            break;
        }
        if let Some((reason, at)) = message(&pod).and_then(told) {
            return Ok((reason, at.saturating_sub(asked)));
        }
    }
    Err(BenchError::Unfit(format!("{name} has gone without a word of its preStop: is the controller installed?")))
}

/// What the container has left as its termination message.
fn message(pod: &Pod) -> Option<&str> {
    let containers = pod.status.as_ref()?.container_statuses.as_ref()?;
    containers.iter().find_map(|container| container.state.as_ref()?.terminated.as_ref()?.message.as_deref())
}

/// The reason, and the time since the epoch: `Delete 1795320392 2026-11-22 04:06:32.125742734 +0000`. A busybox knows fractions of a second
/// in such a time alone.
fn told(message: &str) -> Option<(String, Duration)> {
    let mut words = message.split_whitespace();
    let (reason, seconds, fraction) = (words.next()?, words.next()?.parse().ok()?, words.nth(1)?.split_once('.')?.1);
    Some((reason.to_owned(), Duration::new(seconds, format!("{fraction:0<9}").parse().ok()?)))
}

/// The policy of one of the sets.
fn policy(name: &str) -> Result<ConfigMap, BenchError> {
    let reason = if name == "asks" { "$GUARDIAN_REASON" } else { "none" };
    let script = format!(r#"touch /tmp/stop; echo "{reason} $(stat -c "%Y %y" /tmp/stop)" > /dev/termination-log"#);
    let text = json!({
        "apiVersion": "stateful-guardian.io/v1alpha1", "kind": "GuardianPolicy",
        "selector": {"matchLabels": {"app": name}},
        "hooks": {"preStop": {"command": ["sh", "-c", script], "timeout": "5s"}},
    });
    Ok(serde_json::from_value(json!({
        "metadata": {"name": name, "labels": {"stateful-guardian.io/policy": "true"}},
        "data": {"policy.yaml": text.to_string()},
    }))?)
}

/// A set whose application does nothing, and goes at once.
fn set(name: &str, replicas: i32) -> Result<StatefulSet, BenchError> {
    Ok(serde_json::from_value(json!({
        "metadata": {"name": name, "labels": {"app": name}},
        "spec": {
            "serviceName": name, "replicas": replicas, "podManagementPolicy": "Parallel",
            "selector": {"matchLabels": {"app": name}},
            "template": {
                "metadata": {"labels": {"app": name}},
                "spec": {"containers": [{
                    "name": "app", "image": "busybox:1.35", "command": ["sh", "-c", "trap 'exit 0' TERM; sleep 86400 & wait"],
                    "resources": {"requests": {"cpu": "5m", "memory": "16Mi"}},
                }]},
            },
        },
    }))?)
}
