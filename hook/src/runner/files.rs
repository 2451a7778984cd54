//! Files: read with a bound, written whole or not at all, and a wait for their coming.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{Mode, OFlags, fchmod, fsync, inotify, link, open, rename, unlink};
use rustix::io::{Errno, fcntl_dupfd_cloexec, read, write};
use rustix::path::Arg;
use rustix::process::getpid;

use super::clock::{monotonic_ms, realtime_ms, timespec};

/// What could not be done with which file.
#[derive(Debug, thiserror::Error)]
#[error("{what}: {}", errno_in_words(*errno))]
pub(super) struct FileError {
    pub(super) what: String,
    pub(super) errno: Errno,
}

impl FileError {
    pub(super) fn at(what: &str) -> impl FnOnce(Errno) -> Self {
        move |errno| Self { what: what.into(), errno }
    }
}

/// Whether a file must outlive a crash of the node.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Durability {
    /// The page cache will do: it is written again after a reboot.
    Cached,
    /// On disk, name included, before this returns.
    Synced,
}

/// Reads a file that has at most `max` bytes.
pub(super) fn read_whole(path: &str, max: usize) -> Result<Vec<u8>, FileError> {
    let bytes = read_start(path, max + 1).map_err(FileError::at(path))?;
    if bytes.len() > max {
        return Err(FileError { what: path.into(), errno: Errno::FBIG });
    }
    Ok(bytes)
}

/// Reads the first bytes of a file. A symbolic link is not followed at its last step: other users can write where we read.
pub(super) fn read_start(path: impl Arg, max: usize) -> Result<Vec<u8>, Errno> {
    let fd = open(path, OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK, Mode::empty())?;
    let mut bytes = Vec::new();
    let mut piece = [0; 4096];
    while bytes.len() < max {
        match read(&fd, &mut piece) {
            Ok(0) => break,
            Ok(n) => bytes.extend_from_slice(piece.get(..n.min(max - bytes.len())).unwrap_or_default()),
            Err(Errno::INTR) => {}
            Err(e) => return Err(e),
        }
    }
    Ok(bytes)
}

/// Puts a file in place in one step: whoever reads it sees the old one or the new one.
pub(super) fn put(path: &str, bytes: &[u8], mode: Mode, durability: Durability) -> Result<(), FileError> {
    let draft = Draft::new(path, mode)?;
    draft.write(bytes)?;
    draft.rename_to(path, durability)
}

/// A file under a name that nobody knows yet. It is removed again unless it is put in place.
pub(super) struct Draft {
    pub(super) path: String,
    fd: OwnedFd,
}

impl Draft {
    /// Beside `path`. The name holds the process and the time: containers of a pod have the same process ids.
    pub(super) fn new(path: &str, mode: Mode) -> Result<Self, FileError> {
        let dir = directory(path);
        let name = format!("{dir}/.draft-{}-{}", getpid().as_raw_pid(), nanos());
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let fd = open(name.as_str(), flags, Mode::RUSR | Mode::WUSR).map_err(FileError::at(path))?;
        let draft = Self { path: name, fd };
        fchmod(&draft.fd, mode).map_err(FileError::at(path))?;
        Ok(draft)
    }

    pub(super) fn write(&self, mut bytes: &[u8]) -> Result<(), FileError> {
        while !bytes.is_empty() {
            match write(&self.fd, bytes) {
                Ok(n) => bytes = bytes.get(n..).unwrap_or_default(),
                Err(Errno::INTR) => {}
                Err(e) => return Err(FileError::at(&self.path)(e)),
            }
        }
        Ok(())
    }

    pub(super) fn rename_to(self, path: &str, durability: Durability) -> Result<(), FileError> {
        if durability == Durability::Synced {
            fsync(&self.fd).map_err(FileError::at(path))?;
        }
        rename(self.path.as_str(), path).map_err(FileError::at(path))?;
        match durability {
            Durability::Cached => Ok(()),
            Durability::Synced => sync_directory(path),
        }
    }

    /// The file under its new name, still open; none when the name is taken.
    pub(super) fn link_to(&self, path: &str) -> Result<Option<OwnedFd>, FileError> {
        match link(self.path.as_str(), path) {
            Ok(()) => fcntl_dupfd_cloexec(&self.fd, 3).map(Some).map_err(FileError::at(path)),
            Err(Errno::EXIST) => Ok(None),
            Err(e) => Err(FileError::at(path)(e)),
        }
    }

    pub(super) fn file(&self) -> &OwnedFd {
        &self.fd
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        let _ = unlink(self.path.as_str());
    }
}

/// Makes the names in the directory of `path` outlive a crash of the node.
pub(super) fn sync_directory(path: &str) -> Result<(), FileError> {
    let dir = directory(path);
    let fd = open(dir, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).map_err(FileError::at(dir))?;
    fsync(&fd).map_err(FileError::at(dir))
}

fn directory(path: &str) -> &str {
    path.rsplit_once('/').map_or(".", |(dir, _)| dir)
}

/// Differs from one moment to the next, in every process of every container.
pub(super) fn nanos() -> i64 {
    rustix::time::clock_gettime(rustix::time::ClockId::Monotonic).tv_nsec + i64::try_from(realtime_ms()).unwrap_or(0) * 1_000_000
}

/// A wait for something to change in a directory.
pub(super) struct Watch {
    /// Absent when the node has no instance left (`fs.inotify.max_user_instances` is 128 for all processes of a uid): then time does it.
    fd: Option<OwnedFd>,
}

/// How long to wait without a word from the kernel, in milliseconds: with a watch only for the lock of a process that was killed, without one for
/// everything.
const QUIET_MS: u64 = 100;
const BLIND_MS: u64 = 10;

impl Watch {
    pub(super) fn on(dir: &str) -> Self {
        let flags = inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK;
        let changes = inotify::WatchFlags::MOVED_TO | inotify::WatchFlags::CLOSE_WRITE;
        let fd = inotify::init(flags).ok();
        Self { fd: fd.filter(|fd| inotify::add_watch(fd, dir, changes).is_ok()) }
    }

    /// Returns when something may have changed, at the latest at `end` (monotonic milliseconds).
    pub(super) fn wait(&self, end: u64) {
        let left = end.saturating_sub(monotonic_ms());
        let Some(fd) = &self.fd else {
            return super::clock::pause(left.min(BLIND_MS));
        };
        let mut fds = [PollFd::from_borrowed_fd(fd.as_fd(), PollFlags::IN)];
        let _ = poll(&mut fds, Some(&timespec(left.min(QUIET_MS))));
        self.take();
    }

    /// What tells that something has changed, if the kernel does.
    pub(super) fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.fd.as_ref().map(AsFd::as_fd)
    }

    /// Has something changed since the last call, as far as the kernel tells?
    pub(super) fn take(&self) -> bool {
        let mut events = [0; 4096];
        let mut any = false;
        while self.fd.as_ref().is_some_and(|fd| matches!(read(fd, &mut events), Ok(n) if n > 0)) {
            any = true;
        }
        any
    }
}

/// The kernel's word for an error. Only those that a person meets here: the C library's own list is larger than the runner.
pub(super) fn errno_in_words(errno: Errno) -> String {
    let words = match errno {
        Errno::NOENT => "no such file or directory",
        Errno::ACCESS => "permission denied",
        Errno::PERM => "operation not permitted",
        Errno::NOSPC => "no space left on device",
        Errno::DQUOT => "disk quota exceeded",
        Errno::ROFS => "read-only file system",
        Errno::NOEXEC => "not a program: a script needs a first line `#!interpreter`",
        Errno::TOOBIG => "arguments and environment are too large: 128 KiB for one string, 2 MiB in all",
        Errno::NOMEM => "out of memory",
        Errno::AGAIN => "resource temporarily unavailable",
        Errno::ISDIR => "is a directory",
        Errno::NOTDIR => "not a directory",
        Errno::LOOP => "a symbolic link where none may be",
        Errno::FBIG => "file too large",
        Errno::TXTBSY => "being written to",
        Errno::IO => "input/output error",
        Errno::MFILE | Errno::NFILE => "too many open files",
        Errno::EXIST => "exists already",
        other => return format!("error {}", other.raw_os_error()),
    };
    words.into()
}
