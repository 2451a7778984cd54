//! What rules look at.

use std::collections::BTreeMap;
use std::sync::Arc;

use guardian_hook::protocol::Usage;
use jiff::Timestamp;

use super::*;
use crate::policy::{self, Action, Amount, Condition, Rule, Threshold};

const PLACE: Place<'_> = Place { namespace: "shop", set: "redis", pod_uid: "uid" };

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + second).unwrap()
}

fn rule(when: Condition) -> Rule {
    Rule { name: "r".into(), when, until: None, actions: vec![Action::Shed], undo: Vec::new(), budget: None }
}

fn of_usage(usage: policy::Usage) -> Rule {
    rule(Condition::Usage { usage, threshold: Threshold::Above(Amount::Percent(1.0)), during: Duration::ZERO })
}

fn of_rate(window: u64, threshold: Threshold<f64>) -> Rule {
    let rate = Some(Duration::from_secs(window));
    rule(Condition::Metric { name: "keys".into(), rate, threshold, during: Duration::ZERO })
}

/// One pod, one metric, and what these rules want kept of it.
fn served(rules: &[Rule]) -> Served {
    let mut served = Served::default();
    let pod = WantedPod { name: "redis-0".into(), metrics: ["keys".into()].into(), containers: ["redis".into()].into() };
    let wanted = Wanted {
        policy: "p".into(),
        metrics: BTreeMap::from([("keys".to_owned(), Arc::new(metric("keys", &["db"])))]),
        windows: windows(rules),
        pods: BTreeMap::from([("uid".to_owned(), pod)]),
    };
    served.keep("shop", "redis", wanted);
    served
}

fn says(served: &mut Served, second: i64, series: &[(&str, f64)]) {
    let series = series.iter().map(|(db, value)| (vec![(*db).to_owned()], *value)).collect();
    served.take(PLACE, "keys", Ok(Reading { series, dropped: 0 }), Duration::ZERO, at(second));
}

fn fails(served: &mut Served, second: i64, end: End) {
    served.take(PLACE, "keys", Err(Failure { end, why: String::new() }), Duration::ZERO, at(second));
}

#[test]
fn a_usage_is_measured_against_its_limit() {
    let mut served = served(&[]);
    let usage = Usage {
        memory_bytes: Some(300),
        reclaimable_bytes: Some(100),
        memory_limit_bytes: Some(1000),
        cpu_usage_us: Some(1_000_000),
        cpu_limit_millis: Some(500),
        throttled_us: Some(0),
        disk_bytes: Some(80),
        disk_limit_bytes: Some(100),
    };
    let every = Duration::from_secs(10);
    served.takes_usage(PLACE, "redis", usage, every, at(0));
    let value = |served: &Served, of| served.measured(PLACE, &of_usage(of)).map(|measured| (measured.value, measured.limit));
    assert_eq!(value(&served, policy::Usage::Memory), Some((200.0, Some(1000.0))));
    assert_eq!(value(&served, policy::Usage::Disk), Some((80.0, Some(100.0))));
    assert_eq!((value(&served, policy::Usage::Cpu), value(&served, policy::Usage::Throttling)), (None, None), "two make a rate");
    let later = Usage { cpu_usage_us: Some(3_500_000), throttled_us: Some(5_000_000), ..usage };
    served.takes_usage(PLACE, "redis", later, every, at(10));
    assert_eq!(value(&served, policy::Usage::Cpu), Some((0.25, Some(0.5))));
    assert_eq!(value(&served, policy::Usage::Throttling), Some((0.5, Some(1.0))), "half of the time");
}

#[test]
fn a_rate_is_that_of_the_series_that_is_furthest_beyond_its_bound() {
    let (above, below) = (of_rate(60, Threshold::Above(1.0)), of_rate(60, Threshold::Below(1.0)));
    let mut served = served(&[above.clone(), below.clone()]);
    let value = |served: &Served, rule| served.measured(PLACE, rule).map(|measured| measured.value);
    says(&mut served, 0, &[("0", 0.0), ("1", 0.0)]);
    assert_eq!(value(&served, &above), None, "nothing is known yet");
    says(&mut served, 30, &[("0", 30.0), ("1", 600.0)]);
    assert_eq!((value(&served, &above), value(&served, &below)), (Some(20.0), Some(1.0)));
}

#[test]
fn the_longest_window_is_kept_and_each_rule_has_its_own() {
    let (short, long) = (of_rate(30, Threshold::Above(1.0)), of_rate(300, Threshold::Above(1.0)));
    let mut served = served(&[short.clone(), long.clone()]);
    for second in (0..=300).step_by(15) {
        says(&mut served, second, &[("0", if second > 270 { 1000.0 } else { 0.0 })]);
    }
    let value = |rule| served.measured(PLACE, rule).unwrap().value;
    assert!(value(&short) > 30.0, "{}", value(&short));
    assert!(value(&long) < 4.0, "{}", value(&long));
}

#[test]
fn a_metric_is_absent_while_its_command_runs_and_gives_no_value() {
    let mut served = served(&[]);
    assert_eq!(served.absence(PLACE, "keys"), None, "nobody has asked yet");
    says(&mut served, 0, &[("0", 1.0)]);
    assert_eq!(served.absence(PLACE, "keys"), Some((None, at(0))));
    for (second, end) in [(15, End::Exit), (30, End::TimedOut), (45, End::Malformed)] {
        fails(&mut served, second, end);
        assert_eq!(served.absence(PLACE, "keys"), Some((Some(at(15)), at(second))), "{end:?}");
    }
    // That nobody can ask says nothing of the application.
    for end in [End::Unreachable, End::Denied, End::Unable] {
        fails(&mut served, 60, end);
        assert_eq!(served.absence(PLACE, "keys"), Some((Some(at(15)), at(45))), "{end:?}");
    }
    says(&mut served, 75, &[]);
    assert_eq!(served.absence(PLACE, "keys"), Some((Some(at(15)), at(75))), "no series is no value");
    says(&mut served, 90, &[("0", 1.0)]);
    assert_eq!(served.absence(PLACE, "keys"), Some((None, at(90))));
}
