//! stateful-guardian: operator-grade life cycle for a StatefulSet you did not write.
//!
//! | module | what |
//! |---|---|
//! | [`cli`] | the subcommands, one file each |
//! | [`server`] | the HTTPS server of the webhook, and the probes |
//! | [`webhook`] | the webhook: bytes to bytes |
//! | [`store`] | what the webhook knows of the cluster |
//! | `policies` | which policies are in force, for webhook and controller |
//! | [`audit`] | one line a decision |
//! | [`controller`] | watches guarded pods, runs hooks, records |
//! | `dashboard` | the web page that a person serves to himself |
//! | `known` | what is known of a set, for `guardian status` and the dashboard |
//!
//! Every decision is made in `guardian_core`, which is pure; this crate brings it the facts and carries it out.

pub mod audit;
pub mod cli;
pub mod controller;
mod dashboard;
mod hand_over;
mod known;
mod policies;
pub mod server;
pub mod store;
pub mod webhook;
