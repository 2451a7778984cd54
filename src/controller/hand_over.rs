//! The evictions that the webhook keeps waiting, as their Leases tell: one for each pod, in the guardian's own namespace.

use guardian_core::lifecycle::HandOver;
use guardian_core::names;
use k8s_openapi::api::coordination::v1::Lease as CoreLease;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use serde::Deserialize;

use super::SetKey;
use crate::hand_over::began;

/// Such a Lease.
#[derive(Clone, Debug, Deserialize, kube::Resource)]
#[resource(inherit = "CoreLease")]
pub(super) struct Waiting {
    pub(super) metadata: ObjectMeta,
    #[serde(default)]
    spec: Spec,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Spec {
    acquire_time: Option<MicroTime>,
    #[serde(default)]
    holder_identity: String,
}

impl Waiting {
    /// The set of the pod that waits. The pods of a StatefulSet are named for it and their ordinal.
    pub(super) fn set(&self) -> Option<SetKey> {
        let (namespace, pod) = self.spec.holder_identity.split_once('/')?;
        let (set, ordinal) = pod.rsplit_once('-')?;
        ordinal.parse::<u32>().ok()?;
        Some(SetKey { namespace: namespace.to_owned(), name: set.to_owned() })
    }

    /// As the core sees it.
    pub(super) fn observed(&self) -> Option<HandOver> {
        let lease = self.metadata.name.clone()?;
        Some(HandOver {
            pod: self.spec.holder_identity.split_once('/')?.1.to_owned(),
            pod_uid: lease.strip_prefix(names::HAND_OVER_PREFIX)?.to_owned(),
            uid: self.metadata.uid.clone()?,
            version: self.metadata.resource_version.clone()?,
            began: began(self.spec.acquire_time.as_ref(), &self.metadata),
            lease,
        })
    }
}
