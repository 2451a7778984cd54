//! The PodDisruptionBudget of a set (`protect.disruptionBudget`): a level, made from the quorum that its policy wants kept.
//!
//! It always lets one pod go, or no node could ever be drained. Where another budget selects a pod of the set there is none of ours: the API server
//! refuses every eviction of a pod that two budgets select.

use super::decide::{Decision, View};
use super::room::quorum;
use crate::reason;

const NAME: &str = "disruptionBudget";

/// A PodDisruptionBudget that may select pods of the set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Budget {
    /// `metadata.name`.
    pub name: String,
    /// `metadata.uid`.
    pub uid: String,
    /// `metadata.resourceVersion`.
    pub version: String,
    /// It was made by a guardian, for this set.
    pub is_ours: bool,
    /// `spec.maxUnavailable`, where that is a number.
    pub max_unavailable: Option<u64>,
}

/// What there is to be done about ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BudgetChange {
    /// There is none.
    Make {
        /// Pods that may be missing at a time.
        max_unavailable: u64,
    },
    /// It lets another number of pods go than it should.
    Set {
        /// The budget.
        budget: Budget,
        /// Pods that may be missing at a time.
        max_unavailable: u64,
    },
    /// It should not be there.
    Remove(Budget),
}

/// Name of the budget of a set.
#[must_use]
pub fn budget_name(set: &str) -> String {
    format!("guardian-{set}")
}

/// What there is to do, so that the set has the budget that its policy asks for.
pub(super) fn keep(view: &View<'_>, decision: &mut Decision) {
    let observed = view.observed;
    let is_wanted = view.policy.is_some_and(|policy| policy.protect.disruption_budget);
    let ours = observed.budgets.iter().find(|budget| budget.is_ours);
    let other = observed.budgets.iter().find(|budget| !budget.is_ours);
    let replicas = observed.set.ordinals.len();
    let max_unavailable = replicas.saturating_sub(quorum(view.policy, observed)).max(1);
    let max_unavailable = u64::try_from(max_unavailable).unwrap_or(u64::MAX);
    decision.levels.budget = match (is_wanted, other, ours) {
        (true, None, None) => Some(BudgetChange::Make { max_unavailable }),
        (true, None, Some(ours)) if ours.max_unavailable == Some(max_unavailable) => None,
        (true, None, Some(ours)) => Some(BudgetChange::Set { budget: ours.clone(), max_unavailable }),
        (_, _, ours) => ours.cloned().map(BudgetChange::Remove),
    };
    if let Some(other) = other.filter(|_| is_wanted) {
        let why = format!("PodDisruptionBudget {} selects pods of the set, and of two budgets every eviction fails", other.name);
        decision.hold(NAME, reason::Hold::OtherBudget, why);
    }
}

#[cfg(test)]
mod tests;
