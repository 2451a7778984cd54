//! `/guardian/members.json`: every pod knows its set as the API server does.

use std::time::Instant;

use guardian_e2e::{Failure, Namespace, Outcome, Signal, application, eventually, namespace, policy, restarts, until};
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt as _;
use kube::api::DeleteParams;
use serde_json::{Value, json};

use crate::admission::policy_text;

const PODS: [&str; 3] = ["app-0", "app-1", "app-2"];

#[tokio::test]
async fn every_pod_knows_the_members_of_its_set_through_a_restart_a_new_address_and_a_scale_in() -> Outcome {
    namespace::enabled("members", async |ns| {
        ns.kubectl.apply_objects(&[policy("app", &policy_text("app", "members: true"), &[]), application("app", 3)]).await?;
        for pod in PODS {
            ns.ready(pod).await?;
        }
        all_know(ns, &PODS, "three that are ready").await?;
        let at_first = file(ns, "app-0").await?;
        assert_eq!((&at_first["format"], &at_first["set"], &at_first["replicas"]), (&json!(1), &json!("app"), &json!(3)));
        assert_eq!(at_first["members"][2]["dns"], json!(format!("app-2.app.{}.svc", ns.name)));

        let second = ns.api::<Pod>().get("app-1").await?;
        ns.signal(&second, Signal::Kill).await?;
        until(&ns.api::<Pod>(), "app-1", "its container runs again", |pod| {
            if restarts(pod) > restarts(&second) { Ok(()) } else { Err("not yet".to_owned()) }
        })
        .await?;
        ns.ready("app-1").await?;
        all_know(ns, &PODS, "after a restart").await?;

        let third = ns.api::<Pod>().get("app-2").await?;
        ns.api::<Pod>().delete("app-2", &DeleteParams::default()).await?;
        let new = ns.replaced(&third).await?;
        all_know(ns, &PODS, "a pod made anew").await?;
        let known = file(ns, "app-0").await?;
        assert_eq!(known["members"][2]["ip"].as_str(), ip(&new));

        ns.kubectl.run(&["scale", "statefulset", "app", "--replicas=2"]).await?.ok()?;
        all_know(ns, &["app-0", "app-1"], "after a scale-in").await
    })
    .await
}

/// Until the file of each of these pods names just these, ready and with their addresses.
#[expect(clippy::print_stderr, reason = "the figures, for whoever runs it with --no-capture")]
async fn all_know(ns: &Namespace, pods: &[&str], what: &str) -> Outcome {
    let begun = Instant::now();
    eventually(what, async || {
        let mut expected = Vec::new();
        for name in pods {
            let pod = ns.api::<Pod>().get(name).await?;
            expected.push(json!([pod.name_any(), ip(&pod), "ready"]));
        }
        for pod in pods {
            let members = file(ns, pod).await?["members"].clone();
            let known = members.as_array().into_iter().flatten().map(|m| json!([m["pod"], m["ip"], m["state"]]));
            let known: Vec<Value> = known.collect();
            if known != expected {
                return Err(Failure::Unexpected(format!("{pod} knows {known:?}, and there are {expected:?}")));
            }
        }
        Ok(())
    })
    .await?;
    eprintln!("{what}: seen in all of them {:?} after it was looked for first", begun.elapsed());
    Ok(())
}

async fn file(ns: &Namespace, pod: &str) -> Outcome<Value> {
    let text = ns.kubectl.exec(pod, &["cat", "/guardian/members.json"]).await?;
    Ok(serde_json::from_str(&text)?)
}

fn ip(pod: &Pod) -> Option<&str> {
    pod.status.as_ref()?.pod_ip.as_deref()
}
