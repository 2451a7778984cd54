//! The arbiter: one decision per set and pass.

use jiff::Timestamp;

use super::budget::{self, BudgetChange};
use super::observed::{HandOver, Observed, Volume};
use super::room::Room;
use super::step::Step;
use super::traffic::{self, Reselect, Serve};
use super::{bootstrap, command, fence, hand_over, levels, life, readiness, roles, rules, start};
use crate::ledger::{Ledger, State};
use crate::policy::Policy;
use crate::reason;

/// What to do about one set now.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Decision {
    /// What holds whatever goes on, computed anew each pass.
    pub levels: Levels,
    /// What is begun or ended. All of them are written into the ledger in one compare-and-swap before any is carried out.
    pub steps: Vec<Step>,
    /// What was due and is not done, and why.
    pub holds: Vec<Held>,
    /// When to look again, if nothing happens before.
    pub wake: Option<Timestamp>,
}

/// State that is kept as it should be, whatever goes on: what there is to change about it now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Levels {
    /// Claims that hold the data of a member and have no mark of it yet.
    pub marks: Vec<Volume>,
    /// Pods whose label of the role is not what it should be.
    pub roles: Vec<Relabel>,
    /// Hand-overs that are over: their Leases can go.
    pub hand_overs: Vec<HandOver>,
    /// The PodDisruptionBudget of the set is not as it should be.
    pub budget: Option<BudgetChange>,
    /// Pods whose label `serving` is not what it should be.
    pub serving: Vec<Serve>,
    /// Services whose selector is not what it should be.
    pub selectors: Vec<Reselect>,
}

/// A pod whose label `stateful-guardian.io/role` has to change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Relabel {
    /// Name of the pod.
    pub pod: String,
    /// `metadata.uid` of the pod: another one of that name is not touched.
    pub pod_uid: String,
    /// What it has to be; `None`: it goes.
    pub role: Option<String>,
}

/// Something that was due and is not done.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Held {
    /// The scenario that wanted it; empty: all of them.
    pub scenario: &'static str,
    /// The word.
    pub reason: reason::Hold,
    /// A sentence.
    pub why: String,
}

/// One occasion to act. It sees the whole set and proposes; the [`Room`] disposes.
pub(super) struct Scenario {
    pub(super) name: &'static str,
    pub(super) next: fn(&View<'_>) -> Vec<Next>,
}

/// What a scenario looks at.
pub(super) struct View<'a> {
    pub(super) observed: &'a Observed,
    pub(super) policy: Option<&'a Policy>,
    pub(super) ledger: &'a State,
    pub(super) now: Timestamp,
}

/// What a scenario wants, for one pod or for the set.
pub(super) enum Next {
    /// Nothing before `until`.
    Wait { until: Timestamp },
    /// This, now.
    Step(Box<Step>),
    /// Something that cannot be done; to be looked at again at `until`, or when anything happens.
    Hold { until: Option<Timestamp>, reason: reason::Hold, why: String },
}

/// The only list of priorities: what comes first takes the room.
const SCENARIOS: &[Scenario] = &[
    command::SCENARIO,
    fence::SCENARIO,
    bootstrap::SCENARIO,
    hand_over::SCENARIO,
    start::SCENARIO,
    rules::SCENARIO,
    traffic::SCENARIO,
];

/// Decides. `policy` is `None` when none guards the set (any more).
#[must_use]
pub fn decide(observed: &Observed, policy: Option<&Policy>, ledger: &State, now: Timestamp) -> Decision {
    let view = View { observed, policy, ledger, now };
    let mut decision = Decision { levels: levels::of(&view), ..Decision::default() };
    roles::keep(&view, &mut decision);
    budget::keep(&view, &mut decision);
    traffic::keep(&view, &mut decision);
    readiness::keep(&view, &mut decision);
    decision.levels.hand_overs = hand_over::ended(&view);
    let mut room = Room::new(ledger);
    // What was known is of another set: it is forgotten before anything is decided on it.
    let another = life::is_another(&view);
    if another {
        decision.steps.push(Step::NewLife);
    }
    for scenario in SCENARIOS.iter().filter(|_| !another) {
        for next in (scenario.next)(&view) {
            match next {
                Next::Wait { until } => decision.look_again(until),
                Next::Hold { until, reason, why } => {
                    decision.hold(scenario.name, reason, why);
                    until.into_iter().for_each(|at| decision.look_again(at));
                }
                // One at a time: whether another pod may be shed is seen with the first one gone, in the pass that follows at once.
                Next::Step(step) if step.sheds() && decision.steps.iter().any(Step::sheds) => {}
                Next::Step(step) => match room.take(&step) {
                    Ok(()) => decision.steps.push(*step),
                    Err(why) => decision.hold(scenario.name, reason::Hold::HeldBy, why),
                },
            }
        }
    }
    if let Some(why) = &observed.set.hold {
        decision.levels = Levels::default();
        decision.steps.retain(Step::is_bookkeeping);
        decision.hold("", reason::Hold::OnHold, why.clone());
    }
    decision
}

impl Decision {
    /// Does it change the ledger?
    #[must_use]
    pub fn is_written(&self) -> bool {
        self.steps.iter().any(Step::is_written)
    }

    /// Writes all of its steps down, and what was seen of the set with them; nothing where no step is written.
    pub fn write(&self, observed: &Observed, ledger: &mut Ledger) {
        if self.is_written() {
            ledger.state.sees(&observed.set.uid, &observed.set.ordinals);
        }
        for step in &self.steps {
            step.apply(ledger);
        }
    }

    /// Does it wait for what a person says in the ledger?
    #[must_use]
    pub fn asks_person(&self) -> bool {
        self.holds.iter().any(|held| matches!(held.reason, reason::Hold::UnknownHistory | reason::Hold::BootstrapFailed))
    }

    pub(super) fn look_again(&mut self, at: Timestamp) {
        self.wake = Some(self.wake.map_or(at, |earlier| earlier.min(at)));
    }

    pub(super) fn hold(&mut self, scenario: &'static str, reason: reason::Hold, why: String) {
        self.holds.push(Held { scenario, reason, why });
    }
}
