//! `guardian-init`: brings the runner, and the hooks that the pod runs by itself, into the emptyDir.

use guardian_hook::protocol::{Installed, SPEC_VARIABLE};
use serde_json::{Map, Value, json};

use super::{Context, Draft, mount, resources};
use crate::names;

/// The user of our image; it may be any but 0.
const USER: u32 = 65532;

/// Adds the init container. It comes first: what follows may need the runner.
///
/// The fields that the API server would default are written as it would write them, so that a second look finds nothing to change.
pub(super) fn change(cx: &Context<'_>, installed: &Installed, draft: &mut Draft) -> Result<(), String> {
    let spec = installed.encode().map_err(|error| format!("not guarded: policy {}: {error}", cx.policy.name))?;
    let container = json!({
        "name": names::INIT,
        "image": cx.settings.image,
        "imagePullPolicy": pull_policy(&cx.settings.image),
        "command": ["/guardian-hook", "install"],
        "env": [
            {"name": "GUARDIAN_POD", "valueFrom": field("metadata.name")},
            {"name": "GUARDIAN_POD_UID", "valueFrom": field("metadata.uid")},
            {"name": "GUARDIAN_NAMESPACE", "valueFrom": field("metadata.namespace")},
            {"name": SPEC_VARIABLE, "value": spec},
        ],
        "resources": resources(cx.container(None)),
        "securityContext": security_context(cx.template),
        "terminationMessagePath": "/dev/termination-log",
        "terminationMessagePolicy": "File",
        "volumeMounts": [mount()],
    });
    draft.init_containers.push(container);
    draft.changes.push(names::INIT);
    Ok(())
}

fn field(path: &str) -> Value {
    json!({"fieldRef": {"apiVersion": "v1", "fieldPath": path}})
}

/// As the API server defaults it: `Always` for the tag `latest` or none, else `IfNotPresent` (`imagePullPolicy`).
fn pull_policy(image: &str) -> &'static str {
    let name = image.rsplit('/').next().unwrap_or(image);
    match name.rsplit_once(':') {
        _ if name.contains('@') => "IfNotPresent",
        None | Some((_, "latest")) => "Always",
        Some(_) => "IfNotPresent",
    }
}

/// What the `restricted` Pod Security Standard asks for. The user is named only where the pod's own is root: elsewhere a namespace may
/// prescribe a range, and then the pod's or the image's user is the right one.
fn security_context(template: &Value) -> Value {
    let mut context = Map::from_iter([
        ("allowPrivilegeEscalation".to_owned(), json!(false)),
        ("capabilities".to_owned(), json!({"drop": ["ALL"]})),
        ("readOnlyRootFilesystem".to_owned(), json!(true)),
        ("runAsNonRoot".to_owned(), json!(true)),
        ("seccompProfile".to_owned(), json!({"type": "RuntimeDefault"})),
    ]);
    if template.pointer("/spec/securityContext/runAsUser") == Some(&json!(0)) {
        context.insert("runAsUser".to_owned(), json!(USER));
    }
    Value::Object(context)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pull_policy_is_the_one_the_api_server_would_default() {
        let cases = [
            ("guardian", "Always"),
            ("guardian:latest", "Always"),
            ("host:5000/guardian", "Always"),
            ("host:5000/guardian:1.2", "IfNotPresent"),
            ("guardian@sha256:0123", "IfNotPresent"),
            ("guardian:latest@sha256:0123", "IfNotPresent"),
        ];
        for (image, expected) in cases {
            assert_eq!(pull_policy(image), expected, "{image}");
        }
    }
}
