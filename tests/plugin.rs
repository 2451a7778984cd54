//! The binary as `kubectl guardian`: kubectl starts a file of the name kubectl-guardian.

#![expect(clippy::expect_used, reason = "a test ends where it fails")]

mod command;

use std::os::unix::fs::symlink;
use std::process::Command;

/// The words that kubectl is told for these, without what they mean, and what a shell does with them.
fn completed(words: &[&str]) -> (Vec<String>, String) {
    let folder = tempfile::tempdir().expect("a folder");
    let completer = folder.path().join("kubectl_complete-guardian");
    symlink(env!("CARGO_BIN_EXE_guardian"), &completer).expect("a link");
    let done = command::run(Command::new(&completer).args(words), "");
    assert_eq!(done.code, Some(0), "{}", done.stderr);
    let mut lines: Vec<&str> = done.stdout.lines().collect();
    let then = lines.pop().expect("what to do with them").to_owned();
    let words = lines.iter().map(|line| line.split_once('\t').expect("a word and its meaning").0.to_owned());
    (words.collect(), then)
}

#[test]
fn kubectl_is_told_subcommands_flags_and_values() {
    let only = |words: &[&str], expected: &[&str]| {
        assert_eq!(completed(words), (expected.iter().map(ToString::to_string).collect(), ":4".to_owned()), "{words:?}");
    };
    only(&["au"], &["audit"]);
    only(&["enable", "--appr"], &["--approve"]);
    only(&["lint", "-o", ""], &["text", "json", "yaml"]);
    only(&["audit", "--follow", "--output", "t"], &["table"]);
    only(&["rehearse", "--scenario", "cr"], &["crash"]);
    only(&["completion", "ba"], &["bash"]);
    only(&["enable", "sh"], &[]);
    assert_eq!(completed(&["lint", "-f", "ex"]), (vec![], ":0".to_owned()), "a shell knows the names of files");
    let (all, _) = completed(&[""]);
    for subcommand in ["enable", "disable", "approve", "status", "explain", "rehearse", "lint", "audit", "check"] {
        assert!(all.iter().any(|word| word == subcommand), "{subcommand} is among {all:?}");
    }
}

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
