//! `startupProbe`: the pod is ready only once `join` or `rejoin` has run in it.

use serde_json::{Value, json};

use super::super::pin::{Scalar, ScalarPath};
use super::super::tree::Tree;
use super::{Context, Draft};
use crate::names;
use crate::policy::READY_WITHIN;

/// What the probe may take beyond [`READY_WITHIN`]: to be started, and to end. The runner itself needs milliseconds.
const MARGIN_SECONDS: u64 = 10;

/// The probe that is written.
///
/// It waits by itself, and its answer is yes at the latest [`READY_WITHIN`] after the container's start; so one that fails is one that could not
/// be run. A kubelet kills the container after `failureThreshold` failures in a row, and that must never come of this probe: at one failure a
/// second (`periodSeconds`, also how late the first probe begins) 2147483647 of them, the most there can be, take 68 years. The default
/// `timeoutSeconds` of 1 would end the wait, and count as a failure.
pub(in crate::admission) fn probe() -> Value {
    let within = READY_WITHIN.as_secs();
    json!({
        "exec": {"command": [names::RUNNER, "joined", "--within", format!("{within}s")]},
        "failureThreshold": i32::MAX,
        "periodSeconds": 1,
        "successThreshold": 1,
        "timeoutSeconds": within + MARGIN_SECONDS,
    })
}

/// Adds the probe to the container in which the hook runs, where the user has none or the policy says `override`.
pub(super) fn change(cx: &Context<'_>, draft: &mut Draft) {
    if cx.policy.ready_after.is_none() {
        return;
    }
    // Both run in one container where the policy has both: a policy of which that is not true is refused.
    let hook = cx.policy.hooks.rejoin.as_ref().or(cx.policy.hooks.join.as_ref());
    let container = cx.container(hook);
    let Some(name) = container.get("name").and_then(Tree::as_str) else { return };
    let was = container.get("startupProbe").map(Tree::value).unwrap_or_default();
    if was.as_object().is_some_and(|own| !own.is_empty()) && !cx.policy.protect.overrides {
        draft.warnings.push(format!("the container {name} keeps its own startupProbe: it may be ready before its hook has run"));
        return;
    }
    draft.scalars.insert(ScalarPath::StartupProbe(name.into_owned()), Scalar { was, wrote: probe() });
    draft.changes.push("startupProbe");
}
