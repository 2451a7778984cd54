//! What this container uses, from the files of its cgroup, of either version (cgroups(7), Documentation/admin-guide/cgroup-v2.rst).
//!
//! Container runtimes show a container its own cgroup at `/sys/fs/cgroup`; where they show the whole tree, `/proc/self/cgroup` says which one is ours.

use alloc::format;
use alloc::string::String;

use super::Environment;
use super::files::read_start;
use super::proc::text;
use crate::protocol::Usage;

/// `memory.stat` has about 45 lines of at most 50 bytes; in version 1 the sums for the whole tree come last.
const MAX_FILE: usize = 8 * 1024;

/// A limit of version 1 that is none: it counts pages in a signed number, and rounds down.
const UNLIMITED: u64 = 1 << 62;

/// What the cgroup of this process tells. `GUARDIAN_CGROUP` and `GUARDIAN_PROC` name other places than `/sys/fs/cgroup` and `/proc`, for tests.
pub(super) fn usage(env: &Environment) -> Usage {
    let place =
        |name: &[u8], usual: &str| env.get(name).map_or_else(|| usual.into(), |v| String::from_utf8_lossy(v).into_owned());
    let root = place(b"GUARDIAN_CGROUP", "/sys/fs/cgroup");
    let own = text(&format!("{}/self/cgroup", place(b"GUARDIAN_PROC", "/proc"))).unwrap_or_default();
    let of = |controller| Group { root: &root, controller, path: path(&own, controller) };
    if text(&format!("{root}/cgroup.controllers")).is_some() {
        second(&of(""))
    } else {
        first(&of("memory"), &of("cpu"), &of("cpuacct"))
    }
}

fn second(group: &Group<'_>) -> Usage {
    Usage {
        memory_bytes: group.number("memory.current"),
        reclaimable_bytes: group.field("memory.stat", "inactive_file"),
        memory_limit_bytes: group.number("memory.max"),
        cpu_usage_us: group.field("cpu.stat", "usage_usec"),
        cpu_limit_millis: group.read("cpu.max").and_then(|text| {
            let (quota, period) = text.trim().split_once(' ')?;
            millis(quota.parse().ok()?, period.parse().ok()?)
        }),
        throttled_us: group.field("cpu.stat", "throttled_usec"),
        ..Usage::default()
    }
}

fn first(memory: &Group<'_>, cpu: &Group<'_>, accounting: &Group<'_>) -> Usage {
    Usage {
        memory_bytes: memory.number("memory.usage_in_bytes"),
        reclaimable_bytes: memory.field("memory.stat", "total_inactive_file"),
        memory_limit_bytes: memory.number("memory.limit_in_bytes").filter(|limit| *limit < UNLIMITED),
        cpu_usage_us: accounting.number("cpuacct.usage").map(|nanoseconds| nanoseconds / 1000),
        cpu_limit_millis: cpu.number("cpu.cfs_quota_us").and_then(|quota| millis(quota, cpu.number("cpu.cfs_period_us")?)),
        throttled_us: cpu.field("cpu.stat", "throttled_time").map(|nanoseconds| nanoseconds / 1000),
        ..Usage::default()
    }
}

fn millis(quota: u64, period: u64) -> Option<u64> {
    quota.checked_mul(1000)?.checked_div(period)
}

/// The path of our cgroup, of a controller in version 1 and of no name in version 2: lines are `ID:CONTROLLER,CONTROLLER:PATH`.
fn path<'t>(own: &'t str, controller: &str) -> &'t str {
    let of_line = |line: &'t str| {
        let (controllers, path) = line.split_once(':')?.1.split_once(':')?;
        controllers.split(',').any(|name| name == controller).then_some(path)
    };
    own.lines().find_map(of_line).unwrap_or("/")
}

/// One cgroup directory.
struct Group<'a> {
    root: &'a str,
    /// Empty in version 2.
    controller: &'a str,
    path: &'a str,
}

impl Group<'_> {
    /// From our own directory, or from the only one that is shown to us.
    fn read(&self, file: &str) -> Option<String> {
        let Self { root, controller, path } = self;
        // A path through `..` lies outside of what we are shown.
        let ours = (!path.contains("..")).then(|| format!("{root}/{controller}{path}/{file}"));
        let start = |path: String| String::from_utf8(read_start(path, MAX_FILE).ok()?).ok();
        ours.and_then(start).or_else(|| start(format!("{root}/{controller}/{file}")))
    }

    /// `None` for a word, as in `max`, and for a negative number.
    fn number(&self, file: &str) -> Option<u64> {
        self.read(file)?.trim().parse().ok()
    }

    fn field(&self, file: &str, name: &str) -> Option<u64> {
        let text = self.read(file)?;
        text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok())
    }
}
