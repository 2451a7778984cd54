//! A JSON Patch (RFC 6902), built by hand.
//!
//! A diff of two documents is positional: an insertion at the head of a list rewrites the list. Here each operation says what was meant.

use super::tree::{Tree, push_string};

/// Most patches have fewer bytes: they begin with room for so many.
const USUAL: usize = 8 << 10;

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
        if out.is_empty() {
            out.reserve(USUAL);
        }
        out.extend([if out.is_empty() { "" } else { "," }, r#"{"op":""#, operation, r#"","path":"#]);
        push_string(path, out);
        if let Some(value) = value {
            out.push_str(",\"value\":");
            value.write(out);
        }
        out.push('}');
    }
}

/// Appends a reference token to a JSON pointer (RFC 6901, section 3).
pub(super) fn push_token(text: &str, pointer: &mut String) {
    pointer.push('/');
    if text.bytes().any(|byte| matches!(byte, b'~' | b'/')) {
        pointer.push_str(&text.replace('~', "~0").replace('/', "~1"));
    } else {
        pointer.push_str(text);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_escaped_in_the_order_that_rfc_6901_demands() {
        let mut pointer = String::new();
        for text in ["stateful-guardian.io/injected", "~1", "", "spec"] {
            push_token(text, &mut pointer);
        }
        assert_eq!(pointer, "/stateful-guardian.io~1injected/~01//spec");
    }
}
