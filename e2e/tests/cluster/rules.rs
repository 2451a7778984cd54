//! Memory grows towards the limit of its container: with a rule it is stopped before the kernel stops the container, and without it is not; or the container
//! gets more of it where it runs.

use guardian_e2e::{Failure, Outcome, application, eventually, guardian, namespace, policy, restarts};
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};

use crate::admission::policy_text;

/// The load: a file in memory that grows by 0.7 MiB in every second, until somebody says stop, or the kernel does: after 45 s it would be at the limit of 32 MiB.
const LOAD: &str = "trap 'exit 0' TERM; while true; do \
                    if [ -e /data/stop ]; then rm -f /dev/shm/load; \
                    elif [ -e /data/load ]; then head -c 734003 /dev/zero >> /dev/shm/load; fi; sleep 1; done";
/// The rule is due after 18 s and acts 10 s later at the latest.
const RULE: &str = r#"rules:
- name: pressure
  when: {usage: memory, above: 40%, for: 3s}
  until: {below: 30%, for: 3s}
  do: [{run: throttle}]
  undo: [{run: unthrottle}]
tasks:
  throttle: {command: [touch, /data/stop]}
  unthrottle: {command: [rm, -f, /data/stop, /data/load]}"#;

#[tokio::test]
async fn a_rule_keeps_a_pod_from_the_out_of_memory_kill_that_comes_without_it() -> Outcome {
    namespace::enabled("pressure", async |ns| {
        let objects = [policy("ruled", &policy_text("ruled", RULE), &[]), set("ruled", 1), set("bare", 1)];
        ns.kubectl.apply_objects(&objects).await?;
        ns.settled("ruled").await?;
        ns.ready("bare-0").await?;
        for pod in ["ruled-0", "bare-0"] {
            ns.kubectl.exec(pod, &["touch", "/data/load"]).await?;
        }
        eventually("without a rule the kernel kills it", async || {
            let pod = ns.api::<Pod>().get("bare-0").await?;
            if restarts(&pod) > 0 { Ok(()) } else { Err(Failure::Unexpected("no restart".to_owned())) }
        })
        .await?;
        let words =
            ["rule pressure sets in: memory is", "tasks.throttle succeeded", "is over: memory is", "tasks.unthrottle succeeded"];
        eventually("all of it is in the history", async || {
            let told = guardian(&["history", "-n", &ns.name, "ruled"]).await?.ok()?.stdout;
            match words.iter().find(|words| !told.contains(**words)) {
                None => Ok(()),
                Some(words) => Err(Failure::Unexpected(format!("no `{words}` in\n{told}"))),
            }
        })
        .await?;
        assert_eq!(restarts(&ns.api::<Pod>().get("ruled-0").await?), 0, "with the rule it lives");
        Ok(())
    })
    .await
}

/// Of 64 MiB 40 are in use, which is more than the half; of 96 they are less.
const GROWS: &str = "rules:
- name: pressure
  when: {usage: memory, above: 50%, for: 3s}
  until: {below: 48%, for: 3s}
  do: [resize]
  resize: {memory: {by: 50%, max: 128Mi}}";

#[tokio::test]
async fn a_rule_gives_a_running_container_more_memory_and_nothing_is_restarted_or_written_into_the_set() -> Outcome {
    namespace::enabled("resized", async |ns| {
        let mut grows = set("grows", 1);
        grows["spec"]["template"]["spec"]["containers"][0]["resources"] = json!({
            "requests": {"cpu": "5m", "memory": "32Mi"}, "limits": {"cpu": "500m", "memory": "64Mi"},
        });
        ns.kubectl.apply_objects(&[policy("grows", &policy_text("grows", GROWS), &[]), grows]).await?;
        let before = ns.settled("grows").await?;
        ns.kubectl.exec("grows-0", &["sh", "-c", "head -c 41943040 /dev/zero > /dev/shm/load"]).await?;
        eventually("the history tells that it has more, and that the rule is over", async || {
            let told = guardian(&["history", "-n", &ns.name, "grows"]).await?.ok()?.stdout;
            let words = ["memory of container app from 64Mi to 96Mi, in place", "is over: memory is"];
            match words.iter().find(|words| !told.contains(**words)) {
                None => Ok(()),
                Some(words) => Err(Failure::Unexpected(format!("no `{words}` in\n{told}"))),
            }
        })
        .await?;
        let limit = "cat /sys/fs/cgroup/memory.max 2>/dev/null || cat /sys/fs/cgroup/memory/memory.limit_in_bytes";
        let limit = ns.kubectl.exec("grows-0", &["sh", "-c", limit]).await?;
        assert_eq!(limit.trim(), (96 << 20).to_string(), "as the container sees it");
        let pod = serde_json::to_value(ns.api::<Pod>().get("grows-0").await?)?;
        let status = &pod["status"]["containerStatuses"][0];
        assert_eq!((&status["resources"]["limits"]["memory"], &status["restartCount"]), (&json!("96Mi"), &json!(0)));
        let requests = &pod["spec"]["containers"][0]["resources"]["requests"];
        assert_eq!(
            (&requests["memory"], &requests["cpu"]),
            (&json!("48Mi"), &json!("5m")),
            "by the same factor, and nothing else"
        );
        let after = ns.api::<StatefulSet>().get("grows").await?;
        assert_eq!(after.spec, before.spec, "the template has its own values");
        Ok(())
    })
    .await
}

/// Its container may take 32 MiB, of which files in memory count.
fn set(name: &str, replicas: u32) -> Value {
    let mut set = application(name, replicas);
    let spec = &mut set["spec"]["template"]["spec"];
    spec["containers"][0]["command"] = json!(["sh", "-c", LOAD]);
    let mounts = spec["containers"][0]["volumeMounts"].as_array_mut();
    mounts.into_iter().for_each(|mounts| mounts.push(json!({"name": "memory", "mountPath": "/dev/shm"})));
    spec["volumes"] = json!([{"name": "memory", "emptyDir": {"medium": "Memory"}}]);
    set
}
