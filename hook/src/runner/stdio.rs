//! The runner's own words to whoever started it.

use alloc::format;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fd::BorrowedFd;
use rustix::io::{Errno, write};

use super::clock::{monotonic_ms, timespec};
use super::spawn;

/// How long a reader may leave an answer lying, in milliseconds. The outcome is on disk by then, and a runner that waits for ever is a leak.
const UNREAD_MS: u64 = 10_000;

/// As much as a pipe that polls writable takes without blocking (`PIPE_BUF`).
pub(super) const PIECE: usize = 4096;

/// Writes to standard output; a reader that is gone or does not read is no error.
pub(super) fn print(bytes: &[u8]) {
    let _ = try_print(bytes);
}

/// The same, where what follows makes sense only behind it.
pub(super) fn try_print(bytes: &[u8]) -> Result<(), Errno> {
    write_all(spawn::stdout(), bytes)
}

/// Writes one line to standard error.
pub fn complain(message: &str) {
    let _ = write_all(spawn::stderr(), format!("guardian-hook: {message}\n").as_bytes());
}

/// Writes all of it in pieces that do not block, within [`UNREAD_MS`].
pub(super) fn write_all(fd: BorrowedFd<'_>, mut bytes: &[u8]) -> Result<(), Errno> {
    let end = monotonic_ms() + UNREAD_MS;
    while !bytes.is_empty() {
        let left = end.saturating_sub(monotonic_ms());
        match poll(&mut [PollFd::from_borrowed_fd(fd, PollFlags::OUT)], Some(&timespec(left))) {
            Ok(0) => return Err(Errno::TIMEDOUT),
            Ok(_) | Err(Errno::INTR) => {}
            Err(e) => return Err(e),
        }
        match write(fd, bytes.get(..PIECE).unwrap_or(bytes)) {
            Ok(n) => bytes = bytes.get(n..).unwrap_or_default(),
            Err(Errno::INTR | Errno::AGAIN) => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
}
