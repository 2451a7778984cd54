//! A framed message from standard input.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::{Errno, read};
use serde::de::DeserializeOwned;

use super::clock::{monotonic_ms, timespec};
use super::home::Home;
use super::spawn;
use crate::protocol::{self, MAX_REQUEST, Refusal};

/// How long the sender may take, in milliseconds: it writes all of it at once, through one API server and one kubelet.
const SENDING_MS: u64 = 10_000;

/// Reads a message that is meant for this pod, in a version that is understood.
pub(super) fn receive<T: DeserializeOwned>(home: &Home) -> Result<T, Refusal> {
    let bytes = read_frame().map_err(|message| Refusal::BadRequest { message })?;
    protocol::read(&bytes, || {
        let pod = home.pod().map_err(|e| Refusal::NotInstalled { message: e.to_string() })?;
        Ok(pod.uid)
    })
}

fn read_frame() -> Result<Vec<u8>, String> {
    let end = monotonic_ms() + SENDING_MS;
    let head = read_exactly(4, end)?;
    let length = head.iter().fold(0, |n, b| n << 8 | usize::from(*b));
    if length > MAX_REQUEST {
        return Err(format!("a request of {length} bytes is over the limit of {MAX_REQUEST}"));
    }
    read_exactly(length, end)
}

fn read_exactly(length: usize, end: u64) -> Result<Vec<u8>, String> {
    let stdin = spawn::stdin();
    let mut bytes = Vec::new();
    let mut piece = [0; 4096];
    while bytes.len() < length {
        let so_far = format!("{} of {length} bytes", bytes.len());
        let left = end.saturating_sub(monotonic_ms());
        match poll(&mut [PollFd::from_borrowed_fd(stdin, PollFlags::IN)], Some(&timespec(left))) {
            Ok(0) => return Err(format!("the request stopped after {so_far}")),
            Ok(_) | Err(Errno::INTR) => {}
            Err(e) => return Err(format!("standard input: {}", super::files::errno_in_words(e))),
        }
        let want = piece.len().min(length - bytes.len());
        match read(stdin, piece.get_mut(..want).unwrap_or_default()) {
            Ok(0) => return Err(format!("the request ended after {so_far}")),
            Ok(n) => bytes.extend_from_slice(piece.get(..n).unwrap_or_default()),
            Err(Errno::INTR | Errno::AGAIN) => {}
            Err(e) => return Err(format!("standard input: {}", super::files::errno_in_words(e))),
        }
    }
    Ok(bytes)
}
