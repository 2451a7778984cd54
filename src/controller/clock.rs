//! The one clock. Everything that asks for the time is given it.

use jiff::{SignedDuration, Timestamp};
use tokio::time::Instant;

/// What time is it?
#[derive(Clone, Debug)]
pub struct Clock(Source);

#[derive(Clone, Debug)]
enum Source {
    System,
    Simulated { epoch: Timestamp, began: Instant },
}

impl Clock {
    /// The machine's time of day.
    #[must_use]
    pub const fn system() -> Self {
        Self(Source::System)
    }

    /// It is `epoch` now, and goes with tokio's time, which tests can stop and move.
    #[must_use]
    pub fn simulated(epoch: Timestamp) -> Self {
        Self(Source::Simulated { epoch, began: Instant::now() })
    }

    /// The time of day.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        match &self.0 {
            #[expect(clippy::disallowed_methods, reason = "this is the one clock")]
            Source::System => Timestamp::now(),
            Source::Simulated { epoch, began } => {
                let passed = SignedDuration::try_from(began.elapsed()).unwrap_or(SignedDuration::MAX);
                epoch.saturating_add(passed).unwrap_or(Timestamp::MAX)
            }
        }
    }
}
