//! The binary, as a person or a pipeline calls it.

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

/// How it ended.
pub(crate) struct Done {
    /// Exit code.
    pub(crate) code: Option<i32>,
    /// What it wrote to standard output.
    pub(crate) stdout: String,
    /// What it wrote to standard error.
    pub(crate) stderr: String,
}

/// Runs it in the project's folder, with `input` on its standard input.
pub(crate) fn guardian(arguments: &[&str], input: &str) -> Done {
    run(Command::new(env!("CARGO_BIN_EXE_guardian")).args(arguments), input)
}

/// Runs a prepared command.
pub(crate) fn run(command: &mut Command, input: &str) -> Done {
    let mut child = command
        .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")))
        .env_remove("GUARDIAN_IMAGE")
        .env_remove("GUARDIAN_INSTALLATION")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary runs");
    // A program that ends without reading is judged by its exit code.
    let _ = child.stdin.take().expect("a pipe").write_all(input.as_bytes());
    let output = child.wait_with_output().expect("it ends");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("UTF-8");
    Done { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
}
