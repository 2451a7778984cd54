//! Every order in which things can happen to a small set, within bounds: two controllers that both believe to lead, each with a view of the pods that may be
//! out of date, may be interrupted between reading, deciding, writing and acting; meanwhile containers end, pods are deleted, hooks fail,
//! connections and answers are lost, controllers die, and time passes.
//!
//! What decides is what runs: [`decide`] and [`Decision::write`]. What is modelled is what carries it out: the compare-and-swap of the ledger, the runs of a
//! controller, the runner's claim, and the API server's view of evictions. `docs/model.md` tells what was explored.

mod happens;
mod tests;
mod world;

use std::collections::BTreeMap;
use std::sync::Arc;

use guardian_hook::protocol::{Refusal, RunResult};
use jiff::{SignedDuration, Timestamp};
use stateright::{Model, Property};

use super::example::{Example, outcome};
use super::{Container, Decision, Observed, Pod, RunEnd, Step, Terminated, decide, quorum};
use crate::ledger::Ledger;
use crate::policy::Policy;
use happens::{Action, Faults};
use world::{Book, Claim, Condition, End, Guardian, Id, Job, Member, PODS, Phase, Plan, Stage, World, place};

/// More than a runner is waited for, and than any pause between two attempts.
const LONG: u32 = 200;

/// What is modelled: a set under a policy, and what may happen to it.
#[derive(Clone)]
struct Guarding {
    /// The set, without pods.
    set: Observed,
    policy: Policy,
    /// Pods that must stay, whatever the policy lets the guardian believe.
    quorum: usize,
    first: World,
    /// The API server keeps a PodDisruptionBudget that lets one pod go at a time.
    has_budget: bool,
    broken: Option<Broken>,
}

/// One promise that is not kept, so that the checker shows that it would see it.
#[derive(Clone, Copy, PartialEq)]
enum Broken {
    /// Whoever asks a runner starts the hook.
    Claims,
    /// The API server writes a ledger that was read before somebody else wrote it: what is changed in it is changed in what is there.
    Versions,
    /// Nothing is seen of the pods after the start.
    Watches,
}

impl Guarding {
    /// A set whose pods run, with a policy; what its ledger says then is what `controllers` of them begin with.
    fn new(policy: Policy, controllers: usize, faults: Faults) -> Self {
        let set = Observed { pods: BTreeMap::new(), ..Example::at_rest(u32::try_from(PODS).unwrap()).observed };
        let member = Member { generation: 0, restarts: 0, created: 0, started: 0, is: Condition::Runs, evicted: false };
        let book = Book::new(&Ledger::new(&set.set.uid).state);
        let guardian = Guardian { view: [member; PODS], jobs: BTreeMap::new(), phase: Phase::Idle };
        let guardians = vec![guardian; controllers];
        let first = World { now: 0, members: [member; PODS], book, claims: BTreeMap::new(), guardians, left: faults };
        let quorum = quorum(Some(&policy), &set);
        Self { set, policy, quorum, first, has_budget: false, broken: None }
    }

    /// The same, once every pod is answered.
    fn at_rest(mut self) -> Self {
        let decision = self.decide(&self.first, &self.first.guardians[0]);
        let mut ledger = Ledger::new(&self.set.set.uid);
        decision.write(&self.observed(&self.first.guardians[0]), &mut ledger);
        self.first.book = Book::new(&ledger.state);
        assert!(self.is_answered(&self.first), "{:?}", self.first.book);
        self
    }

    fn time(&self, at: u32) -> Timestamp {
        self.set.set.created + SignedDuration::from_secs(at.into())
    }

    fn observed(&self, guardian: &Guardian) -> Observed {
        let mut observed = self.set.clone();
        for (ordinal, member) in (0..).zip(&guardian.view).filter(|(_, member)| member.is != Condition::Gone) {
            observed.pods.insert(ordinal, self.pod(ordinal, member));
        }
        for (id, job) in &guardian.jobs {
            match &job.stage {
                Stage::Ended(end) => drop(observed.ends.insert(id.to_string(), self.end(job, *end))),
                Stage::Queued | Stage::Asked => drop(observed.running.insert(id.to_string())),
            }
        }
        observed
    }

    fn pod(&self, ordinal: u32, member: &Member) -> Pod {
        let (generation, restarts) = (member.generation, member.restarts);
        let last = (restarts > 0).then(|| Terminated { reason: "Error".into(), exit_code: 137, ..Terminated::default() });
        let running_since = (member.is != Condition::Waits).then(|| self.time(member.started));
        let id = format!("o{ordinal}g{generation}r{restarts}");
        let container = Container { id, running_since, restarts: restarts.into(), last, ..Container::default() };
        Pod {
            name: format!("redis-{ordinal}"),
            uid: format!("o{ordinal}g{generation}"),
            version: member.version(),
            created: self.time(member.created),
            revision: "r1".into(),
            ip: Some(format!("10.0.{ordinal}.{generation}")),
            ready: member.serves(),
            deleted: (member.is == Condition::Terminates).then(|| self.time(LONG + member.started)),
            node: None,
            role: None,
            serving: None,
            shed: None,
            toggles: None,
            agent: None,
            resize: None,
            first_container: "redis".into(),
            containers: BTreeMap::from([("redis".into(), container)]),
        }
    }

    fn end(&self, job: &Job, end: End) -> RunEnd {
        outcome(match end {
            End::Succeeded => RunResult::Exited { code: 0 },
            End::Failed => RunResult::Exited { code: 1 },
            End::Interrupted => RunResult::Interrupted,
            End::Refused => RunResult::Refused { why: Refusal::OtherPod { uid: "another".into() } },
            End::Lost(at) => {
                let since = self.time(job.since.unwrap_or(at));
                return RunEnd::Lost { since, at: self.time(at), denied: false, why: "cut".into() };
            }
        })
    }

    fn decide(&self, world: &World, guardian: &Guardian) -> Decision {
        decide(&self.observed(guardian), Some(&self.policy), &world.book.state, self.time(world.now))
    }

    /// Reads and decides. `false`: there is nothing to do.
    fn pass(&self, world: &mut World, n: usize) -> bool {
        let decision = self.decide(world, &world.guardians[n]);
        if decision.steps.is_empty() {
            let World { guardians, book, .. } = world;
            return guardians[n].keep_only(book);
        }
        let book =
            if decision.is_written() { self.written(&decision, &world.book, &world.guardians[n]) } else { world.book.clone() };
        let started = decision.steps.iter().filter_map(Step::starts);
        let runs = started.map(|id| (id.into(), place(&book.state.runs[id].pod_uid))).collect();
        let removed = decision.steps.iter().filter_map(|step| match step {
            Step::Recreate { pod_uid, pod_version, .. } => Some((place(pod_uid), pod_version.clone())),
            _ => None,
        });
        let evictions = removed.collect();
        let is_written = decision.is_written();
        let plan = Arc::new(Plan { decision, book, runs, evictions });
        world.guardians[n].phase = if is_written { Phase::Decided { plan, is_newest: true } } else { Phase::Written(plan) };
        true
    }

    fn written(&self, decision: &Decision, book: &Book, guardian: &Guardian) -> Book {
        let mut ledger = Ledger::new(&self.set.set.uid);
        ledger.state = (*book.state).clone();
        decision.write(&self.observed(guardian), &mut ledger);
        Book::new(&ledger.state)
    }

    /// The compare-and-swap. The controller hears of it unless the answer is lost.
    fn save(&self, world: &mut World, n: usize, is_heard: bool) {
        let Phase::Decided { plan, is_newest } = world.guardians[n].phase.clone() else { return };
        world.guardians[n].phase = Phase::Idle;
        if !is_newest && self.broken != Some(Broken::Versions) {
            return;
        }
        world.book = if is_newest { plan.book.clone() } else { self.written(&plan.decision, &world.book, &world.guardians[n]) };
        for other in &mut world.guardians {
            if let Phase::Decided { is_newest, .. } = &mut other.phase {
                *is_newest = false;
            }
        }
        if is_heard {
            world.guardians[n].phase = Phase::Written(plan);
        }
    }

    /// What the runner does when it is asked for a run, and what the controller hears of it.
    fn exec(&self, world: &mut World, n: usize, id: &Id) -> Option<()> {
        let (now, job) = (world.now, world.guardians[n].jobs.get_mut(id)?);
        job.since.get_or_insert(now);
        let (ordinal, generation) = job.place;
        let member = &world.members[usize::from(ordinal)];
        job.stage = if !member.takes_exec() {
            Stage::Ended(End::Lost(now))
        } else if member.generation != generation {
            Stage::Ended(End::Refused)
        } else {
            let claim = world.claims.entry((Arc::clone(id), job.place)).or_insert(Claim { starts: 0, end: None });
            if claim.starts == 0 || self.broken == Some(Broken::Claims) {
                claim.starts += 1;
            }
            claim.end.map_or(Stage::Asked, Stage::Ended)
        };
        Some(())
    }

    /// Could anything still happen, if nothing more went wrong?
    fn is_over(&self, world: &World) -> bool {
        let mut next = Vec::new();
        self.progress(world, &mut next);
        let is_late = |action: &Action| matches!(action, Action::Pass(_) | Action::Wait);
        next.iter().all(is_late) && next.into_iter().all(|action| self.next_state(world, action).is_none())
    }

    fn is_answered(&self, world: &World) -> bool {
        let state = &world.book.state;
        let is_answered = |(ordinal, member): (u32, &Member)| {
            let start = self.pod(ordinal, member).start("redis");
            member.serves()
                && state.answered.get(&ordinal).zip(start.as_ref()).is_some_and(|(answered, start)| answered.is(start))
        };
        let is_closed = state.episodes.is_empty() && state.runs.is_empty();
        let asks = || world.guardians.iter().any(|guardian| self.decide(world, guardian).asks_person());
        is_closed && ((0..).zip(&world.members).all(is_answered) || asks())
    }

    /// What happens by itself, sooner or later.
    fn progress(&self, world: &World, next: &mut Vec<Action>) {
        for (n, member) in world.members.iter().enumerate() {
            match member.is {
                Condition::Runs => {}
                Condition::Waits => next.push(Action::RunsAgain(n)),
                Condition::Terminates => next.push(Action::Goes(n)),
                Condition::Gone => next.push(Action::IsMade(n)),
            }
        }
        let running = world.claims.iter().filter(|(_, claim)| claim.end.is_none());
        next.extend(running.map(|((id, place), _)| Action::Succeeds(Arc::clone(id), *place)));
        for (n, guardian) in world.guardians.iter().enumerate() {
            if guardian.view != world.members && self.broken != Some(Broken::Watches) {
                next.push(Action::Watch(n));
            }
            match &guardian.phase {
                Phase::Idle => {}
                Phase::Decided { .. } => next.push(Action::Save(n)),
                Phase::Written(_) => next.push(Action::HandOver(n)),
                Phase::Evicts(..) => next.push(Action::Evict(n)),
            }
            let queued = guardian.jobs.iter().filter(|(_, job)| job.stage == Stage::Queued);
            next.extend(queued.map(|(id, _)| Action::Exec(n, Arc::clone(id))));
        }
        let is_quiet = next.is_empty();
        let idle = world.guardians.iter().enumerate().filter(|(_, guardian)| guardian.phase == Phase::Idle);
        next.extend(idle.map(|(n, _)| Action::Pass(n)));
        if is_quiet {
            next.push(Action::Wait);
        }
    }

    fn wait(&self, world: &mut World) -> Option<()> {
        let mut wakes = Vec::new();
        for (n, guardian) in world.guardians.iter().enumerate() {
            let decision = self.decide(world, guardian);
            if self.pass(&mut world.clone(), n) {
                return None;
            }
            wakes.extend(decision.wake.filter(|_| !decision.asks_person()));
        }
        let next = wakes.into_iter().min()?.duration_since(self.time(0));
        world.now = u32::try_from(next.as_secs()).ok()? + u32::from(next.subsec_nanos() > 0);
        Some(())
    }

    fn apply(&self, world: &mut World, action: Action) -> Option<()> {
        match action {
            Action::Watch(n) => world.guardians[n].view = world.members,
            Action::Pass(n) => return self.pass(world, n).then_some(()),
            Action::Save(n) => self.save(world, n, true),
            Action::SavesUnheard(n) => self.save(world, n, false),
            Action::HandOver(n) => world.guardians[n].hand_over(),
            Action::Evict(n) => {
                let Phase::Evicts(plan, done) = world.guardians[n].phase.clone() else { return None };
                let (place, version) = &plan.evictions[done];
                world.evict(*place, version, self.has_budget);
                let is_last = done + 1 == plan.evictions.len();
                world.guardians[n].phase = if is_last { Phase::Idle } else { Phase::Evicts(plan, done + 1) };
            }
            Action::Exec(n, id) => return self.exec(world, n, &id),
            Action::Succeeds(id, place) => world.end(&id, place, End::Succeeded),
            Action::Fails(id, place) => world.end(&id, place, End::Failed),
            Action::RunsAgain(n) => world.starts(n, |member| Member { restarts: member.restarts + 1, ..member }),
            Action::IsMade(n) => world.starts(n, |member| Member { restarts: 0, generation: member.generation + 1, ..member }),
            Action::Goes(n) => world.stops(n, Condition::Gone),
            Action::Stops(n) => world.stops(n, Condition::Waits),
            Action::IsDeleted(n) => world.members[n].is = Condition::Terminates,
            Action::Wait => return self.wait(world),
            Action::Delay => world.now += LONG,
            Action::Dies(n) => {
                let view = if self.broken == Some(Broken::Watches) { world.guardians[n].view } else { world.members };
                world.guardians[n] = Guardian { view, jobs: BTreeMap::new(), phase: Phase::Idle };
            }
            Action::IsCut(n, id) => world.guardians[n].jobs.get_mut(&id)?.stage = Stage::Ended(End::Lost(world.now)),
        }
        Some(())
    }
}

impl Model for Guarding {
    type State = World;
    type Action = Action;

    fn init_states(&self) -> Vec<World> {
        vec![self.first.clone()]
    }

    fn actions(&self, world: &World, next: &mut Vec<Action>) {
        self.progress(world, next);
        world.faults(next);
    }

    fn next_state(&self, world: &World, action: Action) -> Option<World> {
        let mut world = world.clone();
        world.left.take(&action);
        self.apply(&mut world, action)?;
        world.guardians.sort();
        Some(world)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always(ONCE, |_, world: &World| world.starts_nothing_twice()),
            Property::always(ALONE, |_, world: &World| world.book.is_without_clash()),
            Property::always(QUORUM, |model: &Self, world: &World| {
                let away = world.members.iter().filter(|member| member.evicted && !member.serves());
                away.count() <= PODS - model.quorum
            }),
            Property::always(ANSWERED, |model: &Self, world: &World| !model.is_over(world) || model.is_answered(world)),
            // Of the model itself.
            Property::sometimes(OVER, |model: &Self, world: &World| world.left.all == 0 && model.is_over(world)),
        ]
    }
}

const ONCE: &str = "no attempt is started twice";
const ALONE: &str = "no two open episodes hold one pod";
const QUORUM: &str = "no more pods are away for the guardian than the quorum allows";
const OVER: &str = "all that may go wrong has, and it is over";
const ANSWERED: &str = "in the end every start is answered, and nothing is open";
