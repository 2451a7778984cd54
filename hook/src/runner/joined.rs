//! `joined`: the startup probe of a pod that is to be ready only once `join` or `rejoin` has run in it.
//!
//! It waits, so that the pod is ready the moment its hook has ended, and the kubelet needs one exec for it instead of one a second. It never fails:
//! once the time is over that the container is given, counted from its start, the answer is yes. So a pod that is started while no controller
//! runs is late, and not lost; and a probe that is asked again of a container of long ago, as a kubelet does when it starts itself, answers at once.

use alloc::collections::BTreeSet;
use alloc::format;
use alloc::string::String;

use rustix::fs::{Mode, OFlags, open};

use super::claim;
use super::clock::{boottime_ms, monotonic_ms};
use super::files::{Watch, read_whole};
use super::home::Home;
use super::life::Life;
use super::{Environment, FAULT, complain, print};
use crate::protocol::{MAX_OUTCOME, MAX_TIMEOUT_MS, Outcome, RunResult};

/// The hooks that bring a pod into its cluster, or make the cluster in it.
const HOOKS: [&str; 3] = ["bootstrap", "join", "rejoin"];

/// Waits until one of [`HOOKS`] has ended well in this life of the container, or for the time `within` from its start.
pub(super) fn joined(home: &Home, env: &Environment, within: &[u8]) -> u8 {
    let Some(within_ms) = duration_ms(within) else {
        complain("--within takes a time of at most a day, such as 60s or 1m30s");
        return FAULT;
    };
    let life = Life::of(env);
    let now = boottime_ms();
    let began = life.as_ref().map_or(now, |life| life.began_ms.min(now));
    let end = monotonic_ms() + began.saturating_add(within_ms).saturating_sub(now);
    let watch = Watch::on(&home.runs());
    let mut known = BTreeSet::new();
    loop {
        if let Some(run_id) = life.as_ref().and_then(|life| find(home, life, &mut known)) {
            return print(&format!("joined: {run_id} ended well in this life of the container\n"));
        }
        if monotonic_ms() >= end {
            return print("joined: no join or rejoin ended well in time; ready all the same\n");
        }
        watch.wait(end);
    }
}

/// A run that counts, among those that ended since the last look.
fn find(home: &Home, life: &Life, known: &mut BTreeSet<String>) -> Option<String> {
    let dir = open(home.runs().as_str(), OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).ok()?;
    for entry in rustix::fs::Dir::new(dir).ok()?.flatten() {
        let Some(run_id) = entry.file_name().to_str().ok().and_then(|name| name.strip_suffix(".json")) else { continue };
        if known.insert(run_id.into()) && counts(home, life, run_id) {
            return Some(run_id.into());
        }
    }
    None
}

fn counts(home: &Home, life: &Life, run_id: &str) -> bool {
    let claimed = claim::note(home, run_id);
    if !claimed.is_some_and(|note| HOOKS.contains(&note.hook.as_str()) && note.life.as_ref() == Some(&life.id)) {
        return false;
    }
    let outcome = read_whole(&home.outcome(run_id), MAX_OUTCOME).ok();
    let outcome = outcome.and_then(|bytes| serde_json::from_slice::<Outcome>(&bytes).ok());
    outcome.is_some_and(|outcome| outcome.result == RunResult::Exited { code: 0 })
}

/// A time as policies write it: `90s`, `1m30s`; at most [`MAX_TIMEOUT_MS`].
fn duration_ms(text: &[u8]) -> Option<u64> {
    let mut rest = core::str::from_utf8(text).ok()?;
    let mut all = 0_u64;
    while !rest.is_empty() {
        let (digits, after) = rest.split_at(rest.find(|c: char| !c.is_ascii_digit())?);
        let (unit, after) = after.split_at(after.find(|c: char| c.is_ascii_digit()).unwrap_or(after.len()));
        let ms = match unit {
            "ms" => 1,
            "s" => 1000,
            "m" => 60_000,
            "h" => 3_600_000,
            _ => return None,
        };
        all = all.checked_add(digits.parse::<u64>().ok()?.checked_mul(ms)?)?;
        rest = after;
    }
    (1..=MAX_TIMEOUT_MS).contains(&all).then_some(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_those_of_policies() {
        let table = [
            ("60s", Some(60_000)),
            ("1m30s", Some(90_000)),
            ("500ms", Some(500)),
            ("24h", Some(MAX_TIMEOUT_MS)),
            ("24h1ms", None),
            ("0s", None),
            ("", None),
            ("60", None),
            ("s", None),
            ("-5s", None),
            ("5 s", None),
            ("99999999999999999999h", None),
        ];
        for (text, expected) in table {
            assert_eq!(duration_ms(text.as_bytes()), expected, "{text:?}");
        }
    }
}
