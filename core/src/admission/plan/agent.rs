//! `guardian-agent`: a sidecar that asks the policy's role and metrics by itself, with the application's image, environment and volumes.

use guardian_hook::protocol::AGENT_PORT;
use serde_json::Value;

use super::super::pin::{self, is_named, items};
use super::super::tree::Tree;
use super::{Amounts, Context, Draft, InitContainer, Resources, init_hook};
use crate::names;
use crate::policy::Collect;

/// What the runner and one command at a time need: the runner 2 MB, `redis-cli` 5 MB, `psql` 10 MB.
const MEMORY: &str = "\"64Mi\"";
/// A twentieth of a CPU: a command that takes 20 ms of it may run 2.5 times a second.
const CPU: &str = "\"50m\"";
/// For logs of a few lines, and what commands leave in `/tmp`.
const STORAGE: &str = "\"64Mi\"";

/// Adds the sidecar (an init container with `restartPolicy: Always`, KEP-753) when the policy says `collect: agent`, and it can have its port.
pub(super) fn change(cx: &Context<'_>, draft: &mut Draft) {
    if cx.policy.collect != Collect::Agent {
        return;
    }
    if let Some(why) = hindrance(cx.template) {
        draft.warnings.push(format!("{} is not written: {why}. Role and metrics are asked as by collect: exec", names::AGENT));
        return;
    }
    let application = cx.container(None);
    let mut json = init_hook::like(application, names::AGENT, "agent", &resources(application));
    // The object goes on.
    json.truncate(json.len() - 1);
    let port = AGENT_PORT.to_string();
    json.extend([
        r#","ports":[{"containerPort":"#,
        &port,
        r#","name":""#,
        names::AGENT,
        r#"","protocol":"TCP"}],"restartPolicy":"Always"}"#,
    ]);
    draft.init_containers.push(InitContainer { name: names::AGENT, json });
    draft.changes.push(names::AGENT);
}

/// Why this pod cannot have one. All containers of a pod share its ports.
fn hindrance(template: &Tree<'_>) -> Option<String> {
    let host_network = template.at(&["spec", "hostNetwork"]).map(Tree::value);
    if host_network.and_then(|value| value.as_bool()) == Some(true) {
        return Some("the pods have the network of their nodes, whose ports are not theirs alone".to_owned());
    }
    let mut containers = pin::CONTAINERS.iter().flat_map(|list| items(template, list));
    containers.find_map(|container| {
        let name = container.get("name").and_then(Tree::as_str).unwrap_or_default();
        if is_named(container, names::AGENT) {
            return Some(format!("the container name {name} is reserved, rename yours"));
        }
        let ports = container.get("ports").map(Tree::value).unwrap_or_default();
        let mut ports = ports.as_array().into_iter().flatten();
        ports
            .any(is_taken)
            .then(|| format!("the container {name} has the port {AGENT_PORT}, or a port of the name {}", names::AGENT))
    })
}

fn is_taken(port: &Value) -> bool {
    port.get("containerPort").and_then(Value::as_u64) == Some(AGENT_PORT.into())
        || port.get("name").and_then(Value::as_str) == Some(names::AGENT)
}

/// Resources of its own, as requests and as limits, but only of a kind that the application's container has there.
///
/// A sidecar runs beside the application, so what it has is added to what the pod has: `requests.memory` of the pod becomes that of its containers and
/// 64 MiB. The class of the pod stays: it is Guaranteed where each container has limits of CPU and memory that are its requests too, which holds of
/// this one where it holds of the application's; BestEffort where none has any, and then this one has none.
fn resources(application: &Tree<'_>) -> String {
    super::with_resources(application, |has| {
        let amounts = |has: &Amounts<'_>| Amounts {
            cpu: has.cpu.and(raw(CPU)),
            ephemeral_storage: has.ephemeral_storage.and(raw(STORAGE)),
            memory: has.memory.and(raw(MEMORY)),
        };
        Resources { limits: amounts(&has.limits), requests: amounts(&has.requests) }
    })
}

fn raw(json: &'static str) -> Option<&'static serde_json::value::RawValue> {
    serde_json::from_str(json).ok() // a string: it is JSON
}
