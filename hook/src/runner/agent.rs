//! `agent`: asks its questions by itself, again and again, keeps the last answers, and serves them to whoever can reach its port.
//!
//! Whoever connects can read, and nothing else: the questions come in a file ([`AGENDA`]), which only those can write who may run commands in the pod.
//! It is one process, which waits for everything at once; each question that is due is asked by a process of its own, so that a command that hangs keeps
//! nobody waiting who wants to read. Those end with it, and what they have started ends with them.
//!
//! It never ends by itself: it is a sidecar, and a pod is not ready while one of its sidecars does not run. What is amiss it says, and tries again.

mod agenda;
mod connection;
mod page;

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fd::{AsFd, OwnedFd};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6, SocketFlags, SocketType, accept_with, bind,
    getsockname, listen, socket_with, sockopt,
};

use super::clock::{monotonic_ms, timespec};
use super::files::{Watch, errno_in_words, read_whole};
use super::fork::leave_on_signals;
use super::home::{Home, Pod};
use super::supervise::reap_strays;
use super::{Environment, cgroup, complain, spawn};
use crate::protocol::{AGENDA, AGENT_PORT, Agenda, MAX_PROBE_MEMORY, MAX_PUT};
use agenda::Work;
use connection::Connection;

/// Most connections at a time. Each is over after [`connection::WITHIN_MS`] and takes at most 40 KiB while it lasts.
const MAX_CONNECTIONS: usize = 16;

/// Connections that wait for a place.
const BACKLOG: i32 = 64;

/// How often to look for what nobody tells, in milliseconds: a port that was taken, a node without inotify.
const LOOK_MS: u64 = 1_000;

/// The same where all is well, and the kernel tells what changes.
const REST_MS: u64 = 60_000;

/// Serves until a signal ends it. `GUARDIAN_AGENT_PORT` names another port, 0 any that is free, for tests.
pub(super) fn agent(home: &Home, env: &Environment) -> u8 {
    spawn::catch_signals();
    leave_on_signals();
    let limit = cgroup::usage(env).memory_limit_bytes;
    // A command that grows must fail before the kernel ends all that the container runs.
    let memory = limit.map_or(MAX_PROBE_MEMORY, |limit| (limit / 2).min(MAX_PROBE_MEMORY));
    let mut agent = Agent {
        home,
        env,
        memory,
        port: port(env),
        pod: None,
        work: Work::default(),
        watch: Watch::on(home.directory()),
        listener: None,
        connections: Vec::new(),
        complaint: None,
        look_at: 0,
    };
    loop {
        agent.turn();
    }
}

fn port(env: &Environment) -> u16 {
    let named = env.get(&b"GUARDIAN_AGENT_PORT"[..]).and_then(|text| core::str::from_utf8(text).ok()?.parse().ok());
    named.unwrap_or(AGENT_PORT)
}

struct Agent<'a> {
    home: &'a Home,
    env: &'a Environment,
    /// Bytes that each process of a command may ask for.
    memory: u64,
    port: u16,
    /// `pod.json`, once it could be read.
    pod: Option<Pod>,
    work: Work,
    watch: Watch,
    listener: Option<OwnedFd>,
    connections: Vec<Connection>,
    /// What was said last to be amiss, so that it is said once.
    complaint: Option<String>,
    /// When to look at the files again, unless their directory changes before.
    look_at: u64,
}

impl Agent<'_> {
    /// Does all that can be done now, then waits until there is more.
    fn turn(&mut self) {
        let now = monotonic_ms();
        if now >= self.look_at {
            self.look(now);
        }
        reap_strays();
        self.work.hear(now);
        if let Some(pod) = &self.pod {
            self.work.ask(self.home, pod, self.env, self.memory, now);
        }
        self.accept(now);
        let (work, pod) = (&self.work, self.pod.as_ref());
        self.connections.retain_mut(|connection| connection.go_on(work, pod, now));
        self.wait(now);
    }

    /// Until something is there to be read or written, or a question is due.
    fn wait(&mut self, now: u64) {
        let until = self.connections.iter().map(Connection::ends).fold(self.look_at, u64::min);
        let until = self.work.next_due().map_or(until, |due| due.min(until));
        let reads = |fd| PollFd::from_borrowed_fd(fd, PollFlags::IN);
        let listener = self.listener.as_ref().filter(|_| self.has_room()).map(AsFd::as_fd);
        let own = self.watch.fd().into_iter().chain(listener);
        let mut fds: Vec<PollFd<'_>> = own.chain(self.work.sockets()).map(reads).collect();
        fds.extend(self.connections.iter().map(Connection::poll));
        let _ = poll(&mut fds, Some(&timespec(until.saturating_sub(now))));
        if self.watch.take() {
            self.look_at = 0;
        }
    }

    /// Takes the port, reads who the pod is, and what is to be asked. What is amiss is said once, and looked at again soon.
    fn look(&mut self, now: u64) {
        let listens = self.listen();
        let complaint = self.read().and(listens).err();
        let well = complaint.is_none() && self.watch.fd().is_some();
        if let Some(complaint) = complaint.as_ref().filter(|complaint| Some(*complaint) != self.complaint.as_ref()) {
            complain(complaint);
        }
        self.complaint = complaint;
        self.look_at = now + if well { REST_MS } else { LOOK_MS };
    }

    fn read(&mut self) -> Result<(), String> {
        if self.pod.is_none() {
            self.pod = Some(self.home.pod().map_err(|e| e.to_string())?);
        }
        let bytes = match read_whole(&self.home.put_file(AGENDA), MAX_PUT) {
            Ok(bytes) => bytes,
            // Nobody has asked for anything yet.
            Err(e) if e.errno == Errno::NOENT => return Ok(()),
            Err(e) => return Err(e.to_string()),
        };
        let agenda: Agenda = serde_json::from_slice(&bytes).map_err(|e| format!("{AGENDA} cannot be read: {e}"))?;
        if let Some(fault) = agenda.fault() {
            return Err(format!("{AGENDA} is refused: {fault}"));
        }
        self.work.take(agenda, monotonic_ms());
        Ok(())
    }

    /// A pod has one network for all of its containers, so another may have taken the port.
    fn listen(&mut self) -> Result<(), String> {
        if self.listener.is_none() {
            let failed = |e| format!("the agent cannot listen on port {}: {}", self.port, errno_in_words(e));
            let (listener, port) = listener(self.port).map_err(failed)?;
            complain(&format!("the agent listens on port {port}"));
            self.listener = Some(listener);
        }
        Ok(())
    }

    fn has_room(&self) -> bool {
        self.connections.len() < MAX_CONNECTIONS || self.connections.iter().any(Connection::gives_way)
    }

    /// Takes connections as far as there is room. One that has not said yet what it wants, or has been told, gives way to another that comes.
    fn accept(&mut self, now: u64) {
        while let Some(listener) = self.listener.as_ref().filter(|_| self.has_room()) {
            match accept_with(listener, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK) {
                Ok(socket) => {
                    let oldest = self.connections.iter().position(Connection::gives_way);
                    if let Some(oldest) = oldest.filter(|_| self.connections.len() >= MAX_CONNECTIONS) {
                        self.connections.remove(oldest);
                    }
                    let mut connection = Connection::new(socket, now);
                    if connection.go_on(&self.work, self.pod.as_ref(), now) {
                        self.connections.push(connection);
                    }
                }
                // It went away before it was taken.
                Err(Errno::INTR | Errno::CONNABORTED) => {}
                Err(Errno::AGAIN) => return,
                // No more files, or memory, on the whole node: in a while there may be.
                Err(_) => {
                    self.listener = None;
                    self.look_at = now + LOOK_MS;
                }
            }
        }
    }
}

/// On all addresses of both families, or of the older alone where the kernel has no other; and which port that is.
fn listener(port: u16) -> Result<(OwnedFd, u16), Errno> {
    let socket = match bound(AddressFamily::INET6, port) {
        Err(Errno::AFNOSUPPORT | Errno::ADDRNOTAVAIL) => bound(AddressFamily::INET, port)?,
        other => other?,
    };
    listen(&socket, BACKLOG)?;
    let own = getsockname(&socket).ok().and_then(|address| SocketAddr::try_from(address).ok());
    Ok((socket, own.map_or(port, |address| address.port())))
}

fn bound(family: AddressFamily, port: u16) -> Result<OwnedFd, Errno> {
    let socket = socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK, None)?;
    sockopt::set_socket_reuseaddr(&socket, true)?;
    if family == AddressFamily::INET6 {
        sockopt::set_ipv6_v6only(&socket, false)?;
        bind(&socket, &SocketAddrV6::new(Ipv6Addr::UNSPECIFIED, port, 0, 0))?;
    } else {
        bind(&socket, &SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, port))?;
    }
    Ok(socket)
}
