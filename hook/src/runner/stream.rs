//! Output on its way to whoever started the run, while it runs: bounded, and never long in the way of the process.
//!
//! A reader that is slow slows the process down, as in any pipeline, and gets everything. One that takes nothing for [`STUCK_MS`], or is gone, does
//! not: the process goes on, and what has no room is dropped, counted, and told where it is missing.

use alloc::vec::Vec;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::{Errno, write};

use super::clock::{monotonic_ms, timespec};
use super::run::line;
use super::spawn;
use super::stdio::PIECE;
use crate::protocol::Streamed;

/// Bytes that wait for the reader before no more is read of the process: what a pipe holds by default.
const FULL: usize = 64 * 1024;

/// The same once the process has ended. Both of its pipes, 64 KiB each, are 175 KiB in base64; with what waits already it is at most 278 KiB.
const LAST: usize = 256 * 1024;

/// How long a reader may take nothing before the process goes on without it, in milliseconds.
const STUCK_MS: u64 = 5_000;

/// Lines on their way.
pub(super) struct Stream {
    lines: Vec<u8>,
    /// So many of these bytes are written.
    written: usize,
    limit: usize,
    /// Since when the reader takes nothing.
    waits_since: Option<u64>,
    /// Nobody reads any more.
    gone: bool,
    dropped: [u64; 2],
}

impl Stream {
    pub(super) fn new() -> Self {
        Self { lines: Vec::new(), written: 0, limit: FULL, waits_since: None, gone: false, dropped: [0; 2] }
    }

    /// The process has ended: all that it has written is taken, at once. Not for a reader that is stuck, who misses something already.
    pub(super) fn takes_the_last(&mut self) {
        if !self.is_stuck() {
            self.limit = LAST;
        }
    }

    /// May more be read of the process? Yes as well when the reader is stuck or gone: then it is dropped.
    pub(super) fn has_room(&self) -> bool {
        self.waiting() < self.limit || self.gone || self.is_stuck()
    }

    /// Is there something to write?
    pub(super) fn is_waiting(&self) -> bool {
        self.waiting() > 0
    }

    /// Takes what was read of the process.
    pub(super) fn push(&mut self, is_stderr: bool, bytes: &[u8]) {
        if self.gone || bytes.is_empty() {
            return;
        }
        if self.waiting() >= self.limit {
            let [stdout, stderr] = &mut self.dropped;
            *(if is_stderr { stderr } else { stdout }) += bytes.len() as u64;
            return;
        }
        self.tell_dropped();
        self.lines.extend_from_slice(&line(&Streamed::of(is_stderr, bytes)));
    }

    /// Writes as much as the reader takes now.
    pub(super) fn flush(&mut self) {
        let stdout = spawn::stdout();
        while self.is_waiting() {
            match poll(&mut [PollFd::from_borrowed_fd(stdout, PollFlags::OUT)], Some(&timespec(0))) {
                Ok(0) => {
                    self.waits_since.get_or_insert_with(monotonic_ms);
                    return;
                }
                Ok(_) => {}
                Err(Errno::INTR) => continue,
                Err(_) => return self.give_up(),
            }
            let rest = self.lines.get(self.written..).unwrap_or_default();
            match write(stdout, rest.get(..PIECE).unwrap_or(rest)) {
                Ok(n) => self.took(n),
                Err(Errno::INTR | Errno::AGAIN) => return,
                Err(_) => return self.give_up(),
            }
        }
    }

    /// What is left, to be written when there is time.
    pub(super) fn into_rest(mut self) -> Vec<u8> {
        self.tell_dropped();
        self.lines.drain(..self.written);
        self.lines
    }

    fn waiting(&self) -> usize {
        self.lines.len() - self.written
    }

    fn is_stuck(&self) -> bool {
        self.waits_since.is_some_and(|since| monotonic_ms().saturating_sub(since) >= STUCK_MS)
    }

    fn took(&mut self, n: usize) {
        self.written += n;
        self.waits_since = None;
        // Bytes are moved once for so many that were written.
        if self.written >= FULL || !self.is_waiting() {
            self.lines.drain(..self.written);
            self.written = 0;
        }
    }

    fn tell_dropped(&mut self) {
        let [stdout, stderr] = core::mem::take(&mut self.dropped);
        if (stdout, stderr) != (0, 0) {
            self.lines.extend_from_slice(&line(&Streamed::Dropped { stdout, stderr }));
        }
    }

    fn give_up(&mut self) {
        self.gone = true;
        self.lines = Vec::new();
        self.written = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(stream: Stream) -> Vec<Streamed> {
        let rest = stream.into_rest();
        rest.split(|b| *b == b'\n').filter(|l| !l.is_empty()).map(|l| serde_json::from_slice(l).unwrap()).collect()
    }

    #[test]
    fn what_has_no_room_is_counted_and_told_where_it_is_missing() {
        let mut stream = Stream::new();
        let piece = [b'a'; 16 * 1024];
        while stream.has_room() {
            stream.push(false, &piece);
        }
        assert!(stream.waiting() >= FULL && stream.waiting() < FULL + 23 * 1024, "{}", stream.waiting());
        stream.push(false, b"lost");
        stream.push(true, b"lost too");
        stream.took(stream.waiting());
        stream.push(true, b"seen");
        let last = told(stream);
        assert_eq!(last, [Streamed::Dropped { stdout: 4, stderr: 8 }, Streamed::of(true, b"seen")]);
    }

    #[test]
    fn the_last_of_both_pipes_has_room_behind_what_waits() {
        let mut stream = Stream::new();
        let piece = [0; 16 * 1024];
        while stream.has_room() {
            stream.push(false, &piece);
        }
        stream.takes_the_last();
        for _ in 0..8 {
            stream.push(true, &piece);
        }
        assert!(told(stream).iter().all(|line| line.bytes().is_some()), "nothing is dropped");
    }

    #[test]
    fn whoever_is_gone_is_told_nothing() {
        let mut stream = Stream::new();
        stream.push(false, b"a");
        stream.give_up();
        stream.push(false, b"b");
        assert!(stream.has_room() && told(stream).is_empty());
    }
}
