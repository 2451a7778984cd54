//! The harness of the tests that need a cluster.
//!
//! Any cluster will do: `KUBECONFIG` names it, `kubectl` is on the `PATH`, the guardian is installed there, and nodes know or can pull
//! `redis:5-alpine` and `busybox:1.35`. `make e2e` sees to all of that on a cluster of ours.
//!
//! A test is a body in a [`namespace`] of its own, so tests run side by side. Its steps are what a user would do: `kubectl apply`,
//! `kubectl delete pod`, a server that is killed. It then waits for what must come, by watches, and tells from what the guardian keeps
//! that nothing else came. A test that fails prints what happened in its namespace, and what the guardian has to say about it.

#![expect(
    clippy::indexing_slicing,
    reason = "a `Value` has null where there is nothing, and a panic fails a test, which is what it is for"
)]

mod failure;
mod fixtures;
mod kill;
mod kubectl;
pub mod ledger;
pub mod namespace;
mod observe;
mod prometheus;
mod report;
mod sets;
mod wait;

pub use failure::{Failure, Outcome};
pub use fixtures::{application, example, manifest, policy};
pub use kill::Signal;
pub use kubectl::{Done, Kubectl, guardian, guardian_started};
pub use namespace::Namespace;
pub use observe::{container_id, is_ready, node, restarts, uid};
pub use prometheus::{Prometheus, monitoring};
pub use sets::{is_guarded, record};
pub use wait::{eventually, until, until_any, until_gone};

use std::env;
use std::time::Duration;

/// A test may take this long, with all that it waits for.
pub const TEST: Duration = Duration::from_secs(120);
/// One wait for something that a cluster does: an image is there already, a pod starts within seconds, a second crash of a container
/// costs 10 s of the kubelet's back-off. A busy machine takes several times that.
pub const WAIT: Duration = Duration::from_secs(60);

/// Namespace that the guardian is installed in.
#[must_use]
pub fn installation() -> String {
    env::var("GUARDIAN_INSTALLATION").unwrap_or_else(|_| "stateful-guardian".to_owned())
}
