//! The rules of a policy: when a value stays beyond a bound, this is done, until it is back.
//!
//! A rule that has set in stands in the ledger, once for each pod, until it is over and undone. Its actions are taken in order, the next only when
//! the one before had its time and the value is not back (by cause: only after another failure). What was done is undone when the rule is over, when its policy does not have it any more, and when
//! nothing was measured for [`GONE`].

mod causes;

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use sha2::{Digest as _, Sha256};

use super::attempt::{self, Course, Progress, later, step};
use super::decide::{Next, Scenario, View};
use super::gauge::Gauge;
use super::observed::Pod;
use super::step::{RuleChange, Settles, Step};
use super::{recreate, resize, traffic};
use crate::ledger::{Episode, Fired, Record, Scope, Verdict};
use crate::policy::{Action, Condition, Growth, Resource, Rule};
use crate::reason;

pub(super) const SCENARIO: Scenario = Scenario { name: NAME, next };

const NAME: &str = "rule";
/// A set with rules is looked at this often, whatever happens: as often as a role is asked for by default.
const EVERY: SignedDuration = SignedDuration::from_secs(5);
/// A value older than this sets nothing in: four of the default intervals of a metric (15 s).
const FRESH: SignedDuration = SignedDuration::from_secs(60);
/// When nothing was measured for so long, whatever a rule did is undone: nobody knows any more what it is good for.
const GONE: SignedDuration = SignedDuration::from_mins(5);
/// The least time that an action gets to help before the next is taken.
const PATIENCE: SignedDuration = SignedDuration::from_secs(30);

/// The key of a rule in a pod.
#[must_use]
pub fn rule_key(rule: &str, pod_uid: &str) -> String {
    format!("{rule}/{pod_uid}")
}

/// What the ids of its episodes begin with. A rule that sets in again gets others: a runner never starts anything twice under one id. They are short, since the name of a task
/// comes before them in the id of a run, which has 100 characters at most.
fn subject(key: &str, fired: &Fired) -> String {
    let digest = Sha256::digest(format!("{key} {}", fired.since.as_millisecond()));
    let digits: String = digest.iter().take(6).map(|byte| format!("{byte:02x}")).collect();
    format!("{NAME}-{digits}-")
}

fn next(view: &View<'_>) -> Vec<Next> {
    let rules = view.policy.map_or(&[][..], |policy| &policy.rules);
    let mut all = causes::counted(view, rules);
    all.extend(attempt::open(view, NAME).filter_map(|course| advance(&course)));
    for (key, fired) in &view.ledger.rules {
        let pod = view.observed.pods.values().find(|pod| pod.uid == fired.pod_uid);
        all.extend(go_on(view, key, fired, rules.iter().find(|rule| rule.name == fired.rule), pod));
    }
    for rule in rules {
        let mut left = budget(view, rule);
        for pod in view.observed.pods.values().filter(|pod| !pod.terminating()) {
            all.extend(sets_in(view, rule, pod, &mut left));
        }
    }
    if !rules.is_empty() || !view.ledger.rules.is_empty() {
        all.push(Next::Wait { until: later(view.now, EVERY) });
    }
    all
}

/// How many more pods the rule may act on now.
fn budget(view: &View<'_>, rule: &Rule) -> usize {
    let Some(budget) = &rule.budget else { return usize::MAX };
    let since = |fired: &Timestamp| *fired > earlier(view.now, budget.every);
    let used = view.ledger.budgets.get(&rule.name).map_or(0, |used| used.iter().filter(|at| since(at)).count());
    usize::try_from(budget.pods).unwrap_or(usize::MAX).saturating_sub(used)
}

/// Has the rule to set in for this pod?
fn sets_in(view: &View<'_>, rule: &Rule, pod: &Pod, left: &mut usize) -> Option<Next> {
    let key = rule_key(&rule.name, &pod.uid);
    let gauge = gauge(view, rule, pod, false)?;
    let since = gauge.when_since?;
    let is_due = view.now >= later(since, during(rule)) && is_fresh(view, &gauge);
    if view.ledger.rules.contains_key(&key) || !is_due {
        return None;
    }
    let because = format!("{} since {}", shown(rule, &gauge), since.strftime("%Y-%m-%dT%H:%M:%SZ"));
    if *left == 0 {
        // Without the value: a hold is told anew whenever its words change.
        let why = format!("rule {} has acted on as many pods as its budget allows, and pod {} is due", rule.name, pod.name);
        return Some(Next::Hold { until: None, reason: reason::Hold::RuleBudget, why });
    }
    *left -= 1;
    let fired = Fired {
        rule: rule.name.clone(),
        pod: pod.name.clone(),
        pod_uid: pod.uid.clone(),
        since: view.now,
        actions: 0,
        acted: None,
        over: None,
        undo: rule.undo.clone(),
        undone: 0,
        ran: false,
        rest: BTreeMap::new(),
    };
    let record = record(view, &fired, "sets in", Verdict::Noted, &because);
    let every = rule.budget.as_ref().map(|budget| budget.every);
    let failures_of = matches!(rule.when, Condition::Cause { .. }).then(|| view.observed.ordinal_of(pod)).flatten();
    Some(change(&key, RuleChange::SetsIn { fired: Box::new(fired), every, failures_of }, Some(record)))
}

/// What the rule looks at in this pod; `fired`: it has set in there.
fn gauge(view: &View<'_>, rule: &Rule, pod: &Pod, fired: bool) -> Option<Gauge> {
    match &rule.when {
        Condition::Cause { causes, times, within } => {
            causes::gauge(view, &rule.name, (causes.as_slice(), *times, *within), view.observed.ordinal_of(pod)?, fired)
        }
        Condition::Usage { .. } | Condition::Metric { .. } | Condition::Absent { .. } => {
            view.observed.gauges.get(&rule_key(&rule.name, &pod.uid)).copied()
        }
    }
}

/// A rule that has set in: what is to be done next?
fn go_on(view: &View<'_>, key: &str, fired: &Fired, rule: Option<&Rule>, pod: Option<&Pod>) -> Option<Next> {
    let busy = view.ledger.episodes.keys().any(|id| id.starts_with(&subject(key, fired)));
    let Some(pod) = pod.filter(|pod| !pod.terminating()) else {
        // With the pod goes what was done to it.
        let record = record(view, fired, "is over", Verdict::Noted, "the pod is gone");
        return (!busy).then(|| change(key, RuleChange::Forgotten, Some(record)));
    };
    if busy {
        return None;
    }
    if fired.over.is_some() {
        return Some(undo(view, key, fired, pod));
    }
    let gauge = rule.and_then(|rule| gauge(view, rule, pod, true));
    if let Some(why) = is_over(view, fired, rule, gauge.as_ref()) {
        let record = record(view, fired, "is over", Verdict::Noted, &why);
        return Some(change(key, RuleChange::Over { at: view.now }, Some(record)));
    }
    let rule = rule?;
    let action = rule.actions.get(usize::try_from(fired.actions).unwrap_or(usize::MAX))?;
    let patience = during(rule).max(PATIENCE);
    match fired.acted {
        Some(acted) if view.now < later(acted, patience) => Some(Next::Wait { until: later(acted, patience) }),
        // What was done before has helped so far, or nobody knows.
        _ if gauge.is_none_or(|gauge| gauge.when_since.is_none() || !is_fresh(view, &gauge)) => None,
        // A failure is not a state: only another one tells that what was done did not help.
        Some(acted) if matches!(rule.when, Condition::Cause { .. }) && gauge.is_some_and(|g| g.when_since <= Some(acted)) => None,
        _ => act(view, key, fired, action, pod),
    }
}

fn is_over(view: &View<'_>, fired: &Fired, rule: Option<&Rule>, gauge: Option<&Gauge>) -> Option<String> {
    let Some(rule) = rule else { return Some("the policy does not have it any more".to_owned()) };
    let Some(gauge) = gauge else {
        // A controller that has just begun has heard of nothing yet.
        let since = fired.since.max(view.observed.watched);
        return (view.now >= later(since, GONE)).then(|| "nothing is measured any more".to_owned());
    };
    if view.now >= later(gauge.at, GONE) {
        return Some("nothing is measured any more".to_owned());
    }
    let during = rule.until.as_ref().map_or(SignedDuration::ZERO, |until| signed(until.during));
    let since = gauge.until_since.filter(|since| view.now >= later(*since, during))?;
    Some(format!("{} since {}", shown(rule, gauge), since.strftime("%Y-%m-%dT%H:%M:%SZ")))
}

fn is_fresh(view: &View<'_>, gauge: &Gauge) -> bool {
    view.now <= later(gauge.at, FRESH)
}

/// One action.
fn act(view: &View<'_>, key: &str, fired: &Fired, action: &Action, pod: &Pod) -> Option<Next> {
    let hook = match action {
        Action::Shed => return Some(shed(view, key, fired, pod)),
        Action::Run(task) => format!("tasks.{task}"),
        Action::Rejoin => "rejoin".to_owned(),
        Action::Switchover => "switchover".to_owned(),
        Action::Recreate => return Some(recreate(view, key, fired, pod)),
        Action::Resize(growths) => return Some(resize(view, key, fired, growths, pod)),
        // `lint` and the admission warning say that it does nothing yet.
        Action::Freeze => return Some(skip(view, key, fired, "is not acted on by this version")),
    };
    run(view, &format!("{}do{}", subject(key, fired), fired.actions), fired, &hook, pod)
        .or_else(|| Some(skip(view, key, fired, &format!("{hook} cannot run there now"))))
}

fn shed(view: &View<'_>, key: &str, fired: &Fired, pod: &Pod) -> Next {
    match traffic::shed_for(view, pod, key, &format!("rule {}", fired.rule)) {
        Ok(shed) => {
            let record = record(view, fired, "sheds", Verdict::Succeeded, "Services send nothing new to the pod");
            change(
                key,
                RuleChange::Acted { at: view.now, shed: Some((pod.uid.clone(), Box::new(shed))), ran: false },
                Some(record),
            )
        }
        Err(why) => skip(view, key, fired, &why),
    }
}

/// The pod is made anew, as soon as the quorum and the budgets of others allow it.
fn recreate(view: &View<'_>, key: &str, fired: &Fired, pod: &Pod) -> Next {
    let id = format!("{}do{}", subject(key, fired), fired.actions);
    match episode(view, fired, recreate::NAME, pod) {
        Some(episode) => step(Step::Open { episode_id: id, episode: Box::new(episode) }),
        None => skip(view, key, fired, "the pod has not started yet"),
    }
}

/// The container gets more of what it may use, where there is more to give.
fn resize(view: &View<'_>, key: &str, fired: &Fired, growths: &BTreeMap<Resource, Growth>, pod: &Pod) -> Next {
    let asked = match resize::plan(view, pod, growths) {
        Ok(asked) => asked,
        Err(why) => return skip(view, key, fired, &why),
    };
    match episode(view, fired, resize::NAME, pod) {
        Some(episode) => {
            let episode = Box::new(Episode { resize: Some(asked), ..episode });
            step(Step::Open { episode_id: format!("{}do{}", subject(key, fired), fired.actions), episode })
        }
        None => skip(view, key, fired, "the pod has not started yet"),
    }
}

/// An action that cannot be taken did not help: the next has its turn at its time.
fn skip(view: &View<'_>, key: &str, fired: &Fired, why: &str) -> Next {
    let record = record(view, fired, "goes on", Verdict::Skipped, &format!("action {}: {why}", fired.actions + 1));
    change(key, RuleChange::Acted { at: view.now, shed: None, ran: false }, Some(record))
}

/// The next task that undoes it; at the end it is forgotten.
fn undo(view: &View<'_>, key: &str, fired: &Fired, pod: &Pod) -> Next {
    // Where no task was run there is nothing that a task could undo.
    let mut tasks = fired.undo.iter().filter(|_| fired.ran);
    let Some(task) = tasks.nth(usize::try_from(fired.undone).unwrap_or(usize::MAX)) else {
        return change(key, RuleChange::Forgotten, None);
    };
    let hook = format!("tasks.{task}");
    run(view, &format!("{}undo{}", subject(key, fired), fired.undone), fired, &hook, pod).unwrap_or_else(|| {
        let record = record(view, fired, "is not undone", Verdict::Failed, &format!("{hook} cannot run there"));
        change(key, RuleChange::Acted { at: view.now, shed: None, ran: false }, Some(record))
    })
}

fn run(view: &View<'_>, id: &str, fired: &Fired, name: &str, pod: &Pod) -> Option<Next> {
    let hook = view.policy?.run_by_controller(name)?;
    let ordinal = view.observed.ordinal_of(pod)?;
    let there = super::target::pods(view.observed, hook.target.as_ref(), ordinal).find(|pod| view.takes(hook, pod))?;
    Some(attempt::attempt(view, id, &episode(view, fired, name, pod)?, hook, there))
}

/// Before its first attempt.
fn episode(view: &View<'_>, fired: &Fired, name: &str, pod: &Pod) -> Option<Episode> {
    let ordinal = view.observed.ordinal_of(pod)?;
    Some(Episode {
        scenario: NAME.to_owned(),
        hook: name.to_owned(),
        then: None,
        scope: Scope::Pod(pod.uid.clone()),
        reason: reason::Start::Rule.to_string(),
        why: format!("rule {}", fired.rule),
        pod: pod.name.clone(),
        ordinal: Some(ordinal),
        old_ip: None,
        start: Some(view.start(ordinal, pod)?),
        opened: view.now,
        attempts: 0,
        next: None,
        resize: None,
        rest: BTreeMap::new(),
    })
}

/// A command of a rule, or its act, goes on, or has ended.
fn advance(course: &Course<'_>) -> Option<Next> {
    let mut rules = course.view.ledger.rules.iter();
    let of = rules.find(|(key, fired)| course.id.starts_with(&subject(key, fired)));
    let ran = course.episode.hook != resize::NAME;
    let settles = of.map_or(Settles::Nothing, |(key, _)| Settles::Rule { key: key.clone(), at: course.view.now, ran });
    match course.episode.hook.as_str() {
        recreate::NAME => return recreate::advance(course, settles.clone(), settles),
        resize::NAME => return Some(resize::advance(course, settles)),
        _ => {}
    }
    let over = match course.advance()? {
        Progress::On(next) => return Some(next),
        Progress::Over(over) => over,
    };
    Some(step(Step::Close { episode_id: course.id.to_owned(), record: over.record, settles }))
}

fn change(key: &str, change: RuleChange, record: Option<Record>) -> Next {
    step(Step::Rule { key: key.to_owned(), change, record })
}

fn record(view: &View<'_>, fired: &Fired, what: &str, verdict: Verdict, why: &str) -> Record {
    Record {
        at: view.now,
        hook: NAME.to_owned(),
        reason: reason::Start::Rule.to_string(),
        verdict,
        pod: fired.pod.clone(),
        pod_uid: fired.pod_uid.clone(),
        run: Some(format!("{NAME}-{}-{}-{what}-{}", fired.rule, fired.since.as_millisecond(), fired.actions)),
        attempt: None,
        message: format!("rule {} {what}: {why}", fired.rule),
        rest: BTreeMap::new(),
    }
}

fn during(rule: &Rule) -> SignedDuration {
    match &rule.when {
        Condition::Usage { during, .. } | Condition::Metric { during, .. } | Condition::Absent { during, .. } => signed(*during),
        Condition::Cause { .. } => SignedDuration::ZERO,
    }
}

fn shown(rule: &Rule, gauge: &Gauge) -> String {
    let what = match &rule.when {
        Condition::Usage { usage, .. } => usage.as_str().to_owned(),
        Condition::Metric { name, rate: None, .. } => name.clone(),
        Condition::Metric { name, rate: Some(window), .. } => {
            format!("what {name} grows by in a second, over {} s,", window.as_secs())
        }
        Condition::Absent { name, .. } if gauge.when_since.is_some() => return format!("{name} has no value"),
        Condition::Absent { name, .. } => return format!("{name} has a value"),
        Condition::Cause { causes, within, .. } => {
            let causes: Vec<&str> = causes.iter().map(|cause| cause.as_str()).collect();
            return format!("{} within {} s: {}", gauge.value, within.as_secs(), causes.join(", "));
        }
    };
    format!("{what} is {:.1}", gauge.value)
}

fn signed(time: Duration) -> SignedDuration {
    SignedDuration::try_from(time).unwrap_or(SignedDuration::MAX)
}

fn earlier(at: Timestamp, time: Duration) -> Timestamp {
    at.checked_sub(time).unwrap_or(Timestamp::MIN)
}

#[cfg(test)]
mod tests;
