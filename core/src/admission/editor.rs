//! A pod template under edit: each change is made to a copy and written down as a patch operation at the same time, so that what was
//! planned and what the API server will do cannot differ.

use std::borrow::Cow;
use std::collections::BTreeMap;

use super::patch::{Patch, push_token};
use super::pin::is_named;
use super::tree::Tree;

/// A document, where it lies in the object, and what was done to it.
pub(super) struct Editor<'a> {
    root: &'static str,
    document: Tree<'a>,
    patch: Patch,
}

impl<'a> Editor<'a> {
    /// `root` is the JSON pointer of `document` in the object that is patched.
    pub(super) fn new(root: &'static str, document: Tree<'a>) -> Self {
        Self { root, document, patch: Patch::default() }
    }

    pub(super) fn document(&self) -> &Tree<'a> {
        &self.document
    }

    pub(super) fn finish(self) -> (Tree<'a>, Patch) {
        (self.document, self.patch)
    }

    /// Makes the member `key` of the object at `parent` equal to `value`; creates the parents that are missing. No operation when it is.
    pub(super) fn set(&mut self, parent: &[&str], key: &str, value: Tree<'a>) {
        self.make_parents(parent);
        let path = self.pointer(parent, key);
        let Some(members) = object(&mut self.document, parent) else { return };
        match members.get(key) {
            Some(before) if *before == value => return,
            Some(_) => self.patch.replace(&path, &value),
            None => self.patch.add(&path, &value),
        }
        members.insert(Cow::Owned(key.to_owned()), value);
    }

    /// Removes the member `key` of the object at `parent`, and the parents that this empties, from the innermost out, but never the
    /// outermost `keep` of them.
    pub(super) fn unset(&mut self, parent: &[&str], key: &str, keep: usize) {
        let Some(members) = object(&mut self.document, parent) else { return };
        if members.remove(key).is_none() {
            return;
        }
        let emptied = members.is_empty();
        self.patch.remove(&self.pointer(parent, key));
        if let Some((last, above)) = parent.split_last().filter(|_| emptied && parent.len() > keep) {
            self.unset(above, last, keep);
        }
    }

    /// Makes the list at `parent`/`key` hold `item`, found by its `name`: replaced where it stands when it differs; where it is missing,
    /// inserted at `index`, or appended.
    pub(super) fn ensure(&mut self, parent: &[&str], key: &str, (name, item): (&str, Tree<'a>), index: Option<usize>) {
        let path = self.pointer(parent, key);
        let list = object(&mut self.document, parent).and_then(|o| o.get_mut(key));
        let Some(Tree::List(list)) = list else { return self.set(parent, key, Tree::List(vec![item])) };
        if let Some((at, other)) = list.iter_mut().enumerate().find(|(_, other)| is_named(other, name)) {
            if *other != item {
                self.patch.replace(&format!("{path}/{at}"), &item);
                *other = item;
            }
            return;
        }
        match index.filter(|at| *at < list.len()) {
            Some(at) => {
                self.patch.add(&format!("{path}/{at}"), &item);
                list.insert(at, item);
            }
            None => {
                self.patch.add(&format!("{path}/-"), &item);
                list.push(item);
            }
        }
    }

    /// Removes every item of the list at `parent`/`key` that `is_stale`, and the list when this empties it.
    pub(super) fn drop_items(&mut self, parent: &[&str], key: &str, is_stale: impl Fn(&Tree<'_>) -> bool) {
        let list = object(&mut self.document, parent).and_then(|o| o.get_mut(key));
        let Some(Tree::List(list)) = list else { return };
        let stale: Vec<usize> = list.iter().enumerate().filter(|(_, item)| is_stale(item)).map(|(at, _)| at).collect();
        if stale.is_empty() {
            return;
        }
        if stale.len() == list.len() {
            return self.unset(parent, key, parent.len());
        }
        for at in stale.iter().rev() {
            list.remove(*at);
        }
        let path = self.pointer(parent, key);
        for at in stale.iter().rev() {
            self.patch.remove(&format!("{path}/{at}"));
        }
    }

    fn make_parents(&mut self, parent: &[&str]) {
        for depth in 0..parent.len() {
            let Some((key, above)) = parent.get(..=depth).and_then(<[&str]>::split_last) else { return };
            // An item of a list is there, or nothing can be made below it.
            let Some(members) = object(&mut self.document, above) else { continue };
            // `null` counts as absent, as it does for the API server.
            if members.get(*key).is_none_or(Tree::is_null) {
                members.insert(Cow::Owned((*key).to_owned()), Tree::Object(BTreeMap::new()));
                self.patch.add(&self.pointer(above, key), &Tree::text("{}"));
            }
        }
    }

    fn pointer(&self, parent: &[&str], key: &str) -> String {
        let mut path = String::with_capacity(128);
        path.push_str(self.root);
        for part in parent.iter().chain([&key]) {
            push_token(part, &mut path);
        }
        path
    }
}

/// The object at `path` of `document`.
fn object<'t, 'a>(document: &'t mut Tree<'a>, path: &[&str]) -> Option<&'t mut BTreeMap<Cow<'a, str>, Tree<'a>>> {
    let at = path.iter().try_fold(document, |at, key| match at {
        Tree::Object(members) => members.get_mut(*key),
        Tree::List(items) => items.get_mut(key.parse::<usize>().ok()?),
        Tree::Text(_) => None,
    });
    match at {
        Some(Tree::Object(members)) => Some(members),
        _ => None,
    }
}
