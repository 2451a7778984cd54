//! The enabled namespaces: the controller's rights there, and whether the API server asks us.

use std::collections::BTreeMap;

use guardian_core::names;
use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::api::rbac::v1::RoleBinding;
use kube::Api;
use kube::api::{ObjectMeta, PostParams};

use super::super::cluster::{Cluster, ClusterError, Place, Progress, call};
use super::super::enable;
use super::Check;

const CONTROLLER: &str = "guardian-controller";
/// What refuses a broken policy, by the name that the API server gives it in the refusal.
const WEBHOOK: &str = "policies.stateful-guardian.io";

pub(super) async fn check(cluster: &Cluster, installation: &str, places: &[Place]) -> Vec<Check> {
    let mut checks = Vec::new();
    let mut progress = Progress::start();
    for place in places {
        progress.say(&format!("looking at namespace {}", place.name));
        if place.enabled {
            checks.push(binding(cluster, installation, &place.name).await);
        } else {
            let message = "it is not enabled: nothing is guarded there";
            checks.push(Check::skipped("namespace", &place.name, message, format!("run: guardian enable {}", place.name)));
        }
    }
    checks.extend(approved(cluster, installation, places).await);
    checks.push(match places.iter().find(|place| place.enabled) {
        Some(place) => asked(broken_policy(cluster, &place.name).await, &place.name, installation),
        None => Check::skipped(
            "webhook is asked",
            "",
            "no namespace is enabled to try it in",
            "enable one: guardian enable NAMESPACE",
        ),
    });
    checks
}

async fn binding(cluster: &Cluster, installation: &str, namespace: &str) -> Check {
    let bindings: Api<RoleBinding> = Api::namespaced(cluster.client.clone(), namespace);
    let remedy = format!("run: guardian enable {namespace}");
    match call(format!("read the RoleBindings of {namespace}"), bindings.get_opt(CONTROLLER)).await {
        Err(error) => Check::unread("namespace", namespace, &error),
        Ok(None) => {
            let message = format!("there is no RoleBinding {CONTROLLER}, so no hook runs there");
            Check::failed("namespace", namespace, message, remedy)
        }
        Ok(Some(binding)) => {
            if enable::is_for(&binding, installation) {
                return Check::ok("namespace", namespace, "enabled, and the controller has its rights");
            }
            let message = format!("the RoleBinding {CONTROLLER} is for another installation than {installation}");
            Check::failed("namespace", namespace, message, format!("delete it, then {remedy}"))
        }
    }
}

/// Are the policies of the enabled namespaces in force?
async fn approved(cluster: &Cluster, installation: &str, places: &[Place]) -> Vec<Check> {
    let name = "policies";
    let approvals = match cluster.approvals(installation).await {
        Ok(Ok(approvals)) => approvals,
        Ok(Err(unknown)) => {
            let remedy = "name the namespace that the guardian runs in (--installation), or ask somebody who may read it";
            return vec![Check::skipped(name, "", unknown, remedy)];
        }
        Err(error) => return vec![Check::unread(name, "", &error)],
    };
    let mut checks = Vec::new();
    for Place { name: namespace, .. } in places.iter().filter(|place| place.enabled) {
        checks.push(match cluster.policies(namespace, Some(&approvals)).await {
            Err(error) => Check::unread(name, namespace, &error),
            Ok(policies) => match policies.snapshot.waiting.get(namespace) {
                None => Check::ok(name, namespace, "none awaits approval"),
                Some(waiting) => {
                    let names = waiting.keys().map(String::as_str).collect::<Vec<_>>().join(" ");
                    let message = format!("not approved, so not in force as stored: {names}");
                    Check::failed(name, namespace, message, format!("run: guardian approve -n {namespace} {names}"))
                }
            },
        });
    }
    checks
}

/// Tries to make a policy that no webhook of ours lets through. Nothing is stored, whatever comes of it.
async fn broken_policy(cluster: &Cluster, namespace: &str) -> Result<(), ClusterError> {
    let map = ConfigMap {
        metadata: ObjectMeta {
            name: Some("guardian-check".to_owned()),
            labels: Some(BTreeMap::from([(names::POLICY.to_owned(), "true".to_owned())])),
            ..ObjectMeta::default()
        },
        data: Some(BTreeMap::from([(names::POLICY_KEY.to_owned(), "kind: NoPolicy".to_owned())])),
        ..ConfigMap::default()
    };
    let post = PostParams { dry_run: true, ..PostParams::default() };
    let api: Api<ConfigMap> = Api::namespaced(cluster.client.clone(), namespace);
    call(format!("try a broken policy in {namespace}"), api.create(&post, &map)).await.map(drop)
}

/// What the answer says about us.
fn asked(answer: Result<(), ClusterError>, namespace: &str, installation: &str) -> Check {
    let name = "webhook is asked";
    let Err(error) = answer else {
        let message = "a broken policy was let through: the API server does not ask us about this namespace";
        let remedy = "compare the namespaceSelector of the ValidatingWebhookConfiguration with the namespace's labels";
        return Check::failed(name, namespace, message, remedy);
    };
    let text = error.to_string();
    if text.contains("failed calling webhook") || text.contains("failed to call webhook") {
        let remedy =
            format!("see whether the webhook's pods are ready and reachable: kubectl -n {installation} get pods,endpointslices");
        return Check::failed(name, namespace, text, remedy);
    }
    if text.contains(WEBHOOK) {
        return Check::ok(name, namespace, "it refused a broken policy, as it should");
    }
    Check::unread(name, namespace, &error)
}

#[cfg(test)]
mod tests {
    use kube::core::Status;

    use super::super::State;
    use super::*;

    fn refused(code: u16, message: &str) -> ClusterError {
        let status = Status { code, message: message.to_owned(), ..Status::default() };
        ClusterError::Call { what: "try".to_owned(), error: Box::new(kube::Error::Api(Box::new(status))) }
    }

    #[test]
    fn a_refusal_of_ours_alone_shows_that_we_are_asked() {
        let cases = [
            (Err(refused(422, "admission webhook \"policies.stateful-guardian.io\" denied the request: no")), State::Ok),
            (Ok(()), State::Failed),
            (
                Err(refused(500, "failed calling webhook \"policies.stateful-guardian.io\": no endpoints available")),
                State::Failed,
            ),
            (Err(refused(403, "configmaps is forbidden: User \"a\" cannot create")), State::Skipped),
            (Err(refused(503, "too busy")), State::Failed),
        ];
        for (answer, state) in cases {
            let check = asked(answer, "shop", "stateful-guardian");
            assert_eq!(check.state, state, "{check:?}");
            assert_eq!(check.remedy.is_empty(), state == State::Ok, "{check:?}");
        }
    }
}
