//! A run id is claimed once in the life of the pod.
//!
//! The claim is a file that can be made only once, and its maker holds a lock on it (flock(2)) until its process is gone, however it goes. So
//! whoever comes later, from whichever container, can tell a run that goes on from one that was interrupted: no process ids, which other containers
//! cannot see, and which are given anew.

use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;

use rustix::fd::OwnedFd;
use rustix::fs::{FlockOperation, Mode, OFlags, flock, open, stat, unlink};
use serde::{Deserialize, Serialize};

use super::clock::{monotonic_ms, realtime_ms};
use super::files::{Draft, FileError, Watch, read_whole, sync_directory};
use super::home::Home;
use crate::protocol::{MAX_OUTCOME, MAX_REQUEST};

/// How many run ids are remembered: the newest. Beyond that the oldest are forgotten, so that 100 outcomes of at most 1 MiB bound the directory
/// (typically 100 kB). The controller keeps an id open in its ledger, and asks for it again only while it is among the newest.
const REMEMBERED: usize = 100;

/// Drafts that a killed runner left are removed after this many seconds; a living one puts its draft in place within moments.
const DRAFT_LIFE_S: i64 = 3600;

/// What came of the attempt to claim.
pub(super) enum Claim {
    /// It is ours, and locked as long as this file is open.
    Ours(OwnedFd),
    /// The id was claimed before.
    Taken,
}

/// What an earlier claim led to.
pub(super) enum Earlier {
    /// Its outcome, as it was written.
    Outcome(Vec<u8>),
    /// Its runner is gone and left none.
    Interrupted,
    /// Its runner is still alive.
    Alive,
}

/// What a claim says of its run.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Note {
    pub(super) hook: String,
    pub(super) pid: i32,
    pub(super) claimed_ms: u64,
    pub(super) timeout_ms: u64,
    /// In which life of the container, see [`super::life`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) life: Option<String>,
}

/// What the claim of an id says; `None` where there is none that can be read.
pub(super) fn note(home: &Home, run_id: &str) -> Option<Note> {
    // The name of a hook has no bound but the request's.
    serde_json::from_slice(&read_whole(&home.claim(run_id), MAX_REQUEST).ok()?).ok()
}

/// Claims an id, on disk before this returns.
pub(super) fn claim(home: &Home, run_id: &str, content: &[u8]) -> Result<Claim, FileError> {
    let path = home.claim(run_id);
    let draft = Draft::new(&path, Mode::from_raw_mode(0o644))?;
    flock(draft.file(), FlockOperation::NonBlockingLockExclusive).map_err(FileError::at(&path))?;
    draft.write(content)?;
    rustix::fs::fsync(draft.file()).map_err(FileError::at(&path))?;
    // The name appears with the lock held: nobody sees a claim in between and takes it for an abandoned one.
    match draft.link_to(&path)? {
        None => Ok(Claim::Taken),
        Some(file) => {
            sync_directory(&path)?;
            Ok(Claim::Ours(file))
        }
    }
}

/// Waits for the outcome of an id that was claimed before, at most until `end` (monotonic milliseconds).
pub(super) fn attach(home: &Home, run_id: &str, end: u64) -> Earlier {
    let watch = Watch::on(&home.runs());
    loop {
        // In this order: the outcome is written before the lock is let go.
        let abandoned = is_abandoned(&home.claim(run_id));
        if let Ok(outcome) = read_whole(&home.outcome(run_id), MAX_OUTCOME) {
            return Earlier::Outcome(outcome);
        }
        if abandoned {
            return Earlier::Interrupted;
        }
        if monotonic_ms() >= end {
            return Earlier::Alive;
        }
        watch.wait(end);
    }
}

/// Whether nobody holds the lock. A claim that cannot be read is one that somebody removed.
fn is_abandoned(path: &str) -> bool {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
    match open(path, flags, Mode::empty()) {
        Ok(fd) => flock(&fd, FlockOperation::NonBlockingLockShared).is_ok(),
        Err(_) => true,
    }
}

/// Forgets all but the newest [`REMEMBERED`] ids, never one that is running. What belongs to another user stays.
pub(super) fn forget_old(home: &Home) {
    let Some(runs) = list(home) else { return };
    let mut by_age: Vec<_> = runs.into_iter().map(|(id, newest)| (newest, id)).collect();
    by_age.sort();
    let surplus = by_age.len().saturating_sub(REMEMBERED);
    for (_, id) in by_age.iter().take(surplus) {
        if is_abandoned(&home.claim(id)) {
            // The claim last: without it the id would look new.
            for path in [home.run_script(id), home.outcome(id), home.claim(id)] {
                let _ = unlink(path);
            }
        }
    }
}

/// The ids that have files, each with the time of its newest (seconds since 1970). Old drafts go.
fn list(home: &Home) -> Option<BTreeMap<String, i64>> {
    let dir = home.runs();
    let fd = open(dir.as_str(), OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).ok()?;
    let now = i64::try_from(realtime_ms() / 1000).unwrap_or(i64::MAX);
    let mut runs = BTreeMap::new();
    for entry in rustix::fs::Dir::new(fd).ok()?.flatten() {
        let Ok(name) = entry.file_name().to_str() else { continue };
        let path = alloc::format!("{dir}/{name}");
        let Ok(modified) = stat(path.as_str()).map(|s| s.st_mtime) else { continue };
        if name.starts_with(".draft-") {
            if now.saturating_sub(modified) > DRAFT_LIFE_S {
                let _ = unlink(path);
            }
        } else if let Some((id, "claim" | "json" | "script")) = name.rsplit_once('.') {
            let newest = runs.entry(id.into()).or_insert(modified);
            *newest = modified.max(*newest);
        }
    }
    Some(runs)
}
