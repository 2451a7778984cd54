//! What the guardian does in a real cluster. Each test has a namespace of its own; all of them may run at the same time.

#![expect(clippy::indexing_slicing, reason = "a `Value` has null where there is nothing")]

mod admission;
mod agents;
mod approval;
mod cli;
mod clients;
mod evictions;
mod guards;
mod lives;
mod members;
mod metrics;
mod namespaces;
mod offline;
mod policies;
mod prometheus;
mod readiness;
mod rejoin;
mod rules;
mod run;
mod stops;
mod templates;
mod traffic;
mod tutorial;
mod words;
