//! The command line. One file a subcommand; each turns its flags into a typed configuration, runs, and gives an exit code:
//! 0 done, 1 failed (the reason is on standard error), 2 wrong usage. `run` passes on that of what it has run; 3 of `rehearse` says that
//! something is left.

mod adopt;
mod approve;
mod audit;
mod certs;
mod check;
mod cluster;
mod completion;
mod controller;
mod dashboard;
mod diff;
mod eject;
mod enable;
mod explain;
mod history;
mod inject;
mod ledger;
mod lint;
mod manifests;
mod process;
mod rehearse;
mod run;
mod shed;
mod status;
mod table;
mod webhook;

use std::ffi::OsStr;
use std::fmt::Display;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{CommandFactory as _, FromArgMatches as _, Parser, Subcommand};

/// Operator-grade life cycle for a StatefulSet you did not write.
///
/// Write one policy ConfigMap in your namespace; the guardian runs your commands at the right occasions.
#[derive(Debug, Parser)]
#[command(name = "guardian", version, propagate_version = true, max_term_width = 110)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Inject(inject::Args),
    Lint(lint::Args),
    Rehearse(rehearse::Args),
    Explain(explain::Args),
    Status(status::Args),
    History(history::Args),
    Dashboard(dashboard::Args),
    Audit(audit::Args),
    Check(check::Args),
    Enable(enable::EnableArgs),
    Disable(enable::DisableArgs),
    Approve(approve::Args),
    Adopt(adopt::Args),
    Shed(shed::Args),
    Run(run::Args),
    Webhook(webhook::Args),
    Controller(controller::Args),
    Certs(certs::Args),
    Completion(completion::Args),
}

/// What the binary is called when `kubectl` starts it as its plugin `kubectl guardian`.
const PLUGIN: &str = "kubectl-guardian";

/// The name of the file that was started.
fn called() -> String {
    let path = std::env::args_os().next().map(PathBuf::from);
    path.as_deref().and_then(Path::file_stem).and_then(OsStr::to_str).unwrap_or("guardian").to_owned()
}

/// The command line as it is called: help and errors show the name that was typed.
fn command(called: &str) -> clap::Command {
    let command = Cli::command();
    if called == PLUGIN { as_plugin(command.bin_name("kubectl guardian")) } else { command }
}

/// The examples of each subcommand, as they are typed.
fn as_plugin(mut command: clap::Command) -> clap::Command {
    if let Some(examples) = command.get_after_help().map(ToString::to_string) {
        command = command
            .after_help(examples.replace("  guardian ", "  kubectl guardian ").replace("| guardian ", "| kubectl guardian "));
    }
    command.mut_subcommands(as_plugin)
}

impl Cli {
    /// Reads the command line; prints what is wrong with it, or the help or the completion that it asks for, and ends.
    #[must_use]
    pub fn from_command_line() -> Self {
        let called = called();
        if called == completion::COMPLETER {
            let words: Vec<_> = std::env::args_os().skip(1).collect();
            std::process::exit(i32::from(completion::answer(&words).is_err()));
        }
        let matches = command(&called).get_matches();
        Self::from_arg_matches(&matches).unwrap_or_else(|error| error.exit())
    }

    /// Runs the subcommand to its end.
    #[must_use]
    pub fn run(self) -> ExitCode {
        match self.command {
            Command::Inject(args) => finish(inject::run(&args)),
            Command::Lint(args) => finish(lint::run(&args)),
            Command::Rehearse(args) => match rehearse::run(&args) {
                Ok(code) => ExitCode::from(code),
                Err(error) => finish_or(Err(error), rehearse::RehearseError::is_usage),
            },
            Command::Explain(args) => finish(explain::run(&args)),
            Command::Status(args) => finish(status::run(&args)),
            Command::History(args) => finish_or(history::run(&args), history::HistoryError::is_usage),
            Command::Dashboard(args) => finish(dashboard::run(&args)),
            Command::Check(args) => finish(check::run(&args)),
            Command::Audit(args) => finish_or(audit::run(&args), audit::AuditError::is_usage),
            Command::Enable(args) => finish(enable::enable(&args)),
            Command::Disable(args) => finish_or(enable::disable(&args), enable::EnableError::is_usage),
            Command::Approve(args) => finish(approve::run(&args)),
            Command::Adopt(args) => finish(adopt::run(&args)),
            Command::Shed(args) => finish(shed::run(&args)),
            Command::Run(args) => match run::run(&args) {
                Ok(code) => ExitCode::from(code),
                Err(error) => finish_or(Err(error), run::RunError::is_usage),
            },
            Command::Webhook(args) => finish(webhook::run(&args)),
            Command::Controller(args) => finish(controller::run(&args)),
            Command::Certs(args) => finish(certs::run(&args)),
            Command::Completion(args) => finish(completion::run(&args)),
        }
    }
}

fn finish<E: Display>(result: Result<(), E>) -> ExitCode {
    finish_or(result, |_| false)
}

/// The same, where only the subcommand itself can tell that it was called wrongly.
fn finish_or<E: Display>(result: Result<(), E>, is_usage: impl Fn(&E) -> bool) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            anstream::eprintln!("guardian: {error}");
            if is_usage(&error) { ExitCode::from(2) } else { ExitCode::FAILURE }
        }
    }
}
