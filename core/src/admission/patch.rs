//! A JSON Patch (RFC 6902), built by hand.
//!
//! A diff of two documents is positional: an insertion at the head of a list rewrites the list. Here each operation says what was meant.

use serde::Serialize;
use serde_json::Value;
use serde_json::value::RawValue;

/// Operations in the order in which they are applied.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(transparent)]
pub struct Patch(pub Vec<Operation>);

/// One operation.
#[derive(Clone, Debug, Serialize)]
#[serde(tag = "op", rename_all = "lowercase")]
pub enum Operation {
    /// Adds a member, or inserts before an index, or appends at `-`.
    Add {
        /// JSON pointer (RFC 6901).
        path: String,
        /// What is added.
        value: Value,
    },
    /// Removes what is there.
    Remove {
        /// JSON pointer (RFC 6901).
        path: String,
    },
    /// Replaces what is there.
    Replace {
        /// JSON pointer (RFC 6901).
        path: String,
        /// What stands there afterwards.
        value: Value,
    },
    /// Replaces what is there by bytes that the API server sent: nothing in them is lost or reordered.
    #[serde(rename = "replace")]
    Restore {
        /// JSON pointer (RFC 6901).
        path: String,
        /// What stands there afterwards.
        value: Box<RawValue>,
    },
}

impl Patch {
    /// Nothing to do?
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The patch as it goes into a response, before base64.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        serde_json::to_vec(self).unwrap_or_default() // strings and JSON values: serialising them cannot fail
    }
}

impl Operation {
    /// Where it applies.
    #[must_use]
    pub fn path(&self) -> &str {
        match self {
            Self::Add { path, .. } | Self::Remove { path } | Self::Replace { path, .. } | Self::Restore { path, .. } => path,
        }
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
