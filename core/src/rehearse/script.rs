//! How the hooks of a rehearsal end. None is executed: each takes its time, and ends as it is told to.

use std::collections::BTreeMap;
use std::time::Duration;

use guardian_hook::protocol::{Outcome, PROTOCOL, RunResult, Tail};

use super::Unfit;
use super::figures::HOOK;
use crate::policy::{Policy, nearest};

/// What is said of hooks beforehand, by the names that they have in the policy. Of the others each ends well after [`HOOK`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Script {
    /// Those that fail.
    pub fails: BTreeMap<String, Fails>,
    /// How long they take.
    pub times: BTreeMap<String, Duration>,
}

/// How often a hook fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fails {
    /// Each time that it runs.
    Always,
    /// The first times.
    Times(u32),
}

impl Script {
    /// The same by the names that the core has for what runs, if the policy has all of it.
    pub(super) fn resolved(&self, policy: &Policy) -> Result<Self, Unfit> {
        let name = |asked: &String| resolve(policy, asked);
        Ok(Self {
            fails: self.fails.iter().map(|(hook, fails)| Ok((name(hook)?, *fails))).collect::<Result<_, Unfit>>()?,
            times: self.times.iter().map(|(hook, time)| Ok((name(hook)?, *time))).collect::<Result<_, Unfit>>()?,
        })
    }

    /// How a run of this hook ends, and after how long.
    pub(super) fn play(&mut self, hook: &str, timeout: Duration) -> Outcome {
        let takes = self.times.get(hook).copied().unwrap_or(HOOK);
        if takes >= timeout {
            return outcome(RunResult::TimedOut, timeout);
        }
        let fails = match self.fails.get_mut(hook) {
            Some(Fails::Always) => true,
            Some(Fails::Times(0)) | None => false,
            Some(Fails::Times(left)) => {
                *left -= 1;
                true
            }
        };
        outcome(RunResult::Exited { code: i32::from(fails) }, takes)
    }
}

pub(super) fn outcome(result: RunResult, took: Duration) -> Outcome {
    Outcome {
        version: PROTOCOL,
        run_id: String::new(),
        result,
        duration_ms: u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
        stdout: Tail::default(),
        stderr: Tail::default(),
        survivors: 0,
    }
}

/// A task may be named without `tasks.` where no hook has its name.
fn resolve(policy: &Policy, asked: &str) -> Result<String, Unfit> {
    let mut known: Vec<String> = policy.hooks.all().into_keys().map(str::to_owned).collect();
    known.extend(policy.traffic.iter().filter_map(|traffic| traffic.drain.as_ref()).map(|_| "drain".to_owned()));
    known.extend(policy.tasks.keys().map(|task| format!("tasks.{task}")));
    let task = format!("tasks.{asked}");
    if let Some(found) = [asked, task.as_str()].into_iter().find(|name| known.iter().any(|known| known == name)) {
        return Ok(found.to_owned());
    }
    let nearest = nearest(asked, known.iter().map(String::as_str));
    Err(Unfit::NoHook { policy: policy.name.clone(), hook: asked.to_owned(), nearest, known })
}
