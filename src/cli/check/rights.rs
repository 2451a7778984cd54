//! Who may do what: the caller, and the ServiceAccounts of the guardian.

use guardian_core::names;
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
const CONTROLLER: [Right; 17] = [
    ("get", "", "pods", "exec"),
    ("create", "", "pods", "exec"),
    ("create", "", "pods", "eviction"),
    ("patch", "", "pods", "resize"),
    ("patch", "", "pods", ""),
    ("delete", "", "pods", ""),
    ("patch", "", "services", ""),
    ("patch", "", "persistentvolumeclaims", ""),
    ("create", "", "configmaps", ""),
    ("update", "", "configmaps", ""),
    ("delete", "", "configmaps", ""),
    ("create", "policy", "poddisruptionbudgets", ""),
    ("patch", "policy", "poddisruptionbudgets", ""),
    ("delete", "policy", "poddisruptionbudgets", ""),
    ("create", "events.k8s.io", "events", ""),
    ("patch", "events.k8s.io", "events", ""),
    ("list", "", "events", ""),
];
/// What the controller must be allowed to do in the whole cluster.
const CONTROLLER_EVERYWHERE: [Right; 20] = [
    ("list", "", "namespaces", ""),
    ("watch", "", "namespaces", ""),
    ("list", "", "nodes", ""),
    ("watch", "", "nodes", ""),
    ("list", "", "pods", ""),
    ("watch", "", "pods", ""),
    ("list", "", "persistentvolumeclaims", ""),
    ("watch", "", "persistentvolumeclaims", ""),
    ("get", "", "configmaps", ""),
    ("list", "", "configmaps", ""),
    ("watch", "", "configmaps", ""),
    ("list", "", "services", ""),
    ("watch", "", "services", ""),
    ("list", "", "events", ""),
    ("get", "apps", "statefulsets", ""),
    ("list", "apps", "statefulsets", ""),
    ("watch", "apps", "statefulsets", ""),
    ("list", "policy", "poddisruptionbudgets", ""),
    ("watch", "policy", "poddisruptionbudgets", ""),
    ("list", "discovery.k8s.io", "endpointslices", ""),
];
/// What the controller must be allowed to do with Leases in its own namespace.
const CONTROLLER_AT_HOME: [Right; 6] = [
    ("get", LEASES.0, LEASES.1, ""),
    ("list", LEASES.0, LEASES.1, ""),
    ("watch", LEASES.0, LEASES.1, ""),
    ("create", LEASES.0, LEASES.1, ""),
    ("update", LEASES.0, LEASES.1, ""),
    ("delete", LEASES.0, LEASES.1, ""),
];
/// What the webhook must be allowed to do in the whole cluster.
const WEBHOOK: [Right; 8] = [
    ("list", "", "configmaps", ""),
    ("watch", "", "configmaps", ""),
    ("list", "scheduling.k8s.io", "priorityclasses", ""),
    ("watch", "scheduling.k8s.io", "priorityclasses", ""),
    ("get", "apps", "statefulsets", ""),
    ("get", "", "namespaces", ""),
    ("get", "", "pods", ""),
    ("create", "authorization.k8s.io", "subjectaccessreviews", ""),
];
/// What the webhook must be allowed to do with Leases in its own namespace.
const WEBHOOK_AT_HOME: [Right; 4] = [
    ("get", LEASES.0, LEASES.1, ""),
    ("list", LEASES.0, LEASES.1, ""),
    ("create", LEASES.0, LEASES.1, ""),
    ("delete", LEASES.0, LEASES.1, ""),
];
/// What the webhook must be allowed to do with the approvals, which are one ConfigMap of its own namespace.
const APPROVALS: [Right; 4] = [
    ("get", "", "configmaps", ""),
    ("list", "", "configmaps", ""),
    ("watch", "", "configmaps", ""),
    ("update", "", "configmaps", ""),
];
const LEASES: (&str, &str) = ("coordination.k8s.io", "leases");

/// Rights in one place.
struct Rights<'a> {
    /// The namespace; `None`: the whole cluster.
    namespace: Option<&'a str>,
    /// The one object, where they are narrowed to it.
    name: Option<&'a str>,
    all: &'a [Right],
}

pub(super) async fn check(cluster: &Cluster, installation: &str, places: &[Place]) -> Vec<Check> {
    let mut checks = own(cluster, installation).await;
    let everywhere = |all| Rights { namespace: None, name: None, all };
    let at_home = |name, all| Rights { namespace: Some(installation), name, all };
    let webhook = [everywhere(&WEBHOOK), at_home(None, &WEBHOOK_AT_HOME), at_home(Some(names::APPROVALS), &APPROVALS)];
    checks.push(service_account(cluster, installation, "guardian-webhook", None, &webhook).await);
    let controller = [everywhere(&CONTROLLER_EVERYWHERE), at_home(None, &CONTROLLER_AT_HOME)];
    checks.push(service_account(cluster, installation, "guardian-controller", None, &controller).await);
    let mut progress = Progress::start();
    for place in places.iter().filter(|place| place.enabled) {
        progress.say(&format!("asking for rights in namespace {}", place.name));
        let there = [Rights { namespace: Some(&place.name), name: None, all: &CONTROLLER }];
        checks.push(service_account(cluster, installation, "guardian-controller", Some(&place.name), &there).await);
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

async fn service_account(
    cluster: &Cluster,
    installation: &str,
    name: &str,
    namespace: Option<&str>,
    rights: &[Rights<'_>],
) -> Check {
    let subject = namespace.map_or_else(|| name.to_owned(), |namespace| format!("{name} in {namespace}"));
    let user = format!("system:serviceaccount:{installation}:{name}");
    let all = rights.iter().flat_map(|of| of.all.iter().map(move |right| (*right, of)));
    for (right, of) in all {
        let attributes = ResourceAttributes { name: of.name.map(str::to_owned), ..attributes(right, of.namespace) };
        match may_other(cluster, &user, attributes).await {
            Ok(true) => {}
            Ok(false) => {
                let remedy = namespace.map_or_else(
                    || "install it again: kubectl apply -k manifests/base, or your overlay".to_owned(),
                    |namespace| format!("run: guardian enable {namespace}"),
                );
                return Check::failed("rights", subject, format!("{user} may not {}", shown_in(right, of)), remedy);
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

fn shown_in(right: Right, Rights { namespace, name, .. }: &Rights<'_>) -> String {
    let of = name.map(|name| format!(" {name}")).unwrap_or_default();
    let there = namespace.map(|namespace| format!(" in {namespace}")).unwrap_or_default();
    format!("{}{of}{there}", shown(right))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;

    use serde_json::Value;

    use super::*;

    /// Verb, group, resource with subresource.
    type Granted = BTreeSet<(String, String, String)>;

    /// What the role of this kind and name grants; of one narrowed to objects of a name alone, or of all else.
    fn granted(file: &str, kind: &str, role: &str, named: bool) -> Granted {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("manifests/base").join(file);
        let objects: Vec<Value> = serde_saphyr::from_multiple(&std::fs::read_to_string(path).unwrap()).unwrap();
        let is_meant = |o: &&Value| o["kind"] == kind && o["metadata"]["name"] == role;
        let rules = objects.iter().filter(is_meant).flat_map(|role| role["rules"].as_array().unwrap());
        let rules = rules.filter(|rule| rule["resourceNames"].is_array() == named);
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

    fn asked(rights: &[Right]) -> Granted {
        let whole = |(verb, group, resource, subresource): &Right| {
            let resource = if subresource.is_empty() { (*resource).to_owned() } else { format!("{resource}/{subresource}") };
            ((*verb).to_owned(), (*group).to_owned(), resource)
        };
        rights.iter().map(whole).collect()
    }

    #[test]
    fn of_all_that_is_granted_it_is_asked_and_of_nothing_else() {
        let (controller, webhook) = ("controller-rights.yaml", "webhook.yaml");
        let everywhere = granted(controller, "ClusterRole", "guardian-controller", false);
        // One rule for many resources, of which not every one is read by its name.
        let is_get = |right: &&(String, String, String)| right.0 == "get";
        let rows = [
            (asked(&CONTROLLER), granted(controller, "ClusterRole", "guardian-namespace", false), &everywhere),
            (asked(&CONTROLLER_EVERYWHERE), everywhere.iter().filter(|right| !is_get(right)).cloned().collect(), &everywhere),
            (asked(&CONTROLLER_AT_HOME), granted(controller, "Role", "guardian-controller", false), &Granted::new()),
            (asked(&WEBHOOK_AT_HOME), granted(webhook, "Role", "guardian-webhook", false), &Granted::new()),
            (asked(&APPROVALS), granted(webhook, "Role", "guardian-webhook", true), &Granted::new()),
        ];
        let missing = |all: &Granted, of: &Granted| all.difference(of).cloned().collect::<Vec<_>>();
        for (asked, granted, also) in rows {
            assert_eq!(missing(&granted, &asked), [], "granted, and not asked about");
            assert_eq!(missing(&missing(&asked, &granted).into_iter().collect(), also), [], "asked about, and not granted");
        }
        let (asked, granted) = (asked(&WEBHOOK), granted(webhook, "ClusterRole", "guardian-webhook", false));
        assert_eq!(missing(&asked, &granted), []);
        assert_eq!(missing(&granted, &asked), [("get".into(), "scheduling.k8s.io".into(), "priorityclasses".into())]);
    }
}
