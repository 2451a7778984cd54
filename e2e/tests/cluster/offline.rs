//! The command line and the webhook share their code; here is seen that they share their results.

use guardian_core::names;
use guardian_e2e::{Failure, Kubectl, Namespace, Outcome, eventually, example, guardian, installation, namespace};
use serde_json::Value;

/// An API server completes what it is given. What `inject` printed is therefore completed too, in a namespace that the webhook leaves alone.
#[tokio::test]
async fn guardian_inject_writes_what_the_webhook_writes() -> Outcome {
    let set = example("statefulset.yaml").display().to_string();
    let policy = example("policy.yaml").display().to_string();
    let mut live = Value::Null;
    namespace::enabled("inject-live", async |ns| {
        ns.priority_class().await?;
        ns.kubectl.apply(&example("policy.yaml")).await?;
        live = template(ns, &["-f", &set], "").await?;
        Ok(())
    })
    .await?;
    let image = live["spec"]["initContainers"][0]["image"].as_str().unwrap_or_default().to_owned();
    namespace::not_enabled("inject-offline", async |ns| {
        let printed = guardian(&["inject", "-f", &set, "--policy", &policy, "--image", &image]).await?.ok()?;
        let mut offline = template(ns, &["-f", "-"], &printed.stdout).await?;
        assert_eq!(take_record(&mut offline)?, take_record(&mut live)?);
        assert_eq!(offline, live);
        Ok(())
    })
    .await
}

#[tokio::test]
async fn every_decision_leaves_an_audit_line() -> Outcome {
    namespace::enabled("audited", async |ns| {
        ns.priority_class().await?;
        ns.kubectl.apply(&example("policy.yaml")).await?;
        ns.kubectl.run(&["apply", "--dry-run=server", "-f", &example("statefulset.yaml").display().to_string()]).await?.ok()?;
        // A log line is written after the answer, by another thread, and kept by the node: there is nothing to watch.
        let line = eventually("the audit line of the dry run", async || {
            let installed = Kubectl { namespace: installation() };
            let arguments = ["logs", "--selector=app.kubernetes.io/name=guardian-webhook", "--tail=-1"];
            let log = installed.run(&arguments).await?.ok()?.stdout;
            let mut lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
            let mine = lines.find(|line| line["namespace"] == ns.name.as_str() && line["name"] == "redis-sts");
            mine.ok_or_else(|| Failure::Unexpected("no line yet".to_owned()))
        })
        .await?;
        assert_eq!(line["log"], "audit");
        assert_eq!(line["operation"], "CREATE");
        assert_eq!(line["dryRun"], true);
        assert_eq!((&line["decision"], &line["reason"]), (&Value::from("patched"), &Value::from("Injected")));
        assert_eq!(line["policy"], "redis-policy");
        assert!(line["changes"].as_array().is_some_and(|c| c.iter().any(|c| c == "guardian-init")), "{line}");
        assert!(!line.to_string().contains("redis-cli"), "no script's text");
        Ok(())
    })
    .await
}

async fn template(ns: &Namespace, from: &[&str], input: &str) -> Outcome<Value> {
    let all = [&["apply", "--dry-run=server", "-o", "json"], from].concat();
    let printed = ns.kubectl.with_input(&all, input).await?.json()?;
    let items = printed["items"].as_array().cloned().unwrap_or_default();
    let set = items.into_iter().find(|item| item["kind"] == "StatefulSet").unwrap_or_default();
    Ok(set["spec"]["template"].clone())
}

/// The record tells what stood in a field before, and holds the digest of what was copied from a container: in a manifest there is nothing
/// where an API server passes on its default.
fn take_record(template: &mut Value) -> Outcome<Value> {
    let text = template["metadata"]["annotations"][names::INJECTED].take();
    let mut record: Value = serde_json::from_str(text.as_str().unwrap_or_default())?;
    record["scalars"]["spec/terminationGracePeriodSeconds"]["was"].take();
    record["parts"]["guardian-init-hook"].take();
    Ok(record)
}
