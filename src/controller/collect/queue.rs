//! Which question is due when, and in which exec it goes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use guardian_hook::protocol::{Collect, MAX_REQUEST, PROTOCOL, RunResult, Sample};
use tokio::time::Instant;

use super::{Agent, Asking, Container, PACE, Subject};
use crate::controller::SetKey;
use crate::controller::exec::Questions;

/// Execs under way in all. One takes about 1.3 MB on the other side while it lasts, usually 55 ms: 64 that hang are about 80 MB there.
const AT_ONCE: usize = 64;
/// Execs under way in one namespace: a quarter, so that pods which hang in one keep no other waiting.
pub(super) const AT_ONCE_PER_NAMESPACE: usize = 16;
/// A metric whose command took this long is slow: it is asked alone, and these execs take at most half of all places, so that commands which hang keep
/// no role waiting, and no other command.
const SLOW: Duration = Duration::from_secs(1);
/// Execs of each kind in one container: while a command hangs for the first time, the others go on; and beside one that hangs there is room for one that
/// only takes long. Each has one process at a time, which counts for the container's memory.
const PER_CONTAINER: usize = 2;
/// A connection is kept for the next questions where they come sooner than this. A question over it costs 1 to 3 ms of CPU and a new exec 42 ms;
/// but each takes 3.5 MB as long as it lasts, and there is room for a few hundred.
const KEPT_BELOW: Duration = Duration::from_secs(10);
/// Beyond two intervals, so that a late question still finds its connection.
const KEPT_FOR: Duration = Duration::from_secs(5);
/// Pause before a pod is told again what it could not be told: as between two questions for a role.
const UNTOLD: Duration = Duration::from_secs(5);
/// What a request has beside its questions: an address of at most 300 bytes, and a path of at most 4 KiB.
const REQUEST_FRAME: usize = 8 * 1024;

/// A container of a set's pod.
pub(super) type Key = (SetKey, Container);

/// All questions.
#[derive(Default)]
pub(super) struct Queue {
    containers: BTreeMap<Key, Asked>,
    /// By namespace and kind, the containers that wait, by the time at which they are due.
    waiting: BTreeMap<String, BTreeMap<Kind, BTreeSet<(Instant, Key)>>>,
    /// Those under way, by number.
    execs: BTreeMap<u64, (Key, Kind)>,
    begun: u64,
}

/// Who is next.
pub(super) struct Next {
    pub(super) due: Instant,
    key: Key,
    kind: Kind,
}

/// A question that was answered, or was not.
pub(super) struct Ended {
    /// Name of the pod.
    pub(super) pod: String,
    pub(super) subject: Subject,
    /// How many of its intervals have passed meanwhile.
    pub(super) skipped: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Quick,
    Slow,
}

struct Asked {
    asking: Asking,
    /// Who asks all this in the pod.
    agent: Option<Arc<Agent>>,
    /// Intervals are counted from here.
    anchor: Instant,
    questions: BTreeMap<String, Question>,
    /// How it waits.
    waits: BTreeMap<Kind, Instant>,
}

struct Question {
    subject: Subject,
    due: Instant,
    kind: Kind,
    /// The exec in which it is being asked.
    under_way: Option<u64>,
    /// It is to be asked again as soon as it is answered.
    hurried: bool,
    /// It failed the last time.
    failed: bool,
}

impl Queue {
    /// This is to be asked in the set, and nothing else.
    pub(super) fn keep(&mut self, set: &SetKey, asked: BTreeMap<Container, Asking>) {
        let gone: Vec<Key> = self.of(set).into_iter().filter(|(_, container)| !asked.contains_key(container)).collect();
        gone.iter().for_each(|key| self.remove(key));
        let now = Instant::now();
        for (container, asking) in asked {
            let key = (set.clone(), container);
            let there = self.containers.entry(key.clone()).or_insert_with(|| Asked::new(&asking, now));
            there.update(asking, now);
            self.list(&key);
        }
    }

    /// The roles of the set are asked for now.
    pub(super) fn hurry(&mut self, set: &SetKey) {
        for key in self.of(set) {
            let questions = self.containers.get_mut(&key).into_iter().flat_map(|asked| asked.questions.values_mut());
            questions.filter(|question| question.subject.is_role()).for_each(|question| question.at_once(Instant::now()));
            self.list(&key);
        }
    }

    /// The container to ask next: of those that are due in the namespaces with the fewest execs under way the one that waits longest; else the one
    /// that is due first. `None` when none may be asked before something ends.
    pub(super) fn next(&self, now: Instant) -> Option<Next> {
        let slow = |(_, (_, kind)): &(&u64, &(Key, Kind))| *kind == Kind::Slow;
        let slow_in_all = self.execs.iter().filter(slow).count();
        if self.execs.len() >= AT_ONCE {
            return None;
        }
        let mut firsts = Vec::new();
        for (namespace, kinds) in &self.waiting {
            let here = || self.execs.iter().filter(|(_, ((set, _), _))| set.namespace == *namespace);
            let load = here().count();
            let room_for_slow = slow_in_all < AT_ONCE / 2 && here().filter(slow).count() < AT_ONCE_PER_NAMESPACE / 2;
            let kinds = kinds.iter().filter(|(kind, _)| load < AT_ONCE_PER_NAMESPACE && (**kind == Kind::Quick || room_for_slow));
            firsts.extend(kinds.filter_map(|(kind, waiting)| Some((load, *kind, waiting.first()?))));
        }
        let by_need = |(load, kind, (due, _)): &(usize, Kind, &(Instant, Key))| {
            let is_due = *due <= now;
            (!is_due, if is_due { *load } else { 0 }, *due, *kind)
        };
        let (_, kind, (due, key)) = firsts.into_iter().min_by_key(by_need)?;
        Some(Next { due: *due, key: key.clone(), kind })
    }

    /// Takes all that is due there, the role first, as far as it fits into one request; of what is slow, only what is due for the longest time.
    pub(super) fn begin(&mut self, next: Next, now: Instant) -> Option<(u64, Questions)> {
        let Next { key, kind, .. } = next;
        let number = self.begun;
        let asked = self.containers.get_mut(&key)?;
        let due = asked.questions.values_mut().filter(|question| question.waits(kind) && question.due <= now);
        let mut due: Vec<&mut Question> = due.collect();
        due.sort_by_key(|question| match kind {
            Kind::Quick => (!question.subject.is_role(), now),
            Kind::Slow => (false, question.due),
        });
        if kind == Kind::Slow {
            due.truncate(1);
        }
        let (mut probes, mut room) = (Vec::new(), MAX_REQUEST - REQUEST_FRAME);
        for question in due {
            let probe = question.subject.question(&asked.asking.env);
            let size = serde_json::to_string(&probe).map_or(0, |text| text.len() + 1);
            if size > room && !probes.is_empty() {
                break;
            }
            room = room.saturating_sub(size);
            question.under_way = Some(number);
            probes.push(probe);
        }
        let wait_ms = if kind == Kind::Quick { asked.wait_ms() } else { 0 };
        let questions = Questions {
            namespace: key.0.namespace.clone(),
            pod: asked.asking.pod.clone(),
            container: key.1.name.clone(),
            request: Collect {
                version: PROTOCOL,
                pod_uid: key.1.pod_uid.clone(),
                probes,
                wait_ms,
                disk: asked.asking.disk.clone(),
            },
            agent: asked.agent.clone(),
        };
        self.begun += 1;
        self.execs.insert(number, (key.clone(), kind));
        self.list(&key);
        Some((number, questions))
    }

    /// An exec is asked in this container.
    pub(super) fn key(&self, exec: u64) -> Option<&Key> {
        self.execs.get(&exec).map(|(key, _)| key)
    }

    /// The shortest interval of what is asked in a container.
    pub(super) fn shortest(&self, key: &Key) -> Option<Duration> {
        self.containers.get(key)?.questions.values().map(|question| question.subject.every()).min()
    }

    /// A question was answered; `None` where that does not count any more.
    pub(super) fn answered(&mut self, exec: u64, sample: &Sample, now: Instant) -> Option<Ended> {
        let took = Duration::from_millis(sample.duration_ms);
        let (key, _) = self.execs.get(&exec)?.clone();
        let asked = self.containers.get_mut(&key)?;
        let question = asked.questions.get_mut(&sample.name).filter(|question| question.under_way == Some(exec))?;
        // An agent takes no longer to be read for that.
        let is_slow = took >= SLOW && sample.age_ms.is_none();
        question.kind = if is_slow && !question.subject.is_role() { Kind::Slow } else { Kind::Quick };
        // A runner that does not know what it is asked says 2, and will for as long as its pod lives.
        question.failed = !matches!(sample.result, RunResult::Exited { code: 0 | 2 });
        let skipped = question.move_on(asked.anchor, None, now);
        let ended = Ended { pod: asked.asking.pod.clone(), subject: question.subject.clone(), skipped };
        self.list(&key);
        Some(ended)
    }

    /// An agent has not asked this yet; `None` where that does not count any more.
    pub(super) fn waits(&mut self, exec: u64, name: &str, now: Instant) -> Option<Ended> {
        let (key, _) = self.execs.get(&exec)?.clone();
        let asked = self.containers.get_mut(&key)?;
        let question = asked.questions.get_mut(name).filter(|question| question.under_way == Some(exec))?;
        let skipped = question.move_on(asked.anchor, None, now);
        let ended = Ended { pod: asked.asking.pod.clone(), subject: question.subject.clone(), skipped };
        self.list(&key);
        Some(ended)
    }

    /// An exec has ended, in this container. What it has not answered is due again at its next interval, or after a pause.
    pub(super) fn end(&mut self, exec: u64, pause: Option<Duration>, now: Instant) -> Option<(Key, Vec<Ended>)> {
        let (key, _) = self.execs.remove(&exec)?;
        let mut unanswered = Vec::new();
        if let Some(asked) = self.containers.get_mut(&key) {
            for question in asked.questions.values_mut().filter(|question| question.under_way == Some(exec)) {
                question.failed = true;
                let skipped = question.move_on(asked.anchor, pause, now);
                unanswered.push(Ended { pod: asked.asking.pod.clone(), subject: question.subject.clone(), skipped });
            }
        }
        self.list(&key);
        Some((key, unanswered))
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.containers.is_empty() && self.waiting.is_empty()
    }

    fn of(&self, set: &SetKey) -> Vec<Key> {
        let first = (set.clone(), Container { pod_uid: String::new(), name: String::new() });
        self.containers.range(first..).map(|(key, _)| key).take_while(|(of, _)| of == set).cloned().collect()
    }

    /// Lets a container wait as it should.
    fn list(&mut self, key: &Key) {
        let Some(asked) = self.containers.get_mut(key) else { return };
        let waiting = self.waiting.entry(key.0.namespace.clone()).or_default();
        for (kind, due) in std::mem::take(&mut asked.waits) {
            waiting.entry(kind).or_default().remove(&(due, key.clone()));
        }
        for kind in [Kind::Quick, Kind::Slow] {
            let under_way = self.execs.values().filter(|(of, other)| of == key && *other == kind).count();
            let due = asked.questions.values().filter(|question| question.waits(kind)).map(|question| question.due).min();
            if let Some(due) = due.filter(|_| asked.asking.runs && under_way < PER_CONTAINER) {
                waiting.entry(kind).or_default().insert((due, key.clone()));
                asked.waits.insert(kind, due);
            }
        }
        if waiting.values().all(BTreeSet::is_empty) {
            self.waiting.remove(&key.0.namespace);
        }
    }

    fn remove(&mut self, key: &Key) {
        if let Some(asked) = self.containers.get_mut(key) {
            asked.questions.clear();
            self.list(key);
            self.containers.remove(key);
        }
    }
}

impl Asked {
    fn new(asking: &Asking, now: Instant) -> Self {
        let agent = Agent::of(asking).map(Arc::new);
        Self { asking: asking.clone(), agent, anchor: now, questions: BTreeMap::new(), waits: BTreeMap::new() }
    }

    /// How long the runner waits to be asked again over the same connection: 0 where a new one is cheaper.
    fn wait_ms(&self) -> u64 {
        let quick = self.questions.values().filter(|question| question.kind == Kind::Quick);
        let shortest = quick.map(|question| question.subject.every()).min().filter(|every| *every < KEPT_BELOW);
        shortest.map_or(0, |every| u64::try_from((2 * every + KEPT_FOR).as_millis()).unwrap_or(u64::MAX))
    }

    fn update(&mut self, asking: Asking, now: Instant) {
        let is_same_place = asking.env == self.asking.env;
        let runs_again = asking.runs && !self.asking.runs;
        let mut before = std::mem::take(&mut self.questions);
        for subject in &asking.subjects {
            let name = subject.name();
            let mut question = match before.remove(&name) {
                Some(known) if is_same_place && known.subject == *subject => known,
                // One at a time: what was told first must not arrive last.
                Some(told) if subject.is_members() && told.under_way.is_some() => {
                    Question { subject: subject.clone(), hurried: true, ..told }
                }
                _ => Question::new(subject.clone(), now),
            };
            if runs_again {
                question.at_once(now);
            }
            self.questions.insert(name, question);
        }
        if asking != self.asking {
            self.agent = Agent::of(&asking).map(Arc::new);
        }
        self.asking = asking;
    }
}

impl Question {
    const fn new(subject: Subject, now: Instant) -> Self {
        Self { subject, due: now, kind: Kind::Quick, under_way: None, hurried: false, failed: false }
    }

    fn waits(&self, kind: Kind) -> bool {
        self.kind == kind && self.under_way.is_none()
    }

    fn at_once(&mut self, now: Instant) {
        match self.under_way {
            Some(_) => self.hurried = true,
            None => self.due = now,
        }
    }

    /// It is due again at its next interval that has not passed, or after a pause. Says how many have passed.
    fn move_on(&mut self, anchor: Instant, pause: Option<Duration>, now: Instant) -> u64 {
        let every = match self.subject {
            Subject::Members(..) if self.failed => UNTOLD,
            _ => self.subject.every().max(PACE),
        };
        let passed = |until: Instant| until.saturating_duration_since(anchor).as_nanos() / every.as_nanos();
        let skipped = passed(now).saturating_sub(passed(self.due));
        let next = u64::try_from((passed(now) + 1) * every.as_nanos()).unwrap_or(u64::MAX);
        self.under_way = None;
        self.due = match pause {
            _ if std::mem::take(&mut self.hurried) => now,
            Some(pause) => now + pause.max(every),
            None => anchor + Duration::from_nanos(next),
        };
        if pause.is_some() { 0 } else { u64::try_from(skipped).unwrap_or(u64::MAX) }
    }
}
