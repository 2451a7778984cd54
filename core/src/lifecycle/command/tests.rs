use guardian_hook::protocol::{EMPTY_COMMAND, RunResult};

use super::*;
use crate::lifecycle::RunEnd;
use crate::lifecycle::example::{Example, outcome};
use crate::names::POLICY_KEY;
use crate::policy::{self, API_VERSION, KIND};

const POLICY: &str = "role: {command: [role]}\n\
    hooks: {init: {command: [i]}, preStop: {command: [s]}, bootstrap: {command: [b]}, rejoin: {command: [rejoin], retries: 2},\n\
    \x20 switchover: {command: [move], target: 'role:primary'}, fence: {command: [f]}, thaw: {command: [t]}}\n\
    tasks: {all: {command: [a], target: all}, any: {command: [a], target: any}, first: {command: [a], target: 'ordinal:0'},\n\
    \x20 beyond: {command: [a], target: 'ordinal:7'}, replica: {command: [a], target: 'role:replica', when: ready},\n\
    \x20 own: {command: [a], timeout: 5m, retries: 3}, side: {command: [a], container: sidecar, target: 'ordinal:0'}, thaw: {command: [t]}}";

fn policy() -> Policy {
    let text = format!("apiVersion: {API_VERSION}\nkind: {KIND}\n{POLICY}");
    policy::parse("redis", &BTreeMap::from([(POLICY_KEY.to_owned(), text)])).unwrap()
}

/// So many pods at rest, whose roles nobody asks for.
fn example(replicas: u32) -> Example {
    Example::at_rest(replicas)
}

/// What stands for the pods, or the refusal.
fn chosen(example: &Example, name: &str, pod: Option<&str>) -> String {
    let policy = policy();
    let pods = find(&policy, name).and_then(|command| pods(&example.observed, &policy, &command, pod));
    match pods {
        Ok(ordinals) => ordinals.iter().map(u32::to_string).collect::<Vec<_>>().join(" "),
        Err(refused) => format!("{}{refused}", if refused.is_usage() { "usage: " } else { "" }),
    }
}

impl Example {
    fn claimable(&self, name: &str, ordinal: u32) -> Result<Step, Refused> {
        let policy = policy();
        let command = find(&policy, name)?;
        let asked = Asked { command: &command, who: "alice", timeout: None, now: self.now };
        claim(&self.observed, &policy, &self.ledger.state, ordinal, &asked)
    }

    /// Somebody claims it, as the CLI does; the id of its run.
    fn run_by_hand(&mut self, name: &str, ordinal: u32) -> String {
        let step = self.claimable(name, ordinal).unwrap();
        step.apply(&mut self.ledger);
        let run = step.starts().unwrap().to_owned();
        self.claimed.push(run.clone());
        run
    }

    fn last_told(&self) -> String {
        let record = self.last_record();
        format!("{} {} {} {}: {}", record.reason, record.hook, record.pod, record.verdict.as_str(), record.message)
    }
}

#[test]
fn what_is_asked_for_is_found_by_its_name_and_refused_by_a_reason() {
    let one = example(1);
    for (name, expected) in [
        ("own", "0"),
        ("tasks.own", "0"),
        ("rejoin", "0"),
        ("hooks.rejoin", "0"),
        ("hooks.thaw", "0"),
        ("thaw", "usage: policy redis has both a task and a hook thaw: say `tasks.thaw` or `hooks.thaw`"),
        ("init", "usage: hook init cannot be run by hand: it runs in an init container, before the application starts"),
        ("hooks.preStop", "usage: hook preStop cannot be run by hand: the pod runs it itself when it stops"),
        ("bootstrap", "usage: hook bootstrap cannot be run by hand: it makes the cluster, once"),
        ("fence", "usage: hook fence cannot be run by hand: its success is proof"),
        (
            "tasks.rejoin",
            "usage: policy redis has no task or hook tasks.rejoin; it has all, any, beyond, first, own, replica, side, thaw, ",
        ),
        ("join", "usage: policy redis has no task or hook join; it has all"),
        ("beyond", "usage: the set is not meant to have a pod redis-7"),
    ] {
        let is = chosen(&one, name, None);
        assert!(is.starts_with(expected) && (!is.is_empty() && (expected.len() > 1 || is == expected)), "{name}: {is}");
    }
}

#[test]
fn a_target_names_the_pods_and_another_pod_may_be_named_instead() {
    let mut three = example(3);
    let (primary, replica) = (Some("primary".to_owned()), Some("replica".to_owned()));
    for (ordinal, role) in [(0, &primary), (1, &replica), (2, &replica)] {
        three.observed.pods.get_mut(&ordinal).unwrap().role.clone_from(role);
    }
    three.observed.pods.get_mut(&1).unwrap().ready = false;
    let rows = [
        ("own", None, "usage: tasks.own runs in one pod, and the set has 3: say in which with --pod"),
        ("own", Some("redis-2"), "2"),
        ("own", Some("redis-3"), "usage: the set is not meant to have a pod redis-3"),
        ("own", Some("mysql-0"), "usage: the set is not meant to have a pod mysql-0"),
        ("all", None, "0 1 2"),
        ("all", Some("redis-1"), "1"),
        ("any", None, "0"),
        ("first", None, "0"),
        ("switchover", None, "0"),
        ("replica", None, "2"),
        ("replica", Some("redis-1"), "pod redis-1 is not ready, and `when: ready` asks for that"),
        ("side", None, "pod redis-0 has no container sidecar, or it was never started"),
    ];
    for (name, pod, expected) in rows {
        assert_eq!(chosen(&three, name, pod), expected, "{name} {pod:?}");
    }
    three.observed.pods.get_mut(&0).unwrap().role = None;
    assert!(chosen(&three, "switchover", None).starts_with("no pod has the role primary"));
    three.stop(0, "Error", 1);
    assert_eq!(chosen(&three, "any", None), "2", "one that is ready");
    assert_eq!(chosen(&three, "all", None), "pod redis-0 is up, and its container redis does not run");
    three.observed.pods.get_mut(&2).unwrap().deleted = Some(Timestamp::UNIX_EPOCH);
    assert_eq!(chosen(&three, "own", Some("redis-2")), "pod redis-2 is being deleted");
    three.observed.pods.remove(&1);
    assert!(chosen(&three, "own", Some("redis-1")).starts_with("pod redis-1 is not there, or has no runner"));
    three.observed.set.hold = Some("night shift".into());
    assert_eq!(chosen(&three, "own", Some("redis-2")), "the set is on hold: night shift");
}

#[test]
fn a_command_is_claimed_once_and_closed_by_whoever_asked_for_it() {
    let mut example = example(2);
    let run = example.run_by_hand("own", 1);
    assert!(guardian_hook::protocol::valid_run_id(&run), "{run}");
    let claimed = &example.ledger.state.runs[&run];
    assert_eq!((claimed.hook.as_str(), claimed.pod.as_str(), claimed.timeout_ms), ("tasks.own", "redis-1", 300_000));
    let episode = &example.ledger.state.episodes[&claimed.episode];
    assert_eq!((episode.reason.as_str(), episode.why.as_str()), ("Requested", "asked for by alice"));

    let ended = Outcome { run_id: run.clone(), ..answer(RunResult::Exited { code: 3 }) };
    let step = close(&example.observed, &example.ledger.state, &run, &ended, example.now).unwrap();
    step.apply(&mut example.ledger);
    let told = "Requested tasks.own redis-1 Failed: asked for by alice: tasks.own ended with exit code 3 after 1.2 s, its last words: no route to  [31mpeer";
    assert_eq!(example.last_told(), told, "not tried again, whatever `retries` says");
    example.assert_at_rest();
    assert_eq!(close(&example.observed, &example.ledger.state, &run, &ended, example.now), None, "once");
}

fn answer(result: RunResult) -> Outcome {
    match outcome(result) {
        RunEnd::Outcome(outcome) => *outcome,
        RunEnd::Lost { .. } => unreachable!("an outcome"),
    }
}

#[test]
fn the_longest_name_of_a_task_still_names_a_run() {
    let name = "n".repeat(63);
    let text = format!("apiVersion: {API_VERSION}\nkind: {KIND}\ntasks: {{{name}: {{command: [a]}}}}");
    let policy = policy::parse("redis", &BTreeMap::from([(POLICY_KEY.to_owned(), text)])).unwrap();
    let mut example = example(1);
    let pod = example.observed.pods.get_mut(&0).unwrap();
    pod.uid = "0f1e2d3c-0f1e-2d3c-0f1e-2d3c0f1e2d3c".into();
    pod.containers.get_mut("redis").unwrap().id = format!("containerd://{}", "f".repeat(64));
    let command = find(&policy, &name).unwrap();
    let asked = Asked { command: &command, who: "alice", timeout: Some(Duration::from_secs(1)), now: example.now };
    let step = claim(&example.observed, &policy, &example.ledger.state, 0, &asked).unwrap();
    let run = step.starts().unwrap();
    assert!(guardian_hook::protocol::valid_run_id(run), "{} characters: {run}", run.len());
    let Step::Run { run, .. } = &step else { panic!("{step:?}") };
    assert_eq!(run.timeout_ms, 1000, "the caller's own");
}

#[test]
fn a_pod_that_another_episode_holds_is_refused_by_its_name_and_another_pod_is_not() {
    let mut example = example(2);
    example.crash(1);
    example.pass();
    let refused = example.claimable("own", 1).unwrap_err();
    let holder = example.ledger.state.episodes.keys().next().unwrap();
    let Refused::HeldBy { pod, episode, hook, .. } = &refused else { panic!("{refused}") };
    assert_eq!((pod.as_str(), episode, hook.as_str()), ("redis-1", holder, "rejoin"));
    assert!(!refused.is_usage() && refused.to_string().contains("guardian history"), "{refused}");
    example.run_by_hand("own", 0);
    assert!(matches!(example.claimable("own", 0), Err(Refused::HeldBy { .. })), "nor twice at a time");
    // And the other way round: the command is closed with its container, and only then is the restart answered.
    example.crash(0);
    let decision = example.pass();
    assert!(decision.holds.iter().any(|held| held.reason == reason::Hold::HeldBy), "{decision:?}");
    example.pass();
    assert!(example.told_runs.contains(&("rejoin".into(), "redis-0".into())), "{:?}", example.told_runs);
}

#[test]
fn the_controller_leaves_it_to_whoever_asked_and_then_learns_its_end_and_closes_it() {
    let mut example = example(2);
    let run = example.run_by_hand("own", 1);
    let decision = example.pass();
    assert_eq!((decision.steps.len(), decision.wake), (0, Some(example.now + SignedDuration::from_secs(30))));
    example.later(29);
    assert!(example.pass().steps.is_empty());
    example.later(1);
    assert_eq!(example.pass().steps, [Step::Attach { run_id: run.clone() }]);
    example.end(&run, outcome(RunResult::Exited { code: 0 }));
    example.pass();
    assert_eq!(example.last_told(), "Requested tasks.own redis-1 Succeeded: asked for by alice: tasks.own succeeded after 1.2 s");
    example.assert_at_rest();
}

#[test]
fn neither_a_failure_nor_an_unknown_end_is_followed_by_another_attempt() {
    let results = [
        (RunResult::Exited { code: 1 }, "ended with exit code 1"),
        (RunResult::Interrupted, "rejoin was interrupted, how far it came is unknown"),
        (RunResult::NotFound { what: EMPTY_COMMAND.into() }, "rejoin was never started: whoever asked for it was gone before"),
    ];
    for (result, words) in results {
        let mut example = example(1);
        let run = example.run_by_hand("hooks.rejoin", 0);
        example.later(30);
        example.pass();
        example.end(&run, outcome(result));
        example.pass();
        let told = example.last_told();
        assert!(told.contains(" Failed: ") && told.contains(words), "{told}");
        example.assert_at_rest();
        assert_eq!(example.ledger.state.answered.len(), 1, "no start is answered by it");
    }
}

#[test]
fn a_policy_that_lost_the_task_or_is_gone_changes_nothing_about_the_end() {
    let mut example = example(1);
    let run = example.run_by_hand("own", 0);
    example.policy = None;
    example.later(60);
    assert_eq!(example.pass().steps, [Step::Attach { run_id: run.clone() }]);
    example.end(&run, outcome(RunResult::TimedOut));
    example.pass();
    assert!(example.last_told().contains("tasks.own was killed at its time out"), "{}", example.last_told());
}

#[test]
fn a_command_whose_pod_or_container_was_replaced_is_closed_at_once_and_asked_for_nowhere() {
    for replace in [|example: &mut Example| example.new_pod(0), |example: &mut Example| example.crash(0)] {
        let mut example = example(1);
        example.run_by_hand("own", 0);
        replace(&mut example);
        let decision = example.pass();
        assert!(!decision.steps.iter().any(|step| matches!(step, Step::Attach { .. })), "{decision:?}");
        let told: Vec<String> =
            example.ledger.records().filter(|r| r.hook == "tasks.own").map(|r| r.verdict.as_str().to_owned()).collect();
        assert_eq!(told, ["Superseded"]);
    }
}

#[test]
fn a_runner_that_cannot_be_reached_is_asked_until_its_time_is_over() {
    let mut example = example(1);
    let run = example.run_by_hand("own", 0);
    example.later(30);
    let since = example.now;
    for seconds in [2, 300, 87] {
        example.pass();
        example.end(&run, RunEnd::Lost { since, at: example.now, denied: false, why: "cut".into() });
        example.later(seconds);
    }
    assert_eq!(example.pass().steps.len(), 1, "still");
    example.end(&run, RunEnd::Lost { since, at: example.now, denied: false, why: "cut".into() });
    example.later(1);
    example.pass();
    assert_eq!(example.last_told(), "Requested tasks.own redis-0 Failed: asked for by alice: cut");
}

#[test]
fn on_hold_only_the_end_of_a_command_is_written() {
    let mut example = example(1);
    let run = example.run_by_hand("own", 0);
    example.later(30);
    example.pass();
    example.observed.set.hold = Some("wait".into());
    assert_eq!(example.claimable("own", 0), Err(Refused::OnHold("wait".into())));
    example.end(&run, outcome(RunResult::Exited { code: 0 }));
    example.pass();
    assert_eq!(example.ledger.state.episodes.len(), 0);
}
