//! What a pass writes into the ledger, and thereby begins or ends.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use crate::ledger::{Episode, Failures, Fired, GivenUp, Ledger, Record, Resize, Run, Shed, Start, State, Verdict};

/// How long a pod that could not be fenced is remembered: far longer than the pause before the next attempt, and not for ever.
const REMEMBERED: SignedDuration = SignedDuration::from_hours(1);

/// One change of the ledger, and what is to be carried out once it is written.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// Notes that a start needs nothing.
    Answer {
        /// Ordinal of the pod.
        ordinal: u32,
        /// The start.
        start: Start,
        /// What to tell, if anything.
        record: Option<Record>,
    },
    /// Claims one attempt, and opens its episode where it is not open. Then the run is carried out.
    Run {
        /// Id of the episode.
        episode_id: String,
        /// The episode as it is after this.
        episode: Box<Episode>,
        /// Id of the run.
        run_id: String,
        /// The attempt.
        run: Run,
    },
    /// Opens an episode that is at an act, not a hook.
    Open {
        /// Id of the episode.
        episode_id: String,
        /// The episode.
        episode: Box<Episode>,
    },
    /// Nothing in the ledger: asks for the outcome of a claimed run, under its id.
    Attach {
        /// Id of the run.
        run_id: String,
    },
    /// Ends an attempt; the next is made at `next` or later.
    Retry {
        /// Id of the run.
        run_id: String,
        /// Not before this.
        next: Timestamp,
        /// What to tell.
        record: Record,
    },
    /// Ends the hook of an episode, which goes on with another.
    Proceed {
        /// Id of the episode.
        episode_id: String,
        /// The hook, or the act, that follows.
        hook: String,
        /// What to tell of the one that ended.
        record: Record,
    },
    /// Evicts a pod, as its episode says. Asked for again at `again`, while the pod is there.
    Recreate {
        /// Id of the episode.
        episode_id: String,
        /// Name of the pod.
        pod: String,
        /// `metadata.uid` of the pod: another one of that name stays.
        pod_uid: String,
        /// `metadata.resourceVersion` of the pod: one that has changed meanwhile, so that it may have come back by itself, stays too.
        pod_version: String,
        /// Not before this is it asked for again.
        again: Timestamp,
    },
    /// Deletes a pod that is proven not to write any more, without waiting for its kubelet. Asked for again at `again`, while it is there.
    Release {
        /// Id of the episode.
        episode_id: String,
        /// Name of the pod.
        pod: String,
        /// `metadata.uid` of the pod: another one of that name stays.
        pod_uid: String,
        /// Not before this is it asked for again.
        again: Timestamp,
    },
    /// Asks for other limits of a container, as its episode says. Asked for again at `again`, while nothing came of it.
    Resize {
        /// Id of the episode.
        episode_id: String,
        /// Name of the pod.
        pod: String,
        /// `metadata.uid` of the pod: another one of that name stays as it is.
        pod_uid: String,
        /// What is asked for.
        resize: Box<Resize>,
        /// Not before this is it asked for again.
        again: Timestamp,
    },
    /// Ends an episode and its attempt.
    Close {
        /// Id of the episode.
        episode_id: String,
        /// What to tell.
        record: Record,
        /// What is settled by it.
        settles: Settles,
    },
    /// Services send nothing new to a pod, for a time: its label follows from that.
    Shed {
        /// `metadata.uid` of the pod.
        pod_uid: String,
        /// Until when, and why.
        shed: Box<Shed>,
        /// What to tell.
        record: Record,
    },
    /// They may send to it again.
    Restore {
        /// `metadata.uid` of the pod.
        pod_uid: String,
        /// What to tell; nothing of a pod that is gone.
        record: Option<Record>,
    },
    /// A rule has set in for a pod, or goes on.
    Rule {
        /// Under which it stands in the ledger.
        key: String,
        /// How.
        change: RuleChange,
        /// What to tell.
        record: Option<Record>,
    },
    /// What rules count has changed for the pods of an ordinal.
    Count {
        /// Ordinal of the pod.
        ordinal: u32,
        /// All of it, as it is after this.
        failures: Box<Failures>,
    },
    /// The set is another one of the same name, and none of the data of the older one is left: what was known of it is forgotten.
    NewLife,
}

/// What becomes of a rule that has set in.
#[derive(Clone, Debug, PartialEq)]
pub enum RuleChange {
    /// It sets in.
    SetsIn {
        /// How it stands.
        fired: Box<Fired>,
        /// For how long that counts for its budget, where it has one.
        every: Option<Duration>,
        /// The ordinal of the pod whose failures it is about, which count for nothing else from now on.
        failures_of: Option<u32>,
    },
    /// Its next action, or the next task that undoes it, has had its turn.
    Acted {
        /// When.
        at: Timestamp,
        /// The pod that is shed by it.
        shed: Option<(String, Box<Shed>)>,
        /// A task or a hook was run.
        ran: bool,
    },
    /// What it was for is over: it is undone from now on.
    Over {
        /// When.
        at: Timestamp,
    },
    /// It is undone.
    Forgotten,
}

/// What the end of an episode settles.
#[derive(Clone, Debug, PartialEq)]
pub enum Settles {
    /// Nothing.
    Nothing,
    /// The start that it was about, however it went.
    Start,
    /// The same; and the pod was made anew.
    Recreated,
    /// There is a cluster, and the pod in which it was made is in it.
    Bootstrap,
    /// This hand-over, however it went.
    HandOver {
        /// `metadata.uid` of the pod.
        pod_uid: String,
        /// When it began.
        began: Timestamp,
    },
    /// It is not proven that this pod cannot write.
    Unfenced {
        /// `metadata.uid` of the pod.
        pod_uid: String,
        /// When that was tried last.
        at: Timestamp,
    },
    /// The connections of a shed pod are ended, however it went.
    Drained {
        /// `metadata.uid` of the pod.
        pod_uid: String,
    },
    /// The next action of this rule, or the next task that undoes it, however it went.
    Rule {
        /// Under which it stands in the ledger.
        key: String,
        /// When.
        at: Timestamp,
        /// A task or a hook was run, or the pod made anew.
        ran: bool,
    },
    /// It is not tried again before something changes.
    GivesUp(GivenUp),
}

impl Step {
    /// It only writes down what has happened: it is made even when nothing may be begun.
    #[must_use]
    pub fn is_bookkeeping(&self) -> bool {
        matches!(self, Self::Retry { .. } | Self::Proceed { .. } | Self::Close { .. })
    }

    /// Does it change the ledger?
    #[must_use]
    pub fn is_written(&self) -> bool {
        !matches!(self, Self::Attach { .. })
    }

    /// Does it take a pod out of its Services?
    pub(super) fn sheds(&self) -> bool {
        matches!(self, Self::Shed { .. } | Self::Rule { change: RuleChange::Acted { shed: Some(_), .. }, .. })
    }

    /// What it has to tell.
    #[must_use]
    pub fn record(&self) -> Option<&Record> {
        match self {
            Self::Answer { record, .. } | Self::Restore { record, .. } | Self::Rule { record, .. } => record.as_ref(),
            Self::Retry { record, .. }
            | Self::Proceed { record, .. }
            | Self::Close { record, .. }
            | Self::Shed { record, .. } => Some(record),
            Self::Run { .. }
            | Self::Open { .. }
            | Self::Attach { .. }
            | Self::Recreate { .. }
            | Self::Release { .. }
            | Self::Resize { .. }
            | Self::Count { .. }
            | Self::NewLife => None,
        }
    }

    /// The run that is to be carried out once the step is written.
    #[must_use]
    pub fn starts(&self) -> Option<&str> {
        match self {
            Self::Run { run_id, .. } | Self::Attach { run_id } => Some(run_id),
            _ => None,
        }
    }

    /// Writes it down.
    pub fn apply(&self, ledger: &mut Ledger) {
        let state = &mut ledger.state;
        match self {
            Self::Answer { ordinal, start, .. } => state.answer(*ordinal, start.clone()),
            Self::Run { episode_id, episode, run_id, run } => {
                state.episodes.insert(episode_id.clone(), (**episode).clone());
                state.runs.insert(run_id.clone(), run.clone());
            }
            Self::Open { episode_id, episode } => drop(state.episodes.insert(episode_id.clone(), (**episode).clone())),
            Self::Count { ordinal, failures } => drop(state.failures.insert(*ordinal, (**failures).clone())),
            Self::Attach { .. } => {}
            Self::Retry { run_id, next, .. } => {
                if let Some(run) = state.runs.remove(run_id)
                    && let Some(episode) = state.episodes.get_mut(&run.episode)
                {
                    episode.next = Some(*next);
                }
            }
            Self::Proceed { episode_id, hook, .. } => {
                state.runs.retain(|_, run| run.episode != *episode_id);
                if let Some(episode) = state.episodes.get_mut(episode_id) {
                    hook.clone_into(&mut episode.hook);
                    (episode.then, episode.attempts, episode.next) = (None, 0, None);
                }
            }
            Self::Recreate { episode_id, again, .. }
            | Self::Release { episode_id, again, .. }
            | Self::Resize { episode_id, again, .. } => {
                if let Some(episode) = state.episodes.get_mut(episode_id) {
                    episode.next = Some(*again);
                }
            }
            Self::Close { episode_id, record, settles } => {
                state.runs.retain(|_, run| run.episode != *episode_id);
                if let Some(episode) = state.episodes.remove(episode_id) {
                    settles.apply(state, episode, record.verdict);
                }
            }
            Self::Shed { pod_uid, shed, .. } => drop(state.sheds.insert(pod_uid.clone(), (**shed).clone())),
            Self::Restore { pod_uid, .. } => drop(state.sheds.remove(pod_uid)),
            Self::Rule { key, change, .. } => change.apply(state, key),
            Self::NewLife => state.begin_anew(),
        }
        if let Some(record) = self.record() {
            ledger.record(record);
        }
    }
}

impl RuleChange {
    fn apply(&self, state: &mut State, key: &str) {
        match self {
            Self::SetsIn { fired, every, failures_of } => {
                if let Some(failures) = failures_of.and_then(|ordinal| state.failures.get_mut(&ordinal)) {
                    failures.spent.insert(fired.rule.clone(), fired.since);
                }
                if let Some(every) = every {
                    let used = state.budgets.entry(fired.rule.clone()).or_default();
                    used.retain(|at| fired.since.duration_since(*at).unsigned_abs() < *every);
                    used.push(fired.since);
                }
                state.rules.insert(key.to_owned(), (**fired).clone());
            }
            Self::Acted { at, shed, ran } => {
                if let Some(fired) = state.rules.get_mut(key) {
                    let counter = if fired.over.is_some() { &mut fired.undone } else { &mut fired.actions };
                    *counter += 1;
                    fired.ran |= *ran;
                    fired.acted = Some(*at);
                }
                if let Some((pod_uid, shed)) = shed {
                    state.sheds.insert(pod_uid.clone(), (**shed).clone());
                }
            }
            Self::Over { at } => {
                if let Some(fired) = state.rules.get_mut(key) {
                    fired.over = Some(*at);
                }
            }
            Self::Forgotten => drop(state.rules.remove(key)),
        }
    }
}

impl Settles {
    fn apply(&self, state: &mut State, episode: Episode, verdict: Verdict) {
        if let Self::GivesUp(why) = self {
            state.given_up.insert(episode.scenario, why.clone());
            return;
        }
        if let Self::HandOver { pod_uid, began } = self {
            state.hand_over(pod_uid, *began);
            return;
        }
        if let Self::Unfenced { pod_uid, at } = self {
            state.unfenced.retain(|_, other| at.duration_since(*other) < REMEMBERED);
            state.unfenced.insert(pod_uid.clone(), *at);
            return;
        }
        if let Self::Rule { key, at, ran } = self {
            RuleChange::Acted { at: *at, shed: None, ran: *ran }.apply(state, key);
            return;
        }
        if let Self::Drained { pod_uid } = self {
            state.sheds.entry(pod_uid.clone()).and_modify(|shed| shed.drained = true);
            return;
        }
        let (Some(ordinal), Some(start)) = (episode.ordinal, episode.start) else { return };
        match self {
            Self::Nothing
            | Self::HandOver { .. }
            | Self::Unfenced { .. }
            | Self::Drained { .. }
            | Self::Rule { .. }
            | Self::GivesUp(_) => return,
            Self::Bootstrap => drop(state.given_up.remove(&episode.scenario)),
            Self::Recreated => *state.recreated.entry(ordinal).or_default() += 1,
            Self::Start if verdict == Verdict::Succeeded => drop(state.recreated.remove(&ordinal)),
            Self::Start => {}
        }
        state.answer(ordinal, start);
    }
}
