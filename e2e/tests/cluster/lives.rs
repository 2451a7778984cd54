//! A real Redis becomes a cluster by its policy, goes through what happens to clusters, and is never made twice.

use guardian_core::ledger::{Ledger, Verdict};
use guardian_core::names;
use guardian_e2e::ledger::attempts;
use guardian_e2e::{
    Failure, Namespace, Outcome, container_id, eventually, example, guardian, installation, is_ready, manifest, namespace,
    policy, restarts, until, until_gone,
};
use k8s_openapi::api::core::v1::Pod;

use crate::admission::policy_text;

const SET: &str = "redis-sts";
const FIRST: &str = "redis-sts-0";
const SECOND: &str = "redis-sts-1";

/// The first pod is the master; every other pod is told so when it joins, and again when it comes back.
const HOOKS: &str = "hooks: {bootstrap: {script: make.sh}, join: {script: follow.sh, retries: 2}, rejoin: {script: follow.sh, retries: 3, backoff: 1s}, \
                     preStop: {command: [redis-cli, shutdown, save]}, postMortem: {script: examine.sh, target: any}}";
const MAKE: &str = "#!/bin/sh\nset -eu\nredis-cli incr made\n";
const FOLLOW: &str = r#"#!/bin/sh
set -eu
until redis-cli ping | grep -q PONG; do sleep 0.2; done
if [ "$GUARDIAN_ORDINAL" = 0 ]; then redis-cli replicaof no one; else redis-cli replicaof "$GUARDIAN_SET-0.$GUARDIAN_SERVICE" 6379; fi
"#;
const EXAMINE: &str = "#!/bin/sh\nset -eu\necho \"$GUARDIAN_ABOUT $GUARDIAN_REASON seen by $GUARDIAN_POD\" >> /data/examined\n";

#[tokio::test]
async fn a_redis_is_made_once_joined_and_recognised_on_its_old_volumes() -> Outcome {
    namespace::enabled("redis-life", async |ns| {
        apply(ns).await?;
        let ledger = made(ns).await?;
        assert_eq!(runs(&ledger, "bootstrap"), [FIRST]);
        assert_eq!(runs(&ledger, "join"), [SECOND]);
        replicates(ns).await?;
        assert_eq!(redis(ns, FIRST, &["set", "greeting", "hello"]).await?, "OK");
        for claim in ["data-redis-sts-0", "data-redis-sts-1"] {
            eventually(&format!("{claim} is marked"), async || {
                let stored = ns.kubectl.get("persistentvolumeclaim", claim).await?;
                expect(&stored["metadata"]["annotations"][names::MEMBER].to_string(), SET)
            })
            .await?;
        }

        // As a Helm release that is installed anew: the set goes with its pods, its claims stay.
        ns.kubectl.run(&["delete", "statefulset", SET, "--wait=true"]).await?.ok()?;
        for pod in [SECOND, FIRST] {
            until_gone(&ns.api::<Pod>(), pod).await?;
        }
        ns.kubectl.apply(&example("statefulset.yaml")).await?;
        for pod in [FIRST, SECOND] {
            let ready = ns.ready(pod).await?;
            ns.until_answered(SET, pod, &container_id(&ready), Verdict::Succeeded).await?;
        }
        replicates(ns).await?;
        assert_eq!(redis(ns, SECOND, &["get", "greeting"]).await?, "hello");
        assert_eq!(redis(ns, FIRST, &["get", "made"]).await?, "1", "it is the same cluster");
        let ledger = ns.ledger(SET).await?;
        assert_eq!((runs(&ledger, "bootstrap").len(), runs(&ledger, "join").len()), (1, 1));
        assert_eq!(runs(&ledger, "rejoin").len(), 2, "{:?}", ledger.records().collect::<Vec<_>>());
        Ok(())
    })
    .await
}

#[tokio::test]
async fn an_out_of_memory_kill_is_told_from_a_crash_examined_by_the_peer_and_rejoined() -> Outcome {
    namespace::enabled("redis-oom", async |ns| {
        apply_policy(ns).await?;
        let image = "image: redis:5-alpine";
        let limited =
            manifest("statefulset.yaml")?.replace(image, &format!("{image}\n        resources: {{limits: {{memory: 64Mi}}}}"));
        ns.kubectl.with_input(&["apply", "-f", "-"], &limited).await?.ok()?;
        made(ns).await?;
        replicates(ns).await?;
        assert_eq!(redis(ns, FIRST, &["set", "greeting", "hello"]).await?, "OK");
        // A replica takes no writes from clients: as a master of its own, until it is told otherwise, it takes more than it may have.
        redis(ns, SECOND, &["replicaof", "no", "one"]).await?;
        let _ = ns.kubectl.run(&["exec", SECOND, "--", "redis-cli", "setrange", "large", "200000000", "x"]).await?;
        let back = until(&ns.api::<Pod>(), SECOND, "the server runs again", |now| {
            if restarts(now) == 0 { Err("no restart".to_owned()) } else { is_ready(now) }
        })
        .await?;
        let ledger = ns.until_answered(SET, SECOND, &container_id(&back), Verdict::Succeeded).await?;
        let rejoins = attempts(&ledger, "rejoin", SECOND);
        assert_eq!(rejoins.iter().map(|run| run.reason.as_str()).collect::<Vec<_>>(), ["OOMKilled"]);
        assert_eq!(
            ns.kubectl.exec(FIRST, &["cat", "/data/examined"]).await?.trim(),
            format!("{SECOND} OOMKilled seen by {FIRST}")
        );
        replicates(ns).await?;
        assert_eq!(redis(ns, SECOND, &["get", "greeting"]).await?, "hello");

        let told = guardian(&["history", "-n", &ns.name, SET]).await?.ok()?;
        let table = told.stdout.split_whitespace().collect::<Vec<_>>().join(" ");
        for words in [
            "FirstStart bootstrap",
            "FirstStart join",
            "OOMKilled postMortem",
            "OOMKilled rejoin",
            "(OOMKilled): rejoin succeeded after",
        ] {
            assert!(table.contains(words), "`{words}` in\n{}", told.stdout);
        }
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_running_set_that_comes_under_a_policy_waits_for_a_person_and_does_what_he_says() -> Outcome {
    namespace::not_enabled("redis-adopted", async |ns| {
        ns.kubectl.apply(&example("statefulset.yaml")).await?;
        for pod in [FIRST, SECOND] {
            ns.ready(pod).await?;
        }
        guardian(&["enable", &ns.name, "--installation", &installation()]).await?.ok()?;
        apply(ns).await?;
        ns.kubectl.run(&["rollout", "restart", &format!("statefulset/{SET}")]).await?.ok()?;
        ns.kubectl.run(&["rollout", "status", &format!("statefulset/{SET}"), "--timeout=90s"]).await?.ok()?;
        ns.until_event(SET, "Warning", "guardian adopt").await?;
        guardian(&["adopt", "-n", &ns.name, SET, "--bootstrapped"]).await?.ok()?;
        let ledger = ns
            .until_ledger(SET, "both pods rejoined", |ledger| {
                let rejoined = runs(ledger, "rejoin");
                if rejoined.len() == 2 { Ok(()) } else { Err(format!("{rejoined:?}")) }
            })
            .await?;
        assert!(runs(&ledger, "bootstrap").is_empty() && runs(&ledger, "join").is_empty());
        assert!(ledger.records().any(|record| record.hook == "adopt" && record.message.contains("data-redis-sts-0")));
        replicates(ns).await
    })
    .await
}

async fn apply(ns: &Namespace) -> Outcome {
    apply_policy(ns).await?;
    ns.kubectl.apply(&example("statefulset.yaml")).await?;
    Ok(())
}

async fn apply_policy(ns: &Namespace) -> Outcome {
    let text = policy_text("redis", HOOKS);
    let scripts = [("make.sh", MAKE), ("follow.sh", FOLLOW), ("examine.sh", EXAMINE)];
    ns.kubectl.apply_objects(&[policy("redis-policy", &text, &scripts)]).await?;
    Ok(())
}

/// The set has become a cluster, and nothing is open.
async fn made(ns: &Namespace) -> Outcome<Ledger> {
    ns.until_ledger(SET, "the cluster is made", |ledger| {
        let state = &ledger.state;
        if state.answered.len() == 2 && state.episodes.is_empty() { Ok(()) } else { Err(format!("{state:?}")) }
    })
    .await
}

/// The pods in which a hook was run, oldest first.
fn runs(ledger: &Ledger, hook: &str) -> Vec<String> {
    ledger
        .records()
        .filter(|record| record.hook == hook && record.verdict == Verdict::Succeeded)
        .map(|record| record.pod)
        .collect()
}

async fn replicates(ns: &Namespace) -> Outcome {
    eventually(&format!("{SECOND} is a replica of {FIRST} with its link up"), async || {
        let info = redis(ns, SECOND, &["info", "replication"]).await?;
        for words in ["role:slave".to_owned(), format!("master_host:{FIRST}.redis-service"), "master_link_status:up".to_owned()] {
            expect(&info, &words)?;
        }
        Ok(())
    })
    .await
}

async fn redis(ns: &Namespace, pod: &str, arguments: &[&str]) -> Outcome<String> {
    let command: Vec<&str> = ["redis-cli"].into_iter().chain(arguments.iter().copied()).collect();
    Ok(ns.kubectl.exec(pod, &command).await?.trim().to_owned())
}

fn expect(text: &str, words: &str) -> Outcome {
    if text.contains(words) { Ok(()) } else { Err(Failure::Unexpected(format!("no `{words}` in: {text}"))) }
}
