//! A JSON value of which only what is read or edited is taken apart. The rest stays the text that came: nothing in it is lost, reordered or
//! copied.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use serde::de::{self, Deserializer, Visitor};
use serde_json::Value;

/// A value. One that has been taken apart and the same as text are equal.
#[derive(Clone, Debug)]
pub(super) enum Tree<'a> {
    /// Any value, as it came or as it will be sent.
    Text(Cow<'a, str>),
    List(Vec<Tree<'a>>),
    Object(BTreeMap<Cow<'a, str>, Tree<'a>>),
}

/// What stands where nothing does.
pub(super) static NULL: Tree<'static> = Tree::Text(Cow::Borrowed("null"));

impl<'a> Tree<'a> {
    pub(super) fn text(json: impl Into<Cow<'a, str>>) -> Self {
        Self::Text(json.into())
    }

    /// The text as a JSON string.
    pub(super) fn string(text: &str) -> Self {
        Self::Text(json(text).into())
    }

    /// A member of an object that has been taken apart.
    pub(super) fn get(&self, key: &str) -> Option<&Self> {
        match self {
            Self::Object(members) => members.get(key),
            Self::Text(_) | Self::List(_) => None,
        }
    }

    /// What lies at this path of members.
    pub(super) fn at(&self, path: &[&str]) -> Option<&Self> {
        path.iter().try_fold(self, |tree, key| tree.get(key))
    }

    /// The items of a list that has been taken apart; none of anything else.
    pub(super) fn items(&self) -> &[Self] {
        match self {
            Self::List(items) => items,
            Self::Text(_) | Self::Object(_) => &[],
        }
    }

    pub(super) fn get_mut(&mut self, key: &str) -> Option<&mut Self> {
        match self {
            Self::Object(members) => members.get_mut(key),
            Self::Text(_) | Self::List(_) => None,
        }
    }

    pub(super) fn items_mut(&mut self) -> &mut [Self] {
        match self {
            Self::List(items) => items,
            Self::Text(_) | Self::Object(_) => &mut [],
        }
    }

    /// What a JSON string says.
    pub(super) fn as_str(&self) -> Option<Cow<'_, str>> {
        let Self::Text(text) = self else { return None };
        let inner = text.strip_prefix('"')?.strip_suffix('"')?;
        if inner.contains('\\') { serde_json::from_str(text).ok().map(Cow::Owned) } else { Some(Cow::Borrowed(inner)) }
    }

    pub(super) fn is_null(&self) -> bool {
        matches!(self, Self::Text(text) if text == "null")
    }

    /// Does it stand for nothing: `null`, or a list or an object without anything in it?
    pub(super) fn is_empty(&self) -> bool {
        match self {
            Self::Text(text) => {
                let inside = |open, close| text.strip_prefix(open).and_then(|t: &str| t.strip_suffix(close));
                self.is_null() || inside('[', ']').or(inside('{', '}')).is_some_and(|inside| inside.trim().is_empty())
            }
            Self::List(items) => items.is_empty(),
            Self::Object(members) => members.is_empty(),
        }
    }

    /// All of it, taken apart; `null` for a text that cannot be, such as one with half of a surrogate pair.
    pub(super) fn value(&self) -> Value {
        self.read().unwrap_or_default()
    }

    /// Appends it as JSON.
    pub(super) fn write(&self, out: &mut String) {
        match self {
            Self::Text(text) => out.push_str(text),
            Self::List(items) => {
                out.push('[');
                for (at, item) in items.iter().enumerate() {
                    out.push_str(if at == 0 { "" } else { "," });
                    item.write(out);
                }
                out.push(']');
            }
            Self::Object(members) => {
                out.push('{');
                for (at, (key, value)) in members.iter().enumerate() {
                    out.push_str(if at == 0 { "" } else { "," });
                    push_string(key, out);
                    out.push(':');
                    value.write(out);
                }
                out.push('}');
            }
        }
    }

    fn read(&self) -> Option<Value> {
        match self {
            Self::Text(text) => serde_json::from_str(text).ok(),
            Self::List(items) => items.iter().map(Self::read).collect::<Option<_>>().map(Value::Array),
            Self::Object(members) => {
                let members = members.iter().map(|(key, value)| Some((key.clone().into_owned(), value.read()?)));
                members.collect::<Option<_>>().map(Value::Object)
            }
        }
    }
}

impl PartialEq for Tree<'_> {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Text(one), Self::Text(other)) if one == other => true,
            (Self::List(one), Self::List(other)) => one == other,
            (Self::Object(one), Self::Object(other)) => one == other,
            _ => self.read().is_some_and(|value| other.read() == Some(value)),
        }
    }
}

impl From<&Value> for Tree<'_> {
    fn from(value: &Value) -> Self {
        match value {
            Value::Array(items) => Self::List(items.iter().map(Self::from).collect()),
            Value::Object(members) => {
                Self::Object(members.iter().map(|(key, value)| (Cow::Owned(key.clone()), Self::from(value))).collect())
            }
            leaf => Self::Text(leaf.to_string().into()),
        }
    }
}

/// A string as JSON.
pub(super) fn json(text: &str) -> String {
    serde_json::to_string(text).unwrap_or_default() // a string: serialising it cannot fail
}

/// Appends a string as JSON.
pub(super) fn push_string(text: &str, out: &mut String) {
    // What JSON escapes: quotes, backslashes and control characters.
    if text.bytes().any(|byte| byte < b' ' || matches!(byte, b'"' | b'\\')) {
        return out.push_str(&json(text));
    }
    out.push('"');
    out.push_str(text);
    out.push('"');
}

/// The name of a member, borrowed from the text where it can be.
pub(super) struct Key<'de>(pub(super) Cow<'de, str>);

impl<'de> de::Deserialize<'de> for Key<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Name;
        impl<'de> Visitor<'de> for Name {
            type Value = Key<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a name")
            }

            fn visit_borrowed_str<E: de::Error>(self, name: &'de str) -> Result<Key<'de>, E> {
                Ok(Key(Cow::Borrowed(name)))
            }

            fn visit_str<E: de::Error>(self, name: &str) -> Result<Key<'de>, E> {
                Ok(Key(Cow::Owned(name.to_owned())))
            }
        }
        deserializer.deserialize_str(Name)
    }
}
