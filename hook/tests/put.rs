//! A file that the controller puts into a pod is there whole, or the one before is.

#![expect(clippy::unwrap_used, reason = "a helper that fails fails its test")]

mod pod;

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::process::{Command, Output};

use guardian_hook::protocol::{MAX_PUT, PUT_CONTENT};
use pod::Pod;

fn put(pod: &Pod, name: &str, content: &str) -> Output {
    pod.command("put").arg(name).env(PUT_CONTENT, content).output().unwrap()
}

fn complaint(out: &Output) -> String {
    String::from_utf8_lossy(&out.stderr).into_owned()
}

#[test]
fn what_is_put_is_the_whole_file_and_readable_by_all() {
    let pod = Pod::new();
    let long = "x".repeat(MAX_PUT);
    for content in ["{}", long.as_str(), "{\"members\":[]}"] {
        assert!(put(&pod, "members.json", content).status.success());
        assert_eq!(pod.read("members.json"), content);
    }
    assert_eq!(fs::metadata(pod.path("members.json")).unwrap().mode() & 0o777, 0o644);
}

#[test]
fn a_file_that_says_the_same_is_not_touched() {
    let pod = Pod::new();
    let inode = || fs::metadata(pod.path("members.json")).unwrap().ino();
    put(&pod, "members.json", "a");
    let before = inode();
    put(&pod, "members.json", "a");
    assert_eq!(inode(), before);
    put(&pod, "members.json", "b");
    assert_ne!(inode(), before);
}

#[test]
fn nothing_but_the_files_that_are_known_can_be_put_and_never_nothing() {
    let pod = Pod::new();
    for name in ["hooks.json", "../members.json", "run/x.claim", ""] {
        let out = put(&pod, name, "{}");
        assert_eq!(
            (out.status.code(), complaint(&out).as_str()),
            (Some(2), "guardian-hook: put takes one of members.json, agent.json\n")
        );
    }
    for content in ["", &"x".repeat(MAX_PUT + 1)] {
        let out = put(&pod, "members.json", content);
        assert_eq!(out.status.code(), Some(2), "{}", complaint(&out));
        assert!(!pod.path("members.json").exists());
    }
    let none = |command: &mut Command| command.output().unwrap();
    assert_eq!(none(pod.command("put").arg("members.json")).status.code(), Some(2), "without a content");
    assert_eq!(
        complaint(&none(&mut pod.command("put"))),
        "guardian-hook: put takes the name of one file, see guardian-hook --help\n"
    );
}

#[test]
fn what_cannot_be_written_leaves_what_was_there() {
    let pod = Pod::new();
    fs::create_dir(pod.path("members.json")).unwrap();
    let out = put(&pod, "members.json", "{}");
    assert_eq!(out.status.code(), Some(1));
    assert!(complaint(&out).contains("members.json: is a directory"), "{}", complaint(&out));
    assert_eq!(
        fs::read_dir(pod.path(""))
            .unwrap()
            .filter(|e| e.as_ref().unwrap().file_name().to_string_lossy().starts_with(".draft"))
            .count(),
        0
    );
}
