//! Services send to the pods that serve.

use guardian_core::names;
use guardian_e2e::{Failure, Namespace, Outcome, application, eventually, guardian, installation, namespace, policy};
use serde_json::{Value, json};

use crate::admission::policy_text;

const TRAFFIC: &str = "traffic: {services: [clients], drain: {command: [sh, -c, 'echo drained >> /data/drained']}}";

#[tokio::test]
async fn a_shed_pod_gets_nothing_new_and_the_last_one_is_never_shed() -> Outcome {
    namespace::enabled("traffic", async |ns| {
        let service = json!({
            "apiVersion": "v1", "kind": "Service", "metadata": {"name": "clients"},
            "spec": {"selector": {"app": "web"}, "ports": [{"port": 80}]},
        });
        ns.kubectl
            .apply_objects(&[policy("web", &policy_text("web", TRAFFIC), &[]), service.clone(), application("web", 2)])
            .await?;
        ns.settled("web").await?;
        asks(ns, true).await?;
        sends_to(ns, &["web-0", "web-1"]).await?;

        let shed = guardian(&["shed", "-n", &ns.name, "web-1", "--for", "10m", "--because", "slow disk"]).await?.ok()?;
        assert!(shed.stdout.starts_with("pod web-1 is sent nothing new until "), "{}", shed.stdout);
        sends_to(ns, &["web-0"]).await?;
        eventually("the drain hook has run", async || {
            let drained = ns.kubectl.exec("web-1", &["cat", "/data/drained"]).await?;
            if drained.trim() == "drained" { Ok(()) } else { Err(Failure::Unexpected(drained)) }
        })
        .await?;
        let last = guardian(&["shed", "-n", &ns.name, "web-0", "--for", "10m"]).await?;
        assert_eq!(last.code, Some(1), "{}", last.stdout);
        assert!(last.stderr.contains("the controller has not followed"), "{}", last.stderr);
        ns.until_event("web", "Warning", "no other pod serves").await?;
        sends_to(ns, &["web-0"]).await?;
        ns.kubectl.run(&["annotate", "pod", "web-0", &format!("{}-", names::SHED)]).await?.ok()?;

        // As a tool does that owns the whole selector.
        let mut whole = ns.kubectl.get("service", "clients").await?;
        whole["spec"]["selector"] = json!({"app": "web"});
        let replaced = ns.kubectl.with_input(&["replace", "-f", "-", "-o", "json"], &whole.to_string()).await?.ok()?;
        assert!(replaced.stderr.contains("the selector keeps"), "a warning says so: {}", replaced.stderr);
        assert_eq!(replaced.json()?["spec"]["selector"][names::SERVING], "true", "it was never without");
        sends_to(ns, &["web-0"]).await?;

        guardian(&["shed", "-n", &ns.name, "web-1", "--end"]).await?.ok()?;
        sends_to(ns, &["web-0", "web-1"]).await?;
        let told = guardian(&["history", "-n", &ns.name, "web"]).await?.ok()?.stdout;
        for words in ["slow disk", "serves again", "drain"] {
            assert!(told.contains(words), "`{words}` in\n{told}");
        }

        guardian(&["disable", &ns.name, "--installation", &installation()]).await?.ok()?;
        asks(ns, false).await?;
        sends_to(ns, &["web-0", "web-1"]).await
    })
    .await
}

async fn asks(ns: &Namespace, wanted: bool) -> Outcome {
    eventually(&format!("the selector asks for the label: {wanted}"), async || {
        let service = ns.kubectl.get("service", "clients").await?;
        let asks = service["spec"]["selector"][names::SERVING] == "true";
        if asks == wanted { Ok(()) } else { Err(Failure::Unexpected(service["spec"]["selector"].to_string())) }
    })
    .await
}

/// The endpoints of the Service are these pods, in order of their names.
async fn sends_to(ns: &Namespace, pods: &[&str]) -> Outcome {
    eventually(&format!("the Service sends to {pods:?}"), async || {
        let of_service = ["get", "endpointslices", "-l", "kubernetes.io/service-name=clients", "-o", "json"];
        let slices = ns.kubectl.run(&of_service).await?.ok()?.json()?;
        let endpoints = slices["items"]
            .as_array()
            .into_iter()
            .flatten()
            .flat_map(|slice| slice["endpoints"].as_array().into_iter().flatten());
        let is_ready = |endpoint: &&Value| endpoint["conditions"]["ready"] == true;
        let mut names: Vec<&str> =
            endpoints.filter(is_ready).filter_map(|endpoint| endpoint["targetRef"]["name"].as_str()).collect();
        names.sort_unstable();
        if names == pods { Ok(()) } else { Err(Failure::Unexpected(format!("{names:?}"))) }
    })
    .await
}
