use guardian_hook::protocol::RunResult;

use super::*;
use crate::ledger::Record;
use crate::lifecycle::example::{Example, outcome};
use crate::lifecycle::{Node, RunEnd};
use crate::names::POLICY_KEY;
use crate::policy::{self, API_VERSION, KIND, Policy};

const OK: RunResult = RunResult::Exited { code: 0 };
const FAILED: RunResult = RunResult::Exited { code: 1 };

fn policy(hooks: &str) -> Policy {
    let text = format!("apiVersion: {API_VERSION}\nkind: {KIND}\nhooks: {hooks}");
    policy::parse("redis", &BTreeMap::from([(POLICY_KEY.to_owned(), text)])).unwrap()
}

/// Three pods on three nodes; the node of the first is silent, and its pod should have stopped a minute ago.
fn example() -> Example {
    let mut example = on_nodes("fence: {command: [fence], retries: 1, backoff: 5s}");
    lose(&mut example);
    example
}

/// Three pods on three nodes, all well.
fn on_nodes(hooks: &str) -> Example {
    let mut example = Example::at_rest(3);
    example.policy = Some(policy(&format!("{{{hooks}}}")));
    for (ordinal, pod) in &mut example.observed.pods {
        pod.node = Some(Node { name: format!("node-{ordinal}"), boot: "b".into(), silent_since: None });
    }
    example
}

/// The node of the first pod is not heard of any more; a minute ago the pod should have stopped.
fn lose(example: &mut Example) {
    let began = example.now;
    let lost = example.observed.pods.get_mut(&0).unwrap();
    (lost.ready, lost.deleted) = (false, Some(began));
    lost.node.as_mut().unwrap().silent_since = Some(began);
    example.later(60);
}

/// The run that was begun in this pass.
fn begun(example: &mut Example) -> String {
    let before = example.claimed.len();
    example.pass();
    let [run] = &example.claimed[before..] else { panic!("{:?}", example.claimed) };
    run.clone()
}

fn removed(example: &mut Example) -> Vec<String> {
    let steps = example.pass().steps;
    steps.iter().filter_map(|s| if let Step::Release { pod, .. } = s { Some(pod.clone()) } else { None }).collect()
}

fn hold(example: &Example) -> String {
    let decision = example.decide();
    assert_eq!(decision.steps, [], "nothing is done");
    let [held] = &decision.holds[..] else { panic!("{decision:?}") };
    format!("{}: {}", held.reason, held.why)
}

fn told(record: &Record) -> (&str, &str, Verdict, &str) {
    (&record.hook, &record.reason, record.verdict, &record.pod)
}

#[test]
fn a_pod_of_a_lost_node_is_deleted_once_a_peer_has_proven_that_it_cannot_write() {
    let mut example = example();
    let run = begun(&mut example);
    assert_eq!(example.told_runs, [("fence".to_owned(), "redis-1".to_owned())], "in a peer");
    assert_eq!(removed(&mut example), Vec::<String>::new(), "not before it has ended");
    example.end(&run, outcome(OK));
    example.pass();
    assert_eq!(told(&example.last_record()), ("fence", "NodeLost", Verdict::Succeeded, "redis-0"));
    assert_eq!(removed(&mut example), ["redis-0"]);
    assert_eq!(removed(&mut example), Vec::<String>::new(), "not again at once");
    example.later(10);
    assert_eq!(removed(&mut example), ["redis-0"], "the first one was lost");
    example.observed.pods.remove(&0);
    example.pass();
    assert_eq!(told(&example.last_record()), ("release", "NodeLost", Verdict::Succeeded, "redis-0"));
    example.assert_at_rest();
}

#[test]
fn without_proof_no_time_that_passes_deletes_it() {
    let mut example = example();
    for attempts in 1..=3 {
        for _ in 0..2 {
            let run = begun(&mut example);
            example.end(&run, outcome(FAILED));
            example.pass();
            example.later(5);
        }
        assert_eq!(told(&example.last_record()), ("fence", "NodeLost", Verdict::Failed, "redis-0"));
        assert!(hold(&example).contains("its fence hook has proven nothing"), "{}", hold(&example));
        assert_eq!(example.claimed.len(), 2 * attempts);
        example.later(295);
    }
}

/// How far it came is not known: it is no proof, and it is not made again but in a while.
#[test]
fn a_fence_of_unknown_outcome_is_no_proof() {
    let mut example = example();
    let run = begun(&mut example);
    example.end(&run, outcome(RunResult::Interrupted));
    example.pass();
    assert_eq!(example.last_record().verdict, Verdict::Failed);
    assert!(hold(&example).starts_with("NotFenced: "));
}

#[test]
fn nothing_is_done_as_long_as_it_may_yet_go_by_itself() {
    type Change = fn(&mut Example);
    let table: [(&str, Change); 5] = [
        ("it is not being deleted", |e| e.observed.pods.get_mut(&0).unwrap().deleted = None),
        ("its time is not over", |e| e.observed.pods.get_mut(&0).unwrap().deleted = Some(e.now)),
        ("its node is heard of", |e| e.observed.pods.get_mut(&0).unwrap().node.as_mut().unwrap().silent_since = None),
        ("its node is not known", |e| e.observed.pods.get_mut(&0).unwrap().node = None),
        ("nobody guards it", |e| e.policy = None),
    ];
    for (why, change) in table {
        let mut example = example();
        change(&mut example);
        let decision = example.decide();
        assert_eq!((decision.steps.len(), decision.holds.len()), (0, 0), "{why}: {decision:?}");
    }
}

#[test]
fn whoever_waits_for_a_person_says_what_he_can_do() {
    let mut without = example();
    without.policy = Some(policy("{rejoin: {command: [rejoin]}}"));
    assert_eq!(
        hold(&without),
        "NotFenced: pod redis-0 should have stopped by 2027-01-15T08:00:00Z, and nobody has heard of its node node-0 since \
         2027-01-15T08:00:00Z: it may still write; policy redis has no fence hook. If the machine is off: kubectl taint node node-0 \
         node.kubernetes.io/out-of-service=nodeshutdown:NoExecute"
    );
    let mut alone = example();
    for ordinal in [1, 2] {
        alone.observed.pods.get_mut(&ordinal).unwrap().ready = false;
    }
    assert!(hold(&alone).ends_with("no other pod is ready to run its fence hook"));
    let mut isolated = example();
    for ordinal in [1, 2] {
        let pod = isolated.observed.pods.get_mut(&ordinal).unwrap();
        pod.node.as_mut().unwrap().silent_since = Some(isolated.now);
    }
    assert!(hold(&isolated).ends_with("no other pod is ready to run its fence hook"), "they only seem to be ready");
}

#[test]
fn a_pod_that_goes_by_itself_meanwhile_is_left_to_its_set() {
    let mut example = example();
    let run = begun(&mut example);
    example.observed.pods.remove(&0);
    example.end(&run, outcome(OK));
    example.pass();
    assert_eq!(removed(&mut example), Vec::<String>::new());
    example.assert_at_rest();
}

#[test]
fn another_pod_of_the_same_name_is_not_deleted() {
    let mut example = example();
    let run = begun(&mut example);
    example.end(&run, outcome(OK));
    example.pass();
    example.new_pod(0);
    assert_eq!(removed(&mut example), Vec::<String>::new());
}

/// The first pod has crashed, and its hook was begun.
fn crashed(hooks: &str) -> (Example, String) {
    let mut example = on_nodes(&format!("fence: {{command: [fence]}}, {hooks}"));
    example.crash(0);
    let run = begun(&mut example);
    (example, run)
}

/// The last that was run, after the passes in which the open episode is closed and its place taken.
fn runs_next(example: &mut Example) -> (String, String) {
    (0..3).for_each(|_| drop(example.pass()));
    example.told_runs.last().unwrap().clone()
}

fn fence_on(pod: &str) -> (String, String) {
    ("fence".to_owned(), pod.to_owned())
}

#[test]
fn a_hook_that_waits_for_its_next_attempt_in_a_lost_pod_does_not_keep_it_from_being_fenced() {
    for silent in [true, false] {
        let (mut example, run) = crashed("rejoin: {command: [rejoin], retries: 3, backoff: 1s}");
        example.end(&run, outcome(FAILED));
        example.pass();
        lose(&mut example);
        if silent {
            assert_eq!(runs_next(&mut example), fence_on("redis-1"));
            let records: Vec<Record> = example.ledger.records().collect();
            assert!(records.iter().any(|r| told(r) == ("rejoin", "Crash", Verdict::Superseded, "redis-0")), "{records:?}");
        } else {
            example.observed.pods.get_mut(&0).unwrap().node.as_mut().unwrap().silent_since = None;
            assert_eq!(runs_next(&mut example).0, "rejoin", "it goes by itself");
            assert_eq!(example.ledger.state.episodes.len(), 1);
        }
    }
}

#[test]
fn a_run_that_nobody_hears_of_in_a_lost_pod_does_not_hold_its_fence_until_its_time_out() {
    for is_under_way in [true, false] {
        let (mut example, run) = crashed("rejoin: {command: [rejoin], timeout: 24h}");
        lose(&mut example);
        if !is_under_way {
            let (since, at) = (example.now, example.now);
            example.end(&run, RunEnd::Lost { since, at, denied: false, why: "cut".into() });
        }
        assert_eq!(runs_next(&mut example), fence_on("redis-1"));
    }
}

/// The peer can be asked, and what it does is about the pod that is to be fenced: one after the other.
#[test]
fn a_run_in_a_peer_of_the_lost_pod_is_waited_for_before_its_fence() {
    let (mut example, run) = crashed("postMortem: {command: [look], target: any, timeout: 1h}, rejoin: {command: [rejoin]}");
    assert_eq!(example.told_runs, [("postMortem".to_owned(), "redis-1".to_owned())]);
    lose(&mut example);
    assert_eq!(runs_next(&mut example).0, "postMortem");
    example.end(&run, outcome(FAILED));
    assert_eq!(runs_next(&mut example), fence_on("redis-1"));
}

#[test]
fn a_pod_that_was_evicted_to_be_made_anew_and_is_lost_on_its_way_out_is_fenced() {
    let (mut example, run) = crashed("rejoin: {command: [rejoin], onFailure: recreate}");
    example.end(&run, outcome(FAILED));
    (0..2).for_each(|_| drop(example.pass()));
    assert_eq!(example.evicted, ["redis-0"]);
    lose(&mut example);
    assert_eq!(runs_next(&mut example), fence_on("redis-1"));
}
