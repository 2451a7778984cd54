//! `guardian inject` as a person or a pipeline meets it.

#![expect(clippy::expect_used, reason = "a test helper fails the test that calls it")]

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};

fn inject(arguments: &[&str], input: &str) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_guardian"))
        .arg("inject")
        .args(arguments)
        .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")))
        .env_remove("GUARDIAN_IMAGE")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary runs");
    child.stdin.take().expect("a pipe").write_all(input.as_bytes()).expect("it reads");
    child.wait_with_output().expect("it ends")
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).expect("UTF-8")
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).expect("UTF-8")
}

#[test]
fn what_is_not_a_guarded_set_is_printed_as_it_stands_with_its_comments() {
    let text = "# ours\napiVersion: v1\nkind: Service # headless\nmetadata:\n  name: s\n";
    let output = inject(&["-f", "-", "--policy", "examples/redis/policy.yaml"], text);
    assert!(output.status.success(), "{}", stderr(&output));
    assert_eq!(stdout(&output), text);
}

#[test]
fn its_own_output_is_not_changed_again() {
    let once = inject(&["-f", "examples/redis/statefulset.yaml", "--policy", "examples/redis/policy.yaml"], "");
    assert!(once.status.success(), "{}", stderr(&once));
    let twice = inject(&["-f", "-", "--policy", "examples/redis/policy.yaml"], &stdout(&once));
    assert_eq!(stdout(&twice), stdout(&once));
}

#[test]
fn bad_input_is_told_by_file_line_and_column_with_exit_code_1() {
    let policy = ["--policy", "examples/redis/policy.yaml"];
    let cases: [(&[&str], &str, &str); 4] = [
        (&["-f", "no-such-file.yaml"], "", "no-such-file.yaml: cannot be read"),
        (&["-f", "-"], "a: [1,\n", "standard input:"),
        (&["-f", "src"], "", "src: holds no *.yaml"),
        (&["-f", "-"], "apiVersion: apps/v1\nkind: StatefulSet\nmetadata: {name: s, labels: 7}\n", "s: not guarded"),
    ];
    for (arguments, input, expected) in cases {
        let output = inject(&[arguments, policy.as_slice()].concat(), input);
        assert!(stderr(&output).contains(expected), "{arguments:?}: {}", stderr(&output));
    }
    let output = inject(&["-f", "examples/redis/statefulset.yaml"], "");
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("no policy"), "{}", stderr(&output));
}

#[test]
fn a_policy_with_errors_is_told_by_line_and_column() {
    let policy = "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: p\n  labels: {stateful-guardian.io/policy: \"true\"}\ndata:\n  policy.yaml: |\n    \
                  apiVersion: stateful-guardian.io/v1alpha1\n    kind: GuardianPolicy\n    hoks: {}\n";
    let output = inject(&["-f", "-"], policy);
    assert_eq!(output.status.code(), Some(1));
    let message = stderr(&output);
    assert!(message.contains("policy.yaml:3:1") && message.contains("did you mean `hooks`"), "{message}");
}
