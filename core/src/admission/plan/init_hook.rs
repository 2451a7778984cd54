//! `guardian-init-hook`: runs the policy's `init` hook with the application's image, environment and volumes.

use serde_json::{Map, Value, json};

use super::{Context, Draft, mount, resources};
use crate::names;

/// Fields of the application's container that the hook must have too, or it would not see the application's world.
const COPIED: [&str; 7] = ["image", "imagePullPolicy", "env", "envFrom", "workingDir", "securityContext", "volumeDevices"];

/// Adds the init container, when the policy has an `init` hook.
pub(super) fn change(cx: &Context<'_>, draft: &mut Draft) {
    let Some(hook) = &cx.policy.hooks.init else { return };
    let application = cx.container(Some(hook));
    let mut container = Map::new();
    container.insert("name".to_owned(), json!(names::INIT_HOOK));
    container.insert("command".to_owned(), json!([names::RUNNER, "init"]));
    for field in COPIED {
        if let Some(value) = application.get(field) {
            container.insert(field.to_owned(), value.clone());
        }
    }
    let mut mounts = application.get("volumeMounts").and_then(Value::as_array).cloned().unwrap_or_default();
    mounts.push(mount());
    container.insert("volumeMounts".to_owned(), Value::Array(mounts));
    container.insert("resources".to_owned(), resources(application));
    container.insert("terminationMessagePath".to_owned(), json!("/dev/termination-log"));
    container.insert("terminationMessagePolicy".to_owned(), json!("File"));
    draft.init_containers.push(Value::Object(container));
    draft.changes.push(names::INIT_HOOK);
}
