//! What a run writes, as it writes it: lines before the outcome, for whoever asked for them.

use alloc::string::String;
use alloc::vec::Vec;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

/// One line of `guardian-hook run` before the outcome, where the request has `stream`. An older runner prints none.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum Streamed {
    /// Some bytes of standard output.
    Stdout {
        /// In base64, since they need not be text.
        data: String,
    },
    /// Some bytes of standard error.
    Stderr {
        /// In base64.
        data: String,
    },
    /// Here bytes are missing: they were not read in time. The last of each stream are in the outcome all the same.
    Dropped {
        /// So many of standard output.
        #[serde(default)]
        stdout: u64,
        /// So many of standard error.
        #[serde(default)]
        stderr: u64,
    },
    /// A line of a newer runner.
    #[serde(other)]
    Unknown,
}

impl Streamed {
    /// The line for some bytes of standard output, or of standard error.
    #[must_use]
    pub fn of(is_stderr: bool, bytes: &[u8]) -> Self {
        let data = STANDARD.encode(bytes);
        if is_stderr { Self::Stderr { data } } else { Self::Stdout { data } }
    }

    /// The bytes, and whether they are of standard error; `None` where it carries none, or none that can be read.
    #[must_use]
    pub fn bytes(&self) -> Option<(bool, Vec<u8>)> {
        let (is_stderr, data) = match self {
            Self::Stdout { data } => (false, data),
            Self::Stderr { data } => (true, data),
            Self::Dropped { .. } | Self::Unknown => return None,
        };
        Some((is_stderr, STANDARD.decode(data).ok()?))
    }
}
