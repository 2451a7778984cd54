//! A framed message from standard input.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::{Errno, read};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::clock::{monotonic_ms, timespec};
use super::home::{Home, Pod};
use super::spawn;
use crate::protocol::{MAX_REQUEST, PROTOCOL, Refusal};

/// How long the sender may take, in milliseconds: it writes all of it at once, through one API server and one kubelet.
const SENDING_MS: u64 = 10_000;

/// The most bytes of a parse error that are sent back.
const MAX_FAULT: usize = 300;

/// What every message has in every version.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Address {
    version: u32,
    pod_uid: String,
}

/// Reads a message that is meant for this pod, in a version that is understood.
pub(super) fn receive<T: DeserializeOwned>(home: &Home) -> Result<(T, Pod), Refusal> {
    let bytes = read_frame().map_err(|message| Refusal::BadRequest { message })?;
    let address: Address = parse(&bytes)?;
    if address.version == 0 || address.version > PROTOCOL {
        return Err(Refusal::UnsupportedVersion { asked: address.version, supported: PROTOCOL });
    }
    let pod = home.pod().map_err(|e| Refusal::NotInstalled { message: e.to_string() })?;
    if address.pod_uid != pod.uid {
        return Err(Refusal::OtherPod { uid: pod.uid });
    }
    Ok((parse(&bytes)?, pod))
}

fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Refusal> {
    serde_json::from_slice(bytes).map_err(|e| {
        let fault: String = e.to_string().chars().take(MAX_FAULT).collect();
        Refusal::BadRequest { message: format!("not a request: {fault}") }
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
