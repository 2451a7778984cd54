//! What the pods say of their roles: asked again and again, bounded, and kept until the pods are gone.
//!
//! A pass says which pods are to be asked; the asking goes on by itself, and brings a set to a pass only when something it was told has changed.
//! An interval that has passed while nobody had the time is skipped and counted, never made up for.

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error as _;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::SinkExt as _;
use futures::channel::mpsc;
use guardian_core::lifecycle;
use guardian_core::role::{self, Claim, Silence, Witness};
use guardian_hook::protocol::Collected;
use prometheus::{Histogram, HistogramOpts, IntCounter, IntCounterVec, Opts, Registry};
use tokio::sync::Notify;
use tokio::task::{Id, JoinError, JoinSet};
use tokio::time::{Instant, sleep_until};

use super::SetKey;
use super::clock::Clock;
use super::exec::{Exec, ExecError, Questions};

/// Questions under way in all. One exec takes about 1.3 MB on the other side while it lasts, usually 55 ms: 64 that hang are about 80 MB there.
const AT_ONCE: usize = 64;
/// Questions under way in one namespace: a quarter, so that pods which hang in one keep no other waiting.
const AT_ONCE_PER_NAMESPACE: usize = 16;
/// Between the beginnings of two questions: at most 50 a second. One costs the API server 8 ms of CPU, so that is 0.4 of one CPU there, and 32 ms the
/// node of its pod.
const PACE: Duration = Duration::from_millis(20);
/// Pause before a namespace is asked again that does not let us: a person has to act first.
const DENIED_PAUSE: Duration = Duration::from_secs(5 * 60);
/// Pause before a pod is asked again whose runner is too old, or not there: that lasts as long as the pod.
const UNABLE_PAUSE: Duration = Duration::from_secs(10 * 60);

/// How a pod is to be asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Asking {
    /// `None`: its container does not run.
    pub(super) questions: Option<Questions>,
    pub(super) every: Duration,
}

/// All pods that are asked.
pub(super) struct Roles {
    exec: Arc<dyn Exec>,
    clock: Clock,
    metrics: Metrics,
    inner: Mutex<Inner>,
    changed: Notify,
}

/// A pod: its set, and its uid.
type Key = (SetKey, String);

#[derive(Default)]
struct Inner {
    pods: BTreeMap<Key, Pod>,
    /// By namespace.
    lanes: BTreeMap<String, Lane>,
    under_way: usize,
}

struct Pod {
    asking: Asking,
    witness: Witness,
    due: Instant,
    /// It is being asked.
    under_way: bool,
    /// It is to be asked again as soon as it has answered.
    hurried: bool,
}

/// The pods of one namespace.
#[derive(Default)]
struct Lane {
    /// Those that wait, by the time at which they are due.
    waiting: BTreeSet<(Instant, Key)>,
    under_way: usize,
}

/// How an asking ended.
type Answer = Result<Result<Vec<Collected>, ExecError>, JoinError>;

impl Roles {
    pub(super) fn new(exec: Arc<dyn Exec>, clock: Clock, metrics: Metrics) -> Self {
        Self { exec, clock, metrics, inner: Mutex::default(), changed: Notify::new() }
    }

    /// These pods of the set are to be asked from now on, by uid, and no others. A pod that is new here, or asked something else, is asked at once.
    pub(super) fn keep(&self, set: &SetKey, pods: BTreeMap<String, Asking>) {
        let now = self.clock.now();
        let mut inner = self.inner();
        let gone: Vec<Key> = inner.of(set).map(|(key, _)| key.clone()).filter(|(_, uid)| !pods.contains_key(uid)).collect();
        gone.iter().for_each(|key| inner.remove(key));
        for (uid, asking) in pods {
            let key = (set.clone(), uid);
            match inner.pods.get_mut(&key) {
                Some(pod) if pod.asking == asking => continue,
                Some(pod) => pod.asking = asking,
                None => {
                    let witness = Witness { since: now, claim: None, silence: None };
                    let pod = Pod { asking, witness, due: Instant::now(), under_way: false, hurried: false };
                    inner.pods.insert(key.clone(), pod);
                }
            }
            inner.look(&key, now);
        }
        drop(inner);
        self.changed.notify_one();
    }

    /// What was heard of these pods of a set, by ordinal.
    pub(super) fn of(&self, set: &SetKey, pods: &BTreeMap<u32, lifecycle::Pod>) -> BTreeMap<u32, Witness> {
        let inner = self.inner();
        let witness = |pod: &lifecycle::Pod| Some(inner.pods.get(&(set.clone(), pod.uid.clone()))?.witness.clone());
        pods.iter().filter_map(|(ordinal, pod)| Some((*ordinal, witness(pod)?))).collect()
    }

    /// Something has happened to the set: its pods are asked now, and not at their time.
    pub(super) fn hurry(&self, set: &SetKey) {
        let mut inner = self.inner();
        let keys: Vec<Key> = inner.of(set).map(|(key, _)| key.clone()).collect();
        keys.iter().for_each(|key| inner.wait_from(key, Instant::now()));
        drop(inner);
        self.changed.notify_one();
    }

    /// Asks, and tells `heard` whose pods have said something else. Dropping it cuts all connections, which ends what runs in the pods.
    pub(super) async fn drive(&self, mut heard: mpsc::Sender<SetKey>) {
        let mut tasks = JoinSet::new();
        let mut names: BTreeMap<Id, Key> = BTreeMap::new();
        let mut free = Instant::now();
        loop {
            let wake = self.start(&mut tasks, &mut names, &mut free);
            tokio::select! {
                () = self.changed.notified() => {}
                () = sleep_until(wake.unwrap_or_else(Instant::now)), if wake.is_some() => {}
                Some(done) = tasks.join_next_with_id() => {
                    let id = done.as_ref().map_or_else(JoinError::id, |(id, _)| *id);
                    let news = names.remove(&id).and_then(|key| self.end(&key, done.map(|(_, answer)| answer)));
                    if let Some(set) = news {
                        // Full only while the queue is far behind; it is never closed before this ends.
                        let _ = heard.send(set).await;
                    }
                }
            }
        }
    }

    /// Asks whoever is due, as far as the bounds allow; says when to look again, unless something happens before.
    fn start(&self, tasks: &mut JoinSet<Asked>, names: &mut BTreeMap<Id, Key>, free: &mut Instant) -> Option<Instant> {
        let now = Instant::now();
        let mut inner = self.inner();
        loop {
            let (due, key) = inner.next(now)?;
            let at = due.max(*free);
            if at > now {
                return Some(at);
            }
            let Some(questions) = inner.begin(due, &key) else { continue };
            *free = now + PACE;
            self.metrics.lateness.observe(now.duration_since(due).as_secs_f64());
            let exec = Arc::clone(&self.exec);
            let task = tasks.spawn(async move { exec.collect(&questions).await });
            names.insert(task.id(), key);
        }
    }

    /// Keeps what a pod has said; says whether that is news.
    fn end(&self, key: &Key, answer: Answer) -> Option<SetKey> {
        let now = self.clock.now();
        let mut inner = self.inner();
        inner.under_way -= 1;
        if let Some(lane) = inner.lanes.get_mut(&key.0.namespace) {
            lane.under_way -= 1;
        }
        let Some(pod) = inner.pods.get_mut(key) else {
            inner.tidy(&key.0.namespace);
            return None;
        };
        let (word, told, pause) = heard(answer);
        self.metrics.answers.with_label_values(&[word]).inc();
        let news = pod.hears(told, now);
        let hurried = std::mem::take(&mut pod.hurried);
        pod.under_way = false;
        self.metrics.skipped.inc_by(pod.move_on(Instant::now(), pause));
        let due = if hurried { Instant::now() } else { pod.due };
        inner.wait_from(key, due);
        news.then(|| key.0.clone())
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

type Asked = Result<Vec<Collected>, ExecError>;

impl Inner {
    fn of<'i>(&'i self, set: &'i SetKey) -> impl Iterator<Item = (&'i Key, &'i Pod)> {
        self.pods.range((set.clone(), String::new())..).take_while(move |(key, _)| key.0 == *set)
    }

    /// The pod to ask next: of those that are due in the namespaces with the fewest under way the one that waits longest; else the one that is due
    /// first. `None` when none may be asked before something ends.
    fn next(&self, now: Instant) -> Option<(Instant, Key)> {
        if self.under_way >= AT_ONCE {
            return None;
        }
        let open = self.lanes.values().filter(|lane| lane.under_way < AT_ONCE_PER_NAMESPACE);
        let firsts = open.filter_map(|lane| Some((lane.under_way, lane.waiting.first()?)));
        let (_, first) =
            firsts.min_by_key(|(under_way, (due, _))| (*due > now, if *due > now { 0 } else { *under_way }, *due))?;
        Some(first.clone())
    }

    /// Takes a pod out of its lane, to be asked; `None` when there is nothing to ask.
    fn begin(&mut self, due: Instant, key: &Key) -> Option<Questions> {
        let lane = self.lanes.get_mut(&key.0.namespace)?;
        lane.waiting.remove(&(due, key.clone()));
        let pod = self.pods.get_mut(key)?;
        let questions = pod.asking.questions.clone()?;
        pod.under_way = true;
        lane.under_way += 1;
        self.under_way += 1;
        Some(questions)
    }

    /// How a pod is to be asked has changed.
    fn look(&mut self, key: &Key, now: jiff::Timestamp) {
        let Some(pod) = self.pods.get_mut(key) else { return };
        if pod.asking.questions.is_none() {
            pod.witness.silence.get_or_insert(Silence { since: now, why: None });
            let due = pod.due;
            self.lanes.entry(key.0.namespace.clone()).or_default().waiting.remove(&(due, key.clone()));
        } else {
            self.wait_from(key, Instant::now());
        }
    }

    /// The pod waits until `due`, where there is something to ask.
    fn wait_from(&mut self, key: &Key, due: Instant) {
        let Some(pod) = self.pods.get_mut(key).filter(|pod| pod.asking.questions.is_some()) else { return };
        if pod.under_way {
            pod.hurried = true;
            return;
        }
        let lane = self.lanes.entry(key.0.namespace.clone()).or_default();
        lane.waiting.remove(&(pod.due, key.clone()));
        pod.due = due;
        lane.waiting.insert((due, key.clone()));
    }

    fn remove(&mut self, key: &Key) {
        if let (Some(pod), Some(lane)) = (self.pods.remove(key), self.lanes.get_mut(&key.0.namespace)) {
            lane.waiting.remove(&(pod.due, key.clone()));
        }
        self.tidy(&key.0.namespace);
    }

    fn tidy(&mut self, namespace: &str) {
        if self.lanes.get(namespace).is_some_and(|lane| lane.waiting.is_empty() && lane.under_way == 0) {
            self.lanes.remove(namespace);
        }
    }
}

impl Pod {
    /// Takes what it has said; says whether that changes anything but the time.
    fn hears(&mut self, told: Result<Claim, String>, now: jiff::Timestamp) -> bool {
        let witness = &mut self.witness;
        match told {
            Ok(claim) => {
                let same = witness.claim.as_ref().is_some_and(|(before, _)| *before == claim);
                witness.claim = Some((claim, now));
                witness.silence.take().is_some() || !same
            }
            // What came first is what is told, or every change of its words would be news.
            Err(why) => match &mut witness.silence {
                Some(Silence { why: Some(_), .. }) => false,
                silence => {
                    let since = silence.as_ref().map_or(now, |silence| silence.since);
                    *silence = Some(Silence { since, why: Some(why) });
                    true
                }
            },
        }
    }

    /// When it is due again: at its next interval that has not passed, or after a pause. Says how many have passed.
    fn move_on(&mut self, now: Instant, pause: Option<Duration>) -> u64 {
        let every = self.asking.every.max(PACE);
        let passed = now.duration_since(self.due).as_nanos() / every.as_nanos();
        let passed = u32::try_from(passed).unwrap_or(u32::MAX);
        self.due = match pause {
            Some(pause) => now + pause.max(every),
            None => self.due + every.saturating_mul(passed.saturating_add(1)),
        };
        if pause.is_some() { 0 } else { passed.into() }
    }
}

/// What an answer means: a word for the metrics, what the pod says, and a pause where it is of no use to ask at the next interval.
fn heard(answer: Answer) -> (&'static str, Result<Claim, String>, Option<Duration>) {
    let lines = match answer {
        Ok(Ok(lines)) => lines,
        Ok(Err(error)) => {
            let (word, pause) = match &error {
                ExecError::Denied(_) => ("denied", Some(DENIED_PAUSE)),
                ExecError::Unsupported | ExecError::NoRunner => ("unable", Some(UNABLE_PAUSE)),
                _ => ("unreachable", None),
            };
            let why = error.source().map_or_else(|| error.to_string(), |source| format!("{error}: {source}"));
            return (word, Err(why), pause);
        }
        Err(error) => return ("unreachable", Err(format!("asking it failed: {error}")), None),
    };
    let sample = lines.iter().find_map(|line| match line {
        Collected::Probe(sample) => Some(sample),
        _ => None,
    });
    let told = sample.map_or_else(|| Err("its runner has not answered the question".to_owned()), role::judge);
    (if told.is_ok() { "claim" } else { "refused" }, told, None)
}

/// What is counted of the asking.
pub(super) struct Metrics {
    lateness: Histogram,
    skipped: IntCounter,
    answers: IntCounterVec,
}

impl Metrics {
    pub(super) fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let lateness =
            HistogramOpts::new("guardian_role_lateness_seconds", "How long after its time a pod was asked for its role");
        let answers = Opts::new("guardian_role_answers_total", "Answers to the question for a pod's role, by what they were");
        let metrics = Self {
            lateness: Histogram::with_opts(lateness.buckets(vec![0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0]))?,
            skipped: IntCounter::new(
                "guardian_role_skipped_total",
                "Times at which a pod was to be asked for its role, and nobody had the time",
            )?,
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
