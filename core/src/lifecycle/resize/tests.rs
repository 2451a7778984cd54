use std::collections::BTreeMap;

use super::super::example::Example;
use super::super::gauge::Gauge;
use super::super::resources::{Amounts, Resizing};
use super::super::rules::rule_key;
use super::*;
use crate::ledger::Episode;
use crate::policy::{self, API_VERSION, KIND, Policy};
use crate::reason;

const MI: u64 = 1 << 20;
const LADDER: &str = "\
rules:
- name: pressure
  when: {metric: load, above: 1}
  do: [resize, {run: throttle}]
  resize: {memory: {by: 25%, max: 100Mi}}
  undo: [{run: calm}]
  budget: {pods: 1, every: 1h}
metrics: [{name: load, type: gauge, command: [load]}]
tasks: {throttle: {command: [throttle]}, calm: {command: [calm]}}
";

fn policy(text: &str) -> Policy {
    let text = format!("apiVersion: {API_VERSION}\nkind: {KIND}\n{text}");
    let parsed = policy::parse("redis", &BTreeMap::from([(crate::names::POLICY_KEY.to_owned(), text)])).unwrap();
    Policy { revision: "0123456789abcdef".into(), ..parsed }
}

/// Three pods at rest, of whose containers each may take 64 MiB.
fn example() -> Example {
    let mut example = Example::at_rest(3);
    example.policy = Some(policy(LADDER));
    (0..3).for_each(|ordinal| example.may_use(ordinal, 64));
    example
}

impl Example {
    fn may_use(&mut self, ordinal: u32, mebibytes: u64) {
        let all = Amounts { memory: Some(mebibytes * MI), cpu: None };
        let resources = &mut self.container(ordinal).resources;
        (resources.limits, resources.requests, resources.given) = (all, all, all);
    }

    /// What the rule looks at is beyond its bound in a pod, or back, for so many seconds.
    fn load(&mut self, ordinal: u32, beyond: bool, seconds: i64) {
        for _ in 0..seconds / 5 {
            let key = rule_key("pressure", &self.observed.pods[&ordinal].uid);
            let since = self.observed.gauges.get(&key).filter(|gauge| gauge.when_since.is_some() == beyond);
            let since = since.and_then(|gauge| gauge.when_since.or(gauge.until_since)).or(Some(self.now));
            let value = if beyond { 2.0 } else { 0.0 };
            let gauge =
                Gauge { value, at: self.now, when_since: since.filter(|_| beyond), until_since: since.filter(|_| !beyond) };
            self.observed.gauges.insert(key, gauge);
            (0..10).for_each(|_| drop(self.pass()));
            self.later(5);
        }
    }

    /// The API server takes what is asked for; the kubelet does not give it yet.
    fn take(&mut self, ordinal: u32) {
        let asked = self.open().resize.clone().unwrap();
        let resources = &mut self.container(ordinal).resources;
        asked.limits.iter().for_each(|(of, amount)| *resources.limits.get_mut(*of) = Some(*amount));
        asked.requests.iter().for_each(|(of, amount)| *resources.requests.get_mut(*of) = Some(*amount));
    }

    fn give(&mut self, ordinal: u32) {
        let resources = &mut self.container(ordinal).resources;
        resources.given = resources.limits;
    }

    fn open(&self) -> &Episode {
        self.ledger.state.episodes.values().next().expect("an open episode")
    }

    fn told(&self) -> Vec<String> {
        let told = self.ledger.records().filter(|record| record.reason == "Rule");
        told.map(|record| format!("{} {}", record.verdict.as_str(), record.message)).collect()
    }
}

/// What is raised and how, limit and request, and what they are then, or why nothing.
type Row<'r> = (&'r str, Resource, Growth, (Option<u64>, Option<u64>), Result<(u64, Option<u64>), &'r str>);

#[test]
fn limits_grow_to_the_max_and_requests_by_the_same_factor_so_that_the_qos_class_stays() {
    let growth = |by, max| Growth { by, max };
    let quarter = growth(Stride::Percent(25), 100 * MI);
    let rows: &[Row<'_>] = &[
        ("guaranteed", Resource::Memory, quarter, (Some(64 * MI), Some(64 * MI)), Ok((80 * MI, Some(80 * MI)))),
        ("burstable", Resource::Memory, quarter, (Some(64 * MI), Some(32 * MI)), Ok((80 * MI, Some(40 * MI)))),
        ("no request", Resource::Memory, quarter, (Some(64 * MI), None), Ok((80 * MI, None))),
        ("up to the max", Resource::Memory, quarter, (Some(96 * MI), Some(96 * MI)), Ok((100 * MI, Some(100 * MI)))),
        (
            "a little less stays less",
            Resource::Memory,
            quarter,
            (Some(64 * MI), Some(64 * MI - 1)),
            Ok((80 * MI, Some(80 * MI - 2))),
        ),
        ("at the max", Resource::Memory, quarter, (Some(100 * MI), None), Err("memory is at 100Mi, and its max is 100Mi")),
        ("beyond the max", Resource::Memory, quarter, (Some(128 * MI), None), Err("memory is at 128Mi, and its max is 100Mi")),
        ("no limit", Resource::Memory, quarter, (None, Some(MI)), Err("the container has no limit of memory")),
        ("by an amount", Resource::Memory, growth(Stride::Absolute(MI), 100 * MI), (Some(64 * MI), None), Ok((65 * MI, None))),
        ("whole pages", Resource::Memory, growth(Stride::Percent(33), 100 * MI), (Some(MI), None), Ok((MI + 5 * PAGE, None))),
        (
            "not a page",
            Resource::Memory,
            growth(Stride::Absolute(4096), 100 * MI),
            (Some(64 * MI), None),
            Err("memory is at 64Mi, and 4Ki more are less than a page"),
        ),
        (
            "a max that is no whole page",
            Resource::Memory,
            growth(Stride::Percent(25), MI + 1),
            (Some(MI), None),
            Err("memory is at 1Mi, and its max is 1048577"),
        ),
        ("cpu", Resource::Cpu, growth(Stride::Percent(50), 4000), (Some(500), Some(100)), Ok((750, Some(150)))),
        ("a thousandth", Resource::Cpu, growth(Stride::Percent(1), 4000), (Some(10), Some(10)), Ok((11, Some(11)))),
        (
            "no overflow",
            Resource::Memory,
            growth(Stride::Percent(1000), u64::MAX),
            (Some(u64::MAX / 2), Some(1)),
            Ok((u64::MAX - u64::MAX % PAGE, Some(1))),
        ),
    ];
    for (what, of, growth, (limit, request), expected) in rows {
        let mut resources = Resources::default();
        *resources.limits.get_mut(*of) = *limit;
        *resources.requests.get_mut(*of) = *request;
        let found = raised(&resources, *of, *growth).map(|raised| (raised.to, raised.request));
        assert_eq!(found, (*expected).map_err(str::to_owned), "{what}");
    }
}

#[test]
fn it_is_written_down_then_asked_for_once_and_has_succeeded_when_the_kubelet_has_given_it() {
    let mut example = example();
    example.load(1, true, 30);
    assert_eq!(example.resized, ["redis-1 memory 80Mi"; 3], "again every 10 s, as long as there is no answer, and for the same");
    example.take(1);
    example.load(1, true, 60);
    assert_eq!(example.resized.len(), 3, "the API server has it");
    example.give(1);
    example.load(1, true, 5);
    assert_eq!(example.told().last().unwrap(), "Succeeded rule pressure: memory of container redis from 64Mi to 80Mi, in place");
    example.load(1, false, 60);
    assert!(example.ledger.state.episodes.is_empty() && example.ledger.state.rules.is_empty());
    assert!(example.told_runs.is_empty(), "no task was run that could be undone, and the limit stays: {:?}", example.told_runs);
    assert_eq!(example.container(1).resources.limits.memory, Some(80 * MI));
}

#[test]
fn it_is_written_before_it_is_asked_for() {
    let mut example = example();
    let key = rule_key("pressure", &example.observed.pods[&1].uid);
    let gauge = Gauge { value: 2.0, at: example.now, when_since: Some(example.now), until_since: None };
    example.observed.gauges.insert(key, gauge);
    let steps: Vec<_> = (0..3).map(|_| example.pass().steps.remove(0)).collect();
    assert!(matches!(steps[..], [Step::Rule { .. }, Step::Open { .. }, Step::Resize { .. }]), "{steps:#?}");
    assert!(example.open().next.is_some(), "and when it may be asked for again");
}

#[test]
fn what_a_kubelet_says_is_the_end_of_it_at_once_or_at_its_bound() {
    let infeasible = Resizing::Infeasible("node has 60Mi".into());
    let deferred = Resizing::Deferred("no room".into());
    let rows = [
        (infeasible, 0, "its node cannot give it: Infeasible: node has 60Mi"),
        (deferred, 120, "its node had no room for it for 120 s: Deferred: no room"),
        (Resizing::InProgress("slow".into()), 120, "its kubelet was still at it after 120 s: InProgress: slow"),
    ];
    let rows = rows.into_iter().map(|(says, after, words)| (Some(says), after, words));
    for (says, after, words) in rows.chain([(None, 120, "its kubelet has not done it within 120 s")]) {
        let mut example = example();
        example.load(1, true, 5);
        example.take(1);
        example.observed.pods.get_mut(&1).unwrap().resize = says.clone();
        if after > 0 {
            example.load(1, true, after - 5);
            assert_eq!(example.told().len(), 1, "{says:?}: not before its time");
        }
        example.load(1, true, 10);
        let told = example.told();
        assert_eq!(told[1], format!("Failed rule pressure: memory of container redis from 64Mi to 80Mi: {words}"));
        assert!(example.told_runs.is_empty(), "{says:?}: what it did has its time");
        example.load(1, true, 30);
        assert_eq!(example.told_runs, [("tasks.throttle".to_owned(), "redis-1".to_owned())], "{says:?}: the next has its turn");
        assert_eq!(example.resized.len(), 1);
    }
}

#[test]
fn what_the_api_server_refuses_for_good_has_failed_with_its_words() {
    let mut example = example();
    example.load(1, true, 5);
    let (id, _) = example.ledger.state.episodes.iter().next().unwrap();
    example.observed.refused.insert(id.clone(), "Pod QOS Class may not change (422)".into());
    example.load(1, true, 5);
    assert!(example.told()[1].ends_with("the API server refuses it: Pod QOS Class may not change (422)"), "{:?}", example.told());
    example.load(1, true, 200);
    assert_eq!(example.resized.len(), 1, "it is asked for no more");
}

#[test]
fn what_goes_on_meanwhile_ends_it() {
    type Happens = fn(&mut Example);
    let rows: [(&str, Happens, &str); 5] = [
        ("replaced", |e| e.new_pod(1), "Superseded rule pressure: the pod goes, and the next one has what its template says"),
        (
            "deleted",
            |e| e.observed.pods.get_mut(&1).unwrap().deleted = Some(e.now),
            "Superseded rule pressure: the pod goes, and",
        ),
        (
            "changed",
            |e| e.may_use(1, 70),
            "Superseded rule pressure: memory of container redis from 64Mi to 80Mi: somebody else has",
        ),
        ("lost", |e| e.lose_node(1), "Failed rule pressure: memory of container redis from 64Mi to 80Mi: nobody hears of node n"),
        (
            "silent",
            |e| e.later(120),
            "Failed rule pressure: memory of container redis from 64Mi to 80Mi: the API server did not take",
        ),
    ];
    for (what, happens, words) in rows {
        let mut example = example();
        example.load(1, true, 5);
        assert_eq!(example.resized.len(), 1);
        happens(&mut example);
        example.pass();
        assert!(example.told()[1].starts_with(words), "{what}: {:?}", example.told());
        assert_eq!(example.resized.len(), 1, "{what}");
    }
}

impl Example {
    fn lose_node(&mut self, ordinal: u32) {
        let node = Node { name: "n".into(), silent_since: Some(self.now), ..Node::default() };
        self.observed.pods.get_mut(&ordinal).unwrap().node = Some(node);
    }
}

#[test]
fn a_container_that_crashes_meanwhile_still_gets_it() {
    let mut example = example();
    example.load(1, true, 5);
    example.crash(1);
    example.take(1);
    example.give(1);
    example.load(1, true, 5);
    assert!(example.told().iter().any(|told| told.starts_with("Succeeded rule pressure: memory")), "{:?}", example.told());
}

#[test]
fn where_it_is_of_no_use_that_is_said_and_the_next_has_its_turn() {
    type Given = fn(&mut Example);
    let rows: [(Given, &str); 5] = [
        (|e| e.may_use(1, 100), "action 1: of no use: memory is at 100Mi, and its max is 100Mi"),
        (|e| e.container(1).resources.limits.memory = None, "action 1: of no use: the container has no limit of memory"),
        (
            |e| e.container(1).resources.restarts_for = [Resource::Memory].into(),
            "action 1: of no use: its resizePolicy restarts the container when memory changes",
        ),
        (|e| e.lose_node(1), "action 1: nobody hears of node n"),
        (|e| e.policy.as_mut().unwrap().container = Some("db".into()), "action 1: container db was never started"),
    ];
    for (given, words) in rows {
        let mut example = example();
        given(&mut example);
        example.load(1, true, 5);
        assert_eq!(example.told().get(1), Some(&format!("Skipped rule pressure goes on: {words}")));
        example.policy.as_mut().unwrap().container = None;
        example.load(1, true, 60);
        assert_eq!(example.told_runs.len(), 1, "{words}");
        assert!(example.resized.is_empty(), "{words}");
    }
}

#[test]
fn what_is_pending_is_waited_for_and_no_more_is_asked() {
    let mut example = example();
    example.container(1).resources.limits.memory = Some(70 * MI);
    example.observed.pods.get_mut(&1).unwrap().resize = Some(Resizing::Deferred("no room".into()));
    example.load(1, true, 30);
    assert_eq!(example.open().resize.as_ref().unwrap().limits, BTreeMap::from([(Resource::Memory, 70 * MI)]));
    assert!(example.resized.is_empty(), "it is asked for already");
    example.give(1);
    example.load(1, true, 5);
    assert!(example.told()[1].starts_with("Succeeded"), "{:?}", example.told());
}

#[test]
fn of_two_resources_the_one_that_can_grow_does() {
    let mut example = example();
    let text = LADDER.replace("max: 100Mi}}", "max: 64Mi}, cpu: {by: 500m, max: 2}}");
    example.policy = Some(policy(&text));
    let resources = &mut example.container(1).resources;
    (resources.limits.cpu, resources.requests.cpu, resources.given.cpu) = (Some(1000), Some(500), Some(1000));
    example.load(1, true, 5);
    let asked = example.open().resize.clone().unwrap();
    assert_eq!((asked.limits, asked.requests), ([(Resource::Cpu, 1500)].into(), [(Resource::Cpu, 750)].into()));
}

#[test]
fn a_set_on_hold_and_a_budget_that_is_used_up_keep_it_from_beginning() {
    let mut example = example();
    example.observed.set.hold = Some("maintenance".into());
    example.load(1, true, 60);
    assert!(example.resized.is_empty() && example.ledger.state.episodes.is_empty());

    example.observed.set.hold = None;
    example.load(1, true, 5);
    example.observed.set.hold = Some("maintenance".into());
    example.load(1, true, 60);
    assert_eq!(example.resized.len(), 1, "nor is it asked for again");
    example.observed.set.hold = None;
    example.take(1);
    example.give(1);
    example.load(0, true, 60);
    assert!(!example.resized.iter().any(|asked| asked.starts_with("redis-0")), "{:?}", example.resized);
    assert_eq!(example.decide().holds[0].reason, reason::Hold::RuleBudget);
}
