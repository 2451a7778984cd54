//! Which life of its container a process runs in.
//!
//! `/guardian` outlives the containers of its pod, and a container that is started again finds there what its former life left. The two are told
//! apart by the container's first process: when it began, counted from the start of the kernel, which no change of the clock moves.

use alloc::format;
use alloc::string::String;

use super::Environment;
use super::proc::{pids, stat, text};

/// One life of a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Life {
    /// Differs from that of every other life in this pod, across restarts of the node.
    pub(super) id: String,
    /// When it began, in milliseconds of [`super::clock::boottime_ms`].
    pub(super) began_ms: u64,
}

/// The field `starttime` of `/proc/PID/stat`.
const START_TIME: usize = 22;
/// In milliseconds: its unit. `USER_HZ` is 100 on every architecture that Kubernetes runs on.
const TICK_MS: u64 = 10;

impl Life {
    /// The life that this process is part of; `None` where `/proc` does not tell. `GUARDIAN_PROC` names another one, for tests.
    pub(super) fn of(env: &Environment) -> Option<Self> {
        let proc = env.get(&b"GUARDIAN_PROC"[..]).map_or("/proc".into(), |v| String::from_utf8_lossy(v).into_owned());
        let boot = text(&format!("{proc}/sys/kernel/random/boot_id"))?;
        let (pid, ticks) = first_process(&proc)?;
        Some(Self { id: format!("{boot}/{pid}/{ticks}"), began_ms: ticks.checked_mul(TICK_MS)? })
    }
}

/// The first process of this container: its number and when it began.
///
/// It is process 1, unless the pod shares one process namespace among its containers (`shareProcessNamespace`, `hostPID`): then process 1 is not in
/// our cgroup, and of those that are, the first is the oldest. The namespaces themselves would say it too, but only to a process that may trace.
fn first_process(proc: &str) -> Option<(i32, u64)> {
    let own = text(&format!("{proc}/self/cgroup"))?;
    let ours = |pid: &i32| text(&format!("{proc}/{pid}/cgroup")).is_some_and(|theirs| is_within(&theirs, &own));
    let began = |pid: i32| Some((pid, stat(proc, pid, START_TIME)?));
    if ours(&1) {
        return began(1);
    }
    pids(proc).into_iter().filter(ours).filter_map(began).min_by_key(|(pid, ticks)| (*ticks, *pid))
}

/// Is each of the cgroups `theirs` that of `own`, or below it? An init system makes some below for its services. A cgroup beside the root that we see
/// is another container's, and shown as `/../NAME` (cgroup_namespaces(7)).
fn is_within(theirs: &str, own: &str) -> bool {
    theirs.lines().count() == own.lines().count()
        && theirs.lines().zip(own.lines()).all(|(theirs, own)| {
            let below = theirs.strip_prefix(own.trim_end_matches('/'));
            below.is_some_and(|rest| rest.is_empty() || (rest.starts_with('/') && !rest.starts_with("/..")))
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cgroup_is_told_from_its_neighbours() {
        let table = [
            ("0::/", "0::/", true),
            ("0::/init.scope", "0::/", true),
            ("0::/../cri-containerd-0123.scope", "0::/", false),
            ("0::/kubepods/pod1/aa", "0::/kubepods/pod1/aa", true),
            ("0::/kubepods/pod1/aa/sub", "0::/kubepods/pod1/aa", true),
            ("0::/kubepods/pod1/aab", "0::/kubepods/pod1/aa", false),
            ("0::/kubepods/pod1/bb", "0::/kubepods/pod1/aa", false),
            ("0::/", "0::/kubepods/pod1/aa", false),
            ("2:cpu:/a\n1:memory:/a", "2:cpu:/a\n1:memory:/a", true),
            ("2:cpu:/a\n1:memory:/b", "2:cpu:/a\n1:memory:/a", false),
            ("2:cpu:/a", "2:cpu:/a\n1:memory:/a", false),
        ];
        for (theirs, own, expected) in table {
            assert_eq!(is_within(theirs, own), expected, "{theirs:?} in {own:?}");
        }
    }
}
