//! A set of Redis pods for the tests of this module: what happens to it, and what the guardian makes of it.

use std::collections::{BTreeMap, BTreeSet};

use guardian_hook::protocol::{Outcome, PROTOCOL, RunResult, Tail, valid_run_id};
use jiff::{SignedDuration, Timestamp};

use super::{Container, Decision, Departed, Observed, Pod, RunEnd, Set, Step, Terminated, Volume, decide};
use crate::ledger::{Ledger, Record};
use crate::names::POLICY_KEY;
use crate::policy::{self, API_VERSION, KIND, Policy};
use crate::quantity;

/// A set, its ledger and the time, moved on by hand.
pub(super) struct Example {
    pub(super) observed: Observed,
    pub(super) policy: Option<Policy>,
    pub(super) ledger: Ledger,
    pub(super) now: Timestamp,
    /// Every run that was handed over for the first time, in order.
    pub(super) claimed: Vec<String>,
    /// Hook of each of them, and the pod in which it runs.
    pub(super) told_runs: Vec<(String, String)>,
    /// Every pod that was evicted, in order.
    pub(super) evicted: Vec<String>,
    /// Every limit that was asked for, in order.
    pub(super) resized: Vec<String>,
    born: u32,
}

pub(super) fn policy() -> Policy {
    policy_with("rejoin: {command: [rejoin], timeout: 30s, retries: 2, backoff: 5s}")
}

/// A policy with these hooks, in YAML.
pub(super) fn policy_with(hooks: &str) -> Policy {
    let text = format!("apiVersion: {API_VERSION}\nkind: {KIND}\nhooks: {{{hooks}}}");
    let parsed = policy::parse("redis", &BTreeMap::from([(POLICY_KEY.to_owned(), text)])).unwrap();
    Policy { revision: "0123456789abcdef".into(), ..parsed }
}

pub(super) fn outcome(result: RunResult) -> RunEnd {
    let stderr = Tail { text: "connecting\nno route to \u{1b}[31mpeer\n\n".into(), dropped: 0 };
    let stdout = Tail::default();
    let (version, run_id) = (PROTOCOL, String::new());
    RunEnd::Outcome(Box::new(Outcome { version, run_id, result, duration_ms: 1234, stdout, stderr, survivors: 0 }))
}

/// When the set is made, and the example begins.
fn born() -> Timestamp {
    Timestamp::from_second(1_800_000_000).unwrap()
}

impl Example {
    /// `replicas` running pods, all answered.
    pub(super) fn at_rest(replicas: u32) -> Self {
        let set = Set {
            name: "redis".into(),
            uid: "set".into(),
            created: born(),
            unchanged: true,
            has_volumes: false,
            data: BTreeMap::new(),
            service: "redis".into(),
            ordinals: 0..replicas,
            selector: serde_json::Value::Null,
            serves: false,
            hold: None,
        };
        let mut example = Self {
            observed: Observed {
                namespace: "shop".into(),
                set,
                pods: BTreeMap::new(),
                departed: BTreeMap::new(),
                volumes: BTreeMap::new(),
                roles: BTreeMap::new(),
                gauges: BTreeMap::new(),
                watched: born(),
                hand_overs: Vec::new(),
                budgets: Vec::new(),
                services: Vec::new(),
                running: BTreeSet::new(),
                ends: BTreeMap::new(),
                refused: BTreeMap::new(),
            },
            policy: Some(policy()),
            ledger: Ledger::new("set"),
            now: born(),
            claimed: Vec::new(),
            told_runs: Vec::new(),
            evicted: Vec::new(),
            resized: Vec::new(),
            born: 0,
        };
        for ordinal in 0..replicas {
            example.new_pod(ordinal);
        }
        example.pass();
        example
    }

    fn next_id(&mut self) -> String {
        self.born += 1;
        format!("{:04}", self.born)
    }

    /// A new pod runs at this ordinal; the one before it is gone.
    pub(super) fn new_pod(&mut self, ordinal: u32) {
        let (uid, id) = (self.next_id(), self.next_id());
        let container = Container { id, running_since: Some(self.now), ..Container::default() };
        let pod = Pod {
            name: format!("redis-{ordinal}"),
            uid,
            version: "1".into(),
            created: self.now,
            revision: "r1".into(),
            ip: Some(format!("10.0.0.{}", self.born)),
            ready: true,
            deleted: None,
            node: None,
            role: None,
            serving: None,
            shed: None,
            toggles: None,
            first_container: "redis".into(),
            containers: BTreeMap::from([("redis".into(), container)]),
            agent: None,
            resize: None,
        };
        if let Some(old) = self.observed.pods.insert(ordinal, pod) {
            self.observed.departed.insert(ordinal, Departed { uid: old.uid, ..Departed::default() });
        }
    }

    pub(super) fn container(&mut self, ordinal: u32) -> &mut Container {
        self.observed.pods.get_mut(&ordinal).unwrap().containers.get_mut("redis").unwrap()
    }

    /// A new volume, made now, takes the place of the ordinal's old one.
    pub(super) fn new_volume(&mut self, ordinal: u32) {
        let (uid, created) = (self.next_id(), self.now);
        self.observed.volumes.insert(ordinal, Volume { claim: format!("data-redis-{ordinal}"), uid, created, is_member: false });
    }

    /// The marks that were decided are made.
    pub(super) fn mark_volumes(&mut self) {
        let marks = self.decide().levels.marks;
        for volume in self.observed.volumes.values_mut().filter(|volume| marks.contains(volume)) {
            volume.is_member = true;
        }
    }

    /// The set is deleted with its pods, and made again under the same name; its volumes stay.
    pub(super) fn made_again(&mut self, uid: &str) {
        self.later(3600);
        self.observed.set.uid = uid.into();
        self.observed.set.created = self.now;
        self.observed.pods.clear();
    }

    /// Its container ends, and is not running for now.
    pub(super) fn stop(&mut self, ordinal: u32, reason: &str, exit_code: i32) {
        let container = self.container(ordinal);
        container.running_since = None;
        container.last = Some(Terminated { reason: reason.into(), exit_code, ..Terminated::default() });
    }

    /// Its container runs again.
    pub(super) fn run_again(&mut self, ordinal: u32) {
        let (id, now) = (self.next_id(), self.now);
        let container = self.container(ordinal);
        (container.id, container.running_since) = (id, Some(now));
        container.restarts += 1;
    }

    pub(super) fn crash(&mut self, ordinal: u32) {
        self.stop(ordinal, "Error", 137);
        self.run_again(ordinal);
    }

    pub(super) fn later(&mut self, seconds: i64) {
        self.now += SignedDuration::from_secs(seconds);
    }

    /// The run with this id has ended.
    pub(super) fn end(&mut self, run: &str, end: RunEnd) {
        assert!(self.observed.running.remove(run), "{run} is not running");
        self.observed.ends.insert(run.into(), end);
    }

    pub(super) fn decide(&self) -> Decision {
        decide(&self.observed, self.policy.as_ref(), &self.ledger.state, self.now)
    }

    /// Decides, writes, and hands over, as the controller does.
    pub(super) fn pass(&mut self) -> Decision {
        let decision = self.decide();
        decision.write(&self.observed, &mut self.ledger);
        for step in &decision.steps {
            if let Step::Recreate { pod, .. } = step {
                self.evicted.push(pod.clone());
            }
            if let Step::Resize { pod, resize, .. } = step {
                let limits =
                    resize.limits.iter().map(|(of, amount)| format!("{pod} {} {}", of.as_str(), quantity::text(*amount, *of)));
                self.resized.extend(limits);
            }
            if let Step::Run { run, run_id, .. } = step {
                assert!(valid_run_id(run_id), "a runner refuses {run_id}");
                self.told_runs.push((run.hook.clone(), run.pod.clone()));
            }
            let Some(run) = step.starts() else { continue };
            let known = self.claimed.iter().any(|known| known == run);
            match step {
                Step::Attach { .. } => assert!(known, "{run} was never claimed"),
                _ => {
                    assert!(!known, "{run} is claimed twice");
                    self.claimed.push(run.into());
                }
            }
            self.observed.running.insert(run.into());
            self.observed.ends.remove(run);
        }
        let open = &self.ledger.state.runs;
        self.observed.ends.retain(|id, _| open.contains_key(id));
        self.observed.running.retain(|id| open.contains_key(id));
        decision
    }

    /// The runs at hand end like this, and so do those that follow, until nothing more is begun. Hook and pod of every run so far.
    pub(super) fn play(&mut self, result: &RunResult) -> Vec<String> {
        for _ in 0..20 {
            self.pass();
            for run in self.observed.running.clone() {
                self.end(&run, outcome(result.clone()));
            }
            self.later(60);
        }
        self.told_runs.iter().map(|(hook, pod)| format!("{hook} {pod}")).collect()
    }

    /// Everything is answered, nothing is open, and nothing more is decided.
    pub(super) fn assert_at_rest(&self) {
        let state = &self.ledger.state;
        assert_eq!((state.episodes.len(), state.runs.len()), (0, 0), "{state:?}");
        for (ordinal, pod) in self.observed.pods.iter().filter(|(_, pod)| pod.takes_hooks("redis")) {
            assert!(state.answered[ordinal].is(&pod.start("redis").unwrap()), "ordinal {ordinal}");
        }
        assert_eq!(self.decide(), Decision::default());
    }

    /// The same; only marks of volumes are due.
    pub(super) fn assert_at_rest_but_for_marks(&mut self) {
        let volumes = self.observed.volumes.clone();
        self.mark_volumes();
        self.assert_at_rest();
        self.observed.volumes = volumes;
    }

    pub(super) fn last_record(&self) -> Record {
        self.ledger.records().last().unwrap()
    }
}
