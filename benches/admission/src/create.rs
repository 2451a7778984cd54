//! What the webhook adds to an API server's create: a StatefulSet is created, as a dry run, now in a namespace that has opted in and now in
//! one that has not.

use std::time::{Duration, Instant};

use guardian_bench_core::policies;
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace};
use k8s_openapi::api::scheduling::v1::PriorityClass;
use kube::api::{DeleteParams, PostParams};
use kube::{Api, Client};
use serde_json::{Value, json};

use crate::report::percentile;
use crate::{BenchError, RETRY, progress, result};

/// The webhook acts in a new namespace as soon as the API server's own cache knows its label.
const ENABLED: Duration = Duration::from_secs(60);
/// Creates before those that count.
const WARM_UP: usize = 20;
const LABEL: &str = "stateful-guardian.io/enabled";
const RECORD: &str = "stateful-guardian.io/injected";

/// What the webhook adds to a create, on the cluster of KUBECONFIG, with the guardian installed
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Creates in each of the two namespaces
    #[arg(long, default_value_t = 500)]
    creates: usize,
}

/// Makes two namespaces, measures, and takes them away.
pub(crate) async fn run(args: &Args) -> Result<(), BenchError> {
    let client = Client::try_default().await?;
    let suffix = std::process::id();
    let (with, without) = (format!("guardian-bench-with-{suffix}"), format!("guardian-bench-without-{suffix}"));
    // Else the webhook asks for it at every create, which is 1 ms.
    let classes: Api<PriorityClass> = Api::all(client.clone());
    let class: PriorityClass = serde_json::from_value(json!({"metadata": {"name": "stateful-critical"}, "value": 1_000_000}))?;
    let own_class = match classes.create(&PostParams::default(), &class).await {
        Ok(_) => true,
        Err(kube::Error::Api(status)) if status.code == 409 => false,
        Err(error) => return Err(error.into()),
    };
    let measured = async {
        make(&client, &with, true).await?;
        make(&client, &without, false).await?;
        measure(&client, &with, &without, args.creates).await
    };
    let measured = measured.await;
    let namespaces: Api<Namespace> = Api::all(client.clone());
    for namespace in [&with, &without] {
        if let Err(error) = namespaces.delete(namespace, &DeleteParams::default()).await {
            progress(&format!("the namespace {namespace} is left behind: {error}"));
        }
    }
    if own_class && let Err(error) = classes.delete("stateful-critical", &DeleteParams::default()).await {
        progress(&format!("the PriorityClass stateful-critical is left behind: {error}"));
    }
    measured
}

/// A namespace with the tutorial's policy.
async fn make(client: &Client, name: &str, enabled: bool) -> Result<(), BenchError> {
    let labels = if enabled { json!({(LABEL): "true"}) } else { json!({}) };
    let namespace: Namespace = serde_json::from_value(json!({"metadata": {"name": name, "labels": labels}}))?;
    Api::<Namespace>::all(client.clone()).create(&PostParams::default(), &namespace).await?;
    let mut policy = policies()?.pop().unwrap_or_default();
    if let Some(metadata) = policy.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.retain(|key, _| key == "name" || key == "labels");
    }
    let policy: ConfigMap = serde_json::from_value(policy)?;
    Api::<ConfigMap>::namespaced(client.clone(), name).create(&PostParams::default(), &policy).await?;
    Ok(())
}

async fn measure(client: &Client, with: &str, without: &str, creates: usize) -> Result<(), BenchError> {
    let (with, without): (Api<StatefulSet>, Api<StatefulSet>) =
        (Api::namespaced(client.clone(), with), Api::namespaced(client.clone(), without));
    let set: StatefulSet = serde_json::from_value(set())?;
    let acts = async {
        while !create(&with, &set).await?.1 {
            tokio::time::sleep(RETRY).await;
        }
        Ok::<_, BenchError>(())
    };
    let in_time = tokio::time::timeout(ENABLED, acts).await;
    in_time.map_err(|_elapsed| {
        BenchError::Unfit(format!("no create was rewritten within {ENABLED:?}: is the guardian installed?"))
    })??;
    for _ in 0..WARM_UP {
        create(&with, &set).await?;
        create(&without, &set).await?;
    }
    progress(&format!("{creates} creates with the webhook and without it, in turns"));
    let (mut times, mut plain) = (Vec::new(), Vec::new());
    for _ in 0..creates {
        for (api, expected, times) in [(&with, true, &mut times), (&without, false, &mut plain)] {
            let (took, rewritten) = create(api, &set).await?;
            if rewritten != expected {
                return Err(BenchError::Unfit(format!("a create was rewritten: {rewritten}, expected: {expected}")));
            }
            times.push(took);
        }
    }
    times.sort_unstable();
    plain.sort_unstable();
    let milliseconds = |time: Duration| time.as_secs_f64() * 1e3;
    let percentiles =
        [50, 99].map(|percent| (percent, milliseconds(percentile(&times, percent)), milliseconds(percentile(&plain, percent))));
    let texts = percentiles.map(|(percent, with, without)| {
        format!("p{percent}_with={with:.2}ms p{percent}_without={without:.2}ms p{percent}_added={:.2}ms", with - without)
    });
    result(&format!("create/dry-run/1 n={creates} {}", texts.join(" ")));
    Ok(())
}

/// How long it took, and whether the webhook rewrote it.
async fn create(api: &Api<StatefulSet>, set: &StatefulSet) -> Result<(Duration, bool), BenchError> {
    let started = Instant::now();
    let created = api.create(&PostParams { dry_run: true, field_manager: None }, set).await?;
    let took = started.elapsed();
    let template = created.spec.and_then(|spec| spec.template.metadata).and_then(|metadata| metadata.annotations);
    Ok((took, template.is_some_and(|annotations| annotations.contains_key(RECORD))))
}

/// The tutorial's set.
fn set() -> Value {
    json!({
        "metadata": {"name": "redis", "labels": {"app": "redis"}},
        "spec": {
            "serviceName": "redis", "replicas": 2,
            "selector": {"matchLabels": {"app": "redis"}},
            "template": {
                "metadata": {"labels": {"app": "redis"}},
                "spec": {"containers": [{
                    "name": "redis", "image": "redis:5-alpine", "ports": [{"name": "redis", "containerPort": 6379}],
                    "volumeMounts": [{"name": "data", "mountPath": "/data"}],
                }]},
            },
            "volumeClaimTemplates": [{
                "metadata": {"name": "data"},
                "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "100Mi"}}},
            }],
        },
    })
}
