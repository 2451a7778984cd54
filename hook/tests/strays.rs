//! A descendant of a hook never becomes a child of the application's process 1, which may take it for one of its own: PostgreSQL's postmaster
//! restarts every backend when a child that it does not know ends by a signal. Here this test is process 1: a subreaper above the runner.

mod pod;

use std::fs;
use std::process;

use pod::{Pod, exited, script};

#[test]
fn no_descendant_of_a_hook_reaches_process_1() {
    rustix::process::set_child_subreaper(Some(rustix::process::getpid())).unwrap();
    let pod = Pod::new();

    // The orphan writes down its parent, over and over, from before it loses it until its end.
    let text = "echo $PPID > runner
        sh -c 'setsid sh -c \"while :; do cut -d\\  -f4 /proc/\\$\\$/stat; done >> parents\" & exit 0'
        until grep -qx $PPID parents; do :; done
        exit 6";
    assert_eq!(pod.run(&script("r", text)).result, exited(6));
    let runner = pod.read("runner");
    let me = process::id().to_string();
    assert!(pod.read("parents").lines().any(|p| p == runner.trim()), "the orphan went to the runner");
    assert!(pod.read("parents").lines().all(|p| p != me));

    let mut asked = script("s", "(setsid sleep 300 &); setsid sleep 300 & exec sleep 300");
    asked.timeout_ms = 200;
    pod.run(&asked);
    assert_eq!(pod.processes(), Vec::<u32>::new());
    assert_eq!(children_of(&me), Vec::<String>::new());
}

/// Zombies too.
fn children_of(parent: &str) -> Vec<String> {
    let stats = fs::read_dir("/proc").into_iter().flatten().flatten();
    let stats = stats.filter_map(|e| fs::read_to_string(e.path().join("stat")).ok());
    stats.filter(|s| s.rsplit(')').next().is_some_and(|s| s.split_whitespace().nth(1) == Some(parent))).collect()
}
