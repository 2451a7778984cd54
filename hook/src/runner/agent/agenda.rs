//! What is asked when, by which process, and what was answered last.

use alloc::string::String;
use alloc::vec::Vec;

use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{OFlags, fcntl_setfl};
use rustix::io::{Errno, read};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

use super::page;
use crate::protocol::{Agenda, Collected, Repeated, RunResult, Sample, Tail};
use crate::runner::collect;
use crate::runner::files::errno_in_words;
use crate::runner::fork::{Forked, fork};
use crate::runner::home::{Home, Pod};
use crate::runner::run::line;
use crate::runner::{Environment, stdio};

/// A command that took so long, in milliseconds, is slow: it is asked apart from the others from then on.
const SLOW_MS: u64 = 1_000;

/// The shortest interval, in milliseconds.
const SHORTEST_MS: u64 = 100;

/// Most bytes of what an asker says: a sample of at most 31 KiB as JSON, and a hundred series whose labels are at most 4 KiB, names beside them.
const MAX_SAID: usize = 256 * 1024;

/// All that is asked.
#[derive(Default)]
pub(super) struct Work {
    /// That of the agenda; empty without one.
    pub(super) revision: String,
    env: Environment,
    questions: Vec<Question>,
    /// How often an agenda was taken.
    pub(super) taken: u64,
}

/// A question.
pub(super) struct Question {
    asked: Repeated,
    /// Since when it is on the agenda. Its intervals are counted from here.
    since: u64,
    due: u64,
    lane: Lane,
    asker: Option<Asker>,
    last: Option<Answer>,
    /// The last answer that could be read, where `last` cannot.
    earlier: Option<Answer>,
}

/// One question of each is asked at a time: so nothing waits for a command that hangs but others that hang, and, once, those that are quick.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Lane {
    /// What is served as no metric: the role.
    Role,
    Quick,
    Slow,
}

/// An answer, and when it came.
struct Answer {
    /// The line for the controller: JSON.
    line: Vec<u8>,
    /// The family for Prometheus, where it could be read.
    text: Option<Vec<u8>>,
    at: u64,
}

/// A process that asks one question: its socket, which it takes for the caller's, and what it has said so far.
struct Asker {
    socket: OwnedFd,
    bytes: Vec<u8>,
    since: u64,
}

impl Work {
    /// This is asked from now on, and nothing else. What stays the same keeps its answer; what is new is due at once.
    pub(super) fn take(&mut self, agenda: Agenda, now: u64) {
        let Agenda { revision, env, questions, .. } = agenda;
        if self.taken > 0 && revision == self.revision {
            return;
        }
        let env: Environment = env.into_iter().map(|(name, value)| (name.into_bytes(), value.into_bytes())).collect();
        let mut before = core::mem::take(&mut self.questions);
        if env != self.env {
            before.clear();
        }
        let known = |asked: Repeated| match before.iter().position(|question| question.asked == asked) {
            Some(at) => before.swap_remove(at),
            None => Question::new(asked, now),
        };
        self.questions = questions.into_iter().map(known).collect();
        (self.revision, self.env) = (revision, env);
        self.taken += 1;
    }

    /// Reads what the askers have said.
    pub(super) fn hear(&mut self, now: u64) {
        for question in &mut self.questions {
            let Some(asker) = &mut question.asker else { continue };
            if asker.has_ended() {
                let (bytes, took) = (core::mem::take(&mut asker.bytes), now.saturating_sub(asker.since));
                // One that said nothing was killed, for its memory most likely.
                let answer = Answer::read(bytes, now)
                    .unwrap_or_else(|| question.unstarted("the process that asks was killed".into(), now));
                question.answered(answer, took, now);
            }
        }
    }

    /// Asks what is due, as far as there is room.
    pub(super) fn ask(&mut self, home: &Home, pod: &Pod, env: &Environment, memory: u64, now: u64) {
        for lane in [Lane::Role, Lane::Quick, Lane::Slow] {
            let Some(at) = self.first(lane).filter(|at| self.questions.get(*at).is_some_and(|q| q.due <= now)) else { continue };
            let Some(question) = self.questions.get_mut(at) else { continue };
            let mut env = env.clone();
            env.extend(self.env.iter().map(|(name, value)| (name.clone(), value.clone())));
            match Asker::start((home, pod), &env, &question.asked, memory, now) {
                Ok(asker) => question.asker = Some(asker),
                Err(e) => question.answered(question.unstarted(errno_in_words(e), now), 0, now),
            }
        }
    }

    /// When the next question is to be asked that can be.
    pub(super) fn next_due(&self) -> Option<u64> {
        let firsts = [Lane::Role, Lane::Quick, Lane::Slow].into_iter().filter_map(|lane| self.first(lane));
        firsts.filter_map(|at| self.questions.get(at)).map(|question| question.due).min()
    }

    /// What tells that an asker has said something.
    pub(super) fn sockets(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.questions.iter().filter_map(|question| question.asker.as_ref()).map(|asker| asker.socket.as_fd())
    }

    pub(super) fn questions(&self) -> &[Question] {
        &self.questions
    }

    /// The question of a lane to be asked next, unless one is being asked.
    fn first(&self, lane: Lane) -> Option<usize> {
        let of_lane = || self.questions.iter().enumerate().filter(|(_, question)| question.lane == lane);
        if of_lane().any(|(_, question)| question.asker.is_some()) {
            return None;
        }
        of_lane().min_by_key(|(_, question)| question.due).map(|(at, _)| at)
    }
}

impl Question {
    fn new(asked: Repeated, now: u64) -> Self {
        let lane = if asked.metric.is_some() { Lane::Quick } else { Lane::Role };
        Self { asked, since: now, due: now, lane, asker: None, last: None, earlier: None }
    }

    pub(super) fn asked(&self) -> &Repeated {
        &self.asked
    }

    /// For how many milliseconds it is on the agenda.
    pub(super) fn waits_for(&self, now: u64) -> u64 {
        now.saturating_sub(self.since)
    }

    /// The last answer as a line of JSON, and how many milliseconds ago it came.
    pub(super) fn last(&self, now: u64) -> Option<(&[u8], u64)> {
        self.last.as_ref().map(|answer| (answer.line.as_slice(), now.saturating_sub(answer.at)))
    }

    /// The last answer that could be read, as long as it is not stale: for three intervals, at least 15 s, as the controller serves it.
    pub(super) fn text(&self, now: u64) -> Option<&[u8]> {
        let stale = self.asked.every_ms.saturating_mul(3).max(STALE_MS);
        let fresh = [&self.last, &self.earlier].into_iter().flatten().filter(|answer| now.saturating_sub(answer.at) <= stale);
        fresh.filter_map(|answer| answer.text.as_deref()).next()
    }

    /// Could the last answer be read, and is it not stale?
    pub(super) fn is_up(&self, now: u64) -> bool {
        self.last.as_ref().is_some_and(|answer| answer.text.is_some()) && self.text(now).is_some()
    }

    fn answered(&mut self, answer: Answer, took: u64, now: u64) {
        self.asker = None;
        let every = self.asked.every_ms.max(SHORTEST_MS);
        self.due = self.since + (self.waits_for(now) / every + 1) * every;
        if self.lane != Lane::Role {
            self.lane = if took >= SLOW_MS { Lane::Slow } else { Lane::Quick };
        }
        if answer.text.is_some() {
            self.earlier = None;
        } else if self.last.as_ref().is_some_and(|last| last.text.is_some()) {
            self.earlier = self.last.take();
        }
        self.last = Some(answer);
    }

    fn unstarted(&self, message: String, now: u64) -> Answer {
        let (name, result) = (self.asked.probe.name.clone(), RunResult::NotStarted { message });
        let (stdout, stderr) = (Tail::default(), Tail::default());
        let sample = Sample { name, result, duration_ms: 0, stdout, stderr, age_ms: None };
        Answer { line: line(&Collected::Probe(sample)), text: None, at: now }
    }
}

/// Where an interval is short, in milliseconds.
const STALE_MS: u64 = 15_000;

/// Between the line of an asker and its family, where there is one.
const READ: u8 = b'+';

impl Answer {
    /// As [`answer`] writes it.
    fn read(mut bytes: Vec<u8>, at: u64) -> Option<Self> {
        let end = bytes.iter().position(|b| *b == b'\n')?;
        let rest = bytes.get(end + 1..).unwrap_or_default();
        let text = rest.strip_prefix(&[READ]).map(<[u8]>::to_vec);
        bytes.truncate(end);
        bytes.shrink_to_fit();
        Some(Self { line: bytes, text, at })
    }
}

/// Asks, and says the answer as a line, and what it is for Prometheus.
fn answer((home, pod): (&Home, &Pod), env: &Environment, asked: &Repeated, memory: u64) -> Vec<u8> {
    let sample = collect::ask(home, env, &asked.probe, memory);
    let whole = sample.result == RunResult::Exited { code: 0 } && sample.stdout.dropped == 0;
    let text = asked.metric.as_ref().filter(|_| whole).and_then(|family| page::family(family, &sample.stdout.text, pod));
    let mut answer = line(&Collected::Probe(sample));
    if let Some(text) = text {
        answer.push(READ);
        answer.extend_from_slice(text.as_bytes());
    }
    answer
}

impl Asker {
    /// Its end of the socket is its standard input and output: when the agent is gone, or wants to know no more, so is its caller.
    fn start(place: (&Home, &Pod), env: &Environment, asked: &Repeated, memory: u64, now: u64) -> Result<Self, Errno> {
        let (socket, theirs) = socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
        fcntl_setfl(&socket, OFlags::NONBLOCK)?;
        match fork(&theirs)? {
            Forked::Child(child) => {
                stdio::print(&answer(place, env, asked, memory));
                child.leave()
            }
            Forked::Parent => Ok(Self { socket, bytes: Vec::new(), since: now }),
        }
    }

    /// Reads what it says; has it said all?
    fn has_ended(&mut self) -> bool {
        let mut piece = [0; 4096];
        loop {
            match read(&self.socket, &mut piece) {
                Ok(n @ 1..) => self.bytes.extend_from_slice(piece.get(..n).unwrap_or_default()),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return false,
                Ok(_) | Err(_) => return true,
            }
            if self.bytes.len() > MAX_SAID {
                self.bytes.clear();
                return true;
            }
        }
    }
}
