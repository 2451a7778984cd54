//! Clients of a real Redis behind a Service: none of them is refused while a pod is shed, under pressure or by hand, and the Service is written or the set
//! rolled out in the middle of it.

use std::time::Duration;

use guardian_core::names;
use guardian_e2e::{Failure, Namespace, Outcome, eventually, guardian, namespace, policy, restarts};
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt as _;
use serde_json::{Value, json};
use tokio::time::{Instant, interval};

use crate::admission::policy_text;

/// Of 96 MiB the client below fills 1.2 MiB a second: 40 % after half a minute, all of it after a minute and a quarter. A rule gives each action 30 s to help.
const PRESSURE: &str = "traffic: {services: [clients]}
rules:
- name: pressure
  when: {usage: memory, above: 40%, for: 1s}
  until: {below: 30%, for: 3s}
  do: [shed, {run: throttle}]
  undo: [{run: unthrottle}]
tasks:
  throttle: {script: throttle.sh}
  unthrottle: {command: [redis-cli, config, set, maxmemory, \"0\"]}";
const THROTTLE: &str = "#!/bin/sh\nset -eu\nredis-cli config set maxmemory 16mb\nredis-cli flushall\nredis-cli memory purge\n";
/// Writes until the server is throttled, or gone.
const FILL: &str = r#"while [ "$(redis-cli -h "$1" config get maxmemory | tail -n 1)" = 0 ]; do
  redis-cli -h "$1" eval 'for i = 1, 1200 do redis.call("set", KEYS[1] .. i, string.rep("x", 1000)) end' 1 "k$n:" || exit
  n=$((n + 1)); sleep 1
done"#;
/// Asks through the Service, over a new connection each time, and counts.
const ASK: &str = "while :; do if redis-cli -h clients ping | grep -q PONG; then echo >> /tmp/served; else echo >> /tmp/failed; fi; sleep 0.05; done";
/// Both stories are over within this.
const WITHIN: Duration = Duration::from_secs(110);

#[tokio::test]
async fn under_pressure_a_pod_is_shed_and_throttled_where_another_is_killed_and_no_client_is_refused() -> Outcome {
    namespace::enabled("pressed-redis", async |ns| {
        let policy = policy("ruled", &policy_text("ruled", PRESSURE), &[("throttle.sh", THROTTLE)]);
        let objects = [policy, service("clients", "ruled", false), redis("ruled", 2), redis("bare", 1)];
        ns.kubectl
            .apply_objects(&[&objects[..], &[service("ruled", "ruled", true), service("bare", "bare", true)]].concat())
            .await?;
        ns.settled("ruled").await?;
        ns.settled("bare").await?;
        ns.kubectl.apply_objects(&[client(&[ASK, &fill("ruled-1.ruled"), &fill("bare-0.bare")])]).await?;
        ns.ready("client").await?;
        told_side_by_side(ns).await?;
        let history = guardian(&["history", "-n", &ns.name, "ruled"]).await?.ok()?.stdout;
        for words in [
            "rule pressure sheds",
            "tasks.throttle succeeded",
            "is over: memory is",
            "serves again",
            "tasks.unthrottle succeeded",
        ] {
            assert!(history.contains(words), "`{words}` in\n{history}");
        }
        assert_eq!(restarts(&ns.api::<Pod>().get("ruled-1").await?), 0, "with the rule it lives");
        nobody_was_refused(ns).await
    })
    .await
}

#[tokio::test]
async fn a_service_that_is_written_and_a_rollout_while_a_pod_is_shed_cost_no_client_a_refusal() -> Outcome {
    namespace::enabled("shed-redis", async |ns| {
        let text =
            policy_text("ruled", "traffic: {services: [clients]}\nhooks: {preStop: {command: [sleep, \"3\"], timeout: 10s}}");
        let clients = service("clients", "ruled", false);
        ns.kubectl
            .apply_objects(&[policy("ruled", &text, &[]), clients.clone(), service("ruled", "ruled", true), redis("ruled", 2)])
            .await?;
        ns.settled("ruled").await?;
        selects_by_label(ns).await?;
        ns.kubectl.apply_objects(&[client(&[ASK])]).await?;
        ns.ready("client").await?;
        guardian(&["shed", "-n", &ns.name, "ruled-1", "--for", "10m"]).await?.ok()?;
        // Each is a tool that owns the selector, as it knows it.
        let mut live = ns.kubectl.get("service", "clients").await?;
        live["spec"]["selector"] = clients["spec"]["selector"].clone();
        ns.kubectl.with_input(&["replace", "-f", "-"], &live.to_string()).await?.ok()?;
        selects_by_label(ns).await?;
        let whole = ["apply", "--server-side", "--force-conflicts", "-f", "-"];
        ns.kubectl.with_input(&whole, &clients.to_string()).await?.ok()?;
        selects_by_label(ns).await?;
        let before = ns.api::<Pod>().get("ruled-0").await?;
        ns.kubectl.run(&["rollout", "restart", "statefulset", "ruled"]).await?.ok()?;
        ns.replaced(&before).await?;
        ns.settled("ruled").await?;
        nobody_was_refused(ns).await
    })
    .await
}

/// The memory of both, until the one without a rule was killed and the other is at rest again.
#[expect(clippy::print_stderr, reason = "the two runs, side by side")]
async fn told_side_by_side(ns: &Namespace) -> Outcome {
    let (begun, mut pace) = (Instant::now(), interval(Duration::from_secs(5)));
    let mut lines = vec!["seconds  with the rule            without".to_owned()];
    loop {
        pace.tick().await;
        let ruled = ns.api::<Pod>().get("ruled-1").await?;
        let serves = ruled.labels().get(names::SERVING).map_or("-", |serving| if serving == "true" { "serving" } else { "shed" });
        let killed = restarts(&ns.api::<Pod>().get("bare-0").await?);
        let (with, without) = (memory(ns, "ruled-1").await, memory(ns, "bare-0").await);
        lines.push(format!(
            "{:7}  {with:>4} MiB, {serves:<8}       {without:>4} MiB, killed {killed} times",
            begun.elapsed().as_secs()
        ));
        let history = guardian(&["history", "-n", &ns.name, "ruled"]).await?.ok()?.stdout;
        if killed > 0 && history.contains("tasks.unthrottle succeeded") && serves == "serving" {
            eprintln!("{}", lines.join("\n"));
            return Ok(());
        }
        if begun.elapsed() > WITHIN {
            return Err(Failure::Unexpected(format!("not over after {WITHIN:?}:\n{}\n{history}", lines.join("\n"))));
        }
    }
}

/// What Redis has resident, in MiB; a dash while it does not run.
async fn memory(ns: &Namespace, pod: &str) -> String {
    let info = ns.kubectl.exec(pod, &["redis-cli", "info", "memory"]).await.unwrap_or_default();
    let bytes = info.lines().find_map(|line| line.strip_prefix("used_memory_rss:")?.trim().parse::<u64>().ok());
    bytes.map_or("-".to_owned(), |bytes| (bytes >> 20).to_string())
}

/// Of hundreds that were served.
#[expect(clippy::print_stderr, reason = "the figure")]
async fn nobody_was_refused(ns: &Namespace) -> Outcome {
    let count = async |file: &str| {
        let text = ns.kubectl.exec("client", &["sh", "-c", &format!("cat {file} 2>/dev/null | wc -l")]).await?;
        text.trim().parse::<u32>().map_err(|e| Failure::Unexpected(format!("{text:?}: {e}")))
    };
    let (served, failed) = (count("/tmp/served").await?, count("/tmp/failed").await?);
    eprintln!("{served} calls through the Service, {failed} failed");
    assert!(served > 100 && failed == 0, "{failed} of {served} failed");
    Ok(())
}

async fn selects_by_label(ns: &Namespace) -> Outcome {
    eventually("the Service selects by the label", async || {
        let selector = ns.kubectl.get("service", "clients").await?["spec"]["selector"].take();
        if selector[names::SERVING] == "true" { Ok(()) } else { Err(Failure::Unexpected(selector.to_string())) }
    })
    .await
}

fn fill(host: &str) -> String {
    format!("n=0; set -- {host}; {FILL}")
}

/// A pod that runs these scripts beside each other.
fn client(scripts: &[&str]) -> Value {
    let all: Vec<String> = scripts.iter().map(|script| format!("({script}) > /dev/null 2>&1 &")).collect();
    json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "client"},
        "spec": {
            "terminationGracePeriodSeconds": 1,
            "containers": [{
                "name": "client", "image": "redis:5-alpine", "command": ["sh", "-c", format!("{} wait", all.join("\n"))],
            }],
        },
    })
}

fn service(name: &str, app: &str, headless: bool) -> Value {
    let mut service = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": name},
        "spec": {"selector": {"app": app}, "ports": [{"port": 6379}]},
    });
    if headless {
        service["spec"]["clusterIP"] = json!("None");
    }
    service
}

/// It keeps nothing on disk: a snapshot would fork, and the copy counts too.
fn redis(name: &str, replicas: u32) -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": {"name": name, "labels": {"app": name}},
        "spec": {
            "serviceName": name, "replicas": replicas, "podManagementPolicy": "Parallel",
            "selector": {"matchLabels": {"app": name}},
            "template": {
                "metadata": {"labels": {"app": name}},
                "spec": {"containers": [{
                    "name": "redis", "image": "redis:5-alpine", "args": ["redis-server", "--save", ""],
                    "readinessProbe": {"exec": {"command": ["redis-cli", "ping"]}, "periodSeconds": 2},
                    "resources": {"requests": {"cpu": "20m", "memory": "96Mi"}, "limits": {"memory": "96Mi"}},
                }]},
            },
        },
    })
}
