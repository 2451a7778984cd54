//! A claimed attempt becomes a request to the runner.

use std::collections::BTreeMap;

use guardian_core::ledger::{Run, State};
use guardian_core::lifecycle::{Observed, Pod, command, primary};
use guardian_core::policy::{Hook, Policy, Program};
use guardian_hook::protocol::{PROTOCOL, Request};

use crate::controller::exec::Order;

/// What is to be asked for a run that the ledger has open; `None` when its hook is not in the policy any more.
pub(crate) fn order(observed: &Observed, policy: Option<&Policy>, state: &State, run_id: &str) -> Option<Order> {
    let run = state.runs.get(run_id)?;
    let episode = state.episodes.get(&run.episode)?;
    if episode.scenario == command::NAME {
        // Whoever asked for it has started it, or nobody does.
        return Some(addressed(observed, run, run_id, Program::Command(Vec::new()), BTreeMap::new()));
    }
    let policy = policy?;
    prepared(observed, policy, state, run_id, policy.run_by_controller(&run.hook)?)
}

/// The same for this hook, whatever the policy says.
pub(crate) fn prepared(observed: &Observed, policy: &Policy, state: &State, run_id: &str, hook: &Hook) -> Option<Order> {
    let run = state.runs.get(run_id)?;
    let episode = state.episodes.get(&run.episode)?;
    let me = observed.pods.iter().find(|(_, pod)| pod.uid == run.pod_uid).map(|(ordinal, _)| *ordinal).or(episode.ordinal);
    let label = me.and_then(|n| observed.pods.get(&n)).and_then(|pod| pod.role.clone());
    let ip = episode.ordinal.and_then(|n| observed.pods.get(&n)).and_then(|pod| pod.ip.clone());
    let node = episode.ordinal.and_then(|n| observed.pods.get(&n)).and_then(|pod| pod.node.as_ref()).map(|node| &node.name);
    let text = |value: Option<&String>| value.cloned().unwrap_or_default();
    let of_guardian = [
        ("GUARDIAN_REASON", episode.reason.clone()),
        ("GUARDIAN_RUN_ID", run_id.to_owned()),
        ("GUARDIAN_ATTEMPT", run.attempt.to_string()),
        ("GUARDIAN_ABOUT", episode.pod.clone()),
        ("GUARDIAN_NODE", text(node)),
        ("GUARDIAN_ROLE", text(label.as_ref())),
        ("GUARDIAN_PRIMARY", primary(observed, policy).map(|n| observed.dns_name(n)).unwrap_or_default()),
        ("GUARDIAN_OLD_IP", text(episode.old_ip.as_ref())),
        ("GUARDIAN_NEW_IP", text(ip.as_ref())),
    ];
    let mut env = hook.env.clone();
    env.extend(of_guardian.map(|(name, value)| (name.to_owned(), value)));
    env.extend(surroundings(observed, me));
    env.extend(identity(observed, &run.hook, &run.pod, me));
    Some(addressed(observed, run, run_id, hook.program.clone(), env))
}

fn addressed(observed: &Observed, run: &Run, run_id: &str, program: Program, env: BTreeMap<String, String>) -> Order {
    Order {
        namespace: observed.namespace.clone(),
        pod: run.pod.clone(),
        container: run.container.clone(),
        request: Request {
            version: PROTOCOL,
            pod_uid: run.pod_uid.clone(),
            run_id: run_id.to_owned(),
            hook: run.hook.clone(),
            program,
            env,
            timeout_ms: run.timeout_ms,
            stream: false,
        },
    }
}

/// What every command is told of where it runs.
pub(super) fn identity(observed: &Observed, hook: &str, pod: &str, ordinal: Option<u32>) -> BTreeMap<String, String> {
    let set = &observed.set;
    let told = [
        ("GUARDIAN_HOOK", hook.to_owned()),
        ("GUARDIAN_NAMESPACE", observed.namespace.clone()),
        ("GUARDIAN_SET", set.name.clone()),
        ("GUARDIAN_POD", pod.to_owned()),
        ("GUARDIAN_ORDINAL", ordinal.map(|n| n.to_string()).unwrap_or_default()),
        ("GUARDIAN_SERVICE", set.service.clone()),
    ];
    told.map(|(name, value)| (name.to_owned(), value)).into()
}

/// What a command, and a pod that stops, is told of the others.
pub(crate) fn surroundings(observed: &Observed, me: Option<u32>) -> BTreeMap<String, String> {
    let told = [
        ("GUARDIAN_REPLICAS", observed.set.ordinals.len().to_string()),
        ("GUARDIAN_PEERS", peers(observed, me, false)),
        ("GUARDIAN_READY_PEERS", peers(observed, me, true)),
    ];
    told.map(|(name, value)| (name.to_owned(), value)).into()
}

/// DNS names of the other pods of the set, by ordinal, separated by spaces: all that it is meant to have, or those that are ready.
fn peers(observed: &Observed, me: Option<u32>, only_ready: bool) -> String {
    let set = &observed.set;
    let is_ready = |ordinal: &u32| observed.pods.get(ordinal).is_some_and(Pod::serves);
    let others = set.ordinals.clone().filter(|ordinal| Some(*ordinal) != me && (!only_ready || is_ready(ordinal)));
    others.map(|ordinal| observed.dns_name(ordinal)).collect::<Vec<_>>().join(" ")
}
