//! A process like this one: made without becoming another program, and ended without any clean-up.

use rustix::fd::OwnedFd;
use rustix::io::Errno;
use rustix::stdio::{dup2_stdin, dup2_stdout};

use super::spawn::{last_error, set_signal};

/// Lets every signal that an image may name for its end (`STOPSIGNAL`) end this process at once. As process 1 it would get none of them else.
pub(super) fn leave_on_signals() {
    const SIGNALS: [libc::c_int; 8] = [
        libc::SIGTERM,
        libc::SIGINT,
        libc::SIGQUIT,
        libc::SIGHUP,
        libc::SIGUSR1,
        libc::SIGUSR2,
        libc::SIGWINCH,
        // SIGRTMIN+3, which systemd takes for a halt.
        37,
    ];
    for signal in SIGNALS {
        set_signal(signal, leave_at_once as *const () as libc::sighandler_t);
    }
}

extern "C" fn leave_at_once(_: libc::c_int) {
    leave()
}

fn leave() -> ! {
    #[expect(unsafe_code, reason = "to leave without any clean-up, from within a signal handler or a child")]
    // SAFETY: `_exit` takes a number and does not return; it may be called from a signal handler.
    unsafe {
        libc::_exit(0)
    }
}

/// This process, or the one that was made.
pub(super) enum Forked {
    /// The one that goes on.
    Parent,
    /// The one that was made.
    Child(Child),
}

/// A process that was made by [`fork`], and goes on with what the other one knew.
pub(super) struct Child(());

impl Child {
    /// Its end.
    pub(super) fn leave(self) -> ! {
        leave()
    }
}

/// More files than a process here has open.
const MAX_FILES: i32 = 256;

/// Makes a process that has nothing of this one open but its standard error, and `stream` as its standard input and output.
pub(super) fn fork(stream: &OwnedFd) -> Result<Forked, Errno> {
    #[expect(unsafe_code, reason = "fork has no safe form")]
    // SAFETY: the process has one thread, so the child sees a consistent heap and no lock is held.
    let forked = unsafe { libc::fork() };
    match forked {
        0 => {
            if dup2_stdin(stream).and_then(|()| dup2_stdout(stream)).is_err() {
                leave();
            }
            for fd in 3..MAX_FILES {
                #[expect(unsafe_code, reason = "files are closed that are somebody's")]
                // SAFETY: what owns them is never looked at again, and never dropped: this process ends by `leave`.
                unsafe {
                    libc::close(fd);
                }
            }
            Ok(Forked::Child(Child(())))
        }
        1.. => Ok(Forked::Parent),
        _ => Err(last_error()),
    }
}
