//! `guardian-init-hook`: runs the policy's `init` hook with the application's image, environment and volumes.

use super::super::tree::Tree;
use super::{Context, Draft, InitContainer, MOUNT, resources};
use crate::names;

/// Fields of the application's container that one beside it must have too, or it would not see the application's world.
const COPIED: [&str; 7] = ["image", "imagePullPolicy", "env", "envFrom", "workingDir", "securityContext", "volumeDevices"];

/// Adds the init container, when the policy has an `init` hook.
pub(super) fn change(cx: &Context<'_>, draft: &mut Draft) {
    let Some(hook) = &cx.policy.hooks.init else { return };
    let application = cx.container(Some(hook));
    let json = like(application, names::INIT_HOOK, "init", &resources(application));
    draft.init_containers.push(InitContainer { name: names::INIT_HOOK, json });
    draft.changes.push(names::INIT_HOOK);
}

/// A container that runs a command of the runner in the application's world, as JSON.
pub(super) fn like(application: &Tree<'_>, name: &str, command: &str, resources: &str) -> String {
    let mut json = String::with_capacity(4 << 10);
    json.extend([r#"{"name":""#, name, r#"","command":[""#, names::RUNNER, r#"",""#, command, r#""],"#]);
    for field in COPIED {
        if let Some(value) = application.get(field) {
            json.extend(["\"", field, "\":"]);
            value.write(&mut json);
            json.push(',');
        }
    }
    json.push_str("\"resources\":");
    json.push_str(resources);
    json.push_str(r#","terminationMessagePath":"/dev/termination-log","terminationMessagePolicy":"File","volumeMounts":["#);
    for mount in application.get("volumeMounts").map_or(&[][..], Tree::items) {
        mount.write(&mut json);
        json.push(',');
    }
    json.push_str(MOUNT);
    json.push_str("]}");
    json
}
