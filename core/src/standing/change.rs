//! A patch in words: what is changed, from what to what, and because of which key of the policy.

use json_patch::PatchOperation;
use serde::Serialize;
use serde_json::Value;

use super::StandingError;
use crate::admission::Patch;
use crate::names;
use crate::policy::Policy;

/// One field that is changed.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Change {
    /// Where, with the items of lists by their names: `spec.template.spec.containers[redis].lifecycle.preStop`.
    pub path: String,
    /// What stood there; `null` for nothing.
    pub before: Value,
    /// What stands there afterwards; `null` for nothing.
    pub after: Value,
    /// The key of the policy that wants it; `None` where it belongs to every guarded set.
    pub key: Option<&'static str>,
    /// Why.
    pub reason: String,
}

/// The changes that `patch` makes to `object`, in their order. Parents that are made for a member are told with the member.
pub(super) fn changes(object: &Value, patch: &Patch, policy: Option<&Policy>) -> Result<Vec<Change>, StandingError> {
    let operations: json_patch::Patch = serde_json::from_slice(&patch.to_bytes())?;
    let mut object = object.clone();
    let mut changes = Vec::new();
    for operation in operations.0 {
        let path = operation.path().as_str();
        let before = object.pointer(path).cloned().unwrap_or_default();
        let (before, after) = match &operation {
            // An insertion moves what stands there; it replaces only a member of an object.
            PatchOperation::Add(add) => (if is_item(&object, path) { Value::Null } else { before }, add.value.clone()),
            PatchOperation::Replace(replace) => (before, replace.value.clone()),
            _ => (before, Value::Null),
        };
        let parent = matches!(&after, Value::Object(members) if members.is_empty()) && before.is_null();
        if !parent {
            changes.extend(told(&object, path, before, after, policy));
        }
        json_patch::patch(&mut object, &[operation])?;
    }
    Ok(changes)
}

/// A list that is made with its items in it is told item by item.
fn told(object: &Value, pointer: &str, before: Value, after: Value, policy: Option<&Policy>) -> Vec<Change> {
    let path = named(object, pointer, &after, &before);
    let one = |path: String, before: Value, after: Value| {
        let (key, reason) = because(&path, after.is_null(), policy);
        Change { path, before, after, key, reason }
    };
    match (&before, &after) {
        (Value::Null, Value::Array(items)) if !items.is_empty() && items.iter().all(|item| item.get("name").is_some()) => {
            items.iter().map(|item| one(format!("{path}[{}]", name(item)), Value::Null, item.clone())).collect()
        }
        _ => vec![one(path, before, after)],
    }
}

/// Does the pointer name a place in a list?
fn is_item(object: &Value, pointer: &str) -> bool {
    pointer.rsplit_once('/').and_then(|(parent, _)| object.pointer(parent)).is_some_and(Value::is_array)
}

/// A pointer for people: items of lists by their names where they have one.
fn named(object: &Value, pointer: &str, after: &Value, before: &Value) -> String {
    let mut path = String::new();
    let mut at = Some(object);
    let mut steps = pointer.split('/').skip(1).peekable();
    while let Some(step) = steps.next() {
        let key = step.replace("~1", "/").replace("~0", "~");
        let last = steps.peek().is_none();
        if at.is_some_and(Value::is_array) {
            let item = at.and_then(|list| list.get(key.parse::<usize>().ok()?));
            let shown = if !last {
                item
            } else if after.is_null() {
                Some(before)
            } else {
                Some(after)
            };
            let name = shown.map(name).filter(|name| !name.is_empty()).unwrap_or(&key).to_owned();
            path.push_str(&format!("[{name}]"));
            at = item;
        } else {
            if !path.is_empty() {
                path.push('.');
            }
            path.push_str(&key);
            at = at.and_then(|object| object.get(&key));
        }
    }
    path
}

fn name(item: &Value) -> &str {
    item.get("name").and_then(Value::as_str).unwrap_or_default()
}

/// The key of the policy that wants a change, and the reason.
fn because(path: &str, gone: bool, policy: Option<&Policy>) -> (Option<&'static str>, String) {
    let has = |part: &str| path.contains(part);
    let ends = |part: &str| path.ends_with(part);
    if path == "spec.template" {
        return (None, "the guardian's part was missing or altered, and the rest is what it was: put back as it was".to_owned());
    }
    if gone && policy.is_none() {
        return (None, "no policy guards the set any more".to_owned());
    }
    let (key, reason) = if has(&format!("initContainers[{}]", names::INIT_HOOK)) {
        (Some("hooks.init"), "runs the hook before every start of the pod, with the application's image and volumes".to_owned())
    } else if has(&format!("initContainers[{}]", names::AGENT)) {
        (Some("collect"), "asks role and metrics beside the application, and answers the controller and Prometheus".to_owned())
    } else if has(&format!("initContainers[{}]", names::INIT)) {
        (None, "brings the runner, and the hooks that the pod runs by itself, into the pod".to_owned())
    } else if ends(&format!("volumes[{}]", names::VOLUME)) {
        (None, "holds the runner and the outcomes of hooks".to_owned())
    } else if has(&format!("volumeMounts[{}]", names::VOLUME)) {
        (None, "hooks run in any container".to_owned())
    } else if has("lifecycle") {
        (
            Some("hooks.preStop"),
            "runs the hook before every stop, then the handler that stood there, if the policy chains it".to_owned(),
        )
    } else if ends("terminationGracePeriodSeconds") {
        (Some("hooks.preStop.timeout"), grace(policy))
    } else if ends("priorityClassName") {
        (Some("protect.priorityClassName"), "evicted last, and makes room for itself".to_owned())
    } else if has("topologySpreadConstraints") {
        (Some("protect.spread"), "keeps the pods apart, where that is possible".to_owned())
    } else if has("startupProbe") {
        (Some("readyAfter"), "ready only once the hook has run".to_owned())
    } else if ends(names::GUARDED) {
        (None, "the controller watches pods with this label".to_owned())
    } else if ends(names::SERVING) {
        (Some("traffic"), "a Service of `traffic` sends to pods that say `true` here".to_owned())
    } else if ends(names::INJECTED) {
        (None, "the record of what was written and what stood there before: it pins the template".to_owned())
    } else {
        (None, "part of every guarded template".to_owned())
    };
    (key, if gone { format!("not wanted any more: {reason}") } else { reason })
}

fn grace(policy: Option<&Policy>) -> String {
    let timeout =
        policy.and_then(|policy| policy.hooks.pre_stop.as_ref()).map_or(0, |hook| hook.timeout.as_millis().div_ceil(1000));
    let stop = crate::admission::STOP_TIME.as_secs();
    format!("includes preStop: {timeout} s for the hook, your own handler's time, and {stop} s for the application itself")
}
