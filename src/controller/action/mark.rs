//! A volume claim is marked: it holds the data of a member.

use guardian_core::lifecycle::{Observed, Volume};
use guardian_core::names;
use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use kube::api::{Patch, PatchParams};
use kube::{Api, Client};
use serde_json::json;

use crate::controller::api::{ApiError, call};

/// Leaves the mark. The uid is the precondition: a claim of that name made since is another one, which the API server answers with 409.
pub(super) async fn volume(client: &Client, observed: &Observed, volume: &Volume) -> Result<(), ApiError> {
    let claims: Api<PersistentVolumeClaim> = Api::namespaced(client.clone(), &observed.namespace);
    let mark = json!({"metadata": {"uid": volume.uid, "annotations": {(names::MEMBER): observed.set.name}}});
    call("mark the volume claim", claims.patch_metadata(&volume.claim, &PatchParams::default(), &Patch::Merge(mark)))
        .await
        .map(drop)
}
