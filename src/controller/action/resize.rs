//! Other limits for a container of a running pod, through the subresource `pods/resize` (KEP-1287; on by default since Kubernetes 1.33).

use std::collections::BTreeMap;

use guardian_core::ledger::Resize;
use guardian_core::policy::Resource;
use guardian_core::quantity;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Patch, PatchParams};
use kube::{Api, Client};
use serde_json::{Value, json};

use crate::controller::api::{ApiError, call};

/// Asks for them, for the pod with this uid: another one of that name is answered with 409. A strategic merge patch finds the container by its name.
pub(super) async fn pod(client: &Client, namespace: &str, name: &str, uid: &str, resize: &Resize) -> Result<(), ApiError> {
    let pods: Api<Pod> = Api::namespaced(client.clone(), namespace);
    let resources = json!({"limits": quantities(&resize.limits), "requests": quantities(&resize.requests)});
    let patch = json!({
        "metadata": {"uid": uid},
        "spec": {"containers": [{"name": resize.container, "resources": resources}]},
    });
    call("resize the pod", pods.patch_subresource("resize", name, &PatchParams::default(), &Patch::Strategic(patch)))
        .await
        .map(drop)
}

/// What the API server says, where asking again would be of no use: it does not know the subresource, or does not allow it. `None` of a failure that passes.
pub(super) fn refusal(error: &ApiError, pod: &str) -> Option<String> {
    let status = error.status()?;
    // A pod that is gone is no refusal: the watch will tell.
    let is_gone = status.code == 404 && status.message.contains(pod);
    let passes = is_gone || matches!(status.code, 408 | 409 | 429) || !(400..500).contains(&status.code);
    (!passes).then(|| format!("{} ({})", status.message, status.code))
}

fn quantities(amounts: &BTreeMap<Resource, u64>) -> Value {
    let all = amounts.iter().map(|(of, amount)| (of.as_str().to_owned(), Value::String(quantity::text(*amount, *of))));
    Value::Object(all.collect())
}
