use std::time::Duration;

use serde_json::json;

use super::causes::CAUSE;
use super::{ALL, PRESSURE, REJOIN, asked, failing, played_with, set};
use crate::rehearse::{Asked, Fails, Scenario};

#[test]
fn what_cannot_be_rehearsed_is_refused_in_a_sentence() {
    let with = |change: fn(&mut Asked)| {
        let mut asked = asked("crash");
        change(&mut asked);
        asked
    };
    let rows: &[(&str, Asked, &str)] = &[
        (
            REJOIN,
            with(|a| a.pods = vec!["7".into()]),
            "StatefulSet db has no pod 7: it has db-0 to db-2 (--replicas gives it more)",
        ),
        (
            REJOIN,
            with(|a| a.pods = vec!["web-0".into()]),
            "StatefulSet db has no pod web-0: it has db-0 to db-2 (--replicas gives it more)",
        ),
        (REJOIN, with(|a| a.replicas = Some(0)), "StatefulSet db has no pods: --replicas gives it some"),
        (REJOIN, with(|a| a.replicas = Some(101)), "101 replicas are too many to rehearse with: at most 100"),
        (
            REJOIN,
            with(|a| a.to = Some(4)),
            "scenario crash changes no number of replicas: leave out --to, or give the set another number with --replicas",
        ),
        (REJOIN, with(|a| a.lasts = Some(Duration::ZERO)), "scenario crash has no rule whose value lasts: leave out --lasts"),
        (
            REJOIN,
            with(|a| a.roles = vec![("primary".into(), vec![0])]),
            "policy db asks no pod for its role, so none has one: it has no `role`",
        ),
        (
            ALL,
            with(|a| a.roles = vec![("primary".into(), vec![3])]),
            "StatefulSet db has no pod 3: it has db-0 to db-2 (--replicas gives it more)",
        ),
        (REJOIN, failing("crash", &[("rejion", Fails::Always)]), "policy db has no hook or task rejion: did you mean rejoin?"),
        (
            PRESSURE,
            failing("crash", &[("xyzzy", Fails::Always)]),
            "policy db has no hook or task xyzzy: it has tasks.throttle, tasks.unthrottle",
        ),
        (
            REJOIN,
            Asked { pods: vec!["0".into()], ..asked("scale-out") },
            "scenario scale-out happens to the whole set: leave out --pod",
        ),
        (
            REJOIN,
            Asked { to: Some(3), ..asked("scale-out") },
            "3 replicas are not more than the 3 of the set: give --to another number",
        ),
        (
            REJOIN,
            Asked { to: Some(4), ..asked("scale-in") },
            "4 replicas are not fewer than the 3 of the set: give --to another number",
        ),
        (REJOIN, Asked { times: Some(2), ..asked("delete") }, "scenario delete comes once: leave out --times and --every"),
        (
            CAUSE,
            asked("rule:flaps"),
            "rule flaps looks at no value: it is set off by Crash or OOMKilled. Rehearse that, with --times",
        ),
        (PRESSURE, asked("rule:presure"), "policy db has no rule presure: did you mean pressure?"),
        (REJOIN, asked("rule:x"), "policy db has no rule x: it has none"),
    ];
    for (text, asked, expected) in rows {
        let refused = played_with(&set(&json!({})), text, asked, &[]).unwrap_err();
        assert_eq!((refused.to_string().as_str(), refused.is_usage()), (*expected, true));
    }
    let unreadable = played_with(&json!({"spec": {"replicas": "three"}}), REJOIN, &asked("crash"), &[]).unwrap_err();
    assert!(!unreadable.is_usage() && unreadable.to_string().starts_with("the StatefulSet cannot be read: "), "{unreadable}");
}

#[test]
fn a_scenario_is_known_by_its_name_and_its_like() {
    for (name, scenario, _) in Scenario::NAMED {
        assert_eq!((name.parse(), scenario.to_string().as_str()), (Ok(scenario.clone()), *name));
    }
    assert_eq!("rule:a".parse(), Ok(Scenario::Rule("a".into())));
    assert_eq!("crahs".parse::<Scenario>().unwrap_err().to_string(), "there is no scenario \"crahs\": did you mean crash?");
    let unlike = "rule:".parse::<Scenario>().unwrap_err().to_string();
    assert!(unlike.ends_with("scale-out, scale-in, rollout and rule:NAME"), "{unlike}");
}
