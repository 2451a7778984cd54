//! One hook, run in one pod until it has succeeded or may not be tried again. Scenarios share it: each attempt is claimed, carried out and
//! settled, and no attempt is made twice.

use std::collections::BTreeMap;
use std::time::Duration;

use guardian_hook::protocol::{EMPTY_COMMAND, Outcome, Refusal, RunResult};
use jiff::{SignedDuration, Timestamp};

use super::decide::{Next, View};
use super::observed::{Pod, RunEnd};
use super::step::Step;
use super::{command, fence};
use crate::ledger::{Episode, Record, Run, Start, Verdict};
use crate::policy::{Hook, When};
use crate::reason;

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

const GONE: &str = "the container or its pod was replaced meanwhile, its next start gets its own answer";
pub(super) const LOST: &str =
    "the pod is being deleted and should have stopped, and nobody hears of its node: nothing more is begun in it";

/// An open episode at one of its hooks.
pub(super) struct Course<'a> {
    pub(super) view: &'a View<'a>,
    pub(super) id: &'a str,
    pub(super) episode: &'a Episode,
    /// Ordinal of the pod that it is about.
    pub(super) ordinal: u32,
    /// The start of that pod that it is about.
    pub(super) start: &'a Start,
}

/// How far the hook has come.
pub(super) enum Progress {
    /// It goes on like this.
    On(Next),
    /// It has ended, one way or another; what follows is the scenario's to say.
    Over(Box<Over>),
}

/// The end of a hook.
pub(super) struct Over {
    /// What there is to tell.
    pub(super) record: Record,
    /// It is not known how far the last attempt came.
    pub(super) unknown: bool,
}

/// The episodes of a scenario that are about one pod.
pub(super) fn open<'a>(view: &'a View<'a>, scenario: &'static str) -> impl Iterator<Item = Course<'a>> {
    view.ledger.episodes.iter().filter(move |(_, episode)| episode.scenario == scenario).filter_map(move |(id, episode)| {
        Some(Course { view, id, episode, ordinal: episode.ordinal?, start: episode.start.as_ref()? })
    })
}

/// Claims the next attempt of an episode at its hook, in the pod where that runs.
pub(super) fn attempt(view: &View<'_>, id: &str, episode: &Episode, hook: &Hook, pod: &Pod) -> Next {
    let mut episode = Box::new(episode.clone());
    episode.attempts += 1;
    episode.next = None;
    let subject = id.strip_prefix(&format!("{}-", episode.scenario)).unwrap_or(id);
    let run_id = format!("{}-{subject}-{}", episode.hook, episode.attempts);
    let run = Run {
        episode: id.to_owned(),
        hook: episode.hook.clone(),
        pod: pod.name.clone(),
        pod_uid: pod.uid.clone(),
        container: view.container(hook, pod).to_owned(),
        attempt: episode.attempts,
        claimed: view.now,
        timeout_ms: u64::try_from(hook.timeout.as_millis()).unwrap_or(u64::MAX),
        rest: BTreeMap::new(),
    };
    step(Step::Run { episode_id: id.to_owned(), episode, run_id, run })
}

impl Course<'_> {
    /// What the hook of the episode needs next; `None`: nothing, until something happens.
    pub(super) fn advance(&self) -> Option<Progress> {
        match self.run() {
            Some((run_id, run)) => self.settle(run_id, run),
            None => self.begin(),
        }
    }

    /// The attempt that is claimed, by its id.
    pub(super) fn run(&self) -> Option<(&str, &Run)> {
        let mut runs = self.view.ledger.runs.iter();
        runs.find(|(_, run)| run.episode == self.id).map(|(run_id, run)| (run_id.as_str(), run))
    }

    /// As the policy has it now. A command is what its owner has started; no policy says that it is run again.
    fn hook(&self) -> Option<&Hook> {
        let policy = self.view.policy.filter(|_| !self.is_command())?;
        policy.run_by_controller(&self.episode.hook)
    }

    fn is_command(&self) -> bool {
        self.episode.scenario == command::NAME
    }

    /// An attempt is claimed: what became of it?
    pub(super) fn settle(&self, run_id: &str, run: &Run) -> Option<Progress> {
        let observed = self.view.observed;
        if let Some(RunEnd::Outcome(outcome)) = observed.ends.get(run_id) {
            return Some(self.answered(run_id, run, outcome));
        }
        if self.is_replaced() {
            return Some(self.over(Some((run_id, run)), Verdict::Superseded, GONE, true));
        }
        if self.is_lost() && run.pod_uid == self.start.pod_uid {
            return Some(self.over(Some((run_id, run)), Verdict::Superseded, LOST, true));
        }
        if observed.running.contains(run_id) {
            return None;
        }
        if self.hook().is_none() && !self.is_command() {
            return Some(self.over(Some((run_id, run)), Verdict::Skipped, &self.view.nothing_to_run(&run.hook), true));
        }
        match observed.ends.get(run_id) {
            Some(RunEnd::Lost { at, denied: true, why, .. }) if self.view.now < later(*at, DENIED_PAUSE) => {
                let until = Some(later(*at, DENIED_PAUSE));
                Some(Progress::On(Next::Hold { until, reason: reason::Hold::Forbidden, why: why.clone() }))
            }
            Some(RunEnd::Lost { since, denied: false, why, .. }) if self.view.now >= given_up(*since, run) => {
                Some(self.judged(run_id, run, End::Unknown(why.clone())))
            }
            Some(RunEnd::Lost { at, denied: false, .. }) if self.view.now < later(*at, ASK_AGAIN) => {
                Some(Progress::On(Next::Wait { until: later(*at, ASK_AGAIN) }))
            }
            _ => Some(Progress::On(step(Step::Attach { run_id: run_id.to_owned() }))),
        }
    }

    /// No attempt is claimed: is one due?
    fn begin(&self) -> Option<Progress> {
        if self.is_replaced() {
            return Some(self.over(None, Verdict::Superseded, GONE, false));
        }
        if self.is_lost() {
            return Some(self.over(None, Verdict::Superseded, LOST, false));
        }
        let Some(hook) = self.hook() else {
            return Some(self.over(None, Verdict::Skipped, &self.view.nothing_to_run(&self.episode.hook), false));
        };
        match self.episode.next {
            Some(until) if self.view.now < until => Some(Progress::On(Next::Wait { until })),
            _ => {
                let pod = self.view.pod_for(&self.episode.hook, hook, self.ordinal)?;
                Some(Progress::On(attempt(self.view, self.id, self.episode, hook, pod)))
            }
        }
    }

    /// The runner has answered so.
    pub(super) fn answered(&self, run_id: &str, run: &Run, outcome: &Outcome) -> Progress {
        self.judged(run_id, run, judge(&run.hook, outcome))
    }

    fn judged(&self, run_id: &str, run: &Run, end: End) -> Progress {
        let (message, again, unknown) = match end {
            End::Succeeded(message) => return self.over(Some((run_id, run)), Verdict::Succeeded, &message, false),
            End::Failed(message) => (message, true, false),
            End::Unknown(message) => (message, self.hook().is_some_and(|h| h.idempotent), true),
        };
        match self.hook() {
            Some(hook) if again && run.attempt <= hook.retries => {
                let next = later(self.view.now, backoff(hook, run.attempt));
                let message = format!("{message}; attempt {} of {}", run.attempt, hook.retries + 1);
                let record = self.tell(Some((run_id, run)), Verdict::Retrying, &message);
                Progress::On(step(Step::Retry { run_id: run_id.to_owned(), next, record }))
            }
            _ => self.over(Some((run_id, run)), Verdict::Failed, &message, unknown),
        }
    }

    /// The pod that it is about is gone, or it or its container is another by now.
    pub(super) fn is_replaced(&self) -> bool {
        let Some(pod) = self.view.observed.pods.get(&self.ordinal) else {
            return true;
        };
        match pod.start(&self.start.container) {
            Some(now) => !now.is(self.start) && !now.is_older_than(self.start),
            None => pod.uid != self.start.pod_uid && pod.created >= self.start.created,
        }
    }

    /// The pod that it is about is [lost](fence::is_lost), and it holds what its fence needs. Nothing is begun in that pod any more, so no attempt
    /// can be made twice; what goes on in it unseen is cut off by the fence, or ended by the kubelet that is heard of again.
    pub(super) fn is_lost(&self) -> bool {
        let pod = self.view.observed.pods.get(&self.ordinal).filter(|pod| pod.uid == self.start.pod_uid);
        self.episode.scenario != fence::NAME && pod.is_some_and(|pod| fence::is_lost(self.view, pod))
    }

    fn over(&self, run: Option<(&str, &Run)>, verdict: Verdict, message: &str, unknown: bool) -> Progress {
        Progress::Over(Box::new(Over { record: self.tell(run, verdict, message), unknown }))
    }

    pub(super) fn tell(&self, run: Option<(&str, &Run)>, verdict: Verdict, message: &str) -> Record {
        Record {
            at: self.view.now,
            hook: self.episode.hook.clone(),
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

impl View<'_> {
    /// Where a hook runs: as it says itself, else the policy, else the first container.
    pub(super) fn container<'v>(&'v self, hook: &'v Hook, pod: &'v Pod) -> &'v str {
        let named = hook.container.as_deref().or_else(|| self.policy?.container.as_deref());
        named.unwrap_or(&pod.first_container)
    }

    /// Can the hook run in this pod now?
    pub(super) fn takes(&self, hook: &Hook, pod: &Pod) -> bool {
        pod.takes_hooks(self.container(hook, pod)) && (hook.when == When::Running || pod.ready)
    }

    /// The pod in which a hook runs that is about the pod of an ordinal: see [`Target`](crate::policy::Target). `None`: none can take it now.
    fn pod_for(&self, name: &str, hook: &Hook, about: u32) -> Option<&Pod> {
        if name == fence::NAME {
            return fence::peer(self, hook, about);
        }
        super::target::pods(self.observed, hook.target.as_ref(), about).find(|pod| self.takes(hook, pod))
    }

    pub(super) fn nothing_to_run(&self, hook: &str) -> String {
        match self.policy {
            None => format!("{}: no policy guards the set, so there is no hook to run", reason::Hold::NoPolicy),
            Some(policy) => {
                format!("{}: policy {} has no {hook} hook", reason::Hold::NoHook, policy.name)
            }
        }
    }
}

/// What the end of a run means for its episode.
enum End {
    Succeeded(String),
    Failed(String),
    /// How far it came is not known.
    Unknown(String),
}

fn judge(hook: &str, outcome: &Outcome) -> End {
    let words = in_words(hook, outcome);
    match &outcome.result {
        RunResult::Exited { code: 0 } => End::Succeeded(words),
        RunResult::Interrupted | RunResult::Unknown => End::Unknown(words),
        _ => End::Failed(format!("{words}{}", last_words(outcome))),
    }
}

/// How a run of a hook has ended.
#[must_use]
pub fn in_words(hook: &str, outcome: &Outcome) -> String {
    let seconds = format!("{}.{} s", outcome.duration_ms / 1000, outcome.duration_ms % 1000 / 100);
    match &outcome.result {
        RunResult::Exited { code: 0 } => format!("{hook} succeeded after {seconds}"),
        RunResult::Exited { code } => format!("{hook} ended with exit code {code} after {seconds}"),
        RunResult::Signaled { signal } => format!("{hook} was ended by signal {signal} after {seconds}"),
        RunResult::TimedOut => format!("{hook} was killed at its time out, after {seconds}"),
        RunResult::NotFound { what } if what == EMPTY_COMMAND => {
            format!("{hook} was never started: whoever asked for it was gone before, and it is not started any more")
        }
        RunResult::NotFound { what } => format!("{hook} was not started: there is no {what}"),
        RunResult::NotExecutable { what } => format!("{hook} was not started: {what} cannot be executed"),
        RunResult::NotStarted { message } => format!("{hook} was not started: {message}"),
        RunResult::Interrupted => format!("{hook} was interrupted, how far it came is unknown"),
        RunResult::Refused { why } => format!("{hook} was refused by the runner: {}", refusal(why)),
        RunResult::Unknown => "the runner of this pod is newer than this guardian: its answer is not understood".to_owned(),
    }
}

/// A refusal of the runner, in words.
#[must_use]
pub fn refusal(why: &Refusal) -> String {
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

pub(super) fn later(at: Timestamp, pause: SignedDuration) -> Timestamp {
    at.saturating_add(pause).unwrap_or(Timestamp::MAX)
}

pub(super) fn step(step: Step) -> Next {
    Next::Step(Box::new(step))
}
