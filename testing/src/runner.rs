//! The runner in every pod: one start per run id, an outcome for whoever asks, whether the asker lives or not.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::future::BoxFuture;
use guardian_core::sim::Resource;
use guardian_hook::protocol::{Collected, Outcome, PROTOCOL, Refusal, RunResult, Sample, Tail, Usage};
use kube::core::Status;
use stateful_guardian::controller::{Exec, ExecError, Notice, Order, Questions};
use tokio::time::Instant;

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
struct Inner {
    answers: Vec<Answer>,
    started: Vec<Order>,
    notices: Vec<Notice>,
    /// What the role probe of each pod does.
    roles: BTreeMap<String, Role>,
    asked: Vec<(Instant, String)>,
    claims: BTreeMap<(String, String), Claim>,
}

/// What a role probe does.
#[derive(Clone)]
struct Role {
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
        let role = Role { takes: Duration::from_millis(50), result: RunResult::Exited { code: 0 }, prints: text.to_owned() };
        self.lock().roles.insert(pod.to_owned(), role);
    }

    /// From now on the role probe of this pod goes like this, and prints nothing.
    pub fn probe(&self, pod: &str, answer: Answer) {
        let Answer { takes, result } = answer;
        self.lock().roles.insert(pod.to_owned(), Role { takes, result, prints: String::new() });
    }

    /// The pods that were asked for their role, and when, in order.
    #[must_use]
    pub fn asked(&self) -> Vec<(Instant, String)> {
        self.lock().asked.clone()
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

    fn lock(&self) -> MutexGuard<'_, Inner> {
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
            let statuses = pod["status"]["containerStatuses"].as_array()?;
            let status = statuses.iter().find(|s| s["name"] == container && s["state"]["running"].is_object())?;
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

    /// Asks one question; what it does is decided when it is asked.
    async fn collect(&self, questions: &Questions) -> Result<Vec<Collected>, ExecError> {
        let Questions { namespace, pod, container, request } = questions;
        let (uid, _) = self.container(namespace, pod, container).ok_or_else(unreachable)?;
        if uid != request.pod_uid {
            return Err(ExecError::Refused("the pod of this name is another".to_owned()));
        }
        let [probe] = &request.probes[..] else { panic!("one question: {request:?}") };
        let role = {
            let mut inner = self.lock();
            inner.asked.push((Instant::now(), pod.clone()));
            let silent = Role { takes: Duration::ZERO, result: RunResult::Exited { code: 0 }, prints: String::new() };
            inner.roles.get(pod).cloned().unwrap_or(silent)
        };
        let timeout = Duration::from_millis(probe.timeout_ms);
        tokio::time::sleep(role.takes.min(timeout)).await;
        let result = if role.takes > timeout { RunResult::TimedOut } else { role.result };
        let stdout = Tail { text: role.prints, dropped: 0 };
        let sample = Sample { name: probe.name.clone(), result, duration_ms: 1, stdout, stderr: Tail::default() };
        Ok(vec![Collected::Probe(sample), Collected::Usage(Usage::default())])
    }

    async fn run(&self, order: &Order) -> Result<Outcome, ExecError> {
        let (uid, container_id) = self.reach(order).ok_or_else(unreachable)?;
        if uid != order.request.pod_uid {
            return Ok(outcome(order, RunResult::Refused { why: Refusal::OtherPod { uid } }, Duration::ZERO));
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

    fn collect<'a>(&'a self, questions: &'a Questions) -> BoxFuture<'a, Result<Vec<Collected>, ExecError>> {
        Box::pin(async move {
            let Process { name, api, crash } = &self.process;
            let call = Call { process: name.clone(), kind: "COLLECT".to_owned(), name: questions.pod.clone() };
            match api.enter(call) {
                None => self.runner.collect(questions).await,
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
