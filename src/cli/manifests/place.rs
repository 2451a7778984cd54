//! Where something stands in a file: line and column, from 1.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::Value;
use serde_saphyr::Spanned;

use super::Document;

impl Document {
    /// The same place in the same file, for an object within this document.
    pub(in crate::cli) fn with_value(&self, value: Value) -> Self {
        Self { value, ..self.clone() }
    }

    /// Where the member at `path` stands; where there is none, the innermost that is there; the document itself where that cannot be told.
    pub(in crate::cli) fn place(&self, path: &[String]) -> (u64, u64) {
        let Ok(root) = serde_saphyr::from_str::<Spanned<Tree>>(&self.text) else { return (self.first_line + 1, 1) };
        let mut at = &root;
        for step in path {
            let below = match &at.value {
                Tree::Leaf => None,
                Tree::List(items) => step.parse().ok().and_then(|n: usize| items.get(n)),
                Tree::Map(members) => members.iter().find(|(key, _)| key == step).map(|(_, value)| value),
            };
            let Some(below) = below else { break };
            at = below;
        }
        (self.first_line + at.referenced.line(), at.referenced.column())
    }

    /// Where the place `(line, column)` of a text stands that is the value at `path`, when it was written as a block: its lines as they
    /// are, indented.
    pub(in crate::cli) fn place_in_block(&self, path: &[String], text: &str, (line, column): (u64, u64)) -> Option<(u64, u64)> {
        let from = self.place(path).0.checked_sub(self.first_line)?;
        let lines: Vec<&str> = self.text.lines().collect();
        let wanted: Vec<&str> = text.lines().collect();
        let first = wanted.iter().position(|line| !line.trim().is_empty())?;
        // The value is said to stand where its `|` is, or where its text begins.
        let start = usize::try_from(from).ok()?.checked_sub(1)?;
        let begins = (start..lines.len())
            .find(|at| lines.get(*at).is_some_and(|l| wanted.get(first).is_some_and(|w| l.trim() == w.trim())))?;
        let top = begins.checked_sub(first)?;
        let same =
            wanted.iter().enumerate().all(|(n, w)| lines.get(top + n).is_some_and(|l| l.trim_end().ends_with(w.trim_end())));
        let indent = lines.get(begins)?.len().checked_sub(wanted.get(first)?.len())?;
        same.then(|| (self.first_line + top as u64 + line, indent as u64 + column))
    }
}

/// A document with the place of everything in it.
enum Tree {
    Leaf,
    List(Vec<Spanned<Tree>>),
    Map(Vec<(String, Spanned<Tree>)>),
}

impl<'de> Deserialize<'de> for Tree {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Shape)
    }
}

struct Shape;

impl<'de> Visitor<'de> for Shape {
    type Value = Tree;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("anything")
    }

    fn visit_bool<E>(self, _: bool) -> Result<Tree, E> {
        Ok(Tree::Leaf)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Tree, E> {
        Ok(Tree::Leaf)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Tree, E> {
        Ok(Tree::Leaf)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Tree, E> {
        Ok(Tree::Leaf)
    }

    fn visit_str<E>(self, _: &str) -> Result<Tree, E> {
        Ok(Tree::Leaf)
    }

    fn visit_unit<E>(self) -> Result<Tree, E> {
        Ok(Tree::Leaf)
    }

    fn visit_none<E>(self) -> Result<Tree, E> {
        Ok(Tree::Leaf)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Tree, D::Error> {
        Tree::deserialize(deserializer)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Tree, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element()? {
            list.push(item);
        }
        Ok(Tree::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Tree, A::Error> {
        let mut map = Vec::new();
        while let Some(member) = members.next_entry()? {
            map.push(member);
        }
        Ok(Tree::Map(map))
    }
}
