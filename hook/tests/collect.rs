//! Questions are asked, answered a line each, and leave nothing behind: no claim, no process, no file.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a helper that fails fails its test")]

mod pod;

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, ChildStdin, Stdio};

use guardian_hook::protocol::{
    Collect, Collected, MAX_ANSWER, MAX_COMPLAINT, MAX_PROBE_MEMORY, MAX_TAIL, NO_SUCH_COMMAND, PROTOCOL, Probe, Program,
    Refusal, RunResult, Sample, Usage, frame,
};
use pod::{Pod, exited, until};

/// A shell script in the directory of the pod, with a time out of ten seconds.
fn probe(name: &str, text: &str) -> Probe {
    let program = Program::Script { name: "test.sh".into(), text: format!("#!/bin/sh\ncd \"$GUARDIAN_DIR\"\n{text}\n") };
    Probe { name: name.into(), program, env: BTreeMap::new(), timeout_ms: 10_000, max_output: MAX_ANSWER }
}

fn request(probes: Vec<Probe>) -> Collect {
    Collect { version: PROTOCOL, pod_uid: pod::UID.into(), probes, wait_ms: 0, disk: None }
}

/// Starts it; as long as the second value lives, the caller is there.
fn start(pod: &Pod, request: &Collect) -> (Child, ChildStdin) {
    let mut child = pod.command("collect").stdin(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(&frame(request).unwrap()).unwrap();
    (child, stdin)
}

fn collect(pod: &Pod, request: &Collect) -> Vec<Collected> {
    let (child, caller) = start(pod, request);
    let out = child.wait_with_output().unwrap();
    drop(caller);
    assert!(out.status.success(), "{out:?}");
    lines(&out.stdout)
}

fn lines(bytes: &[u8]) -> Vec<Collected> {
    bytes.lines().map(|line| serde_json::from_str(&line.unwrap()).unwrap()).collect()
}

/// The samples of one round, which its usage ends.
fn samples(mut lines: Vec<Collected>) -> Vec<Sample> {
    assert!(matches!(lines.pop(), Some(Collected::Usage(_))), "usage comes last");
    let sample = |line| match line {
        Collected::Probe(sample) => sample,
        other => panic!("{other:?}"),
    };
    lines.into_iter().map(sample).collect()
}

#[test]
fn each_probe_is_answered_in_order_and_nothing_is_kept() {
    let pod = Pod::new();
    let mut told = probe("role", "echo primary $TERM_NUMBER");
    told.env.insert("TERM_NUMBER".into(), "17".into());
    let missing = Probe { program: Program::Command(vec!["/no/such".into()]), ..probe("missing", "") };
    let found = samples(collect(&pod, &request(vec![told, probe("lag", "echo late >&2; exit 3"), missing])));
    let texts: Vec<_> = found.iter().map(|s| (s.name.as_str(), s.stdout.text.as_str(), s.stderr.text.as_str())).collect();
    assert_eq!(texts, [("role", "primary 17\n", ""), ("lag", "", "late\n"), ("missing", "", "")]);
    let results: Vec<_> = found.into_iter().map(|s| s.result).collect();
    assert_eq!(results, [exited(0), exited(3), RunResult::NotFound { what: "/no/such".into() }]);
    assert_eq!(pod.runs(), Vec::<String>::new());
    assert_eq!(pod.processes(), Vec::<u32>::new());
}

#[test]
fn one_process_runs_at_a_time() {
    let pod = Pod::new();
    let alone = "mkdir lock || exit 9; mkdir -p a b c; rmdir a b c; rmdir lock";
    let probes = (0..8).map(|n| probe(&n.to_string(), alone)).collect();
    assert!(samples(collect(&pod, &request(probes))).iter().all(|s| s.result == exited(0)));
}

#[test]
fn a_probe_is_killed_at_its_time_out_with_what_it_started_and_the_next_is_asked() {
    let pod = Pod::new();
    let mut stuck = probe("stuck", "(setsid sleep 300 &); echo so far; exec sleep 300");
    stuck.timeout_ms = 200;
    let found = samples(collect(&pod, &request(vec![stuck, probe("role", "echo replica")])));
    assert_eq!((&found[0].result, found[0].stdout.text.as_str()), (&RunResult::TimedOut, "so far\n"));
    assert_eq!(found[1].stdout.text, "replica\n");
    assert_eq!(pod.processes(), Vec::<u32>::new());
}

#[test]
fn output_is_cut_to_what_was_asked_for() {
    let pod = Pod::new();
    let loud = "head -c 100000 /dev/zero | tr '\\0' a; head -c 100000 /dev/zero | tr '\\0' b >&2";
    let mut metrics = probe("metrics", loud);
    metrics.max_output = MAX_TAIL;
    let found = samples(collect(&pod, &request(vec![probe("role", loud), metrics])));
    let kept: Vec<_> = found.iter().map(|s| (s.stdout.text.len(), s.stdout.dropped, s.stderr.text.len())).collect();
    let rest = |kept: usize| 100_000 - kept as u64;
    assert_eq!(kept, [(MAX_ANSWER, rest(MAX_ANSWER), MAX_COMPLAINT), (MAX_TAIL, rest(MAX_TAIL), MAX_COMPLAINT)]);
}

#[test]
fn a_probe_has_little_memory_and_its_end_is_its_own() {
    let pod = Pod::new();
    let found = samples(collect(&pod, &request(vec![probe("limit", "ulimit -d"), probe("role", "echo primary")])));
    assert_eq!(found[0].stdout.text.trim(), (MAX_PROBE_MEMORY / 1024).to_string());
    assert_eq!(found[1].stdout.text, "primary\n");
}

#[test]
fn another_request_may_follow_an_answer_until_the_caller_is_gone() {
    let pod = Pod::new();
    let mut asked = request(vec![probe("role", "echo x >> asked; wc -l < asked")]);
    asked.wait_ms = 60_000;
    let (mut child, mut caller) = start(&pod, &asked);
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    for round in 1..=3 {
        let line = serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap();
        assert!(matches!(&line, Collected::Probe(s) if s.stdout.text.trim() == round.to_string()), "{line:?}");
        assert!(matches!(serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap(), Collected::Usage(_)));
        if round < 3 {
            caller.write_all(&frame(&asked).unwrap()).unwrap();
        }
    }
    drop(caller);
    assert!(child.wait().unwrap().success());
    assert!(lines.next().is_none());
}

#[test]
fn it_waits_for_another_request_no_longer_than_it_was_told() {
    let pod = Pod::new();
    for wait_ms in [0, 50] {
        let (mut child, caller) = start(&pod, &Collect { wait_ms, ..request(vec![probe("role", "echo primary")]) });
        assert!(child.wait().unwrap().success());
        drop(caller);
    }
}

#[test]
fn a_request_for_another_pod_is_refused_whatever_came_before() {
    let pod = Pod::new();
    let good = Collect { wait_ms: 60_000, ..request(vec![probe("role", "echo primary")]) };
    let (child, mut caller) = start(&pod, &good);
    caller.write_all(&frame(&Collect { pod_uid: "another".into(), ..good }).unwrap()).unwrap();
    let out = child.wait_with_output().unwrap();
    assert!(matches!(&lines(&out.stdout)[..], [Collected::Probe(_), Collected::Usage(_), Collected::Refused { .. }]));
}

/// Both ways in which a caller goes: it hangs up, or it does not read on.
#[test]
fn a_probe_under_way_ends_with_its_caller() {
    for hangs_up in [true, false] {
        let pod = Pod::new();
        let (mut child, caller) = start(&pod, &request(vec![probe("role", "echo x > begun; exec sleep 300")]));
        until("it has begun", || pod.path("begun").exists());
        let mut caller = Some(caller);
        if hangs_up {
            caller = None;
        } else {
            drop(child.stdout.take());
        }
        assert_eq!(child.wait().unwrap().signal(), None);
        drop(caller);
        assert_eq!(pod.processes(), Vec::<u32>::new());
        assert_eq!(pod.runs(), Vec::<String>::new());
    }
}

#[test]
fn another_pod_and_impossible_values_are_refused() {
    let pod = Pod::new();
    let refusal = |request: &Collect| match &collect(&pod, request)[..] {
        [Collected::Refused { why }] => why.clone(),
        other => panic!("{other:?}"),
    };
    let good = || request(vec![probe("role", "touch asked")]);
    assert_eq!(refusal(&Collect { pod_uid: "another".into(), ..good() }), Refusal::OtherPod { uid: pod::UID.into() });
    type Spoil = fn(&mut Collect);
    let table: [(Spoil, &str); 8] = [
        (|r| r.probes.clear(), "probes must be 1 to 64"),
        (|r| r.probes = vec![r.probes[0].clone(); 65], "probes must be 1 to 64"),
        (|r| r.wait_ms = u64::MAX, "waitMs"),
        (|r| r.probes[0].timeout_ms = 0, "probe \"role\": timeoutMs"),
        (|r| r.probes[0].timeout_ms = u64::MAX, "timeoutMs"),
        (|r| r.probes[0].max_output = 0, "maxOutput"),
        (|r| r.probes[0].max_output = MAX_TAIL + 1, "maxOutput"),
        (|r| drop(r.probes[0].env.insert("A=B".into(), String::new())), "A=B"),
    ];
    for (spoil, field) in table {
        let mut bad = good();
        spoil(&mut bad);
        let why = refusal(&bad);
        assert!(matches!(&why, Refusal::BadRequest { message } if message.contains(field)), "{field}: {why:?}");
    }
    assert!(!pod.path("asked").exists());
}

/// What a controller reads of a runner from before this command.
#[test]
fn a_runner_that_does_not_know_a_command_says_so() {
    let out = Pod::new().command("of-the-future").output().unwrap();
    assert_eq!((out.status.code(), out.stdout.len()), (Some(2), 0));
    assert!(String::from_utf8(out.stderr).unwrap().contains(NO_SUCH_COMMAND));
}

/// The usage that is told where these files are the cgroups and `own` is `/proc/self/cgroup`.
fn usage(files: &[(&str, &str)], own: &str) -> Usage {
    let pod = Pod::new();
    let (root, proc) = (pod.path("cgroup"), pod.path("proc"));
    fs::create_dir_all(proc.join("self")).unwrap();
    fs::write(proc.join("self/cgroup"), own).unwrap();
    for (name, text) in files {
        let path = root.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    let mut command = pod.command("collect");
    command.env("GUARDIAN_CGROUP", root).env("GUARDIAN_PROC", proc).stdin(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut caller = child.stdin.take().unwrap();
    caller.write_all(&frame(&request(vec![probe("role", "echo x")])).unwrap()).unwrap();
    let out = child.wait_with_output().unwrap();
    drop(caller);
    match lines(&out.stdout).pop() {
        Some(Collected::Usage(usage)) => usage,
        other => panic!("{other:?}"),
    }
}

const FULL: Usage = Usage {
    memory_bytes: Some(50_000_000),
    reclaimable_bytes: Some(4096),
    memory_limit_bytes: Some(64_000_000),
    cpu_usage_us: Some(123_456),
    cpu_limit_millis: Some(250),
    throttled_us: Some(789),
    disk_bytes: None,
    disk_limit_bytes: None,
};

#[test]
fn the_usage_tells_how_full_the_disk_is_where_it_is_told_which() {
    let pod = Pod::new();
    let usage = |disk: Option<&str>| {
        let asked = Collect { disk: disk.map(str::to_owned), ..request(vec![probe("a", "true")]) };
        match collect(&pod, &asked).pop() {
            Some(Collected::Usage(usage)) => (usage.disk_bytes, usage.disk_limit_bytes),
            other => panic!("{other:?}"),
        }
    };
    let df = std::process::Command::new("df").args(["-B1", "--output=used,avail"]).arg(pod.path("")).output().unwrap();
    let text = String::from_utf8(df.stdout).unwrap();
    let figures: Vec<u64> = text.lines().last().unwrap().split_whitespace().map(|word| word.parse().unwrap()).collect();
    let (used, limit) = usage(pod.path("").to_str());
    // Others write there too.
    let near = |a: u64, b: u64| a.abs_diff(b) <= 1 << 30;
    assert!(near(used.unwrap(), figures[0]) && near(limit.unwrap(), figures[0] + figures[1]), "{used:?} {limit:?} {figures:?}");
    assert_eq!(usage(None), (None, None));
    assert_eq!(usage(Some("/no/such/place")), (None, None));
}

#[test]
fn usage_is_read_from_the_cgroup_of_version_2() {
    let files = [
        ("cgroup.controllers", "cpu memory\n"),
        ("memory.current", "50000000\n"),
        ("memory.max", "64000000\n"),
        ("memory.stat", "anon 1\nactive_file 2\ninactive_file 4096\n"),
        ("cpu.stat", "usage_usec 123456\nnr_throttled 3\nthrottled_usec 789\n"),
        ("cpu.max", "25000 100000\n"),
    ];
    assert_eq!(usage(&files, "0::/\n"), FULL);
    // Where the whole tree is shown, the files are further down.
    let below: Vec<_> = files[1..].iter().map(|(name, text)| (format!("kubepods/pod1/{name}"), *text)).collect();
    let mut below: Vec<_> = below.iter().map(|(name, text)| (name.as_str(), *text)).collect();
    below.extend([files[0], ("memory.current", "9"), ("memory.max", "9")]);
    assert_eq!(usage(&below, "0::/kubepods/pod1\n"), FULL);
    assert_eq!(usage(&files, "0::/../../elsewhere\n"), FULL, "a path that is not shown to us");
}

#[test]
fn usage_is_read_from_the_cgroups_of_version_1() {
    let files = [
        ("memory/memory.usage_in_bytes", "50000000\n"),
        ("memory/memory.limit_in_bytes", "64000000\n"),
        ("memory/memory.stat", "inactive_file 1\ntotal_inactive_file 4096\n"),
        ("cpuacct/cpuacct.usage", "123456000\n"),
        ("cpu/cpu.cfs_quota_us", "25000\n"),
        ("cpu/cpu.cfs_period_us", "100000\n"),
        ("cpu/cpu.stat", "nr_periods 5\nnr_throttled 3\nthrottled_time 789000\n"),
    ];
    assert_eq!(usage(&files, "4:memory:/kubepods/pod1\n3:cpu,cpuacct:/kubepods/pod1\n"), FULL);
}

#[test]
fn what_has_no_limit_or_is_not_told_is_absent() {
    let unlimited =
        [("cgroup.controllers", "memory\n"), ("memory.current", "1\n"), ("memory.max", "max\n"), ("cpu.max", "max 100000\n")];
    assert_eq!(usage(&unlimited, "0::/\n"), Usage { memory_bytes: Some(1), ..Usage::default() });
    let unlimited = [
        ("memory/memory.limit_in_bytes", "9223372036854771712\n"),
        ("cpu/cpu.cfs_quota_us", "-1\n"),
        ("cpu/cpu.cfs_period_us", "100000\n"),
    ];
    assert_eq!(usage(&unlimited, ""), Usage::default());
    assert_eq!(usage(&[], ""), Usage::default());
}
