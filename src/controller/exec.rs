//! Asks the runner in a pod to carry out one run, and waits for its outcome.

mod kept;
mod page;
mod spoken;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures::future::{BoxFuture, pending};
use guardian_core::names;
use guardian_hook::protocol::{Collect, Collected, Outcome, Request, StopReason, Streamed, frame};
use k8s_openapi::api::core::v1::Pod;
use kube::api::AttachParams;
use kube::{Api, Client};
use tokio::sync::{Notify, watch};
use tokio::time::timeout;

use super::collect::Agent;
use kept::{Kept, Place};
use spoken::{Listener, Session, Spoken};

/// How long the connection to a container may take: API server and kubelet each have a few seconds for it on a busy node.
const CONNECT: Duration = Duration::from_secs(10);
/// How long beyond the hook's own time out the runner may take to kill what it started, to reap it and to answer.
const SLACK: Duration = Duration::from_secs(20);
/// Size of the pipe to the runner's standard input: fewer, larger frames on the wire.
const STDIN_PIPE: usize = 64 * 1024;
/// Size of the pipe from its standard output: an answer need not wait for us piece by piece.
const STDOUT_PIPE: usize = 64 * 1024;

/// One run, addressed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Order {
    /// Namespace of the pod.
    pub namespace: String,
    /// Name of the pod. The request carries the uid that is meant.
    pub pod: String,
    /// The container in which it runs.
    pub container: String,
    /// What the runner is asked.
    pub request: Request,
}

/// Questions that change nothing, addressed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Questions {
    /// Namespace of the pod.
    pub namespace: String,
    /// Name of the pod. The request carries the uid that is meant.
    pub pod: String,
    /// The container in which they are asked.
    pub container: String,
    /// What the runner is asked. Where it is to wait for another request, the connection is kept for that.
    pub request: Collect,
    /// Who asks this in the pod all the time, and is only read; `None`: nobody.
    pub agent: Option<Arc<Agent>>,
}

/// Why a pod is being stopped, addressed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    /// Namespace of the pod.
    pub namespace: String,
    /// Name of the pod. The reason carries the uid that is meant.
    pub pod: String,
    /// The container in which its preStop runs.
    pub container: String,
    /// The reason.
    pub reason: StopReason,
}

/// No outcome. Whether the run was started is not known, unless it says otherwise.
#[derive(Debug, thiserror::Error)]
pub enum ExecError {
    /// The API server does not let us.
    #[error("no right to exec in the pod")]
    Denied(#[source] kube::Error),
    /// The exec was not begun, as far as we know.
    #[error("no connection to the container")]
    Unreachable(#[source] kube::Error),
    /// Nobody answered in time.
    #[error("no answer from the runner within {} s", .0.as_secs())]
    Silent(Duration),
    /// The connection ended without a word on how the runner ended.
    #[error("the connection to the runner was lost")]
    Cut,
    /// The runner, or what was in its place, ended without an outcome.
    #[error("the runner ended without an outcome: {0}")]
    NoOutcome(String),
    /// It was started with an older version of the runner, which cannot do this. It stays so as long as the pod lives.
    #[error("the runner of this pod is from before probes: its next template change brings a newer one")]
    Unsupported,
    /// There is none.
    #[error("the pod has no runner: it was made without the guardian, or its init container has not run")]
    NoRunner,
    /// It refused.
    #[error("the runner refused: {0}")]
    Refused(String),
    /// Nothing, or nonsense, came from the address of the agent.
    #[error("the pod's agent cannot be read: {0}")]
    NoAgent(String),
    /// It was told what to ask.
    #[error("the pod's agent does not take its questions: {0}")]
    NotTaken(String),
    /// The request cannot be sent.
    #[error("the request is too large")]
    Request(#[from] guardian_hook::protocol::FrameError),
}

/// Whoever is told the lines of an answer.
pub type Heard<'a> = &'a mut (dyn FnMut(Collected) + Send);

/// Carries out runs in pods. The same run id may be asked for as often as one likes: it is started once.
pub trait Exec: Send + Sync {
    /// Asks for one run and waits for its outcome.
    fn run<'a>(&'a self, order: &'a Order) -> BoxFuture<'a, Result<Outcome, ExecError>>;

    /// Asks questions once, tells each answer as it comes, and ends when all have come.
    fn collect<'a>(&'a self, questions: &'a Questions, heard: Heard<'a>) -> BoxFuture<'a, Result<(), ExecError>>;

    /// Is there a connection that only waits for these? Then they cost a tenth of what a new exec does.
    fn is_open(&self, questions: &Questions) -> bool {
        let _ = questions;
        false
    }

    /// Reads what the agent at this address serves, and tells each line: first who it is.
    fn read<'a>(&'a self, agent: SocketAddr, heard: Heard<'a>) -> BoxFuture<'a, Result<(), ExecError>>;

    /// Tells a pod why it is being stopped.
    fn tell<'a>(&'a self, notice: &'a Notice) -> BoxFuture<'a, Result<(), ExecError>>;
}

/// The runner in a real pod, through `pods/exec`.
pub struct PodExec {
    client: Client,
    /// Connections over which a container was asked, and will be again.
    kept: Kept,
}

impl PodExec {
    /// Through this client.
    #[must_use]
    pub fn new(client: Client) -> Self {
        Self { client, kept: Kept::default() }
    }

    /// As [`Exec::run`], and tells what the run writes as it comes, where the request has `stream`.
    ///
    /// # Errors
    /// As [`Exec::run`].
    pub async fn run_heard(&self, order: &Order, heard: &mut (dyn FnMut(&Streamed) + Send)) -> Result<Outcome, ExecError> {
        let mut listener = |line: &[u8]| serde_json::from_slice(line).map(|streamed| heard(&streamed)).is_err();
        self.carry_out(order, &mut listener).await
    }

    async fn carry_out(&self, order: &Order, listener: Listener<'_>) -> Result<Outcome, ExecError> {
        let limit = CONNECT + Duration::from_millis(order.request.timeout_ms) + SLACK;
        let Order { namespace, pod, container, request } = order;
        let at = Address { namespace, pod, container };
        let spoken = timeout(limit, converse(&self.client, at, RUN, &frame(request)?, listener)).await;
        spoken.unwrap_or(Err(ExecError::Silent(limit)))?.outcome(&request.run_id)
    }
}

impl ExecError {
    /// Was the runner never asked? Then nothing was started by it.
    #[must_use]
    pub fn is_before_the_request(&self) -> bool {
        match self {
            Self::Denied(_) | Self::Unreachable(_) | Self::Request(_) => true,
            Self::Silent(within) => *within == CONNECT,
            _ => false,
        }
    }
}

impl Exec for PodExec {
    fn run<'a>(&'a self, order: &'a Order) -> BoxFuture<'a, Result<Outcome, ExecError>> {
        Box::pin(async move { self.carry_out(order, &mut |_| true).await })
    }

    fn collect<'a>(&'a self, questions: &'a Questions, heard: Heard<'a>) -> BoxFuture<'a, Result<(), ExecError>> {
        Box::pin(async move {
            let (place, message) = (Place::of(questions), frame(&questions.request)?);
            let answered = AtomicBool::new(false);
            let mut heard = |line| {
                answered.store(true, Ordering::Relaxed);
                heard(line);
            };
            if let Some(mut session) = self.kept.take(&place) {
                match ask(&mut session, questions, &message, &mut heard).await {
                    Ok(None) => {
                        self.kept.put(place, session, questions);
                        return Ok(());
                    }
                    // The runner had ended by then, or the connection, and nobody was asked; with a new one that shows at once.
                    Ok(Some(_)) | Err(ExecError::Cut) if !answered.load(Ordering::Relaxed) => {}
                    Ok(Some(spoken)) => return spoken.collected(),
                    Err(error) => return Err(error),
                }
            }
            let Questions { namespace, pod, container, .. } = questions;
            let mut session = open(&self.client, Address { namespace, pod, container }, "collect").await?;
            match ask(&mut session, questions, &message, &mut heard).await? {
                None => {
                    self.kept.put(place, session, questions);
                    Ok(())
                }
                Some(spoken) => spoken.collected(),
            }
        })
    }

    fn read<'a>(&'a self, agent: SocketAddr, heard: Heard<'a>) -> BoxFuture<'a, Result<(), ExecError>> {
        Box::pin(page::read(agent, heard))
    }

    fn is_open(&self, questions: &Questions) -> bool {
        self.kept.has(&Place::of(questions))
    }

    fn tell<'a>(&'a self, notice: &'a Notice) -> BoxFuture<'a, Result<(), ExecError>> {
        Box::pin(async move {
            let Notice { namespace, pod, container, reason } = notice;
            let at = Address { namespace, pod, container };
            let spoken = timeout(TELL, converse(&self.client, at, "reason", &frame(reason)?, &mut |_| true)).await;
            spoken.unwrap_or(Err(ExecError::Silent(TELL)))?.noted()
        })
    }
}

/// The command of the runner that carries out a run.
const RUN: &str = "run";

/// How long a pod may take that is told why it stops. It is a write of a hundred bytes.
const TELL: Duration = Duration::from_secs(5);

/// A container.
#[derive(Clone, Copy)]
struct Address<'a> {
    namespace: &'a str,
    pod: &'a str,
    container: &'a str,
}

/// Asks once over a connection; gives what the runner said where it has ended. Answers come one by one: a connection that died is noticed as soon as
/// one of them is overdue.
async fn ask(
    session: &mut Session,
    questions: &Questions,
    message: &[u8],
    heard: Heard<'_>,
) -> Result<Option<Spoken>, ExecError> {
    let times = || questions.request.probes.iter().map(|probe| Duration::from_millis(probe.timeout_ms));
    let limit = CONNECT + times().sum::<Duration>() + SLACK;
    let silence = CONNECT + times().max().unwrap_or_default() + SLACK;
    let (answered, mut answers) = watch::channel(());
    let all = Notify::new();
    let mut listener = |line: &[u8]| {
        answered.send_replace(());
        if let Ok(line) = serde_json::from_slice(line) {
            // Of what it uses a runner tells last.
            let is_last = matches!(line, Collected::Usage(_));
            heard(line);
            if is_last {
                all.notify_one();
            }
        }
        true
    };
    let spoken = timeout(limit, session.converse(message, &mut listener, all.notified()));
    let overdue = async { while let Ok(Ok(())) = timeout(silence, answers.changed()).await {} };
    tokio::select! {
        spoken = spoken => spoken.unwrap_or(Err(ExecError::Silent(limit))),
        () = overdue => Err(ExecError::Silent(silence)),
    }
}

/// Starts a command of the runner, sends it a message, and waits until it has ended.
async fn converse(
    client: &Client,
    at: Address<'_>,
    command: &str,
    message: &[u8],
    listener: Listener<'_>,
) -> Result<Spoken, ExecError> {
    let mut session = open(client, at, command).await?;
    session.converse(message, listener, pending()).await?.ok_or(ExecError::Cut)
}

/// Starts a command of the runner.
async fn open(client: &Client, at: Address<'_>, command: &str) -> Result<Session, ExecError> {
    let pods: Api<Pod> = Api::namespaced(client.clone(), at.namespace);
    let params = AttachParams {
        container: Some(at.container.to_owned()),
        stdin: true,
        stdout: true,
        stderr: true,
        tty: false,
        max_stdin_buf_size: Some(STDIN_PIPE),
        max_stdout_buf_size: (command == RUN).then_some(STDOUT_PIPE),
        ..AttachParams::default()
    };
    let connecting = pods.exec(at.pod, [names::RUNNER, command], &params);
    match timeout(CONNECT, connecting).await {
        Ok(Ok(process)) => Session::new(process),
        Ok(Err(error)) => Err(refused(error)),
        Err(_) => Err(ExecError::Silent(CONNECT)),
    }
}

fn refused(error: kube::Error) -> ExecError {
    match &error {
        kube::Error::Api(status) if status.code == 403 => ExecError::Denied(error),
        _ => ExecError::Unreachable(error),
    }
}

#[cfg(test)]
mod tests;
