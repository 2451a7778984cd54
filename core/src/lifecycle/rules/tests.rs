use std::collections::BTreeMap;

use guardian_hook::protocol::RunResult;
use jiff::SignedDuration;

use super::super::example::{Example, outcome};
use super::super::gauge::{Gauge, Measured};
use super::rule_key as key;
use crate::ledger::Verdict;
use crate::policy::{self, API_VERSION, KIND, Policy};
use crate::reason::Hold;

const MEMORY: &str = "\
rules:
- name: pressure
  when: {usage: memory, above: 85%, for: 30s}
  until: {below: 75%, for: 60s}
  do: [shed, {run: throttle}]
  undo: [{run: unthrottle}]
  budget: {pods: 1, every: 5m}
tasks:
  throttle: {command: [throttle]}
  unthrottle: {command: [unthrottle]}
traffic: {services: [clients]}
";

fn policy(text: &str) -> Policy {
    let text = format!("apiVersion: {API_VERSION}\nkind: {KIND}\n{text}");
    let parsed = policy::parse("redis", &BTreeMap::from([(crate::names::POLICY_KEY.to_owned(), text)])).unwrap();
    Policy { revision: "0123456789abcdef".into(), ..parsed }
}

fn example(text: &str) -> Example {
    let mut example = Example::at_rest(3);
    example.policy = Some(policy(text));
    example.observed.set.serves = true;
    example.observed.pods.values_mut().for_each(|pod| pod.serving = Some(true));
    example
}

impl Example {
    /// So many percent are used by the pod of this ordinal, for so many seconds, measured every five.
    fn uses(&mut self, ordinal: u32, percent: f64, seconds: i64) {
        for _ in 0..seconds / 5 {
            let uid = self.observed.pods[&ordinal].uid.clone();
            for rule in self.policy.iter().flat_map(|policy| &policy.rules) {
                let key = key(&rule.name, &uid);
                let measured = Measured { value: percent, limit: Some(100.0), at: self.now };
                if let Some(gauge) = Gauge::read(self.observed.gauges.get(&key), rule, measured) {
                    self.observed.gauges.insert(key, gauge);
                }
            }
            self.pass();
            for run in self.observed.running.clone() {
                self.end(&run, outcome(RunResult::Exited { code: 0 }));
            }
            self.pass();
            self.later(5);
        }
    }

    fn done(&self) -> Vec<String> {
        let told = self.ledger.records().filter(|record| record.reason == "Rule");
        told.map(|record| format!("{} {} {}", record.pod, record.verdict.as_str(), record.message)).collect()
    }

    fn shed(&self) -> Vec<&str> {
        self.ledger.state.sheds.values().map(|shed| shed.pod.as_str()).collect()
    }

    fn hooks(&self) -> Vec<String> {
        self.told_runs.iter().map(|(hook, pod)| format!("{hook} {pod}")).collect()
    }
}

#[test]
fn a_rule_takes_its_actions_in_order_and_undoes_them_when_it_is_over() {
    let mut example = example(MEMORY);
    example.uses(1, 90.0, 30);
    assert!(example.done().is_empty(), "not before its time");
    example.uses(1, 90.0, 10);
    assert_eq!(example.shed(), ["redis-1"]);
    assert!(example.hooks().is_empty(), "the first action has its time");
    example.uses(1, 90.0, 30);
    assert_eq!(example.hooks(), ["tasks.throttle redis-1"]);
    example.uses(1, 90.0, 600);
    assert_eq!(example.hooks().len(), 1, "each action once");

    example.uses(1, 70.0, 60);
    assert_eq!(example.shed(), ["redis-1"], "not before its time");
    example.uses(1, 70.0, 20);
    assert_eq!(example.shed(), Vec::<&str>::new());
    assert_eq!(example.hooks(), ["tasks.throttle redis-1", "tasks.unthrottle redis-1"]);
    assert!(example.ledger.state.rules.is_empty() && example.ledger.state.episodes.is_empty());
    let done = example.done();
    for (line, words) in done.iter().zip([
        "redis-1 Noted rule pressure sets in: memory is 90.0 since",
        "redis-1 Succeeded rule pressure sheds: Services send nothing new",
        "redis-1 Succeeded rule pressure: tasks.throttle succeeded",
        "redis-1 Noted rule pressure is over: memory is 70.0 since",
    ]) {
        assert!(line.starts_with(words), "{words}: {done:#?}");
    }
}

/// A runner never starts anything twice under one id.
#[test]
fn a_rule_that_sets_in_again_runs_its_tasks_again_under_ids_of_their_own() {
    let mut example = example(&MEMORY.replace("do: [shed, {run: throttle}]", "do: [{run: throttle}]"));
    for _ in 0..2 {
        example.uses(1, 90.0, 60);
        example.uses(1, 70.0, 90);
        example.later(600);
    }
    let once = ["tasks.throttle redis-1", "tasks.unthrottle redis-1"];
    assert_eq!(example.hooks(), [once, once].concat());
}

#[test]
fn a_value_between_the_two_bounds_neither_sets_in_nor_ends() {
    let mut example = example(MEMORY);
    example.uses(1, 80.0, 300);
    assert!(example.done().is_empty());
    example.uses(1, 90.0, 40);
    example.uses(1, 80.0, 300);
    assert_eq!(example.shed(), ["redis-1"]);
}

#[test]
fn what_helps_in_time_is_all_that_is_done() {
    let mut example = example(MEMORY);
    example.uses(1, 90.0, 45);
    example.uses(1, 70.0, 80);
    assert_eq!(example.hooks(), Vec::<String>::new(), "what was not done is not undone");
}

#[test]
fn a_budget_keeps_a_rule_from_more_pods_until_its_time_has_passed() {
    let mut example = example(MEMORY);
    example.uses(1, 90.0, 40);
    example.uses(2, 90.0, 40);
    assert_eq!(example.shed(), ["redis-1"]);
    assert!(example.decide().holds.iter().any(|held| held.reason == Hold::RuleBudget));
    example.uses(2, 90.0, 300);
    assert!(example.shed().contains(&"redis-2"));
}

#[test]
fn an_action_that_cannot_be_taken_gives_way_to_the_next() {
    let mut example = example(MEMORY);
    example.observed.pods.values_mut().filter(|pod| pod.name != "redis-1").for_each(|pod| pod.ready = false);
    example.uses(1, 90.0, 80);
    assert_eq!(example.shed(), Vec::<&str>::new(), "the last pod that serves");
    assert_eq!(example.hooks(), ["tasks.throttle redis-1"]);
    assert!(example.done().iter().any(|line| line.contains("no other pod serves")), "{:#?}", example.done());
}

#[test]
fn what_was_done_is_undone_when_the_rule_is_gone_the_input_is_gone_and_forgotten_with_its_pod() {
    let fired = || {
        let mut example = example(MEMORY);
        example.uses(1, 90.0, 40);
        assert_eq!(example.shed(), ["redis-1"]);
        example
    };
    let mut edited = fired();
    let without = MEMORY.split_once("tasks:").map(|(_, rest)| format!("tasks:{rest}")).unwrap();
    edited.policy = Some(policy(&without));
    edited.uses(1, 90.0, 20);
    assert_eq!((edited.shed().len(), edited.hooks().len()), (0, 0));

    let mut silent = fired();
    silent.later(299);
    silent.pass();
    assert_eq!(silent.shed(), ["redis-1"]);
    silent.later(10);
    silent.pass();
    silent.pass();
    assert_eq!(silent.shed(), Vec::<&str>::new());
    assert!(silent.done().iter().any(|line| line.contains("nothing is measured any more")));

    let mut gone = fired();
    gone.new_pod(1);
    gone.observed.pods.get_mut(&1).unwrap().serving = Some(true);
    gone.pass();
    assert!(gone.ledger.state.rules.is_empty() && gone.shed().is_empty());
    assert_eq!(gone.hooks().iter().filter(|hook| hook.contains("unthrottle")).count(), 0);
}

/// A controller that was away for a while: what it has not measured is not missing yet.
#[test]
fn a_controller_that_has_just_begun_waits_for_its_first_measurements() {
    let mut example = example(MEMORY);
    example.uses(1, 90.0, 40);
    example.observed.gauges.clear();
    example.later(3600);
    example.observed.watched = example.now;
    example.later(200);
    example.pass();
    assert_eq!(example.shed(), ["redis-1"]);
    example.later(101);
    example.pass();
    example.pass();
    assert_eq!(example.shed(), Vec::<&str>::new());
}

#[test]
fn a_task_that_fails_is_recorded_and_the_rule_goes_on() {
    let text = "rules:\n- {name: slow, when: {usage: cpu, above: 50%}, do: [{run: a}, {run: b}]}\ntasks: {a: {command: [a]}, b: {command: [b]}}\n";
    let mut example = example(text);
    let uid = example.observed.pods[&0].uid.clone();
    let rule = example.policy.as_ref().unwrap().rules[0].clone();
    let measured = Measured { value: 60.0, limit: Some(100.0), at: example.now };
    example.observed.gauges.insert(key("slow", &uid), Gauge::read(None, &rule, measured).unwrap());
    example.pass();
    example.pass();
    assert_eq!(example.hooks(), ["tasks.a redis-0"]);
    let run = example.claimed.last().unwrap().clone();
    example.end(&run, outcome(RunResult::Exited { code: 3 }));
    example.pass();
    assert_eq!(example.ledger.records().last().unwrap().verdict, Verdict::Failed);
    example.now += SignedDuration::from_secs(31);
    example.pass();
    assert_eq!(example.hooks(), ["tasks.a redis-0", "tasks.b redis-0"]);
}
