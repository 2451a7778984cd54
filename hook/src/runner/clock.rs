//! The clocks.

use rustix::event::{Timespec, poll};
use rustix::time::{ClockId, clock_gettime};

/// Milliseconds of a clock that only goes forward: for deadlines and durations.
pub(super) fn monotonic_ms() -> u64 {
    read(ClockId::Monotonic)
}

/// Milliseconds since the kernel started, sleep included: the clock of the start times in `/proc`.
pub(super) fn boottime_ms() -> u64 {
    read(ClockId::Boottime)
}

/// Milliseconds since 1970: for what another process reads later.
pub(super) fn realtime_ms() -> u64 {
    read(ClockId::Realtime)
}

/// Waits.
pub(super) fn pause(ms: u64) {
    let _ = poll(&mut [], Some(&timespec(ms)));
}

/// A duration as the kernel takes it.
pub(super) fn timespec(ms: u64) -> Timespec {
    Timespec { tv_sec: i64::try_from(ms / 1000).unwrap_or(i64::MAX), tv_nsec: i64::try_from(ms % 1000 * 1_000_000).unwrap_or(0) }
}

fn read(clock: ClockId) -> u64 {
    let t = clock_gettime(clock);
    let ms = t.tv_sec.saturating_mul(1000).saturating_add(t.tv_nsec / 1_000_000);
    u64::try_from(ms).unwrap_or(0)
}
