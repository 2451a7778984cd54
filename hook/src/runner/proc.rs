//! What `/proc` tells of processes (proc(5)).

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use rustix::fs::{Mode, OFlags, open};

use super::files::read_start;

/// The numbers of all processes that can be seen.
pub(super) fn pids(proc: &str) -> Vec<i32> {
    let Ok(dir) = open(proc, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()) else {
        return Vec::new();
    };
    let entries = rustix::fs::Dir::new(dir).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str().ok()?.parse().ok()).collect()
}

/// A number from `/proc/PID/stat`, by the field's number in the manual, from 4 on. The second field, the name, may hold spaces and brackets.
pub(super) fn stat(proc: &str, pid: i32, field: usize) -> Option<u64> {
    // 52 numbers of at most 20 digits, most of them far shorter, and a name of at most 64 bytes; those that are asked for come early.
    let stat = read_start(format!("{proc}/{pid}/stat"), 1024).ok()?;
    let after_name = stat.rsplit(|b| *b == b')').next()?;
    let mut fields = after_name.split(|b| *b == b' ').filter(|f| !f.is_empty());
    core::str::from_utf8(fields.nth(field.checked_sub(3)?)?).ok()?.trim_ascii_end().parse().ok()
}

/// A small text file, its last line break cut off.
pub(super) fn text(path: &str) -> Option<String> {
    let text = String::from_utf8(read_start(path, 4096).ok()?).ok()?;
    Some(text.trim_ascii_end().into()).filter(|text: &String| !text.is_empty())
}
