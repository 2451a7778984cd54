//! The plan: everything that a policy wants in a pod template, one file a change.
//!
//! [`make`] decides over the user's part of the template; [`write`] brings a template to it with the fewest operations, so that a template
//! that has it all gets none.

mod grace;
mod init;
mod init_hook;
mod init_order;
mod pre_stop;
mod priority;
mod ready_after;
mod spread;

use std::collections::BTreeMap;

use serde_json::value::RawValue;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::editor::Editor;
use super::pin::{self, Record, Scalar, ScalarPath, is_named, items, list};
use super::{Settings, Snapshot};
use crate::names;
use crate::policy::{Hook, Policy};

pub(super) use pre_stop::handler as pre_stop;
pub(super) use ready_after::probe as startup_probe;

/// What a policy wants in a template, and what is to be said about it.
#[derive(Default)]
pub(super) struct Plan {
    /// `None`: the policy cannot be applied to this template; the warnings say why.
    pub(super) wanted: Option<Wanted>,
    pub(super) warnings: Vec<String>,
    pub(super) changes: Vec<&'static str>,
}

/// Our part of a template.
pub(super) struct Wanted {
    init_containers: Vec<Value>,
    /// So many of the user's come before them.
    place: usize,
    record: Record,
}

impl Plan {
    /// What would be recorded, were the plan carried out.
    pub(super) fn record(&self) -> Option<&Record> {
        self.wanted.as_ref().map(|wanted| &wanted.record)
    }
}

/// What is known of the set beside its template.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct SetFacts<'a> {
    pub(super) name: &'a str,
    pub(super) service: &'a str,
    /// Its `selector`: which pods are its own.
    pub(super) selector: Option<&'a RawValue>,
}

/// What the changes are worked out from.
#[derive(Clone, Copy)]
pub(super) struct Context<'a> {
    /// The user's part of the template.
    pub(super) template: &'a Value,
    pub(super) set: SetFacts<'a>,
    pub(super) policy: &'a Policy,
    pub(super) snapshot: &'a Snapshot,
    pub(super) settings: &'a Settings,
}

/// What the policy wants. Nothing is written at all for a policy that names a container which is not there.
pub(super) fn make(cx: &Context<'_>) -> Plan {
    let mut draft = Draft::default();
    if let Err(warning) = cx.check() {
        draft.warnings.push(warning);
        return Plan { wanted: None, warnings: draft.warnings, changes: Vec::new() };
    }
    let installed = pre_stop::change(cx, &mut draft);
    if let Err(warning) = init::change(cx, &installed, &mut draft) {
        draft.warnings.push(warning);
        return Plan { wanted: None, warnings: draft.warnings, changes: Vec::new() };
    }
    init_hook::change(cx, &mut draft);
    ready_after::change(cx, &mut draft);
    grace::change(cx, &installed, &mut draft);
    priority::change(cx, &mut draft);
    spread::change(cx, &mut draft);
    let place = init_order::place(cx, &mut draft);

    let record = Record {
        policy: cx.policy.name.clone(),
        revision: cx.policy.revision.clone(),
        parts: draft.init_containers.iter().filter_map(|c| Some((c.get("name")?.as_str()?.to_owned(), digest(c)))).collect(),
        scalars: draft.scalars,
    };
    let wanted = Wanted { init_containers: draft.init_containers, place, record };
    Plan { wanted: Some(wanted), warnings: draft.warnings, changes: draft.changes }
}

/// Brings the template in `editor`, written by `record`, to what is `wanted` over `user`, the user's part of it.
pub(super) fn write(editor: &mut Editor, user: &Value, record: Option<&Record>, wanted: Option<&Wanted>) {
    let (inits, place) = wanted.map_or((&[][..], 0), |w| (w.init_containers.as_slice(), w.place));
    init_order::write(editor, inits, place);
    write_volume(editor, wanted.is_some());
    write_scalars(editor, user, record, wanted);
    // Strings and JSON values: serialising them cannot fail.
    let record = wanted.map(|w| serde_json::to_string(&w.record).unwrap_or_default());
    write_keys(editor, "annotations", record.as_deref().map(|record| (names::INJECTED, record)));
    write_keys(editor, "labels", wanted.map(|_| (names::GUARDED, "true")));
}

/// The emptyDir, and its mount in every container: moving a hook to another container needs no new template.
fn write_volume(editor: &mut Editor, wanted: bool) {
    if !wanted {
        return pin::drop_volume(editor);
    }
    editor.ensure(&["spec"], "volumes", &json!({"name": names::VOLUME, "emptyDir": {}}), None);
    for at in 0..items(editor.document(), "containers").len() {
        editor.ensure(&["spec", "containers", &at.to_string()], "volumeMounts", &mount(), None);
    }
}

/// Each recorded field becomes what is wanted; a field that is wanted no more becomes the user's.
fn write_scalars(editor: &mut Editor, user: &Value, record: Option<&Record>, wanted: Option<&Wanted>) {
    let mut paths: Vec<ScalarPath> = record.iter().flat_map(|r| r.scalars.keys().cloned()).collect();
    let containers = items(editor.document(), "containers").iter().filter_map(|c| c.get("name")?.as_str());
    let of_container = |name: &str| [ScalarPath::PreStop(name.to_owned()), ScalarPath::StartupProbe(name.to_owned())];
    paths.extend(containers.flat_map(of_container));
    paths.extend(wanted.iter().flat_map(|w| w.record.scalars.keys().cloned()));
    paths.sort();
    paths.dedup();
    for path in paths {
        let value = wanted.and_then(|w| w.record.scalars.get(&path)).map_or_else(|| path.read(user), |s| s.wrote.clone());
        if path.read(editor.document()) != value {
            path.write(editor, &value);
        }
    }
}

/// The one key of our prefix that is wanted in a map of the template's metadata; the others go.
fn write_keys(editor: &mut Editor, map: &'static str, wanted: Option<(&str, &str)>) {
    for key in pin::our_keys(editor.document(), map) {
        if wanted.is_none_or(|(name, _)| name != key) {
            editor.unset(&["metadata", map], &key, 1);
        }
    }
    if let Some((key, value)) = wanted {
        editor.set(&["metadata", map], key, &json!(value));
    }
}

/// What the changes have come to so far.
#[derive(Default)]
pub(super) struct Draft {
    init_containers: Vec<Value>,
    scalars: BTreeMap<ScalarPath, Scalar>,
    warnings: Vec<String>,
    changes: Vec<&'static str>,
}

impl Context<'_> {
    /// The container in which `hook` runs. [`make`] has checked that it is there.
    fn container(&self, hook: Option<&Hook>) -> &Value {
        let name = hook.and_then(|h| h.container.as_ref()).or(self.policy.container.as_ref());
        let containers = items(self.template, "containers");
        let found = name.map_or_else(|| containers.first(), |name| containers.iter().find(|c| is_named(c, name)));
        found.unwrap_or(&Value::Null)
    }

    /// Can the policy be applied to this template at all?
    fn check(&self) -> Result<(), String> {
        let hooks = &self.policy.hooks;
        let containers = items(self.template, "containers");
        let named =
            [&hooks.init, &hooks.join, &hooks.rejoin, &hooks.pre_stop].into_iter().flatten().filter_map(|h| h.container.as_ref());
        if let Some(missing) = named.chain(&self.policy.container).find(|name| !containers.iter().any(|c| is_named(c, name))) {
            let policy = &self.policy.name;
            return Err(format!("not guarded: policy {policy} names the container {missing}, which the pod template lacks"));
        }
        if containers.is_empty() {
            return Err("not guarded: the pod template has no container".to_owned());
        }
        let mounts = pin::CONTAINERS.iter().flat_map(|l| items(self.template, l)).flat_map(|c| list(c, "volumeMounts"));
        if items(self.template, "volumes").iter().chain(mounts.clone()).any(|item| is_named(item, names::VOLUME)) {
            return Err(format!("not guarded: the volume name {} is reserved, rename yours", names::VOLUME));
        }
        let mut paths = mounts.filter_map(|m| m.get("mountPath")?.as_str());
        if paths.any(|path| path.trim_end_matches('/') == names::MOUNT_PATH) {
            return Err(format!("not guarded: the mount path {} is reserved, choose another", names::MOUNT_PATH));
        }
        if self.template.pointer("/spec/os/name").and_then(Value::as_str) == Some("windows") {
            return Err("not guarded: the runner is a Linux program, and these pods run Windows".to_owned());
        }
        Ok(())
    }
}

/// The first 16 hexadecimal digits of a SHA-256; members of objects are in one order, so equal values give equal digests.
fn digest(value: &Value) -> String {
    Sha256::digest(value.to_string()).iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}

/// The mount of the runner's directory.
fn mount() -> Value {
    json!({"name": names::VOLUME, "mountPath": names::MOUNT_PATH})
}

/// The resources of a container that an init container may have too without changing what the pod costs or its QoS class: both count
/// by their maximum, and devices or huge pages would be asked for twice.
fn resources(container: &Value) -> Value {
    const COPIED: [&str; 3] = ["cpu", "ephemeral-storage", "memory"];
    let mut copy = serde_json::Map::new();
    for kind in ["limits", "requests"] {
        let Some(amounts) = container.pointer(&format!("/resources/{kind}")).and_then(Value::as_object) else { continue };
        let amounts: serde_json::Map<_, _> =
            amounts.iter().filter(|(name, _)| COPIED.contains(&name.as_str())).map(|(k, v)| (k.clone(), v.clone())).collect();
        if !amounts.is_empty() {
            copy.insert(kind.to_owned(), Value::Object(amounts));
        }
    }
    Value::Object(copy)
}
