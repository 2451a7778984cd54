//! What must hold of a pod template before it is worked on: each field that is read has the type that Kubernetes prescribes, and stands
//! there once. Everything else is copied as it came.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::value::RawValue;

/// What the tree of a template may take in memory. The most that an API server stores, 1.5 MiB in one object (etcd's limit on a
/// request), is a tree of some 40 MiB where it is a pod template of many short variables; a text made for it could be ninety times its
/// length.
const MAX_TREE: usize = 64 << 20;
/// A JSON object is a map whose first node has room for eleven members of 56 bytes, with the allocator's own part.
const OBJECT: usize = 700;
/// Any other value is a slot in a list or a map, and for a string an allocation of its own.
const VALUE: usize = 64;

/// Why a template is not worked on: the path of the field, and what is wrong with it.
#[derive(Debug, thiserror::Error)]
#[error("the pod template cannot be read: {0}")]
pub(super) struct ShapeError(String);

/// Does `template` have the shape of a pod template, as far as it is read?
pub(super) fn check(template: &RawValue) -> Result<(), ShapeError> {
    let tree = tree(template.get());
    if tree > MAX_TREE {
        let mib = |bytes: usize| bytes.div_ceil(1 << 20);
        return Err(ShapeError(format!("its values would take {} MiB of memory, and {} are the most", mib(tree), mib(MAX_TREE))));
    }
    // Only of a template that has another shape does the path matter, and keeping track of it is most of the work.
    if serde_json::from_str::<Template>(template.get()).is_ok() {
        return Ok(());
    }
    let mut json = serde_json::Deserializer::from_str(template.get());
    match serde_path_to_error::deserialize::<_, Template>(&mut json) {
        Ok(_) => Ok(()),
        // The place in a JSON text that nobody wrote by hand says nothing.
        Err(error) => Err(ShapeError(error.to_string().split(" at line ").next().unwrap_or_default().to_owned())),
    }
}

/// What the tree of a JSON text takes in memory, at the most. Signs inside of strings count too, so it is never less.
fn tree(json: &str) -> usize {
    let (mut objects, mut values) = (0, 0);
    for byte in json.bytes() {
        objects += usize::from(byte == b'{');
        values += usize::from(matches!(byte, b',' | b'[' | b':'));
    }
    json.len() + objects * OBJECT + values * VALUE
}

impl From<serde_json::Error> for ShapeError {
    fn from(error: serde_json::Error) -> Self {
        Self(error.to_string())
    }
}

#[derive(Deserialize)]
#[expect(dead_code, reason = "read for its type alone")]
struct Template {
    metadata: Option<Metadata>,
    spec: Option<Spec>,
}

#[derive(Deserialize)]
#[expect(dead_code, reason = "read for its type alone")]
struct Metadata {
    labels: Option<BTreeMap<String, Option<String>>>,
    annotations: Option<BTreeMap<String, Option<String>>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
#[expect(dead_code, reason = "read for its type alone")]
struct Spec {
    init_containers: Option<Vec<Container>>,
    containers: Option<Vec<Container>>,
    volumes: Option<Vec<Volume>>,
    termination_grace_period_seconds: Option<i64>,
    priority_class_name: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
#[expect(dead_code, reason = "read for its type alone")]
struct Container {
    name: String,
    volume_mounts: Option<Vec<Mount>>,
    lifecycle: Option<Lifecycle>,
    startup_probe: Option<serde_json::Map<String, serde_json::Value>>,
}

#[derive(Deserialize)]
#[expect(dead_code, reason = "read for its type alone")]
struct Volume {
    name: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
#[expect(dead_code, reason = "read for its type alone")]
struct Mount {
    name: String,
    mount_path: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
#[expect(dead_code, reason = "read for its type alone")]
struct Lifecycle {
    pre_stop: Option<serde_json::Map<String, serde_json::Value>>,
}
