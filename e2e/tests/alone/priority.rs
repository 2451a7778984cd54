//! A node without room for another pod: pods of lower priority make room for a guarded one, and not for the same pod unguarded.

use std::collections::BTreeMap;

use guardian_e2e::{Failure, Namespace, Outcome, application, is_ready, namespace, policy, until, until_any};
use k8s_openapi::api::core::v1::{Event, Node, Pod};
use k8s_openapi::api::scheduling::v1::PriorityClass;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use kube::api::{DeleteParams, ListParams, PostParams};
use kube::{Api, ResourceExt as _};
use serde_json::{Value, json};

use crate::{ALONE, expect, policy_text};

/// What is left free on the node, and what the set asks for, in thousandths of a core.
const LEFT: i64 = 50;
const ASKED: i64 = 100;

#[tokio::test]
async fn alone_pods_of_lower_priority_make_room_for_a_guarded_one_and_for_no_other() -> Outcome {
    let _alone = ALONE.lock().await;
    namespace::enabled("priority", async |ns| {
        let classes: Api<PriorityClass> = Api::all(ns.client.clone());
        let class = json!({"metadata": {"name": ns.name}, "value": 1000, "description": "of a test"});
        classes.create(&PostParams::default(), &serde_json::from_value(class)?).await?;
        let made = room_is_made(ns).await;
        classes.delete(&ns.name, &DeleteParams::default()).await?;
        made
    })
    .await
}

async fn room_is_made(ns: &Namespace) -> Outcome {
    let (node, free) = roomiest_node(ns).await?;
    ns.kubectl.apply_objects(&[filler(&node, free - LEFT)]).await?;
    let pods = ns.api::<Pod>();
    let filler = until_any(&pods, "", "the node is full", |pod| {
        if pod.name_any().starts_with("filler-") { is_ready(pod) } else { Err("another pod".to_owned()) }
    })
    .await?;

    // As it would be without a guardian.
    let unguarded = {
        let mut set = set("plain", &node);
        set["metadata"]["annotations"] = json!({"stateful-guardian.io/inject": "false"});
        set
    };
    ns.kubectl.apply_objects(&[unguarded]).await?;
    let refused = |event: &Event| {
        let about = event.involved_object.name.as_deref().unwrap_or_default();
        let words = event.message.as_deref().unwrap_or_default();
        if about == "plain-0" && words.contains("Insufficient cpu") { Ok(()) } else { Err(format!("{about}: {words}")) }
    };
    until_any(&ns.api::<Event>(), "reason=FailedScheduling", "plain-0 finds no room", refused).await?;
    expect(pods.get(&filler.name_any()).await?.metadata.deletion_timestamp.is_none(), "and nobody makes any")?;

    let protect = format!("protect: {{priorityClassName: {}}}", ns.name);
    ns.kubectl.apply_objects(&[policy("app", &policy_text(&protect), &[]), set("app", &node)]).await?;
    until(&pods, "app-0", "it runs", |pod| {
        let priority = pod.spec.as_ref().and_then(|spec| spec.priority);
        if priority == Some(1000) { is_ready(pod) } else { Err(format!("priority {priority:?}")) }
    })
    .await?;
    let event = until_any(&ns.api::<Event>(), "reason=Preempted", "the filler was preempted", |event: &Event| {
        let about = event.involved_object.name.as_deref().unwrap_or_default();
        if about == filler.name_any() { Ok(()) } else { Err(about.to_owned()) }
    })
    .await?;
    expect(event.involved_object.uid == filler.uid(), "that very pod")
}

/// The node with the most processor time that nobody has asked for, and how much that is.
async fn roomiest_node(ns: &Namespace) -> Outcome<(String, i64)> {
    let nodes: Api<Node> = Api::all(ns.client.clone());
    let mut free: BTreeMap<String, i64> = BTreeMap::new();
    for node in nodes.list(&ListParams::default()).await? {
        let allocatable = node.status.as_ref().and_then(|status| status.allocatable.as_ref()?.get("cpu"));
        free.insert(node.name_any(), millicores(allocatable)?);
    }
    for pod in Api::<Pod>::all(ns.client.clone()).list(&ListParams::default()).await? {
        let Some(spec) = &pod.spec else { continue };
        let Some(left) = spec.node_name.as_ref().and_then(|node| free.get_mut(node)) else { continue };
        for container in &spec.containers {
            *left -= millicores(container.resources.as_ref().and_then(|r| r.requests.as_ref()?.get("cpu")))?;
        }
    }
    let most = free.into_iter().max_by_key(|(_, left)| *left);
    most.filter(|(_, left)| *left > 2 * ASKED).ok_or_else(|| Failure::Unexpected("no node has room".to_owned()))
}

fn millicores(quantity: Option<&Quantity>) -> Outcome<i64> {
    let Some(Quantity(text)) = quantity else { return Ok(0) };
    let (digits, factor) = text.strip_suffix('m').map_or((text.as_str(), 1000), |digits| (digits, 1));
    let number: i64 = digits.parse().map_err(|_| Failure::Unexpected(format!("{text} of cpu")))?;
    Ok(number * factor)
}

/// One pod of no priority that asks for so much.
fn filler(node: &str, millicores: i64) -> Value {
    let set = set("filler", node);
    let mut pod = set["spec"]["template"]["spec"].clone();
    pod["containers"][0]["resources"] = json!({"requests": {"cpu": format!("{millicores}m")}});
    json!({
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "filler"},
        "spec": {
            "replicas": 1,
            "selector": {"matchLabels": {"app": "filler"}},
            "template": {"metadata": {"labels": {"app": "filler"}}, "spec": pod},
        },
    })
}

/// One pod on this node, without volumes.
fn set(name: &str, node: &str) -> Value {
    let mut set = application(name, 1);
    let spec = &mut set["spec"]["template"]["spec"];
    spec["nodeSelector"] = json!({"kubernetes.io/hostname": node});
    spec["terminationGracePeriodSeconds"] = json!(1);
    spec["volumes"] = json!([{"name": "data", "emptyDir": {}}]);
    spec["containers"][0]["resources"]["requests"]["cpu"] = json!(format!("{ASKED}m"));
    if let Some(spec) = set["spec"].as_object_mut() {
        spec.remove("volumeClaimTemplates");
    }
    set
}
