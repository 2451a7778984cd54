//! Ending the processes of a container as the kernel would: without a word to them.
//!
//! A process cannot kill the first of its own pid namespace, so `kubectl exec … kill -9 1` does nothing. A helper pod on the same node,
//! in the node's pid namespace, can; it knows a container's processes by their cgroup, which is named for the container's id.

use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt as _;
use kube::api::{DeleteParams, PostParams};
use serde_json::json;

use crate::{Failure, Namespace, Outcome, container_id, is_ready, node, restarts, until, until_gone};

/// What the helper sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// The end.
    Kill,
    /// A process that hangs: it holds its sockets and answers nothing.
    Stop,
    /// The end of that.
    Continue,
}

impl Signal {
    fn name(self) -> &'static str {
        match self {
            Self::Kill => "KILL",
            Self::Stop => "STOP",
            Self::Continue => "CONT",
        }
    }
}

impl Namespace {
    /// Kills the first container of a pod of this namespace, and waits until it runs again and the pod is Ready.
    ///
    /// # Errors
    /// When it was not killed, or does not come back.
    pub async fn kill_server(&self, pod: &str) -> Outcome<Pod> {
        let pods = self.api::<Pod>();
        let before = pods.get(pod).await?;
        self.signal(&before, Signal::Kill).await?;
        until(&pods, pod, "the server runs again", |now| {
            if restarts(now) <= restarts(&before) { Err(format!("{} restarts", restarts(now))) } else { is_ready(now) }
        })
        .await
    }

    /// Sends a signal to every process of the first container of a pod, which may be of any namespace; the helper is of this one.
    ///
    /// # Errors
    /// When no process was found.
    pub async fn signal(&self, pod: &Pod, signal: Signal) -> Outcome {
        let id = container_id(pod);
        if id.is_empty() {
            return Err(Failure::Unexpected(format!("{} has no container that runs", pod.name_any())));
        }
        let helpers = self.api::<Pod>();
        let helper = format!("{}-{}", signal.name().to_lowercase(), pod.name_any());
        helpers.create(&PostParams::default(), &helper_pod(&helper, &node(pod), signal, &id)?).await?;
        let done = until(&helpers, &helper, "the helper has ended", |helper| {
            let phase = helper.status.clone().unwrap_or_default().phase.unwrap_or_default();
            if phase == "Succeeded" || phase == "Failed" { Ok(()) } else { Err(format!("phase {phase}")) }
        })
        .await?;
        if done.status.and_then(|s| s.phase).as_deref() != Some("Succeeded") {
            return Err(Failure::Unexpected(format!("no process of container {id} was found on node {}", node(pod))));
        }
        helpers.delete(&helper, &DeleteParams::default().grace_period(0)).await?;
        until_gone(&helpers, &helper).await
    }
}

fn helper_pod(name: &str, node: &str, signal: Signal, container: &str) -> Outcome<Pod> {
    let script = format!(
        r#"found=; for p in /proc/[0-9]*; do grep -qs {container} $p/cgroup && kill -{} ${{p#/proc/}} && found=yes; done; [ -n "$found" ]"#,
        signal.name()
    );
    Ok(serde_json::from_value(json!({
        "metadata": {"name": name},
        "spec": {
            "nodeName": node,
            "hostPID": true,
            "restartPolicy": "Never",
            "terminationGracePeriodSeconds": 0,
            "tolerations": [{"operator": "Exists"}],
            "containers": [{
                "name": "kill",
                "image": "busybox:1.35",
                "command": ["sh", "-c", script],
                "securityContext": {"privileged": true},
            }],
        },
    }))?)
}
