//! The Lease of a hand-over that is over.

use guardian_core::lifecycle::HandOver;
use k8s_openapi::api::coordination::v1::Lease;
use kube::api::{DeleteParams, Preconditions};
use kube::{Api, Client};

use crate::controller::api::{ApiError, call};

/// Deletes it, as it was seen: one that was made anew meanwhile stays.
pub(crate) async fn end_hand_over(client: &Client, installation: &str, hand_over: &HandOver) -> Result<(), ApiError> {
    let leases: Api<Lease> = Api::namespaced(client.clone(), installation);
    let same = Preconditions { uid: Some(hand_over.uid.clone()), resource_version: Some(hand_over.version.clone()) };
    let params = DeleteParams { preconditions: Some(same), ..DeleteParams::default() };
    call("delete the Lease of a hand-over", leases.delete(&hand_over.lease, &params)).await.map(drop)
}
