//! Who may write policies, and what becomes of one that nobody has stood up for.

use guardian_core::names;
use guardian_e2e::{
    Done, Failure, Kubectl, Namespace, Outcome, application, eventually, guardian, installation, is_guarded, namespace, policy,
};
use serde_json::{Value, json};

use crate::admission::policy_text;

#[tokio::test]
async fn only_whoever_may_exec_in_the_namespace_writes_its_policies() -> Outcome {
    namespace::enabled("author", async |ns| {
        let writes = json!([{"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get", "create", "patch", "update"]}]);
        grant(ns, "writes", &writes).await?;
        may(ns, "create", "configmaps").await?;
        let denied = apply_as_deployer(ns, "one").await?;
        assert_eq!(denied.code, Some(1), "{}", denied.stdout);
        let missing = format!("the right to create pods/exec in namespace {}", ns.name);
        assert!(denied.stderr.contains(&missing), "which right is missing, and where: {}", denied.stderr);
        assert!(denied.stderr.contains(&deployer(ns)), "whose: {}", denied.stderr);

        let execs = json!([{"apiGroups": [""], "resources": ["pods/exec"], "verbs": ["create"]}]);
        grant(ns, "execs", &execs).await?;
        may(ns, "create", "pods/exec").await?;
        apply_as_deployer(ns, "one").await?.ok()?;
        let approvals = Kubectl { namespace: installation() }.get("configmap", names::APPROVALS).await?;
        let of_namespace =
            approvals["data"].as_object().into_iter().flatten().filter(|(key, _)| key.starts_with(&format!("{}.", ns.name)));
        let [(_, approval)] = of_namespace.collect::<Vec<_>>().try_into().expect("exactly one approval");
        assert!(approval.as_str().unwrap_or_default().contains(&deployer(ns)), "and who: {approval}");

        ns.kubectl.run(&["delete", "rolebinding", "execs"]).await?.ok()?;
        eventually("the right is gone", async || match can(ns, "create", "pods/exec").await?.as_str() {
            "no" => Ok(()),
            other => Err(Failure::Unexpected(other.to_owned())),
        })
        .await?;
        let user = format!("--as={}", deployer(ns));
        ns.kubectl.run(&["label", "configmap", "app", "team=shop", &user]).await?.ok()?;
        for change in [
            vec!["annotate", "configmap", "app", "stateful-guardian.io/approve=me", &user],
            vec!["label", "configmap", "app", "stateful-guardian.io/policy-", &user],
        ] {
            let denied = ns.kubectl.run(&change).await?;
            assert!(denied.code == Some(1) && denied.stderr.contains(&missing), "{}: {}", denied.command, denied.stderr);
        }
        let denied = apply_as_deployer(ns, "two").await?;
        assert!(denied.code == Some(1) && denied.stderr.contains(&missing), "an edit: {}", denied.stderr);
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_policy_that_came_before_its_namespace_was_enabled_guards_nothing_until_it_is_approved() -> Outcome {
    namespace::not_enabled("waiting", async |ns| {
        ns.kubectl.apply_objects(&[app_policy("one")]).await?;
        let enabled = guardian(&["enable", &ns.name, "--installation", &installation()]).await?.ok()?;
        for words in ["hooks.preStop: [\"echo\", \"one\"]", &format!("guardian approve -n {} app", ns.name)] {
            assert!(enabled.stdout.contains(words), "{words}: {}", enabled.stdout);
        }
        let applied = ns.kubectl.apply_objects(&[application("app", 0)]).await?;
        assert!(applied.stderr.contains(&format!("guardian approve -n {} app", ns.name)), "{}", applied.stderr);
        assert!(!is_guarded(&ns.kubectl.get("statefulset", "app").await?));

        let approve = async |more: &str| {
            let done =
                guardian(&["approve", "-n", &ns.name, "--installation", &installation(), "-o", "json", more]).await?.json()?;
            Outcome::Ok(done[0]["approved"].clone())
        };
        assert_eq!(approve("--dry-run").await?, true);
        ns.kubectl.run(&["rollout", "restart", "statefulset", "app"]).await?.ok()?;
        assert!(!is_guarded(&ns.kubectl.get("statefulset", "app").await?), "a dry run approves nothing");
        assert_eq!(approve("app").await?, true);
        let touched = json!({"spec": {"template": {"metadata": {"annotations": {"touched": "after approval"}}}}}).to_string();
        ns.kubectl.run(&["patch", "statefulset", "app", "--type=merge", "--patch", &touched]).await?.ok()?;
        assert!(is_guarded(&ns.kubectl.get("statefulset", "app").await?), "whichever replica is asked");
        let again = guardian(&["approve", "-n", &ns.name, "--installation", &installation()]).await?.ok()?;
        assert!(again.stdout.contains("no policy waits for approval"), "{}", again.stdout);
        Ok(())
    })
    .await
}

fn app_policy(word: &str) -> Value {
    policy("app", &policy_text("app", &format!("hooks: {{preStop: {{command: [echo, {word}]}}}}")), &[])
}

fn deployer(ns: &Namespace) -> String {
    format!("system:serviceaccount:{}:deployer", ns.name)
}

async fn apply_as_deployer(ns: &Namespace, word: &str) -> Outcome<Done> {
    let user = format!("--as={}", deployer(ns));
    ns.kubectl.with_input(&["apply", "-f", "-", &user], &app_policy(word).to_string()).await
}

/// Gives rights in the namespace to the ServiceAccount `deployer`, which need not exist.
async fn grant(ns: &Namespace, name: &str, rules: &Value) -> Outcome {
    let rbac = "rbac.authorization.k8s.io";
    let role = json!({"apiVersion": format!("{rbac}/v1"), "kind": "Role", "metadata": {"name": name}, "rules": rules});
    let binding = json!({
        "apiVersion": format!("{rbac}/v1"), "kind": "RoleBinding", "metadata": {"name": name},
        "roleRef": {"apiGroup": rbac, "kind": "Role", "name": name},
        "subjects": [{"kind": "ServiceAccount", "name": "deployer", "namespace": ns.name}],
    });
    ns.kubectl.apply_objects(&[role, binding]).await.map(drop)
}

/// Waits until the API server goes by the rights that were given.
async fn may(ns: &Namespace, verb: &str, resource: &str) -> Outcome {
    eventually(&format!("deployer may {verb} {resource}"), async || match can(ns, verb, resource).await?.as_str() {
        "yes" => Ok(()),
        other => Err(Failure::Unexpected(other.to_owned())),
    })
    .await
}

async fn can(ns: &Namespace, verb: &str, resource: &str) -> Outcome<String> {
    let user = format!("--as={}", deployer(ns));
    // What follows a slash would be taken for the name of an object.
    let (resource, subresource) = resource.split_once('/').unwrap_or((resource, ""));
    let subresource = format!("--subresource={subresource}");
    // The exit code is 1 for a no.
    Ok(ns.kubectl.run(&["auth", "can-i", verb, resource, &subresource, &user]).await?.stdout.trim().to_owned())
}
