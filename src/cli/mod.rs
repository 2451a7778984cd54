//! The command line. One file a subcommand; each turns its flags into a typed configuration, runs, and gives an exit code:
//! 0 done, 1 failed (the reason is on standard error), 2 wrong usage.

mod certs;
mod completion;
mod controller;
mod enable;
mod inject;
mod lint;
mod manifests;
mod process;
mod webhook;

use std::fmt::Display;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

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
    Enable(enable::EnableArgs),
    Disable(enable::DisableArgs),
    Webhook(webhook::Args),
    Controller(controller::Args),
    Certs(certs::Args),
    Completion(completion::Args),
}

impl Cli {
    /// Runs the subcommand to its end.
    #[must_use]
    pub fn run(self) -> ExitCode {
        match self.command {
            Command::Inject(args) => finish(inject::run(&args)),
            Command::Lint(args) => finish(lint::run(&args)),
            Command::Enable(args) => finish(enable::enable(&args)),
            Command::Disable(args) => finish(enable::disable(&args)),
            Command::Webhook(args) => finish(webhook::run(&args)),
            Command::Controller(args) => finish(controller::run(&args)),
            Command::Certs(args) => finish(certs::run(&args)),
            Command::Completion(args) => finish(completion::run(&args)),
        }
    }
}

fn finish<E: Display>(result: Result<(), E>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            anstream::eprintln!("guardian: {error}");
            ExitCode::FAILURE
        }
    }
}
