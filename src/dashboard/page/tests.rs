use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use guardian_core::ledger::Verdict;
use k8s_openapi::api::core::v1::ConfigMap;
use serde_json::{Value, json};

use super::*;
use crate::dashboard::exposition::Family;
use crate::dashboard::samples::{Plot, Taken};
use crate::dashboard::view::Told;
use crate::known::{self, Kept, Place, Pod, Policies, Set};

const BASE: &str = "/secret/";
const HOSTILE: &str = "<script>alert('1')</script> & \"quoted\" \r\0 </title></style>";

fn now() -> Timestamp {
    "2026-11-21T12:00:00Z".parse().expect("a time")
}

fn pod(name: &str, ready: bool, role: Option<&str>) -> Arc<Pod> {
    let role = role.map(str::to_owned);
    let (node, revision) = (Some("node-1".to_owned()), Some("db-6d5f7c".to_owned()));
    Arc::new(Pod { name: name.to_owned(), ready, stopping: false, role, restarts: 2, node, revision })
}

fn kept(episodes: &Value, records: &[Value]) -> Arc<Result<Kept, String>> {
    let state = json!({"format": 1, "setUid": "s", "bootstrapped": true, "episodes": episodes});
    let history: Vec<String> = records.iter().map(Value::to_string).collect();
    let data = BTreeMap::from([("state".to_owned(), state.to_string()), ("history".to_owned(), history.join("\n"))]);
    Arc::new(Kept::read(&ConfigMap { data: Some(data), ..ConfigMap::default() }))
}

fn record(at: &str, verdict: Verdict, message: &str) -> Value {
    json!({
        "at": at, "hook": "rejoin", "reason": "Crash", "verdict": verdict, "pod": "db-0", "podUid": "u", "attempt": 1, "message": message,
    })
}

fn set(name: &str, ledger: Option<Arc<Result<Kept, String>>>) -> Set {
    let place = Place { name: "shop".to_owned(), enabled: true, hold: None };
    let policies = Policies::of("shop", &[], None, None);
    let object = json!({
        "apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": {"name": name, "uid": "s"},
        "spec": {"replicas": 2, "template": {"metadata": {}, "spec": {"containers": [{"name": "c", "image": "c"}]}}},
        "status": {"readyReplicas": 1},
    });
    let standing = known::standing(&object, "shop", &policies, None);
    let pods = BTreeMap::from([("s".to_owned(), vec![pod("db-0", true, Some("primary")), pod("db-1", false, None)])]);
    Set::of(&place, &object, standing, &pods, ledger)
}

fn view(sets: Vec<Set>) -> View {
    View { settled: true, at: now(), sets, ..View::empty(&Scope::Namespace("shop".to_owned())) }
}

fn page_of(name: &str) -> Page {
    Page::Set { namespace: "shop".to_owned(), name: name.to_owned() }
}

fn fragment(view: &View, page: &Page, id: &str) -> String {
    let all = fragments(view, page, BASE, now());
    all.into_iter().find(|fragment| fragment.id == id).expect("the fragment").html
}

#[test]
fn whatever_others_wrote_is_text_and_never_markup() {
    let open = json!({"e": {
        "scenario": "start", "hook": HOSTILE, "scope": "set", "reason": HOSTILE, "why": HOSTILE, "pod": HOSTILE, "opened": "2026-11-21T11:00:00Z",
    }});
    let mut record = record("2026-11-21T11:30:00Z", Verdict::Failed, HOSTILE);
    for field in ["hook", "pod"] {
        record[field] = json!(HOSTILE);
    }
    let mut set = set("db", Some(kept(&open, &[record])));
    set.place.hold = Some(HOSTILE.to_owned());
    let told = Told { at: None, warning: true, reason: HOSTILE.into(), action: HOSTILE.into(), note: HOSTILE.into() };
    let family = Family { kind: HOSTILE.into(), help: HOSTILE.into() };
    let plot = Plot { name: HOSTILE.into(), family, lines: vec![(HOSTILE.into(), vec![(now(), 1.0)])] };
    let key = ("shop".to_owned(), "db".to_owned());
    let metrics = Taken { sets: BTreeMap::from([(key.clone(), Arc::new(vec![plot]))]), ..Taken::default() };
    let view = View { told: BTreeMap::from([(key, vec![told])]), notices: vec![HOSTILE.into()], metrics, ..view(vec![set]) };
    for page in [Page::Start, page_of("db"), page_of(HOSTILE)] {
        let html = whole(&view, &page, BASE, "n", now());
        assert_eq!(html.matches("<script").count(), 1, "our own, and no other: {html}");
        assert_eq!(html.matches("</style").count(), 1, "{html}");
        assert!(html.contains("&lt;script&gt;alert"), "{html}");
    }
    let parts = fragments(&view, &page_of("db"), BASE, now());
    assert!(parts.iter().all(|part| !part.html.contains(['\r', '\0'])), "nothing that ends a line of the stream");
}

#[test]
fn a_row_tells_state_readiness_roles_failure_and_what_goes_on() {
    let open = json!({"e": {
        "scenario": "start", "hook": "rejoin", "scope": {"pod": "u"}, "reason": "OOMKilled", "pod": "db-1", "opened": "2026-11-21T11:00:00Z",
        "attempts": 2, "next": "2026-11-21T12:01:00Z",
    }});
    let failed = record("2026-11-21T11:30:00Z", Verdict::Failed, "no route");
    let html = fragment(&view(vec![set("db", Some(kept(&open, &[failed])))]), &Page::Start, "sets");
    for words in [
        "<a href=\"/secret/sets/shop/db\">db</a>",
        "</svg>NoPolicy</span>",
        "<span class=\"num lacking\">1/2</span><span class=\"hidden\"> not all are ready</span>",
        "0 <b>primary</b><span class=\"hidden\"> ready</span>",
        "1<span class=\"hidden\"> not ready</span>",
        "db-0 <b>Crash</b>",
        "<time class=\"age\" datetime=\"2026-11-21T11:30:00Z\">2026-11-21 11:30:00</time>, rejoin Failed",
        "db-1 <b>rejoin</b>",
        "OOMKilled, attempt 3, <time class=\"age\" datetime=\"2026-11-21T12:01:00Z\">",
    ] {
        assert!(html.contains(words), "{words} in {html}");
    }
}

#[test]
fn the_summary_counts_and_a_set_without_anything_is_shown_too() {
    let view = view(vec![set("a", None), set("b", None)]);
    let summary = fragment(&view, &Page::Start, "summary");
    for words in ["<b class=\"num\">2</b> sets", "<b class=\"num\">2</b> NoPolicy", "<b class=\"num\">2</b> not fully ready"] {
        assert!(summary.contains(words), "{words} in {summary}");
    }
    assert!(!summary.contains("on hold") && !summary.contains("going on"), "{summary}");
    let html = whole(&view, &page_of("a"), BASE, "n", now());
    assert!(html.contains("Nothing is recorded of this set.") && html.contains("The controller shows no metric"), "{html}");
    let empty = View { sets: Vec::new(), ..self::view(Vec::new()) };
    assert!(fragment(&empty, &Page::Start, "sets").contains("There is no StatefulSet here."));
}

#[test]
fn the_time_line_takes_the_shortest_span_that_holds_the_newest_records() {
    // Age in minutes of the oldest record, and what is drawn of it.
    for (minutes, words, position) in [
        (50, "The last hour: 1 of 1 records.", "x=\"15.00%\""),
        (300, "The last 6 hours: 1 of 1 records.", "x=\"16.39%\""),
        (1_400, "The last 24 hours: 1 of 1 records.", ""),
        (20_000, "The last 30 days: 1 of 1 records.", ""),
        (2_000_000, "The last year: 0 of 1 records.", ""),
    ] {
        let at = now() - jiff::SignedDuration::from_mins(minutes);
        let set = set("db", Some(kept(&json!({}), &[record(&at.to_string(), Verdict::Failed, "")])));
        let html = timeline::section(&set, now()).into_string();
        assert!(html.contains(words) && html.contains(position), "{minutes}: {words} in {html}");
    }
}

#[test]
fn each_verdict_has_a_shape_of_its_own_and_each_drawing_a_text() {
    let verdicts = [Verdict::Succeeded, Verdict::Retrying, Verdict::Failed, Verdict::Superseded, Verdict::Noted];
    let records: Vec<Value> = verdicts.iter().map(|verdict| record("2026-11-21T11:59:00Z", *verdict, "")).collect();
    let html = timeline::section(&set("db", Some(kept(&json!({}), &records))), now()).into_string();
    assert!(html.contains("aria-label=\"db-0: 5 records, 1 of them failed, 0 open\""), "{html}");
    assert!(html.contains("<title>2026-11-21 11:59:00 Crash, rejoin Failed</title>"), "{html}");
    let legend = html.split("class=\"legend\"").nth(1).expect("a legend");
    let shapes: BTreeSet<&str> = legend.split("<svg").skip(1).filter_map(|svg| svg.split('>').nth(1)).collect();
    assert_eq!(shapes.len(), verdicts.len() + 1, "{shapes:?}");
}

#[test]
fn a_plot_is_drawn_from_edge_to_edge_and_told_in_words() {
    let at = |second: i64| Timestamp::from_second(second).expect("a time");
    // Samples, the points of the line, and the words.
    for (samples, points, words) in [
        (&[(0, 1.0), (30, 3.0), (60, 2.0)][..], "0.0,24.0 80.0,2.0 160.0,13.0", "lag of db-0: 2 now, from 1 to 3 in 3 samples"),
        (&[(0, 0.25), (15, 0.25)], "0.0,13.0 160.0,13.0", "lag of db-0: 0.25 now, from 0.25 to 0.25 in 2 samples"),
        (&[(0, 7.0)], "0.0,13.0 160.0,13.0", "lag of db-0: 7 now, from 7 to 7 in 1 samples"),
    ] {
        let line = samples.iter().map(|(second, value)| (at(*second), *value)).collect();
        let plot = Plot { name: "lag".into(), family: Family::default(), lines: vec![("db-0".into(), line)] };
        let html = plots::section(&[plot]).into_string();
        assert!(html.contains(&format!("points=\"{points}\"")) && html.contains(words), "{words} in {html}");
    }
    for (value, told) in [
        (0.0, "0"),
        (-3.0, "-3"),
        (0.00123, "0.0012"),
        (0.618, "0.62"),
        (12.34, "12.3"),
        (412.7, "413"),
        (9_999.0, "9999"),
        (12_345.0, "12.3k"),
        (1.5e9, "1.50G"),
    ] {
        assert_eq!(plots::number(value), told);
    }
}

#[test]
fn a_fragment_has_another_version_only_when_something_else_is_in_it() {
    let record = record("2026-11-21T11:30:00Z", Verdict::Failed, "no route");
    let view = view(vec![set("db", Some(kept(&json!({}), &[record])))]);
    let versions =
        |at: Timestamp| -> Vec<String> { fragments(&view, &page_of("db"), BASE, at).into_iter().map(|f| f.version).collect() };
    let seconds = |n| jiff::SignedDuration::from_secs(n);
    assert_eq!(versions(now()), versions(now() + seconds(59)), "time alone changes nothing within a minute");
    let (before, after) = (versions(now()), versions(now() + seconds(60)));
    let changed = before.iter().zip(&after).filter(|(before, after)| before != after).count();
    assert_eq!(changed, 1, "then the time line alone");
    let ids: BTreeSet<&str> = fragments(&view, &page_of("db"), BASE, now()).iter().map(|f| f.id).collect();
    let missing: BTreeSet<&str> = fragments(&view, &page_of("none"), BASE, now()).iter().map(|f| f.id).collect();
    assert_eq!(ids, missing, "a set that goes while somebody looks leaves nothing of itself behind");
}
