//! A pod or its container came back: its `rejoin` hook runs in it, once per start.
//!
//! A start that differs from the answered one opens an episode that holds the pod. Each attempt is claimed, carried out and settled; the
//! episode closes with the first success, the last failure, or when the pod or container it was about is gone. Then the start is answered.

use std::collections::BTreeMap;
use std::time::Duration;

use guardian_hook::protocol::{Outcome, Refusal, RunResult};
use jiff::{SignedDuration, Timestamp};

use super::decide::{Next, Scenario, View};
use super::observed::{Pod, RunEnd};
use super::step::Step;
use crate::cause::{self, Evidence};
use crate::ledger::{Episode, Record, Run, Scope, Start, Verdict};
use crate::policy::Hook;
use crate::reason;

pub(super) const SCENARIO: Scenario = Scenario { name: NAME, next };

/// Name of the scenario and of its hook.
const NAME: &str = "rejoin";

/// How long beyond the hook's own time out its runner is asked for the outcome, before that counts as unknown: two of the deadlines of a
/// watch (45 s), so that an API server that is replaced is seen through.
const REACH: SignedDuration = SignedDuration::from_secs(90);
/// Pause before a runner is asked again: an exec costs the node 32 ms of CPU, so this keeps a lost pod below 2 % of a core.
const ASK_AGAIN: SignedDuration = SignedDuration::from_secs(2);
/// Pause before a namespace is tried again that does not let us: a person has to act first.
const DENIED_PAUSE: SignedDuration = SignedDuration::from_mins(5);
/// The longest pause between two attempts, however often it was doubled.
const MAX_BACKOFF: Duration = Duration::from_secs(15 * 60);
/// Most bytes of a hook's last words that are told. Each takes at most six in JSON: 1.5 KiB of a record's 2 KiB.
const MAX_WORDS: usize = 256;

fn next(view: &View<'_>) -> Vec<Next> {
    let mut all = Vec::new();
    let mut busy = Vec::new();
    for (id, episode) in view.ledger.episodes.iter().filter(|(_, e)| e.scenario == NAME) {
        if let (Some(ordinal), Some(start)) = (episode.ordinal, &episode.start) {
            busy.push(ordinal);
            all.extend(Open { view, id, episode, ordinal, start }.advance());
        }
    }
    let idle = view.observed.pods.iter().filter(|(ordinal, _)| !busy.contains(ordinal));
    all.extend(idle.filter_map(|(ordinal, pod)| begin(view, *ordinal, pod)));
    all
}

/// A pod without an episode: does its latest start need an answer?
fn begin(view: &View<'_>, ordinal: u32, pod: &Pod) -> Option<Next> {
    let container = view.container(pod);
    if !pod.containers.is_empty() && !pod.containers.contains_key(container) {
        let why = format!("pod {} has no container {container}, which the policy names", pod.name);
        return Some(Next::Hold { until: None, reason: reason::Hold::NoSuchContainer, why });
    }
    let start = pod.start(container).filter(|_| pod.takes_hooks(container))?;
    let answered = view.ledger.answered.get(&ordinal);
    match answered {
        Some(answered) if answered.is(&start) || start.is_older_than(answered) => return None,
        // The policy names another container now; the pod goes on as it was.
        Some(answered) if answered.pod_uid == start.pod_uid && answered.container != start.container => {
            return Some(step(Step::Answer { ordinal, start, record: None }));
        }
        _ => {}
    }
    let cause = cause::classify(&Evidence {
        pod,
        container: pod.containers.get(container)?,
        answered,
        departed: view.observed.departed.get(&ordinal),
    });
    let tell = |verdict, message: String| Record {
        at: view.now,
        hook: NAME.to_owned(),
        reason: cause.reason.to_string(),
        verdict,
        pod: pod.name.clone(),
        pod_uid: pod.uid.clone(),
        run: None,
        attempt: None,
        message,
        rest: BTreeMap::new(),
    };
    if answered.is_none() && start.restarts == 0 {
        let record = Some(tell(Verdict::Noted, cause.why.clone()));
        return Some(step(Step::Answer { ordinal, start, record }));
    }
    let Some(hook) = view.hook() else {
        let record = Some(tell(Verdict::Skipped, format!("{}; {}", cause.why, view.nothing_to_run())));
        return Some(step(Step::Answer { ordinal, start, record }));
    };
    let episode = Episode {
        scenario: NAME.to_owned(),
        scope: Scope::Pod(pod.uid.clone()),
        reason: cause.reason.to_string(),
        why: cause.why,
        pod: pod.name.clone(),
        ordinal: Some(ordinal),
        old_ip: answered.and_then(|a| a.ip.clone()).filter(|ip| Some(ip) != start.ip.as_ref()),
        start: Some(start.clone()),
        opened: view.now,
        attempts: 0,
        next: None,
        rest: BTreeMap::new(),
    };
    Some(attempt(&format!("{NAME}-{}", start.short()), &episode, &start, hook, view.now))
}

/// Claims the next attempt of an episode.
fn attempt(id: &str, episode: &Episode, start: &Start, hook: &Hook, now: Timestamp) -> Next {
    let mut episode = Box::new(episode.clone());
    episode.attempts += 1;
    episode.next = None;
    let run = Run {
        episode: id.to_owned(),
        hook: NAME.to_owned(),
        pod: episode.pod.clone(),
        pod_uid: start.pod_uid.clone(),
        container: start.container.clone(),
        attempt: episode.attempts,
        claimed: now,
        timeout_ms: u64::try_from(hook.timeout.as_millis()).unwrap_or(u64::MAX),
        rest: BTreeMap::new(),
    };
    let run_id = format!("{id}-{}", episode.attempts);
    step(Step::Run { episode_id: id.to_owned(), episode, run_id, run })
}

/// An open episode.
struct Open<'a> {
    view: &'a View<'a>,
    id: &'a str,
    episode: &'a Episode,
    ordinal: u32,
    start: &'a Start,
}

impl Open<'_> {
    fn advance(&self) -> Option<Next> {
        match self.view.ledger.runs.iter().find(|(_, run)| run.episode == self.id) {
            Some((run_id, run)) => self.settle(run_id, run),
            None => self.retry(),
        }
    }

    /// An attempt is claimed: what became of it?
    fn settle(&self, run_id: &str, run: &Run) -> Option<Next> {
        let observed = self.view.observed;
        if let Some(RunEnd::Outcome(outcome)) = observed.ends.get(run_id) {
            return Some(self.judged(run_id, run, judge(outcome)));
        }
        if self.replaced() {
            return Some(self.close(Some((run_id, run)), Verdict::Superseded, GONE));
        }
        if observed.running.contains(run_id) {
            return None;
        }
        if self.view.hook().is_none() {
            return Some(self.close(Some((run_id, run)), Verdict::Skipped, &self.view.nothing_to_run()));
        }
        match observed.ends.get(run_id) {
            Some(RunEnd::Lost { at, denied: true, why, .. }) if self.view.now < later(*at, DENIED_PAUSE) => {
                Some(Next::Hold { until: Some(later(*at, DENIED_PAUSE)), reason: reason::Hold::Forbidden, why: why.clone() })
            }
            Some(RunEnd::Lost { since, denied: false, why, .. }) if self.view.now >= given_up(*since, run) => {
                Some(self.judged(run_id, run, End::Unknown(why.clone())))
            }
            Some(RunEnd::Lost { at, denied: false, .. }) if self.view.now < later(*at, ASK_AGAIN) => {
                Some(Next::Wait { until: later(*at, ASK_AGAIN) })
            }
            _ => Some(step(Step::Attach { run_id: run_id.to_owned() })),
        }
    }

    /// No attempt is claimed: is another one due?
    fn retry(&self) -> Option<Next> {
        if self.replaced() {
            return Some(self.close(None, Verdict::Superseded, GONE));
        }
        let Some(hook) = self.view.hook() else {
            return Some(self.close(None, Verdict::Skipped, &self.view.nothing_to_run()));
        };
        match self.episode.next {
            Some(until) if self.view.now < until => Some(Next::Wait { until }),
            _ => {
                let pod = self.view.observed.pods.get(&self.ordinal)?;
                let ready = pod.takes_hooks(&self.start.container);
                ready.then(|| attempt(self.id, self.episode, self.start, hook, self.view.now))
            }
        }
    }

    fn judged(&self, run_id: &str, run: &Run, end: End) -> Next {
        let (message, again) = match end {
            End::Succeeded(message) => {
                return self.close(Some((run_id, run)), Verdict::Succeeded, &message);
            }
            End::Failed(message) => (message, true),
            End::Unknown(message) => (message, self.view.hook().is_some_and(|h| h.idempotent)),
        };
        match self.view.hook() {
            Some(hook) if again && run.attempt <= hook.retries => {
                let next = later(self.view.now, backoff(hook, run.attempt));
                let message = format!("{message}; attempt {} of {}", run.attempt, hook.retries + 1);
                let record = self.tell(Some((run_id, run)), Verdict::Retrying, &message);
                step(Step::Retry { run_id: run_id.to_owned(), next, record })
            }
            _ => self.close(Some((run_id, run)), Verdict::Failed, &message),
        }
    }

    /// The pod is gone, or it or its container is another by now.
    fn replaced(&self) -> bool {
        let Some(pod) = self.view.observed.pods.get(&self.ordinal) else {
            return true;
        };
        match pod.start(&self.start.container) {
            Some(now) => !now.is(self.start) && !now.is_older_than(self.start),
            None => pod.uid != self.start.pod_uid && pod.created >= self.start.created,
        }
    }

    fn close(&self, run: Option<(&str, &Run)>, verdict: Verdict, message: &str) -> Next {
        let record = self.tell(run, verdict, message);
        step(Step::Close { episode_id: self.id.to_owned(), record })
    }

    fn tell(&self, run: Option<(&str, &Run)>, verdict: Verdict, message: &str) -> Record {
        Record {
            at: self.view.now,
            hook: NAME.to_owned(),
            reason: self.episode.reason.clone(),
            verdict,
            pod: self.episode.pod.clone(),
            pod_uid: self.start.pod_uid.clone(),
            run: run.map(|(id, _)| id.to_owned()),
            attempt: run.map(|(_, run)| run.attempt),
            message: format!("{}: {message}", self.episode.why),
            rest: BTreeMap::new(),
        }
    }
}

const GONE: &str = "the container or its pod was replaced meanwhile, its next start gets its own answer";

/// What the end of a run means for its episode.
enum End {
    Succeeded(String),
    Failed(String),
    /// How far it came is not known.
    Unknown(String),
}

fn judge(outcome: &Outcome) -> End {
    let seconds = format!("{}.{} s", outcome.duration_ms / 1000, outcome.duration_ms % 1000 / 100);
    let failed = |what: String| End::Failed(format!("rejoin {what}{}", last_words(outcome)));
    match &outcome.result {
        RunResult::Exited { code: 0 } => End::Succeeded(format!("rejoin succeeded after {seconds}")),
        RunResult::Exited { code } => failed(format!("ended with exit code {code} after {seconds}")),
        RunResult::Signaled { signal } => failed(format!("was ended by signal {signal} after {seconds}")),
        RunResult::TimedOut => failed(format!("was killed at its time out, after {seconds}")),
        RunResult::NotFound { what } => failed(format!("was not started: there is no {what}")),
        RunResult::NotExecutable { what } => failed(format!("was not started: {what} cannot be executed")),
        RunResult::NotStarted { message } => failed(format!("was not started: {message}")),
        RunResult::Interrupted => End::Unknown("rejoin was interrupted, how far it came is unknown".to_owned()),
        RunResult::Refused { why } => failed(format!("was refused by the runner: {}", refusal(why))),
        RunResult::Unknown => {
            End::Unknown("the runner of this pod is newer than this guardian: its answer is not understood".to_owned())
        }
    }
}

fn refusal(why: &Refusal) -> String {
    match why {
        Refusal::OtherPod { uid } => format!("the pod of this name is another ({uid})"),
        Refusal::BadRequest { message } => message.clone(),
        Refusal::UnsupportedVersion { asked, supported } => {
            format!("it understands requests up to version {supported}, not {asked}")
        }
        Refusal::NotInstalled { message } => format!("{message}; the pod's init container has not run"),
        Refusal::Unwritable { message } => format!("the claim cannot be written: {message}"),
        Refusal::StillRunning => "it is still running".to_owned(),
        Refusal::Unknown => "for a reason that this guardian does not know".to_owned(),
    }
}

/// The last line on standard error, else on standard output, without control characters.
fn last_words(outcome: &Outcome) -> String {
    let line = |text: &str| text.lines().rfind(|l| !l.trim().is_empty()).map(str::to_owned);
    let Some(line) = line(&outcome.stderr.text).or_else(|| line(&outcome.stdout.text)) else {
        return String::new();
    };
    let mut line: String = line.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    line.truncate(line.floor_char_boundary(MAX_WORDS));
    format!(", its last words: {}", line.trim())
}

fn backoff(hook: &Hook, attempt: u32) -> SignedDuration {
    let doubled = hook.backoff.saturating_mul(2_u32.saturating_pow(attempt.saturating_sub(1)));
    SignedDuration::try_from(doubled.min(MAX_BACKOFF)).unwrap_or(SignedDuration::ZERO)
}

fn given_up(since: Timestamp, run: &Run) -> Timestamp {
    let timeout = SignedDuration::from_millis(i64::try_from(run.timeout_ms).unwrap_or(i64::MAX));
    later(later(since, timeout), REACH)
}

fn later(at: Timestamp, pause: SignedDuration) -> Timestamp {
    at.saturating_add(pause).unwrap_or(Timestamp::MAX)
}

fn step(step: Step) -> Next {
    Next::Step(Box::new(step))
}

impl View<'_> {
    fn hook(&self) -> Option<&Hook> {
        self.policy?.hooks.rejoin.as_ref()
    }

    /// Where the hook runs: as it says itself, else the policy, else the first container.
    fn container<'v>(&'v self, pod: &'v Pod) -> &'v str {
        let named = self.hook().and_then(|h| h.container.as_deref());
        let named = named.or_else(|| self.policy?.container.as_deref());
        named.unwrap_or(&pod.first_container)
    }

    fn nothing_to_run(&self) -> String {
        match self.policy {
            None => format!("{}: no policy guards the set, so there is no hook to run", reason::Hold::NoPolicy),
            Some(policy) => {
                format!("{}: policy {} has no rejoin hook", reason::Hold::NoHook, policy.name)
            }
        }
    }
}

#[cfg(test)]
mod tests;
