//! What the two init containers do.

#![expect(clippy::unwrap_used, reason = "a helper that fails fails its test")]

mod pod;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};

use guardian_hook::protocol::{InPodHook, Installed, OnFailure, Program};
use pod::{Pod, binary, installed, with_hook};
use rustix::process::{Pid, Signal, kill_process};

fn mode(pod: &Pod, name: &str) -> u32 {
    fs::metadata(pod.path(name)).unwrap().permissions().mode() & 0o7777
}

fn blocking(mut spec: Installed) -> Installed {
    for hook in spec.hooks.values_mut() {
        hook.on_failure = OnFailure::Block;
    }
    spec
}

#[test]
fn install_leaves_all_that_the_pod_needs_for_any_user() {
    let pod = Pod::with(&with_hook("init", "exit 0"));
    assert_eq!(fs::read(pod.path("guardian-hook")).unwrap(), fs::read(binary()).unwrap());
    assert_eq!(mode(&pod, "guardian-hook"), 0o755);
    assert_eq!((mode(&pod, "."), mode(&pod, "run"), mode(&pod, "scripts")), (0o1777, 0o1777, 0o755));
    assert_eq!((mode(&pod, "scripts/init.sh"), mode(&pod, "pod.json"), mode(&pod, "hooks.json")), (0o755, 0o644, 0o644));
    assert_eq!(
        pod.read("pod.json"),
        r#"{"uid":"0f1e2d3c","name":"redis-sts-1","namespace":"shop","set":"redis-sts","ordinal":1,"service":"redis"}"#
    );
    let version = Command::new(pod.path("guardian-hook")).arg("version").output().unwrap();
    assert_eq!(String::from_utf8(version.stdout).unwrap(), "guardian-hook 0.1.0 protocol 1\n");
}

#[test]
fn install_again_changes_nothing_and_keeps_the_runs() {
    let spec = with_hook("init", "exit 0");
    let pod = Pod::with(&spec);
    pod.sh("r", "exit 0");
    let names = |pod: &Pod| -> Vec<_> { fs::read_dir(pod.path(".")).unwrap().map(|e| e.unwrap().file_name()).collect() };
    let before = (names(&pod).len(), pod.read("hooks.json"), pod.read("pod.json"), pod.runs());
    assert!(pod.install(&spec).status().unwrap().success());
    assert_eq!((names(&pod).len(), pod.read("hooks.json"), pod.read("pod.json"), pod.runs()), before);
}

#[test]
fn another_user_of_the_pod_runs_hooks_too() {
    let pod = Pod::new();
    // The directory of the test is closed to others; that of a pod is not.
    fs::set_permissions(pod.path("."), fs::Permissions::from_mode(0o1777)).unwrap();
    if !rustix::process::getuid().is_root() {
        return;
    }
    let mut run = Command::new("setpriv");
    run.args(["--reuid=65534", "--regid=65534", "--clear-groups"]).arg(pod.path("guardian-hook")).arg("run");
    run.env("GUARDIAN_DIR", pod.path(".")).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = run.spawn().unwrap();
    let bytes = guardian_hook::protocol::frame(&pod::script("r", "id -u")).unwrap();
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), &bytes).unwrap();
    assert_eq!(pod::outcome(&child.wait_with_output().unwrap()).stdout.text, "65534\n");
    assert_eq!(pod.sh("r", "exit 1").stdout.text, "65534\n", "and the first user learns of it");
}

#[test]
fn an_installation_that_cannot_be_right_says_why() {
    let pod = Pod::empty();
    let spec = with_hook("init", "exit 0");
    let complaint = |command: &mut Command| {
        let out = command.output().unwrap();
        assert_eq!(out.status.code(), Some(2));
        String::from_utf8(out.stderr).unwrap()
    };
    assert!(complaint(pod.install(&spec).env_remove("GUARDIAN_SPEC")).contains("GUARDIAN_SPEC is not set"));
    assert!(complaint(pod.install(&spec).env("GUARDIAN_SPEC", "%")).contains("GUARDIAN_SPEC is not base64"));
    assert!(complaint(pod.install(&spec).env("GUARDIAN_POD_UID", "")).contains("GUARDIAN_POD_UID is not set"));
    assert!(complaint(pod.install(&spec).env("GUARDIAN_POD", "redis")).contains("redis has no ordinal"));
    assert!(complaint(&mut pod.install(&climbing())).contains("cannot name a script"));
    assert!(complaint(&mut pod.command("init")).contains("pod.json: no such file or directory, which guardian-init writes"));
    assert!(complaint(&mut pod.command("instal")).contains("--help"));
    assert!(!pod.path("guardian-hook").exists());
}

fn climbing() -> Installed {
    let program = Program::Script { name: "../pod.json".into(), text: String::new() };
    let hook = InPodHook { program, timeout_ms: 1, env: BTreeMap::new(), on_failure: OnFailure::Block };
    installed(BTreeMap::from([("init".into(), hook)]))
}

#[test]
fn init_tells_the_hook_who_it_is_and_passes_its_output_through() {
    let mut spec = with_hook("init", "env | grep -E '^(GUARDIAN_[HNSPO]|MINE|OWN)' | sort; echo to err >&2");
    let hook = spec.hooks.get_mut("init").unwrap();
    hook.env = BTreeMap::from([("MINE".into(), "1".into()), ("OWN".into(), "hook".into())]);
    let pod = Pod::with(&spec);
    let out = pod.command("init").env("OWN", "container").output().unwrap();
    assert_eq!(
        String::from_utf8(out.stdout).unwrap(),
        "GUARDIAN_HOOK=init\nGUARDIAN_NAMESPACE=shop\nGUARDIAN_ORDINAL=1\nGUARDIAN_POD=redis-sts-1\nGUARDIAN_SERVICE=redis\n\
         GUARDIAN_SET=redis-sts\nMINE=1\nOWN=hook\n"
    );
    assert_eq!((String::from_utf8(out.stderr).unwrap().as_str(), out.status.code()), ("to err\n", Some(0)));
}

#[test]
fn a_failed_init_holds_the_pod_up_only_when_asked_to() {
    let spec = with_hook("init", "exit 3");
    let run = |spec: &Installed| {
        let out = Pod::with(spec).command("init").output().unwrap();
        (out.status.code().unwrap(), String::from_utf8(out.stderr).unwrap())
    };
    assert_eq!(run(&spec), (0, "guardian-hook: init exited with 3; onFailure is continue, so the pod goes on\n".into()));
    assert_eq!(
        run(&blocking(spec)),
        (3, "guardian-hook: init exited with 3; onFailure is block, so the pod does not start\n".into())
    );
    let mut late = blocking(with_hook("init", "sleep 300"));
    late.hooks.get_mut("init").unwrap().timeout_ms = 100;
    assert_eq!(run(&late).0, 124);
    let mut missing = blocking(with_hook("init", ""));
    missing.hooks.get_mut("init").unwrap().program = Program::Command(vec!["no-such-program".into()]);
    assert_eq!(run(&missing).0, 127);
    missing.hooks.get_mut("init").unwrap().program = Program::Command(vec!["/".into()]);
    assert_eq!(run(&missing).0, 126);
    assert_eq!(run(&blocking(with_hook("init", "kill -9 $$"))).0, 137);
    assert_eq!(run(&installed(BTreeMap::new())), (0, String::new()), "no hook, no word");
}

#[test]
fn a_pod_that_is_deleted_during_init_ends_it() {
    let pod = Pod::with(&blocking(with_hook("init", "trap 'exit 7' TERM; echo > begun; while :; do sleep 0.01; done")));
    let begun = pod.fifo("begun");
    let mut init = pod.command("init").spawn().unwrap();
    fs::read(begun).unwrap();
    kill_process(Pid::from_raw(init.id().try_into().unwrap()).unwrap(), Signal::TERM).unwrap();
    assert_eq!(init.wait().unwrap().code(), Some(7));
}
