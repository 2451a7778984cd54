//! What a pass writes into the ledger, and thereby begins or ends.

use jiff::Timestamp;

use crate::ledger::{Episode, Ledger, Record, Run, Start};

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
    /// Ends an episode and its attempt. The start counts as answered, however it went.
    Close {
        /// Id of the episode.
        episode_id: String,
        /// What to tell.
        record: Record,
    },
}

impl Step {
    /// It only writes down what has happened: it is made even when nothing may be begun.
    #[must_use]
    pub fn is_bookkeeping(&self) -> bool {
        matches!(self, Self::Retry { .. } | Self::Close { .. })
    }

    /// Does it change the ledger?
    #[must_use]
    pub fn is_written(&self) -> bool {
        !matches!(self, Self::Attach { .. })
    }

    /// What it has to tell.
    #[must_use]
    pub fn record(&self) -> Option<&Record> {
        match self {
            Self::Answer { record, .. } => record.as_ref(),
            Self::Retry { record, .. } | Self::Close { record, .. } => Some(record),
            Self::Run { .. } | Self::Attach { .. } => None,
        }
    }

    /// The run that is to be carried out once the step is written.
    #[must_use]
    pub fn starts(&self) -> Option<&str> {
        match self {
            Self::Run { run_id, .. } | Self::Attach { run_id } => Some(run_id),
            Self::Answer { .. } | Self::Retry { .. } | Self::Close { .. } => None,
        }
    }

    /// Writes it down.
    pub fn apply(&self, ledger: &mut Ledger) {
        let state = &mut ledger.state;
        match self {
            Self::Answer { ordinal, start, .. } => {
                state.answered.insert(*ordinal, start.clone());
            }
            Self::Run { episode_id, episode, run_id, run } => {
                state.episodes.insert(episode_id.clone(), (**episode).clone());
                state.runs.insert(run_id.clone(), run.clone());
            }
            Self::Attach { .. } => {}
            Self::Retry { run_id, next, .. } => {
                if let Some(run) = state.runs.remove(run_id)
                    && let Some(episode) = state.episodes.get_mut(&run.episode)
                {
                    episode.next = Some(*next);
                }
            }
            Self::Close { episode_id, .. } => {
                state.runs.retain(|_, run| run.episode != *episode_id);
                if let Some(Episode { ordinal: Some(ordinal), start: Some(start), .. }) = state.episodes.remove(episode_id) {
                    state.answered.insert(ordinal, start);
                }
            }
        }
        if let Some(record) = self.record() {
            ledger.record(record);
        }
    }
}
