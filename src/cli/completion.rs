//! `guardian completion`.

use std::io;

use clap::CommandFactory as _;
use clap_complete::Shell;

/// Print a completion script for a shell
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  guardian completion bash > /etc/bash_completion.d/guardian")]
pub(super) struct Args {
    /// The shell to write for
    shell: Shell,
}

pub(super) fn run(args: &Args) -> io::Result<()> {
    let mut script = Vec::new();
    // For the file's own name: `kubectl guardian` asks a program kubectl_complete-guardian instead.
    let called = super::called();
    clap_complete::generate(args.shell, &mut super::Cli::command(), called, &mut script);
    io::Write::write_all(&mut io::stdout().lock(), &script)
}
