//! What must hold of a pod template before it is worked on: each field that is read has the type that Kubernetes prescribes, and stands
//! there once. Everything else is copied as it came.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{self, Deserialize as _, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::Value;
use serde_json::value::RawValue;

use super::tree::{Key, NULL, Tree};

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

/// A pod template, taken apart as far as it is read.
///
/// # Errors
/// When it has not the shape of one, as far as it is read, or its tree would take too much memory.
pub(super) fn parse(template: &RawValue) -> Result<Tree<'_>, ShapeError> {
    let tree = tree(template.get());
    if tree > MAX_TREE {
        let mib = |bytes: usize| bytes.div_ceil(1 << 20);
        return Err(ShapeError(format!("its values would take {} MiB of memory, and {} are the most", mib(tree), mib(MAX_TREE))));
    }
    let json = || serde_json::Deserializer::from_str(template.get());
    // Only of a template that has another shape does the path matter, and keeping track of it is most of the work.
    TEMPLATE.item().deserialize(&mut json()).or_else(|_| {
        let (mut json, mut track) = (json(), serde_path_to_error::Track::new());
        TEMPLATE.item().deserialize(serde_path_to_error::Deserializer::new(&mut json, &mut track)).map_err(|error| {
            let (path, error) = (track.path().to_string(), error.to_string());
            // The place in a JSON text that nobody wrote by hand says nothing.
            let what = error.split(" at line ").next().unwrap_or_default();
            ShapeError(if path == "." { what.to_owned() } else { format!("{path}: {what}") })
        })
    })
}

/// What the tree of a JSON text takes in memory, at the most. Signs inside of strings count too, so it is never less.
fn tree(json: &str) -> usize {
    // Of most templates the length alone says that it is little.
    let most = json.len() * (1 + OBJECT);
    if most <= MAX_TREE {
        return most;
    }
    let (mut objects, mut values) = (0, 0);
    // So few at a time that the counts fit into a byte each, and the processor can compare many at once.
    for bytes in json.as_bytes().chunks(usize::from(u8::MAX)) {
        objects += usize::from(bytes.iter().map(|byte| u8::from(*byte == b'{')).sum::<u8>());
        let separates = |byte: u8| (byte == b',') | (byte == b'[') | (byte == b':');
        values += usize::from(bytes.iter().map(|byte| u8::from(separates(*byte))).sum::<u8>());
    }
    json.len() + objects * OBJECT + values * VALUE
}

/// What a value must be, and how far it is taken apart. What is not taken apart stays text.
enum Shape {
    /// Anything; not taken apart.
    Any,
    /// Anything that can be read, as half of a surrogate pair cannot; not taken apart.
    Readable,
    Text,
    Integer,
    /// An object whose members all have one shape.
    Map(&'static Shape),
    /// An object with these members, each of them once. Others may be anything.
    Object(&'static [Field]),
    List(&'static Shape),
}

/// A member of an object that is read. One that is not required may be `null`, which is as good as absent.
struct Field {
    name: &'static str,
    shape: Shape,
    required: bool,
}

const TEMPLATE: Shape = Shape::Object(&[optional("metadata", METADATA), optional("spec", SPEC)]);
const METADATA: Shape = Shape::Object(&[optional("labels", TEXTS), optional("annotations", TEXTS)]);
const TEXTS: Shape = Shape::Map(&Shape::Text);
const SPEC: Shape = Shape::Object(&[
    optional("initContainers", Shape::List(&CONTAINER)),
    optional("containers", Shape::List(&CONTAINER)),
    optional("volumes", Shape::List(&VOLUME)),
    optional("terminationGracePeriodSeconds", Shape::Integer),
    optional("priorityClassName", Shape::Text),
    optional("topologySpreadConstraints", Shape::Readable),
]);
const CONTAINER: Shape = Shape::Object(&[
    required("name", Shape::Text),
    optional("volumeMounts", Shape::List(&MOUNT)),
    optional("lifecycle", Shape::Object(&[optional("preStop", HANDLER)])),
    optional("startupProbe", HANDLER),
]);
const VOLUME: Shape = Shape::Object(&[required("name", Shape::Text)]);
const MOUNT: Shape = Shape::Object(&[required("name", Shape::Text), required("mountPath", Shape::Text)]);
const HANDLER: Shape = Shape::Map(&Shape::Readable);

const fn optional(name: &'static str, shape: Shape) -> Field {
    Field { name, shape, required: false }
}

const fn required(name: &'static str, shape: Shape) -> Field {
    Field { name, shape, required: true }
}

impl Shape {
    /// What reads a value of this shape that must not be `null`.
    const fn item(&self) -> Reader<'_> {
        Reader { shape: self, required: true }
    }
}

/// Reads a value of a shape.
#[derive(Clone, Copy)]
struct Reader<'s> {
    shape: &'s Shape,
    required: bool,
}

impl<'de> DeserializeSeed<'de> for Reader<'_> {
    type Value = Tree<'de>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Tree<'de>, D::Error> {
        if matches!(self.shape, Shape::Map(_) | Shape::Object(_) | Shape::List(_)) {
            return deserializer.deserialize_any(self);
        }
        let text = <&RawValue>::deserialize(deserializer)?.get();
        let plain = text.starts_with('"') && !text.contains('\\');
        let checked = match self.shape {
            Shape::Readable => serde_json::from_str::<Value>(text).map(drop),
            Shape::Integer => serde_json::from_str::<Option<i64>>(text).map(drop),
            Shape::Text if self.required && !plain => serde_json::from_str::<String>(text).map(drop),
            Shape::Text if !plain => serde_json::from_str::<Option<String>>(text).map(drop),
            _ => Ok(()),
        };
        checked.map(|()| Tree::text(text)).map_err(de::Error::custom)
    }
}

impl<'de> Visitor<'de> for Reader<'_> {
    type Value = Tree<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if matches!(self.shape, Shape::List(_)) { "a list" } else { "an object" })
    }

    fn visit_unit<E: de::Error>(self) -> Result<Tree<'de>, E> {
        if self.required { Err(E::invalid_type(de::Unexpected::Unit, &self)) } else { Ok(NULL.clone()) }
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Tree<'de>, A::Error> {
        let Shape::List(shape) = self.shape else { return Err(de::Error::invalid_type(de::Unexpected::Seq, &self)) };
        let mut items = Vec::new();
        while let Some(item) = list.next_element_seed(shape.item())? {
            items.push(item);
        }
        Ok(Tree::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut object: A) -> Result<Tree<'de>, A::Error> {
        let (fields, others) = match self.shape {
            Shape::Object(fields) => (*fields, &Shape::Any),
            Shape::Map(shape) => (&[][..], *shape),
            _ => return Err(de::Error::invalid_type(de::Unexpected::Map, &self)),
        };
        let mut members = BTreeMap::new();
        while let Some(Key(key)) = object.next_key()? {
            let field = fields.iter().find(|field| field.name == key);
            let reader =
                field.map_or(Reader { shape: others, required: false }, |f| Reader { shape: &f.shape, required: f.required });
            let value = object.next_value_seed(reader)?;
            // Of a member that nobody reads the last one counts, as everywhere.
            if let (Some(_), Some(field)) = (members.insert(key, value), field) {
                return Err(de::Error::duplicate_field(field.name));
            }
        }
        match fields.iter().find(|field| field.required && !members.contains_key(field.name)) {
            Some(missing) => Err(de::Error::missing_field(missing.name)),
            None => Ok(Tree::Object(members)),
        }
    }
}
