//! What only unsafe code can do: make a process, become another program, take signals, name the standard streams.
//!
//! The runner has one thread. That is why a child may allocate nothing and still do all it needs between fork and exec: everything is made before.

use alloc::ffi::CString;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::ffi::CStr;
use core::ptr;
use core::sync::atomic::{AtomicBool, Ordering};

use rustix::fd::{AsFd, AsRawFd, BorrowedFd, IntoRawFd, OwnedFd};
use rustix::fs::{Access, Mode, OFlags, access, open};
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{
    Pid, Resource, Rlimit, Signal, WaitOptions, getpid, getppid, getrlimit, set_child_subreaper, set_parent_process_death_signal,
    setrlimit, setsid, waitpid,
};
use rustix::stdio::{dup2_stderr, dup2_stdin, dup2_stdout};

use super::Environment;
use super::files::{errno_in_words, read_start};
use crate::protocol::{EMPTY_COMMAND, RunResult};

/// Where programs are looked up when the environment has no `PATH`: what container runtimes set.
const DEFAULT_PATH: &[u8] = b"/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// A program with its arguments and environment, in the form that the kernel takes.
pub(super) struct Program {
    /// Where it may be: one path, or one for each directory of `PATH`.
    candidates: Vec<CString>,
    argv: Vec<CString>,
    env: Vec<CString>,
    /// Most bytes of memory of each of its processes.
    memory: Option<u64>,
}

/// Where the child's output goes.
pub(super) enum Streams<'a> {
    /// Where the runner's own goes.
    Inherited,
    /// Into these pipes: standard output, standard error.
    Captured(BorrowedFd<'a>, BorrowedFd<'a>),
}

impl Program {
    /// # Errors
    /// When there is no program, or something holds a zero byte.
    pub(super) fn new(argv: &[&[u8]], env: &Environment) -> Result<Self, RunResult> {
        let zero = |_| RunResult::NotExecutable { what: "a zero byte in an argument or in the environment".into() };
        let name = argv.first().copied().unwrap_or_default();
        if name.is_empty() {
            return Err(RunResult::NotFound { what: EMPTY_COMMAND.into() });
        }
        let join = |parts: [&[u8]; 3]| CString::new(parts.concat()).map_err(zero);
        let candidates = if name.contains(&b'/') {
            [join([name, b"", b""])].into_iter().collect()
        } else {
            let path = env.get(&b"PATH"[..]).map_or(DEFAULT_PATH, Vec::as_slice);
            path.split(|b| *b == b':')
                .map(|dir| join([if dir.is_empty() { b"." } else { dir }, b"/", name]))
                .collect::<Result<_, _>>()
        };
        Ok(Self {
            candidates: candidates?,
            argv: argv.iter().map(|a| join([a, b"", b""])).collect::<Result<_, _>>()?,
            env: env.iter().map(|(k, v)| join([k, b"=", v])).collect::<Result<_, _>>()?,
            memory: None,
        })
    }

    /// The same, each of its processes limited to so many bytes of memory.
    pub(super) fn limited_to(self, memory: u64) -> Self {
        Self { memory: Some(memory), ..self }
    }

    /// Starts it as the leader of a session of its own, standard input empty, to be killed when the runner dies.
    ///
    /// # Errors
    /// The result to report, when no process was made or the program cannot be executed.
    pub(super) fn spawn(&self, streams: &Streams<'_>) -> Result<Pid, RunResult> {
        let failed = |what: &str, e| RunResult::NotStarted { message: format!("{what}: {}", errno_in_words(e)) };
        let null = open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()).map_err(|e| failed("/dev/null", e))?;
        let (reader, writer) = pipe_with(PipeFlags::CLOEXEC).map_err(|e| failed("pipe", e))?;
        let (argv, env) = (pointers(&self.argv), pointers(&self.env));
        let runner = getpid();
        #[expect(unsafe_code, reason = "fork has no safe form")]
        // SAFETY: the process has one thread, so the child sees a consistent heap and no lock is held; besides it only makes system calls.
        let forked = unsafe { libc::fork() };
        match Pid::from_raw(forked) {
            None if forked == 0 => {
                let e = self.become_child(runner, null.as_fd(), streams, &argv, &env);
                report_and_exit(writer.as_fd(), e)
            }
            Some(pid) if forked > 0 => {
                drop(writer);
                match read_failure(&reader) {
                    None => Ok(pid),
                    Some((index, errno)) => {
                        // It is about to leave. Were the runner gone before, it would be left to the application's process 1.
                        while matches!(waitpid(Some(pid), WaitOptions::empty()), Err(Errno::INTR)) {}
                        Err(self.failure(index, errno))
                    }
                }
            }
            _ => Err(failed("fork", last_error())),
        }
    }

    /// Becomes the program, in place of the runner, as if the runner had never been there. Returns only when that fails.
    pub(super) fn replace(&self) -> RunResult {
        let _ = set_child_subreaper(None);
        default_signals();
        let (index, errno) = self.exec(&pointers(&self.argv), &pointers(&self.env));
        self.failure(index, errno)
    }

    /// In the child. Returns only on failure.
    fn become_child(
        &self,
        runner: Pid,
        stdin: BorrowedFd<'_>,
        streams: &Streams<'_>,
        argv: &[*const libc::c_char],
        env: &[*const libc::c_char],
    ) -> (usize, Errno) {
        default_signals();
        let prepared = setsid()
            .and_then(|_| set_parent_process_death_signal(Some(Signal::KILL)))
            .and_then(|()| self.memory.map_or(Ok(()), limit_memory))
            .and_then(|()| dup2_stdin(stdin))
            .and_then(|()| match streams {
                Streams::Inherited => Ok(()),
                Streams::Captured(out, err) => dup2_stdout(out).and_then(|()| dup2_stderr(err)),
            });
        match prepared {
            Err(e) => (0, e),
            // The runner died before the death signal was asked for.
            Ok(()) if getppid() != Some(runner) => (0, Errno::CHILD),
            Ok(()) => self.exec(argv, env),
        }
    }

    /// Tries each candidate as `execvp` does: one that is not there is passed over, one that is forbidden is remembered.
    fn exec(&self, argv: &[*const libc::c_char], env: &[*const libc::c_char]) -> (usize, Errno) {
        let mut failure = (0, Errno::NOENT);
        for (index, path) in self.candidates.iter().enumerate() {
            match (execve(path, argv, env), failure.1) {
                (Errno::NOENT | Errno::NOTDIR, _) | (Errno::ACCESS, Errno::ACCESS) => {}
                (Errno::ACCESS, _) => failure = (index, Errno::ACCESS),
                (other, _) => return (index, other),
            }
        }
        failure
    }

    /// What a failed exec of a candidate means. "No such file" is said of a missing interpreter too.
    fn failure(&self, index: usize, errno: Errno) -> RunResult {
        let text = |path: &CStr| String::from_utf8_lossy(path.to_bytes()).into_owned();
        if errno == Errno::NOENT {
            let there = self.candidates.iter().find(|c| access(c.as_c_str(), Access::EXISTS).is_ok());
            let name = self.argv.first().map(|a| text(a)).unwrap_or_default();
            return RunResult::NotFound {
                what: match there {
                    None if self.candidates.len() > 1 => format!("{name} in PATH"),
                    None => name,
                    Some(path) => format!("{}, the interpreter of {}", interpreter(path), text(path)),
                },
            };
        }
        let path = self.candidates.get(index).map(|c| text(c)).unwrap_or_default();
        RunResult::NotExecutable { what: format!("{path}: {}", errno_in_words(errno)) }
    }
}

/// Lowers the limit, never raises it.
fn limit_memory(bytes: u64) -> Result<(), Errno> {
    let now = getrlimit(Resource::Data);
    let lower = |limit: Option<u64>| Some(limit.map_or(bytes, |limit| limit.min(bytes)));
    setrlimit(Resource::Data, Rlimit { current: lower(now.current), maximum: lower(now.maximum) })
}

/// What the first line of a script names, or the loader of a dynamic program, which is not read here.
fn interpreter(path: &CStr) -> String {
    let start = read_start(path, 256).unwrap_or_default();
    let line = start.split(|b| *b == b'\n').next().unwrap_or_default();
    match line.strip_prefix(b"#!") {
        Some(rest) => String::from_utf8_lossy(rest).trim().into(),
        None => "the loader".into(),
    }
}

fn pointers(strings: &[CString]) -> Vec<*const libc::c_char> {
    strings.iter().map(|s| s.as_ptr()).chain([ptr::null()]).collect()
}

#[expect(unsafe_code, reason = "execve takes pointers")]
fn execve(path: &CStr, argv: &[*const libc::c_char], env: &[*const libc::c_char]) -> Errno {
    // SAFETY: both arrays come from `pointers`: they end with null and point into strings that the caller's `Program` owns.
    unsafe {
        libc::execve(path.as_ptr(), argv.as_ptr(), env.as_ptr());
    }
    last_error()
}

#[expect(unsafe_code, reason = "errno is behind a pointer")]
pub(super) fn last_error() -> Errno {
    // SAFETY: errno of this thread, always there.
    Errno::from_raw_os_error(unsafe { *libc::__errno_location() })
}

/// Eight bytes through a pipe that a successful exec closes: the index of the candidate, and the error.
fn report_and_exit(writer: BorrowedFd<'_>, (index, errno): (usize, Errno)) -> ! {
    let mut report = [0; 8];
    let (at, what) = report.split_at_mut(4);
    at.copy_from_slice(&u32::try_from(index).unwrap_or(0).to_ne_bytes());
    what.copy_from_slice(&errno.raw_os_error().to_ne_bytes());
    let _ = rustix::io::write(writer, &report);
    #[expect(unsafe_code, reason = "the child must leave without running the parent's clean-up")]
    // SAFETY: `_exit` takes a number and does not return.
    unsafe {
        libc::_exit(127)
    }
}

fn read_failure(reader: &OwnedFd) -> Option<(usize, Errno)> {
    let mut report = [0; 8];
    let n = loop {
        match rustix::io::read(reader, &mut report) {
            Err(Errno::INTR) => {}
            other => break other.unwrap_or(0),
        }
    };
    let [a, b, c, d, e, f, g, h] = report;
    let index = u32::from_ne_bytes([a, b, c, d]) as usize;
    (n == report.len()).then(|| (index, Errno::from_raw_os_error(i32::from_ne_bytes([e, f, g, h]))))
}

/// Set by SIGTERM.
static TERMINATED: AtomicBool = AtomicBool::new(false);

extern "C" fn note_termination(_: libc::c_int) {
    TERMINATED.store(true, Ordering::Relaxed);
}

/// Outlives its caller and a reader that is gone, and keeps SIGTERM for [`take_termination`]: in an init container the runner is process 1, which
/// the kernel would otherwise not let the signal reach.
pub(super) fn catch_signals() {
    set_signal(libc::SIGHUP, libc::SIG_IGN);
    set_signal(libc::SIGPIPE, libc::SIG_IGN);
    // Whoever starts a program with SIGCHLD ignored takes the exit codes of its children away.
    set_signal(libc::SIGCHLD, libc::SIG_DFL);
    set_signal(libc::SIGTERM, note_termination as *const () as libc::sighandler_t);
}

/// Whether SIGTERM came since the last call.
pub(super) fn take_termination() -> bool {
    TERMINATED.swap(false, Ordering::Relaxed)
}

/// What an ignored signal is stays ignored after exec: a program must get the usual.
fn default_signals() {
    for signal in [libc::SIGHUP, libc::SIGPIPE, libc::SIGTERM] {
        set_signal(signal, libc::SIG_DFL);
    }
}

#[expect(unsafe_code, reason = "signal takes a pointer to a function")]
pub(super) fn set_signal(signal: libc::c_int, disposition: libc::sighandler_t) {
    // SAFETY: the disposition is one of the two constants, or a handler that only stores to an atomic.
    unsafe {
        libc::signal(signal, disposition);
    }
}

/// Opens `/dev/null` for each of the three standard streams that is closed, so that no file of ours takes its number.
pub(super) fn open_missing_streams() {
    while let Ok(fd) = open("/dev/null", OFlags::RDWR, Mode::empty()) {
        if fd.as_raw_fd() > 2 {
            return;
        }
        let _ = fd.into_raw_fd();
    }
}

/// Standard input.
pub(super) fn stdin() -> BorrowedFd<'static> {
    standard(0)
}

/// Standard output.
pub(super) fn stdout() -> BorrowedFd<'static> {
    standard(1)
}

/// Standard error.
pub(super) fn stderr() -> BorrowedFd<'static> {
    standard(2)
}

#[expect(unsafe_code, reason = "a standard stream is a number")]
fn standard(number: i32) -> BorrowedFd<'static> {
    // SAFETY: `open_missing_streams` has made sure of all three, and nothing closes them.
    unsafe { BorrowedFd::borrow_raw(number) }
}
