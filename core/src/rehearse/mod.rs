//! Rehearsals: what a policy would do, played on a simulated set and a simulated clock, before anything is applied.
//!
//! ```text
//! scenario -> event -> world -> Observed -> decide -> Decision -> ledger, runners, labels -> world ...
//! ```
//!
//! Nothing of the guardian is worked out here a second time: [`decide`](crate::lifecycle::decide) decides, its steps are written into a
//! [`Ledger`](crate::ledger::Ledger), evictions and scaling are asked of the webhook's own [`validate`](crate::admission::validate), and the
//! reasons are those of [`cause`](crate::cause) and [`stop`](crate::stop). Simulated is the cluster alone, by the figures that each
//! rehearsal tells.

mod assumed;
mod cast;
mod figures;
mod hands;
mod line;
mod measure;
mod owner;
mod report;
mod requests;
mod scenario;
mod script;
mod subject;
mod tell;
#[cfg(test)]
mod tests;
mod world;

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

use crate::policy::Policy;
use cast::Cast;
use figures::{CALM, MAX_PASSES, MAX_REPLICAS, MAX_START, MAX_TIME};
use measure::Crossed;
use subject::Subject;
use tell::Telling;
use world::{End, Event, World};

pub use line::{Line, What};
pub use report::{Ended, Failed, LeftHeld, LeftOpen, Report};
pub use scenario::{NoScenario, Scenario};
pub use script::{Fails, Script};

/// How long what a rule looks at is beyond its bound, where nobody says.
pub const LASTS: Duration = Duration::from_secs(300);

/// The time between two failures, where nobody says.
pub const EVERY: Duration = Duration::from_secs(60);

/// Most failures that are rehearsed: as many as a rehearsal has minutes.
pub const MAX_TIMES: u32 = 60;

/// A set as it is admitted, its policy, and what stands around it.
#[derive(Clone, Copy, Debug)]
pub struct Rehearsal<'a> {
    /// The StatefulSet, with what the webhook writes into it.
    pub set: &'a Value,
    /// Its namespace.
    pub namespace: &'a str,
    /// The policy that guards it.
    pub policy: &'a Policy,
    /// Services of its namespace.
    pub services: &'a [Value],
    /// PodDisruptionBudgets of its namespace.
    pub budgets: &'a [Value],
}

/// What is to be rehearsed.
#[derive(Clone, Debug)]
pub struct Asked {
    /// What happens.
    pub scenario: Scenario,
    /// To which pods, by name or ordinal; empty: to the one, or those, that the scenario itself takes.
    pub pods: Vec<String>,
    /// Replicas of the set at the beginning, in place of its own.
    pub replicas: Option<u32>,
    /// Replicas after it is scaled; `None`: one more, or one less.
    pub to: Option<u32>,
    /// Roles, and the ordinals that hold them.
    pub roles: Vec<(String, Vec<u32>)>,
    /// How hooks end.
    pub script: Script,
    /// How often a pod fails; `None`: once.
    pub times: Option<u32>,
    /// Between two failures; `None`: [`EVERY`].
    pub every: Option<Duration>,
    /// How long what a rule looks at is beyond its bound; `None`: [`LASTS`].
    pub lasts: Option<Duration>,
}

/// Why something cannot be rehearsed. The messages say it all.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the message above each variant is its documentation")]
pub enum Unfit {
    #[error("the StatefulSet cannot be read: {0}")]
    Unreadable(#[source] serde_json::Error),
    #[error("{replicas} replicas are too many to rehearse with: at most {MAX_REPLICAS}")]
    TooMany { replicas: u32 },
    #[error("StatefulSet {set} has no pod {pod}: it has {} (--replicas gives it more)", pods(.set, *.first, *.last))]
    NoPod { set: String, pod: String, first: u32, last: u32 },
    #[error("StatefulSet {set} has no pods: --replicas gives it some")]
    Empty { set: String },
    #[error("scenario {scenario} happens to the whole set: leave out --pod")]
    NoPods { scenario: Scenario },
    #[error("scenario {scenario} changes no number of replicas: leave out --to, or give the set another number with --replicas")]
    NotScaled { scenario: Scenario },
    #[error("{to} replicas are not {} than the {replicas} of the set: give --to another number", if *.more { "more" } else { "fewer" })]
    NotThatWay { to: u32, replicas: usize, more: bool },
    #[error("scenario {scenario} comes once: leave out --times and --every")]
    NotRepeated { scenario: Scenario },
    #[error("scenario {scenario} has no rule whose value lasts: leave out --lasts")]
    NotLasting { scenario: Scenario },
    #[error("policy {policy} has no rule {rule}{}", meant(.nearest.as_ref(), .known))]
    NoRule { policy: String, rule: String, nearest: Option<String>, known: Vec<String> },
    #[error("rule {rule} looks at no value: it is set off by {causes}. Rehearse that, with --times")]
    RuleByCause { rule: String, causes: String },
    #[error("policy {policy} has no hook or task {hook}{}", meant(.nearest.as_ref(), .known))]
    NoHook { policy: String, hook: String, nearest: Option<String>, known: Vec<String> },
    #[error("policy {policy} asks no pod for its role, so none has one: it has no `role`")]
    NoRole { policy: String },
    #[error("before the scenario the set does not come to rest: {why}. Look at it with --scenario first-start")]
    NoRest { why: String },
}

impl Unfit {
    /// Was it asked for wrongly, whatever the manifests say?
    #[must_use]
    pub const fn is_usage(&self) -> bool {
        !matches!(self, Self::Unreadable(_) | Self::NoRest { .. })
    }
}

fn pods(set: &str, first: u32, last: u32) -> String {
    if first == last { format!("{set}-{first} alone") } else { format!("{set}-{first} to {set}-{last}") }
}

fn meant(nearest: Option<&String>, known: &[String]) -> String {
    match nearest {
        Some(nearest) => format!(": did you mean {nearest}?"),
        None if known.is_empty() => ": it has none".to_owned(),
        None => format!(": it has {}", known.join(", ")),
    }
}

/// When every scenario begins: midnight of a day, so that a time of day in a sentence is a time since then.
const BEGINS: &str = "2000-01-01T00:00:00Z";

/// Rehearses.
///
/// # Errors
/// When it cannot be, with these manifests or at all.
pub fn rehearse(rehearsal: &Rehearsal<'_>, asked: &Asked) -> Result<Report, Unfit> {
    let Rehearsal { set, namespace, policy, services, budgets } = *rehearsal;
    let begins: Timestamp = BEGINS.parse().unwrap_or(Timestamp::UNIX_EPOCH);
    let is_new = asked.scenario == Scenario::FirstStart;
    let created = if is_new { begins } else { begins.saturating_sub(MAX_START).unwrap_or(begins) };
    let subject = Subject::read(set, asked.replicas, created)?.among(set, services, budgets, policy);
    let cast = Cast::new(asked, &subject, policy)?;
    let script = asked.script.resolved(policy)?;
    let mut world = World::new(policy, subject, namespace, cast.claims.clone());
    if !is_new {
        world.come_to_rest(begins)?;
    }
    world.script = script;
    world.begin(asked, &cast);
    let before = world.observed.set.ordinals.len();
    let ended = world.play(MAX_TIME);
    Ok(report::report(world, asked, &cast, (ended, before)))
}

impl World<'_> {
    /// The set is made, and left alone until nothing more is due; with what it has learnt, the scenario begins at `begins`.
    fn come_to_rest(&mut self, begins: Timestamp) -> Result<(), Unfit> {
        // Who puts a set on hold has seen it run.
        let hold = self.observed.set.hold.take();
        self.after(SignedDuration::ZERO, Event::Made);
        let ended = self.play(MAX_START);
        self.observed.set.hold = hold;
        let is_whole = self.telling.whole.is_some();
        if ended != Ended::Quiet || self.is_open() || !is_whole {
            let held = self.telling.held.iter().map(|(reason, why)| format!("{reason}: {why}")).next();
            return Err(Unfit::NoRest { why: held.unwrap_or_else(|| "its pods do not all become ready".to_owned()) });
        }
        self.now = begins;
        self.passes = 0;
        self.changed = begins;
        self.telling = Telling { began: begins, ..Telling::default() };
        Ok(())
    }

    /// What happens in the scenario is due now.
    fn begin(&mut self, asked: &Asked, cast: &Cast) {
        let mut now = |event| self.after(SignedDuration::ZERO, event);
        match &asked.scenario {
            Scenario::FirstStart => now(Event::Made),
            Scenario::Crash => self.ends_again(asked, cast, End { reason: "Error", exit_code: 1, by_probe: false }),
            Scenario::Oom => self.ends_again(asked, cast, End { reason: "OOMKilled", exit_code: 137, by_probe: false }),
            Scenario::Liveness => self.ends_again(asked, cast, End { reason: "Error", exit_code: 137, by_probe: true }),
            Scenario::Delete => cast.each(|ordinal| now(Event::Delete { ordinal })),
            Scenario::Drain => {
                let pods: Vec<_> = cast.pods.iter().filter_map(|ordinal| self.id(*ordinal)).collect();
                for pod in pods {
                    self.after(SignedDuration::ZERO, Event::Evict { pod, told: String::new() });
                }
            }
            Scenario::NodeLost => cast.each(|ordinal| now(Event::NodeLost { ordinal })),
            Scenario::ZoneOutage => {
                cast.each(|ordinal| now(Event::NodeLost { ordinal }));
                for pod in cast.pods.iter().filter_map(|ordinal| self.id(*ordinal)).collect::<Vec<_>>() {
                    self.after(figures::OUTAGE, Event::NodeBack { pod });
                }
            }
            Scenario::ScaleOut | Scenario::ScaleIn => now(Event::Scale { to: cast.to }),
            Scenario::Rollout => now(Event::Rollout),
            Scenario::Rule(_) => {
                self.crossed = cast.rule.as_ref().map(|rule| {
                    let lasts = SignedDuration::try_from(asked.lasts.unwrap_or(LASTS)).unwrap_or(SignedDuration::MAX);
                    Crossed::new(rule, cast.pods.clone(), lasts)
                });
                self.after(SignedDuration::ZERO, Event::Crosses { back: false });
            }
        }
    }

    /// The applications of the pods end like this, as often as it is asked for.
    fn ends_again(&mut self, asked: &Asked, cast: &Cast, how: End) {
        let every = SignedDuration::try_from(asked.every.unwrap_or(EVERY)).unwrap_or(SignedDuration::MAX);
        for time in 0..asked.times.unwrap_or(1) {
            let pause = every.saturating_mul(i32::try_from(time).unwrap_or(i32::MAX));
            cast.each(|ordinal| self.after(pause, Event::Ends { ordinal, how }));
        }
    }

    /// Lets everything happen, until nothing more is due, for so long at most.
    fn play(&mut self, most: SignedDuration) -> Ended {
        let end = self.now.saturating_add(most).unwrap_or(Timestamp::MAX);
        loop {
            if self.happen() {
                self.changed = self.now;
            }
            self.own();
            self.count();
            let decision = self.settle();
            self.own();
            self.count();
            if self.passes >= MAX_PASSES {
                return Ended::Passes;
            }
            let (event, wake) = (self.next(), decision.wake);
            let is_calm = self.now.duration_since(self.changed) >= CALM;
            let is_over = event.is_none() && (wake.is_none() || !self.is_open() && is_calm);
            let Some(next) = event.into_iter().chain(wake).min().filter(|_| !is_over) else { return Ended::Quiet };
            if next > end {
                return Ended::Time;
            }
            // What should have been before is looked at in the next moment.
            self.now = next.max(self.now.saturating_add(SignedDuration::from_millis(1)).unwrap_or(next));
        }
    }
}
