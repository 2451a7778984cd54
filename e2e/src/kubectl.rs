//! The programs that a user runs: `kubectl`, and `guardian` itself.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::io::AsyncWriteExt as _;
use tokio::process::{Child, Command};

use crate::{Failure, Outcome};

/// No command of a test takes longer: `kubectl rollout status` waits for pods, all others for one answer.
const COMMAND: Duration = Duration::from_secs(60);

/// How a command ended.
#[derive(Clone, Debug)]
pub struct Done {
    /// The command line.
    pub command: String,
    /// Exit code; `None` for a signal.
    pub code: Option<i32>,
    /// What it wrote to standard output.
    pub stdout: String,
    /// What it wrote to standard error.
    pub stderr: String,
    /// From its start to its end.
    pub took: Duration,
}

impl Done {
    /// Itself, unless it failed.
    ///
    /// # Errors
    /// When the exit code is not 0.
    pub fn ok(self) -> Outcome<Self> {
        if self.code == Some(0) {
            return Ok(self);
        }
        let status = self.code.map_or("a signal".to_owned(), |code| format!("exit code {code}"));
        Err(Failure::Command { command: self.command, status, stderr: self.stderr.trim().to_owned() })
    }

    /// Its standard output as JSON.
    ///
    /// # Errors
    /// When it failed, or did not print JSON.
    pub fn json(self) -> Outcome<Value> {
        Ok(serde_json::from_str(&self.ok()?.stdout)?)
    }
}

/// `kubectl` in one namespace.
#[derive(Clone, Debug)]
pub struct Kubectl {
    /// The namespace of every command.
    pub namespace: String,
}

impl Kubectl {
    /// Runs it with these arguments.
    ///
    /// # Errors
    /// When it cannot be run, or takes too long.
    pub async fn run(&self, arguments: &[&str]) -> Outcome<Done> {
        self.with_input(arguments, "").await
    }

    /// The same, with something on its standard input.
    ///
    /// # Errors
    /// When it cannot be run, or takes too long.
    pub async fn with_input(&self, arguments: &[&str], input: &str) -> Outcome<Done> {
        let all: Vec<&str> = ["--namespace", &self.namespace].into_iter().chain(arguments.iter().copied()).collect();
        run(Path::new("kubectl"), &all, input).await
    }

    /// `kubectl apply -f FILE`.
    ///
    /// # Errors
    /// When it fails.
    pub async fn apply(&self, file: &Path) -> Outcome<Done> {
        self.run(&["apply", "-f", &file.display().to_string()]).await?.ok()
    }

    /// `kubectl apply -f -` of these objects, in this order.
    ///
    /// # Errors
    /// When it fails.
    pub async fn apply_objects(&self, objects: &[Value]) -> Outcome<Done> {
        self.try_apply_objects(objects).await?.ok()
    }

    /// The same, where the refusal is what is looked at.
    ///
    /// # Errors
    /// When it cannot be run, or takes too long.
    pub async fn try_apply_objects(&self, objects: &[Value]) -> Outcome<Done> {
        let text: String = objects.iter().map(|object| format!("---\n{object}\n")).collect();
        self.with_input(&["apply", "-f", "-"], &text).await
    }

    /// `kubectl get KIND NAME -o json`.
    ///
    /// # Errors
    /// When it fails.
    pub async fn get(&self, kind: &str, name: &str) -> Outcome<Value> {
        self.run(&["get", kind, name, "-o", "json"]).await?.json()
    }

    /// Runs a command in a container of a pod and gives what it prints.
    ///
    /// # Errors
    /// When it fails.
    pub async fn exec(&self, pod: &str, command: &[&str]) -> Outcome<String> {
        let all: Vec<&str> = ["exec", pod, "--"].into_iter().chain(command.iter().copied()).collect();
        Ok(self.run(&all).await?.ok()?.stdout)
    }
}

/// Runs the CLI of this build. `GUARDIAN_BIN` names another.
///
/// # Errors
/// When it cannot be run, or takes too long.
pub async fn guardian(arguments: &[&str]) -> Outcome<Done> {
    let program = env::var_os("GUARDIAN_BIN").map_or_else(built_guardian, |path| Ok(PathBuf::from(path)))?;
    run(&program, arguments, "").await
}

/// Starts it, and leaves it to the test: its output is in pipes, and it is killed when it is dropped.
///
/// # Errors
/// When it cannot be run.
pub fn guardian_started(arguments: &[&str]) -> Outcome<Child> {
    let program = env::var_os("GUARDIAN_BIN").map_or_else(built_guardian, |path| Ok(PathBuf::from(path)))?;
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    command.spawn().map_err(|error| Failure::Run(format!("guardian {}", arguments.join(" ")), error))
}

/// Cargo puts test programs into `deps` beside the binaries of the same profile.
fn built_guardian() -> Outcome<PathBuf> {
    let own = env::current_exe().map_err(|e| Failure::Run("the test itself".to_owned(), e))?;
    let program = own.parent().and_then(Path::parent).map(|profile| profile.join("guardian"));
    program.filter(|p| p.is_file()).ok_or_else(|| {
        Failure::Unexpected(
            "there is no guardian beside the tests: run `cargo build --bin guardian`, or set GUARDIAN_BIN".to_owned(),
        )
    })
}

async fn run(program: &Path, arguments: &[&str], input: &str) -> Outcome<Done> {
    let name = program.file_name().unwrap_or_default().to_string_lossy();
    let command = format!("{name} {}", arguments.join(" "));
    let started = Instant::now();
    let cannot = |e| Failure::Run(command.clone(), e);
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(cannot)?;
    let stdin = child.stdin.take();
    let feed = async {
        if let Some(mut stdin) = stdin {
            // A program that ends without reading is judged by its exit code.
            let _ = stdin.write_all(input.as_bytes()).await;
        }
    };
    let both = async { tokio::join!(feed, child.wait_with_output()).1 };
    let output = match tokio::time::timeout(COMMAND, both).await {
        Ok(output) => output.map_err(cannot)?,
        Err(_) => return Err(Failure::NotInTime { what: command, within: COMMAND, last: "it was still running".to_owned() }),
    };
    Ok(Done {
        command,
        code: output.status.code(),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        took: started.elapsed(),
    })
}
