//! What a command writes goes where it would go if it ran here: standard output to standard output, standard error to standard error.

use std::io::{self, Write};
use std::time::Instant;

use guardian_hook::protocol::{Streamed, Tail};

use super::super::cluster::Progress;
use super::report::End;
use crate::controller::Order;

/// Passes on what one run writes.
pub(super) struct Printer {
    /// Not where a document is printed at the end.
    is_on: bool,
    what: String,
    began: Instant,
    /// A line on a terminal, until the command writes something itself.
    progress: Option<Progress>,
    /// How many bytes of standard output and of standard error are dealt with.
    seen: [u64; 2],
    has_streamed: bool,
    was_lost: bool,
}

impl Printer {
    pub(super) fn new(is_on: bool, name: &str, order: &Order, is_one_of_several: bool) -> Self {
        if is_on && is_one_of_several {
            anstream::eprintln!("guardian: {name} in pod {}:", order.pod);
        }
        let what = format!("{name} runs in pod {}, at most {} s", order.pod, order.request.timeout_ms.div_ceil(1000));
        Self {
            is_on,
            what,
            began: Instant::now(),
            progress: Some(Progress::start()),
            seen: [0; 2],
            has_streamed: false,
            was_lost: false,
        }
    }

    /// Says what goes on.
    pub(super) fn show(&mut self) {
        let seconds = self.began.elapsed().as_secs();
        if let Some(progress) = &mut self.progress {
            progress.say(&format!("{} ({seconds} s)", self.what));
        }
    }

    /// Passes on what came.
    pub(super) fn take(&mut self, streamed: &Streamed) {
        self.has_streamed = true;
        if let Streamed::Dropped { stdout, stderr } = streamed {
            self.missing([*stdout, *stderr], "they were not read in time");
        }
        if let Some((is_stderr, bytes)) = streamed.bytes() {
            self.pass_on(is_stderr, &bytes);
        }
    }

    /// The connection was lost; it is asked again.
    pub(super) fn lost(&mut self, why: &str) {
        self.was_lost = true;
        if self.is_on {
            self.progress = None;
            anstream::eprintln!("guardian: {why}; asking again what becomes of it");
        }
    }

    /// The end: what did not come as it was written is taken from the outcome, as far as that has it.
    pub(super) fn end(&mut self, end: &End) {
        self.progress = None;
        let End::Ended(outcome) = end else { return };
        let tails = [&outcome.stdout, &outcome.stderr];
        let has_output = tails.iter().any(|tail| !tail.text.is_empty());
        if !self.is_on || !has_output || self.has_streamed && !self.was_lost {
            return;
        }
        if !self.was_lost {
            anstream::eprintln!(
                "guardian: the runner of this pod is an older one, which tells what a command writes only at its end"
            );
        }
        let [(lost_out, out), (lost_err, err)] = [rest(&outcome.stdout, self.seen[0]), rest(&outcome.stderr, self.seen[1])];
        self.missing([lost_out, lost_err], "only the last of it is kept");
        self.pass_on(false, out.as_bytes());
        self.pass_on(true, err.as_bytes());
    }

    fn missing(&mut self, bytes: [u64; 2], why: &str) {
        for ((name, bytes), seen) in ["output", "error"].into_iter().zip(bytes).zip(&mut self.seen) {
            *seen += bytes;
            if bytes > 0 && self.is_on {
                anstream::eprintln!("guardian: {bytes} bytes of standard {name} are missing here: {why}");
            }
        }
    }

    /// Whoever reads may go away; the command is waited for all the same.
    fn pass_on(&mut self, is_stderr: bool, bytes: &[u8]) {
        if bytes.is_empty() || !self.is_on {
            return;
        }
        self.progress = None;
        let [out, err] = &mut self.seen;
        *(if is_stderr { err } else { out }) += bytes.len() as u64;
        let _ = if is_stderr { write(io::stderr(), bytes) } else { write(io::stdout(), bytes) };
    }
}

fn write(mut to: impl Write, bytes: &[u8]) -> io::Result<()> {
    to.write_all(bytes)?;
    to.flush()
}

/// Of a stream whose first `seen` bytes are dealt with: how many of the others are lost, and the rest. Where bytes were replaced because they were no
/// text, it cannot be told where it begins: what is sure to be new is the end that is longer than all that was seen.
fn rest(tail: &Tail, seen: u64) -> (u64, &str) {
    let lost = tail.dropped.saturating_sub(seen);
    let skip = usize::try_from(seen.saturating_sub(tail.dropped)).unwrap_or(usize::MAX).min(tail.text.len());
    (lost, tail.text.get(tail.text.ceil_char_boundary(skip)..).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_passed_on_before_a_connection_was_lost_is_not_told_twice() {
        let tail = |text: &str, dropped| Tail { text: text.into(), dropped };
        let rows = [
            (tail("abc", 0), 0, (0, "abc")),
            (tail("abc", 0), 2, (0, "c")),
            (tail("abc", 0), 3, (0, "")),
            (tail("abc", 10), 4, (6, "abc")),
            (tail("abc", 10), 12, (0, "c")),
            (tail("abc", 10), 99, (0, "")),
            (tail("äb", 0), 1, (0, "b")),
        ];
        for (tail, seen, expected) in rows {
            assert_eq!(rest(&tail, seen), expected, "{tail:?} {seen}");
        }
    }
}
