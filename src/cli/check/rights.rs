//! Who may do what: the caller, and the ServiceAccounts of the guardian.

use k8s_openapi::api::authorization::v1::{
    ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec, SubjectAccessReview, SubjectAccessReviewSpec,
};
use kube::Api;
use kube::api::PostParams;

use super::super::cluster::{Cluster, ClusterError, Place, Progress, call};
use super::Check;

/// A right: verb, group, resource, subresource.
type Right = (&'static str, &'static str, &'static str, &'static str);

/// What the controller must be allowed to do in an enabled namespace.
const CONTROLLER: [Right; 14] = [
    ("create", "", "pods", "exec"),
    ("create", "", "pods", "eviction"),
    ("list", "policy", "poddisruptionbudgets", ""),
    ("create", "policy", "poddisruptionbudgets", ""),
    ("delete", "policy", "poddisruptionbudgets", ""),
    ("patch", "", "pods", ""),
    ("delete", "", "pods", ""),
    ("list", "", "events", ""),
    ("patch", "", "services", ""),
    ("list", "discovery.k8s.io", "endpointslices", ""),
    ("patch", "", "persistentvolumeclaims", ""),
    ("create", "", "configmaps", ""),
    ("update", "", "configmaps", ""),
    ("create", "events.k8s.io", "events", ""),
];
/// What the controller must be allowed to do in the whole cluster.
const CONTROLLER_EVERYWHERE: [Right; 4] = [
    ("watch", "", "pods", ""),
    ("watch", "", "nodes", ""),
    ("watch", "", "persistentvolumeclaims", ""),
    ("watch", "apps", "statefulsets", ""),
];
/// What the webhook must be allowed to do in the whole cluster.
const WEBHOOK: [Right; 4] = [
    ("list", "", "configmaps", ""),
    ("watch", "scheduling.k8s.io", "priorityclasses", ""),
    ("get", "apps", "statefulsets", ""),
    ("get", "", "namespaces", ""),
];

pub(super) async fn check(cluster: &Cluster, installation: &str, places: &[Place]) -> Vec<Check> {
    let mut checks = own(cluster, installation).await;
    checks.push(service_account(cluster, installation, "guardian-webhook", None, &WEBHOOK).await);
    checks.push(service_account(cluster, installation, "guardian-controller", None, &CONTROLLER_EVERYWHERE).await);
    let mut progress = Progress::start();
    for place in places.iter().filter(|place| place.enabled) {
        progress.say(&format!("asking for rights in namespace {}", place.name));
        checks.push(service_account(cluster, installation, "guardian-controller", Some(&place.name), &CONTROLLER).await);
    }
    checks
}

/// What you may do yourself. What you may not is no failure: it says what you have to ask others for.
async fn own(cluster: &Cluster, installation: &str) -> Vec<Check> {
    let enable = [("patch", "", "namespaces", ""), ("create", "rbac.authorization.k8s.io", "rolebindings", "")];
    let audit = [("get", "", "pods", "log")];
    let run = [("create", "", "pods", "exec"), ("update", "", "configmaps", "")];
    let mut checks = Vec::new();
    let all = [
        ("guardian enable", None, &enable[..]),
        ("guardian audit", Some(installation), &audit[..]),
        ("guardian run in every namespace", None, &run[..]),
    ];
    for (what, namespace, rights) in all {
        let mut missing = None;
        for right in rights {
            match may(cluster, attributes(*right, namespace)).await {
                Ok(true) => {}
                Ok(false) => missing = missing.or_else(|| Some(format!("you may not {}", shown(*right)))),
                Err(error) => missing = missing.or_else(|| Some(error.to_string())),
            }
        }
        checks.push(match missing {
            None => Check::ok("your rights", what, "you may"),
            Some(missing) => {
                Check::skipped("your rights", what, missing, "ask an administrator of the cluster, where you need it")
            }
        });
    }
    checks
}

async fn service_account(cluster: &Cluster, installation: &str, name: &str, namespace: Option<&str>, rights: &[Right]) -> Check {
    let subject = namespace.map_or_else(|| name.to_owned(), |namespace| format!("{name} in {namespace}"));
    let user = format!("system:serviceaccount:{installation}:{name}");
    for right in rights {
        match may_other(cluster, &user, attributes(*right, namespace)).await {
            Ok(true) => {}
            Ok(false) => {
                let remedy = namespace.map_or_else(
                    || "install it again: kubectl apply -k manifests/base, or your overlay".to_owned(),
                    |namespace| format!("run: guardian enable {namespace}"),
                );
                return Check::failed("rights", subject, format!("{user} may not {}", shown(*right)), remedy);
            }
            Err(error) => return Check::unread("rights", subject, &error),
        }
    }
    Check::ok("rights", subject, "has what it needs")
}

async fn may(cluster: &Cluster, attributes: ResourceAttributes) -> Result<bool, ClusterError> {
    let spec = SelfSubjectAccessReviewSpec { resource_attributes: Some(attributes), ..SelfSubjectAccessReviewSpec::default() };
    let review = SelfSubjectAccessReview { spec, ..SelfSubjectAccessReview::default() };
    let api: Api<SelfSubjectAccessReview> = Api::all(cluster.client.clone());
    let answer = call("ask what you may do", api.create(&PostParams::default(), &review)).await?;
    Ok(answer.status.is_some_and(|status| status.allowed))
}

async fn may_other(cluster: &Cluster, user: &str, attributes: ResourceAttributes) -> Result<bool, ClusterError> {
    let spec = SubjectAccessReviewSpec {
        user: Some(user.to_owned()),
        resource_attributes: Some(attributes),
        ..SubjectAccessReviewSpec::default()
    };
    let review = SubjectAccessReview { spec, ..SubjectAccessReview::default() };
    let api: Api<SubjectAccessReview> = Api::all(cluster.client.clone());
    let answer = call(format!("ask what {user} may do"), api.create(&PostParams::default(), &review)).await?;
    Ok(answer.status.is_some_and(|status| status.allowed))
}

fn attributes((verb, group, resource, subresource): Right, namespace: Option<&str>) -> ResourceAttributes {
    ResourceAttributes {
        verb: Some(verb.to_owned()),
        group: Some(group.to_owned()),
        resource: Some(resource.to_owned()),
        subresource: Some(subresource.to_owned()).filter(|s| !s.is_empty()),
        namespace: namespace.map(str::to_owned),
        ..ResourceAttributes::default()
    }
}

fn shown((verb, _, resource, subresource): Right) -> String {
    if subresource.is_empty() { format!("{verb} {resource}") } else { format!("{verb} {resource}/{subresource}") }
}
