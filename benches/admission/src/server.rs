//! A server under measurement: its process, and what the kernel tells about it.

use std::fs::File;
use std::io::Read as _;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;

use guardian_bench_core::{IMAGE, INSTALLATION};
use tokio::sync::watch;

use crate::BenchError;
use crate::certificates::NAME;

/// How long the last audit lines may take.
const AUDIT: Duration = Duration::from_secs(10);

/// Which server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    /// The bare echo.
    Echo,
    /// The guardian.
    Ours,
    /// The webhook in Go.
    Go,
}

impl Kind {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Echo => "echo",
            Self::Ours => "ours",
            Self::Go => "go",
        }
    }

    /// Where it answers reviews of this case.
    pub(crate) fn path(self, case: &str) -> String {
        match self {
            Self::Echo => format!("/{case}"),
            Self::Ours | Self::Go => "/mutate?timeout=2s".to_owned(),
        }
    }
}

/// What the servers are started with.
pub(crate) struct Setup {
    pub(crate) directory: PathBuf,
    pub(crate) answers: PathBuf,
    pub(crate) kubeconfig: PathBuf,
    pub(crate) guardian: PathBuf,
    pub(crate) peer: PathBuf,
}

/// A server that runs, until it is dropped.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    log: PathBuf,
    child: Child,
    audit: Option<watch::Receiver<u64>>,
}

impl Server {
    /// Starts one. Whether it serves is for the first request to find out.
    pub(crate) fn start(kind: Kind, setup: &Setup) -> Result<Self, BenchError> {
        let (address, probe) = (free()?, free()?);
        let directory = &setup.directory;
        let mut command = match kind {
            Kind::Echo => {
                let mut command = Command::new(std::env::current_exe()?);
                command.args(["echo", "--listen", &address.to_string()]);
                command.arg("--certificates").arg(directory).arg("--answers").arg(&setup.answers);
                command
            }
            Kind::Ours => {
                let mut command = Command::new(&setup.guardian);
                command.args(["webhook", "--listen", &address.to_string(), "--probe-listen", &probe.to_string()]);
                command
                    .args(["--server-name", NAME, "--image", IMAGE, "--installation", INSTALLATION])
                    .arg("--certificates")
                    .arg(directory);
                command.env("KUBECONFIG", &setup.kubeconfig);
                command
            }
            Kind::Go => {
                let mut command = Command::new(&setup.peer);
                command.args(["-port", &address.port().to_string(), "-image", IMAGE, "-certificates"]).arg(directory);
                command
            }
        };
        let log = directory.join(format!("{}.log", kind.name()));
        // What a container has: a pipe, and somebody who reads it.
        let out = if kind == Kind::Ours { Stdio::piped() } else { Stdio::null() };
        let spawned = command.stdin(Stdio::null()).stdout(out).stderr(File::create(&log)?).spawn();
        let mut child = spawned.map_err(|source| BenchError::Start { program: command.get_program().into(), source })?;
        let audit = child.stdout.take().map(count_lines);
        Ok(Self { address, log, child, audit })
    }

    /// Fails when it has ended.
    pub(crate) fn alive(&mut self) -> Result<(), BenchError> {
        match self.child.try_wait()? {
            None => Ok(()),
            Some(status) => Err(BenchError::Ended { status, log: std::fs::read_to_string(&self.log).unwrap_or_default() }),
        }
    }

    /// Time that its threads have computed so far, in seconds. Not from `stat`, whose ticks of 10 ms are as much as a thousand echoes take.
    pub(crate) fn cpu(&self) -> Result<f64, BenchError> {
        let mut nanoseconds = 0.0;
        for thread in std::fs::read_dir(self.proc("task"))? {
            let told = std::fs::read_to_string(thread?.path().join("schedstat"))?;
            let computed = told.split_ascii_whitespace().next().and_then(|field| field.parse::<f64>().ok());
            nanoseconds += computed.ok_or(BenchError::Proc)?;
        }
        Ok(nanoseconds / 1e9)
    }

    /// Resident memory in KiB: the most that there was, and what there is.
    pub(crate) fn memory(&self) -> Result<Memory, BenchError> {
        let status = std::fs::read_to_string(self.proc("status"))?;
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name)?.split_ascii_whitespace().next()?.parse().ok());
            line.ok_or(BenchError::Proc)
        };
        Ok(Memory { peak: field("VmHWM:")?, now: field("VmRSS:")? })
    }

    /// Waits until the audit trail has a line for each of so many requests: it is on, and nothing is dropped.
    pub(crate) async fn audited(&mut self, requests: usize) -> Result<(), BenchError> {
        let Some(lines) = &mut self.audit else { return Ok(()) };
        let enough = lines.wait_for(|lines| *lines >= requests as u64);
        let told = matches!(tokio::time::timeout(AUDIT, enough).await, Ok(Ok(_)));
        if told { Ok(()) } else { Err(BenchError::Audit { requests, lines: *lines.borrow() }) }
    }

    fn proc(&self, file: &str) -> PathBuf {
        Path::new("/proc").join(self.child.id().to_string()).join(file)
    }
}

/// Nothing of it is needed any more.
impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Resident memory in KiB.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Memory {
    pub(crate) peak: u64,
    pub(crate) now: u64,
}

/// A port of the loopback interface that nobody has at this moment.
fn free() -> Result<SocketAddr, BenchError> {
    Ok(TcpListener::bind(("127.0.0.1", 0))?.local_addr()?)
}

/// Reads to the end and counts the lines.
fn count_lines(mut out: ChildStdout) -> watch::Receiver<u64> {
    let (count, counted) = watch::channel(0);
    std::thread::spawn(move || {
        let mut buffer = vec![0; 64 << 10];
        while let Ok(length @ 1..) = out.read(&mut buffer) {
            let lines = buffer.iter().take(length).filter(|byte| **byte == b'\n').count();
            count.send_modify(|count| *count += lines as u64);
        }
    });
    counted
}
