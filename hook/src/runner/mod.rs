//! The commands of `guardian-hook`.

mod agent;
mod cgroup;
mod claim;
mod clock;
mod collect;
mod disk;
mod files;
mod fork;
mod home;
mod init;
mod install;
mod joined;
mod life;
mod proc;
mod put;
mod request;
mod run;
mod spawn;
mod stdio;
mod stop;
mod stream;
mod supervise;
mod tail;

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::vec::Vec;

use crate::protocol::{NO_SUCH_COMMAND, PROTOCOL, RunResult};
use home::Home;

pub use stdio::complain;

/// The environment of a process. Names and values are bytes: Linux asks for no encoding.
pub type Environment = BTreeMap<Vec<u8>, Vec<u8>>;

/// The exit status when the command line or the installation is at fault.
const FAULT: u8 = 2;

const HELP: &str = "\
guardian-hook: runs the hooks of stateful-guardian inside a pod

  install   copy this runner and the hooks of GUARDIAN_SPEC to /guardian (init container guardian-init)
  init      run the init hook of this pod                             (init container guardian-init-hook)
  stop      wait for the reason, run the preStop hook, then the user's own   (lifecycle.preStop)
  reason    read why the pod is being stopped from standard input
  joined --within DURATION
            wait until join or rejoin has run in this life of the container, or for so long from its start   (startupProbe)
  run       read one request from standard input, run it once, print its outcome;
            what it writes comes before that, in lines, if the request says so
  collect   read questions from standard input, ask them, print an answer a line and the container's usage
  put NAME  put what GUARDIAN_CONTENT holds into a file of the guardian: members.json, agent.json
  agent     ask the questions of /guardian/agent.json again and again, and serve the answers on port 9188   (sidecar guardian-agent)
  version   print the version of this runner and of its protocol

GUARDIAN_DIR names another directory than /guardian.
";

/// Runs the command that the arguments name and returns the exit status of the process. The first argument is the name of the program.
pub fn main(args: &[Vec<u8>], env: &Environment) -> u8 {
    spawn::open_missing_streams();
    let home = Home::of(env);
    let command = args.get(1).map_or(&b""[..], Vec::as_slice);
    match (command, args.get(2..).unwrap_or_default()) {
        (b"joined", [flag, within]) if flag == b"--within" => return joined::joined(&home, env, within),
        (b"joined", _) => {
            complain("joined takes --within DURATION, see guardian-hook --help");
            return FAULT;
        }
        (b"put", [name]) => return put::put(&home, env, name),
        (b"put", _) => {
            complain("put takes the name of one file, see guardian-hook --help");
            return FAULT;
        }
        (_, []) => {}
        _ => {
            complain("this command takes no arguments, see guardian-hook --help");
            return FAULT;
        }
    }
    match command {
        b"install" => install::install(&home, env),
        b"init" => init::init(&home, env),
        b"stop" => stop::stop(&home, env),
        b"reason" => stop::reason(&home),
        b"run" => run::run(&home, env),
        b"collect" => collect::collect(&home, env),
        b"agent" => agent::agent(&home, env),
        b"version" | b"--version" => print(&format!("guardian-hook {} protocol {PROTOCOL}\n", env!("CARGO_PKG_VERSION"))),
        b"help" | b"--help" | b"-h" => print(HELP),
        _ => {
            complain(&format!("{NO_SUCH_COMMAND}, see guardian-hook --help"));
            FAULT
        }
    }
}

fn print(text: &str) -> u8 {
    stdio::print(text.as_bytes());
    0
}

/// The exit status that a shell would give for this end of a program.
fn exit_status(result: &RunResult) -> u8 {
    match result {
        RunResult::Exited { code } => u8::try_from(*code).unwrap_or(u8::MAX),
        RunResult::Signaled { signal } => 128 + u8::try_from(*signal).unwrap_or(0),
        RunResult::TimedOut => 124,
        RunResult::NotExecutable { .. } => 126,
        RunResult::NotFound { .. } => 127,
        _ => 1,
    }
}

/// The end of a program as the rest of a sentence that begins with its name.
fn in_words(result: &RunResult) -> alloc::string::String {
    match result {
        RunResult::Exited { code } => format!("exited with {code}"),
        RunResult::Signaled { signal } => format!("was ended by signal {signal}"),
        RunResult::TimedOut => "was killed at its deadline".into(),
        RunResult::NotExecutable { what } => format!("cannot be executed: {what}"),
        RunResult::NotFound { what } => format!("was not found: {what}"),
        RunResult::NotStarted { message } => format!("was not started: {message}"),
        other => format!("ended: {other:?}"),
    }
}
