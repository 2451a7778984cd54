//! What is installed: Deployments, and the endpoints of the webhook's Service.

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::Api;
use kube::api::ListParams;

use super::super::cluster::{Cluster, call};
use super::Check;

/// Our Deployments, and what does not happen without each.
const PARTS: [(&str, &str); 3] = [
    (CERTS, "certificates are not renewed"),
    ("guardian-webhook", "sets go through unguarded, and policies are refused"),
    ("guardian-controller", "no hook runs"),
];
/// The one of them that is not there where cert-manager makes the certificates: two would write the caBundle.
const CERTS: &str = "guardian-certs";
const SERVICE: &str = "guardian-webhook";

/// `injected`: cert-manager writes the caBundle; `None`: that is not known.
pub(super) async fn check(cluster: &Cluster, installation: &str, injected: Option<bool>) -> Vec<Check> {
    let deployments: Api<Deployment> = Api::namespaced(cluster.client.clone(), installation);
    let mut checks = Vec::new();
    for (name, without) in PARTS {
        let subject = format!("{installation}/{name}");
        checks.push(match call(format!("read the Deployment {subject}"), deployments.get_opt(name)).await {
            Ok(None) if name == CERTS && injected != Some(false) => without_certs(injected, subject),
            Ok(deployment) => part(deployment.as_ref(), &subject, (installation, name), without),
            Err(error) => Check::unread("deployment", subject, &error),
        });
    }
    let slices: Api<EndpointSlice> = Api::namespaced(cluster.client.clone(), installation);
    let of_service = ListParams::default().labels(&format!("kubernetes.io/service-name={SERVICE}"));
    let subject = format!("{installation}/{SERVICE}");
    checks.push(match call(format!("list the EndpointSlices of {installation}"), slices.list(&of_service)).await {
        Ok(slices) => endpoints(&slices.items, subject),
        Err(error) => Check::unread("endpoints", subject, &error),
    });
    checks
}

/// There is no Deployment that makes certificates.
fn without_certs(injected: Option<bool>, subject: String) -> Check {
    let (message, remedy) = match injected {
        Some(_) => (
            "there is none, and cert-manager is to write the caBundle",
            "whether it renews the certificate, cert-manager knows: kubectl get certificates -A",
        ),
        None => (
            "there is none, and whether cert-manager is to write the caBundle cannot be read",
            "ask somebody who may read the ValidatingWebhookConfiguration",
        ),
    };
    Check::skipped("deployment", subject, message, remedy)
}

fn part(deployment: Option<&Deployment>, subject: &str, (installation, name): (&str, &str), without: &str) -> Check {
    let Some(deployment) = deployment else {
        let remedy = "install it: kubectl apply -k manifests/base, or name the namespace of the installation with --installation";
        return Check::failed("deployment", subject, format!("there is none: {without}"), remedy);
    };
    let wanted = deployment.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1);
    let available = deployment.status.as_ref().and_then(|status| status.available_replicas).unwrap_or(0);
    let message = format!("{available} of {wanted} replicas are available");
    match available {
        0 => Check::failed(
            "deployment",
            subject,
            format!("{message}: {without}"),
            format!(
                "see why: kubectl -n {installation} describe deployment {name}; kubectl -n {installation} logs deployment/{name}"
            ),
        ),
        _ => Check::ok("deployment", subject, message),
    }
}

fn endpoints(slices: &[EndpointSlice], subject: String) -> Check {
    let all = slices.iter().flat_map(|slice| &slice.endpoints);
    // No condition counts as ready (`discovery.k8s.io/v1`).
    let ready = all.filter(|endpoint| endpoint.conditions.as_ref().and_then(|c| c.ready).unwrap_or(true)).count();
    if ready > 0 {
        return Check::ok("endpoints", subject, format!("{ready} ready"));
    }
    let remedy =
        "a replica is ready once it has listed all policies and its certificate verifies: see /readyz of the webhook, or its log";
    Check::failed("endpoints", subject, "the Service has no ready endpoint, so nobody answers the API server", remedy)
}
