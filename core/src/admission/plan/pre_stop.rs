//! `lifecycle.preStop`: the runner's `stop`, which runs the policy's hook and then the user's own handler.

use std::collections::BTreeMap;

use guardian_hook::protocol::{Chained, Installed};
use serde_json::{Value, json};

use super::super::pin::{Scalar, ScalarPath};
use super::super::tree::Tree;
use super::{Context, Draft};
use crate::names;
use crate::policy::{OwnPreStop, Policy, REASON_WAIT};

/// The handler that is written.
pub(in crate::admission) fn handler() -> Value {
    json!({"exec": {"command": [names::RUNNER, "stop"]}})
}

/// Adds the handler when the policy has a `preStop` hook, and gives everything that the pod is to have installed.
pub(super) fn change(cx: &Context<'_>, draft: &mut Draft) -> Installed {
    let hooks = [("init", &cx.policy.hooks.init), ("preStop", &cx.policy.hooks.pre_stop)];
    let mut installed = Installed {
        format: 1,
        service: cx.set.service.to_owned(),
        set: cx.set.name.to_owned(),
        hooks: hooks
            .into_iter()
            .filter_map(|(name, hook)| Some((name.to_owned(), hook.as_ref()?.in_pod())))
            .collect::<BTreeMap<_, _>>(),
        chained: None,
        reason_wait_ms: 0,
    };
    let Some(hook) = &cx.policy.hooks.pre_stop else { return installed };
    let container = cx.container(Some(hook));
    let Some(name) = container.get("name").and_then(Tree::as_str) else { return installed };
    let was = container.at(&["lifecycle", "preStop"]).map(Tree::value).unwrap_or_default();
    match chained(&was, own(cx.policy)) {
        Ok(chained) => installed.chained = chained,
        Err(kind) => {
            let warning = format!("the container {name} keeps its own {kind} preStop: the policy's preStop hook will not run");
            draft.warnings.push(warning);
            installed.hooks.remove("preStop");
            return installed;
        }
    }
    if hook.asks_controller() {
        installed.reason_wait_ms = u64::try_from(REASON_WAIT.as_millis()).unwrap_or(u64::MAX);
    }
    draft.scalars.insert(ScalarPath::PreStop(name.into_owned()), Scalar { was, wrote: handler() });
    draft.changes.push("preStop");
    installed
}

/// What the policy says about the user's own handler.
fn own(policy: &Policy) -> OwnPreStop {
    let default = if policy.protect.overrides { OwnPreStop::Replace } else { OwnPreStop::Chain };
    policy.inject.own_pre_stop.unwrap_or(default)
}

/// The user's own handler in a form that the runner can carry out, if it is to; or the name of its kind, where it stays.
fn chained(handler: &Value, own: OwnPreStop) -> Result<Option<Chained>, &str> {
    match handler.as_object().and_then(|h| h.iter().next()) {
        None => Ok(None),
        Some(_) if own == OwnPreStop::Replace => Ok(None),
        Some((kind, _)) if own == OwnPreStop::Keep => Err(kind),
        Some((kind, exec)) if kind == "exec" => {
            let command = exec.get("command").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
            let command = command.iter().map(|a| a.as_str().map(str::to_owned)).collect::<Option<Vec<_>>>();
            command.filter(|c| !c.is_empty()).map(|command| Some(Chained::Exec(command))).ok_or(kind)
        }
        Some((kind, sleep)) if kind == "sleep" => {
            sleep.get("seconds").and_then(Value::as_u64).map(|seconds| Some(Chained::Sleep { seconds })).ok_or(kind)
        }
        Some((kind, _)) => Err(kind),
    }
}
