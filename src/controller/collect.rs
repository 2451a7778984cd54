//! What the pods are asked again and again: their role and their metrics. Paced, bounded, and fair between namespaces.
//!
//! A pass says what is to be asked of the pods of a set; the asking goes on by itself. What is due in a container at the same time goes to it in one
//! exec, and each answer counts as soon as it is there: the role comes first, and is due again while a command after it still hangs. A command that
//! took long is asked apart from the others from then on. An interval that has passed while nobody had the time is skipped and counted, never made
//! up for. Intervals are counted from the first time that a container was asked, so what has the same interval stays together.

mod agent;
mod queue;
mod told;

use std::collections::BTreeMap;
use std::error::Error as _;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::channel::mpsc;
use futures::{SinkExt as _, StreamExt as _};
use guardian_core::policy::{Metric, Policy, Probe, Role};
use guardian_core::probe::{End, Failure};
use guardian_core::{metric, names};
use guardian_hook::protocol::{self, Collected, Sample};
use prometheus::{Histogram, HistogramOpts, IntCounterVec, Opts, Registry};
use tokio::sync::Notify;
use tokio::task::{Id, JoinError, JoinSet};
use tokio::time::{Instant, sleep_until};

use super::SetKey;
use super::clock::Clock;
use super::exec::{Exec, ExecError};
use super::roles::Roles;
use super::samples::Samples;
pub use agent::Agent;
pub(super) use agent::address;
use queue::{Key, Queue};
use told::Told;

/// Between the beginnings of two execs: at most 50 a second. One costs the API server 8 ms of CPU, so that is 0.4 of one CPU there, and 32 ms the node
/// of its pod.
const PACE: Duration = Duration::from_millis(20);
/// Behind questions for which a connection is open already.
const OPEN_PACE: Duration = Duration::from_millis(2);
/// Pause before a question is asked again in a namespace that does not let us: a person has to act first.
const DENIED_PAUSE: Duration = Duration::from_secs(5 * 60);
/// Pause before it is asked again in a pod whose runner is too old, or not there: that lasts as long as the pod.
const UNABLE_PAUSE: Duration = Duration::from_secs(10 * 60);
/// Pause before an agent is told again what it does not take: each time is an exec.
const NOT_TAKEN_PAUSE: Duration = Duration::from_secs(60);

/// A container of a pod.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Container {
    pub(super) pod_uid: String,
    pub(super) name: String,
}

/// What is asked in a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Asking {
    /// Name of the pod.
    pub(super) pod: String,
    /// Does the container run? Else nothing is asked.
    pub(super) runs: bool,
    /// What every command is told of where it runs, but for its own name.
    pub(super) env: BTreeMap<String, String>,
    /// Where the container has its data, if it has a volume for it.
    pub(super) disk: Option<String>,
    pub(super) subjects: Vec<Subject>,
    /// Where the pod's own agent answers, which asks all this by itself.
    pub(super) agent: Option<SocketAddr>,
}

/// What a question is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Subject {
    Role(Arc<Role>),
    Metric(Arc<Metric>),
    /// What the container uses, which comes with every answer: a command that does nothing, for rules where nothing else is asked.
    Usage(Probe),
    /// Nothing is asked here: the pod is told who is in its set, by a command of the runner that writes it down.
    Members(Probe, Arc<str>),
}

/// How often rules want to know what a container uses.
const USAGE_EVERY: Duration = Duration::from_secs(5);
/// How often a pod is told of its set what it has been told already: something in the pod may have changed it. A change is told at once.
const MEMBERS_EVERY: Duration = Duration::from_secs(5 * 60);

impl Subject {
    /// Names the question in its request, and tells its command what it is asked for.
    pub(super) fn name(&self) -> String {
        match self {
            Self::Role(_) => "role".to_owned(),
            Self::Metric(metric) => format!("metrics.{}", metric.name),
            Self::Usage(_) => "usage".to_owned(),
            Self::Members(..) => "members".to_owned(),
        }
    }

    pub(super) fn probe(&self) -> &Probe {
        match self {
            Self::Role(role) => &role.probe,
            Self::Metric(metric) => &metric.probe,
            Self::Usage(probe) | Self::Members(probe, _) => probe,
        }
    }

    fn every(&self) -> Duration {
        match self {
            Self::Role(role) => role.every,
            Self::Metric(metric) => metric.every,
            Self::Usage(_) => USAGE_EVERY,
            Self::Members(..) => MEMBERS_EVERY,
        }
    }

    pub(super) const fn is_role(&self) -> bool {
        matches!(self, Self::Role(_))
    }

    const fn is_members(&self) -> bool {
        matches!(self, Self::Members(..))
    }

    fn question(&self, env: &BTreeMap<String, String>) -> protocol::Probe {
        let (name, probe) = (self.name(), self.probe());
        let mut env = env.clone();
        env.insert("GUARDIAN_HOOK".to_owned(), name.clone());
        if let Self::Members(_, content) = self {
            env.insert(protocol::PUT_CONTENT.to_owned(), content.to_string());
        }
        let max_output = match self {
            Self::Role(_) | Self::Usage(_) | Self::Members(..) => protocol::MAX_ANSWER,
            Self::Metric(_) => metric::MAX_OUTPUT,
        };
        let timeout_ms = u64::try_from(probe.timeout.as_millis()).unwrap_or(u64::MAX);
        protocol::Probe { name, program: probe.program.clone(), env, timeout_ms, max_output }
    }
}

/// All that is asked, and who is told the answers.
pub(super) struct Collector {
    exec: Arc<dyn Exec>,
    roles: Roles,
    samples: Samples,
    told: Told,
    metrics: Metrics,
    queue: Mutex<Queue>,
    changed: Notify,
}

type Asked = Result<(), ExecError>;

impl Collector {
    pub(super) fn new(exec: Arc<dyn Exec>, clock: Clock, samples: Samples, metrics: Metrics) -> Self {
        let roles = Roles::new(clock, metrics.answers.clone());
        Self { exec, roles, samples, told: Told::default(), metrics, queue: Mutex::default(), changed: Notify::new() }
    }

    /// What the pods have said of their roles.
    pub(super) const fn roles(&self) -> &Roles {
        &self.roles
    }

    /// What they have said of everything else.
    pub(super) const fn samples(&self) -> &Samples {
        &self.samples
    }

    /// Why a pod of the set does not know its members, where that is so.
    pub(super) fn untold(&self, set: &SetKey) -> Option<String> {
        self.told.why_not(set)
    }

    /// This is to be asked in the pods of the set from now on, and nothing else. What is new, or was changed, is asked at once.
    pub(super) fn keep(&self, set: &SetKey, policy: Option<&Policy>, asked: BTreeMap<Container, Asking>) {
        self.roles.keep(set, &asked);
        self.samples.keep(set, policy, &asked);
        self.told.keep(set, &asked);
        self.queue().keep(set, asked);
        self.changed.notify_one();
    }

    /// Nobody is asked for anything in a set that is gone.
    pub(super) fn forget(&self, set: &SetKey) {
        self.keep(set, None, BTreeMap::new());
    }

    /// Something has happened to the set: its roles are asked for now, and not at their time.
    pub(super) fn hurry(&self, set: &SetKey) {
        self.queue().hurry(set);
        self.changed.notify_one();
    }

    /// Asks, and tells `heard` whose pods have said something else of their role. Dropping it cuts all connections, which ends what runs in the pods.
    pub(super) async fn drive(&self, mut heard: mpsc::Sender<SetKey>) {
        let (answered, mut answers) = mpsc::unbounded();
        let mut tasks = JoinSet::new();
        let mut numbers: BTreeMap<Id, u64> = BTreeMap::new();
        let mut free = Instant::now();
        loop {
            let wake = self.start(&mut tasks, &mut numbers, &mut free, &answered);
            let mut news = Vec::new();
            tokio::select! {
                () = self.changed.notified() => {}
                () = sleep_until(wake.unwrap_or_else(Instant::now)), if wake.is_some() => {}
                Some((number, line)) = answers.next() => news.extend(self.answer(number, line)),
                Some(done) = tasks.join_next_with_id() => {
                    // All that it said is there by now, and comes before its end.
                    while let Ok((number, line)) = answers.try_recv() {
                        news.extend(self.answer(number, line));
                    }
                    let id = done.as_ref().map_or_else(JoinError::id, |(id, _)| *id);
                    let number = numbers.remove(&id);
                    news.extend(number.and_then(|number| self.end(number, done.map(|(_, asked)| asked))));
                }
            }
            for set in news {
                // Full only while the queue is far behind; it is never closed before this ends.
                let _ = heard.send(set).await;
            }
        }
    }

    /// Asks what is due, as far as the bounds allow; says when to look again, unless something happens before.
    fn start(
        &self,
        tasks: &mut JoinSet<Asked>,
        numbers: &mut BTreeMap<Id, u64>,
        free: &mut Instant,
        answered: &mpsc::UnboundedSender<(u64, Collected)>,
    ) -> Option<Instant> {
        let now = Instant::now();
        let mut queue = self.queue();
        loop {
            let next = queue.next(now)?;
            let at = next.due.max(*free);
            if at > now {
                return Some(at);
            }
            let due = next.due;
            let Some((number, questions)) = queue.begin(next, now) else { continue };
            let is_open = questions.agent.is_some() || self.exec.is_open(&questions);
            *free = now + if is_open { OPEN_PACE } else { PACE };
            self.metrics.lateness.observe(now.duration_since(due).as_secs_f64());
            let (exec, answered) = (Arc::clone(&self.exec), answered.clone());
            // An answer to each question, and one of usage: whatever a runner says beyond that is not kept.
            let mut left = questions.request.probes.len() + 1;
            let task = tasks.spawn(async move {
                let mut hear = |line| {
                    if left > 0 && matches!(line, Collected::Probe(_) | Collected::Usage(_) | Collected::Waits { .. }) {
                        left -= 1;
                        // Whoever drives this hears it.
                        let _ = answered.unbounded_send((number, line));
                    }
                };
                match &questions.agent {
                    Some(agent) => agent::ask(&*exec, agent, &questions, &mut hear).await,
                    None => exec.collect(&questions, &mut hear).await,
                }
            });
            numbers.insert(task.id(), number);
        }
    }

    /// Takes a line of an answer; gives the set where it is news.
    fn answer(&self, number: u64, line: Collected) -> Option<SetKey> {
        let key = self.queue().key(number)?.clone();
        match line {
            Collected::Probe(sample) => {
                let ended = self.queue().answered(number, &sample, Instant::now())?;
                self.count_skipped(&ended);
                let is_stale = sample.age_ms.is_some_and(|age_ms| agent::is_stale(&ended.subject, age_ms));
                let answer = if is_stale { Err(stale()) } else { Ok(&sample) };
                self.hear(&key, &ended, answer).then_some(key.0)
            }
            Collected::Waits { name, age_ms } => {
                let ended = self.queue().waits(number, &name, Instant::now())?;
                self.count_skipped(&ended);
                let is_stale = agent::is_stale(&ended.subject, age_ms);
                (is_stale && self.hear(&key, &ended, Err(stale()))).then_some(key.0)
            }
            // What a sidecar uses is not what the application does.
            Collected::Usage(_) if key.1.name == names::AGENT => None,
            Collected::Usage(usage) => {
                let every = self.queue().shortest(&key)?;
                self.samples.uses(&key.0, &key.1, usage, every);
                None
            }
            _ => None,
        }
    }

    /// An exec has ended: what it has not answered has failed. Gives the set where that is news.
    fn end(&self, number: u64, asked: Result<Asked, JoinError>) -> Option<SetKey> {
        let (failure, pause) = failed(asked);
        let (key, unanswered) = self.queue().end(number, pause, Instant::now())?;
        let mut is_news = false;
        for ended in &unanswered {
            self.count_skipped(ended);
            is_news |= self.hear(&key, ended, Err(failure.clone()));
        }
        is_news.then_some(key.0)
    }

    /// Says whether that changes what is known of a role, or what a pod knows.
    fn hear(&self, (set, container): &Key, ended: &queue::Ended, answer: Result<&Sample, Failure>) -> bool {
        match &ended.subject {
            Subject::Role(_) => self.roles.hear(set, &container.pod_uid, answer),
            Subject::Metric(metric) => {
                self.samples.hear(set, (&container.pod_uid, &ended.pod), metric, answer);
                false
            }
            Subject::Usage(_) => false,
            Subject::Members(..) => self.told.hear(set, (&container.pod_uid, &ended.pod), answer),
        }
    }

    fn count_skipped(&self, ended: &queue::Ended) {
        let kind = match ended.subject {
            Subject::Role(_) => "role",
            Subject::Members(..) => "members",
            Subject::Metric(_) | Subject::Usage(_) => "metric",
        };
        self.metrics.skipped.with_label_values(&[kind]).inc_by(ended.skipped);
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The agent answers, and asks no more.
fn stale() -> Failure {
    Failure { end: End::Unreachable, why: "the pod's agent has asked nothing for more than two intervals".to_owned() }
}

/// What it means for what was not answered, and a pause where it is of no use to ask at the next interval.
fn failed(asked: Result<Asked, JoinError>) -> (Failure, Option<Duration>) {
    let failure = |end, why| Failure { end, why };
    match asked {
        Ok(Ok(())) => (failure(End::Unreachable, "its runner has not answered the question".to_owned()), None),
        Ok(Err(error)) => {
            let (end, pause) = match &error {
                ExecError::Denied(_) => (End::Denied, Some(DENIED_PAUSE)),
                ExecError::Unsupported | ExecError::NoRunner => (End::Unable, Some(UNABLE_PAUSE)),
                ExecError::NotTaken(_) => (End::Unreachable, Some(NOT_TAKEN_PAUSE)),
                _ => (End::Unreachable, None),
            };
            let why = error.source().map_or_else(|| error.to_string(), |source| format!("{error}: {source}"));
            (failure(end, why), pause)
        }
        Err(error) => (failure(End::Unreachable, format!("asking it failed: {error}")), None),
    }
}

/// What is counted of the asking.
pub(super) struct Metrics {
    lateness: Histogram,
    skipped: IntCounterVec,
    answers: IntCounterVec,
}

impl Metrics {
    pub(super) fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let lateness = HistogramOpts::new("guardian_collect_lateness_seconds", "How long after its time a pod was asked");
        let skipped = Opts::new(
            "guardian_collect_skipped_total",
            "Times at which a pod was to be asked for its role or a metric, or told its members, and nobody had the time",
        );
        let answers = Opts::new("guardian_role_answers_total", "Answers to the question for a pod's role, by what they were");
        let metrics = Self {
            lateness: Histogram::with_opts(lateness.buckets(vec![0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0]))?,
            skipped: IntCounterVec::new(skipped, &["probe"])?,
            answers: IntCounterVec::new(answers, &["answer"])?,
        };
        registry.register(Box::new(metrics.lateness.clone()))?;
        registry.register(Box::new(metrics.skipped.clone()))?;
        registry.register(Box::new(metrics.answers.clone()))?;
        Ok(metrics)
    }
}

#[cfg(test)]
mod tests;
