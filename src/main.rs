//! `guardian`: every part of stateful-guardian in one binary, a subcommand each.

use std::process::ExitCode;

use clap::Parser as _;
use stateful_guardian::cli::Cli;

fn main() -> ExitCode {
    Cli::parse().run()
}
