//! The commands that ask the cluster.

use guardian_e2e::{Failure, Outcome, application, eventually, guardian, installation, is_guarded, namespace, policy};
use k8s_openapi::api::core::v1::Namespace;
use kube::Api;
use serde_json::{Value, json};

use crate::admission::policy_text;

/// With the installation of this cluster, as JSON.
async fn asked(arguments: &[&str]) -> Outcome<Value> {
    let installation = installation();
    guardian(&[arguments, &["--installation", &installation, "-o", "json"]].concat()).await?.json()
}

fn saving(seconds: u32) -> Value {
    let text = policy_text(
        "app",
        &format!("protect: {{deletion: deny}}\nhooks: {{preStop: {{command: ['true'], timeout: {seconds}s}}}}"),
    );
    policy("app", &text, &[])
}

#[tokio::test]
async fn status_lists_what_is_pending_after_an_edit_of_the_policy_until_the_next_restart() -> Outcome {
    namespace::enabled("status", async |ns| {
        ns.kubectl.apply_objects(&[saving(40), application("app", 0)]).await?;
        let status = async || Ok::<_, Failure>(asked(&["status", "-n", &ns.name]).await?["sets"][0].clone());
        let before = status().await?;
        assert_eq!((&before["name"], &before["state"]), (&json!("app"), &json!("Guarded")), "{before}");

        ns.kubectl.apply_objects(&[saving(50)]).await?;
        let edited = status().await?;
        assert_eq!((&edited["state"], &edited["pending"]), (&json!("Pending"), &json!(true)), "{edited}");
        assert_eq!(edited["recorded"], before["recorded"]);
        let explained = asked(&["explain", "-n", &ns.name, "app"]).await?["sets"][0].clone();
        let changes = explained["changes"].as_array().cloned().unwrap_or_default();
        let grace = changes.iter().find(|c| c["path"].as_str().is_some_and(|p| p.ends_with("terminationGracePeriodSeconds")));
        let grace = grace.ok_or_else(|| Failure::Unexpected(format!("no grace period: {explained}")))?;
        assert_eq!((&grace["before"], &grace["after"]), (&json!(50), &json!(60)));

        ns.until_webhook_writes_another_revision(&application("app", 0), &before["revision"]).await?;
        ns.kubectl.run(&["rollout", "restart", "statefulset", "app"]).await?.ok()?;
        let restarted = status().await?;
        assert_eq!((&restarted["state"], &restarted["pending"]), (&json!("Guarded"), &json!(false)), "{restarted}");
        assert_eq!(restarted["recorded"]["revision"], edited["revision"]);
        Ok(())
    })
    .await
}

#[tokio::test]
async fn audit_finds_a_denial_by_its_user() -> Outcome {
    namespace::enabled("audit", async |ns| {
        ns.kubectl.apply_objects(&[saving(40), application("app", 0)]).await?;
        let user = format!("somebody-of-{}", ns.name);
        let as_user = ["--as", user.as_str(), "--as-group", "system:masters"];
        // A replica may hear of the policy a moment after the other.
        eventually("the deletion is denied", async || {
            let denied = ns.kubectl.run(&[&["delete", "statefulset", "app", "--dry-run=server"], &as_user[..]].concat()).await?;
            if denied.code == Some(1) { Ok(()) } else { Err(Failure::Unexpected("it was allowed".to_owned())) }
        })
        .await?;
        let entries = eventually("the audit line", async || {
            let arguments = ["audit", "-n", &ns.name, "--set", "app", "--user", &user, "--decision", "denied", "--since", "10m"];
            let entries = asked(&arguments).await?["entries"].as_array().cloned().unwrap_or_default();
            if entries.is_empty() { Err(Failure::Unexpected("no line yet".to_owned())) } else { Ok(entries) }
        })
        .await?;
        assert!(entries.iter().all(|e| e["reason"] == "DeletionDenied" && e["user"] == user.as_str()), "{entries:?}");
        let others = asked(&["audit", "-n", &ns.name, "--user", "nobody"]).await?;
        assert_eq!(others["entries"], json!([]));
        Ok(())
    })
    .await
}

#[tokio::test]
async fn check_passes_on_a_sound_installation_and_fails_with_a_reason_where_there_is_none() -> Outcome {
    namespace::enabled("check", async |ns| {
        // An API server asks us about a namespace as soon as its own cache has the label.
        let sound = eventually("everything is in order", async || {
            let done = guardian(&["check", "-n", &ns.name, "--installation", &installation(), "-o", "json"]).await?;
            if done.code == Some(0) { done.json() } else { Err(Failure::Unexpected(done.stdout)) }
        })
        .await?;
        assert_eq!(sound["failed"], 0);
        let none =
            guardian(&["check", "-n", &ns.name, "--installation", "no-such-installation", "--webhooks", "none", "-o", "json"])
                .await?;
        assert_eq!(none.code, Some(1), "{}", none.stdout);
        let none: Value = serde_json::from_str(&none.stdout)?;
        let failed = none["checks"].as_array().cloned().unwrap_or_default();
        let webhooks = failed.iter().find(|c| c["name"] == "webhooks" && c["state"] == "failed");
        let webhooks = webhooks.ok_or_else(|| Failure::Unexpected(format!("no such failure: {none}")))?;
        assert_eq!(webhooks["message"], "there is none, so the API server asks nobody");
        assert!(webhooks["remedy"].as_str().is_some_and(|r| r.contains("kubectl apply")), "{webhooks}");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn eject_takes_everything_out_of_the_templates() -> Outcome {
    namespace::enabled("eject", async |ns| {
        let set = application("app", 1);
        ns.kubectl.apply_objects(&[saving(40), set.clone()]).await?;
        let pod = ns.ready("app-0").await?;
        let before = ns.kubectl.get("statefulset", "app").await?;
        assert!(is_guarded(&before));

        let target = ["--installation", &installation()];
        let asked = guardian(&[&["disable", &ns.name, "--eject"], &target[..]].concat()).await?;
        assert_eq!(asked.code, Some(2), "no terminal to ask on: {}", asked.stderr);
        assert_eq!(ns.kubectl.get("statefulset", "app").await?["metadata"]["generation"], before["metadata"]["generation"]);

        guardian(&[&["disable", &ns.name, "--eject", "--yes"], &target[..]].concat()).await?.ok()?;
        let ejected = ns.kubectl.get("statefulset", "app").await?;
        let text = ejected["spec"].to_string();
        assert!(!text.contains("guardian"), "all of it is gone: {text}");
        assert_eq!(ejected["spec"]["template"]["spec"]["terminationGracePeriodSeconds"], 30, "as the API server defaulted it");
        let labels = Api::<Namespace>::all(ns.client.clone()).get(&ns.name).await?.metadata.labels.unwrap_or_default();
        assert!(!labels.contains_key(guardian_core::names::ENABLED));
        ns.replaced(&pod).await?;
        Ok(())
    })
    .await
}
