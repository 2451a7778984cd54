//! Pods that are asked by their own agent: it is read, and told what to ask where that is something else.
//!
//! As long as the questions stay the same nothing is run in the pod: one GET takes the place of an exec. What to ask goes there through the API server, by
//! a command of the runner that writes it down; an agent takes no orders from whoever can reach its port.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use guardian_core::names;
use guardian_core::policy::{Program, digest};
use guardian_hook::protocol::{
    AGENDA, AGENT_PORT, Agenda, Collect, Collected, Family, MAX_ANSWER, MAX_PUT, PROTOCOL, PUT_CONTENT, Probe, Repeated,
    RunResult, Working,
};
use tokio::time::sleep;

use super::{Asking, Subject};
use crate::controller::exec::{Exec, ExecError, Heard, Questions};

/// An agent sees its file within milliseconds, and asks at once all that is new; most commands answer within this.
const TAKES_HOLD: Duration = Duration::from_secs(1);
/// How long the command that writes the file may take.
const PUT: Duration = Duration::from_secs(5);

/// The agent of a pod, and what it shall ask.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Agent {
    /// Where it answers.
    pub address: SocketAddr,
    /// Names what it shall ask: it tells on which revision it works.
    pub revision: String,
    /// What every command is told of where it runs.
    env: BTreeMap<String, String>,
    subjects: Vec<Subject>,
}

impl Agent {
    /// `None` where the pod has none, or all that is asked is more than fits into its file: then it is asked by exec.
    pub(super) fn of(asking: &Asking) -> Option<Self> {
        let Asking { agent, env, subjects, .. } = asking;
        let mut agent = Self { address: (*agent)?, revision: String::new(), env: env.clone(), subjects: subjects.clone() };
        let unnamed = agent.agenda();
        agent.revision = digest(&BTreeMap::from([(AGENDA.to_owned(), unnamed)])).chars().take(16).collect();
        (agent.agenda().len() <= MAX_PUT).then_some(agent)
    }

    /// An [`Agenda`] as JSON. It is made when it is sent, which is seldom: kept for thousands of pods it would be hundreds of megabytes.
    fn agenda(&self) -> String {
        let Self { revision, env, subjects, .. } = self.clone();
        let questions = subjects.iter().map(repeated).collect();
        // Strings and numbers: serialising them cannot fail.
        serde_json::to_string(&Agenda { version: PROTOCOL, revision, env, questions }).unwrap_or_default()
    }
}

/// The address of a pod's agent, where `status.podIP` is one that pods have: it is written by kubelets, and read with suspicion all the same.
pub(in crate::controller) fn address(ip: &str) -> Option<SocketAddr> {
    let ip = ip.parse::<IpAddr>().ok()?.to_canonical();
    let local = match ip {
        IpAddr::V4(ip) => ip.is_link_local() || ip.is_broadcast(),
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    };
    let other = local || ip.is_loopback() || ip.is_unspecified() || ip.is_multicast();
    (!other).then_some(SocketAddr::new(ip, AGENT_PORT))
}

fn repeated(subject: &Subject) -> Repeated {
    let metric = match subject {
        Subject::Metric(metric) => Some(Family {
            name: metric.name.clone(),
            kind: metric.kind,
            help: metric.help.clone(),
            labels: metric.labels.clone(),
        }),
        Subject::Role(_) | Subject::Usage(_) | Subject::Members(..) => None,
    };
    let every_ms = u64::try_from(subject.every().as_millis()).unwrap_or(u64::MAX).max(1);
    Repeated { probe: subject.question(&BTreeMap::new()), every_ms, metric }
}

/// How old an answer may be, or a question without one: two intervals and its time out. What is older says that nobody asks any more.
pub(super) fn is_stale(subject: &Subject, age_ms: u64) -> bool {
    Duration::from_millis(age_ms) > subject.every().saturating_mul(2).saturating_add(subject.probe().timeout)
}

/// Reads what the agent has heard, and tells what is wanted of it. Where it works on something else, it is told first what to ask.
pub(super) async fn ask(exec: &dyn Exec, agent: &Agent, questions: &Questions, heard: Heard<'_>) -> Result<(), ExecError> {
    if read(exec, agent, questions, heard).await? {
        return Ok(());
    }
    put(exec, agent, questions).await?;
    sleep(TAKES_HOLD).await;
    if read(exec, agent, questions, heard).await? {
        Ok(())
    } else {
        Err(ExecError::NotTaken("it works on other questions".to_owned()))
    }
}

/// Does it work on what it shall? Only then something is told.
async fn read(exec: &dyn Exec, agent: &Agent, questions: &Questions, heard: Heard<'_>) -> Result<bool, ExecError> {
    let mut lines = Vec::new();
    exec.read(agent.address, &mut |line| lines.push(line)).await?;
    let mut lines = lines.into_iter();
    let Some(Collected::Agent(Working { pod_uid, revision })) = lines.next() else {
        return Err(ExecError::NoAgent("it does not say who it is".to_owned()));
    };
    if pod_uid != questions.request.pod_uid {
        return Err(ExecError::Refused(format!("the pod at this address is another ({pod_uid})")));
    }
    if revision != agent.revision {
        return Ok(false);
    }
    let mut wanted: BTreeSet<&str> = questions.request.probes.iter().map(|probe| probe.name.as_str()).collect();
    for line in lines {
        let is_wanted = match &line {
            Collected::Probe(sample) => sample.age_ms.is_some() && wanted.remove(sample.name.as_str()),
            Collected::Waits { name, .. } => wanted.remove(name.as_str()),
            _ => false,
        };
        if is_wanted {
            heard(line);
        }
    }
    Ok(true)
}

/// Tells it what to ask, by one exec in its container.
async fn put(exec: &dyn Exec, agent: &Agent, questions: &Questions) -> Result<(), ExecError> {
    let command = [names::RUNNER, "put", AGENDA].map(str::to_owned);
    let probe = Probe {
        name: AGENDA.to_owned(),
        program: Program::Command(command.into()),
        env: BTreeMap::from([(PUT_CONTENT.to_owned(), agent.agenda())]),
        timeout_ms: u64::try_from(PUT.as_millis()).unwrap_or(u64::MAX),
        max_output: MAX_ANSWER,
    };
    let pod_uid = questions.request.pod_uid.clone();
    let telling = Questions {
        namespace: questions.namespace.clone(),
        pod: questions.pod.clone(),
        container: names::AGENT.to_owned(),
        request: Collect { version: PROTOCOL, pod_uid, probes: vec![probe], wait_ms: 0, disk: None },
        agent: None,
    };
    let mut written = Err(ExecError::NotTaken("its runner has not said whether it was written".to_owned()));
    let mut hear = |line| {
        if let Collected::Probe(sample) = line {
            written = match sample.result {
                RunResult::Exited { code: 0 } => Ok(()),
                _ => Err(ExecError::NotTaken(
                    guardian_core::probe::output(&sample).err().map(|failure| failure.why).unwrap_or_default(),
                )),
            };
        }
    };
    exec.collect(&telling, &mut hear).await?;
    written
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_addresses_that_pods_have_are_read() {
        for ip in ["10.244.1.7", "fd00:10:244::7", "2001:db8::1", "::ffff:10.0.0.1", "192.168.3.4"] {
            assert!(address(ip).is_some_and(|address| address.port() == 9188), "{ip}");
        }
        let others = [
            "",
            "localhost",
            "10.0.0.1:80",
            "example.com",
            "127.0.0.1",
            "::1",
            "::ffff:127.0.0.1",
            "0.0.0.0",
            "::",
            "169.254.169.254",
            "fe80::1",
            "224.0.0.1",
            "ff02::1",
            "255.255.255.255",
        ];
        for ip in others {
            assert_eq!(address(ip), None, "{ip}");
        }
    }
}
