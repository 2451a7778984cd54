//! The cluster is made: once in the life of the volumes, when all pods are there, its `bootstrap` hook runs in one of them.
//!
//! It is never made again by itself: after a failure it waits for another revision of the policy, and after an outcome that nobody knows for
//! a person who looks (`guardian adopt`).

use std::collections::BTreeMap;

use jiff::SignedDuration;

use super::attempt::{self, Over, Progress, step};
use super::decide::{Next, Scenario, View};
use super::life::{self, Life};
use super::observed::Pod;
use super::step::{Settles, Step};
use crate::ledger::{Episode, GivenUp, Scope, Verdict};
use crate::policy::Hook;
use crate::reason;

pub(super) const SCENARIO: Scenario = Scenario { name: NAME, next };

const NAME: &str = "bootstrap";

/// Pause before the ledger is read again, for what a person may have said: one request for each set that waits for somebody.
const LOOK_AGAIN: SignedDuration = SignedDuration::from_secs(10);

fn next(view: &View<'_>) -> Vec<Next> {
    let mut open = attempt::open(view, NAME).peekable();
    if open.peek().is_none() {
        drop(open);
        return begin(view).into_iter().collect();
    }
    open.filter_map(|course| {
        Some(match course.advance()? {
            Progress::On(next) => next,
            Progress::Over(over) => close(view, course.id, *over),
        })
    })
    .collect()
}

fn begin(view: &View<'_>) -> Option<Next> {
    let hook = hook(view)?;
    if view.ledger.bootstrapped {
        return None;
    }
    let observed = view.observed;
    let hold = |reason, why| Some(view.ask_person(reason, why));
    for (ordinal, pod) in &observed.pods {
        match life::of(view, *ordinal, pod) {
            Life::New => {}
            // Its rejoin will say that there is a cluster.
            Life::GoesOn | Life::Unseen => return None,
            Life::Unknown(why) => return hold(reason::Hold::UnknownHistory, adopt(view, &why)),
        }
    }
    if let Some(given_up) = view.ledger.given_up.get(NAME) {
        let revision = view.policy.map(|policy| policy.revision.as_str());
        if given_up.unknown || revision == Some(given_up.revision.as_str()) {
            return hold(reason::Hold::BootstrapFailed, explain(view, given_up));
        }
    }
    let all = observed.set.ordinals.clone().map(|ordinal| observed.pods.get(&ordinal).filter(|pod| view.takes(hook, pod)));
    let all: Option<Vec<&Pod>> = all.collect();
    let first = observed.set.ordinals.clone().next().filter(|_| all.is_some())?;
    let pod = super::target::pods(observed, hook.target.as_ref(), first).next()?;
    let ordinal = observed.ordinal_of(pod)?;
    let start = view.start(ordinal, pod)?;
    let episode = Episode {
        scenario: NAME.to_owned(),
        hook: NAME.to_owned(),
        then: None,
        scope: Scope::Set,
        reason: reason::Start::FirstStart.to_string(),
        why: format!("all {} pods of the new set are there", observed.set.ordinals.len()),
        pod: pod.name.clone(),
        ordinal: Some(ordinal),
        start: Some(start.clone()),
        old_ip: None,
        opened: view.now,
        attempts: 0,
        next: None,
        resize: None,
        rest: BTreeMap::new(),
    };
    // The same start may see several, one for each policy that was tried: the time tells them apart.
    let id = format!("{NAME}-{}-{}", start.short(), view.now.as_second());
    Some(attempt::attempt(view, &id, &episode, hook, pod))
}

fn close(view: &View<'_>, id: &str, over: Over) -> Next {
    let settles = match over.record.verdict {
        Verdict::Succeeded => Settles::Bootstrap,
        // The hook was taken out of the policy before it was started.
        Verdict::Skipped | Verdict::Superseded if !over.unknown => Settles::Nothing,
        _ => Settles::GivesUp(GivenUp {
            revision: view.policy.map(|policy| policy.revision.clone()).unwrap_or_default(),
            unknown: over.unknown,
            why: over.record.message.clone(),
            rest: BTreeMap::new(),
        }),
    };
    step(Step::Close { episode_id: id.to_owned(), record: over.record, settles })
}

fn explain(view: &View<'_>, given_up: &GivenUp) -> String {
    if given_up.unknown {
        return adopt(view, &format!("it is not known how far bootstrap came ({})", given_up.why));
    }
    format!("{}; mend the policy, another revision of it is tried", given_up.why)
}

/// What only a person can tell.
pub(super) fn adopt(view: &View<'_>, why: &str) -> String {
    let (namespace, set) = (&view.observed.namespace, &view.observed.set.name);
    format!("{why}: look at it, then run `guardian adopt -n {namespace} {set} --bootstrapped` or `--new`")
}

impl View<'_> {
    /// Holds until a person has looked and has said so in the ledger, which is read again for it.
    pub(super) fn ask_person(&self, reason: reason::Hold, why: String) -> Next {
        Next::Hold { until: Some(attempt::later(self.now, LOOK_AGAIN)), reason, why }
    }
}

/// A set that has this hook waits for it before anything joins.
pub(super) fn hook<'v>(view: &'v View<'_>) -> Option<&'v Hook> {
    view.policy?.hooks.bootstrap.as_ref()
}

#[cfg(test)]
mod tests;
