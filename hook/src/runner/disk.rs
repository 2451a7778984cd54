//! How full the file system is on which a container has its data, as `df` counts: what is left to root alone counts for nothing.

use rustix::fs::statvfs;

use crate::protocol::Usage;

/// Adds it, where there is such a place and it can be asked.
pub(super) fn usage(mounted_at: Option<&str>, of_cgroup: Usage) -> Usage {
    let Some(there) = mounted_at.and_then(|path| statvfs(path).ok()) else { return of_cgroup };
    let used = there.f_blocks.saturating_sub(there.f_bfree).saturating_mul(there.f_frsize);
    let left = there.f_bavail.saturating_mul(there.f_frsize);
    Usage { disk_bytes: Some(used), disk_limit_bytes: Some(used.saturating_add(left)), ..of_cgroup }
}
