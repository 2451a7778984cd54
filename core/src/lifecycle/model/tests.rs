use std::collections::BTreeSet;
use std::time::Instant;

use stateright::{Checker, CheckerBuilder, HasDiscoveries, Model as _};

use super::happens::{Action, Faults};
use super::{ALONE, ANSWERED, Broken, Guarding, ONCE, OVER, QUORUM};
use crate::lifecycle::example::policy_with;
use crate::policy::Quorum;

const REJOIN: &str = "rejoin: {command: [rejoin], timeout: 30s, retries: 1, backoff: 5s}";
const RECREATE: &str = "rejoin: {command: [rejoin], timeout: 30s, retries: 0, onFailure: recreate}";
/// A hook that runs in another pod than it is about, where there is one.
const ON_PEERS: &str = "postMortem: {command: [look], timeout: 30s, retries: 0, target: any}, \
    rejoin: {command: [rejoin], timeout: 30s, retries: 0}";
const BOOTSTRAP: &str =
    "bootstrap: {command: [make], timeout: 30s, retries: 0}, join: {command: [join], timeout: 30s, retries: 0}";

fn at_rest(hooks: &str, controllers: usize, faults: Faults) -> Guarding {
    Guarding::new(policy_with(hooks), controllers, faults).at_rest()
}

fn new(hooks: &str, controllers: usize, faults: Faults) -> Guarding {
    Guarding::new(policy_with(hooks), controllers, faults)
}

/// Explores it whole. Nothing is found, and it is told in a line what was explored.
fn explore(name: &str, model: Guarding) {
    let (began, faults) = (Instant::now(), model.first.left);
    let checker = model.checker().finish_when(HasDiscoveries::AnyFailures).spawn_dfs().join();
    let mut found = checker.discoveries();
    for property in [ONCE, ALONE, QUORUM, ANSWERED] {
        if let Some(path) = found.remove(property) {
            panic!("{name}: not {property:?}: {}", told(&path.into_actions()));
        }
    }
    assert!(found.contains_key(OVER), "{name}: the end of it was not explored");
    let (states, steps, depth) = (checker.unique_state_count(), checker.state_count(), checker.max_depth());
    println!("| {name} | {states} | {steps} | {depth} | {:.1} s | {faults:?} |", began.elapsed().as_secs_f32());
}

/// Until the property does not hold.
fn until_broken(model: Guarding, property: &'static str) -> CheckerBuilder<Guarding> {
    model.checker().finish_when(HasDiscoveries::AnyOf(BTreeSet::from([property])))
}

/// There is a way to where the property does not hold.
fn assert_found(checker: impl Checker<Guarding>, property: &'static str) {
    let checker = checker.join();
    let path =
        checker.discovery(property).unwrap_or_else(|| panic!("{property:?} held in all of {}", checker.unique_state_count()));
    println!("not {property:?}: {}", told(&path.into_actions()));
}

fn told(actions: &[Action]) -> String {
    actions.iter().map(|action| format!("\n  {action:?}")).collect()
}

/// Of each world, how much is explored in every test, and how much by `make model`.
fn worlds() -> Vec<(&'static str, Guarding, Faults)> {
    let none = Faults::NONE;
    let any = |all| Faults { all, stops: all, deletions: all, failures: all, losses: all, delays: 1 };
    let one_of_three = Faults { all: 2, stops: 1, failures: 1, losses: 1, ..none };
    let stops_and_failures = Faults { all: 4, stops: 2, failures: 2, ..none };
    let mut with_budget = at_rest(RECREATE, 2, Faults { all: 2, stops: 1, failures: 1, ..none });
    with_budget.has_budget = true;
    vec![
        ("rejoin, one controller", at_rest(REJOIN, 1, any(2)), any(3)),
        ("rejoin, two controllers", at_rest(REJOIN, 2, one_of_three), any(2)),
        ("post-mortem by a peer, two controllers", at_rest(ON_PEERS, 2, any(1)), one_of_three),
        (
            "recreate, one controller",
            at_rest(RECREATE, 1, stops_and_failures),
            Faults { deletions: 1, losses: 1, delays: 1, ..stops_and_failures },
        ),
        ("recreate, two controllers, a PodDisruptionBudget", with_budget, Faults { all: 2, ..stops_and_failures }),
        ("bootstrap and join, two controllers", new(BOOTSTRAP, 2, none), any(1)),
    ]
}

#[test]
fn whatever_the_order_nothing_is_started_twice_and_all_is_answered_in_the_end() {
    for (name, model, _) in worlds() {
        explore(name, model);
    }
}

#[test]
#[ignore = "takes minutes: `make model`"]
fn the_same_with_more_that_goes_wrong() {
    for (name, mut model, more) in worlds() {
        model.first.left = more;
        explore(name, model);
    }
}

/// The world in which this promise is not kept.
fn broken(mut model: Guarding, how: Broken) -> Guarding {
    model.broken = Some(how);
    model
}

#[test]
fn a_runner_that_starts_whatever_it_is_asked_is_found() {
    let model = at_rest(REJOIN, 1, Faults { all: 2, stops: 1, losses: 1, ..Faults::NONE });
    assert_found(until_broken(broken(model, Broken::Claims), ONCE).spawn_dfs(), ONCE);
}

#[test]
fn a_ledger_that_is_written_whoever_wrote_it_meanwhile_is_found() {
    let faults = Faults { all: 2, stops: 2, ..Faults::NONE };
    let [on_peers, rejoin] = [ON_PEERS, REJOIN].map(|hooks| broken(at_rest(hooks, 2, faults), Broken::Versions));
    assert_found(until_broken(on_peers, ONCE).spawn_bfs(), ONCE);
    assert_found(until_broken(rejoin, ALONE).spawn_bfs(), ALONE);
}

#[test]
fn a_controller_that_sees_nothing_is_found() {
    let model = at_rest(REJOIN, 1, Faults { all: 1, stops: 1, ..Faults::NONE });
    assert_found(until_broken(broken(model, Broken::Watches), ANSWERED).spawn_dfs(), ANSWERED);
}

#[test]
fn a_policy_that_protects_too_few_is_found() {
    let mut model = at_rest(RECREATE, 1, Faults { all: 4, stops: 2, failures: 2, ..Faults::NONE });
    model.policy.protect.quorum = Some(Quorum::Number(1));
    assert_found(until_broken(model, QUORUM).spawn_dfs(), QUORUM);
}
