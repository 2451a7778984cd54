//! A container is held back from being ready until its hook has run in it, in this life and not in an earlier one, and never for ever.

#![expect(clippy::unwrap_used, reason = "a helper that fails fails its test")]

mod pod;

use std::fs;
use std::io::Write;
use std::process::{Child, Command, Output, Stdio};

use guardian_hook::protocol::{Request, frame};
use pod::{Pod, outcome, script, until, watches};
use rustix::time::{ClockId, clock_gettime};

/// `/proc` as a container sees it, made up: who is in it, and when it began, in hundredths of a second from the start of the kernel.
struct Proc(tempfile::TempDir);

impl Proc {
    /// With process 1 as its first.
    fn container(began: i64) -> Self {
        let proc = Self(tempfile::tempdir().unwrap());
        proc.boot("8a7b");
        proc.write("self/cgroup", "0::/\n");
        proc.process(1, "0::/", began);
        proc
    }

    /// In a pod that shares one process namespace among its containers.
    fn shared(began: i64) -> Self {
        let proc = Self::container(0);
        proc.process(1, "0::/../pause", 0);
        proc.process(7, "0::/../exporter", 1);
        proc.process(9, "0::/", began + 3);
        proc.process(20, "0::/", began);
        proc
    }

    /// The node was started anew.
    fn boot(&self, id: &str) {
        self.write("sys/kernel/random/boot_id", id);
    }

    fn process(&self, pid: u32, cgroup: &str, began: i64) {
        self.write(&format!("{pid}/stat"), &format!("{pid} (a) b (c) S {}{began} 0 0\n", "0 ".repeat(18)));
        self.write(&format!("{pid}/cgroup"), &format!("{cgroup}\n"));
    }

    fn write(&self, name: &str, text: &str) {
        let path = self.0.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn command(&self, pod: &Pod, name: &str) -> Command {
        let mut command = pod.command(name);
        command.env("GUARDIAN_PROC", self.0.path());
        command
    }

    /// Runs a hook in this life.
    fn run(&self, pod: &Pod, request: &Request) {
        let mut child = self.command(pod, "run").stdin(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(&frame(request).unwrap()).unwrap();
        outcome(&child.wait_with_output().unwrap());
    }

    /// What the probe says when its time is long over: it does not wait then.
    fn late(&self, pod: &Pod) -> String {
        said(&self.command(pod, "joined").args(["--within", "1ms"]).output().unwrap())
    }

    /// The probe, with more time than any test takes.
    fn probe(&self, pod: &Pod) -> Child {
        self.command(pod, "joined").args(["--within", "24h"]).spawn().unwrap()
    }
}

fn now() -> i64 {
    clock_gettime(ClockId::Boottime).tv_sec * 100
}

fn said(out: &Output) -> String {
    assert!(out.status.success(), "{out:?}");
    String::from_utf8(out.stdout.clone()).unwrap()
}

fn hook(name: &str, run_id: &str, code: i32) -> Request {
    Request { hook: name.into(), ..script(run_id, &format!("exit {code}")) }
}

const IN_VAIN: &str = "joined: no join or rejoin ended well in time; ready all the same\n";

#[test]
fn the_probe_waits_for_the_hook_and_no_longer() {
    for (pod, proc) in [(Pod::new(), Proc::container(now())), (Pod::new(), Proc::shared(now()))] {
        let probe = proc.probe(&pod);
        until("the probe waits", || watches(probe.id()));
        proc.run(&pod, &hook("preStop", "another", 0));
        proc.run(&pod, &hook("rejoin", "failed", 1));
        proc.run(&pod, &hook("rejoin", "again", 0));
        assert_eq!(said(&probe.wait_with_output().unwrap()), "joined: again ended well in this life of the container\n");
        assert_eq!(
            said(&proc.probe(&pod).wait_with_output().unwrap()),
            "joined: again ended well in this life of the container\n"
        );
    }
}

#[test]
fn a_hook_of_an_earlier_life_of_the_container_does_not_count() {
    for (first, second) in [(Proc::container(1), Proc::container(2)), (Proc::shared(1), Proc::shared(2))] {
        let pod = Pod::new();
        first.run(&pod, &hook("join", "r", 0));
        assert_eq!(first.late(&pod), "joined: r ended well in this life of the container\n");
        assert_eq!(second.late(&pod), IN_VAIN);
        first.boot("9c0d");
        assert_eq!(first.late(&pod), IN_VAIN, "after a start of the node its clock begins anew");
    }
}

#[test]
fn only_a_hook_that_ended_well_counts() {
    let (pod, proc) = (Pod::new(), Proc::container(1));
    proc.run(&pod, &hook("rejoin", "failed", 3));
    proc.run(&pod, &hook("nightly", "task", 0));
    assert_eq!(proc.late(&pod), IN_VAIN);
    // As a runner of another version, or a hand, leaves them.
    fs::write(pod.path("run/x.json"), "{}").unwrap();
    fs::write(pod.path("run/y.json"), r#"{"version":1,"runId":"y","result":{"kind":"exited","code":0},"durationMs":1}"#).unwrap();
    fs::write(pod.path("run/y.claim"), r#"{"hook":"rejoin","pid":1,"claimedMs":1,"timeoutMs":1}"#).unwrap();
    assert_eq!(proc.late(&pod), IN_VAIN);
}

#[test]
fn without_a_word_from_proc_or_an_installation_it_is_late_and_not_lost() {
    let nothing = Proc(tempfile::tempdir().unwrap());
    let pod = Pod::new();
    nothing.run(&pod, &hook("rejoin", "r", 0));
    assert_eq!(nothing.late(&pod), IN_VAIN);
    assert_eq!(Proc::container(1).late(&Pod::empty()), IN_VAIN);
}

#[test]
fn the_real_proc_tells_one_life_of_this_test() {
    let pod = Pod::new();
    let request = hook("rejoin", "r", 0);
    pod.run(&request);
    let out = pod.command("joined").args(["--within", "1ms"]).output().unwrap();
    assert_eq!(said(&out), "joined: r ended well in this life of the container\n");
}

#[test]
fn a_time_that_is_none_is_refused() {
    for args in [&["--within", "60"][..], &["--within"], &["60s"], &[], &["--within", "60s", "x"]] {
        let out = Pod::new().command("joined").args(args).output().unwrap();
        assert_eq!(out.status.code(), Some(2), "{args:?}: {out:?}");
        assert!(String::from_utf8_lossy(&out.stderr).contains("--within"), "{out:?}");
    }
}
