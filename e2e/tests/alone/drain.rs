//! A node is drained that holds the primary of a real Redis. It is cordoned meanwhile, which pods of other tests would wait for.

use guardian_core::ledger::Verdict;
use guardian_core::names;
use guardian_e2e::ledger::attempts;
use guardian_e2e::{
    Failure, Namespace, Outcome, container_id, eventually, example, guardian, installation, manifest, namespace, node, until,
};
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt as _;

use crate::ALONE;

const SET: &str = "redis-sts";
const FIRST: &str = "redis-sts-0";
const SECOND: &str = "redis-sts-1";

/// One pod on a node, so that a drain takes one of them.
const APART: &str = "    spec:
      affinity:
        podAntiAffinity:
          requiredDuringSchedulingIgnoredDuringExecution:
          - topologyKey: kubernetes.io/hostname
            labelSelector: {matchLabels: {app: redis}}
      containers:";

#[tokio::test]
async fn alone_a_drained_primary_hands_its_role_over_and_comes_back_as_a_replica() -> Outcome {
    let _alone = ALONE.lock().await;
    namespace::enabled("redis-drain", async |ns| {
        ns.kubectl.apply(&example("../redis-failover/policy.yaml")).await?;
        let apart = manifest("statefulset.yaml")?.replacen("    spec:\n      containers:", APART, 1);
        assert!(apart.contains("podAntiAffinity"));
        ns.kubectl.with_input(&["apply", "-f", "-"], &apart).await?.ok()?;
        labelled(ns, FIRST, "primary").await?;
        labelled(ns, SECOND, "replica").await?;
        linked(ns, SECOND, FIRST).await?;
        assert_eq!(redis(ns, FIRST, &["set", "greeting", "hello"]).await?, "OK");

        let budget = ns.kubectl.get("poddisruptionbudget", "guardian-redis-sts").await?;
        assert_eq!(budget["spec"]["maxUnavailable"], 1, "{budget}");
        let drained = node(&ns.api::<Pod>().get(FIRST).await?);
        let moved = drain(ns, &drained).await;
        ns.kubectl.run(&["uncordon", &drained]).await?.ok()?;
        moved?;

        labelled(ns, SECOND, "primary").await?;
        let back = ns.ready(FIRST).await?;
        let ledger = ns.until_answered(SET, FIRST, &container_id(&back), Verdict::Succeeded).await?;
        let moves = attempts(&ledger, "switchover", FIRST);
        let moves: Vec<(&str, Verdict)> = moves.iter().map(|run| (run.reason.as_str(), run.verdict)).collect();
        assert_eq!(moves, [("Drained", Verdict::Succeeded)]);
        labelled(ns, FIRST, "replica").await?;
        assert_eq!(redis(ns, SECOND, &["set", "after", "the drain"]).await?, "OK");
        linked(ns, FIRST, SECOND).await?;
        for (key, value) in [("greeting", "hello"), ("after", "the drain")] {
            assert_eq!(redis(ns, FIRST, &["get", key]).await?, value);
        }
        let told = guardian(&["history", "-n", &ns.name, SET]).await?.ok()?;
        assert!(told.stdout.contains("switchover"), "{}", told.stdout);

        guardian(&["disable", &ns.name, "--installation", &installation()]).await?.ok()?;
        let left = ns.kubectl.run(&["get", "poddisruptionbudgets", "-o", "name"]).await?.ok()?;
        assert_eq!(left.stdout, "", "nothing of ours is left that would act without us");
        Ok(())
    })
    .await
}

/// As the owner of a machine drains it, but of this pod alone: what else is on the node is not ours.
async fn drain(ns: &Namespace, node: &str) -> Outcome {
    let primary = ns.api::<Pod>().get(FIRST).await?;
    // kubectl's client follows the `Retry-After` of a refusal ten times before it says a word: the role has moved by then.
    ns.kubectl
        .run(&[
            "drain",
            node,
            "--pod-selector=app=redis,statefulset.kubernetes.io/pod-name=redis-sts-0",
            "--delete-emptydir-data",
            "--ignore-daemonsets",
            "--timeout=90s",
        ])
        .await?
        .ok()?;
    until(&ns.api::<Pod>(), SECOND, "it has the role before the other pod is gone", |pod| {
        if pod.labels().get(names::ROLE).is_some_and(|role| role == "primary") {
            Ok(())
        } else {
            Err(format!("{:?}", pod.labels()))
        }
    })
    .await?;
    let now = ns.api::<Pod>().get_opt(FIRST).await?;
    assert!(now.is_none_or(|now| now.uid() != primary.uid()), "{FIRST} was evicted");
    Ok(())
}

async fn labelled(ns: &Namespace, pod: &str, role: &str) -> Outcome {
    let pods = ns.api::<Pod>();
    until(&pods, pod, &format!("it is labelled {role}"), |pod| {
        let label = pod.labels().get(names::ROLE);
        if label.is_some_and(|label| label == role) { Ok(()) } else { Err(format!("{label:?}")) }
    })
    .await
    .map(drop)
}

async fn linked(ns: &Namespace, replica: &str, primary: &str) -> Outcome {
    eventually(&format!("{replica} replicates {primary}"), async || {
        let info = redis(ns, replica, &["info", "replication"]).await?;
        let words = ["role:slave".to_owned(), format!("master_host:{primary}."), "master_link_status:up".to_owned()];
        match words.iter().find(|words| !info.contains(words.as_str())) {
            None => Ok(()),
            Some(words) => Err(Failure::Unexpected(format!("no `{words}` in: {info}"))),
        }
    })
    .await
}

async fn redis(ns: &Namespace, pod: &str, arguments: &[&str]) -> Outcome<String> {
    let command: Vec<&str> = ["redis-cli"].into_iter().chain(arguments.iter().copied()).collect();
    Ok(ns.kubectl.exec(pod, &command).await?.trim().to_owned())
}
