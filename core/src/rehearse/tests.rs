mod causes;
mod resizes;
mod wrong;

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::SignedDuration;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::cast::Cast;
use super::figures::MAX_TIME;
use super::subject::Subject;
use super::world::{End, Event, World};
use super::{Asked, BEGINS, Ended, Fails, Line, Rehearsal, Report, Scenario, Script, Unfit, What, rehearse};
use crate::names;
use crate::policy::{self, API_VERSION, KIND, Policy};

/// Hooks for every occasion that there is.
const ALL: &str = "\
role: {command: [role]}
protect: {quorum: majority, disruptionBudget: true}
hooks:
  init: {command: [init]}
  bootstrap: {command: [bootstrap]}
  join: {command: [join]}
  rejoin: {command: [rejoin], timeout: 30s, retries: 2, backoff: 5s}
  postMortem: {command: [look]}
  switchover: {command: [move], target: 'role:primary'}
  preStop: {command: [stop]}
";

const REJOIN: &str = "hooks: {rejoin: {command: [rejoin], timeout: 30s, retries: 2, backoff: 5s}}\n";

fn policy(text: &str) -> Policy {
    let text = format!("apiVersion: {API_VERSION}\nkind: {KIND}\n{text}");
    policy::parse("db", &BTreeMap::from([(names::POLICY_KEY.to_owned(), text)])).unwrap()
}

/// A set of three as it is admitted; with `changes`, which are merged into it.
fn set(changes: &Value) -> Value {
    let mut set = json!({
        "apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": {"name": "db"},
        "spec": {
            "replicas": 3, "serviceName": "db",
            "template": {"metadata": {"labels": {"app": "db", (names::SERVING): "true"}}, "spec": {"containers": [{"name": "db"}]}},
            "volumeClaimTemplates": [{"metadata": {"name": "data"}}],
        },
    });
    json_patch::merge(&mut set, changes);
    set
}

fn asked(scenario: &str) -> Asked {
    let scenario = scenario.parse().unwrap();
    let (pods, roles, script) = (Vec::new(), Vec::new(), Script::default());
    Asked { scenario, pods, replicas: None, to: None, roles, script, times: None, every: None, lasts: None }
}

fn failing(scenario: &str, fails: &[(&str, Fails)]) -> Asked {
    let fails = fails.iter().map(|(hook, fails)| ((*hook).to_owned(), *fails)).collect();
    Asked { script: Script { fails, times: BTreeMap::new() }, ..asked(scenario) }
}

fn played_with(set: &Value, text: &str, asked: &Asked, budgets: &[Value]) -> Result<Report, Unfit> {
    let policy = policy(text);
    rehearse(&Rehearsal { set, namespace: "shop", policy: &policy, services: &[], budgets }, asked)
}

fn played(text: &str, asked: &Asked) -> Report {
    played_with(&set(&json!({})), text, asked, &[]).unwrap()
}

/// What was begun or told, of these kinds: `second pod sentence`.
fn told(report: &Report, kinds: &[What]) -> Vec<String> {
    let lines = report.lines.iter().filter(|line| kinds.contains(&line.what));
    let told = lines.map(|line| {
        let pod = line.pod.as_deref().unwrap_or("-");
        format!("{} {pod} {}", line.at_ms as f64 / 1000.0, line.sentence())
    });
    told.collect()
}

/// The runs: `second hook pod reason`.
fn runs(report: &Report) -> Vec<String> {
    let runs = report.lines.iter().filter(|line| line.what == What::Run);
    let run = |line: &Line| {
        let (hook, pod, reason) = (line.hook.clone()?, line.pod.clone()?, line.reason.clone()?);
        Some(format!("{} {hook} {pod} {reason}", line.at_ms as f64 / 1000.0))
    };
    runs.filter_map(run).collect()
}

#[test]
fn each_scenario_runs_the_hooks_of_its_occasion_and_ends_quiet() {
    let rows: &[(&str, &[&str])] = &[
        ("first-start", &["10.5 bootstrap db-0 FirstStart", "11 join db-1 FirstStart", "11 join db-2 FirstStart"]),
        ("crash", &["1 postMortem db-2 Crash", "1.5 rejoin db-2 Crash"]),
        ("oom", &["1 postMortem db-2 OOMKilled", "1.5 rejoin db-2 OOMKilled"]),
        ("liveness", &["1 rejoin db-2 LivenessFailed"]),
        ("delete", &["4 rejoin db-2 Deleted"]),
        ("drain", &["0 switchover db-0 Drained", "5 rejoin db-0 Drained"]),
        ("scale-out", &["2.5 join db-3 ScaleOut"]),
        ("scale-in", &[]),
        ("rollout", &["4 rejoin db-2 Updated", "9 rejoin db-1 Updated", "14 rejoin db-0 Updated"]),
        ("node-lost", &["602.5 postMortem db-2 NodeLost", "603 rejoin db-2 NodeLost"]),
    ];
    for (scenario, expected) in rows {
        let report = played(ALL, &asked(scenario));
        assert_eq!(runs(&report), *expected, "{scenario}");
        assert!(report.is_quiet(), "{scenario}: {report:#?}");
        assert_eq!(report.all_ready_at_ms.is_some(), report.not_ready.is_empty(), "{scenario}");
        assert!(report.quorum_kept || *scenario == "first-start", "{scenario}: {}", report.least_ready);
    }
    let outage = played(ALL, &asked("zone-outage"));
    assert!(outage.is_quiet() && !outage.quorum_kept, "{outage:#?}");
    assert_eq!((outage.least_ready, outage.least_ready_at_ms), (1, 50_000));
}

#[test]
fn a_rehearsal_is_the_same_each_time() {
    for (scenario, ..) in Scenario::NAMED {
        let twice = [(); 2].map(|()| json!(played(ALL, &failing(scenario, &[("rejoin", Fails::Times(2))]))));
        assert_eq!(twice[0], twice[1], "{scenario}");
    }
}

#[test]
fn a_hook_that_fails_is_tried_again_after_its_backoff_as_often_as_the_policy_says() {
    let rows: &[(Fails, &[&str], bool)] = &[
        (Fails::Times(1), &["1 rejoin db-2 Crash", "6.5 rejoin db-2 Crash"], true),
        (Fails::Times(2), &["1 rejoin db-2 Crash", "6.5 rejoin db-2 Crash", "17 rejoin db-2 Crash"], true),
        (Fails::Times(3), &["1 rejoin db-2 Crash", "6.5 rejoin db-2 Crash", "17 rejoin db-2 Crash"], false),
        (Fails::Always, &["1 rejoin db-2 Crash", "6.5 rejoin db-2 Crash", "17 rejoin db-2 Crash"], false),
    ];
    for (fails, expected, quiet) in rows {
        let report = played(REJOIN, &failing("crash", &[("rejoin", *fails)]));
        assert_eq!((runs(&report), report.is_quiet()), (expected.iter().map(ToString::to_string).collect(), *quiet), "{fails:?}");
        assert_eq!((report.failed.len(), report.ended), (usize::from(!quiet), Ended::Quiet), "{fails:?}");
    }
}

#[test]
fn a_hook_that_takes_as_long_as_its_time_out_is_killed_at_it() {
    let times =
        |time: u64| Script { times: BTreeMap::from([("rejoin".to_owned(), Duration::from_secs(time))]), ..Script::default() };
    let report = |time| played(REJOIN, &Asked { script: times(time), ..asked("crash") });
    assert_eq!(told(&report(29), &[What::Record]).len(), 1);
    let late = report(30);
    assert_eq!(runs(&late), ["1 rejoin db-2 Crash", "36 rejoin db-2 Crash", "76 rejoin db-2 Crash"]);
    assert!(late.failed[0].message.ends_with("rejoin was killed at its time out, after 30.0 s"), "{:?}", late.failed);
}

#[test]
fn a_pod_whose_rejoin_fails_is_made_anew_three_times_and_then_left() {
    let report =
        played("hooks: {rejoin: {command: [a], onFailure: recreate}}\n", &failing("crash", &[("rejoin", Fails::Always)]));
    let made = told(&report, &[What::Cluster]).into_iter().filter(|line| line.ends_with("the pod is made")).count();
    assert_eq!((made, runs(&report).len()), (3, 4));
    assert_eq!(report.holds.iter().map(|held| held.reason.as_str()).collect::<Vec<_>>(), ["BreakerOpen"]);
    assert_eq!(report.ended, Ended::Quiet);
}

#[test]
fn a_drained_pod_hands_its_role_over_first_and_goes_with_it_after_a_hundred_seconds() {
    let moved = played(ALL, &asked("drain"));
    let labels = told(&moved, &[What::Level]);
    for label in ["0.5 db-0 loses the label of its role", "0.5 db-1 is labelled primary"] {
        assert!(labels.contains(&label.to_owned()), "{labels:?}");
    }
    assert!(!labels.iter().any(|label| label.ends_with("db-0 is labelled primary")), "{labels:?}");
    let kept = told(&played(ALL, &failing("drain", &[("switchover", Fails::Always)])), &[What::Cluster]);
    assert!(
        kept.iter().any(|line| line.starts_with("100 db-0 its eviction is granted; pod db-0 is evicted with the role")),
        "{kept:?}"
    );

    let elsewhere = Asked { roles: vec![("primary".into(), vec![2]), ("replica".into(), vec![0, 1])], ..asked("drain") };
    let swapped = told(&played(ALL, &elsewhere), &[What::Level]);
    for label in ["0.5 db-0 is labelled primary", "0.5 db-2 is labelled replica"] {
        assert!(swapped.contains(&label.to_owned()), "{swapped:?}");
    }
}

#[test]
fn of_two_evictions_at_once_the_second_waits_for_the_budget() {
    let both = Asked { pods: vec!["1".into(), "db-2".into()], ..asked("drain") };
    let cluster = told(&played(ALL, &both), &[What::Cluster]);
    let refused = "0 db-2 its eviction is refused (DisruptionBudget): PodDisruptionBudget guardian-db wants 2 ready, and 2 are";
    assert!(cluster.contains(&refused.to_owned()), "{cluster:#?}");
    let ready = cluster.iter().position(|line| line.ends_with("db-1 ready")).unwrap();
    let granted = cluster.iter().position(|line| line.ends_with("db-2 its eviction is granted")).unwrap();
    assert!(ready < granted, "{cluster:#?}");

    let without = told(&played(REJOIN, &both), &[What::Cluster]);
    assert!(without.contains(&"0 db-2 its eviction is granted".to_owned()), "{without:#?}");
}

#[test]
fn the_budget_of_somebody_else_counts_and_holds_ours() {
    let budget = |spec: Value| {
        let mut spec = spec;
        spec["selector"] = json!({"matchLabels": {"app": "db"}});
        json!({"kind": "PodDisruptionBudget", "metadata": {"name": "theirs"}, "spec": spec})
    };
    let both = Asked { pods: vec!["1".into(), "2".into()], ..asked("drain") };
    let refused = |spec: Value| {
        let report = played_with(&set(&json!({})), REJOIN, &both, &[budget(spec)]).unwrap();
        told(&report, &[What::Cluster]).iter().filter(|line| line.contains("refused")).count()
    };
    assert_eq!(refused(json!({"maxUnavailable": 2})), 0);
    assert_eq!(refused(json!({"maxUnavailable": "50%"})), 0, "rounded up, as the disruption controller does");
    assert_eq!(refused(json!({"maxUnavailable": 1})), 1);
    assert_eq!(refused(json!({"minAvailable": 1})), 0);
    assert_eq!(refused(json!({"minAvailable": "60%"})), 1);
    let ours = played_with(&set(&json!({})), ALL, &asked("crash"), &[budget(json!({"maxUnavailable": 1}))]).unwrap();
    assert_eq!(ours.holds[0].reason, "OtherBudget");
    assert!(!ours.is_quiet());
}

#[test]
fn pods_are_made_one_after_the_other_or_all_at_once() {
    let made = |changes: Value| {
        let report = played_with(&set(&changes), REJOIN, &asked("first-start"), &[]).unwrap();
        told(&report, &[What::Cluster]).into_iter().filter(|line| line.ends_with("is made")).skip(1).collect::<Vec<_>>()
    };
    let expected = |seconds: [u32; 3]| [0, 1, 2].map(|n| format!("{} db-{n} the pod is made", seconds[n]));
    assert_eq!(made(json!({})), expected([0, 3, 6]));
    assert_eq!(made(json!({"spec": {"podManagementPolicy": "Parallel"}})), expected([0, 0, 0]));
}

#[test]
fn under_ready_after_a_pod_waits_for_its_hook_and_not_for_ever() {
    let probe = json!([{"name": "db", "startupProbe": {"exec": {"command": [names::RUNNER, "joined"]}}}]);
    let set = set(&json!({"spec": {"podManagementPolicy": "Parallel", "template": {"spec": {"containers": probe}}}}));
    let text = "readyAfter: join\nhooks: {join: {command: [a]}, rejoin: {command: [a], timeout: 50s}}\n";
    let ready = |asked: &Asked| {
        let report = played_with(&set, text, asked, &[]).unwrap();
        told(&report, &[What::Cluster]).pop().unwrap()
    };
    let script = Script { times: BTreeMap::from([("rejoin".to_owned(), Duration::from_secs(20))]), ..Script::default() };
    assert_eq!(ready(&Asked { script, ..asked("crash") }), "21 db-2 ready");
    let failed = failing("crash", &[("rejoin", Fails::Always)]);
    assert_eq!(ready(&failed), "61 db-2 ready: neither join nor rejoin ended well in time");
}

#[test]
fn an_init_hook_that_blocks_is_tried_again_and_a_rehearsal_has_an_end() {
    let text = "hooks: {init: {command: [a], onFailure: block}, rejoin: {command: [a]}}\n";
    let late = played(text, &failing("delete", &[("init", Fails::Times(2))]));
    assert_eq!((runs(&late), late.is_quiet()), (vec!["34.5 rejoin db-2 Deleted".to_owned()], true));
    let never = played(text, &failing("delete", &[("init", Fails::Always)]));
    assert_eq!((never.ended, never.not_ready.as_slice()), (Ended::Time, ["db-2".to_owned()].as_slice()));
    assert!(never.after_ms <= 3_600_000 && !never.is_quiet());
    let goes_on =
        played("hooks: {init: {command: [a]}, rejoin: {command: [a]}}\n", &failing("delete", &[("init", Fails::Always)]));
    assert!(goes_on.is_quiet(), "by default it does not block: {goes_on:#?}");
}

const PRESSURE: &str = "\
traffic: {services: [clients]}
rules:
- name: pressure
  when: {usage: memory, above: 85%, for: 30s}
  until: {below: 75%, for: 60s}
  do: [shed, {run: throttle}]
  undo: [{run: unthrottle}]
  budget: {pods: 1, every: 5m}
tasks: {throttle: {command: [a]}, unthrottle: {command: [a]}}
";

#[test]
fn a_rule_sets_in_for_as_long_as_its_value_is_beyond_its_bound() {
    let report = played(PRESSURE, &asked("rule:pressure"));
    assert_eq!(runs(&report), ["60 tasks.throttle db-2 Rule", "360 tasks.unthrottle db-2 Rule"]);
    assert!(report.is_quiet(), "{report:#?}");
    let levels = told(&report, &[What::Level]);
    assert_eq!(levels, ["30 db-2 Services send nothing new to it", "360 db-2 Services send to it again"]);

    let short = played(PRESSURE, &Asked { lasts: Some(Duration::from_secs(20)), ..asked("rule:pressure") });
    assert_eq!((runs(&short).len(), short.is_quiet()), (0, true), "shorter than its `for`");
    let two = played(PRESSURE, &Asked { pods: vec!["0".into(), "1".into()], ..asked("rule:pressure") });
    let holds: Vec<String> =
        told(&two, &[What::Hold, What::Released]).iter().map(|line| line.chars().take(25).collect()).collect();
    assert_eq!(holds, ["30 - HOLD RuleBudget: rul", "300 - no longer held: Rul"]);
}

#[test]
fn a_scale_in_that_the_webhook_denies_is_denied_in_its_words() {
    let text = "protect: {minReplicas: 3}\n";
    let report = played(text, &asked("scale-in"));
    let cluster = told(&report, &[What::Cluster]);
    assert_eq!((cluster.len(), report.replicas), (1, 3));
    assert!(cluster[0].starts_with("0 - 2 replicas are denied (BelowMinReplicas): "), "{cluster:?}");
    let allowed = played("protect: {minReplicas: 2}\n", &asked("scale-in"));
    assert_eq!((allowed.replicas, allowed.is_quiet()), (2, true));
}

#[test]
fn a_set_on_hold_is_left_alone_and_that_is_what_is_left() {
    let set = set(&json!({"metadata": {"annotations": {(names::HOLD): "incident"}}}));
    let report = played_with(&set, REJOIN, &asked("crash"), &[]).unwrap();
    assert_eq!((runs(&report).len(), report.holds[0].reason.as_str()), (0, "OnHold"));
    let drained = played_with(&set, ALL, &asked("drain"), &[]).unwrap();
    assert!(told(&drained, &[What::Cluster])[0].starts_with("0 db-0 its eviction is granted"), "nothing is denied");
}

/// What happens to which ordinal after so many seconds.
type Happening = (i64, u32, u32);

const ENDS: u32 = 0;
const EVICTED: u32 = 2;
const NODE_LOST: u32 = 3;
const ROLLOUT: u32 = 4;

/// Hooks that end well after so many seconds, and whatever happens: within the hour every pod is back, its start answered, and nothing is open.
fn comes_to_rest(happenings: &[Happening], hook_seconds: u64) {
    let (policy, asked) = (policy(ALL), asked("crash"));
    let begins = BEGINS.parse().unwrap();
    let subject = Subject::read(&set(&json!({})), None, begins).unwrap();
    let cast = Cast::new(&asked, &subject, &policy).unwrap();
    let mut world = World::new(&policy, subject, "shop", cast.claims.clone());
    world.come_to_rest(begins + SignedDuration::from_hours(24)).unwrap();
    world.script.times = ["rejoin", "join", "switchover"].map(|hook| (hook.to_owned(), Duration::from_secs(hook_seconds))).into();
    for (second, what, ordinal) in happenings.iter().copied() {
        let event = match what {
            ENDS => Event::Ends { ordinal, how: End { reason: "Error", exit_code: 1, by_probe: false } },
            EVICTED => Event::Evict { pod: world.id(ordinal).unwrap(), told: String::new() },
            NODE_LOST => Event::NodeLost { ordinal },
            ROLLOUT => Event::Rollout,
            _ => Event::Delete { ordinal },
        };
        world.after(SignedDuration::from_secs(second), event);
    }
    assert_eq!(world.play(MAX_TIME), Ended::Quiet);
    assert!(!world.is_open(), "{:#?}", world.ledger.state.episodes);
    assert!(world.telling.whole.is_some() && world.telling.held.is_empty(), "{:#?}", world.telling.lines);
    for (ordinal, pod) in &world.observed.pods {
        assert!(world.ledger.state.answered[ordinal].is(&pod.start("db").unwrap()), "{}", pod.name);
    }
}

#[test]
fn a_role_that_moves_back_to_where_an_older_claim_is_has_one_holder() {
    comes_to_rest(&[(0, ENDS, 0), (17, EVICTED, 0), (31, ROLLOUT, 0), (41, NODE_LOST, 0)], 15);
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_the_set_comes_to_rest(
        happenings in prop::collection::vec((0..120_i64, 0..5_u32, 0..3_u32), 0..12),
        hook_seconds in 0..25_u64,
    ) {
        comes_to_rest(&happenings, hook_seconds);
    }
}
