//! What a set needs next: observed state and ledger in, decision out. Pure: the time is an argument, and nothing is remembered here.

mod attempt;
mod bootstrap;
mod budget;
pub mod command;
mod decide;
mod fence;
mod gauge;
mod hand_over;
mod levels;
mod life;
mod members;
mod observed;
mod readiness;
mod recreate;
mod resize;
mod resources;
mod roles;
mod room;
mod rules;
mod start;
mod step;
mod target;
mod traffic;

#[cfg(test)]
mod example;
#[cfg(test)]
mod model;
#[cfg(test)]
mod property;

pub use attempt::{in_words, refusal};
pub use budget::{Budget, BudgetChange, budget_name};
pub use decide::{Decision, Held, Levels, Relabel, decide};
pub use gauge::{Gauge, Measured};
pub use members::members;
pub use observed::{Container, Departed, HandOver, Node, Observed, Pod, RunEnd, Set, Terminated, Volume};
pub use readiness::Toggles;
pub(crate) use resize::obstacles;
pub use resources::{Amounts, ContainerSpec, Requirements, Resizing, Resources};
pub use roles::primary;
pub(crate) use room::quorum;
pub use rules::rule_key;
pub use step::{RuleChange, Settles, Step};
pub use traffic::{Reselect, Serve, Service, ShedRequest};
