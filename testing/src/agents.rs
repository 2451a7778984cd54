//! The agents of pods: each asks what was put into it, at its intervals, until a test stops that.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use futures::future::BoxFuture;
use guardian_core::names;
use guardian_core::sim::Resource;
use guardian_hook::protocol::{Agenda, Collected, Working};
use serde_json::{Value, json};
use stateful_guardian::controller::{ExecError, Heard};
use tokio::time::Instant;

use crate::api::{Call, Process};
use crate::runner::Runner;
use crate::stage::Stage;
use crate::workload::{NAMESPACE, pod_key};

/// What was put into the agents, by the names of their pods.
#[derive(Default)]
pub(crate) struct Agents {
    by_pod: BTreeMap<String, Agent>,
    deaf: bool,
}

struct Agent {
    agenda: Agenda,
    since: Instant,
    /// From then on it asks no more.
    stopped: Option<Instant>,
    /// How often it was told what to ask.
    told: usize,
}

impl Agents {
    /// What the file of a pod says from now on.
    pub(crate) fn put(&mut self, pod: &str, content: &str) {
        let agenda: Agenda = serde_json::from_str(content).expect("an agenda");
        assert_eq!(agenda.fault(), None);
        let told = self.by_pod.get(pod).map_or(0, |agent| agent.told) + 1;
        let agenda = match self.by_pod.remove(pod) {
            Some(agent) if self.deaf => agent.agenda,
            _ => agenda,
        };
        self.by_pod.insert(pod.to_owned(), Agent { agenda, since: Instant::now(), stopped: None, told });
    }
}

impl Agent {
    /// For how long an answer has been there.
    fn age(&self, every: Duration) -> Duration {
        let now = Instant::now();
        let asks = self.stopped.unwrap_or(now).duration_since(self.since).as_nanos() / every.as_nanos().max(1);
        let asked = self.since + every.saturating_mul(u32::try_from(asks).unwrap_or(u32::MAX));
        now.duration_since(asked)
    }
}

impl Runner {
    /// The agent of this pod answers on, and asks no more.
    pub fn agent_stops_asking(&self, pod: &str) {
        let mut inner = self.lock();
        inner.agents.by_pod.get_mut(pod).expect("an agent that was told what to ask").stopped = Some(Instant::now());
    }

    /// From now on agents take no new questions.
    pub fn agents_are_deaf(&self) {
        self.lock().agents.deaf = true;
    }

    /// How often the agent of this pod was told what to ask: each an exec.
    #[must_use]
    pub fn agent_told(&self, pod: &str) -> usize {
        self.lock().agents.by_pod.get(pod).map_or(0, |agent| agent.told)
    }

    /// The names of what the agent of this pod asks.
    #[must_use]
    pub fn agent_asks(&self, pod: &str) -> Vec<String> {
        let inner = self.lock();
        let questions = inner.agents.by_pod.get(pod).map(|agent| agent.agenda.questions.clone());
        questions.into_iter().flatten().map(|question| question.probe.name).collect()
    }

    /// As a process reads it.
    pub(crate) fn read<'a>(
        &'a self,
        process: &'a Process,
        agent: SocketAddr,
        heard: Heard<'a>,
    ) -> BoxFuture<'a, Result<(), ExecError>> {
        Box::pin(async move {
            let refused = || ExecError::NoAgent("connection refused".to_owned());
            let (pod, uid) = self.at(agent).ok_or_else(refused)?;
            let call = Call { process: process.name.clone(), kind: "READ".to_owned(), name: pod.clone() };
            if process.api.enter(call).is_some() {
                return Err(refused());
            }
            let lines = self.lines(&pod, &uid);
            lines.into_iter().for_each(heard);
            Ok(())
        })
    }

    /// Name and uid of the pod with this address, if its agent runs.
    fn at(&self, agent: SocketAddr) -> Option<(String, String)> {
        let runs = |pod: &&Value| {
            let statuses = pod["status"]["initContainerStatuses"].as_array();
            statuses.into_iter().flatten().any(|s| s["name"] == names::AGENT && s["state"]["running"].is_object())
        };
        let resource = Resource::new("v1", "pods");
        self.api().world(|world| {
            let mut pods = world.list(&resource, NAMESPACE).filter(runs);
            let pod = pods.find(|pod| pod["status"]["podIP"] == agent.ip().to_string())?;
            let text = |name: &str| pod["metadata"][name].as_str().map(str::to_owned);
            Some((text("name")?, text("uid")?))
        })
    }

    fn lines(&self, pod: &str, uid: &str) -> Vec<Collected> {
        let inner = self.lock();
        let agent = inner.agents.by_pod.get(pod);
        let revision = agent.map(|agent| agent.agenda.revision.clone()).unwrap_or_default();
        let mut lines = vec![Collected::Agent(Working { pod_uid: uid.to_owned(), revision })];
        for question in agent.into_iter().flat_map(|agent| &agent.agenda.questions) {
            let age = agent.map_or(Duration::ZERO, |agent| agent.age(Duration::from_millis(question.every_ms)));
            let mut sample = inner.answer(pod, &question.probe);
            sample.age_ms = u64::try_from(age.as_millis()).ok();
            lines.push(Collected::Probe(sample));
        }
        lines
    }
}

impl Stage {
    /// The pod has a sidecar that asks by itself, as the webhook writes it; and that runs, or does not.
    pub fn set_agent(&self, ordinal: u32, runs: bool) {
        let state =
            if runs { json!({"running": {"startedAt": self.now()}}) } else { json!({"waiting": {"reason": "CrashLoopBackOff"}}) };
        self.edit(&pod_key(ordinal), |pod| {
            pod["status"]["initContainerStatuses"] = json!([
                {"name": names::INIT, "state": {"terminated": {"exitCode": 0}}},
                {"name": names::AGENT, "containerID": format!("containerd://agent-{ordinal}"), "state": state},
            ]);
        });
    }

    /// The pod is of an older template, which had no such sidecar.
    pub fn remove_agent(&self, ordinal: u32) {
        self.edit(&pod_key(ordinal), |pod| pod["status"]["initContainerStatuses"] = json!([]));
    }
}
