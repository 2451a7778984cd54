//! The pure core of stateful-guardian: what a policy means, how a StatefulSet is rewritten, and what a guarded set needs next.
//!
//! Nothing here opens a socket, reads a clock or starts a task: the time and every fact about the cluster are arguments. So all of it
//! is tested by tables, by golden files and by properties, and `guardian inject` gives the bytes that the webhook would.

pub mod admission;
pub mod cause;
pub mod ledger;
pub mod lifecycle;
pub mod lint;
pub mod metric;
pub mod names;
pub mod policy;
pub mod probe;
pub mod quantity;
pub mod reason;
pub mod rehearse;
pub mod role;
pub mod sim;
pub mod standing;
pub mod stop;
