use std::collections::BTreeMap;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::*;

fn start(uid: &str, id: &str, restarts: u32, started: i64) -> Start {
    Start {
        pod_uid: uid.into(),
        container_id: format!("containerd://{id}"),
        container: "redis".into(),
        restarts,
        created: Timestamp::UNIX_EPOCH,
        started: Some(Timestamp::from_second(started).unwrap()),
        revision: "redis-6f".into(),
        ip: Some("10.0.0.7".into()),
        boot: String::new(),
        volume: Some("v".into()),
        rest: Rest::new(),
    }
}

fn record(message: &str) -> Record {
    Record {
        at: Timestamp::UNIX_EPOCH,
        hook: "rejoin".into(),
        reason: "Crash".into(),
        verdict: Verdict::Succeeded,
        pod: "redis-1".into(),
        pod_uid: "a".into(),
        run: None,
        attempt: None,
        message: message.into(),
        rest: Rest::new(),
    }
}

fn data(state: &Value) -> BTreeMap<String, String> {
    BTreeMap::from([(STATE_KEY.to_owned(), state.to_string())])
}

/// A document with every field of the format, and in each object one of a newer guardian.
fn full() -> Value {
    let start = json!({
        "podUid": "a", "containerId": "containerd://1", "container": "redis", "restarts": 1, "created": "2026-01-01T00:00:00Z",
        "started": "2026-01-01T00:00:01Z", "revision": "redis-6f", "ip": "10.0.0.7", "volume": "v", "later": 1
    });
    json!({
        "format": 1, "setUid": "u", "bootstrapped": true, "volumes": {"v": "member", "w": "new"}, "replicas": 1,
        "givenUp": {"bootstrap": {"revision": "r", "unknown": true, "why": "w", "later": 3}}, "recreated": {"0": 2}, "answered": {"0": start},
        "episodes": {
            "rejoin-a-1": {"scenario": "start", "hook": "postMortem", "then": "rejoin", "scope": {"pod": "a"}, "reason": "Crash", "why": "w", "pod": "redis-0", "ordinal": 0,
                "start": start, "oldIp": "10.0.0.6", "opened": "2026-01-01T00:00:02Z", "attempts": 1, "next": "2026-01-01T00:00:07Z",
                "later": [2]},
            "update": {"scenario": "update", "hook": "beforeUpdate", "scope": "set", "reason": "Updated", "why": "", "opened": "2026-01-01T00:00:02Z",
                "attempts": 0, "phase": "drain"}
        },
        "runs": {"rejoin-a-1-1": {"episode": "rejoin-a-1", "hook": "rejoin", "pod": "redis-0", "podUid": "a", "container": "redis",
            "attempt": 1, "claimed": "2026-01-01T00:00:02Z", "timeoutMs": 30000, "later": {}}},
        "rules": {"memory-pressure/u": {
            "rule": "memory-pressure", "pod": "redis-0", "podUid": "u", "since": "2026-01-01T00:00:00Z", "actions": 1, "undo": ["unthrottle"],
            "undone": 0, "ran": true, "later": "kept",
        }},
        "sheds": {"u": {
            "pod": "redis-0", "since": "2026-01-01T00:00:00Z", "by": "memory-pressure/u", "why": "", "drained": false, "later": "kept",
        }},
        "breaker": {"open": true}, "budgets": {"memory-pressure": ["2026-01-01T00:00:00Z"]}, "later": "kept"
    })
}

#[test]
fn what_a_newer_guardian_added_survives_a_read_and_a_write() {
    let mut before = data(&full());
    before.insert(HISTORY_KEY.to_owned(), "{\"newer\":true}\nnot even json".to_owned());
    before.insert("own-key".to_owned(), "of somebody".to_owned());
    let mut after = before.clone();
    Ledger::read(&before).unwrap().write(&mut after).unwrap();
    assert_eq!(serde_json::from_str::<Value>(&after[STATE_KEY]).unwrap(), full());
    assert_eq!(after[HISTORY_KEY], before[HISTORY_KEY]);
    assert_eq!(after["own-key"], "of somebody");
}

#[test]
fn a_newer_format_is_refused_whatever_else_it_holds() {
    let error = Ledger::read(&data(&json!({"format": 2, "answered": "not what we know"}))).unwrap_err();
    assert!(matches!(error, LedgerError::TooNew { found: 2 }), "{error}");
    assert_eq!(error.to_string(), "the ledger has format 2, this guardian knows 1: run the newer guardian that wrote it");
}

#[test]
fn a_damaged_ledger_is_an_error_not_a_fresh_start() {
    assert!(matches!(Ledger::read(&BTreeMap::new()), Err(LedgerError::Missing)));
    for text in ["", "{", "[]", "{}", r#"{"format":1}"#, r#"{"format":1,"setUid":"u","answered":{"zero":{}}}"#] {
        let data = BTreeMap::from([(STATE_KEY.to_owned(), text.to_owned())]);
        assert!(matches!(Ledger::read(&data), Err(LedgerError::Unreadable(_))), "{text}");
    }
}

#[test]
fn a_record_is_cut_to_its_bound_and_stays_one_line_that_reads_back() {
    for message in ["\u{7}".repeat(5000), "é".repeat(5000), "\n".repeat(5000)] {
        let line = record(&message).line();
        assert!(line.len() <= MAX_RECORD && line.len() > MAX_RECORD - 16, "{} bytes", line.len());
        assert!(!line.contains('\n'));
        let read: Record = serde_json::from_str(&line).unwrap();
        assert!(message.starts_with(&read.message));
    }
}

#[test]
fn the_history_keeps_the_newest_records_within_count_and_size() {
    let mut ledger = Ledger::new("u");
    for n in 0..MAX_RECORDS + 50 {
        ledger.record(&record(&format!("{n}{}", "\u{1}".repeat(3000))));
    }
    let mut data = BTreeMap::new();
    ledger.write(&mut data).unwrap();
    let all: Vec<Record> = Ledger::read(&data).unwrap().records().collect();
    assert_eq!(all.len(), MAX_RECORDS);
    assert!(all[0].message.starts_with("50\u{1}") && all[199].message.starts_with("249\u{1}"));
    assert!(data[STATE_KEY].len() + data[HISTORY_KEY].len() <= MAX_BYTES);
}

#[test]
fn old_records_give_way_to_the_state_and_a_state_without_room_is_an_error() {
    let mut ledger = Ledger::new("u");
    for _ in 0..MAX_RECORDS {
        ledger.record(&record(&"x".repeat(3000)));
    }
    // Ordinals of four digits, so that each takes as much as the next, with its key, quotes, colon and comma.
    let each = serde_json::to_string(&start("a", "1", 0, 1)).unwrap().len() + "\"1000\":,".len();
    let mut ordinals = 1000..;
    for ordinal in ordinals.by_ref().take((MAX_STATE - 1000) / each) {
        ledger.state.answered.insert(ordinal, start("a", "1", 0, 1));
    }
    let mut data = BTreeMap::new();
    ledger.write(&mut data).unwrap();
    let bytes = data[STATE_KEY].len() + data[HISTORY_KEY].len();
    assert!(bytes <= MAX_BYTES && bytes > MAX_BYTES - MAX_RECORD - 1, "{bytes}");
    assert!(data[HISTORY_KEY].lines().count() < MAX_RECORDS);

    for ordinal in ordinals.take(10) {
        ledger.state.answered.insert(ordinal, start("a", "1", 0, 1));
    }
    let error = ledger.write(&mut data).unwrap_err();
    assert!(matches!(error, LedgerError::Full { bytes } if bytes > MAX_STATE), "{error}");
}

#[test]
fn a_start_is_named_by_pod_and_container_and_older_only_by_count_and_time_together() {
    let first = start("a", "1", 0, 100);
    assert!(first.is(&start("a", "1", 0, 100)) && !first.is(&start("a", "2", 0, 100)) && !first.is(&start("b", "1", 0, 100)));

    assert!(first.is_older_than(&start("a", "2", 1, 101)));
    assert!(!start("a", "2", 1, 101).is_older_than(&first));
    assert!(!start("a", "2", 0, 200).is_older_than(&start("a", "1", 3, 100)), "the count fell back");
    assert!(!start("a", "2", 4, 50).is_older_than(&start("a", "1", 3, 100)), "the clock was set back");

    let mut later = start("b", "1", 0, 1);
    later.created = Timestamp::from_second(10).unwrap();
    assert!(first.is_older_than(&later) && !later.is_older_than(&first), "of two pods, the creation tells");
}

#[test]
fn the_short_name_of_a_start_can_name_a_run() {
    let mut start = start("0b2c9d1e-1111-2222", "9f8e7d6c5b4a39281706", 1, 1);
    assert_eq!(start.short(), "0b2c9d1e-9f8e7d6c5b4a");
    start.container_id = "weird scheme/..%2f..".into();
    assert!(guardian_hook::protocol::valid_run_id(&format!("rejoin-{}-1", start.short())));
}
