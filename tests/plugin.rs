//! The binary as `kubectl guardian`: kubectl starts a file of the name kubectl-guardian.

#![expect(clippy::expect_used, reason = "a test ends where it fails")]

mod command;

use std::os::unix::fs::symlink;
use std::process::Command;

#[test]
fn help_errors_and_completion_show_the_name_that_was_typed() {
    let folder = tempfile::tempdir().expect("a folder");
    let plugin = folder.path().join("kubectl-guardian");
    symlink(env!("CARGO_BIN_EXE_guardian"), &plugin).expect("a link");
    let run = |arguments: &[&str]| command::run(Command::new(&plugin).args(arguments), "");

    let help = run(&["enable", "--help"]);
    assert_eq!(help.code, Some(0));
    assert!(help.stdout.contains("Usage: kubectl guardian enable"), "{}", help.stdout);
    assert!(help.stdout.contains("\n  kubectl guardian enable shop"), "the examples too: {}", help.stdout);
    let wrong = run(&["enable"]);
    assert_eq!(wrong.code, Some(2));
    assert!(wrong.stderr.contains("Usage: kubectl guardian enable"), "{}", wrong.stderr);
    assert!(run(&["completion", "bash"]).stdout.contains("-o default kubectl-guardian\n"), "for the file's own name");

    let plain = command::guardian(&["enable", "--help"], "");
    assert!(
        plain.stdout.contains("Usage: guardian enable") && plain.stdout.contains("\n  guardian enable shop"),
        "{}",
        plain.stdout
    );
}
