use std::collections::BTreeMap;

use guardian_hook::protocol::RunResult;
use jiff::SignedDuration;

use super::super::example::{Example, outcome};
use super::super::gauge::{Gauge, Measured};
use super::super::traffic::ShedRequest;
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

/// The same load comes to all of them, and a person wants one out besides.
#[test]
fn rules_and_people_at_once_leave_a_pod_that_serves() {
    let mut example = example(&MEMORY.replace("  budget: {pods: 1, every: 5m}\n", ""));
    for (ordinal, pod) in &mut example.observed.pods {
        let until = example.now + SignedDuration::from_hours(1);
        pod.shed = (*ordinal == 0).then(|| ShedRequest { until, why: String::new() });
    }
    for _ in 0..20 {
        for ordinal in 0..3 {
            let uid = example.observed.pods[&ordinal].uid.clone();
            let rule = &example.policy.as_ref().unwrap().rules[0];
            let measured = Measured { value: 90.0, limit: Some(100.0), at: example.now };
            let key = key(&rule.name, &uid);
            let gauge = Gauge::read(example.observed.gauges.get(&key), rule, measured).unwrap();
            example.observed.gauges.insert(key, gauge);
        }
        // Nothing between two passes but the time.
        for _ in 0..4 {
            example.pass();
            assert!(example.shed().len() <= 2, "{:?}", example.shed());
        }
        example.later(5);
    }
    assert_eq!(example.shed().len(), 2);
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

const CRASHES: &str = "\
hooks: {rejoin: {command: [rejoin]}}
rules:
- name: crash-loop
  when: {cause: [Crash, OOMKilled], times: 3, within: 10m}
  do: [{run: repair}, recreate]
  undo: [{run: praise}]
tasks:
  repair: {command: [repair]}
  praise: {command: [praise]}
";

impl Example {
    /// So many seconds pass; what is begun meanwhile succeeds.
    fn live(&mut self, seconds: i64) {
        for _ in 0..seconds / 5 {
            self.pass();
            for run in self.observed.running.clone() {
                self.end(&run, outcome(RunResult::Exited { code: 0 }));
            }
            self.pass();
            self.later(5);
        }
    }

    fn crashes(&mut self, ordinal: u32, reason: &str, code: i32) {
        self.stop(ordinal, reason, code);
        self.run_again(ordinal);
        self.live(40);
    }

    /// The tasks that were run.
    fn tasks(&self) -> Vec<String> {
        self.hooks().into_iter().filter(|run| run.starts_with("tasks.")).collect()
    }
}

#[test]
fn a_rule_by_cause_sets_in_at_its_count_and_goes_on_only_after_another_failure() {
    let mut example = example(CRASHES);
    example.live(10);
    example.crashes(1, "Error", 137);
    example.crashes(1, "OOMKilled", 137);
    example.crashes(1, "Completed", 0);
    assert_eq!(example.tasks(), Vec::<String>::new(), "an end without an error is not meant");
    example.crashes(0, "Error", 1);
    assert_eq!(example.tasks(), Vec::<String>::new(), "another pod counts for itself");
    example.crashes(1, "Error", 137);
    assert_eq!(example.tasks(), ["tasks.repair redis-1"]);
    example.live(120);
    assert_eq!(example.evicted, Vec::<String>::new(), "it has helped");
    example.crashes(1, "Error", 137);
    example.evicted.dedup();
    assert_eq!(example.evicted, ["redis-1"]);
    let done = example.done();
    for (line, words) in done.iter().zip([
        "redis-1 Noted rule crash-loop sets in: 3 within 600 s: Crash, OOMKilled since",
        "redis-1 Succeeded rule crash-loop: tasks.repair succeeded",
    ]) {
        assert!(line.starts_with(words), "{words}: {done:#?}");
    }
}

/// Else a pod that was made anew would be made anew at once, for what the one before did.
#[test]
fn failures_that_a_rule_has_acted_on_count_for_it_no_more() {
    let mut example = example(&CRASHES.replace("{run: repair}, ", ""));
    example.live(10);
    for _ in 0..3 {
        example.crashes(1, "Error", 137);
    }
    assert_eq!(example.evicted.pop().unwrap(), "redis-1");
    example.evicted.clear();
    example.new_pod(1);
    example.live(60);
    for _ in 0..2 {
        example.crashes(1, "Error", 137);
    }
    assert_eq!(example.evicted, Vec::<String>::new());
    example.crashes(1, "Error", 137);
    assert_eq!(example.evicted[0], "redis-1", "the new pod has failed three times itself");
}

#[test]
fn a_rule_by_cause_is_over_and_undone_when_its_time_has_passed_without_a_failure() {
    let mut example = example(CRASHES);
    example.live(10);
    for _ in 0..3 {
        example.crashes(1, "Error", 137);
    }
    example.live(500);
    assert_eq!(example.tasks(), ["tasks.repair redis-1"]);
    example.live(120);
    assert_eq!(example.tasks(), ["tasks.repair redis-1", "tasks.praise redis-1"]);
    assert!(example.ledger.state.rules.is_empty());
    example.live(600);
    assert_eq!(example.tasks().len(), 2, "it does not set in again by itself");
}

#[test]
fn failures_that_are_old_or_were_answered_before_anybody_counted_count_for_nothing() {
    let mut late = example(CRASHES);
    late.policy = Some(policy("hooks: {rejoin: {command: [rejoin]}}"));
    for _ in 0..3 {
        late.crashes(1, "Error", 137);
    }
    late.policy = Some(policy(CRASHES));
    late.live(60);
    assert_eq!(late.tasks(), Vec::<String>::new(), "nobody counted them");

    let mut slow = example(CRASHES);
    slow.live(10);
    for _ in 0..4 {
        slow.crashes(1, "Error", 137);
        slow.live(300);
    }
    assert_eq!(slow.tasks(), Vec::<String>::new(), "never three of them within ten minutes");
}

/// Several restarts between two looks are that many failures.
#[test]
fn restarts_that_nobody_saw_are_counted_too() {
    let mut example = example(CRASHES);
    example.live(10);
    for _ in 0..3 {
        example.stop(1, "Error", 137);
        example.run_again(1);
    }
    example.live(40);
    assert_eq!(example.tasks(), ["tasks.repair redis-1"]);
}

#[test]
fn a_pod_is_made_anew_by_a_rule_only_while_the_quorum_holds_without_it() {
    let mut example = example(&CRASHES.replace("{run: repair}, ", ""));
    example.live(10);
    example.observed.pods.get_mut(&0).unwrap().ready = false;
    for _ in 0..3 {
        example.crashes(1, "Error", 137);
    }
    assert_eq!(example.evicted, Vec::<String>::new());
    assert!(example.decide().holds.iter().any(|held| held.reason == Hold::Quorum), "{:?}", example.decide().holds);
    example.observed.pods.get_mut(&0).unwrap().ready = true;
    example.live(20);
    assert_eq!(example.evicted[0], "redis-1");
}
