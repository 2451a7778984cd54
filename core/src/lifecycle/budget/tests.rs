use super::super::example::{Example, policy};
use super::{Budget, BudgetChange};
use crate::lifecycle::decide;
use crate::policy::{Policy, Quorum};
use crate::reason::Hold;

fn wanting(quorum: Quorum) -> Policy {
    let mut policy = policy();
    (policy.protect.disruption_budget, policy.protect.quorum) = (true, Some(quorum));
    policy
}

fn budget(is_ours: bool, max_unavailable: Option<u64>) -> Budget {
    Budget { name: "a-budget".into(), uid: "b".into(), version: "7".into(), is_ours, max_unavailable }
}

fn change(example: &Example) -> Option<BudgetChange> {
    decide(&example.observed, example.policy.as_ref(), &example.ledger.state, example.now).levels.budget
}

#[test]
fn what_the_quorum_leaves_may_be_missing_and_never_nothing() {
    let cases = [
        (5, Quorum::Majority, 2),
        (3, Quorum::Majority, 1),
        (2, Quorum::Majority, 1),
        (1, Quorum::Majority, 1),
        (3, Quorum::Number(3), 1),
        (3, Quorum::Number(9), 1),
        (10, Quorum::Percent(50), 5),
        (10, Quorum::Percent(55), 4),
    ];
    for (replicas, quorum, max_unavailable) in cases {
        let mut example = Example::at_rest(replicas);
        example.policy = Some(wanting(quorum));
        assert_eq!(change(&example), Some(BudgetChange::Make { max_unavailable }), "{quorum:?} of {replicas}");
        example.observed.budgets = vec![budget(true, Some(max_unavailable))];
        assert_eq!(change(&example), None);
    }
}

#[test]
fn a_set_that_was_scaled_gets_another_number() {
    let mut example = Example::at_rest(5);
    example.policy = Some(wanting(Quorum::Majority));
    for before in [Some(1), None] {
        let budget = budget(true, before);
        example.observed.budgets = vec![budget.clone()];
        assert_eq!(change(&example), Some(BudgetChange::Set { budget, max_unavailable: 2 }));
    }
}

#[test]
fn a_budget_of_somebody_else_takes_the_place_of_ours_and_that_is_said() {
    let mut example = Example::at_rest(3);
    example.policy = Some(wanting(Quorum::Majority));
    example.observed.budgets = vec![budget(false, None)];
    let decision = decide(&example.observed, example.policy.as_ref(), &example.ledger.state, example.now);
    assert_eq!(decision.levels.budget, None);
    assert_eq!(decision.holds.iter().map(|held| held.reason).collect::<Vec<_>>(), [Hold::OtherBudget]);
    example.observed.budgets.push(budget(true, Some(1)));
    assert_eq!(change(&example), Some(BudgetChange::Remove(budget(true, Some(1)))));
}

#[test]
fn a_budget_that_nobody_asks_for_any_more_goes_and_on_hold_it_stays() {
    let mut example = Example::at_rest(3);
    example.observed.budgets = vec![budget(true, Some(1))];
    let gone = Some(BudgetChange::Remove(budget(true, Some(1))));
    assert_eq!(change(&example), gone, "the policy says nothing of it");
    example.policy = None;
    assert_eq!(change(&example), gone, "no policy");
    example.observed.set.hold = Some("incident".into());
    assert_eq!(change(&example), None, "on hold");
    example.observed.set.hold = None;
    example.observed.budgets = vec![budget(false, None)];
    assert_eq!(change(&example), None, "what is not ours stays");
}
