//! Pinning: what was written into a template stays as it is until the user changes the template.
//!
//! The record of what was written travels in the template itself, so that `kubectl rollout undo` restores it together with the template
//! it belongs to. [`strip`] takes our part out of a template by that record; comparing two stripped templates tells whether the *user*
//! changed anything.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;

use super::editor::Editor;
use super::patch::Patch;
use super::plan::{self, Context, Plan, SetFacts};
use super::shape::{self, ShapeError};
use super::tree::Tree;
use super::verdict::{Decision, Reason, Verdict};
use super::{Settings, Snapshot};
use crate::names;
use crate::policy::Policy;

/// Where the template lies in a StatefulSet.
const TEMPLATE: &str = "/spec/template";
/// The lists of containers that may mount a volume.
pub(super) const CONTAINERS: [&str; 2] = ["initContainers", "containers"];

/// What was written into a template, kept in its annotation [`names::INJECTED`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// Name of the policy.
    pub policy: String,
    /// Its revision when it was written.
    pub revision: String,
    /// The init containers that were written, each with a digest of what was written: only the record can say which belong there, and
    /// that nothing new is to be written although somebody else changed them afterwards, such as a webhook that rewrites images.
    #[serde(default)]
    pub parts: BTreeMap<String, String>,
    /// Fields that may also be the user's: what stood there, and what was written. `null` stands for an absent field.
    #[serde(default)]
    pub scalars: BTreeMap<ScalarPath, Scalar>,
    /// The label [`names::SERVING`] was written.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub serving: bool,
}

/// A field that may also be the user's.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Scalar {
    /// What stood there before; `null` for nothing.
    pub was: Value,
    /// What was written.
    pub wrote: Value,
}

/// Where such a field lies in the template. As text: `spec/priorityClassName`, or for a container, which is found by its name wherever
/// it stands, `spec/containers/NAME/lifecycle/preStop` or `spec/containers/NAME/startupProbe`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum ScalarPath {
    /// A field of the pod's `spec`.
    Spec(String),
    /// `lifecycle.preStop` of the container of this name.
    PreStop(String),
    /// `startupProbe` of the container of this name.
    StartupProbe(String),
}

/// What is to be done with a template.
pub(super) struct Outcome {
    reason: Reason,
    patch: Patch,
    changes: Vec<&'static str>,
    warnings: Vec<String>,
}

/// Decides what becomes of `template`, now that its bytes differ from those of `old`.
///
/// # Errors
/// When either is not a pod template, as far as it is read.
pub(super) fn rewrite(
    template: &RawValue,
    old: Option<&RawValue>,
    set: SetFacts<'_>,
    policy: Option<&Policy>,
    (snapshot, settings): (&Snapshot, &Settings),
) -> Result<Outcome, ShapeError> {
    let new = shape::parse(template)?;
    let new_record = record(&new);
    let mut before = None;
    if let Some(old) = old {
        let old_tree = shape::parse(old)?;
        let old_record = record(&old_tree);
        if new == old_tree {
            return Ok(Outcome::nothing(Reason::TemplateUnchanged));
        }
        let ours = new_record.is_none() || new_record == old_record;
        if !ours && new_record.as_ref().is_some_and(|r| complete(&new, r)) {
            return Ok(Outcome::nothing(Reason::PinnedByRecord));
        }
        if ours && strip(&new, old_record.as_ref()) == strip(&old_tree, old_record.as_ref()) {
            return Ok(Outcome::restored(old));
        }
        before = old_record;
    }
    let record = new_record.as_ref().or(before.as_ref());
    let user = strip(&new, record);
    let plan = policy.map(|policy| plan::make(&Context { template: &user, set, policy, snapshot, settings }));
    if let Some(present) = &new_record
        && plan.as_ref().and_then(Plan::record) == Some(present)
        && complete(&new, present)
    {
        return Ok(Outcome {
            warnings: plan.map(|p| p.warnings).unwrap_or_default(),
            ..Outcome::nothing(Reason::AlreadyInjected)
        });
    }
    Ok(apply(new, &user, record, plan))
}

/// The edits that take everything of ours out of `template`, and give the user's fields back.
pub(super) fn eject(template: &Value) -> Patch {
    let template = Tree::from(template);
    let record = record(&template);
    let user = strip(&template, record.as_ref());
    apply(template, &user, record.as_ref(), None).patch
}

/// The edits that make `template` what `plan` wants over the user's part of it.
fn apply(template: Tree<'_>, user: &Tree<'_>, record: Option<&Record>, plan: Option<Plan>) -> Outcome {
    let mut editor = Editor::new(TEMPLATE, template);
    let (wanted, warnings, changes) = match plan {
        Some(Plan { wanted, warnings, changes }) => (wanted, warnings, changes),
        None => (None, Vec::new(), Vec::new()),
    };
    let guarded = wanted.is_some();
    plan::write(&mut editor, user, record, wanted);
    let (_, patch) = editor.finish();
    let reason = match (guarded, patch.is_empty()) {
        (true, true) => Reason::AlreadyInjected,
        (true, false) => Reason::Injected,
        (false, false) => Reason::Removed,
        (false, true) if !warnings.is_empty() => Reason::NotApplicable,
        (false, true) => Reason::NoPolicy,
    };
    let changes = if patch.is_empty() { Vec::new() } else { changes };
    Outcome { reason, patch, changes, warnings }
}

impl Outcome {
    fn nothing(reason: Reason) -> Self {
        Self { reason, patch: Patch::default(), changes: Vec::new(), warnings: Vec::new() }
    }

    /// By the bytes that the API server sent: nothing in them is lost or reordered.
    fn restored(old: &RawValue) -> Self {
        let mut patch = Patch::default();
        patch.replace(TEMPLATE, &Tree::text(old.get()));
        Self {
            reason: Reason::Restored,
            patch,
            changes: vec!["template"],
            warnings: vec![
                "the guardian's part of the pod template was missing or altered; it was put back as it was".to_owned(),
            ],
        }
    }
}

impl From<Outcome> for Verdict {
    fn from(outcome: Outcome) -> Self {
        let Outcome { reason, patch, changes, warnings } = outcome;
        let decision = if patch.is_empty() { Decision::Allowed } else { Decision::Patched };
        Self { decision, patch, warnings, changes, ..Self::untouched(reason) }
    }
}

/// The record that a template carries; `None` where there is none, or none that can be read.
pub(super) fn record(template: &Tree<'_>) -> Option<Record> {
    let text = template.at(&["metadata", "annotations", names::INJECTED])?.as_str()?;
    serde_json::from_str(&text).ok()
}

/// Is everything there that `record` says was written, and nothing of ours besides?
pub(super) fn complete(template: &Tree<'_>, record: &Record) -> bool {
    // In their order: the hook comes after its runner, or the pod could never start.
    let ours = items(template, "initContainers").iter().filter(|c| is_our_init(c)).filter_map(|c| c.get("name")?.as_str());
    let recorded = names::INIT_CONTAINERS.into_iter().filter(|name| record.parts.contains_key(*name));
    let parts = recorded.clone().count() == record.parts.len() && ours.eq(recorded.map(Cow::Borrowed));
    let volume = owns_volume(template) && items(template, "volumes").iter().any(|v| is_named(v, names::VOLUME));
    let mounted =
        items(template, "containers").iter().all(|c| list(c, "volumeMounts").iter().any(|m| is_named(m, names::VOLUME)));
    let label = template.at(&["metadata", "labels", names::GUARDED]).and_then(Tree::as_str).is_some_and(|value| value == "true");
    let serving = template.at(&["metadata", "labels", names::SERVING]).is_some() == record.serving;
    let scalars = record.scalars.iter().all(|(path, s)| path.read(template) == s.wrote);
    let recorded = |is_ours: fn(&Tree<'_>) -> bool, path: fn(String) -> ScalarPath| {
        items(template, "containers").iter().filter(|c| is_ours(c)).all(|c| {
            let name = c.get("name").and_then(Tree::as_str).unwrap_or_default();
            record.scalars.contains_key(&path(name.into_owned()))
        })
    };
    let handlers = recorded(is_our_handler, ScalarPath::PreStop) && recorded(is_our_probe, ScalarPath::StartupProbe);
    parts && volume && mounted && label && serving && scalars && handlers
}

/// The user's part of a template: without what is ours by name, and with the fields that we wrote as they were before. A value that
/// differs from what we wrote is the user's. Lists and maps that stand for nothing are dropped, see [`drop_empties`].
pub(super) fn strip<'a>(template: &Tree<'a>, record: Option<&Record>) -> Tree<'a> {
    let mut editor = Editor::new("", template.clone());
    editor.drop_items(&["spec"], "initContainers", is_our_init);
    drop_volume(&mut editor);
    for map in ["labels", "annotations"] {
        for key in our_keys(editor.document(), map) {
            editor.unset(&["metadata", map], &key, 1);
        }
    }
    for (path, scalar) in record.iter().flat_map(|r| &r.scalars) {
        if path.read(editor.document()) == scalar.wrote {
            path.write(&mut editor, &scalar.was);
        }
    }
    strip_pre_stops(&mut editor);
    strip_probes(&mut editor);
    let (mut user, _) = editor.finish();
    drop_empties(&mut user);
    user
}

/// Takes out the volume and its mounts, where they are ours.
pub(super) fn drop_volume(editor: &mut Editor<'_>) {
    if !owns_volume(editor.document()) {
        return;
    }
    editor.drop_items(&["spec"], "volumes", |v| is_named(v, names::VOLUME));
    for list in CONTAINERS {
        for at in 0..items(editor.document(), list).len() {
            editor.drop_items(&["spec", list, &at.to_string()], "volumeMounts", |m| is_named(m, names::VOLUME));
        }
    }
}

/// Are the volume of our name and its mounts ours, as far as they are there? The user's own by this name is another kind of volume, or
/// is mounted elsewhere.
pub(super) fn owns_volume(template: &Tree<'_>) -> bool {
    let mounts = CONTAINERS.iter().flat_map(|l| items(template, l)).flat_map(|c| list(c, "volumeMounts"));
    let mut mounts = mounts.filter(|m| is_named(m, names::VOLUME));
    let mut volumes = items(template, "volumes").iter().filter(|v| is_named(v, names::VOLUME));
    let is_ours = |path: Cow<'_, str>| path == names::MOUNT_PATH;
    mounts.all(|m| m.get("mountPath").and_then(Tree::as_str).is_some_and(is_ours)) && volumes.all(|v| v.get("emptyDir").is_some())
}

/// Drops what stands for nothing where stripping may leave it: so templates compare equal whether a part of ours was ever there or not.
pub(super) fn drop_empties(template: &mut Tree<'_>) {
    for list in CONTAINERS {
        let containers = template.get_mut("spec").and_then(|spec| spec.get_mut(list));
        for container in containers.map(Tree::items_mut).unwrap_or_default() {
            if let Some(lifecycle) = container.get_mut("lifecycle") {
                drop_empty_members(lifecycle, &["preStop"]);
            }
            drop_empty_members(container, &["volumeMounts", "lifecycle", "startupProbe"]);
        }
    }
    if let Some(spec) = template.get_mut("spec") {
        let of_spec =
            ["initContainers", "volumes", "terminationGracePeriodSeconds", "priorityClassName", "topologySpreadConstraints"];
        drop_empty_members(spec, &of_spec);
    }
    if let Some(metadata) = template.get_mut("metadata") {
        drop_empty_members(metadata, &["labels", "annotations"]);
    }
    drop_empty_members(template, &["metadata"]);
}

fn drop_empty_members(object: &mut Tree<'_>, keys: &[&str]) {
    let Tree::Object(members) = object else { return };
    members.retain(|key, value| !keys.contains(&key.as_ref()) || !value.is_empty());
}

/// What is left of our preStop handler although the record does not account for it: alone it goes, and where a merge put it beside
/// another handler, only that other one stays.
fn strip_pre_stops(editor: &mut Editor<'_>) {
    for at in 0..items(editor.document(), "containers").len() {
        if items(editor.document(), "containers").get(at).is_some_and(is_our_handler) {
            editor.unset(&["spec", "containers", &at.to_string(), "lifecycle", "preStop"], "exec", 3);
        }
    }
}

/// The same of our startup probe: where a merge put another handler beside it, what differs from ours is the user's.
fn strip_probes(editor: &mut Editor<'_>) {
    for at in 0..items(editor.document(), "containers").len() {
        let Some(container) = items(editor.document(), "containers").get(at).filter(|c| is_our_probe(c)) else { continue };
        let found = container.get("startupProbe").map(Tree::value).unwrap_or_default();
        let ours = plan::startup_probe();
        let same = |key: &&String| *key == "exec" || found.get(*key) == ours.get(*key);
        for key in ours.as_object().into_iter().flat_map(|o| o.keys()).filter(same) {
            editor.unset(&["spec", "containers", &at.to_string(), "startupProbe"], key, 3);
        }
    }
}

/// Does this container's startup probe run our command, perhaps beside another handler?
fn is_our_probe(container: &Tree<'_>) -> bool {
    let exec = container.at(&["startupProbe", "exec"]).map(Tree::value).unwrap_or_default();
    let command = exec.get("command").and_then(Value::as_array).map(Vec::as_slice);
    matches!(command, Some([runner, joined, ..]) if runner == names::RUNNER && joined == "joined")
}

/// Does this container's preStop run our command, perhaps beside another handler?
fn is_our_handler(container: &Tree<'_>) -> bool {
    container.at(&["lifecycle", "preStop", "exec"]).is_some_and(|exec| Some(&exec.value()) == plan::pre_stop().get("exec"))
}

/// Is this init container ours by its name?
pub(super) fn is_our_init(container: &Tree<'_>) -> bool {
    names::INIT_CONTAINERS.iter().any(|name| is_named(container, name))
}

/// Keys of our prefix in a map of the template's metadata.
pub(super) fn our_keys(template: &Tree<'_>, map: &str) -> Vec<String> {
    let Some(Tree::Object(members)) = template.at(&["metadata", map]) else { return Vec::new() };
    members.keys().filter(|key| key.starts_with(names::PREFIX)).map(|key| key.clone().into_owned()).collect()
}

/// A list of the pod's `spec`; empty where there is none.
pub(super) fn items<'t, 'a>(template: &'t Tree<'a>, name: &str) -> &'t [Tree<'a>] {
    template.get("spec").map_or(&[], |spec| list(spec, name))
}

/// A list in an object; empty where there is none.
pub(super) fn list<'t, 'a>(object: &'t Tree<'a>, name: &str) -> &'t [Tree<'a>] {
    object.get(name).map_or(&[], Tree::items)
}

/// Does a list item carry this name?
pub(super) fn is_named(item: &Tree<'_>, name: &str) -> bool {
    item.get("name").and_then(Tree::as_str).is_some_and(|own| own == name)
}

fn container<'t, 'a>(template: &'t Tree<'a>, name: &str) -> Option<&'t Tree<'a>> {
    items(template, "containers").iter().find(|c| is_named(c, name))
}

impl ScalarPath {
    /// The value there; `null` for none.
    pub(super) fn read(&self, template: &Tree<'_>) -> Value {
        let value = match self {
            Self::Spec(field) => template.get("spec").and_then(|s| s.get(field)),
            Self::PreStop(name) => container(template, name).and_then(|c| c.at(&["lifecycle", "preStop"])),
            Self::StartupProbe(name) => container(template, name).and_then(|c| c.get("startupProbe")),
        };
        value.map(Tree::value).unwrap_or_default()
    }

    /// Makes the value there `value`; `null` removes it.
    pub(super) fn write(&self, editor: &mut Editor<'_>, value: &Value) {
        match self {
            Self::Spec(field) if value.is_null() => editor.unset(&["spec"], field, 1),
            Self::Spec(field) => editor.set(&["spec"], field, Tree::from(value)),
            Self::PreStop(container) | Self::StartupProbe(container) => {
                let found = items(editor.document(), "containers").iter().position(|c| is_named(c, container));
                let Some(at) = found.map(|at| at.to_string()) else { return };
                let whole = ["spec", "containers", &at, "lifecycle"];
                let (parent, key) =
                    if matches!(self, Self::PreStop(_)) { (&whole[..], "preStop") } else { (&whole[..3], "startupProbe") };
                if value.is_null() { editor.unset(parent, key, 3) } else { editor.set(parent, key, Tree::from(value)) }
            }
        }
    }
}

impl From<ScalarPath> for String {
    fn from(path: ScalarPath) -> Self {
        match path {
            ScalarPath::Spec(field) => format!("spec/{field}"),
            ScalarPath::PreStop(container) => format!("spec/containers/{container}/lifecycle/preStop"),
            ScalarPath::StartupProbe(container) => format!("spec/containers/{container}/startupProbe"),
        }
    }
}

impl TryFrom<String> for ScalarPath {
    type Error = String;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        // By both ends: a container's name may be anything until the API server has checked it.
        let of_container = |field: &str| text.strip_prefix("spec/containers/")?.strip_suffix(field).map(str::to_owned);
        if let Some(name) = of_container("/lifecycle/preStop") {
            return Ok(Self::PreStop(name));
        }
        if let Some(name) = of_container("/startupProbe") {
            return Ok(Self::StartupProbe(name));
        }
        match text.strip_prefix("spec/").filter(|field| !field.contains('/')) {
            Some(field) => Ok(Self::Spec(field.to_owned())),
            None => Err(format!("`{text}` is not the path of a recorded field")),
        }
    }
}
