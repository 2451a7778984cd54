//! Whatever happens in whatever order: no attempt is claimed twice, every start is answered in the end, and then there is silence.

use std::collections::BTreeMap;

use guardian_hook::protocol::RunResult;
use jiff::SignedDuration;
use proptest::prelude::*;

use super::example::{Example, outcome};
use super::{RunEnd, command};

#[derive(Clone, Debug)]
enum Event {
    Crash(u32),
    NewPod(u32),
    Stop(u32),
    RunAgain(u32),
    Later(i64),
    End(usize, RunResult),
    Lose(usize),
    /// Somebody asks for the hook by hand.
    Ask(u32),
    /// Whoever asked for the `n`th of the commands that are open closes it.
    AskerCloses(usize, RunResult),
    ControllerRestarts,
    /// The ledger was not written: another controller was first, or this one died before.
    PassLost,
    Pass,
}

fn event() -> impl Strategy<Value = Event> {
    let result = prop_oneof![
        3 => Just(RunResult::Exited { code: 0 }),
        2 => Just(RunResult::Exited { code: 1 }),
        1 => Just(RunResult::TimedOut),
        1 => Just(RunResult::Interrupted),
    ];
    let pod = 0..3_u32;
    prop_oneof![
        2 => pod.clone().prop_map(Event::Crash),
        1 => pod.clone().prop_map(Event::NewPod),
        1 => pod.clone().prop_map(Event::Stop),
        1 => pod.prop_map(Event::RunAgain),
        2 => (0..20_i64).prop_map(Event::Later),
        3 => (any::<usize>(), result.clone()).prop_map(|(n, r)| Event::End(n, r)),
        1 => any::<usize>().prop_map(Event::Lose),
        2 => (0..3_u32).prop_map(Event::Ask),
        1 => (any::<usize>(), result.clone()).prop_map(|(n, r)| Event::AskerCloses(n, r)),
        1 => Just(Event::ControllerRestarts),
        1 => Just(Event::PassLost),
        6 => Just(Event::Pass),
    ]
}

/// The pods with the runner's promise: one outcome per id. That none is claimed twice, [`Example::pass`] asserts.
struct World {
    example: Example,
    outcomes: BTreeMap<String, RunResult>,
}

impl World {
    /// The `n`th of the runs under way.
    fn pick(&self, n: usize) -> Option<String> {
        let running = &self.example.observed.running;
        running.iter().nth(n.checked_rem(running.len())?).cloned()
    }

    fn end(&mut self, run: &str, result: RunResult) {
        let result = self.outcomes.entry(run.into()).or_insert(result).clone();
        self.example.end(run, outcome(result));
    }

    /// What is allowed is claimed, as by a person. No two claims are of one millisecond.
    fn ask(&mut self, ordinal: u32) {
        let example = &mut self.example;
        example.now += SignedDuration::from_millis(1);
        let policy = example.policy.clone().unwrap();
        let command = command::find(&policy, "rejoin").unwrap();
        let asked = command::Asked { command: &command, who: "alice", timeout: None, now: example.now };
        let Ok(step) = command::claim(&example.observed, &policy, &example.ledger.state, ordinal, &asked) else { return };
        let run = step.starts().unwrap().to_owned();
        assert!(!example.claimed.contains(&run), "{run} is claimed twice");
        step.apply(&mut example.ledger);
        example.claimed.push(run);
    }

    fn close(&mut self, n: usize, result: RunResult) {
        let state = &self.example.ledger.state;
        let is_command = |run: &&String| state.episodes[&state.runs[*run].episode].scenario == command::NAME;
        let open: Vec<String> = state.runs.keys().filter(is_command).cloned().collect();
        let Some(run) = n.checked_rem(open.len()).and_then(|n| open.get(n)) else { return };
        let result = self.outcomes.entry(run.clone()).or_insert(result).clone();
        let RunEnd::Outcome(ended) = outcome(result) else { return };
        let step = command::close(&self.example.observed, &self.example.ledger.state, run, &ended, self.example.now).unwrap();
        step.apply(&mut self.example.ledger);
    }

    fn apply(&mut self, event: Event) {
        match event {
            Event::Ask(n) => return self.ask(n),
            Event::AskerCloses(n, result) => return self.close(n, result),
            _ => {}
        }
        let example = &mut self.example;
        match event {
            Event::Crash(n) => example.crash(n),
            Event::NewPod(n) => example.new_pod(n),
            Event::Stop(n) => example.stop(n, "Error", 1),
            Event::RunAgain(n) if example.container(n).running_since.is_none() => example.run_again(n),
            Event::RunAgain(_) => {}
            Event::Later(seconds) => example.later(seconds),
            Event::End(n, result) => {
                if let Some(run) = self.pick(n) {
                    self.end(&run, result);
                }
            }
            Event::Lose(n) => {
                if let Some(run) = self.pick(n) {
                    let (since, at) = (self.example.now, self.example.now);
                    self.example.end(&run, RunEnd::Lost { since, at, denied: false, why: "cut".into() });
                }
            }
            Event::ControllerRestarts => {
                example.observed.running.clear();
                example.observed.ends.clear();
                example.observed.departed.clear();
            }
            Event::Ask(_) | Event::AskerCloses(..) => {}
            Event::PassLost => drop(example.decide()),
            Event::Pass => drop(example.pass()),
        }
    }

    /// Nothing more happens but time, and runs that end.
    fn come_to_rest(&mut self) {
        for n in 0..3 {
            self.apply(Event::RunAgain(n));
        }
        for _ in 0..100 {
            self.example.pass();
            while let Some(run) = self.pick(0) {
                self.end(&run, RunResult::Exited { code: 0 });
            }
            self.example.later(60);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: ProptestConfig::default().cases.max(512),
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn every_start_is_answered_and_no_attempt_is_claimed_twice(events in prop::collection::vec(event(), 0..60)) {
        let mut world = World { example: Example::at_rest(3), outcomes: BTreeMap::new() };
        for event in events {
            world.apply(event);
            let mut scopes: Vec<_> = world.example.ledger.state.episodes.values().map(|e| format!("{:?}", e.scope)).collect();
            scopes.sort();
            let all = scopes.len();
            scopes.dedup();
            prop_assert_eq!(scopes.len(), all, "two episodes hold one scope");
        }
        world.come_to_rest();
        world.example.assert_at_rest();
        let most = 1 + world.example.policy.as_ref().map_or(0, |p| p.hooks.rejoin.as_ref().map_or(0, |h| h.retries));
        for run in &world.example.claimed {
            let attempt: u32 = run.rsplit('-').next().unwrap().parse().unwrap();
            prop_assert!(attempt <= most, "{run} is beyond the retries");
        }
    }
}
