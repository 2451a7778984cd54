//! From text to a typed [`Document`], and from a parser's complaint to ours.

use serde_path_to_error::Segment;
use serde_saphyr::{DuplicateKeyPolicy, Error, Location};

use super::problem::{PolicyError, Problem};
use super::schema::Document;

/// Events that aliases may add to a document: a policy of 200 hooks has some 3,000, and an alias bomb is refused within a millisecond.
const MAX_ALIAS_EVENTS: usize = 10_000;
/// Levels of nesting; the language has six. The parser recurses, and a stack is finite.
const MAX_DEPTH: usize = 64;
/// Characters of one step of a path in a message: a key of the language has at most 17, a label or a variable seldom more than 60.
const MAX_STEP: usize = 60;

/// The text as a typed document.
pub(super) fn read(text: &str) -> Result<Document, PolicyError> {
    let options = serde_saphyr::options! {
        duplicate_keys: DuplicateKeyPolicy::Error,
        strict_booleans: true,
        with_snippet: false,
        budget: serde_saphyr::budget! { max_depth: MAX_DEPTH },
        alias_limits: serde_saphyr::alias_limits! { max_total_replayed_events: MAX_ALIAS_EVENTS },
    };
    let mut path = String::new();
    serde_saphyr::with_deserializer_from_str_with_options(text, options, |de| {
        serde_path_to_error::deserialize(de).map_err(|error| {
            path = pointed_at(error.path());
            error.into_inner()
        })
    })
    .map_err(|error| PolicyError {
        place: error.location().and_then(place).or(Some((1, 1))),
        path,
        problem: problem(&error),
    })
}

/// The path as the author knows it: without the steps into [`serde_saphyr::Spanned`], which are called `value`, and without a key that
/// could not be read. A step is cut where it is longer than any that means something.
fn pointed_at(path: &serde_path_to_error::Path) -> String {
    let mut text = String::new();
    for segment in path {
        match segment {
            Segment::Seq { index } => text.push_str(&format!("[{index}]")),
            Segment::Map { key } if key == "value" => {}
            Segment::Map { key } => {
                text.push_str(if text.is_empty() { "" } else { "." });
                text.extend(key.chars().take(MAX_STEP).flat_map(char::escape_debug));
            }
            Segment::Enum { .. } | Segment::Unknown => {}
        }
    }
    text
}

pub(super) fn place(location: Location) -> Option<(u64, u64)> {
    (location != Location::UNKNOWN).then(|| (location.line(), location.column()))
}

/// What the parser found, in our words where the reader can be helped.
fn problem(error: &Error) -> Problem {
    let wrong_type =
        |expected: &str, found: Option<&str>| Problem::Type { expected: expected.to_owned(), found: found.map(str::to_owned) };
    match error {
        // The place is that of the alias; what is wrong is wrong with what it stands for.
        Error::AliasError { error, .. } => problem(error),
        Error::Eof { .. } => Problem::Empty,
        Error::SerdeUnknownField { field, expected, .. } => unknown_key(field, expected),
        Error::SerdeMissingField { field, .. } => Problem::Missing(field),
        Error::SerdeUnknownVariant { variant, expected, .. } => {
            Problem::Variant { found: variant.clone(), expected: expected.join(", ") }
        }
        Error::SerdeInvalidType { unexpected, expected, .. } | Error::SerdeInvalidValue { unexpected, expected, .. } => {
            wrong_type(expected, Some(unexpected))
        }
        Error::Unexpected { expected: "mapping start", .. } => {
            wrong_type("a mapping: `key: value`, each in a line of its own", None)
        }
        Error::Unexpected { expected: "sequence start", .. } => wrong_type("a list, such as [a, b]", None),
        Error::Unexpected { expected: "string scalar", .. } => wrong_type("a text", Some("a list or a mapping")),
        Error::NullIntoString { .. } => wrong_type("a text", Some("nothing: write \"\" for an empty one")),
        Error::InvalidScalar { ty: "u32", .. } => wrong_type("a whole number, 0 or more", None),
        Error::InvalidBooleanStrict { .. } => wrong_type("true or false", None),
        Error::DuplicateMappingKey { key, .. } => Problem::DuplicateKey(key.clone().unwrap_or_default()),
        Error::MultipleDocuments { .. } => Problem::Documents,
        Error::UnknownAnchor { .. } => Problem::UnknownAnchor,
        Error::AliasReplayCounterOverflow { .. }
        | Error::AliasReplayLimitExceeded { .. }
        | Error::AliasExpansionLimitExceeded { .. }
        | Error::AliasReplayStackDepthExceeded { .. }
        | Error::RecursiveReferencesRequireWeakTypes { .. }
        | Error::Budget { .. } => Problem::TooComplex,
        other => syntax(&other.to_string()),
    }
}

/// A complaint of the parser itself, whose own words for the place would only repeat ours.
fn syntax(message: &str) -> Problem {
    let message = message.rsplit_once(" at line ").map_or(message, |(message, _)| message);
    match message {
        tab if tab.starts_with("tabs disallowed") => Problem::Tab,
        "recursion limit exceeded" => Problem::TooComplex,
        other => Problem::Syntax(other.to_owned()),
    }
}

/// A key that is not known at the place of the keys `expected`.
fn unknown_key(key: &str, expected: &[&'static str]) -> Problem {
    Problem::UnknownKey { key: key.to_owned(), nearest: nearest(key, expected.iter().copied()), possible: expected.join(", ") }
}

/// The candidate that a person most likely meant: at most a third of its letters differ.
pub(crate) fn nearest<'a>(word: &str, candidates: impl Iterator<Item = &'a str>) -> Option<String> {
    candidates
        .filter(|candidate| candidate.len().abs_diff(word.len()) * 3 <= candidate.len().max(3))
        .map(|candidate| (strsim::damerau_levenshtein(word, candidate), candidate))
        .filter(|(distance, candidate)| distance * 3 <= candidate.len().max(3))
        .min()
        .map(|(_, candidate)| candidate.to_owned())
}
