//! What the runner costs a pod. `GUARDIAN_HOOK_BINARY=... cargo test -p guardian-hook --test size -- --nocapture` prints it for the released form.

mod pod;

use std::fs;
use std::io::Read;

use pod::{Pod, binary, outcome, script, until};

/// The figures for a released runner, in bytes and kB; an ordinary build carries the standard library and is not held to them.
const RELEASED: (u64, u64) = (1024 * 1024, 2 * 1024);
const ORDINARY: (u64, u64) = (32 * 1024 * 1024, 8 * 1024);

#[test]
fn the_runner_is_small_on_disk_and_in_memory() {
    let released = std::env::var_os("GUARDIAN_HOOK_BINARY").is_some();
    let (max_bytes, max_kb) = if released { RELEASED } else { ORDINARY };
    let bytes = fs::metadata(binary()).unwrap().len();

    // The costliest outcome: both tails full, of bytes that JSON writes as six each. Nobody reads it until the peak was taken.
    let pod = Pod::new();
    let mut runner = pod.start_run(&script("r", "head -c 1000000 /dev/zero; head -c 1000000 /dev/zero >&2"));
    until("the outcome is on disk", || pod.path("run/r.json").exists());
    let status = fs::read_to_string(format!("/proc/{}/status", runner.id())).unwrap();
    let peak = status.lines().find_map(|l| l.strip_prefix("VmHWM:")).unwrap();
    let peak_kb: u64 = peak.split_whitespace().next().unwrap().parse().unwrap();
    let mut line = Vec::new();
    runner.stdout.take().unwrap().read_to_end(&mut line).unwrap();
    let status = runner.wait().unwrap();
    outcome(&std::process::Output { status, stdout: line, stderr: Vec::new() });

    println!("guardian-hook: {bytes} bytes, {peak_kb} kB resident at its peak");
    assert!(bytes <= max_bytes, "{bytes} bytes");
    assert!(peak_kb <= max_kb, "{peak_kb} kB resident");
}
