//! The runner in every pod: one start per run id, an outcome for whoever asks, whether the asker lives or not.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::future::BoxFuture;
use guardian_core::sim::Resource;
use guardian_hook::protocol::{Outcome, PROTOCOL, Refusal, RunResult, Tail};
use kube::core::Status;
use stateful_guardian::controller::{Exec, ExecError, Order};
use tokio::time::Instant;

use crate::api::{Api, Call, Process};
use crate::fault::Fault;

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
    claims: BTreeMap<(String, String), Claim>,
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

    /// As a process reaches them.
    pub(crate) fn reached_by(&self, process: &Process) -> Arc<dyn Exec> {
        Arc::new(Reached { runner: self.clone(), process: process.clone() })
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// uid of the pod and id of the container, if it runs.
    fn container(&self, order: &Order) -> Option<(String, String)> {
        let key = Resource::new("v1", "pods").named(&order.namespace, &order.pod);
        self.api.world(|world| {
            let pod = world.get(&key).ok()?;
            let statuses = pod["status"]["containerStatuses"].as_array()?;
            let status = statuses.iter().find(|s| s["name"] == order.container.as_str() && s["state"]["running"].is_object())?;
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
        claim
    }

    async fn run(&self, order: &Order) -> Result<Outcome, ExecError> {
        let Some((uid, container_id)) = self.container(order) else {
            let status = Status::failure("container not found", "NotFound").with_code(404);
            return Err(ExecError::Unreachable(kube::Error::Api(Box::new(status))));
        };
        if uid != order.request.pod_uid {
            return Ok(outcome(order, RunResult::Refused { why: Refusal::OtherPod { uid } }, Duration::ZERO));
        }
        let claim = self.claim(order, &uid, &container_id);
        if claim.container_id != container_id && Instant::now() < claim.ends {
            return Ok(outcome(order, RunResult::Interrupted, Duration::ZERO));
        }
        tokio::time::sleep_until(claim.ends).await;
        match self.container(order) {
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
                    if let (true, Some((uid, container_id))) = (fault.is_carried_out(), self.runner.container(order)) {
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
