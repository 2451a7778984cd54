//! The plan: everything that a policy wants in a pod template, one file a change.
//!
//! [`make`] decides over the user's part of the template; [`write`] brings a template to it with the fewest operations, so that a template
//! that has it all gets none.

mod agent;
mod grace;
mod init;
mod init_hook;
mod init_order;
mod pre_stop;
mod priority;
mod ready_after;
mod spread;

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;
use sha2::{Digest as _, Sha256};

use super::canonical::canonical;
use super::editor::Editor;
use super::pin::{self, Record, Scalar, ScalarPath, is_named, items, list};
use super::tree::{NULL, Tree};
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
    init_containers: Vec<InitContainer>,
    /// So many of the user's come before them.
    place: usize,
    record: Record,
}

/// An init container of ours.
struct InitContainer {
    name: &'static str,
    /// All of it, as JSON.
    json: String,
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
    pub(super) template: &'a Tree<'a>,
    pub(super) set: SetFacts<'a>,
    pub(super) policy: &'a Policy,
    pub(super) snapshot: &'a Snapshot,
    pub(super) settings: &'a Settings,
}

/// What the policy wants. Nothing is written at all for a policy that names a container which is not there.
pub(super) fn make(cx: &Context<'_>) -> Plan {
    let mut draft = Draft::default();
    match change(cx, &mut draft) {
        Ok(wanted) => Plan { wanted: Some(wanted), warnings: draft.warnings, changes: draft.changes },
        Err(warning) => {
            draft.warnings.push(warning);
            Plan { wanted: None, warnings: draft.warnings, changes: Vec::new() }
        }
    }
}

/// Every change in its order.
fn change(cx: &Context<'_>, draft: &mut Draft) -> Result<Wanted, String> {
    cx.check()?;
    let installed = pre_stop::change(cx, draft);
    init::change(cx, &installed, draft)?;
    init_hook::change(cx, draft);
    agent::change(cx, draft);
    ready_after::change(cx, draft);
    grace::change(cx, &installed, draft);
    priority::change(cx, draft);
    spread::change(cx, draft);
    let place = init_order::place(cx, draft);
    if cx.policy.traffic.is_some() {
        draft.changes.push("serving");
    }

    let init_containers = std::mem::take(&mut draft.init_containers);
    let part = |c: &InitContainer| Ok((c.name.to_owned(), digest(&c.json)?));
    let parts: Result<_, serde_json::Error> = init_containers.iter().map(part).collect();
    let record = Record {
        policy: cx.policy.name.clone(),
        revision: cx.policy.revision.clone(),
        parts: parts.map_err(|error| format!("not guarded: what {} shall have cannot be read: {error}", names::INIT_HOOK))?,
        scalars: std::mem::take(&mut draft.scalars),
        serving: cx.policy.traffic.is_some(),
    };
    Ok(Wanted { init_containers, place, record })
}

/// Brings the template in `editor`, written by `record`, to what is `wanted` over `user`, the user's part of it.
pub(super) fn write(editor: &mut Editor<'_>, user: &Tree<'_>, record: Option<&Record>, wanted: Option<Wanted>) {
    let guarded = wanted.is_some();
    let (inits, place, wanted) = wanted.map_or((Vec::new(), 0, None), |w| (w.init_containers, w.place, Some(w.record)));
    init_order::write(editor, inits, place);
    write_volume(editor, guarded);
    write_scalars(editor, user, record, wanted.as_ref());
    let serving = wanted.as_ref().is_some_and(|record| record.serving);
    // Strings and JSON values: serialising them cannot fail.
    let record = wanted.map(|record| serde_json::to_string(&record).unwrap_or_default());
    write_keys(editor, "annotations", &[(names::INJECTED, record.as_deref())]);
    write_keys(editor, "labels", &[(names::GUARDED, guarded.then_some("true")), (names::SERVING, serving.then_some("true"))]);
}

/// The emptyDir, and its mount in every container: moving a hook to another container needs no new template.
fn write_volume(editor: &mut Editor<'_>, wanted: bool) {
    if !wanted {
        return pin::drop_volume(editor);
    }
    editor.ensure(&["spec"], "volumes", (names::VOLUME, Tree::text(VOLUME)), None);
    for at in 0..items(editor.document(), "containers").len() {
        editor.ensure(&["spec", "containers", &at.to_string()], "volumeMounts", (names::VOLUME, Tree::text(MOUNT)), None);
    }
}

/// Each recorded field becomes what is wanted; a field that is wanted no more becomes the user's.
fn write_scalars(editor: &mut Editor<'_>, user: &Tree<'_>, record: Option<&Record>, wanted: Option<&Record>) {
    let mut paths: Vec<ScalarPath> = record.iter().flat_map(|r| r.scalars.keys().cloned()).collect();
    let containers = items(editor.document(), "containers").iter().filter_map(|c| c.get("name")?.as_str());
    let of_container =
        |name: Cow<'_, str>| [ScalarPath::PreStop(name.clone().into_owned()), ScalarPath::StartupProbe(name.into_owned())];
    paths.extend(containers.flat_map(of_container));
    paths.extend(wanted.iter().flat_map(|w| w.scalars.keys().cloned()));
    paths.sort();
    paths.dedup();
    for path in paths {
        let value = wanted.and_then(|w| w.scalars.get(&path)).map_or_else(|| path.read(user), |s| s.wrote.clone());
        if path.read(editor.document()) != value {
            path.write(editor, &value);
        }
    }
}

/// The keys of our prefix that are wanted in a map of the template's metadata; the others go.
fn write_keys(editor: &mut Editor<'_>, map: &'static str, keys: &[(&str, Option<&str>)]) {
    for key in pin::our_keys(editor.document(), map) {
        if !keys.iter().any(|(name, value)| *name == key && value.is_some()) {
            editor.unset(&["metadata", map], &key, 1);
        }
    }
    for (key, value) in keys {
        value.iter().for_each(|value| editor.set(&["metadata", map], key, Tree::string(value)));
    }
}

/// What the changes have come to so far.
#[derive(Default)]
pub(super) struct Draft {
    init_containers: Vec<InitContainer>,
    scalars: BTreeMap<ScalarPath, Scalar>,
    warnings: Vec<String>,
    changes: Vec<&'static str>,
}

impl Context<'_> {
    /// The container in which `hook` runs. [`make`] has checked that it is there.
    fn container(&self, hook: Option<&Hook>) -> &Tree<'_> {
        let name = hook.and_then(|h| h.container.as_ref()).or(self.policy.container.as_ref());
        let containers = items(self.template, "containers");
        let found = name.map_or_else(|| containers.first(), |name| containers.iter().find(|c| is_named(c, name)));
        found.unwrap_or(&NULL)
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
        let os = self.template.at(&["spec", "os"]).map(Tree::value).unwrap_or_default();
        if os.get("name").and_then(Value::as_str) == Some("windows") {
            return Err("not guarded: the runner is a Linux program, and these pods run Windows".to_owned());
        }
        Ok(())
    }
}

/// The emptyDir in the list of volumes.
const VOLUME: &str = r#"{"emptyDir":{},"name":"guardian"}"#;
/// The mount of the runner's directory.
const MOUNT: &str = r#"{"mountPath":"/guardian","name":"guardian"}"#;

/// The first 16 hexadecimal digits of a SHA-256; equal values give equal digests, however their JSON was written.
fn digest(json: &str) -> Result<String, serde_json::Error> {
    let digest = Sha256::digest(canonical(json)?);
    let first: [u8; 8] = digest.first_chunk().copied().unwrap_or_default();
    Ok(format!("{:016x}", u64::from_be_bytes(first)))
}

/// The resources of a container that an init container may have too without changing what the pod costs or its QoS class: both count
/// by their maximum, and devices or huge pages would be asked for twice.
#[derive(Default, Deserialize, Serialize)]
struct Resources<'a> {
    #[serde(borrow, default, skip_serializing_if = "Amounts::is_empty")]
    limits: Amounts<'a>,
    #[serde(borrow, default, skip_serializing_if = "Amounts::is_empty")]
    requests: Amounts<'a>,
}

#[derive(Default, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
struct Amounts<'a> {
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    cpu: Option<&'a RawValue>,
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    ephemeral_storage: Option<&'a RawValue>,
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    memory: Option<&'a RawValue>,
}

impl Amounts<'_> {
    fn is_empty(&self) -> bool {
        self.cpu.is_none() && self.ephemeral_storage.is_none() && self.memory.is_none()
    }
}

/// What an init container gets of a container's [`Resources`], as JSON.
fn resources(container: &Tree<'_>) -> String {
    with_resources(container, |has| has)
}

/// What is made of a container's [`Resources`], as JSON.
fn with_resources(container: &Tree<'_>, make: impl for<'a> FnOnce(Resources<'a>) -> Resources<'a>) -> String {
    let Some(Tree::Text(json)) = container.get("resources") else { return "{}".to_owned() };
    let has: Resources<'_> = serde_json::from_str(json).unwrap_or_default();
    serde_json::to_string(&make(has)).unwrap_or_default() // JSON values: serialising them cannot fail
}
