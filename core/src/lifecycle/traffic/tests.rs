use std::collections::BTreeMap;

use guardian_hook::protocol::RunResult;

use super::super::example::{Example, outcome};
use super::super::readiness::Toggles;
use super::{Reselect, Serve, Service, ShedRequest};
use crate::names::POLICY_KEY;
use crate::policy::{self, API_VERSION, KIND, Policy};
use crate::reason::Hold;

fn policy(traffic: &str) -> Policy {
    let text = format!("apiVersion: {API_VERSION}\nkind: {KIND}\nhooks: {{rejoin: {{command: [rejoin]}}}}\n{traffic}");
    let parsed = policy::parse("redis", &BTreeMap::from([(POLICY_KEY.to_owned(), text)])).unwrap();
    Policy { revision: "0123456789abcdef".into(), ..parsed }
}

fn service() -> Service {
    Service { name: "clients".into(), uid: "s".into(), version: "1".into(), asks: false, names_pods: false }
}

/// A set whose pods all have the label, behind one Service.
fn example(replicas: u32) -> Example {
    let mut example = Example::at_rest(replicas);
    example.policy = Some(policy("traffic: {services: [clients]}"));
    example.observed.set.serves = true;
    example.observed.services = vec![service()];
    example.observed.pods.values_mut().for_each(|pod| pod.serving = Some(true));
    example
}

impl Example {
    fn ask(&mut self, ordinal: u32, seconds: i64) {
        let until = self.now + jiff::SignedDuration::from_secs(seconds);
        self.observed.pods.get_mut(&ordinal).unwrap().shed = Some(ShedRequest { until, why: "too much".into() });
    }

    /// The labels become what was decided.
    fn relabel(&mut self) {
        for change in self.decide().levels.serving {
            let pod = self.observed.pods.values_mut().find(|pod| pod.uid == change.pod_uid).unwrap();
            pod.serving = Some(change.serving);
            pod.shed = pod.shed.take().filter(|_| !change.serving);
        }
    }

    fn serving(&self) -> Vec<Option<bool>> {
        self.observed.pods.values().map(|pod| pod.serving).collect()
    }

    fn held(&self) -> Vec<Hold> {
        self.decide().holds.iter().map(|held| held.reason).collect()
    }
}

#[test]
fn a_service_asks_for_the_label_only_while_every_pod_and_the_template_have_it() {
    let asks = |example: &Example| example.decide().levels.selectors;
    let mut example = example(3);
    assert_eq!(asks(&example), [Reselect { service: service(), asks: true }]);

    let whole = example.observed.clone();
    type Change = fn(&mut crate::lifecycle::Observed);
    let not_yet: [(Change, &[Hold]); 4] = [
        (|o| o.pods.get_mut(&1).unwrap().serving = None, &[Hold::NotSelected]),
        (|o| o.set.serves = false, &[Hold::NotSelected]),
        (|o| o.services[0].names_pods = true, &[Hold::NotSelected]),
        // It would be emptied: that passes.
        (|o| o.pods.values_mut().for_each(|pod| pod.ready = false), &[]),
    ];
    for (n, (change, holds)) in not_yet.into_iter().enumerate() {
        example.observed = whole.clone();
        change(&mut example.observed);
        assert_eq!(asks(&example), [], "case {n}");
        assert_eq!(example.held(), holds, "case {n}");
    }

    example.observed = whole;
    example.observed.services[0].asks = true;
    assert_eq!(asks(&example), []);
    let no_longer: [Change; 3] =
        [|o| o.pods.get_mut(&2).unwrap().serving = None, |o| o.set.serves = false, |o| o.services[0].names_pods = true];
    let whole = example.observed.clone();
    let back = Reselect { service: Service { asks: true, ..service() }, asks: false };
    for (n, change) in no_longer.into_iter().enumerate() {
        example.observed = whole.clone();
        change(&mut example.observed);
        assert_eq!(asks(&example).iter().map(|change| change.asks).collect::<Vec<_>>(), [false], "case {n}");
    }
    example.observed = whole;
    example.policy = Some(policy(""));
    assert_eq!(asks(&example), [back], "nobody names it any more");
}

#[test]
fn a_service_that_is_not_there_is_told() {
    let mut example = example(2);
    example.observed.services.clear();
    assert_eq!(example.held(), [Hold::NotSelected]);
}

#[test]
fn a_pod_is_shed_for_its_time_and_serves_again() {
    let mut example = example(3);
    example.ask(1, 300);
    example.pass();
    example.relabel();
    assert_eq!(example.serving(), [Some(true), Some(false), Some(true)]);
    assert_eq!(example.decide().wake, Some(example.now + jiff::SignedDuration::from_secs(300)));
    assert!(example.decide().steps.is_empty(), "once");
    example.later(301);
    example.pass();
    let restored = example.decide().levels.serving;
    assert_eq!(
        restored.iter().map(|Serve { pod, serving, .. }| (pod.as_str(), *serving)).collect::<Vec<_>>(),
        [("redis-1", true)]
    );
    example.relabel();
    assert_eq!(example.serving(), [Some(true); 3]);
    let told: Vec<String> =
        example.ledger.records().filter(|record| record.hook == "shed").map(|record| record.message).collect();
    assert!(told[0].starts_with("is sent nothing new until") && told[0].ends_with("too much"), "{told:?}");
    assert_eq!(told[1..], ["serves again: its time is over"]);
}

#[test]
fn a_shed_ends_when_nobody_asks_any_more_the_policy_says_no_more_or_the_pod_is_gone() {
    let shed = || {
        let mut example = example(2);
        example.ask(1, 300);
        example.pass();
        example.relabel();
        example
    };
    let mut withdrawn = shed();
    withdrawn.observed.pods.get_mut(&1).unwrap().shed = None;
    withdrawn.pass();
    assert!(withdrawn.ledger.state.sheds.is_empty());
    let mut edited = shed();
    edited.policy = Some(policy(""));
    edited.pass();
    assert!(edited.ledger.state.sheds.is_empty());
    let mut gone = shed();
    let told = gone.ledger.records().count();
    gone.observed.pods.remove(&1);
    gone.pass();
    assert!(gone.ledger.state.sheds.is_empty());
    assert_eq!(gone.ledger.records().count(), told, "there is nobody to tell of");
}

#[test]
fn the_last_pod_that_serves_is_never_shed_and_a_shed_one_comes_back_for_it() {
    let mut example = example(2);
    example.ask(0, 300);
    example.ask(1, 300);
    example.pass();
    example.relabel();
    assert_eq!(example.serving(), [Some(false), Some(true)], "one of two");
    assert_eq!(example.held(), [Hold::Quorum]);
    example.observed.pods.get_mut(&1).unwrap().ready = false;
    example.pass();
    example.relabel();
    assert_eq!(example.serving(), [Some(true), Some(false)], "the other, of which it was asked too, serves nobody now");
}

#[test]
fn a_label_that_nobody_accounts_for_is_put_back_and_one_that_is_not_there_is_left() {
    let mut example = example(3);
    example.observed.pods.get_mut(&0).unwrap().serving = Some(false);
    example.observed.pods.get_mut(&1).unwrap().serving = None;
    let changed = example.decide().levels.serving;
    assert_eq!(changed.iter().map(|change| (change.pod.as_str(), change.serving)).collect::<Vec<_>>(), [("redis-0", true)]);
    example.ask(1, 60);
    assert!(example.held().contains(&Hold::NotSelected), "a pod without the label cannot be shed");
}

#[test]
fn the_drain_hook_runs_once_in_a_shed_pod() {
    let mut example = example(2);
    example.policy = Some(policy("traffic: {services: [clients], drain: {command: [kick], timeout: 5s}}"));
    example.ask(1, 300);
    example.pass();
    assert!(example.told_runs.is_empty(), "not before the label says so");
    example.relabel();
    example.pass();
    assert_eq!(example.told_runs, [("drain".to_owned(), "redis-1".to_owned())]);
    let run = example.claimed.last().unwrap().clone();
    example.end(&run, outcome(RunResult::Exited { code: 0 }));
    example.pass();
    example.later(30);
    example.pass();
    assert_eq!(example.told_runs.len(), 1);
    assert!(example.ledger.state.episodes.is_empty() && example.ledger.state.sheds.values().all(|shed| shed.drained));
}

#[test]
fn a_pod_is_shed_once_and_not_each_time_that_the_only_other_is_ready_for_a_moment() {
    let mut example = example(2);
    example.ask(0, 3600);
    example.pass();
    example.relabel();
    let mut labels = vec![example.serving()];
    let mut toggles = None;
    for change in 0..12 {
        example.later(20);
        toggles = Some(Toggles::changed(toggles.as_ref(), 1, example.now));
        let other = example.observed.pods.get_mut(&1).unwrap();
        (other.ready, other.toggles) = (change % 2 == 1, toggles.clone());
        // Asked for all the while, as on the pod itself.
        let asked = example.observed.pods[&0].shed.clone();
        example.pass();
        example.relabel();
        example.observed.pods.get_mut(&0).unwrap().shed = asked;
        labels.push(example.serving());
    }
    labels.dedup();
    let (shed, serves) = (vec![Some(false), Some(true)], vec![Some(true); 2]);
    assert_eq!(labels, [&shed[..], &serves, &shed, &serves, &shed, &serves], "until it is known to flap, and no more");
    assert_eq!(example.held(), [Hold::Flapping, Hold::Quorum]);
    example.now = example.decide().wake.expect("it looks again when the other may have settled");
    example.pass();
    example.relabel();
    assert_eq!(example.serving(), shed, "it is asked for still");
}
