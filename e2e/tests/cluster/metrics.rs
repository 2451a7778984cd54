//! Metrics of a real Redis: what its commands print is at the controller's `/metrics`, and follows the policy without a pod being touched.

use std::time::{Duration, Instant};

use guardian_e2e::{
    Failure, Kubectl, Namespace, Outcome, application, eventually, example, installation, namespace, policy, restarts, uid,
};
use k8s_openapi::api::core::v1::Pod;
use kube::api::ListParams;
use kube::{Api, ResourceExt as _};

use crate::admission::policy_text;

pub(crate) const FIRST: &str = "redis-sts-0";
pub(crate) const SECOND: &str = "redis-sts-1";

/// Of the metrics of this test.
const EVERY: Duration = Duration::from_secs(5);
pub(crate) const KEYS: &str = "- {name: redis_keys, type: gauge, every: 5s, script: keys.sh, labels: [db]}\n";
pub(crate) const MEMORY: &str = "- {name: redis_memory_bytes, type: gauge, every: 5s, script: memory.sh}\n";
/// As docs/metrics.md has them.
pub(crate) const SCRIPTS: [(&str, &str); 2] = [
    ("keys.sh", "#!/bin/sh\nset -eu\ninfo=$(redis-cli info keyspace)\necho \"$info\" | awk -F'[:=,]' '/^db/ {print $1, $3}'\n"),
    (
        "memory.sh",
        "#!/bin/sh\nset -eu\ninfo=$(redis-cli info memory)\necho \"$info\" | awk -F'[:\\r]' '$1 == \"used_memory\" {print $2}'\n",
    ),
];

#[tokio::test]
async fn a_metric_that_is_added_to_the_policy_of_a_redis_is_served_within_two_intervals() -> Outcome {
    namespace::enabled("redis-metrics", async |ns| {
        let measure = async |metrics: &str| {
            let text = policy_text("redis", &format!("metrics:\n{metrics}"));
            ns.kubectl.apply_objects(&[policy("redis-policy", &text, &SCRIPTS)]).await
        };
        measure(KEYS).await?;
        ns.kubectl.apply(&example("statefulset.yaml")).await?;
        let before = [ns.ready(FIRST).await?, ns.ready(SECOND).await?];
        ns.kubectl.exec(FIRST, &["redis-cli", "set", "greeting", "hello"]).await?;
        eventually("the key is counted", async || {
            let keys = value(&scrape(ns).await?, "redis_keys", ns, FIRST, ",db=\"db0\"")?;
            if keys >= 1.0 { Ok(()) } else { Err(Failure::Unexpected(format!("{keys} keys"))) }
        })
        .await?;

        measure(MEMORY).await?;
        let applied = Instant::now();
        eventually("the memory of both is served", async || {
            let text = scrape(ns).await?;
            value(&text, "redis_memory_bytes", ns, FIRST, "")?;
            value(&text, "redis_memory_bytes", ns, SECOND, "").map(drop)
        })
        .await?;
        let took = applied.elapsed();
        assert!(took < 2 * EVERY, "two intervals of {EVERY:?}: {took:?}");

        let text = scrape(ns).await?;
        assert!(value(&text, "redis_memory_bytes", ns, FIRST, "")? > 100_000.0, "{text}");
        assert!(value(&text, "redis_keys", ns, FIRST, ",db=\"db0\"").is_err(), "what the policy has no more is gone");
        assert!(value(&text, "guardian_metric_up", ns, FIRST, ",metric=\"redis_memory_bytes\"")? > 0.5);
        assert!(value(&text, "guardian_container_memory_bytes", ns, FIRST, ",container=\"redis\"")? > 100_000.0);
        let disk = value(&text, "guardian_container_disk_bytes", ns, FIRST, ",container=\"redis\"")?;
        let of = value(&text, "guardian_container_disk_limit_bytes", ns, FIRST, ",container=\"redis\"")?;
        assert!(disk > 0.0 && disk < of, "of its data volume: {disk} of {of}");
        for (pod, before) in [FIRST, SECOND].into_iter().zip(&before) {
            let now = ns.api::<Pod>().get(pod).await?;
            assert_eq!((uid(&now), restarts(&now)), (uid(before), restarts(before)), "no pod was touched");
        }
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_command_that_hangs_or_prints_nonsense_harms_no_other() -> Outcome {
    namespace::enabled("bad-metrics", async |ns| {
        let metric = |name: &str, command: &str| {
            format!("- {{name: {name}, type: gauge, every: 5s, timeout: 3s, command: [{command}]}}\n")
        };
        let metrics = [
            metric("e2e_hangs", "sleep, \"3600\""),
            metric("e2e_floods", "sh, -c, \"yes 1234567 | head -c 10000000\""),
            metric("e2e_nan", "echo, NaN"),
            metric("e2e_binary", "head, -c, \"1000\", /dev/urandom"),
            metric("e2e_fails", "\"false\""),
            metric("e2e_good", "echo, \"42\""),
        ];
        let text = policy_text("app", &format!("metrics:\n{}", metrics.concat()));
        ns.kubectl.apply_objects(&[policy("app", &text, &[]), application("app", 1)]).await?;
        ns.ready("app-0").await?;
        let ends = ["hangs", "floods", "nan", "binary", "fails"].into_iter().zip([
            "timed_out",
            "malformed",
            "malformed",
            "malformed",
            "exit",
        ]);
        let ends: Vec<(&str, &str)> = ends.collect();
        eventually("each ends in its own way, and the good one is served", async || {
            let text = scrape(ns).await?;
            for (name, end) in &ends {
                let labels = format!(
                    "guardian_metric_runs_total{{namespace=\"{}\",set=\"app\",metric=\"e2e_{name}\",result=\"{end}\"}}",
                    ns.name
                );
                if !text.contains(&labels) {
                    return Err(Failure::Unexpected(format!("no {labels}")));
                }
            }
            value(&text, "e2e_good", ns, "app-0", "").map(drop)
        })
        .await?;
        let text = scrape(ns).await?;
        for (name, _) in &ends {
            assert!(value(&text, &format!("e2e_{name}"), ns, "app-0", "").is_err(), "{name}");
        }
        Ok(())
    })
    .await
}

/// What all controllers serve, one of which leads.
pub(crate) async fn scrape(ns: &Namespace) -> Outcome<String> {
    let pods = Api::<Pod>::namespaced(ns.client.clone(), &installation());
    let pods = pods.list(&ListParams::default().labels("app.kubernetes.io/name=guardian-controller")).await?;
    let mut all = String::new();
    for pod in pods {
        let path = format!("/api/v1/namespaces/{}/pods/{}:8080/proxy/metrics", installation(), pod.name_any());
        all += &Kubectl { namespace: installation() }.run(&["get", "--raw", &path]).await?.ok()?.stdout;
    }
    Ok(all)
}

/// The value of a series of a pod of the test; `more` are the labels after those that every series has.
pub(crate) fn value(text: &str, family: &str, ns: &Namespace, pod: &str, more: &str) -> Outcome<f64> {
    let set = pod.rsplit_once('-').map_or(pod, |(set, _)| set);
    let series = format!("{family}{{namespace=\"{}\",set=\"{set}\",pod=\"{pod}\"{more}}} ", ns.name);
    let value = text.lines().find_map(|line| line.strip_prefix(&series));
    value.and_then(|value| value.parse().ok()).ok_or_else(|| Failure::Unexpected(format!("no {series}")))
}
