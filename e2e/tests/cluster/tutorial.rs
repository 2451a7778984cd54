//! The tutorial's Redis, applied as it is in `examples/redis`.

use guardian_core::ledger::Verdict;
use guardian_core::names;
use guardian_e2e::ledger::attempts;
use guardian_e2e::{Failure, Namespace, Outcome, container_id, eventually, example, installation, namespace, restarts, uid};
use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use serde_json::{Value, json};

const SET: &str = "redis-sts";
const FIRST: &str = "redis-sts-0";
const SECOND: &str = "redis-sts-1";

#[tokio::test]
async fn a_killed_redis_server_rejoins_its_primary_exactly_once() -> Outcome {
    namespace::enabled("redis-killed", async |ns| {
        apply_redis(ns).await?;
        rewritten_field_by_field(ns).await?;
        for pod in [FIRST, SECOND] {
            let ready = ns.ready(pod).await?;
            assert_eq!(ready.spec.as_ref().and_then(|s| s.priority), Some(1_000_000), "the priority class is in force");
            let mark = ns.kubectl.exec(pod, &["cat", "/data/last-start"]).await?;
            assert_eq!(mark.trim(), pod, "the init hook wrote into the volume");
            ns.until_answered(SET, pod, &container_id(&ready), Verdict::Noted).await?;
        }
        names_resolve(ns).await?;
        assert_eq!(redis(ns, FIRST, &["set", "greeting", "hello"]).await?, "OK");

        let back = ns.kill_server(SECOND).await?;
        let ledger = ns.until_answered(SET, SECOND, &container_id(&back), Verdict::Succeeded).await?;
        let [run] = attempts(&ledger, "rejoin", SECOND).try_into().expect("exactly one run");
        assert_eq!((run.reason.as_str(), run.attempt), ("Crash", Some(1)));
        assert_eq!(ns.our_events(SECOND).await?, [("Normal".to_owned(), "Crash".to_owned())], "one Event");
        assert!(ns.our_events(FIRST).await?.is_empty(), "a first start is nothing to tell of");
        replicates(ns, SECOND).await?;
        assert_eq!(redis(ns, SECOND, &["get", "greeting"]).await?, "hello");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn nothing_runs_again_for_a_start_that_was_answered() -> Outcome {
    namespace::enabled("redis-answered", async |ns| {
        apply_redis(ns).await?;
        ns.ready(FIRST).await?;
        ns.ready(SECOND).await?;
        let back = ns.kill_server(SECOND).await?;
        ns.until_answered(SET, SECOND, &container_id(&back), Verdict::Succeeded).await?;

        // An Event of the pod that means nothing, and then one that does, of the same set: a controller that has dealt with the second
        // has seen the first.
        ns.kubectl.run(&["annotate", "pod", SECOND, "example.com/note=nothing"]).await?.ok()?;
        ns.kubectl.run(&["label", "pod", SECOND, "example.com/label=nothing"]).await?.ok()?;
        let first = ns.kill_server(FIRST).await?;
        let ledger = ns.until_answered(SET, FIRST, &container_id(&first), Verdict::Succeeded).await?;
        assert_eq!(attempts(&ledger, "rejoin", SECOND).len(), 1, "once for the kill, not again for the annotation");
        assert_eq!(attempts(&ledger, "rejoin", FIRST).len(), 1);
        assert!(ledger.state.runs.is_empty() && ledger.state.episodes.is_empty(), "nothing is left open: {:?}", ledger.state);
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_deleted_pod_saves_its_data_by_its_pre_stop_hook_and_rejoins_once() -> Outcome {
    namespace::enabled("redis-deleted", async |ns| {
        apply_redis(ns).await?;
        let before = ns.ready(FIRST).await?;
        ns.until_answered(SET, FIRST, &container_id(&before), Verdict::Noted).await?;
        let volume = volume(ns, "data-redis-sts-0").await?;
        // Without save points Redis writes nothing at SIGTERM: only the hook's `shutdown save` does.
        assert_eq!(redis(ns, FIRST, &["config", "set", "save", ""]).await?, "OK");
        assert_eq!(redis(ns, FIRST, &["set", "written", "just before"]).await?, "OK");

        ns.kubectl.run(&["delete", "pod", FIRST, "--wait=false"]).await?.ok()?;
        let after = ns.replaced(&before).await?;
        assert_eq!(self::volume(ns, "data-redis-sts-0").await?, volume, "the same volume");
        assert_eq!(restarts(&after), 0);
        let ledger = ns.until_answered(SET, FIRST, &container_id(&after), Verdict::Succeeded).await?;
        let [run] = attempts(&ledger, "rejoin", FIRST).try_into().expect("exactly one run");
        assert_eq!((run.reason.as_str(), run.pod_uid), ("Deleted", uid(&after)));
        assert_eq!(redis(ns, FIRST, &["get", "written"]).await?, "just before");
        Ok(())
    })
    .await
}

/// As a user would: first what is there once for a cluster, then policy and set.
async fn apply_redis(ns: &Namespace) -> Outcome {
    ns.priority_class().await?;
    ns.kubectl.apply(&example("policy.yaml")).await?;
    ns.kubectl.apply(&example("statefulset.yaml")).await?;
    Ok(())
}

async fn rewritten_field_by_field(ns: &Namespace) -> Outcome {
    let set = ns.kubectl.get("statefulset", SET).await?;
    let webhook = guardian_e2e::Kubectl { namespace: installation() }.get("deployment", "guardian-webhook").await?;
    let image = at(&webhook, "/spec/template/spec/containers/0/env")
        .as_array()
        .and_then(|env| env.iter().find(|v| v["name"] == "GUARDIAN_IMAGE"))
        .map(|variable| variable["value"].clone())
        .unwrap_or_default();
    let mount = json!({"name": "guardian", "mountPath": "/guardian"});
    let data = json!({"name": "data", "mountPath": "/data"});

    let spec = at(&set, "/spec/template/spec");
    let inits = spec["initContainers"].as_array().cloned().unwrap_or_default();
    let names: Vec<&Value> = inits.iter().map(|c| &c["name"]).collect();
    assert_eq!(names, ["guardian-init", "guardian-init-hook"], "ours come first, in this order");
    assert_eq!(inits[0]["image"], image);
    assert_eq!(inits[0]["command"], json!(["/guardian-hook", "install"]));
    assert_eq!(inits[0]["volumeMounts"], json!([mount]));
    assert_eq!(inits[0]["securityContext"]["runAsNonRoot"], true);
    assert_eq!(inits[1]["image"], "redis:5-alpine");
    assert_eq!(inits[1]["command"], json!(["/guardian/guardian-hook", "init"]));
    assert_eq!(inits[1]["volumeMounts"], json!([data, mount]));
    assert_eq!(spec["volumes"], json!([{"name": "guardian", "emptyDir": {}}]));
    assert_eq!(spec["containers"].as_array().map(Vec::len), Some(1), "no sidecar");
    let container = &spec["containers"][0];
    assert_eq!(container["volumeMounts"], json!([data, mount]));
    assert_eq!(container["lifecycle"], json!({"preStop": {"exec": {"command": ["/guardian/guardian-hook", "stop"]}}}));
    assert_eq!(container["image"], "redis:5-alpine");
    assert_eq!(spec["priorityClassName"], "stateful-critical");
    // 30 s of the hook, 10 s for the server.
    assert_eq!(spec["terminationGracePeriodSeconds"], 40);

    let metadata = at(&set, "/spec/template/metadata");
    assert_eq!(metadata["labels"], json!({"app": "redis", names::GUARDED: "true"}));
    let record: Value = serde_json::from_str(metadata["annotations"][names::INJECTED].as_str().unwrap_or_default())?;
    assert_eq!(record["policy"], "redis-policy");
    let parts: Vec<&String> = record["parts"].as_object().into_iter().flat_map(|parts| parts.keys()).collect();
    assert_eq!(parts, ["guardian-init", "guardian-init-hook"]);
    assert_eq!(record["revision"].as_str().map(str::len), Some(16));
    assert_eq!(record["scalars"]["spec/priorityClassName"], json!({"was": null, "wrote": "stateful-critical"}));
    assert_eq!(record["scalars"]["spec/terminationGracePeriodSeconds"], json!({"was": 30, "wrote": 40}));
    assert_eq!(record["scalars"]["spec/containers/redis/lifecycle/preStop"]["was"], Value::Null);

    assert_eq!(at(&set, "/metadata/labels"), json!({"app": "redis"}), "the set's own metadata is the user's");
    assert_eq!(at(&set, "/spec/replicas"), 2);
    Ok(())
}

async fn names_resolve(ns: &Namespace) -> Outcome {
    // The DNS server learns of a pod a moment after it is Ready.
    for (from, to) in [(FIRST, SECOND), (SECOND, FIRST)] {
        eventually(&format!("{from} reaches {to} by name"), async || {
            redis(ns, from, &["-h", &format!("{to}.redis-service"), "ping"]).await.and_then(|said| expect(&said, "PONG"))
        })
        .await?;
    }
    Ok(())
}

async fn replicates(ns: &Namespace, pod: &str) -> Outcome {
    // The hook gives the order; the copy takes the time that it takes.
    eventually(&format!("{pod} is a replica of {FIRST} with its link up"), async || {
        let info = redis(ns, pod, &["info", "replication"]).await?;
        expect(&info, "role:slave")?;
        expect(&info, &format!("master_host:{FIRST}.redis-service"))?;
        expect(&info, "master_link_status:up")
    })
    .await
}

fn expect(text: &str, words: &str) -> Outcome {
    if text.contains(words) { Ok(()) } else { Err(Failure::Unexpected(format!("no `{words}` in: {text}"))) }
}

async fn redis(ns: &Namespace, pod: &str, arguments: &[&str]) -> Outcome<String> {
    let command: Vec<&str> = ["redis-cli"].into_iter().chain(arguments.iter().copied()).collect();
    Ok(ns.kubectl.exec(pod, &command).await?.trim().to_owned())
}

async fn volume(ns: &Namespace, claim: &str) -> Outcome<Option<String>> {
    Ok(ns.api::<PersistentVolumeClaim>().get(claim).await?.spec.and_then(|s| s.volume_name))
}

fn at(object: &Value, path: &str) -> Value {
    object.pointer(path).cloned().unwrap_or_default()
}
