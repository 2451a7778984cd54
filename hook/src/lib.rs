//! The runner that the guardian puts into pods, and the protocol that it is spoken to in.
//!
//! The runner is one static file. The init container `guardian-init` copies it into the emptyDir at `/guardian` of its pod; from there it runs the
//! pod's own hooks (`init`, `stop`) with no controller in existence, and the hooks that a controller asks for (`run`) through the API server's
//! exec. It talks to no network, but for `agent`, which answers whoever reads, and needs nothing from the image that it runs in: no shell, no C library.
//!
//! [`protocol`] is what the controller and the webhook compile against, and [`metric`] what they share of metrics. [`runner`] is the rest, on Linux.
//!
//! # How it is built
//!
//! Everything is written on `core`, `alloc`, system calls, and a few functions of the C library, because a static binary with Rust's standard
//! library and glibc is 1.2 MB, over the 1 MiB that a runner may have. For tests and lints the binary is an ordinary one; the released one is
//!
//! ```text
//! RUSTFLAGS="-C target-feature=+crt-static -C relocation-model=static" \
//!     cargo build -p guardian-hook --profile hook --features freestanding --target x86_64-unknown-linux-gnu
//! ```
//!
//! `-p` matters: in a build of the whole workspace other crates turn on the `std` features of `serde` and `rustix`, and `freestanding` cannot link.
//!
//! # Files
//!
//! | in `/guardian` | written by | holds |
//! |---|---|---|
//! | `guardian-hook` | `install` | the runner |
//! | `pod.json`, `hooks.json`, `scripts/` | `install` | who the pod is, its own hooks and their scripts |
//! | `agent.json` | the controller, by `put` | what `agent` asks |
//! | `stop.json` | `reason` | why the pod is being stopped; read once by `stop` |
//! | `members.json` | `put` | the members of the set, as the controller knows them |
//! | `run/ID.claim` | `run` | one start of one hook, and in which life of its container; its writer holds a lock on it as long as it lives |
//! | `run/ID.script` | `run` | the script, while it runs |
//! | `run/probe-*.script` | `collect`, `agent` | the script of a probe, while it runs |
//! | `run/ID.json` | `run`, `stop` | how it ended |
//!
//! Any container of the pod, under any uid, may run the runner, so `/guardian` and `run` are writable by all (sticky, where the uid that installs
//! may set that). The containers of a pod trust each other here; the controller does not trust them with anything but their own outcomes.

#![no_std]

extern crate alloc;
#[cfg(test)]
extern crate std;

pub mod metric;
pub mod protocol;
#[cfg(target_os = "linux")]
pub mod runner;
