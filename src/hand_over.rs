//! Hand-overs before an eviction, as the cluster keeps them: one Lease for each pod, in the guardian's own namespace.
//!
//! Nobody deletes the Lease when the pod goes: a drain that something else refuses comes again, and must not find the wait begun anew.
//! So every replica sweeps. A Lease lives for [`KEPT`] and at most [`SWEEP`] more, so there are never more of them than evictions of
//! pods with a role were asked for in the last 11 minutes: a cluster of 3,000 such pods, all drained at once, has 3,000, of 1 KiB each.

use std::time::Duration;

use guardian_core::admission::{HAND_OVER, HandOver, Pod};
use guardian_core::names;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::api::core::v1::Pod as CorePod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use kube::api::{DeleteParams, ListParams, PostParams, Preconditions};
use kube::{Api, Client, ResourceExt as _};
use serde::Deserialize;
use tokio_util::sync::CancellationToken;

/// A Lease stays so long: 100 s of it the pod waits, and then it can be evicted. Whatever asks after that begins another hand-over, since
/// the role may have come back meanwhile. Seconds.
const KEPT: SignedDuration = SignedDuration::from_secs(600);
/// Between two sweeps.
const SWEEP: Duration = Duration::from_secs(60);
/// Leases of one sweep; the others are left to the next one.
const PAGE: u32 = 500;
/// How long a sweep may take. It is in nobody's way.
const SWEEP_DEADLINE: Duration = Duration::from_secs(30);

/// The Leases.
pub(crate) struct HandOvers {
    leases: Api<Lease>,
}

impl HandOvers {
    /// Those of the guardian that is installed in this namespace.
    pub(crate) fn new(client: Client, installation: &str) -> Self {
        Self { leases: Api::namespaced(client, installation) }
    }

    /// When the hand-over of the pod with this uid has begun; `None` when it has not.
    pub(crate) async fn began(&self, pod_uid: &str) -> kube::Result<Option<Timestamp>> {
        Ok(self.leases.get_opt(&name(pod_uid)).await?.as_ref().map(of_lease))
    }

    /// Writes down that a hand-over begins. Says whether it was this call that did.
    pub(crate) async fn begin(&self, hand_over: &HandOver, now: Timestamp) -> kube::Result<bool> {
        match self.leases.create(&PostParams::default(), &lease(hand_over, now)).await {
            Ok(_) => Ok(true),
            // Another replica was asked at the same moment, or an earlier answer was lost: it begins now all the same.
            Err(kube::Error::Api(status)) if status.code == 409 => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Sweeps again and again until `shutdown`.
    pub(crate) async fn watch(&self, clock: impl Fn() -> Timestamp, shutdown: CancellationToken) {
        let mut round = tokio::time::interval(SWEEP);
        round.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = round.tick() => {}
                () = shutdown.cancelled() => return,
            }
            match tokio::time::timeout(SWEEP_DEADLINE, self.sweep(clock())).await {
                Ok(Ok(0)) => {}
                Ok(Ok(swept)) => tracing::info!(swept, "old Leases of hand-overs are gone"),
                Ok(Err(error)) => tracing::warn!(%error, "old Leases of hand-overs are left for the next sweep"),
                Err(_) => tracing::warn!(seconds = SWEEP_DEADLINE.as_secs(), "a sweep of old Leases took too long"),
            }
        }
    }

    /// Deletes what is older than [`KEPT`]. Says how many there were.
    async fn sweep(&self, now: Timestamp) -> kube::Result<usize> {
        let wanted = ListParams::default().labels(&format!("{}=true", names::HAND_OVER)).limit(PAGE);
        let leases = self.leases.list(&wanted).await?.items;
        let mut swept = 0;
        for lease in leases.iter().filter(|lease| now.duration_since(of_lease(lease)) >= KEPT) {
            let same = Preconditions { uid: lease.uid(), resource_version: lease.resource_version() };
            let params = DeleteParams { preconditions: Some(same), ..DeleteParams::default() };
            match self.leases.delete(&lease.name_any(), &params).await {
                Ok(_) => swept += 1,
                // The other replica sweeps too.
                Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(swept)
    }
}

fn name(pod_uid: &str) -> String {
    format!("{}{pod_uid}", names::HAND_OVER_PREFIX)
}

fn lease(hand_over: &HandOver, now: Timestamp) -> Lease {
    let metadata = ObjectMeta {
        name: Some(name(&hand_over.pod_uid)),
        labels: Some([(names::HAND_OVER.to_owned(), "true".to_owned())].into()),
        ..ObjectMeta::default()
    };
    let spec = LeaseSpec {
        acquire_time: Some(MicroTime(now)),
        holder_identity: Some(hand_over.holder.clone()),
        lease_duration_seconds: i32::try_from(HAND_OVER.as_secs()).ok(),
        ..LeaseSpec::default()
    };
    Lease { metadata, spec: Some(spec) }
}

fn of_lease(lease: &Lease) -> Timestamp {
    began(lease.spec.as_ref().and_then(|spec| spec.acquire_time.as_ref()), &lease.metadata)
}

/// When a hand-over began: the earlier of what the writer of its Lease and what the API server took for the time, so that one wrong clock makes a wait
/// shorter, never longer. One without a time is over.
pub(crate) fn began(acquired: Option<&MicroTime>, metadata: &ObjectMeta) -> Timestamp {
    let created = metadata.creation_timestamp.as_ref().map(|time| time.0);
    acquired.map(|time| time.0).into_iter().chain(created).min().unwrap_or(Timestamp::UNIX_EPOCH)
}

/// A pod, without all that is not read.
#[derive(Clone, Debug, Deserialize, kube::Resource)]
#[resource(inherit = "CorePod")]
pub(crate) struct SlimPod {
    metadata: ObjectMeta,
    #[serde(default)]
    status: PodStatus,
}

#[derive(Clone, Debug, Default, Deserialize)]
struct PodStatus {
    #[serde(default)]
    conditions: Vec<Condition>,
}

#[derive(Clone, Debug, Deserialize)]
struct Condition {
    #[serde(rename = "type")]
    kind: String,
    status: String,
}

impl From<SlimPod> for Pod {
    fn from(pod: SlimPod) -> Self {
        let owners = pod.metadata.owner_references.into_iter().flatten();
        let mut sets =
            owners.filter(|o| o.controller == Some(true) && o.kind == "StatefulSet" && o.api_version.starts_with("apps/"));
        Self {
            set: sets.next().map(|owner| owner.name),
            uid: pod.metadata.uid.unwrap_or_default(),
            labels: pod.metadata.labels.unwrap_or_default(),
            terminating: pod.metadata.deletion_timestamp.is_some(),
            ready: pod.status.conditions.iter().any(|c| c.kind == "Ready" && c.status == "True"),
        }
    }
}
