//! A node falls silent while its pod runs on. The scripts of our own cluster do that to it: `GUARDIAN_NODES` is where they are.

use std::env;
use std::path::Path;
use std::time::Duration;

use guardian_core::ledger::Verdict;
use guardian_core::names;
use guardian_e2e::ledger::attempts;
use guardian_e2e::{
    Failure, Namespace, Outcome, application, container_id, eventually, guardian, namespace, node, policy, uid, until,
};
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::{Api, ResourceExt as _};
use serde_json::{Value, json};

use crate::{ALONE, expect, policy_text};

/// The node controller waits 8 s on our cluster, the taint 5 s, the pod has a second to stop and the guardian adds 5; the rest is two starts of pods
/// and twice the minute that a wait may take.
const WITHIN: Duration = Duration::from_secs(180);

const UNFENCED: &str = "hooks: {rejoin: {command: [sh, -c, 'echo \"$GUARDIAN_REASON\" >> /data/reasons']}}";
const FENCED: &str = "\
hooks:
  rejoin: {command: [sh, -c, 'echo \"$GUARDIAN_REASON\" >> /data/reasons']}
  fence: {command: [sh, -c, 'echo \"$GUARDIAN_ABOUT $GUARDIAN_NODE\" >> /data/fenced']}
";

#[tokio::test]
async fn alone_node_a_pod_of_a_partitioned_node_is_replaced_once_a_peer_has_fenced_it_and_not_before() -> Outcome {
    let _alone = ALONE.lock().await;
    namespace::enabled_within("partition", WITHIN, async |ns| {
        ns.kubectl.apply_objects(&[policy("app", &policy_text(UNFENCED), &[]), apart()]).await?;
        for pod in ["app-0", "app-1", "app-2"] {
            ns.ready(pod).await?;
        }
        let lost = on_a_worker(ns).await?;
        let (name, silent) = (lost.name_any(), node(&lost));
        script("node-freeze.sh", &silent).await?;
        let replaced = replaced(ns, &lost).await;
        script("node-thaw.sh", &silent).await?;
        let nodes: Api<Node> = Api::all(ns.client.clone());
        until(&nodes, &silent, "it is heard of again", is_heard_of).await?;
        replaced?;
        let history = guardian(&["history", "-n", &ns.name, "app"]).await?.ok()?.stdout;
        for word in ["fence", "release", "NodeLost", &name] {
            assert!(history.contains(word), "`{word}` in {history}");
        }
        Ok(())
    })
    .await
}

async fn replaced(ns: &Namespace, lost: &Pod) -> Outcome {
    let (name, pods) = (lost.name_any(), ns.api::<Pod>());
    // Without proof nothing is done, and what a person could do is said.
    ns.until_event("app", "Warning", "NotFenced").await?;
    let status = guardian(&["status", "-n", &ns.name, "app"]).await?.ok()?.stdout;
    let said = format!("kubectl taint node {} node.kubernetes.io/out-of-service=nodeshutdown:NoExecute", node(lost));
    expect(status.contains(&said), &format!("no `{said}` in\n{status}"))?;
    let still = pods.get(&name).await?;
    expect(uid(&still) == uid(lost) && still.metadata.deletion_timestamp.is_some(), "it was left where it is")?;

    // The policy is edited, and takes effect at once; no template is changed for it.
    // The API server may still have a connection to the webhook on the silent node, which it gives up once a call has timed out.
    let edited = [policy("app", &policy_text(FENCED), &[])];
    eventually("the policy is taken", async || ns.kubectl.apply_objects(&edited).await).await?;
    let next = until(&pods, &name, "another pod is there", |pod| {
        let other = uid(pod) != uid(lost);
        if other && guardian_e2e::is_ready(pod).is_ok() { Ok(()) } else { Err(format!("uid {}", uid(pod))) }
    })
    .await?;
    expect(node(&next) != node(lost), "it runs elsewhere")?;
    let ledger = ns.until_answered("app", &name, &container_id(&next), Verdict::Succeeded).await?;
    let fences = attempts(&ledger, "fence", &name);
    expect(fences.len() == 1 && fences[0].verdict == Verdict::Succeeded, &format!("{fences:?}"))?;
    expect(ns.kubectl.exec(&name, &["cat", "/data/reasons"]).await? == "NodeLost\n", "it is told why it starts")?;
    let mut proofs = String::new();
    for peer in ["app-0", "app-1", "app-2"].iter().filter(|peer| **peer != name) {
        proofs += &ns.kubectl.exec(peer, &["sh", "-c", "cat /data/fenced 2>/dev/null || true"]).await?;
    }
    expect(proofs == format!("{name} {}\n", node(lost)), &format!("one peer has fenced it, once: {proofs}"))
}

/// Three pods on three nodes, without volumes that would bind them there, which go soon when their node is silent.
fn apart() -> Value {
    let mut set = application("app", 3);
    let lost = |key: &str| json!({"key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 5});
    let spec = &mut set["spec"]["template"]["spec"];
    spec["terminationGracePeriodSeconds"] = json!(1);
    spec["tolerations"] = json!([lost("node.kubernetes.io/unreachable"), lost("node.kubernetes.io/not-ready")]);
    spec["volumes"] = json!([{"name": "data", "emptyDir": {}}]);
    spec["affinity"]["podAntiAffinity"]["preferredDuringSchedulingIgnoredDuringExecution"] = json!([{
        "weight": 100,
        "podAffinityTerm": {"topologyKey": "kubernetes.io/hostname", "labelSelector": {"matchLabels": {"app": "app"}}},
    }]);
    if let Some(spec) = set["spec"].as_object_mut() {
        spec.remove("volumeClaimTemplates");
    }
    set
}

/// A pod that is not on the node of the API server.
async fn on_a_worker(ns: &Namespace) -> Outcome<Pod> {
    let pods = ns.api::<Pod>().list(&kube::api::ListParams::default().labels(names::GUARDED)).await?;
    let mut away = pods.items.into_iter().filter(|pod| number(&node(pod)) != "0");
    away.next().ok_or_else(|| Failure::Unexpected("all pods are on the first node".to_owned()))
}

fn is_heard_of(node: &Node) -> Result<(), String> {
    let conditions = node.status.clone().unwrap_or_default().conditions.unwrap_or_default();
    let ready = conditions.iter().any(|condition| condition.type_ == "Ready" && condition.status == "True");
    if ready { Ok(()) } else { Err(format!("{conditions:?}")) }
}

fn number(node: &str) -> &str {
    node.trim_start_matches(|c: char| !c.is_ascii_digit())
}

/// Runs a script of the cluster on a node.
async fn script(name: &str, node: &str) -> Outcome {
    let scripts = env::var("GUARDIAN_NODES").map_err(|_| Failure::Unexpected("GUARDIAN_NODES is not set".to_owned()))?;
    let path = Path::new(&scripts).join(name);
    let done = tokio::process::Command::new(&path).arg(number(node)).output().await;
    let done = done.map_err(|e| Failure::Run(path.display().to_string(), e))?;
    expect(done.status.success(), &format!("{}: {}", path.display(), String::from_utf8_lossy(&done.stderr)))
}
