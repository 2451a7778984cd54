//! The role and the metrics of a policy become questions to its pods.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use guardian_core::lifecycle::{Observed, Pod, members};
use guardian_core::names;
use guardian_core::policy::{Collect, Condition, Policy, Probe, Program};
use guardian_hook::protocol::MEMBERS;

use super::run_hook::identity;
use crate::controller::collect::{Asking, Container, Subject, address};

/// What is to be asked in each container of each pod, or read of its agent; nothing where the set is on hold. A pod that is going is asked to its end.
pub(crate) fn questions(observed: &Observed, policy: Option<&Policy>) -> BTreeMap<Container, Asking> {
    let mut all: BTreeMap<Container, Asking> = BTreeMap::new();
    let Some(policy) = policy.filter(|_| observed.set.hold.is_none()) else { return all };
    let members = policy.members.then(|| Arc::from(members(observed, policy)));
    for (ordinal, pod) in &observed.pods {
        for subject in subjects(policy, pod, members.as_ref()) {
            let (name, runs, agent) = place(policy, pod, &subject);
            let disk = observed.set.data.get(&name).cloned();
            let asking = all.entry(Container { pod_uid: pod.uid.clone(), name }).or_insert_with(|| Asking {
                pod: pod.name.clone(),
                runs,
                env: identity(observed, "", &pod.name, Some(*ordinal)),
                disk,
                subjects: Vec::new(),
                agent,
            });
            asking.subjects.push(subject);
        }
    }
    all
}

/// In which container, whether it runs, and where its agent answers if that one asks. An agent that does not run is waited for, as long as the pod has one.
fn place(policy: &Policy, pod: &Pod, subject: &Subject) -> (String, bool, Option<SocketAddr>) {
    let own = policy.container.as_ref().unwrap_or(&pod.first_container);
    let name = subject.probe().container.as_ref().unwrap_or(own);
    let runs = pod.containers.get(name).is_some_and(|status| status.running_since.is_some());
    let agent_runs = pod.agent.filter(|_| policy.collect == Collect::Agent && name == own && is_asked_by_agents(subject));
    match agent_runs {
        None => (name.clone(), runs, None),
        Some(agent_runs) => {
            let address = pod.ip.as_deref().and_then(address);
            (names::AGENT.to_owned(), runs && agent_runs && address.is_some(), address)
        }
    }
}

/// What this pod is asked for: its role, and the metrics of all pods or of those of its role; and what it is told.
fn subjects(policy: &Policy, pod: &Pod, members: Option<&Arc<str>>) -> Vec<Subject> {
    let role = policy.role.iter().map(|role| Subject::Role(Arc::clone(role)));
    let metrics = policy.metrics.iter().filter(|metric| metric.on.is_none() || metric.on == pod.role);
    let uses = policy.rules.iter().any(|rule| matches!(rule.when, Condition::Usage { .. }));
    let usage = uses.then(|| Subject::Usage(runner(&["version"])));
    let members = members.map(|content| Subject::Members(runner(&["put", MEMBERS]), Arc::clone(content)));
    let metrics = metrics.map(|metric| Subject::Metric(Arc::clone(metric)));
    role.chain(members).chain(metrics).chain(usage).collect()
}

/// Not what a container uses, which a sidecar does not see; nor what a pod is told.
const fn is_asked_by_agents(subject: &Subject) -> bool {
    matches!(subject, Subject::Role(_) | Subject::Metric(_))
}

/// A command of the runner itself.
fn runner(words: &[&str]) -> Probe {
    let argv = [names::RUNNER].iter().chain(words).map(|word| (*word).to_owned()).collect();
    Probe { program: Program::Command(argv), container: None, timeout: Duration::from_secs(5) }
}
