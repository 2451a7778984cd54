//! `guardian-init`: brings the runner, and the hooks that the pod runs by itself, into the emptyDir.

use guardian_hook::protocol::{Installed, SPEC_VARIABLE};
use serde_json::Value;

use super::super::tree::{self, Tree};
use super::{Context, Draft, InitContainer, MOUNT, resources};
use crate::names;

/// The user of our image; it may be any but 0.
const USER: u32 = 65532;

/// Adds the init container. It comes first: what follows may need the runner.
///
/// The fields that the API server would default are written as it would write them, so that a second look finds nothing to change.
pub(super) fn change(cx: &Context<'_>, installed: &Installed, draft: &mut Draft) -> Result<(), String> {
    let spec = installed.encode().map_err(|error| format!("not guarded: policy {}: {error}", cx.policy.name))?;
    let image = tree::json(&cx.settings.image);
    let json = [
        r#"{"name":""#,
        names::INIT,
        r#"","command":["/guardian-hook","install"],"env":[{"name":"GUARDIAN_POD","valueFrom":"#,
        r#"{"fieldRef":{"apiVersion":"v1","fieldPath":"metadata.name"}}},{"name":"GUARDIAN_POD_UID","valueFrom":"#,
        r#"{"fieldRef":{"apiVersion":"v1","fieldPath":"metadata.uid"}}},{"name":"GUARDIAN_NAMESPACE","valueFrom":"#,
        r#"{"fieldRef":{"apiVersion":"v1","fieldPath":"metadata.namespace"}}},{"name":""#,
        SPEC_VARIABLE,
        r#"","value":""#,
        &spec, // base64
        r#""}],"image":"#,
        &image,
        r#","imagePullPolicy":""#,
        pull_policy(&cx.settings.image),
        r#"","resources":"#,
        &resources(cx.container(None)),
        r#","securityContext":"#,
        &security_context(cx.template),
        r#","terminationMessagePath":"/dev/termination-log","terminationMessagePolicy":"File","volumeMounts":["#,
        MOUNT,
        "]}",
    ]
    .concat();
    draft.init_containers.push(InitContainer { name: names::INIT, json });
    draft.changes.push(names::INIT);
    Ok(())
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
fn security_context(template: &Tree<'_>) -> String {
    let own = template.at(&["spec", "securityContext"]).map(Tree::value).unwrap_or_default();
    let root = own.get("runAsUser").and_then(Value::as_u64) == Some(0);
    [
        r#"{"allowPrivilegeEscalation":false,"capabilities":{"drop":["ALL"]},"readOnlyRootFilesystem":true,"runAsNonRoot":true"#,
        &if root { format!(r#","runAsUser":{USER}"#) } else { String::new() },
        r#","seccompProfile":{"type":"RuntimeDefault"}}"#,
    ]
    .concat()
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
