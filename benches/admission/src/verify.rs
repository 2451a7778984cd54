//! Is an answer the full rewrite that is measured?

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hyper::body::Bytes;
use json_patch::Patch;
use serde_json::{Value, json};

use crate::BenchError;

/// What every answer is held against, cheaply: it is done under load.
#[derive(Clone)]
pub(crate) enum Expected {
    /// Whatever it is, [`rewrite`] will look at it.
    Any,
    /// This answer.
    Exactly(Bytes),
    /// An answer that allows and changes something. The Go peer's patch has its operations in another order each time.
    Patch,
}

impl Expected {
    pub(crate) fn check(&self, body: &[u8]) -> Result<(), BenchError> {
        // Both come before the patch itself.
        let head = body.get(..body.len().min(200)).unwrap_or_default();
        let has = |text: &[u8]| head.windows(text.len()).any(|window| window == text);
        let good = match self {
            Self::Any => true,
            Self::Exactly(expected) => expected == body,
            Self::Patch => has(b"\"allowed\":true") && has(b"\"patch"),
        };
        if good { Ok(()) } else { Err(BenchError::Wrong(String::from_utf8_lossy(head).into_owned())) }
    }
}

/// Looks at one answer as closely as it goes: the patch applies, and what comes out has every part of the guardian's.
pub(crate) fn rewrite(review: &str, answer: &[u8]) -> Result<(), BenchError> {
    let wrong = |what: &str| {
        BenchError::Wrong(format!("{what}: {}", String::from_utf8_lossy(answer.get(..answer.len().min(300)).unwrap_or_default())))
    };
    let review: Value = serde_json::from_str(review)?;
    let answer_value: Value = serde_json::from_slice(answer)?;
    let response = answer_value.get("response").unwrap_or(&Value::Null);
    if response.get("uid") != review.pointer("/request/uid") || response.get("allowed") != Some(&json!(true)) {
        return Err(wrong("not allowed, or of another uid"));
    }
    let patch = response.get("patch").and_then(Value::as_str).ok_or_else(|| wrong("no patch"))?;
    let patch: Patch = serde_json::from_slice(&STANDARD.decode(patch).map_err(|_invalid| wrong("no base64"))?)?;
    let mut object = review.pointer("/request/object").cloned().unwrap_or_default();
    json_patch::patch(&mut object, &patch).map_err(|error| wrong(&error.to_string()))?;
    let template = object.pointer("/spec/template").unwrap_or(&Value::Null);
    match missing(template) {
        None => Ok(()),
        Some(part) => Err(wrong(&format!("the rewritten template lacks {part}"))),
    }
}

fn missing(template: &Value) -> Option<&'static str> {
    let is = |pointer: &str, value: Value| template.pointer(pointer) == Some(&value);
    let has = |pointer: &str| template.pointer(pointer).is_some_and(|value| !value.is_null());
    let mounted = |container: &Value| {
        let mounts = container.get("volumeMounts").and_then(Value::as_array);
        mounts.is_some_and(|mounts| mounts.iter().any(|mount| mount.get("name") == Some(&json!("guardian"))))
    };
    let containers = template.pointer("/spec/containers").and_then(Value::as_array);
    let parts = [
        ("guardian-init", is("/spec/initContainers/0/name", json!("guardian-init"))),
        ("guardian-init-hook", is("/spec/initContainers/1/name", json!("guardian-init-hook"))),
        ("the volume", is("/spec/volumes/0/name", json!("guardian"))),
        ("a mount", containers.is_some_and(|containers| containers.iter().all(mounted))),
        ("preStop", is("/spec/containers/0/lifecycle/preStop/exec/command", json!(["/guardian/guardian-hook", "stop"]))),
        ("the grace period", template.pointer("/spec/terminationGracePeriodSeconds").and_then(Value::as_i64) > Some(30)),
        ("the PriorityClass", is("/spec/priorityClassName", json!("stateful-critical"))),
        ("the label", is("/metadata/labels/stateful-guardian.io~1guarded", json!("true"))),
        ("the record", has("/metadata/annotations/stateful-guardian.io~1injected")),
    ];
    parts.into_iter().find_map(|(part, there)| (!there).then_some(part))
}
