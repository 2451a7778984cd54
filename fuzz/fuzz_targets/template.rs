//! The pod templates of the golden cases, edited at random places: what is written applies, is there, stays, and can be taken out again.
//!
//! The bytes are edits, so that every input is JSON: two choose the case, and four make one edit each.
#![no_main]

use std::path::Path;
use std::sync::LazyLock;

use guardian_core::admission::{Decision, Reason, Snapshot};
use guardian_fuzz::{created, snapshot};
use libfuzzer_sys::fuzz_target;
use serde_json::{Value, json};

static SNAPSHOTS: LazyLock<[Snapshot; 3]> = LazyLock::new(|| [snapshot(0), snapshot(1), snapshot(2)]);
static SETS: LazyLock<Vec<Value>> = LazyLock::new(sets);

/// The StatefulSets of the golden cases, in the order of their names.
fn sets() -> Vec<Value> {
    let testdata = Path::new(env!("CARGO_MANIFEST_DIR")).join("../core/src/admission/testdata");
    let files = std::fs::read_dir(testdata).expect("the golden cases").map(|entry| entry.expect("an entry").path());
    let mut files: Vec<_> = files.filter(|path| path.to_string_lossy().ends_with(".review.json")).collect();
    files.sort();
    let review = |path| serde_json::from_str::<Value>(&std::fs::read_to_string(path).expect("a file")).expect("a review");
    let objects = files.into_iter().map(review).map(|review| review["request"]["object"].clone());
    objects.filter(|object| object["spec"]["template"].is_object()).collect()
}

fuzz_target!(|data: &[u8]| {
    let [first, second, edits @ ..] = data else { return };
    let mut set = SETS[usize::from(*first) * SETS.len() / 256].clone();
    // Held back by nothing of the set, so that each edit reaches the rewriting.
    set["metadata"] = json!({"name": "redis"});
    for edit in edits.chunks_exact(4) {
        let mut nodes = count(&set["spec"]["template"]);
        nodes = (usize::from(edit[0]) << 8 | usize::from(edit[1])) % nodes.max(1);
        let material = SETS[usize::from(edit[3]) % SETS.len()]["spec"]["template"]["spec"].clone();
        change(&mut set["spec"]["template"], &mut nodes, edit[2], &material);
    }
    if names_one_twice(&set) {
        return;
    }
    let snapshot = &SNAPSHOTS[usize::from(*second) % SNAPSHOTS.len()];
    let (verdict, injected) = created(&set, snapshot);
    match verdict.decision {
        Decision::Patched => {}
        Decision::Allowed => return,
        Decision::Denied { .. } => panic!("denied: {verdict:?}"),
    }
    let (again, _) = created(&injected, snapshot);
    assert!(again.patch.is_empty(), "its own output is changed: {again:?}");
    if verdict.reason != Reason::Injected {
        return;
    }
    let (removed, without) = created(&injected, &Snapshot::default());
    assert_eq!(removed.reason, Reason::Removed);
    let (twice, _) = created(&without, &Snapshot::default());
    assert!(twice.patch.is_empty(), "not all of it was taken out: {twice:?}");
    let template = without["spec"]["template"].to_string();
    assert!(!template.contains("/guardian/guardian-hook\",\"joined") && !template.contains("guardian-init\""), "{template}");
});

/// Are there two containers of one name? What is written into such a set cannot be told apart again, and no API server takes it.
fn names_one_twice(set: &Value) -> bool {
    let spec = &set["spec"]["template"]["spec"];
    let lists = ["containers", "initContainers"].into_iter().filter_map(|list| spec[list].as_array());
    let mut names: Vec<String> = lists.flatten().map(|container| container["name"].to_string()).collect();
    let all = names.len();
    names.sort();
    names.dedup();
    names.len() < all
}

/// How many values there are.
fn count(value: &Value) -> usize {
    1 + match value {
        Value::Array(items) => items.iter().map(count).sum(),
        Value::Object(members) => members.values().map(count).sum(),
        _ => 0,
    }
}

/// Changes the `n`th value.
fn change(value: &mut Value, n: &mut usize, how: u8, material: &Value) {
    if *n == 0 {
        *n = usize::MAX;
        return edit(value, how, material);
    }
    *n -= 1;
    let inner: Box<dyn Iterator<Item = &mut Value>> = match value {
        Value::Array(items) => Box::new(items.iter_mut()),
        Value::Object(members) => Box::new(members.values_mut()),
        _ => return,
    };
    for value in inner {
        change(value, n, how, material);
        if *n == usize::MAX {
            return;
        }
    }
}

fn edit(value: &mut Value, how: u8, material: &Value) {
    match (how % 16, value) {
        (0, value) => *value = Value::Null,
        (1, value) => *value = json!([]),
        (2, value) => *value = json!({}),
        (3, value) => *value = json!(""),
        (4, value) => *value = json!(u64::MAX),
        (5, value) => *value = json!(-1),
        (6, Value::Array(items)) => items.reverse(),
        (7, Value::Array(items)) => drop(items.pop()),
        (8, Value::Array(items)) => items.extend(items.first().cloned()),
        (9, Value::Object(members)) => {
            let key = members.keys().next().cloned();
            key.into_iter().for_each(|key| drop(members.remove(&key)));
        }
        (10, Value::Object(members)) => drop(members.insert("stateful-guardian.io/injected".to_owned(), json!("{}"))),
        (11, Value::Object(members)) => drop(members.insert("a/~b".to_owned(), json!({"-": [null]}))),
        (12, Value::String(text)) => "guardian".clone_into(text),
        (13, Value::String(text)) => "/guardian".clone_into(text),
        (14, Value::String(text)) => "guardian-init-hook".clone_into(text),
        // As another set has it at this place, found by its key.
        (_, Value::Object(members)) => {
            for (key, value) in members.iter_mut() {
                material.get(key).into_iter().for_each(|other| other.clone_into(value));
            }
        }
        _ => {}
    }
}
