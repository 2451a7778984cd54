//! `put`: a file of the guardian that everyone in the pod may read.

use alloc::format;
use alloc::vec::Vec;

use rustix::fs::Mode;

use super::files::{Durability, put as place, read_whole};
use super::home::Home;
use super::{Environment, FAULT, complain};
use crate::protocol::{MAX_PUT, PUT_CONTENT, PUT_FILES, PUT_TAKES};

/// Puts the content of the environment in place in one step: a reader sees the old file or the new one. A file that says the same stays as it is, so
/// that nobody who watches it is woken.
pub(super) fn put(home: &Home, env: &Environment, name: &[u8]) -> u8 {
    let Some(name) = PUT_FILES.into_iter().find(|file| file.as_bytes() == name) else {
        complain(&format!("{PUT_TAKES} one of {}", PUT_FILES.join(", ")));
        return FAULT;
    };
    let content = env.get(PUT_CONTENT.as_bytes()).map_or(&b""[..], Vec::as_slice);
    if content.is_empty() || content.len() > MAX_PUT {
        complain(&format!("{PUT_TAKES} 1 to {MAX_PUT} bytes from {PUT_CONTENT}, and there are {}", content.len()));
        return FAULT;
    }
    let path = home.put_file(name);
    if read_whole(&path, MAX_PUT).is_ok_and(|there| there == content) {
        return 0;
    }
    match place(&path, content, Mode::from_raw_mode(0o644), Durability::Cached) {
        Ok(()) => 0,
        Err(error) => {
            complain(&format!("{error}"));
            1
        }
    }
}
