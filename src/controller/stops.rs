//! Pods that are being stopped are told why: the deletion is seen, its reason found out, and the runner told by an exec, while the pod's preStop
//! waits for it (see [`REASON_WAIT`](guardian_core::policy::REASON_WAIT)). Where its set is on hold it is told that too, and does not run its hook. Nothing else hangs on it: a pod that is not told goes on with `Unknown`.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use futures::channel::mpsc;
use guardian_core::lifecycle::Observed;
use guardian_core::policy::Policy;
use guardian_core::reason::Stop;
use guardian_core::stop::{Leaving, classify};
use guardian_hook::protocol::{PROTOCOL, StopReason};
use kube::{Api, Client};
use prometheus::{IntCounterVec, Opts, Registry};
use tokio::task::JoinSet;

use super::api::call;
use super::exec::{Exec, Notice};
use super::observed::StatefulSet;
use super::{SetKey, action};

/// Pods that are told at once. Each takes an exec of 55 ms and about 1.3 MB on the other side, so 64 are 83 MB there, and a zone of 2,000 pods is
/// told within 2 s, of which most will have gone on without.
const AT_ONCE: usize = 64;
/// Pods that wait to be told; the others are not. Those at the end of a longer queue would have gone on long before.
pub(super) const QUEUE: usize = 256;
/// Pods of which it is known that they were told, so that a later event of the same deletion tells them nothing again; 40 bytes each.
const REMEMBERED: usize = 10_000;
/// All of it, for one pod. Nobody waits for longer than 500 ms; the rest is for a record of what was slow.
const DEADLINE: Duration = Duration::from_secs(5);

/// A pod whose deletion was seen.
#[derive(Clone, Debug)]
pub(super) struct Stopping {
    pub(super) set: SetKey,
    pub(super) pod: String,
    pub(super) uid: String,
    /// `spec.containers[0].name`.
    pub(super) first_container: String,
    pub(super) leaving: Leaving,
}

/// What there is to count.
pub(super) struct Metrics(IntCounterVec);

impl Metrics {
    pub(super) fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let told =
            Opts::new("guardian_stops_total", "Pods that were to be told why they are stopped, by reason and whether they were");
        let told = IntCounterVec::new(told, &["reason", "told"])?;
        registry.register(Box::new(told.clone()))?;
        Ok(Self(told))
    }
}

/// What is known of the set of a pod that stops, for its preStop.
pub(super) struct Known {
    pub(super) observed: Observed,
    pub(super) policy: Arc<Policy>,
}

/// Tells all pods that come out of `stopping`. `look` gives what is known of a set; `None`: nobody guards it.
pub(super) async fn drive(
    client: Client,
    exec: Arc<dyn Exec>,
    metrics: Metrics,
    mut stopping: mpsc::Receiver<Stopping>,
    look: impl Fn(&SetKey) -> Option<Known>,
) {
    let mut told = BTreeSet::new();
    let mut tasks = JoinSet::new();
    loop {
        tokio::select! {
            next = stopping.next(), if tasks.len() < AT_ONCE => {
                let Some(pod) = next else { return };
                if told.contains(&pod.uid) {
                    continue;
                }
                let notice = look(&pod.set).and_then(|known| notice(&pod, &known));
                let Some(notice) = notice else { continue };
                if told.len() >= REMEMBERED {
                    told.clear();
                }
                told.insert(pod.uid.clone());
                let (client, exec) = (client.clone(), Arc::clone(&exec));
                tasks.spawn(async move { tokio::time::timeout(DEADLINE, tell(client, exec, pod, notice)).await.unwrap_or((Stop::Unknown, false)) });
            }
            Some(done) = tasks.join_next() => {
                let (reason, told) = done.unwrap_or((Stop::Unknown, false));
                metrics.0.with_label_values(&[reason.as_str(), if told { "yes" } else { "no" }]).inc();
            }
        }
    }
}

/// What the pod is to be told, but for the reason; `None` where its preStop does not ask.
fn notice(pod: &Stopping, Known { observed, policy }: &Known) -> Option<Notice> {
    let hook = policy.hooks.pre_stop.as_ref().filter(|hook| hook.asks_controller())?;
    let named = hook.container.as_ref().or(policy.container.as_ref());
    Some(Notice {
        namespace: pod.set.namespace.clone(),
        pod: pod.pod.clone(),
        container: named.unwrap_or(&pod.first_container).clone(),
        reason: StopReason {
            version: PROTOCOL,
            pod_uid: pod.uid.clone(),
            reason: Stop::Unknown.to_string(),
            env: action::surroundings(observed, Some(pod.leaving.ordinal)),
            on_hold: observed.set.hold.is_some(),
        },
    })
}

/// Finds out why and tells it. The set is read anew: a change that makes its pods go is often seen after they do.
async fn tell(client: Client, exec: Arc<dyn Exec>, pod: Stopping, mut notice: Notice) -> (Stop, bool) {
    let sets: Api<StatefulSet> = Api::namespaced(client, &pod.set.namespace);
    let owner = match call("read the set of a pod that stops", sets.get_opt(&pod.set.name)).await {
        Ok(owner) => owner.map(|set| set.owner()),
        Err(error) => {
            tracing::warn!(
                namespace = pod.set.namespace,
                pod = pod.pod,
                error = &error as &dyn std::error::Error,
                "it is not known why it stops"
            );
            return (Stop::Unknown, false);
        }
    };
    let reason = classify(&pod.leaving, owner.as_ref());
    notice.reason.reason = reason.to_string();
    let told = exec.tell(&notice).await;
    let error = told.as_ref().err().map(|error| error as &dyn std::error::Error);
    tracing::info!(
        namespace = pod.set.namespace,
        set = pod.set.name,
        pod = pod.pod,
        pod_uid = pod.uid,
        reason = reason.as_str(),
        error,
        "a pod stops"
    );
    (reason, told.is_ok())
}
