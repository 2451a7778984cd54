//! One process and all it leaves behind: output read without ever blocking it, killed at the deadline, nothing left when this returns.
//!
//! The runner is a child subreaper: a descendant that loses its parent becomes the runner's child, `setsid` or not, and never a child of the
//! application's process 1, which may take it for one of its own.

use alloc::vec::Vec;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{OFlags, fcntl_setfl};
use rustix::io::{Errno, read};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{
    Pid, PidfdFlags, Signal, WaitOptions, WaitStatus, getpid, kill_process, pidfd_open, set_child_subreaper, wait,
};

use super::clock::{monotonic_ms, pause, timespec};
use super::files::errno_in_words;
use super::spawn::{Program, Streams, catch_signals, take_termination};
use super::stream::Stream;
use super::tail::Keep;
use super::{proc, spawn};
use crate::protocol::{RunResult, Tail};

/// The longest wait for an event, in milliseconds: how late a SIGTERM is passed on that came just before the wait, and how long a zombie lies.
const TICK_MS: u64 = 200;

/// The same where the kernel has no pidfd (before 5.3), so that the end of a process is noticed by looking.
const BLIND_TICK_MS: u64 = 10;

/// How long to go on killing what is left, in milliseconds. A killed process is gone in microseconds, unless the kernel holds it (a dead disk), it
/// belongs to another user, or it is one of thousands.
const KILL_MS: u64 = 5_000;

/// How long to read what the dead have written, in milliseconds: a pipe holds at most 1 MiB. Only a survivor could go on writing.
const DRAIN_MS: u64 = 1_000;

/// The field `ppid` of `/proc/PID/stat`.
const PARENT: usize = 4;

/// What a pipe holds by default, so that one read empties it.
const PIECE: usize = 64 * 1024;

/// The same where each read becomes a line of its own, of 22 KiB.
const STREAMED_PIECE: usize = 16 * 1024;

/// Where output goes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Output {
    /// To the runner's own streams.
    Passed,
    /// Into the tails.
    Kept,
    /// Into the tails, and to whoever asked, as it comes ([`Stream`]).
    Streamed,
    /// Into tails of at most so many bytes, and only for whoever asked: the process is killed when he is gone ([`caller_is_gone`]).
    Asked {
        /// Of standard output.
        stdout: usize,
        /// Of standard error.
        stderr: usize,
    },
}

/// How it ended.
pub(super) struct Ended {
    pub(super) result: RunResult,
    pub(super) duration_ms: u64,
    pub(super) stdout: Tail,
    pub(super) stderr: Tail,
    /// Descendants that could not be killed.
    pub(super) survivors: u32,
    /// Lines that whoever asked has not taken yet.
    pub(super) unsent: Vec<u8>,
}

impl Ended {
    /// No process was made.
    pub(super) fn unstarted(result: RunResult) -> Self {
        let (stdout, stderr) = (Tail::default(), Tail::default());
        Self { result, duration_ms: 0, stdout, stderr, survivors: 0, unsent: Vec::new() }
    }
}

/// Runs a program to its end, or for at most `timeout_ms`.
pub(super) fn supervise(program: &Program, timeout_ms: u64, output: Output) -> Ended {
    catch_signals();
    let started = monotonic_ms();
    // Refused by no kernel since 3.4; without it a stray grandchild goes to process 1, which no care here could prevent.
    let _ = set_child_subreaper(Some(getpid()));
    match start(program, output) {
        Err(result) => Ended::unstarted(result),
        Ok(mut child) => {
            let result = child.attend(started.saturating_add(timeout_ms), matches!(output, Output::Asked { .. }));
            let survivors = kill_descendants();
            child.drain();
            let unsent = child.stream.take().map(Stream::into_rest).unwrap_or_default();
            let [stdout, stderr] = child.pipes.map(|p| p.keep.tail());
            Ended { result, duration_ms: monotonic_ms() - started, stdout, stderr, survivors, unsent }
        }
    }
}

fn start(program: &Program, output: Output) -> Result<Child, RunResult> {
    let keeps = match output {
        Output::Passed => {
            return Ok(Child::new(program.spawn(&Streams::Inherited)?, [None, None], [Keep::default(), Keep::default()]));
        }
        Output::Kept | Output::Streamed => [Keep::default(), Keep::default()],
        Output::Asked { stdout, stderr } => [Keep::last(stdout), Keep::last(stderr)],
    };
    let pipe = || {
        let (reader, writer) = pipe_with(PipeFlags::CLOEXEC)?;
        fcntl_setfl(&reader, OFlags::NONBLOCK)?;
        Ok((reader, writer))
    };
    let failed = |e| RunResult::NotStarted { message: errno_in_words(e) };
    let (out, out_writer) = pipe().map_err(failed)?;
    let (err, err_writer) = pipe().map_err(failed)?;
    let pid = program.spawn(&Streams::Captured(out_writer.as_fd(), err_writer.as_fd()))?;
    let child = Child::new(pid, [Some(out), Some(err)], keeps);
    Ok(if output == Output::Streamed { child.streamed() } else { child })
}

struct Child {
    pid: Pid,
    /// Readable once the process has ended.
    pidfd: Option<OwnedFd>,
    pipes: [Pipe; 2],
    piece: Vec<u8>,
    stream: Option<Stream>,
}

struct Pipe {
    /// None at its end.
    fd: Option<OwnedFd>,
    keep: Keep,
}

impl Child {
    fn new(pid: Pid, [out, err]: [Option<OwnedFd>; 2], [out_keep, err_keep]: [Keep; 2]) -> Self {
        Self {
            pid,
            pidfd: pidfd_open(pid, PidfdFlags::empty()).ok(),
            pipes: [Pipe { fd: out, keep: out_keep }, Pipe { fd: err, keep: err_keep }],
            piece: alloc::vec![0; PIECE],
            stream: None,
        }
    }

    fn streamed(self) -> Self {
        Self { piece: alloc::vec![0; STREAMED_PIECE], stream: Some(Stream::new()), ..self }
    }

    /// Until the process ends, the deadline comes, or nobody wants to know any more.
    fn attend(&mut self, deadline: u64, asked: bool) -> RunResult {
        loop {
            if let Reaped::Watched(status) = reap(Some(self.pid)) {
                return ended(status);
            }
            if take_termination() {
                let _ = kill_process(self.pid, Signal::TERM);
            }
            let left = deadline.saturating_sub(monotonic_ms());
            if left == 0 {
                return RunResult::TimedOut;
            }
            if asked && caller_is_gone() {
                return RunResult::Interrupted;
            }
            let tick = if self.pidfd.is_some() { TICK_MS } else { BLIND_TICK_MS };
            self.wait(left.min(tick), asked);
            for which in 0..self.pipes.len() {
                if self.stream.as_ref().is_none_or(Stream::has_room) {
                    self.read(which);
                }
            }
            if let Some(stream) = &mut self.stream {
                stream.flush();
            }
        }
    }

    fn wait(&self, ms: u64, asked: bool) {
        let is_read = self.stream.as_ref().is_none_or(Stream::has_room);
        let open = self.pipes.iter().filter_map(|p| p.fd.as_ref()).filter(|_| is_read);
        let mut fds: Vec<_> = open.chain(&self.pidfd).map(|fd| PollFd::new(fd, PollFlags::IN)).collect();
        if self.stream.as_ref().is_some_and(Stream::is_waiting) {
            fds.push(PollFd::from_borrowed_fd(spawn::stdout(), PollFlags::OUT));
        }
        if asked {
            fds.extend(caller());
        }
        let _ = poll(&mut fds, Some(&timespec(ms)));
    }

    /// Reads one of the pipes; whether there was something to read.
    fn read(&mut self, which: usize) -> bool {
        let Some(pipe) = self.pipes.get_mut(which) else { return false };
        let Some(n) = pipe.read(&mut self.piece) else { return false };
        if let Some(stream) = &mut self.stream {
            stream.push(which == 1, self.piece.get(..n).unwrap_or_default());
        }
        true
    }

    /// What was written and not yet read. Nobody writes any more, so an empty pipe is a finished one, though a stranger may hold it open.
    fn drain(&mut self) {
        let end = monotonic_ms() + DRAIN_MS;
        self.stream.as_mut().into_iter().for_each(Stream::takes_the_last);
        for which in 0..self.pipes.len() {
            while self.read(which) && monotonic_ms() < end {}
        }
    }
}

impl Pipe {
    /// How much was read, if there was something to read: nothing at its end.
    fn read(&mut self, piece: &mut [u8]) -> Option<usize> {
        match read(self.fd.as_ref()?, &mut *piece) {
            Ok(n @ 1..) => {
                self.keep.push(piece.get(..n).unwrap_or_default());
                return Some(n);
            }
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => return None,
            Ok(_) | Err(_) => self.fd = None,
        }
        Some(0)
    }
}

/// Whether whoever asked has closed standard input or does not read standard output any more. A stream that is neither pipe nor socket never says it.
pub(super) fn caller_is_gone() -> bool {
    let mut fds = caller();
    let _ = poll(&mut fds, Some(&timespec(0)));
    is_gone(&fds)
}

/// Waits for so many milliseconds at most; says whether there is more to read on standard input.
pub(super) fn another_comes(ms: u64) -> bool {
    let end = monotonic_ms() + ms;
    loop {
        let [_, stdout] = caller();
        let mut fds = [PollFd::from_borrowed_fd(spawn::stdin(), PollFlags::IN), stdout];
        let left = end.saturating_sub(monotonic_ms());
        match poll(&mut fds, Some(&timespec(left))) {
            _ if is_gone(&fds) || take_termination() => return false,
            Err(Errno::INTR) => {}
            ready => return ready.is_ok_and(|n| n > 0),
        }
    }
}

fn is_gone(caller: &[PollFd<'_>; 2]) -> bool {
    caller.iter().any(|fd| fd.revents().intersects(PollFlags::HUP | PollFlags::ERR))
}

/// Nothing is waited for but the end: that is always told.
fn caller() -> [PollFd<'static>; 2] {
    [spawn::stdin(), spawn::stdout()].map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::empty()))
}

enum Reaped {
    /// The one that was asked for ended so.
    Watched(WaitStatus),
    /// Children are there, none has ended.
    Alive,
    /// No child is left.
    None,
}

/// Takes away the children that have ended; as process 1 also those of others.
pub(super) fn reap_strays() {
    reap(None);
}

/// Takes away all children that have ended, up to the watched one.
fn reap(watched: Option<Pid>) -> Reaped {
    loop {
        match wait(WaitOptions::NOHANG) {
            Ok(Some((pid, status))) if Some(pid) == watched => return Reaped::Watched(status),
            Ok(Some(_)) | Err(Errno::INTR) => {}
            Ok(None) => return Reaped::Alive,
            Err(_) => return Reaped::None,
        }
    }
}

fn ended(status: WaitStatus) -> RunResult {
    match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => RunResult::Exited { code },
        (_, Some(signal)) => RunResult::Signaled { signal },
        _ => RunResult::Unknown,
    }
}

/// Kills and reaps until no child is left, and returns how many are.
///
/// Only direct children are killed: their process ids cannot be taken by others before they are reaped here. Their own children become ours as
/// they die, so each round goes one generation down.
fn kill_descendants() -> u32 {
    let end = monotonic_ms() + KILL_MS;
    loop {
        if matches!(reap(None), Reaped::None) {
            return 0;
        }
        let children = children();
        if monotonic_ms() >= end {
            return u32::try_from(children.len()).unwrap_or(u32::MAX).max(1);
        }
        for pid in &children {
            let _ = kill_process(*pid, Signal::KILL);
        }
        await_end(children.first().copied());
    }
}

/// A moment, or less if the process ends.
fn await_end(pid: Option<Pid>) {
    match pid.and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok()) {
        Some(fd) => {
            let _ = poll(&mut [PollFd::new(&fd, PollFlags::IN)], Some(&timespec(BLIND_TICK_MS)));
        }
        None => pause(1),
    }
}

/// The processes whose parent is this one.
fn children() -> Vec<Pid> {
    let own = u64::try_from(getpid().as_raw_pid()).ok();
    let is_child = |pid: &i32| proc::stat("/proc", *pid, PARENT) == own;
    proc::pids("/proc").into_iter().filter(is_child).filter_map(Pid::from_raw).collect()
}
