//! A JSON Patch (RFC 6902), built by hand.
//!
//! A diff of two documents is positional: an insertion at the head of a list rewrites the list. Here each operation says what was meant.

use std::fmt::Write as _;

use super::tree::{Tree, json};

/// Operations in the order in which they are applied, as JSON. An operation is never changed, so they need be nothing but text.
#[derive(Clone, Debug, Default)]
pub struct Patch {
    /// One after another, with commas between.
    operations: String,
}

impl Patch {
    /// Nothing to do?
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.operations.is_empty()
    }

    /// The patch as it goes into a response, before base64.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        [b"[", self.operations.as_bytes(), b"]"].concat()
    }

    /// Adds a member, or inserts before an index, or appends at `-`.
    pub(super) fn add(&mut self, path: &str, value: &Tree<'_>) {
        self.push("add", path, Some(value));
    }

    /// Replaces what is there.
    pub(super) fn replace(&mut self, path: &str, value: &Tree<'_>) {
        self.push("replace", path, Some(value));
    }

    /// Removes what is there.
    pub(super) fn remove(&mut self, path: &str) {
        self.push("remove", path, None);
    }

    fn push(&mut self, operation: &str, path: &str, value: Option<&Tree<'_>>) {
        let out = &mut self.operations;
        out.push_str(if out.is_empty() { "" } else { "," });
        let _ = write!(out, r#"{{"op":"{operation}","path":{}"#, json(path)); // into a String: cannot fail
        if let Some(value) = value {
            out.push_str(",\"value\":");
            value.write(out);
        }
        out.push('}');
    }
}

/// A reference token of a JSON pointer (RFC 6901, section 3).
#[must_use]
pub(super) fn token(text: &str) -> String {
    text.replace('~', "~0").replace('/', "~1")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_escaped_in_the_order_that_rfc_6901_demands() {
        assert_eq!(token("stateful-guardian.io/injected"), "stateful-guardian.io~1injected");
        assert_eq!(token("~1"), "~01");
        assert_eq!(token(""), "");
    }
}
