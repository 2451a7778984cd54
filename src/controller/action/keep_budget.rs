//! The PodDisruptionBudget of a set is made, changed or taken away.

use guardian_core::lifecycle::{Budget, BudgetChange, Observed, budget_name};
use guardian_core::names;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use kube::{Api, Client};
use serde_json::json;

use crate::controller::api::{ApiError, call};

/// Uid and version are preconditions: a budget that somebody has changed or made anew since is looked at again first.
pub(super) async fn keep_budget(client: &Client, observed: &Observed, change: &BudgetChange) -> Result<(), ApiError> {
    let budgets: Api<PodDisruptionBudget> = Api::namespaced(client.clone(), &observed.namespace);
    match change {
        BudgetChange::Make { max_unavailable } => make(&budgets, observed, *max_unavailable).await,
        BudgetChange::Set { budget: Budget { name, uid, version, .. }, max_unavailable } => {
            let patch = json!({
                "metadata": {"uid": uid, "resourceVersion": version},
                "spec": {"maxUnavailable": max_unavailable, "minAvailable": null},
            });
            call("change the PodDisruptionBudget", budgets.patch(name, &PatchParams::default(), &Patch::Merge(patch)))
                .await
                .map(drop)
        }
        BudgetChange::Remove(Budget { name, uid, version, .. }) => {
            let preconditions = Preconditions { uid: Some(uid.clone()), resource_version: Some(version.clone()) };
            let params = DeleteParams::default().preconditions(preconditions);
            call("delete the PodDisruptionBudget", budgets.delete(name, &params)).await.map(drop)
        }
    }
}

/// It goes with its set. `AlwaysAllow`: a pod that is not ready counts for no quorum, so its budget must not keep it on a node that is drained.
async fn make(budgets: &Api<PodDisruptionBudget>, observed: &Observed, max_unavailable: u64) -> Result<(), ApiError> {
    let set = &observed.set;
    let object = json!({
        "metadata": {
            "name": budget_name(&set.name),
            "labels": {(names::BUDGET): "true", "app.kubernetes.io/managed-by": "stateful-guardian"},
            "ownerReferences": [{"apiVersion": "apps/v1", "kind": "StatefulSet", "name": set.name, "uid": set.uid}],
        },
        "spec": {
            "selector": set.selector,
            "maxUnavailable": max_unavailable,
            "unhealthyPodEvictionPolicy": "AlwaysAllow",
        },
    });
    let what = "make the PodDisruptionBudget";
    let object =
        serde_json::from_value(object).map_err(|source| ApiError::Failed { what, source: kube::Error::SerdeError(source) })?;
    call(what, budgets.create(&PostParams::default(), &object)).await.map(drop)
}
