use guardian_hook::protocol::RunResult;

use super::*;
use crate::ledger::Record;
use crate::lifecycle::Node;
use crate::lifecycle::example::{Example, outcome};
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
    let mut example = Example::at_rest(3);
    example.policy = Some(policy("{fence: {command: [fence], retries: 1, backoff: 5s}}"));
    for (ordinal, pod) in &mut example.observed.pods {
        pod.node = Some(Node { name: format!("node-{ordinal}"), boot: "b".into(), silent_since: None });
    }
    let began = example.now;
    let lost = example.observed.pods.get_mut(&0).unwrap();
    (lost.ready, lost.deleted) = (false, Some(began));
    lost.node.as_mut().unwrap().silent_since = Some(began);
    example.later(60);
    example
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
