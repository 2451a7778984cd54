//! A real Prometheus, with the configuration and the alerts that are shipped: what it knows of the guardian and of an application, and how soon.

use std::collections::BTreeMap;
use std::fs;
use std::time::{Duration, Instant};

use guardian_core::names;
use guardian_e2e::{Failure, Namespace, Outcome, Prometheus, application, eventually, monitoring, namespace, policy};
use serde_json::{Value, json};

use crate::admission::policy_text;

/// How often metrics are asked for.
const COLLECT: Duration = Duration::from_secs(5);
/// How often Prometheus asks.
const SCRAPE: Duration = Duration::from_secs(5);

/// What the policy of `app` measures, and how its pod is brought back: in vain, and again ten minutes later, so that something is open.
const MEASURED: &str = "role: {command: [echo, primary], every: 5s}
hooks: {rejoin: {command: [\"false\"], retries: 1, backoff: 10m}}
metrics:
- {name: e2e_broken, type: gauge, every: 5s, command: [\"false\"]}
- {name: e2e_known, type: gauge, every: 5s, command: [echo, \"41\"]}
";
const ADDED: &str = "- {name: e2e_added, type: gauge, every: 5s, command: [echo, \"42\"]}\n";
/// That of `fails`: in vain, once. It asks why it is stopped.
const FAILS: &str = "hooks: {rejoin: {command: [\"false\"]}, preStop: {command: [sh, -c, 'echo $GUARDIAN_REASON']}}";

/// Alerts that have a reason in the namespace of the test.
const DUE: [&str; 4] = ["GuardianHookFailed", "GuardianMetricDown", "GuardianSetOnHold", "GuardianSetUnguarded"];
/// Alerts that have none while the guardian is installed and scraped, whatever other tests do.
const NOT_DUE: [&str; 4] =
    ["GuardianCertificateExpires", "GuardianCertificateRefused", "GuardianControllerWithoutLeader", "GuardianWebhookDown"];
/// What has no series before something happens that this test does not bring about.
const QUIET: [&str; 2] = ["guardian_collect_skipped_total", "guardian_http_connections_closed_total"];

#[tokio::test]
async fn a_prometheus_has_a_new_metric_within_two_intervals_and_evaluates_every_alert_and_panel() -> Outcome {
    // Besides a usual test: a start of Prometheus, and about a dozen scrapes.
    namespace::enabled_within("prometheus", Duration::from_secs(240), async |ns| {
        let prometheus = Prometheus::start(&ns.client, SCRAPE).await?;
        stage(ns).await?;
        let took = added(ns, &prometheus).await?;
        let limit = 2 * (COLLECT + SCRAPE);
        assert!(took < limit, "two intervals of collect and scrape, {limit:?}: {took:?}");
        let failed = failed(ns, &prometheus).await?;
        let alerts = alerts(ns, &prometheus).await?;
        let panels = panels(ns, &prometheus).await?;
        eprintln!(
            "prometheus: a metric that is added to a policy can be queried {:.1} s after it was applied, intervals {} s + {} s; the end of a \
             hook {:.1} s after its container ended; {alerts} alerts and {panels} expressions of the dashboard evaluate; {}",
            took.as_secs_f64(),
            COLLECT.as_secs(),
            SCRAPE.as_secs(),
            failed.as_secs_f64(),
            scraped(&prometheus).await?,
        );
        prometheus.end().await
    })
    .await
}

/// A set that is measured, one whose hook fails, one on hold, and one that came before its policy.
async fn stage(ns: &Namespace) -> Outcome {
    let mut held = application("held", 1);
    held["metadata"]["annotations"] = json!({names::HOLD: "the test"});
    let policies = [("app", MEASURED), ("fails", FAILS), ("held", "")];
    let policies = policies.map(|(app, rest)| policy(app, &policy_text(app, rest), &[]));
    ns.kubectl.apply_objects(&[application("late", 1)]).await?;
    ns.kubectl.apply_objects(&policies).await?;
    ns.kubectl.apply_objects(&[application("app", 1), application("fails", 1), held]).await?;
    for pod in ["app-0", "fails-0", "held-0", "late-0"] {
        ns.ready(pod).await?;
    }
    ns.kubectl.apply_objects(&[policy("late", &policy_text("late", ""), &[])]).await.map(drop)
}

/// From an edit of the policy to the answer of Prometheus.
async fn added(ns: &Namespace, prometheus: &Prometheus) -> Outcome<Duration> {
    let of_app = |metric: &str| format!(r#"{metric}{{namespace="{}",set="app",pod="app-0"}}"#, ns.name);
    valued(prometheus, &of_app("e2e_known"), "41").await?;
    let edited = policy_text("app", &format!("{MEASURED}{ADDED}"));
    ns.kubectl.apply_objects(&[policy("app", &edited, &[])]).await?;
    let applied = Instant::now();
    valued(prometheus, &of_app("e2e_added"), "42").await?;
    let took = applied.elapsed();
    let renamed = prometheus.query(r#"{job="stateful-guardian",exported_namespace!=""}"#).await?;
    assert!(renamed.is_empty(), "labels of series are their own: {renamed:?}");
    Ok(took)
}

/// Containers end; from there to the failure of the hook that Prometheus knows of. Then the pod goes, and is told why.
async fn failed(ns: &Namespace, prometheus: &Prometheus) -> Outcome<Duration> {
    let of = |set: &str, verdict: &str| {
        let labels = format!(r#"namespace="{}",set="{set}",hook="rejoin",verdict="{verdict}""#, ns.name);
        format!(r#"guardian_hook_runs_total{{{labels},reason="Completed"}}"#)
    };
    for pod in ["app-0", "fails-0"] {
        // The command may go down with its container.
        ns.kubectl.run(&["exec", pod, "--", "kill", "1"]).await?;
    }
    let ended = Instant::now();
    valued(prometheus, &of("fails", "Failed"), "1").await?;
    let took = ended.elapsed();
    valued(prometheus, &of("app", "Retrying"), "1").await?;
    ns.kubectl.run(&["delete", "pod", "fails-0", "--wait=false"]).await?.ok()?;
    eventually("the stop is counted", async || {
        let told = prometheus.query(r#"guardian_stops_total{told="yes"}"#).await?;
        if told.is_empty() { Err(Failure::Unexpected("no pod was told why it stops".to_owned())) } else { Ok(()) }
    })
    .await?;
    Ok(took)
}

/// Every alert is evaluated without an error, and those that have a reason here know it; gives their number.
async fn alerts(ns: &Namespace, prometheus: &Prometheus) -> Outcome<usize> {
    let rules = eventually("every alert was evaluated", async || {
        let answer = prometheus.get("/api/v1/rules").await?;
        let groups = answer["data"]["groups"].as_array().cloned().unwrap_or_default();
        let rules: Vec<Value> = groups.iter().flat_map(|group| group["rules"].as_array().cloned().unwrap_or_default()).collect();
        match rules.iter().find(|rule| rule["health"] != "ok") {
            Some(rule) => Err(Failure::Unexpected(format!("{} is {}: {}", rule["name"], rule["health"], rule["lastError"]))),
            None => Ok(rules),
        }
    })
    .await?;
    let mut found = BTreeMap::<String, Vec<Value>>::new();
    for rule in &rules {
        let (name, expression) = (rule["name"].as_str().unwrap_or_default(), rule["query"].as_str().unwrap_or_default());
        let series = prometheus.query(expression).await?;
        found.entry(name.to_owned()).or_default().extend(series);
    }
    for name in DUE {
        let here = found.get(name).is_some_and(|series| series.iter().any(|one| one["metric"]["namespace"] == ns.name.as_str()));
        assert!(here, "{name} has a reason: {:?}", found.get(name));
    }
    for name in NOT_DUE {
        assert_eq!(found.get(name), Some(&Vec::new()), "{name} has no reason");
    }
    Ok(rules.len())
}

/// Every expression of the dashboard is evaluated, and has data; gives their number.
async fn panels(ns: &Namespace, prometheus: &Prometheus) -> Outcome<usize> {
    let file = monitoring("dashboard.json");
    let text = fs::read_to_string(&file).map_err(|e| Failure::Run(format!("reading {}", file.display()), e))?;
    let dashboard: Value = serde_json::from_str(&text)?;
    let panels = dashboard["panels"].as_array().cloned().unwrap_or_default();
    let targets = panels.iter().flat_map(|panel| panel["targets"].as_array().cloned().unwrap_or_default());
    let expressions: Vec<String> = targets.filter_map(|target| target["expr"].as_str().map(str::to_owned)).collect();
    // As Grafana fills them in; the interval is at least four scrapes.
    let filled =
        |expression: &String| expression.replace("$namespace", &ns.name).replace("$set", ".*").replace("$__rate_interval", "2m");
    let filled: Vec<String> = expressions.iter().map(filled).collect();
    assert!(filled.iter().all(|expression| !expression.contains('$')), "{filled:?}");
    eventually("every panel has data", async || {
        for expression in &filled {
            let series = prometheus.query(expression).await?;
            if series.is_empty() && !QUIET.iter().any(|quiet| expression.contains(quiet)) {
                return Err(Failure::Unexpected(format!("no data: {expression}")));
            }
        }
        Ok(())
    })
    .await?;
    Ok(filled.len())
}

/// What the scrapes cost.
async fn scraped(prometheus: &Prometheus) -> Outcome<String> {
    let value = async |expression: &str| -> Outcome<f64> {
        let series = prometheus.query(expression).await?;
        let value = series.first().and_then(|one| one["value"][1].as_str()?.parse().ok());
        value.ok_or_else(|| Failure::Unexpected(format!("no {expression}")))
    };
    let (pods, samples) = (value("count(up == 1)").await?, value("sum(scrape_samples_scraped)").await?);
    let slowest = value("max(max_over_time(scrape_duration_seconds[2m]))").await?;
    Ok(format!("{samples} samples of {pods} pods, the slowest scrape took {slowest:.3} s"))
}

/// Waits until an expression gives one series of this value.
async fn valued(prometheus: &Prometheus, expression: &str, value: &str) -> Outcome {
    eventually(&format!("Prometheus has {expression} = {value}"), async || {
        let series = prometheus.query(expression).await?;
        match series.as_slice() {
            [one] if one["value"][1] == value => Ok(()),
            other => Err(Failure::Unexpected(format!("{other:?}"))),
        }
    })
    .await
}
