//! Rules by cause: each failure of a pod is counted once, when it is seen, and their number is a value like any other. They are counted by ordinal:
//! a pod that is made anew goes on where the one before it stopped.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;

use super::super::decide::{Next, View};
use super::super::gauge::Gauge;
use super::super::life::{self, Life};
use super::super::observed::Pod;
use super::super::step::Step;
use super::super::{attempt, start};
use super::earlier;
use crate::ledger::{Failure, Failures, MAX_FAILURES};
use crate::policy::{Condition, Rule};
use crate::reason;

/// What was not counted yet. Nothing where no rule asks for it.
pub(super) fn counted(view: &View<'_>, rules: &[Rule]) -> Vec<Next> {
    if !rules.iter().any(|rule| matches!(rule.when, Condition::Cause { .. })) {
        return Vec::new();
    }
    let pods = view.observed.pods.iter();
    pods.filter_map(|(ordinal, pod)| count(view, *ordinal, pod)).collect()
}

/// How often the pods of this ordinal have failed, as a rule sees it that has set in (`fired`) or has not.
pub(super) fn gauge(
    view: &View<'_>,
    rule: &str,
    (causes, times, within): (&[reason::Start], u32, Duration),
    ordinal: u32,
    fired: bool,
) -> Option<Gauge> {
    let failures = view.ledger.failures.get(&ordinal)?;
    let begin = earlier(view.now, within);
    let is_meant = |failure: &&Failure| failure.at > begin && failure.reason.parse().is_ok_and(|reason| causes.contains(&reason));
    let recent: Vec<Timestamp> = failures.recent.iter().filter(is_meant).map(|failure| failure.at).collect();
    let fresh = recent.iter().filter(|at| failures.spent.get(rule).is_none_or(|spent| *at > spent)).count();
    let holds = fired || fresh >= usize::try_from(times).unwrap_or(usize::MAX);
    let last = recent.last().copied();
    Some(Gauge {
        value: f64::from(u32::try_from(recent.len()).unwrap_or(u32::MAX)),
        at: view.now,
        when_since: last.filter(|_| holds),
        until_since: last.is_none().then_some(view.now),
    })
}

/// A start that was not looked at yet.
fn count(view: &View<'_>, ordinal: u32, pod: &Pod) -> Option<Next> {
    let start = view.start(ordinal, pod).filter(|start| pod.takes_hooks(&start.container))?;
    let known = view.ledger.failures.get(&ordinal);
    let is_known = |known: &Failures| known.pod_uid == start.pod_uid && known.container_id == start.container_id;
    let answered = view.ledger.answered.get(&ordinal);
    if known.is_some_and(is_known) || answered.is_some_and(|answered| start.is_older_than(answered)) {
        return None;
    }
    let mut recent = known.map(|known| known.recent.clone()).unwrap_or_default();
    // What was answered before anybody counted is not known to be a failure any more.
    if known.is_some() || answered.is_none_or(|answered| !answered.is(&start)) {
        let is_new = life::of(view, ordinal, pod) != Life::GoesOn;
        let reason = start::cause(view, ordinal, pod, is_new)?.reason;
        let same_pod = known.filter(|known| known.pod_uid == start.pod_uid);
        let times = same_pod.map_or(1, |known| start.restarts.saturating_sub(known.restarts).max(1));
        let failed = reason.is_failure().then(|| Failure { at: view.now, reason: reason.to_string() });
        let times = usize::try_from(times).unwrap_or(MAX_FAILURES).min(MAX_FAILURES);
        recent.extend(failed.into_iter().flat_map(|failure| vec![failure; times]));
        recent.drain(..recent.len().saturating_sub(MAX_FAILURES));
    }
    let failures = Failures {
        pod_uid: start.pod_uid,
        container_id: start.container_id,
        restarts: start.restarts,
        recent,
        spent: known.map(|known| known.spent.clone()).unwrap_or_default(),
        rest: BTreeMap::new(),
    };
    Some(attempt::step(Step::Count { ordinal, failures: Box::new(failures) }))
}
