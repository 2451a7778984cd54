//! A pod template under edit: each change is made to a copy and written down as a patch operation at the same time, so that what was
//! planned and what the API server will do cannot differ.

use serde_json::{Map, Value, json};

use super::patch::{Operation, Patch, token};

/// A document, where it lies in the object, and what was done to it.
pub(super) struct Editor {
    root: &'static str,
    document: Value,
    patch: Patch,
}

impl Editor {
    /// `root` is the JSON pointer of `document` in the object that is patched.
    pub(super) fn new(root: &'static str, document: Value) -> Self {
        Self { root, document, patch: Patch::default() }
    }

    pub(super) fn document(&self) -> &Value {
        &self.document
    }

    pub(super) fn finish(self) -> (Value, Patch) {
        (self.document, self.patch)
    }

    /// Makes the member `key` of the object at `parent` equal to `value`; creates the parents that are missing. No operation when it is.
    pub(super) fn set(&mut self, parent: &[&str], key: &str, value: &Value) {
        self.make_parents(parent);
        let path = self.pointer(parent, key);
        let Some(members) = self.object(parent) else { return };
        match members.insert(key.to_owned(), value.clone()) {
            Some(before) if before == *value => {}
            Some(_) => self.patch.0.push(Operation::Replace { path, value: value.clone() }),
            None => self.patch.0.push(Operation::Add { path, value: value.clone() }),
        }
    }

    /// Removes the member `key` of the object at `parent`, and the parents that this empties, from the innermost out, but never the
    /// outermost `keep` of them.
    pub(super) fn unset(&mut self, parent: &[&str], key: &str, keep: usize) {
        let path = self.pointer(parent, key);
        let Some(members) = self.object(parent) else { return };
        if members.remove(key).is_none() {
            return;
        }
        let emptied = members.is_empty();
        self.patch.0.push(Operation::Remove { path });
        if let Some((last, above)) = parent.split_last().filter(|_| emptied && parent.len() > keep) {
            self.unset(above, last, keep);
        }
    }

    /// Makes the list at `parent`/`key` hold `item`, found by its `name`: replaced where it stands when it differs; where it is missing,
    /// inserted at `index`, or appended.
    pub(super) fn ensure(&mut self, parent: &[&str], key: &str, item: &Value, index: Option<usize>) {
        let path = self.pointer(parent, key);
        let Some(list) = self.object(parent).and_then(|o| o.get_mut(key)).and_then(Value::as_array_mut) else {
            return self.set(parent, key, &json!([item]));
        };
        let operation = match list.iter_mut().enumerate().find(|(_, other)| other.get("name") == item.get("name")) {
            Some((_, other)) if other == item => return,
            Some((at, other)) => {
                *other = item.clone();
                Operation::Replace { path: format!("{path}/{at}"), value: item.clone() }
            }
            None => match index.filter(|at| *at < list.len()) {
                Some(at) => {
                    list.insert(at, item.clone());
                    Operation::Add { path: format!("{path}/{at}"), value: item.clone() }
                }
                None => {
                    list.push(item.clone());
                    Operation::Add { path: format!("{path}/-"), value: item.clone() }
                }
            },
        };
        self.patch.0.push(operation);
    }

    /// Removes every item of the list at `parent`/`key` that `is_stale`, and the list when this empties it.
    pub(super) fn drop_items(&mut self, parent: &[&str], key: &str, is_stale: impl Fn(&Value) -> bool) {
        let path = self.pointer(parent, key);
        let Some(list) = self.object(parent).and_then(|o| o.get_mut(key)).and_then(Value::as_array_mut) else { return };
        let stale: Vec<usize> = list.iter().enumerate().filter(|(_, item)| is_stale(item)).map(|(at, _)| at).collect();
        if !stale.is_empty() && stale.len() == list.len() {
            return self.unset(parent, key, parent.len());
        }
        let removals = stale.into_iter().rev().map(|at| {
            list.remove(at);
            Operation::Remove { path: format!("{path}/{at}") }
        });
        let removals: Vec<Operation> = removals.collect();
        self.patch.0.extend(removals);
    }

    fn make_parents(&mut self, parent: &[&str]) {
        for depth in 0..parent.len() {
            let Some((key, above)) = parent.get(..=depth).and_then(<[&str]>::split_last) else { return };
            let path = self.pointer(above, key);
            // An item of a list is there, or nothing can be made below it.
            let Some(members) = self.object(above) else { continue };
            // `null` counts as absent, as it does for the API server.
            if members.get(*key).is_none_or(Value::is_null) {
                members.insert((*key).to_owned(), json!({}));
                self.patch.0.push(Operation::Add { path, value: json!({}) });
            }
        }
    }

    fn object(&mut self, path: &[&str]) -> Option<&mut Map<String, Value>> {
        let mut at = &mut self.document;
        for key in path {
            at = match at {
                Value::Object(members) => members.get_mut(*key)?,
                Value::Array(items) => items.get_mut(key.parse::<usize>().ok()?)?,
                _ => return None,
            };
        }
        at.as_object_mut()
    }

    fn pointer(&self, parent: &[&str], key: &str) -> String {
        let mut path = self.root.to_owned();
        for part in parent.iter().chain([&key]) {
            path.push('/');
            path.push_str(&token(part));
        }
        path
    }
}
