//! The runner in every pod: one start per run id, an outcome for whoever asks, whether the asker lives or not.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::future::BoxFuture;
use guardian_core::sim::Resource;
use guardian_hook::protocol::{
    self, AGENDA, Collected, EMPTY_COMMAND, Outcome, PROTOCOL, PUT_CONTENT, Program, Refusal, RunResult, Sample, Tail, Usage,
};
use kube::core::Status;
use stateful_guardian::controller::{Exec, ExecError, Heard, Notice, Order, Questions};
use tokio::time::Instant;

use crate::agents::Agents;
use crate::api::{Api, Call, Process};
use crate::fault::Fault;

/// How long a question that nobody answers is waited for.
const UNANSWERED: Duration = Duration::from_secs(60);

/// How a hook behaves.
#[derive(Clone, Debug)]
pub struct Answer {
    /// How long it takes.
    pub takes: Duration,
    /// How it ends, unless its time out is earlier.
    pub result: RunResult,
}

impl Answer {
    /// It ends with this exit code after two seconds.
    #[must_use]
    pub const fn exit(code: i32) -> Self {
        Self { takes: Duration::from_secs(2), result: RunResult::Exited { code } }
    }
}

/// All runners of the cluster. Clones are the same.
#[derive(Clone)]
pub struct Runner {
    api: Api,
    inner: Arc<Mutex<Inner>>,
}

#[derive(Default)]
pub(crate) struct Inner {
    answers: Vec<Answer>,
    started: Vec<Order>,
    notices: Vec<Notice>,
    /// What the probes do, by pod and name.
    probes: BTreeMap<(String, String), Probe>,
    rounds: Vec<Round>,
    usage: Usage,
    /// What was put into pods, by their names, in order.
    put: Vec<(Instant, String, String)>,
    pub(crate) agents: Agents,
    claims: BTreeMap<(String, String), Claim>,
}

/// Questions that came to a pod together, in one exec.
#[derive(Clone, Debug)]
pub struct Round {
    /// When.
    pub at: Instant,
    /// Name of the pod.
    pub pod: String,
    /// The names of the questions, in order: `role`, `metrics.NAME`.
    pub names: Vec<String>,
}

/// The name of the question for the role.
const ROLE: &str = "role";

/// The name of the question that tells a pod its members.
const MEMBERS_QUESTION: &str = "members";

/// What a probe does.
#[derive(Clone)]
struct Probe {
    takes: Duration,
    result: RunResult,
    prints: String,
}

#[derive(Clone)]
struct Claim {
    container_id: String,
    ends: Instant,
    took: Duration,
    result: RunResult,
}

impl Inner {
    /// What a question is answered in a pod now.
    pub(crate) fn answer(&self, pod: &str, asked: &protocol::Probe) -> Sample {
        let silent = Probe { takes: Duration::ZERO, result: RunResult::Exited { code: 0 }, prints: String::new() };
        let probe = self.probes.get(&(pod.to_owned(), asked.name.clone())).cloned().unwrap_or(silent);
        let timeout = Duration::from_millis(asked.timeout_ms);
        let result = if probe.takes > timeout { RunResult::TimedOut } else { probe.result };
        let duration_ms = u64::try_from(probe.takes.min(timeout).as_millis()).unwrap_or(u64::MAX);
        // Of what is printed the end is answered.
        let cut = probe.prints.ceil_char_boundary(probe.prints.len().saturating_sub(asked.max_output));
        let stdout = Tail { text: probe.prints.split_at(cut).1.to_owned(), dropped: cut as u64 };
        Sample { name: asked.name.clone(), result, duration_ms, stdout, stderr: Tail::default(), age_ms: None }
    }
}

impl Runner {
    /// Runners of a cluster whose hooks succeed.
    #[must_use]
    pub fn new(api: Api) -> Self {
        Self { api, inner: Arc::default() }
    }

    /// The next starts go like this, one after the other; then all succeed.
    pub fn answer(&self, answers: impl IntoIterator<Item = Answer>) {
        self.lock().answers.extend(answers);
    }

    /// The hooks that were started, in order: each a process in a pod.
    #[must_use]
    pub fn started(&self) -> Vec<Order> {
        self.lock().started.clone()
    }

    /// From now on the role probe of this pod takes 50 ms and prints this. Until then it prints nothing.
    pub fn prints(&self, pod: &str, text: &str) {
        self.says(pod, ROLE, text);
    }

    /// The same for the command of a metric.
    pub fn measures(&self, pod: &str, metric: &str, text: &str) {
        self.says(pod, &format!("metrics.{metric}"), text);
    }

    fn says(&self, pod: &str, name: &str, text: &str) {
        let probe = Probe { takes: Duration::from_millis(50), result: RunResult::Exited { code: 0 }, prints: text.to_owned() };
        self.lock().probes.insert((pod.to_owned(), name.to_owned()), probe);
    }

    /// From now on the command of a metric goes like this in this pod, and prints nothing.
    pub fn measures_like(&self, pod: &str, metric: &str, answer: Answer) {
        let Answer { takes, result } = answer;
        let probe = Probe { takes, result, prints: String::new() };
        self.lock().probes.insert((pod.to_owned(), format!("metrics.{metric}")), probe);
    }

    /// From now on every container uses this.
    pub fn uses(&self, usage: Usage) {
        self.lock().usage = usage;
    }

    /// From now on the role probe of this pod goes like this, and prints nothing.
    pub fn probe(&self, pod: &str, answer: Answer) {
        let Answer { takes, result } = answer;
        self.lock().probes.insert((pod.to_owned(), ROLE.to_owned()), Probe { takes, result, prints: String::new() });
    }

    /// From now on it goes like this when this pod is told its members; where it fails, nothing is written.
    pub fn takes_members_like(&self, pod: &str, answer: Answer) {
        let Answer { takes, result } = answer;
        let probe = Probe { takes, result, prints: String::new() };
        self.lock().probes.insert((pod.to_owned(), MEMBERS_QUESTION.to_owned()), probe);
    }

    /// What was written into pods: when, the name of the pod, and the file, in order.
    #[must_use]
    pub fn put(&self) -> Vec<(Instant, String, String)> {
        self.lock().put.clone()
    }

    /// The pods that were asked for their role, and when, in order.
    #[must_use]
    pub fn asked(&self) -> Vec<(Instant, String)> {
        let asked = |round: Round| round.names.iter().any(|name| name == ROLE).then_some((round.at, round.pod));
        self.rounds().into_iter().filter_map(asked).collect()
    }

    /// All questions that came to pods, by the execs in which they came, in order.
    #[must_use]
    pub fn rounds(&self) -> Vec<Round> {
        self.lock().rounds.clone()
    }

    /// Pod and reason of each pod that was told why it stops, in order.
    #[must_use]
    pub fn stops(&self) -> Vec<String> {
        self.notices().iter().map(|notice| format!("{} {}", notice.pod, notice.reason.reason)).collect()
    }

    /// What the pods were told that stop, in order.
    #[must_use]
    pub fn notices(&self) -> Vec<Notice> {
        self.lock().notices.clone()
    }

    fn tell(&self, notice: &Notice) -> Result<(), ExecError> {
        let key = Resource::new("v1", "pods").named(&notice.namespace, &notice.pod);
        let uid = self.api.world(|world| world.get(&key).map(|pod| pod["metadata"]["uid"].clone())).unwrap_or_default();
        if uid != notice.reason.pod_uid.as_str() {
            return Err(ExecError::Refused("the pod of this name is another".to_owned()));
        }
        self.lock().notices.push(notice.clone());
        Ok(())
    }

    /// As a process reaches them.
    pub(crate) fn reached_by(&self, process: &Process) -> Arc<dyn Exec> {
        Arc::new(Reached { runner: self.clone(), process: process.clone() })
    }

    pub(crate) fn api(&self) -> &Api {
        &self.api
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// uid of the pod and id of the container, if it runs.
    fn reach(&self, order: &Order) -> Option<(String, String)> {
        self.container(&order.namespace, &order.pod, &order.container)
    }

    fn container(&self, namespace: &str, pod: &str, container: &str) -> Option<(String, String)> {
        let key = Resource::new("v1", "pods").named(namespace, pod);
        self.api.world(|world| {
            let pod = world.get(&key).ok()?;
            let statuses = ["containerStatuses", "initContainerStatuses"].map(|list| pod["status"][list].as_array());
            let status =
                statuses.into_iter().flatten().flatten().find(|s| s["name"] == container && s["state"]["running"].is_object())?;
            Some((pod["metadata"]["uid"].as_str()?.to_owned(), status["containerID"].as_str()?.to_owned()))
        })
    }

    /// The claim of a run, made where there is none: then the hook is started.
    fn claim(&self, order: &Order, uid: &str, container_id: &str) -> Claim {
        let mut inner = self.lock();
        let name = (uid.to_owned(), order.request.run_id.clone());
        if let Some(claim) = inner.claims.get(&name) {
            return claim.clone();
        }
        // Who asks like this starts nothing.
        if order.request.program == Program::Command(Vec::new()) {
            let result = RunResult::NotFound { what: EMPTY_COMMAND.to_owned() };
            let claim = Claim { container_id: container_id.to_owned(), ends: Instant::now(), took: Duration::ZERO, result };
            inner.claims.insert(name, claim.clone());
            return claim;
        }
        let answer = if inner.answers.is_empty() { Answer::exit(0) } else { inner.answers.remove(0) };
        let timeout = Duration::from_millis(order.request.timeout_ms);
        let late = answer.takes > timeout;
        let took = answer.takes.min(timeout);
        let claim = Claim {
            container_id: container_id.to_owned(),
            ends: Instant::now() + took,
            took,
            result: if late { RunResult::TimedOut } else { answer.result },
        };
        inner.started.push(order.clone());
        inner.claims.insert(name, claim.clone());
        self.api.touch();
        claim
    }

    /// Asks one question after the other; what each does is decided when it is asked.
    async fn collect(&self, questions: &Questions, heard: Heard<'_>) -> Result<(), ExecError> {
        let Questions { namespace, pod, container, request, .. } = questions;
        let (uid, _) = self.container(namespace, pod, container).ok_or_else(unreachable)?;
        if uid != request.pod_uid {
            return Err(ExecError::Refused("the pod of this name is another".to_owned()));
        }
        let names = request.probes.iter().map(|probe| probe.name.clone()).collect();
        self.lock().rounds.push(Round { at: Instant::now(), pod: pod.clone(), names });
        for asked in &request.probes {
            let sample = self.lock().answer(pod, asked);
            tokio::time::sleep(Duration::from_millis(sample.duration_ms)).await;
            if let (Some(content), RunResult::Exited { code: 0 }) = (asked.env.get(PUT_CONTENT), &sample.result) {
                let mut inner = self.lock();
                if asked.name == AGENDA {
                    inner.agents.put(pod, content);
                } else {
                    inner.put.push((Instant::now(), pod.clone(), content.clone()));
                }
            }
            heard(Collected::Probe(sample));
        }
        heard(Collected::Usage(self.lock().usage));
        Ok(())
    }

    /// Asks for one run, and waits for its outcome.
    ///
    /// # Errors
    /// When the container does not run, or ends before the run does.
    pub async fn run(&self, order: &Order) -> Result<Outcome, ExecError> {
        let (uid, container_id) = self.reach(order).ok_or_else(unreachable)?;
        if uid != order.request.pod_uid {
            return Ok(outcome(order, RunResult::Refused { why: Refusal::OtherPod { uid } }, Duration::ZERO));
        }
        if let Some(message) = order.request.fault() {
            return Ok(outcome(order, RunResult::Refused { why: Refusal::BadRequest { message } }, Duration::ZERO));
        }
        let claim = self.claim(order, &uid, &container_id);
        if claim.container_id != container_id && Instant::now() < claim.ends {
            return Ok(outcome(order, RunResult::Interrupted, Duration::ZERO));
        }
        tokio::time::sleep_until(claim.ends).await;
        match self.reach(order) {
            Some((_, now)) if now == container_id => Ok(outcome(order, claim.result, claim.took)),
            _ => Err(ExecError::Cut),
        }
    }
}

/// The runners as one process reaches them: its connections end with it, and are faulty as the API server's are.
struct Reached {
    runner: Runner,
    process: Process,
}

impl Exec for Reached {
    fn run<'a>(&'a self, order: &'a Order) -> BoxFuture<'a, Result<Outcome, ExecError>> {
        Box::pin(async move {
            let Process { name, api, crash } = &self.process;
            let call = Call { process: name.clone(), kind: "EXEC".to_owned(), name: order.pod.clone() };
            match api.enter(call) {
                None => self.runner.run(order).await,
                Some(Fault::Status(code)) => {
                    let error = kube::Error::Api(Box::new(Status::failure("as the test asked for", "").with_code(code)));
                    Err(if code == 403 { ExecError::Denied(error) } else { ExecError::Unreachable(error) })
                }
                Some(fault) => {
                    if let (true, Some((uid, container_id))) = (fault.is_carried_out(), self.runner.reach(order)) {
                        self.runner.claim(order, &uid, &container_id);
                    }
                    match fault {
                        Fault::CrashBefore | Fault::CrashAfter => crash.notify_one(),
                        Fault::Silence => {}
                        _ => return Err(ExecError::Cut),
                    }
                    std::future::pending().await
                }
            }
        })
    }

    fn collect<'a>(&'a self, questions: &'a Questions, heard: Heard<'a>) -> BoxFuture<'a, Result<(), ExecError>> {
        Box::pin(async move {
            let Process { name, api, crash } = &self.process;
            let call = Call { process: name.clone(), kind: "COLLECT".to_owned(), name: questions.pod.clone() };
            match api.enter(call) {
                None => self.runner.collect(questions, heard).await,
                Some(Fault::Status(403)) => {
                    let error = kube::Error::Api(Box::new(Status::failure("as the test asked for", "").with_code(403)));
                    Err(ExecError::Denied(error))
                }
                Some(Fault::Status(404)) => Err(ExecError::Unsupported),
                Some(Fault::CrashBefore | Fault::CrashAfter) => {
                    crash.notify_one();
                    std::future::pending().await
                }
                Some(Fault::Silence) => {
                    tokio::time::sleep(UNANSWERED).await;
                    Err(ExecError::Silent(UNANSWERED))
                }
                Some(_) => Err(ExecError::Cut),
            }
        })
    }

    fn read<'a>(&'a self, agent: SocketAddr, heard: Heard<'a>) -> BoxFuture<'a, Result<(), ExecError>> {
        self.runner.read(&self.process, agent, heard)
    }

    fn tell<'a>(&'a self, notice: &'a Notice) -> BoxFuture<'a, Result<(), ExecError>> {
        Box::pin(async move {
            let Process { name, api, .. } = &self.process;
            match api.enter(Call { process: name.clone(), kind: "TELL".to_owned(), name: notice.pod.clone() }) {
                None => self.runner.tell(notice),
                Some(_) => Err(ExecError::Cut),
            }
        })
    }
}

fn unreachable() -> ExecError {
    let status = Status::failure("container not found", "NotFound").with_code(404);
    ExecError::Unreachable(kube::Error::Api(Box::new(status)))
}

fn outcome(order: &Order, result: RunResult, took: Duration) -> Outcome {
    Outcome {
        version: PROTOCOL,
        run_id: order.request.run_id.clone(),
        result,
        duration_ms: u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
        stdout: Tail::default(),
        stderr: Tail::default(),
        survivors: 0,
    }
}
