//! What the controller does to pods, one file a kind.

mod run_hook;

pub(super) use run_hook::order;
