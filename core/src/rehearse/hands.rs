//! What the guardian decides is carried out on the simulated cluster, in the order in which the controller does it: written down, handed to
//! runners, pods evicted, and what it keeps kept.

use guardian_hook::protocol::Outcome;
use jiff::{SignedDuration, Timestamp};

use super::figures::MAX_PASSES;
use super::line::{Line, What, seconds};
use super::world::{Event, World};
use crate::ledger::{self, Resize, Run};
use crate::lifecycle::{Budget, BudgetChange, Decision, Levels, RunEnd, Step, budget_name, decide};
use crate::{quantity, reason};

/// Pause before an exec into a pod that cannot be reached counts as lost.
const UNREACHED: SignedDuration = SignedDuration::from_secs(10);

impl World<'_> {
    /// Passes over the set, as long as one begins or keeps something.
    pub(super) fn settle(&mut self) -> Decision {
        loop {
            self.passes += 1;
            self.measure();
            let decision = decide(&self.observed, Some(self.policy), &self.ledger.state, self.now);
            decision.write(&self.observed, &mut self.ledger);
            decision.steps.iter().for_each(|step| self.tell_step(step));
            self.keep_open_runs();
            decision.steps.iter().for_each(|step| self.carry_out(step));
            let kept = self.keep(&decision.levels);
            if decision.steps.is_empty() && !kept || self.passes >= MAX_PASSES {
                self.tell_holds(&decision.holds);
                return decision;
            }
            self.changed = self.now;
        }
    }

    fn tell_step(&mut self, step: &Step) {
        if let Step::Run { episode, run, .. } = step {
            let attempts = self.policy.run_by_controller(&run.hook).map_or(run.attempt, |hook| hook.retries + 1);
            let about = if episode.pod == run.pod { String::new() } else { format!(", about {}", episode.pod) };
            let (hook, reason) = (&run.hook, &episode.reason);
            let timeout = SignedDuration::from_millis(i64::try_from(run.timeout_ms).unwrap_or(i64::MAX));
            let message =
                format!("{hook} starts: {reason}{about}, attempt {} of {attempts}, time out {}", run.attempt, seconds(timeout));
            let attempt = Some(run.attempt);
            let line = Line::plain(What::Run, Some(&run.pod), message);
            return self.line(Line { hook: Some(hook.clone()), reason: Some(reason.clone()), attempt, ..line });
        }
        if let Step::Open { episode, .. } = step {
            let (hook, reason) = (&episode.hook, &episode.reason);
            let line = Line::plain(What::Run, Some(&episode.pod), format!("{hook} begins: {reason}, {}", episode.why));
            return self.line(Line { hook: Some(hook.clone()), reason: Some(reason.clone()), ..line });
        }
        let Some(record) = step.record() else { return };
        match record.verdict {
            ledger::Verdict::Failed => drop(self.telling.failed.insert(record.pod.clone(), record.clone())),
            ledger::Verdict::Succeeded => drop(self.telling.failed.remove(&record.pod)),
            _ => {}
        }
        let mut line = Line::of_record(record);
        if let Step::Retry { next, .. } = step {
            line.message.push_str(&format!("; the next in {}", seconds(next.duration_since(self.now))));
        }
        self.line(line);
    }

    /// What the ledger has no more is forgotten.
    fn keep_open_runs(&mut self) {
        let open = &self.ledger.state.runs;
        self.observed.running.retain(|id| open.contains_key(id));
        self.observed.ends.retain(|id, _| open.contains_key(id));
    }

    fn carry_out(&mut self, step: &Step) {
        match step {
            Step::Run { run_id, run, .. } => self.start(run_id, run),
            Step::Attach { run_id } => self.attach(run_id),
            Step::Release { pod_uid, .. } => {
                let released = self.observed.pods.iter().find(|(_, pod)| pod.uid == *pod_uid).map(|(ordinal, _)| *ordinal);
                if let Some(id) = released.and_then(|ordinal| self.id(ordinal)) {
                    self.removed(&id, "the pod is deleted without waiting for its node".to_owned());
                }
            }
            Step::Resize { pod_uid, resize, .. } => self.resize(pod_uid, resize),
            Step::Recreate { pod, pod_uid, .. } => {
                let Some(id) = self.observed.pods.iter().find(|(_, pod)| pod.uid == *pod_uid).map(|(ordinal, _)| *ordinal) else {
                    return;
                };
                match self.evict(id) {
                    Ok(_) => {
                        self.tell(What::Cluster, Some(pod), "its eviction is granted".to_owned());
                        self.goes(id, Some("EvictionByEvictionAPI"));
                    }
                    Err(denied) => {
                        let why = format!("pod {pod} is not evicted: {}", denied.message);
                        self.tell_hold(What::Hold, reason::Hold::Budget, &why);
                    }
                }
            }
            _ => {}
        }
    }

    /// The kubelet of a pod has room for whatever is asked for.
    fn resize(&mut self, pod_uid: &str, asked: &Resize) {
        let Some(pod) = self.observed.pods.values_mut().find(|pod| pod.uid == pod_uid) else { return };
        let name = pod.name.clone();
        let Some(container) = pod.containers.get_mut(&asked.container) else { return };
        let resources = &mut container.resources;
        let mut told = Vec::new();
        for (of, limit) in &asked.limits {
            *resources.limits.get_mut(*of) = Some(*limit);
            *resources.given.get_mut(*of) = Some(*limit);
            told.push(format!("{} of {}", quantity::text(*limit, *of), of.as_str()));
        }
        for (of, request) in &asked.requests {
            *resources.requests.get_mut(*of) = Some(*request);
        }
        self.tell(What::Cluster, Some(&name), format!("container {} may use {} now", asked.container, told.join(" and ")));
    }

    /// A runner gets the run.
    fn start(&mut self, run_id: &str, run: &Run) {
        self.observed.running.insert(run_id.to_owned());
        let timeout = std::time::Duration::from_millis(run.timeout_ms);
        let (pause, end) = if self.reaches(run) {
            let outcome = self.script.play(&run.hook, timeout);
            (took(&outcome), RunEnd::Outcome(Box::new(outcome)))
        } else {
            (UNREACHED, self.unreached(self.now))
        };
        self.after(pause, Event::RunEnded { run_id: run_id.to_owned(), end: Box::new(end) });
    }

    /// A runner is asked again for a run whose connection is lost. Its process ended with its container.
    fn attach(&mut self, run_id: &str) {
        let since = match self.observed.ends.remove(run_id) {
            Some(RunEnd::Lost { since, .. }) => since,
            _ => self.now,
        };
        self.observed.running.insert(run_id.to_owned());
        let reached = self.ledger.state.runs.get(run_id).is_some_and(|run| self.reaches(run));
        let (pause, end) = if reached { (SignedDuration::ZERO, Self::interrupted()) } else { (UNREACHED, self.unreached(since)) };
        self.after(pause, Event::RunEnded { run_id: run_id.to_owned(), end: Box::new(end) });
    }

    fn reaches(&self, run: &Run) -> bool {
        let mut pods = self.observed.pods.values();
        pods.any(|pod| pod.uid == run.pod_uid && pod.takes_hooks(&run.container)) && !self.lost.contains(&run.pod_uid)
    }

    fn unreached(&self, since: Timestamp) -> RunEnd {
        let at = self.now.saturating_add(UNREACHED).unwrap_or(Timestamp::MAX);
        RunEnd::Lost { since, at, denied: false, why: "the pod cannot be reached".to_owned() }
    }

    /// Keeps what is kept; says whether anything was not as it should be.
    fn keep(&mut self, levels: &Levels) -> bool {
        for mark in &levels.marks {
            let Some((ordinal, volume)) = self.observed.volumes.iter_mut().find(|(_, volume)| volume.uid == mark.uid) else {
                continue;
            };
            volume.is_member = true;
            let name = format!("{}-{ordinal}", self.observed.set.name);
            self.tell(What::Level, Some(&name), format!("claim {} is marked: it holds the data of a member", mark.claim));
        }
        for change in &levels.roles {
            if let Some(pod) = self.observed.pods.values_mut().find(|pod| pod.uid == change.pod_uid) {
                pod.role.clone_from(&change.role);
            }
            let told =
                change.role.as_ref().map_or("loses the label of its role".to_owned(), |role| format!("is labelled {role}"));
            self.tell(What::Level, Some(&change.pod), told);
        }
        levels.budget.iter().for_each(|change| self.keep_budget(change));
        for change in &levels.serving {
            if let Some(pod) = self.observed.pods.values_mut().find(|pod| pod.uid == change.pod_uid) {
                pod.serving = Some(change.serving);
            }
            let told = if change.serving { "Services send to it again" } else { "Services send nothing new to it" };
            self.tell(What::Level, Some(&change.pod), told.to_owned());
        }
        for change in &levels.selectors {
            if let Some(service) = self.observed.services.iter_mut().find(|service| service.uid == change.service.uid) {
                service.asks = change.asks;
            }
            let to = if change.asks { "only to pods that serve" } else { "to all pods of the set that are ready" };
            self.tell(What::Level, None, format!("Service {} sends {to}", change.service.name));
        }
        for over in &levels.hand_overs {
            self.observed.hand_overs.retain(|other| other.uid != over.uid);
            self.tell(What::Level, Some(&over.pod), "its hand-over is over: its eviction need not wait".to_owned());
        }
        *levels != Levels::default()
    }

    fn keep_budget(&mut self, change: &BudgetChange) {
        let name = budget_name(&self.observed.set.name);
        self.observed.budgets.retain(|budget| !budget.is_ours);
        let told = match change {
            BudgetChange::Remove(_) => format!("PodDisruptionBudget {name} is deleted"),
            BudgetChange::Make { max_unavailable } | BudgetChange::Set { max_unavailable, .. } => {
                let (uid, version) = (name.clone(), "1".to_owned());
                let budget = Budget { name: name.clone(), uid, version, is_ours: true, max_unavailable: Some(*max_unavailable) };
                self.observed.budgets.push(budget);
                format!("PodDisruptionBudget {name} lets {max_unavailable} of the pods go at a time")
            }
        };
        self.tell(What::Level, None, told);
    }

    /// Is anything under way that ends by itself, or is undone?
    pub(super) fn is_open(&self) -> bool {
        let state = &self.ledger.state;
        !state.episodes.is_empty() || !state.runs.is_empty() || !state.rules.is_empty() || !state.sheds.is_empty()
    }
}

fn took(outcome: &Outcome) -> SignedDuration {
    SignedDuration::from_millis(i64::try_from(outcome.duration_ms).unwrap_or(i64::MAX))
}
