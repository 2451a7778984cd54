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
const CONTROLLER: [Right; 15] = [
    ("create", "", "pods", "exec"),
    ("create", "", "pods", "eviction"),
    ("patch", "", "pods", "resize"),
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;

    use serde_json::Value;

    use super::*;

    /// What the ClusterRoles of this name grant: verb, group, resource with subresource.
    fn granted(roles: &[&str]) -> BTreeSet<(String, String, String)> {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("manifests/base/controller-rights.yaml");
        let objects: Vec<Value> = serde_saphyr::from_multiple(&std::fs::read_to_string(path).unwrap()).unwrap();
        let is_meant = |o: &&Value| o["kind"] == "ClusterRole" && roles.iter().any(|role| o["metadata"]["name"] == *role);
        let rules = objects.iter().filter(is_meant).flat_map(|role| role["rules"].as_array().unwrap());
        let words = |rule: &Value, of: &str| -> Vec<String> {
            rule[of].as_array().unwrap().iter().map(|word| word.as_str().unwrap().to_owned()).collect()
        };
        let all = rules.flat_map(|rule| {
            let (groups, resources) = (words(rule, "apiGroups"), words(rule, "resources"));
            let each = |verb: String| {
                let of = |group: &String| resources.iter().map(|r| (verb.clone(), group.clone(), r.clone())).collect::<Vec<_>>();
                groups.iter().flat_map(of).collect::<Vec<_>>()
            };
            words(rule, "verbs").into_iter().flat_map(each).collect::<Vec<_>>()
        });
        all.collect()
    }

    #[test]
    fn what_the_controller_is_asked_about_is_granted_and_of_every_resource_that_it_writes_it_is_asked() {
        let whole = |(verb, group, resource, subresource): Right| {
            let resource = if subresource.is_empty() { resource.to_owned() } else { format!("{resource}/{subresource}") };
            (verb.to_owned(), group.to_owned(), resource)
        };
        let asked: BTreeSet<_> = CONTROLLER.into_iter().map(whole).collect();
        let all = granted(&["guardian-namespace", "guardian-controller"]);
        assert_eq!(asked.difference(&all).collect::<Vec<_>>(), Vec::<&(String, String, String)>::new());
        let resources = |rights: &BTreeSet<(String, String, String)>| -> BTreeSet<(String, String)> {
            rights.iter().map(|(_, group, resource)| (group.clone(), resource.clone())).collect()
        };
        assert!(resources(&granted(&["guardian-namespace"])).is_subset(&resources(&asked)));
    }
}
