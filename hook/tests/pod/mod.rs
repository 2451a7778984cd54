//! A pod on this machine: a directory in place of `/guardian`, and the runner as a process of its own.

#![allow(dead_code, reason = "every test file is a program of its own and uses a part of this")]
#![allow(unreachable_pub, reason = "shared by programs, not by crates")]
#![expect(clippy::unwrap_used, clippy::panic, reason = "a helper that fails fails its test")]

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use guardian_hook::protocol::{InPodHook, Installed, OnFailure, Outcome, PROTOCOL, Program, Request, RunResult, frame};

/// The uid of every pod here.
pub const UID: &str = "0f1e2d3c";

/// The directory.
pub struct Pod {
    dir: tempfile::TempDir,
}

impl Pod {
    /// With the identity of `redis-sts-1` and no hooks.
    pub fn new() -> Self {
        Self::with(&installed(BTreeMap::new()))
    }

    /// Installed by `install`.
    pub fn with(installed: &Installed) -> Self {
        let pod = Self { dir: tempfile::tempdir().unwrap() };
        let out = pod.install(installed).output().unwrap();
        assert!(out.status.success(), "{out:?}");
        pod
    }

    /// Where nothing was installed yet.
    pub fn empty() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }

    pub fn install(&self, installed: &Installed) -> Command {
        let mut command = self.command("install");
        command
            .env("GUARDIAN_SPEC", installed.encode().unwrap())
            .env("GUARDIAN_POD_UID", UID)
            .env("GUARDIAN_POD", "redis-sts-1")
            .env("GUARDIAN_NAMESPACE", "shop");
        command
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap_or_else(|e| panic!("{name}: {e}"))
    }

    /// The runner, with a command.
    pub fn command(&self, name: &str) -> Command {
        let mut command = Command::new(binary());
        // Not a pipe, so that no preStop here writes into the log of this machine's process 1.
        command.arg(name).env("GUARDIAN_DIR", self.dir.path()).env("GUARDIAN_LOG", "/dev/null");
        command.env_remove("GUARDIAN_HOOK_BINARY");
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// Starts a command with these bytes on standard input.
    pub fn start(&self, command: &str, bytes: &[u8]) -> Child {
        let mut child = self.command(command).stdin(Stdio::piped()).spawn().unwrap();
        // A runner that refuses early does not read on.
        let _ = child.stdin.take().unwrap().write_all(bytes);
        child
    }

    pub fn start_run(&self, request: &Request) -> Child {
        self.start("run", &frame(request).unwrap())
    }

    pub fn run(&self, request: &Request) -> Outcome {
        outcome(&self.start_run(request).wait_with_output().unwrap())
    }

    /// Runs a shell script under this id.
    pub fn sh(&self, run_id: &str, text: &str) -> Outcome {
        self.run(&script(run_id, text))
    }

    /// The outcome of bytes that may be no request.
    pub fn ask(&self, bytes: &[u8]) -> Outcome {
        outcome(&self.start("run", bytes).wait_with_output().unwrap())
    }

    /// A named pipe in the pod, to meet a script at.
    pub fn fifo(&self, name: &str) -> PathBuf {
        let path = self.path(name);
        assert!(Command::new("mkfifo").arg(&path).status().unwrap().success());
        path
    }

    /// The names in `run/`.
    pub fn runs(&self) -> Vec<String> {
        let mut names: Vec<_> =
            fs::read_dir(self.path("run")).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    /// The living processes of this pod, known by the directory in their environment.
    pub fn processes(&self) -> Vec<u32> {
        let variable = [b"GUARDIAN_DIR=", self.dir.path().as_os_str().as_bytes()].concat();
        let is_ours =
            |pid: &u32| fs::read(format!("/proc/{pid}/environ")).is_ok_and(|env| env.split(|b| *b == 0).any(|v| v == variable));
        let entries = fs::read_dir("/proc").unwrap().flatten();
        entries.filter_map(|e| e.file_name().to_str()?.parse().ok()).filter(is_ours).collect()
    }
}

/// A test that fails leaves no process either.
impl Drop for Pod {
    fn drop(&mut self) {
        for pid in self.processes() {
            let pid = pid.try_into().ok().and_then(rustix::process::Pid::from_raw);
            let _ = pid.map(|pid| rustix::process::kill_process(pid, rustix::process::Signal::KILL));
        }
    }
}

/// The runner under test: `GUARDIAN_HOOK_BINARY` names the released form.
pub fn binary() -> PathBuf {
    std::env::var_os("GUARDIAN_HOOK_BINARY").map_or_else(|| env!("CARGO_BIN_EXE_guardian-hook").into(), PathBuf::from)
}

/// A shell script as a request with a timeout of ten seconds. It runs in the directory of the pod.
pub fn script(run_id: &str, text: &str) -> Request {
    let program = Program::Script { name: "test.sh".into(), text: format!("#!/bin/sh\ncd \"$GUARDIAN_DIR\"\n{text}\n") };
    request(run_id, program)
}

pub fn command(run_id: &str, argv: &[&str]) -> Request {
    request(run_id, Program::Command(argv.iter().map(ToString::to_string).collect()))
}

pub fn request(run_id: &str, program: Program) -> Request {
    Request {
        version: PROTOCOL,
        pod_uid: UID.into(),
        run_id: run_id.into(),
        hook: "rejoin".into(),
        program,
        env: BTreeMap::new(),
        timeout_ms: 10_000,
        stream: false,
    }
}

pub fn installed(hooks: BTreeMap<String, InPodHook>) -> Installed {
    Installed { format: 1, service: "redis".into(), set: "redis-sts".into(), hooks, chained: None, reason_wait_ms: 0 }
}

/// Installed with one hook, a shell script.
pub fn with_hook(name: &str, text: &str) -> Installed {
    let program = Program::Script { name: format!("{name}.sh"), text: format!("#!/bin/sh\ncd \"$GUARDIAN_DIR\"\n{text}\n") };
    let hook = InPodHook { program, timeout_ms: 10_000, env: BTreeMap::new(), on_failure: OnFailure::Continue };
    installed(BTreeMap::from([(name.into(), hook)]))
}

/// The one line that a runner prints.
pub fn outcome(out: &Output) -> Outcome {
    assert!(out.status.success(), "{out:?}");
    assert_eq!(out.stdout.iter().filter(|b| **b == b'\n').count(), 1, "{out:?}");
    serde_json::from_slice(&out.stdout).unwrap_or_else(|e| panic!("{e}: {out:?}"))
}

pub fn exited(code: i32) -> RunResult {
    RunResult::Exited { code }
}

/// Waits for a condition that no file descriptor tells; fails after ten seconds.
pub fn until(what: &str, condition: impl Fn() -> bool) {
    let end = Instant::now() + Duration::from_secs(10);
    while !condition() {
        assert!(Instant::now() < end, "waited in vain until {what}");
        std::thread::park_timeout(Duration::from_millis(2));
    }
}

/// Whether a process waits for a change in a directory.
pub fn watches(pid: u32) -> bool {
    let fds = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    fds.filter_map(|fd| fs::read_link(fd.path()).ok()).any(|target| target == Path::new("anon_inode:inotify"))
}
