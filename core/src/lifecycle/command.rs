//! What the owner of a set asks for by hand: a task, or a hook, in one pod after the other (`guardian run`).
//!
//! Whoever asks claims it in the ledger, as the controller claims what it begins, starts it under his own rights, waits for its end, and closes the
//! episode. The controller never starts a command. Where the one who asked is gone before the end, it learns from the runner what became of the
//! run, and closes the episode in his place.

use std::collections::BTreeMap;
use std::time::Duration;

use guardian_hook::protocol::Outcome;
use jiff::{SignedDuration, Timestamp};

use super::attempt::{self, Course, Progress, later, step};
use super::decide::{Next, Scenario, View};
use super::observed::{Observed, Pod};
use super::room::Room;
use super::step::{Settles, Step};
use crate::ledger::{Episode, Record, Scope, State, Verdict};
use crate::policy::{Hook, Policy, Target, When};
use crate::reason;

pub(super) const SCENARIO: Scenario = Scenario { name: NAME, next };

/// The scenario of such an episode.
pub const NAME: &str = "command";

/// How long a command is left to whoever asked for it before the controller asks its runner too. He connects within 10 s of his claim or not at
/// all, and the runner waits for his request for 10 s more; the rest is for clocks that differ.
const HEAD_START: SignedDuration = SignedDuration::from_secs(30);

/// Most characters of a user's name that are kept.
const MAX_WHO: usize = 200;

/// Hooks that run at their own occasion only, and why.
const NOT_BY_HAND: &[(&str, &str)] = &[
    ("init", "it runs in an init container, before the application starts"),
    ("position", "it runs in an init container, before the application starts"),
    ("restart", "it runs in an init container, before the application starts"),
    ("preStop", "the pod runs it itself when it stops: `kubectl delete pod` brings it about"),
    ("bootstrap", "it makes the cluster, once: where it has to be made again, `guardian adopt SET --new` says so"),
    ("freeze", "the data would stay frozen with nothing to thaw it"),
    ("fence", "its success is proof that a certain lost pod cannot write, and there is none that it would be about"),
];

/// A task or a hook of a policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Command {
    /// Its name: `tasks.NAME`, or that of the hook.
    pub name: String,
    /// The terms on which it runs.
    pub hook: Hook,
}

/// Why a command is not begun.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// There is none of that name.
    #[error("policy {policy} has no task or hook {name}; it has {}", list(known))]
    Unknown {
        /// The policy.
        policy: String,
        /// What was asked for.
        name: String,
        /// What there is.
        known: Vec<String>,
    },
    /// There are two.
    #[error("policy {policy} has both a task and a hook {name}: say `tasks.{name}` or `hooks.{name}`")]
    Ambiguous {
        /// The policy.
        policy: String,
        /// What was asked for.
        name: String,
    },
    /// It has an occasion of its own.
    #[error("hook {name} cannot be run by hand: {why}")]
    NotByHand {
        /// The hook.
        name: String,
        /// The reason.
        why: &'static str,
    },
    /// It is about one pod, and which one is not said.
    #[error("{name} runs in one pod, and the set has {replicas}: say in which with --pod")]
    WhichPod {
        /// The command.
        name: String,
        /// Pods that the set is meant to have.
        replicas: usize,
    },
    /// The pod is of another set, or does not exist.
    #[error("the set is not meant to have a pod {0}")]
    NotOfSet(String),
    /// The pod is not there, or nothing can run in it.
    #[error(
        "pod {0} is not there, or has no runner: only pods that were made while the guardian guarded the set have one (`guardian status`)"
    )]
    NotThere(String),
    /// No pod has the role.
    #[error("no pod has the role {0}, as their labels say: look at `guardian history`, or say in which pod with --pod")]
    NoRole(String),
    /// It cannot run in the pod now.
    #[error("pod {pod} {why}")]
    NotNow {
        /// The pod.
        pod: String,
        /// What is in the way, as the rest of the sentence.
        why: String,
    },
    /// A person has put the set or its namespace on hold.
    #[error("the set is on hold: {0}")]
    OnHold(String),
    /// Something else is at work in the pod.
    #[error(
        "pod {pod} is held by {episode}: {hook}, since {since} ({why}). Wait for its end: `guardian history --follow` shows it"
    )]
    HeldBy {
        /// The pod.
        pod: String,
        /// Id of the episode that holds it.
        episode: String,
        /// What it runs.
        hook: String,
        /// Since when.
        since: Timestamp,
        /// Why it runs.
        why: String,
    },
}

impl Refused {
    /// Is it wrong whatever the state of the cluster?
    #[must_use]
    pub const fn is_usage(&self) -> bool {
        matches!(
            self,
            Self::Unknown { .. } | Self::Ambiguous { .. } | Self::NotByHand { .. } | Self::WhichPod { .. } | Self::NotOfSet(_)
        )
    }
}

/// Finds a task or a hook by its name, or by its path in the policy: `tasks.NAME`, `hooks.NAME`.
///
/// # Errors
/// When there is none that can be run by hand, or it is not clear which is meant.
pub fn find(policy: &Policy, asked: &str) -> Result<Command, Refused> {
    let hooks = policy.hooks.all();
    let (is_task, is_hook, name) = match asked.split_once('.') {
        Some(("tasks", name)) => (true, false, name),
        Some(("hooks", name)) => (false, true, name),
        _ => (true, true, asked),
    };
    let task = policy.tasks.get(name).filter(|_| is_task).map(|task| &task.hook);
    let hook = hooks.get(name).copied().filter(|_| is_hook);
    let (name, found) = match (task, hook) {
        (Some(_), Some(_)) => return Err(Refused::Ambiguous { policy: policy.name.clone(), name: name.to_owned() }),
        (Some(task), None) => (format!("tasks.{name}"), task),
        (None, Some(hook)) => match NOT_BY_HAND.iter().find(|(not, _)| *not == name) {
            Some((_, why)) => return Err(Refused::NotByHand { name: name.to_owned(), why }),
            None => (name.to_owned(), hook),
        },
        (None, None) => {
            let by_hand = hooks.keys().filter(|hook| NOT_BY_HAND.iter().all(|(not, _)| not != *hook));
            let known = policy.tasks.keys().cloned().chain(by_hand.map(|hook| (*hook).to_owned())).collect();
            return Err(Refused::Unknown { policy: policy.name.clone(), name: asked.to_owned(), known });
        }
    };
    Ok(Command { name, hook: found.clone() })
}

/// The ordinals of the pods in which a command runs, in its order: one, or, where its target is `all`, each. `pod` names another than its target.
///
/// # Errors
/// When it cannot run in all of these now.
pub fn pods(observed: &Observed, policy: &Policy, command: &Command, pod: Option<&str>) -> Result<Vec<u32>, Refused> {
    let view = View { observed, policy: Some(policy), ledger: &State::new(&observed.set.uid), now: Timestamp::UNIX_EPOCH };
    view.on_hold()?;
    let ordinals = observed.set.ordinals.clone();
    let one = |ordinal| view.ready_for(&command.hook, ordinal).map(|_| vec![ordinal]);
    if let Some(name) = pod {
        let ordinal = ordinals.clone().find(|ordinal| view.pod_name(*ordinal) == name);
        return one(ordinal.ok_or_else(|| Refused::NotOfSet(name.to_owned()))?);
    }
    match &command.hook.target {
        None | Some(Target::Itself) if ordinals.len() == 1 => one(ordinals.start),
        None | Some(Target::Itself) => Err(Refused::WhichPod { name: command.name.clone(), replicas: ordinals.len() }),
        Some(Target::Ordinal(ordinal)) if ordinals.contains(ordinal) => one(*ordinal),
        Some(Target::Ordinal(ordinal)) => Err(Refused::NotOfSet(view.pod_name(*ordinal))),
        Some(Target::All) => ordinals.map(|ordinal| view.ready_for(&command.hook, ordinal).map(|_| ordinal)).collect(),
        Some(Target::Any) => {
            let ready = observed.pods.values().filter(|pod| pod.serves());
            view.first(&command.hook, &ready.chain(observed.pods.values()).collect::<Vec<_>>())
                .ok_or_else(|| Refused::NotThere(view.pod_name(ordinals.start)))
                .and_then(one)
        }
        Some(target @ Target::Role(role)) => {
            let holders = super::target::pods(observed, Some(target), ordinals.start).collect::<Vec<_>>();
            view.first(&command.hook, &holders).ok_or_else(|| Refused::NoRole(role.clone())).and_then(one)
        }
    }
}

/// Who asks for what, when.
#[derive(Clone, Debug)]
pub struct Asked<'a> {
    /// The command.
    pub command: &'a Command,
    /// The user's name.
    pub who: &'a str,
    /// In place of the time out that the policy gives it.
    pub timeout: Option<Duration>,
    /// The time.
    pub now: Timestamp,
}

/// Claims a command in the pod of an ordinal: the episode and its one run, to be written into the ledger before it is started.
///
/// # Errors
/// When it cannot run there now, or another episode holds the pod.
pub fn claim(observed: &Observed, policy: &Policy, ledger: &State, ordinal: u32, asked: &Asked<'_>) -> Result<Step, Refused> {
    let view = View { observed, policy: Some(policy), ledger, now: asked.now };
    view.on_hold()?;
    let hook = Hook { timeout: asked.timeout.unwrap_or(asked.command.hook.timeout), ..asked.command.hook.clone() };
    let pod = view.ready_for(&hook, ordinal)?;
    let start = pod.start(view.container(&hook, pod)).ok_or_else(|| Refused::NotThere(pod.name.clone()))?;
    // The same pod may see many. In hexadecimal digits, so that the id of the run is at most 6 + 63 + 1 + 8 + 1 + 11 + 2 characters of 100.
    let short: String = pod.uid.chars().filter(char::is_ascii_alphanumeric).take(8).collect();
    let id = format!("{NAME}-{short}-{:x}", asked.now.as_millisecond());
    let scope = Scope::Pod(pod.uid.clone());
    if let Some(holder) = Room::new(ledger).holder(&scope, "") {
        return Err(held_by(pod, holder, ledger));
    }
    let episode = Episode {
        scenario: NAME.to_owned(),
        hook: asked.command.name.clone(),
        then: None,
        scope,
        reason: reason::Start::Requested.to_string(),
        why: format!("asked for by {}", asked.who.chars().filter(|c| !c.is_control()).take(MAX_WHO).collect::<String>()),
        pod: pod.name.clone(),
        ordinal: Some(ordinal),
        start: Some(start),
        old_ip: None,
        opened: asked.now,
        attempts: 0,
        next: None,
        resize: None,
        rest: BTreeMap::new(),
    };
    match attempt::attempt(&view, &id, &episode, &hook, pod) {
        Next::Step(step) => Ok(*step),
        // An attempt is always a step.
        Next::Wait { .. } | Next::Hold { .. } => Err(Refused::NotThere(pod.name.clone())),
    }
}

/// What closes a command whose run has ended so; `None`: somebody else has closed it.
#[must_use]
pub fn close(observed: &Observed, ledger: &State, run_id: &str, outcome: &Outcome, now: Timestamp) -> Option<Step> {
    let view = View { observed, policy: None, ledger, now };
    attempt::open(&view, NAME).find_map(|course| {
        let (id, run) = course.run().filter(|(id, _)| *id == run_id)?;
        match course.answered(id, run, outcome) {
            Progress::Over(over) => Some(closed(&course, over.record)),
            Progress::On(_) => None,
        }
    })
}

/// The part of the controller.
fn next(view: &View<'_>) -> Vec<Next> {
    attempt::open(view, NAME).filter_map(|course| advance(&course)).collect()
}

fn advance(course: &Course<'_>) -> Option<Next> {
    let view = course.view;
    let record = match course.run() {
        // Both are claimed at once.
        None => course.tell(None, Verdict::Failed, "nothing is known of its run"),
        Some((run_id, run)) => {
            let known = view.observed.running.contains(run_id) || view.observed.ends.contains_key(run_id);
            let is_fresh = view.now.duration_since(run.claimed).abs() < HEAD_START;
            if is_fresh && !known && !course.is_replaced() {
                return Some(Next::Wait { until: later(run.claimed.min(view.now), HEAD_START) });
            }
            match course.settle(run_id, run)? {
                Progress::On(next) => return Some(next),
                Progress::Over(over) => over.record,
            }
        }
    };
    Some(step(closed(course, record)))
}

fn closed(course: &Course<'_>, record: Record) -> Step {
    Step::Close { episode_id: course.id.to_owned(), record, settles: Settles::Nothing }
}

fn held_by(pod: &Pod, id: &str, ledger: &State) -> Refused {
    let holder = ledger.episodes.get(id);
    let text = |part: fn(&Episode) -> &String| holder.map(part).cloned().unwrap_or_default();
    Refused::HeldBy {
        pod: pod.name.clone(),
        episode: id.to_owned(),
        hook: text(|episode| &episode.hook),
        since: holder.map_or(Timestamp::UNIX_EPOCH, |episode| episode.opened),
        why: text(|episode| &episode.why),
    }
}

impl View<'_> {
    fn on_hold(&self) -> Result<(), Refused> {
        self.observed.set.hold.as_ref().map_or(Ok(()), |why| Err(Refused::OnHold(why.clone())))
    }

    fn pod_name(&self, ordinal: u32) -> String {
        format!("{}-{ordinal}", self.observed.set.name)
    }

    /// Ordinal of the first of these pods that can take a hook now, else of the first, so that it can be said what is in the way.
    fn first(&self, hook: &Hook, pods: &[&Pod]) -> Option<u32> {
        let first = pods.iter().find(|pod| self.takes(hook, pod)).or_else(|| pods.first());
        first.and_then(|pod| self.observed.ordinal_of(pod))
    }

    /// The pod of an ordinal, if a hook can run in it now.
    fn ready_for(&self, hook: &Hook, ordinal: u32) -> Result<&Pod, Refused> {
        let pod = self.observed.pods.get(&ordinal).ok_or_else(|| Refused::NotThere(self.pod_name(ordinal)))?;
        let container = self.container(hook, pod);
        let why = match pod.containers.get(container) {
            _ if pod.terminating() => "is being deleted".to_owned(),
            None => format!("has no container {container}, or it was never started"),
            Some(status) if status.running_since.is_none() => format!("is up, and its container {container} does not run"),
            Some(_) if hook.when == When::Ready && !pod.ready => "is not ready, and `when: ready` asks for that".to_owned(),
            Some(_) => return Ok(pod),
        };
        Err(Refused::NotNow { pod: pod.name.clone(), why })
    }
}

fn list(known: &[String]) -> String {
    if known.is_empty() { "none that can be run by hand".to_owned() } else { known.join(", ") }
}

#[cfg(test)]
mod tests;
