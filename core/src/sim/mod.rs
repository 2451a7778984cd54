//! A model of what the API server keeps: objects under names, one version for all, compare-and-swap, and a log of changes to watch.
//!
//! Scripted API servers stand on it. It knows no HTTP and no types: an object is JSON, as it is on the wire. [Rehearsals](crate::rehearse) need no
//! objects, and have a model of their own.

#![expect(
    clippy::indexing_slicing,
    reason = "a JSON value indexed by a key it does not have is null, and metadata is always an object here"
)]

mod change;

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde_json::{Value, json};

pub use change::{Change, Event, EventKind, has_labels};

/// What is asked for: `apps/v1` and `statefulsets`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Resource {
    /// `apiVersion` of its objects.
    pub api_version: String,
    /// The plural that paths use.
    pub plural: String,
}

/// One object. The namespace is empty where the resource has none.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key {
    /// The resource.
    pub resource: Resource,
    /// `metadata.namespace`.
    pub namespace: String,
    /// `metadata.name`.
    pub name: String,
}

/// A request that the API server would not carry out.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Refused {
    /// The HTTP status.
    pub code: u16,
    /// `reason` of the `Status`.
    pub reason: &'static str,
    /// `message` of the `Status`.
    pub message: String,
}

/// All objects, and what became of them.
#[derive(Clone, Debug, Default)]
pub struct World {
    version: u64,
    born: u64,
    objects: BTreeMap<Key, Value>,
    log: Vec<Change>,
    forgotten: u64,
}

impl Resource {
    /// By `apiVersion` and plural.
    #[must_use]
    pub fn new(api_version: &str, plural: &str) -> Self {
        Self { api_version: api_version.to_owned(), plural: plural.to_owned() }
    }

    /// One object of it.
    #[must_use]
    pub fn named(&self, namespace: &str, name: &str) -> Key {
        Key { resource: self.clone(), namespace: namespace.to_owned(), name: name.to_owned() }
    }
}

impl World {
    /// The version of the last change.
    #[must_use]
    pub fn version(&self) -> u64 {
        self.version
    }

    /// One object.
    ///
    /// # Errors
    /// 404 when there is none.
    pub fn get(&self, key: &Key) -> Result<&Value, Refused> {
        self.objects.get(key).ok_or_else(|| not_found(key))
    }

    /// The objects of a resource, by name; of all namespaces when `namespace` is empty.
    pub fn list<'w>(&'w self, resource: &'w Resource, namespace: &'w str) -> impl Iterator<Item = &'w Value> {
        let wanted = move |key: &Key| key.resource == *resource && (namespace.is_empty() || key.namespace == namespace);
        self.objects.iter().filter(move |(key, _)| wanted(key)).map(|(_, object)| object)
    }

    /// Makes an object; gives it a uid, a version and a time of creation.
    ///
    /// # Errors
    /// 409 `AlreadyExists` when there is one of that name.
    pub fn create(&mut self, key: &Key, mut object: Value, now: Timestamp) -> Result<&Value, Refused> {
        if self.objects.contains_key(key) {
            return Err(refused(409, "AlreadyExists", format!("{} {:?} already exists", key.resource.plural, key.name)));
        }
        self.born += 1;
        let metadata = metadata(&mut object);
        metadata.insert("name".into(), json!(key.name));
        if !key.namespace.is_empty() {
            metadata.insert("namespace".into(), json!(key.namespace));
        }
        metadata.insert("uid".into(), json!(format!("{:08x}-0000-4000-8000-000000000000", self.born)));
        metadata.insert("creationTimestamp".into(), json!(now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()));
        Ok(self.put(key, object))
    }

    /// Replaces an object. Where the new one names a version, that must be the one that is kept; its identity stays.
    ///
    /// # Errors
    /// 404 when there is none, 409 `Conflict` when its version or uid is another.
    pub fn update(&mut self, key: &Key, mut object: Value) -> Result<&Value, Refused> {
        let old = self.objects.get(key).ok_or_else(|| not_found(key))?;
        let (old_metadata, metadata) = (old["metadata"].clone(), metadata(&mut object));
        for field in ["resourceVersion", "uid"] {
            let asked = metadata.get(field).and_then(Value::as_str).filter(|v| !v.is_empty());
            if asked.is_some_and(|asked| old_metadata[field] != asked) {
                let message = "the object has been modified; please apply your changes to the latest version and try again";
                return Err(refused(409, "Conflict", message.to_owned()));
            }
        }
        for field in ["uid", "creationTimestamp", "deletionTimestamp", "name", "namespace"] {
            if let Some(value) = old_metadata.get(field) {
                metadata.insert(field.to_owned(), value.clone());
            }
        }
        Ok(self.put(key, object))
    }

    /// Changes an object as the cluster's own parts do, without a precondition. Says whether there is one.
    pub fn edit(&mut self, key: &Key, change: impl FnOnce(&mut Value)) -> bool {
        let Some(mut object) = self.objects.get(key).cloned() else {
            return false;
        };
        change(&mut object);
        self.put(key, object);
        true
    }

    /// Takes an object away.
    ///
    /// # Errors
    /// 404 when there is none.
    pub fn delete(&mut self, key: &Key) -> Result<Value, Refused> {
        let mut object = self.objects.remove(key).ok_or_else(|| not_found(key))?;
        self.version += 1;
        let before = object.clone();
        metadata(&mut object).insert("resourceVersion".into(), json!(self.version.to_string()));
        self.log.push(Change { version: self.version, key: key.clone(), before: Some(before), after: None });
        Ok(object)
    }

    /// The changes after `version`, oldest first.
    ///
    /// # Errors
    /// 410 when they are not kept any more: the watcher has to list.
    pub fn changes_since(&self, version: u64) -> Result<&[Change], Refused> {
        if version < self.forgotten {
            return Err(refused(410, "Expired", format!("too old resource version: {version} ({})", self.forgotten)));
        }
        let first = self.log.partition_point(|change| change.version <= version);
        Ok(self.log.get(first..).unwrap_or_default())
    }

    /// Forgets all changes up to now, as etcd's compaction does.
    pub fn compact(&mut self) {
        self.log.clear();
        self.forgotten = self.version;
    }

    fn put(&mut self, key: &Key, mut object: Value) -> &Value {
        self.version += 1;
        metadata(&mut object).insert("resourceVersion".into(), json!(self.version.to_string()));
        let before = self.objects.get(key).cloned();
        self.log.push(Change { version: self.version, key: key.clone(), before, after: Some(object.clone()) });
        self.objects.entry(key.clone()).insert_entry(object).into_mut()
    }
}

/// The object's metadata, made where it has none.
fn metadata(object: &mut Value) -> &mut serde_json::Map<String, Value> {
    if !object["metadata"].is_object() {
        object["metadata"] = json!({});
    }
    match &mut object["metadata"] {
        Value::Object(map) => map,
        _ => unreachable!("made above"),
    }
}

fn not_found(key: &Key) -> Refused {
    refused(404, "NotFound", format!("{} {:?} not found", key.resource.plural, key.name))
}

fn refused(code: u16, reason: &'static str, message: String) -> Refused {
    Refused { code, reason, message }
}

#[cfg(test)]
mod tests;
