//! Any bytes as the body of a webhook call: parsed, judged by both webhooks, and answered.
#![no_main]

use std::sync::LazyLock;

use guardian_core::admission::{Decision, Review, Snapshot, judge, validate};
use guardian_fuzz::{patched, settings, snapshot};
use jiff::Timestamp;
use libfuzzer_sys::fuzz_target;
use serde_json::Value;

static SNAPSHOTS: LazyLock<[Snapshot; 3]> = LazyLock::new(|| [snapshot(0), snapshot(1), snapshot(2)]);

fuzz_target!(|data: &[u8]| {
    let Ok(body) = std::str::from_utf8(data) else { return };
    let Ok(review) = Review::parse(body) else { return };
    assert!(!review.uid.is_empty(), "an answer needs a uid");
    let snapshot = &SNAPSHOTS[data.len() % SNAPSHOTS.len()];
    let judged = judge(&review, snapshot, &settings());
    for verdict in [&judged, &validate(&review, snapshot, Timestamp::UNIX_EPOCH)] {
        let response: Value = serde_json::from_slice(&verdict.to_response(&review.uid)).expect("an answer is JSON");
        let response = &response["response"];
        assert_eq!(response["uid"].as_str(), Some(review.uid.as_ref()));
        assert_eq!(response["patch"].is_null(), response["patchType"].is_null());
        assert_eq!(response["allowed"] == false, matches!(verdict.decision, Decision::Denied { .. }));
        assert!(verdict.warnings.iter().all(|warning| warning.len() <= 200));
    }
    assert!(!matches!(judged.decision, Decision::Denied { .. }), "the mutating webhook denies nothing");
    if matches!(judged.decision, Decision::Patched)
        && let Ok(whole) = serde_json::from_str::<Value>(body)
    {
        let _ = patched(&whole["request"]["object"], &judged);
    }
});
