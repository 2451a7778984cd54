//! What a set needs next: observed state and ledger in, decision out. Pure: the time is an argument, and nothing is remembered here.

mod decide;
mod observed;
mod rejoin;
mod room;
mod step;

#[cfg(test)]
mod example;
#[cfg(test)]
mod property;

pub use decide::{Decision, Held, Levels, decide};
pub use observed::{Container, Departed, Observed, Pod, RunEnd, Set, Terminated};
pub use step::Step;
