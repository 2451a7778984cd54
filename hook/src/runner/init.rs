//! `init`: the pod's own hook before its application starts. Its output is the init container's log.

use alloc::format;
use alloc::string::ToString;
use alloc::vec::Vec;

use super::home::Home;
use super::supervise::{Output, supervise};
use super::{Environment, FAULT, complain, exit_status, in_words, spawn};
use crate::protocol::OnFailure;

pub(super) fn init(home: &Home, env: &Environment) -> u8 {
    let (pod, installed) = match (home.pod(), home.hooks()) {
        (Ok(pod), Ok(installed)) => (pod, installed),
        (Err(e), _) | (_, Err(e)) => {
            complain(&e.to_string());
            return FAULT;
        }
    };
    let Some(hook) = installed.hooks.get("init") else { return 0 };
    let env = pod.environment(env, "init", hook);
    let argv = home.argv(hook);
    let argv: Vec<&[u8]> = argv.iter().map(Vec::as_slice).collect();
    let result = match spawn::Program::new(&argv, &env) {
        Ok(program) => supervise(&program, hook.timeout_ms, Output::Passed).result,
        Err(result) => result,
    };
    match (exit_status(&result), hook.on_failure) {
        (0, _) => 0,
        (status, OnFailure::Block) => {
            complain(&format!("init {}; onFailure is block, so the pod does not start", in_words(&result)));
            status
        }
        (_, OnFailure::Continue) => {
            complain(&format!("init {}; onFailure is continue, so the pod goes on", in_words(&result)));
            0
        }
    }
}
