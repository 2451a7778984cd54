//! A pod or its container has started: its `join` hook runs in it when its data is new, its `rejoin` hook when it came back; after a crash,
//! which runs no preStop, `postMortem` runs before.
//!
//! A start that differs from the answered one opens an episode that holds the pod. Each attempt is claimed, carried out and settled; the
//! episode closes with the first success, the last failure, or when the pod or container it was about is gone. Then the start is answered.

use std::collections::BTreeMap;

use super::attempt::{self, Course, Over, Progress, step};
use super::decide::{Next, Scenario, View};
use super::life::{self, Life};
use super::observed::Pod;
use super::step::{Settles, Step};
use super::{bootstrap, recreate};
use crate::cause::{self, Cause, Evidence};
use crate::ledger::{Episode, Record, Scope, Start, Verdict};
use crate::policy::{Hook, Hooks, OnFailure};
use crate::reason;

pub(super) const SCENARIO: Scenario = Scenario { name: NAME, next };

const NAME: &str = "start";
const JOIN: &str = "join";
const REJOIN: &str = "rejoin";
const POST_MORTEM: &str = "postMortem";

/// Reasons after which no preStop has run.
const WITHOUT_PRE_STOP: &[reason::Start] =
    &[reason::Start::Crash, reason::Start::OOMKilled, reason::Start::NodeLost, reason::Start::NodeRebooted];

fn next(view: &View<'_>) -> Vec<Next> {
    let (mut all, mut busy) = (Vec::new(), Vec::new());
    for course in attempt::open(view, NAME) {
        busy.push(course.ordinal);
        all.extend(advance(&course));
    }
    let idle = view.observed.pods.iter().filter(|(ordinal, _)| !busy.contains(ordinal));
    all.extend(idle.filter_map(|(ordinal, pod)| begin(view, *ordinal, pod)));
    all.extend(recreate::holds(view));
    all
}

/// A pod without an episode: does its latest start need an answer?
fn begin(view: &View<'_>, ordinal: u32, pod: &Pod) -> Option<Next> {
    let container = view.start_container(pod);
    if !pod.containers.is_empty() && !pod.containers.contains_key(container) {
        let why = format!("pod {} has no container {container}, which the policy names", pod.name);
        return Some(Next::Hold { until: None, reason: reason::Hold::NoSuchContainer, why });
    }
    let start = view.start(ordinal, pod).filter(|_| pod.takes_hooks(container))?;
    let answered = view.ledger.answered.get(&ordinal);
    match answered {
        Some(answered) if answered.is(&start) || start.is_older_than(answered) => return None,
        // The policy names another container now; the pod goes on as it was.
        Some(answered) if answered.pod_uid == start.pod_uid && answered.container != start.container => {
            return Some(step(Step::Answer { ordinal, start, record: None }));
        }
        _ => {}
    }
    let hooks = view.policy.map(|policy| &policy.hooks);
    let life = life::of(view, ordinal, pod);
    match &life {
        Life::Unseen => return None,
        // Where nothing is ever done for new data, nothing hangs on it.
        Life::Unknown(why) if hooks.is_some_and(|h| h.bootstrap.is_some() || h.join.is_some()) => {
            return Some(view.ask_person(reason::Hold::UnknownHistory, bootstrap::adopt(view, why)));
        }
        Life::New if bootstrap::hook(view).is_some() && !view.ledger.bootstrapped => return None,
        _ => {}
    }
    let is_new = life != Life::GoesOn;
    let found = cause(view, ordinal, pod, is_new)?;
    Beginning { view, ordinal, pod, start, is_new, found }.next(answered)
}

/// Why the latest start of a pod has happened. `is_new`: its data is.
pub(super) fn cause(view: &View<'_>, ordinal: u32, pod: &Pod, is_new: bool) -> Option<Cause> {
    let evidence = Evidence {
        pod,
        container: pod.containers.get(view.start_container(pod))?,
        answered: view.ledger.answered.get(&ordinal).filter(|_| !is_new),
        departed: view.observed.departed.get(&ordinal),
        scaled_out: view.ledger.replicas.is_some_and(|seen| ordinal >= seen),
    };
    Some(cause::classify(&evidence))
}

/// An open episode: what its hook, or the act that follows it, needs next.
fn advance(course: &Course<'_>) -> Option<Next> {
    if course.episode.hook == recreate::NAME {
        return recreate::advance(course, Settles::Recreated, Settles::Start);
    }
    Some(match course.advance()? {
        Progress::On(next) => next,
        Progress::Over(over) => follow(course, *over),
    })
}

/// What follows the end of a hook.
fn follow(course: &Course<'_>, Over { record, .. }: Over) -> Next {
    let episode_id = course.id.to_owned();
    if let Some(hook) = course.episode.then.clone().filter(|_| record.verdict != Verdict::Superseded) {
        return step(Step::Proceed { episode_id, hook, record });
    }
    let hook = course.view.policy.and_then(|policy| policy.run_by_controller(&course.episode.hook));
    let recreates = hook.is_some_and(|hook| hook.on_failure == OnFailure::Recreate);
    if recreates && record.verdict == Verdict::Failed {
        return recreate::begin(course, record);
    }
    step(Step::Close { episode_id, record, settles: Settles::Start })
}

/// A start that needs an answer.
struct Beginning<'a> {
    view: &'a View<'a>,
    ordinal: u32,
    pod: &'a Pod,
    start: Start,
    /// Its data is.
    is_new: bool,
    found: Cause,
}

impl Beginning<'_> {
    fn next(self, answered: Option<&Start>) -> Option<Next> {
        let hooks = self.view.policy.map(|policy| &policy.hooks);
        let joins = self.is_new && hooks.is_some_and(|h| h.join.is_some());
        if self.is_new && !joins && self.start.restarts == 0 {
            let record = Some(self.tell(JOIN, Verdict::Noted, self.found.why.clone()));
            return Some(step(Step::Answer { ordinal: self.ordinal, start: self.start, record }));
        }
        let name = if joins { JOIN } else { REJOIN };
        let Some(hook) = hooks.and_then(|hooks| hooks.started_by_controller(name)) else {
            let message = format!("{}; {}", self.found.why, self.view.nothing_to_run(name));
            let record = Some(self.tell(name, Verdict::Skipped, message));
            return Some(step(Step::Answer { ordinal: self.ordinal, start: self.start, record }));
        };
        let post_mortem = hooks.and_then(|h| h.post_mortem.as_ref()).filter(|_| WITHOUT_PRE_STOP.contains(&self.found.reason));
        let then = post_mortem.map(|_| name.to_owned());
        let (name, hook) = post_mortem.map_or((name, hook), |hook| (POST_MORTEM, hook));
        let mut about = super::target::pods(self.view.observed, hook.target.as_ref(), self.ordinal);
        // `when: ready`: its readiness brings the set here again.
        let at = about.find(|pod| self.view.takes(hook, pod))?;
        let episode = Episode {
            scenario: NAME.to_owned(),
            hook: name.to_owned(),
            then,
            scope: Scope::Pod(self.pod.uid.clone()),
            reason: self.found.reason.to_string(),
            why: self.found.why.clone(),
            pod: self.pod.name.clone(),
            ordinal: Some(self.ordinal),
            old_ip: answered.and_then(|a| a.ip.clone()).filter(|ip| Some(ip) != self.start.ip.as_ref()),
            start: Some(self.start.clone()),
            opened: self.view.now,
            attempts: 0,
            next: None,
            resize: None,
            rest: BTreeMap::new(),
        };
        Some(attempt::attempt(self.view, &format!("{NAME}-{}", self.start.short()), &episode, hook, at))
    }

    fn tell(&self, hook: &str, verdict: Verdict, message: String) -> Record {
        Record {
            at: self.view.now,
            hook: hook.to_owned(),
            reason: self.found.reason.to_string(),
            verdict,
            pod: self.pod.name.clone(),
            pod_uid: self.pod.uid.clone(),
            run: None,
            attempt: None,
            message,
            rest: BTreeMap::new(),
        }
    }
}

impl View<'_> {
    /// The latest start of a pod, of the container in which it rejoins.
    pub(super) fn start(&self, ordinal: u32, pod: &Pod) -> Option<Start> {
        let volume = self.observed.volumes.get(&ordinal).map(|volume| volume.uid.clone());
        Some(Start { volume, ..pod.start(self.start_container(pod))? })
    }

    /// The container whose starts count: that of `rejoin`, else of `join`, else the policy's.
    fn start_container<'v>(&'v self, pod: &'v Pod) -> &'v str {
        let both = |hooks: &'v Hooks| [&hooks.rejoin, &hooks.join].into_iter().flatten().next();
        let hook: Option<&Hook> = self.policy.and_then(|policy| both(&policy.hooks));
        let named = hook.and_then(|hook| hook.container.as_deref()).or_else(|| self.policy?.container.as_deref());
        named.unwrap_or(&pod.first_container)
    }
}

#[cfg(test)]
mod tests;
