//! Client certificates: only API servers that present the right one are served.
//!
//! Where API servers present none to webhooks, as in most managed clusters, there is nothing to see: `e2e/run.sh` leaves these out on a
//! cluster that is not ours. Ours present one that the cluster's CA has signed, of the name below.

use guardian_e2e::{Failure, Kubectl, Namespace, Outcome, application, eventually, installation, is_guarded, namespace, policy};
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt as _;
use serde_json::{Value, json};

use crate::{ALONE, expect, guardian_pods, policy_text, webhook_is_back};

/// The common name of the certificate.
const NAME: &str = "kube-apiserver-webhook-client";
/// The ConfigMap with the cluster's CA that every namespace has.
const CA: &str = "kube-root-ca.crt";

#[tokio::test]
async fn alone_client_certificates_decide_who_is_served() -> Outcome {
    let _alone = ALONE.lock().await;
    namespace::enabled_within("clients", std::time::Duration::from_secs(200), async |ns| {
        ns.kubectl.apply_objects(&[policy("app", &policy_text("hooks: {preStop: {command: ['true']}}"), &[])]).await?;
        let before = template().await?;
        let seen = served_by_name(ns, &before).await;
        put_back(&before).await?;
        webhook_is_back(ns).await?;
        seen
    })
    .await
}

async fn served_by_name(ns: &Namespace, before: &Value) -> Outcome {
    check_clients(before, NAME).await?;
    webhook_is_back(ns).await?;
    // The proxy of the API server presents no certificate: the handshake of whoever has none ends there.
    let path = format!("/api/v1/namespaces/{}/services/https:guardian-webhook:443/proxy/mutate", installation());
    let stranger = Kubectl { namespace: installation() }.run(&["get", "--raw", &path]).await?;
    let ended = stranger.stderr.contains("certificate") || stranger.stderr.contains("EOF");
    expect(stranger.code == Some(1) && ended, &format!("without a certificate: {stranger:?}"))?;
    eventually("the refused connection is counted", async || {
        let refused = refused(ns).await?;
        expect(refused > 0.0, "none yet")
    })
    .await?;

    check_clients(before, "somebody-else").await?;
    // A webhook that is going serves the connections that it has for some seconds more.
    eventually("nobody is served under another name", async || {
        expect(!is_guarded(&ns.rehearsed(&application("app", 0)).await?), "served under another name")
    })
    .await
}

/// Over all webhooks, `guardian_http_connections_closed_total{reason="client"}`.
async fn refused(ns: &Namespace) -> Outcome<f64> {
    let mut sum = 0.0;
    for pod in guardian_pods(ns, "webhook").await? {
        sum += refused_by(&pod).await?;
    }
    Ok(sum)
}

async fn refused_by(pod: &Pod) -> Outcome<f64> {
    let path = format!("/api/v1/namespaces/{}/pods/{}:8080/proxy/metrics", installation(), pod.name_any());
    let metrics = Kubectl { namespace: installation() }.run(&["get", "--raw", &path]).await?.ok()?.stdout;
    let mut lines = metrics.lines().filter(|line| line.starts_with("guardian_http_connections_closed_total"));
    let line = lines.find(|line| line.contains("reason=\"client\"")).and_then(|line| line.rsplit(' ').next());
    Ok(line.and_then(|value| value.parse().ok()).unwrap_or_default())
}

async fn template() -> Outcome<Value> {
    Ok(Kubectl { namespace: installation() }.get("deployment", "guardian-webhook").await?["spec"]["template"]["spec"].take())
}

/// Has the webhooks serve only clients with a certificate of the cluster's CA and of this name.
async fn check_clients(before: &Value, name: &str) -> Outcome {
    let mut spec = before.clone();
    let missing = || Failure::Unexpected("the Deployment is not as it was installed".to_owned());
    let volume = json!({"name": "clients", "configMap": {"name": CA}});
    spec["volumes"].as_array_mut().ok_or_else(missing)?.push(volume);
    let container = &mut spec["containers"][0];
    let mount = json!({"name": "clients", "mountPath": "/clients", "readOnly": true});
    container["volumeMounts"].as_array_mut().ok_or_else(missing)?.push(mount);
    container["args"] = json!(["webhook", "--client-ca", "/clients/ca.crt", "--client-name", name]);
    put_back(&spec).await
}

/// Until the webhooks run with this; those before them may be going still.
async fn put_back(spec: &Value) -> Outcome {
    let guardian = Kubectl { namespace: installation() };
    let patch = json!([{"op": "replace", "path": "/spec/template/spec", "value": spec}]).to_string();
    guardian.run(&["patch", "deployment", "guardian-webhook", "--type=json", "--patch", &patch]).await?.ok()?;
    guardian.run(&["rollout", "status", "deployment", "guardian-webhook", "--timeout=55s"]).await?.ok().map(drop)
}
