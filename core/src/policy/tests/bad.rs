//! Bad policies as files, each with the message that its author gets.
//!
//! `testdata/bad/NAME.yaml` is the key `policy.yaml` of a ConfigMap that holds a few scripts beside it, or, where its `kind` is ConfigMap,
//! the whole of one, as it comes to the validating webhook. `{{repeat 3 x}}` in it stands for `xxx`. `NAME.expected` is the message.
//! `UPDATE_GOLDENS=1 cargo test -p guardian-core bad::` writes the messages anew; read them then, as their reader will.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde_json::{Value, json};

use super::{data, parse};
use crate::admission::{Decision, Review, Snapshot, validate};

/// When the webhook is asked; no message depends on it.
const NOW: Timestamp = Timestamp::UNIX_EPOCH;

/// Longer than this, a message fills a terminal: ten errors of two lines each.
const MAX_MESSAGE: usize = 2_000;

#[test]
fn each_bad_policy_gets_its_message() {
    let update = std::env::var_os("UPDATE_GOLDENS").is_some();
    let mut stale = Vec::new();
    for input in inputs() {
        let current = format!("{}\n", told(&input));
        let expected = input.with_extension("expected");
        if update {
            std::fs::write(&expected, &current).unwrap();
        }
        let golden = std::fs::read_to_string(&expected).unwrap_or_default();
        if golden != current {
            stale.push(format!("{}\n  expected: {golden}  now:      {current}", input.display()));
        }
    }
    assert!(stale.is_empty(), "UPDATE_GOLDENS=1 rewrites what is stale:\n{}", stale.join("\n"));
}

#[test]
fn each_message_says_where_and_fits_on_a_screen() {
    for input in inputs() {
        let message = told(&input);
        let place = message.strip_prefix("policy.yaml:").and_then(|rest| rest.split_once(": ")).map(|(place, _)| place);
        let of_the_whole = ["the ConfigMap ", "binaryData ", "hooks: "].iter().any(|whole| message.starts_with(whole));
        let line_and_column = place.is_some_and(|p| p.split(':').all(|n| n.parse::<u64>().is_ok_and(|n| n > 0)));
        assert!(of_the_whole || line_and_column, "{}: {message}", input.display());
        assert!(message.len() < MAX_MESSAGE && !message.contains('\n'), "{}: {message}", input.display());
    }
}

#[test]
fn every_file_belongs_to_a_bad_policy_and_no_two_are_the_same() {
    let files: BTreeSet<PathBuf> = std::fs::read_dir(directory()).unwrap().map(|entry| entry.unwrap().path()).collect();
    let inputs = inputs();
    let known: BTreeSet<PathBuf> = inputs.iter().flat_map(|input| [input.clone(), input.with_extension("expected")]).collect();
    let odd: Vec<&PathBuf> = files.symmetric_difference(&known).collect();
    assert!(odd.is_empty(), "each NAME.yaml has its NAME.expected, and there is nothing else: {odd:?}");
    let mut texts: BTreeMap<String, &Path> = BTreeMap::new();
    for input in &inputs {
        let same = texts.insert(read(input), input);
        assert_eq!(same, None, "the same as {}", input.display());
    }
    assert!(inputs.len() >= 100, "{}", inputs.len());
}

fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src/policy/testdata/bad")
}

fn inputs() -> Vec<PathBuf> {
    let files = std::fs::read_dir(directory()).unwrap().map(|entry| entry.unwrap().path());
    let mut inputs: Vec<PathBuf> = files.filter(|path| path.extension().is_some_and(|e| e == "yaml")).collect();
    inputs.sort();
    inputs
}

fn read(input: &Path) -> String {
    let text = std::fs::read_to_string(input).unwrap();
    let mut parts = text.split("{{repeat ");
    let mut whole = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (repeat, rest) = part.split_once("}}").unwrap();
        let (times, what) = repeat.split_once(' ').unwrap();
        whole.push_str(&what.repeat(times.parse().unwrap()));
        whole.push_str(rest);
    }
    whole
}

/// What the author is told of it.
fn told(input: &Path) -> String {
    let text = read(input);
    let map = serde_saphyr::from_str::<Value>(&text).ok().filter(|value| value["kind"] == "ConfigMap");
    let message = match map {
        Some(map) => denial(&map),
        None => parse("redis", &data(&text)).err().map(|invalid| invalid.to_string()),
    };
    message.unwrap_or_else(|| panic!("accepted: {}", input.display()))
}

/// What the validating webhook says.
fn denial(map: &Value) -> Option<String> {
    let kind = json!({"group": "", "version": "v1", "kind": "ConfigMap"});
    let review = json!({
        "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview",
        "request": {"uid": "u", "kind": kind, "operation": "CREATE", "namespace": "redis", "name": "redis", "object": map},
    });
    let body = review.to_string();
    match validate(&Review::parse(&body).unwrap(), &Snapshot::default(), NOW).decision {
        Decision::Denied { code: 422, message } => Some(message),
        _ => None,
    }
}
