//! `guardian`: every part of stateful-guardian in one binary, a subcommand each.

use std::process::ExitCode;

use stateful_guardian::cli::Cli;

fn main() -> ExitCode {
    Cli::from_command_line().run()
}
