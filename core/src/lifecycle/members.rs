//! Who is in a set, for the programs in its pods: the content of `/guardian/members.json`.
//!
//! There is no time in it: it changes when the set does, and not otherwise.

use serde::Serialize;

use super::observed::{Observed, Pod};
use crate::policy::Policy;

/// The version of the format: raised when what is there gets another meaning, not when something is added.
const FORMAT: u32 = 1;

#[derive(Serialize)]
struct Members<'a> {
    format: u32,
    namespace: &'a str,
    set: &'a str,
    /// Name of its governing Service; empty when it has none.
    service: &'a str,
    replicas: usize,
    members: Vec<Member<'a>>,
}

#[derive(Serialize)]
struct Member<'a> {
    ordinal: u32,
    pod: String,
    dns: String,
    ip: Option<&'a str>,
    role: Option<&'a str>,
    state: State,
}

/// How a member is, as Kubernetes knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
enum State {
    /// There is no pod of this ordinal.
    Absent,
    /// Its container does not run (yet).
    Starting,
    /// Its container runs, and the pod is not ready.
    Running,
    Ready,
    /// The pod is being deleted.
    Stopping,
}

/// All that the set is meant to have, and those that it has beyond that, by ordinal, as one line of JSON.
#[must_use]
pub fn members(observed: &Observed, policy: &Policy) -> String {
    let Observed { set, pods, .. } = observed;
    let beyond = pods.keys().copied().filter(|ordinal| !set.ordinals.contains(ordinal));
    let mut ordinals: Vec<u32> = set.ordinals.clone().chain(beyond).collect();
    ordinals.sort_unstable();
    let member = |ordinal: u32| {
        let pod = pods.get(&ordinal);
        Member {
            ordinal,
            pod: format!("{}-{ordinal}", set.name),
            dns: observed.dns_name(ordinal),
            ip: pod.and_then(|pod| pod.ip.as_deref()),
            role: pod.and_then(|pod| pod.role.as_deref()),
            state: pod.map_or(State::Absent, |pod| state(pod, policy)),
        }
    };
    let all = Members {
        format: FORMAT,
        namespace: &observed.namespace,
        set: &set.name,
        service: &set.service,
        replicas: set.ordinals.len(),
        members: ordinals.into_iter().map(member).collect(),
    };
    serde_json::to_string(&all).unwrap_or_default() // strings and numbers: serialising them cannot fail
}

fn state(pod: &Pod, policy: &Policy) -> State {
    let container = policy.container.as_ref().unwrap_or(&pod.first_container);
    let runs = pod.containers.get(container).is_some_and(|container| container.running_since.is_some());
    match (pod.terminating(), pod.ready, runs) {
        (true, _, _) => State::Stopping,
        (_, true, _) => State::Ready,
        (_, _, true) => State::Running,
        _ => State::Starting,
    }
}

#[cfg(test)]
mod tests {
    use jiff::SignedDuration;
    use serde_json::{Value, json};

    use super::*;
    use crate::lifecycle::example::Example;

    fn seen(example: &Example) -> Value {
        serde_json::from_str(&members(&example.observed, example.policy.as_ref().unwrap())).unwrap()
    }

    fn states(example: &Example) -> Vec<String> {
        let all = seen(example);
        let told = |member: &Value| format!("{} {}", member["pod"].as_str().unwrap(), member["state"].as_str().unwrap());
        all["members"].as_array().unwrap().iter().map(told).collect()
    }

    #[test]
    fn a_member_is_told_by_ordinal_name_address_role_and_state() {
        let mut example = Example::at_rest(1);
        example.observed.pods.get_mut(&0).unwrap().role = Some("primary".into());
        let member = json!({
            "ordinal": 0, "pod": "redis-0", "dns": "redis-0.redis.shop.svc", "ip": "10.0.0.2", "role": "primary", "state": "ready",
        });
        let all = json!({
            "format": 1, "namespace": "shop", "set": "redis", "service": "redis", "replicas": 1, "members": [member],
        });
        assert_eq!(seen(&example), all);
    }

    #[test]
    fn the_state_follows_the_pod_and_who_is_not_there_is_told_too() {
        let mut example = Example::at_rest(5);
        let pods = &mut example.observed.pods;
        pods.remove(&0);
        pods.get_mut(&1).unwrap().ready = false;
        pods.get_mut(&2).unwrap().ready = false;
        pods.get_mut(&2).unwrap().containers.get_mut("redis").unwrap().running_since = None;
        pods.get_mut(&3).unwrap().deleted = Some(example.now + SignedDuration::from_secs(30));
        // A scale-in: the last is still there.
        example.observed.set.ordinals = 0..4;
        assert_eq!(
            states(&example),
            ["redis-0 absent", "redis-1 running", "redis-2 starting", "redis-3 stopping", "redis-4 ready"]
        );
        assert_eq!(seen(&example)["replicas"], 4);
    }

    #[test]
    fn time_alone_changes_nothing() {
        let mut example = Example::at_rest(3);
        let before = seen(&example);
        example.later(3600);
        example.observed.pods.get_mut(&1).unwrap().version = "2".into();
        assert_eq!(seen(&example), before);
    }
}
