//! A cluster in memory, and the stage on which the controller's stories are played.
//!
//! [`Api`] is an API server behind `kube::Client`, without a socket, so that tokio's paused time is sound: minutes pass in milliseconds.
//! [`Runner`] is the runner in every pod. [`Stage`] puts both together with a controller that can be killed at any call.
#![expect(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "only tests use this: a test ends where it fails, and a JSON value indexed by a key it does not have is null"
)]

mod agents;
mod api;
mod crowd;
mod exec;
mod fault;
mod log;
mod nodes;
mod owner;
mod resizes;
mod rights;
mod runner;
mod serve;
mod stage;
mod sweep;
mod traffic;
mod workload;

pub use api::{Api, Call};
pub use exec::{Curtain, Scene};
pub use fault::Fault;
pub use runner::{Answer, Round, Runner};
pub use serve::Served;
pub use stage::{POLICY, Stage};
pub use sweep::{SILENCE, Wrong, each_call, sweep};
pub use workload::approval;
