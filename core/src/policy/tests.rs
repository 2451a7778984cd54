//! What is accepted, and what is said about the rest.

mod bad;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::{
    Action, Amount, Condition, DEFAULT_TIMEOUT, Deletion, Growth, InitOrder, MetricKind, OnFailure, OwnPreStop, Policy, Program,
    Quorum, ReadyAfter, Resource, Schedule, Stride, Target, Threshold, Usage, When, Window, parse,
};
use crate::reason::Start;

const HEAD: &str = "apiVersion: stateful-guardian.io/v1alpha1\nkind: GuardianPolicy\n";

fn data(policy: &str) -> BTreeMap<String, String> {
    let scripts = [
        ("policy.yaml", policy.to_owned()),
        ("rejoin.sh", "#!/bin/sh\nredis-cli ping\n".to_owned()),
        ("plain.sh", "redis-cli ping\n".to_owned()),
        ("windows.sh", "#!/bin/sh\r\nredis-cli ping\r\n".to_owned()),
        ("huge.sh", format!("#!/bin/sh\n{}", "x".repeat(64 * 1024))),
        ("quotes.sh", format!("#!/bin/sh\n{}", "\"".repeat(60 * 1024))),
    ];
    scripts.into_iter().map(|(key, text)| (key.to_owned(), text)).collect()
}

fn message(policy: &str) -> String {
    parse("redis", &data(policy)).map_or_else(|invalid| invalid.to_string(), |policy| panic!("accepted: {policy:?}"))
}

fn accepted(policy: &str) -> Policy {
    parse("redis", &data(policy)).unwrap_or_else(|invalid| panic!("{invalid}"))
}

#[test]
fn bombs_are_refused_at_once() {
    let bombs = [
        format!("{HEAD}hooks: {{rejoin: {{command: {}", "[".repeat(100_000)),
        format!("{HEAD}hooks: {{rejoin: {{command: {}{}}}}}", "[".repeat(10_000), "]".repeat(10_000)),
        format!("{HEAD}{}x", "? ".repeat(50_000)),
        format!("{HEAD}hooks: {{rejoin: {{env: {{A: &a x}}, command: [{}]}}}}", "*a,".repeat(20_000)),
        format!("{HEAD}hooks: {{rejoin: {{command: &a [x, x]}}, init: {{command: [{}]}}}}", "*a,".repeat(20_000)),
        format!("{HEAD}selector: {{matchLabels: {{{}}}}}", "k: v,".repeat(40_000)),
        format!("{HEAD}{}: 1", "k".repeat(200_000)),
    ];
    for bomb in bombs {
        let start = Instant::now();
        let message = message(&bomb);
        assert!(start.elapsed() < Duration::from_secs(5), "{message}");
        assert!(message.len() < 400, "{message}");
    }
}

#[test]
fn of_many_errors_the_first_ten_are_shown() {
    let env: String = (0..30).map(|n| format!("      {n}: x\n")).collect();
    let message = message(&format!("{HEAD}hooks:\n  rejoin:\n    script: rejoin.sh\n    env:\n{env}"));
    assert!(message.ends_with("; and 20 more"), "{message}");
}

#[test]
fn plain_scalars_are_the_text_that_stands_there() {
    let policy = accepted(&format!("{HEAD}hooks:\n  rejoin: {{command: [echo, on, yes, 5, 1e3, 0x10, 007, 1.0]}}\n"));
    let argv = ["echo", "on", "yes", "5", "1e3", "0x10", "007", "1.0"].map(str::to_owned).to_vec();
    assert_eq!(policy.hooks.rejoin.unwrap().program, Program::Command(argv));
}

#[test]
fn a_byte_order_mark_and_document_marks_do_no_harm() {
    let plain = accepted(HEAD);
    for text in [format!("\u{feff}{HEAD}"), format!("---\n{HEAD}...\n"), HEAD.replace('\n', "\r\n")] {
        let policy = accepted(&text);
        let (digest, revision) = (plain.digest.clone(), plain.revision.clone());
        assert_eq!(Policy { digest, revision, ..policy }, plain);
    }
}

#[test]
fn null_is_as_good_as_absent() {
    let text =
        "selector:\ncontainer: null\nprotect:\nhooks:\n  init:\n  rejoin: {script: rejoin.sh, timeout: , env: , retries: ~}\n";
    let policy = accepted(&format!("{HEAD}{text}"));
    assert_eq!(policy.hooks.init, None);
    assert_eq!(policy.hooks.rejoin, accepted(&format!("{HEAD}hooks: {{rejoin: {{script: rejoin.sh}}}}")).hooks.rejoin);
}

#[test]
fn durations_add_up() {
    for (text, millis) in
        [("1ms", 1), ("1h30m", 5_400_000), ("1m1ms", 60_001), ("00090s", 90_000), ("1s1s", 2_000), ("24h", 86_400_000)]
    {
        let policy = accepted(&format!("{HEAD}hooks: {{rejoin: {{script: rejoin.sh, timeout: {text}}}}}"));
        assert_eq!(policy.hooks.rejoin.unwrap().timeout, Duration::from_millis(millis), "{text}");
    }
}

#[test]
fn the_least_that_is_said_gives_the_documented_defaults() {
    let rejoin = accepted(&format!("{HEAD}hooks: {{rejoin: {{script: rejoin.sh}}}}")).hooks.rejoin.unwrap();
    assert_eq!((rejoin.timeout.as_secs(), rejoin.backoff.as_secs(), rejoin.retries), (30, 5, 0));
    assert_eq!((rejoin.idempotent, rejoin.on_failure, rejoin.container), (true, OnFailure::Continue, None));
}

#[test]
fn the_revision_follows_every_byte_of_the_data() {
    let revision = |data: &BTreeMap<String, String>| parse("redis", data).unwrap().revision;
    let before = data(HEAD);
    let mut after = before.clone();
    after.insert("rejoin.sh".to_owned(), "#!/bin/sh\nredis-cli pinG\n".to_owned());
    assert_ne!(revision(&before), revision(&after));
    assert_eq!(revision(&before), revision(&before.clone()));
    assert_eq!(revision(&before).len(), 16);
}

#[test]
fn one_policy_guards_a_set_and_the_others_are_named() {
    let named = |name: &str, app: &str| Policy {
        name: name.to_owned(),
        ..accepted(&format!("{HEAD}selector: {{matchLabels: {{app: {app}}}}}"))
    };
    let policies = [named("c", "redis"), named("b", "redis"), named("a", "postgres")];
    let labels = BTreeMap::from([("app".to_owned(), "redis".to_owned())]);
    let choose =
        |annotation| Policy::choose(&policies, annotation, &labels).map(|(policy, others)| (policy.name.as_str(), others));
    assert_eq!(choose(None), Some(("b", vec!["c"])));
    assert_eq!(choose(Some("a")), Some(("a", vec![])), "the annotation wins over the selector");
    assert_eq!(choose(Some("z")), None, "and no other policy stands in for the one it names");
}

const WHOLE: &str = include_str!("testdata/whole.yaml");

#[test]
fn protection_is_read_as_it_is_written() {
    let policy = accepted(WHOLE);
    let protect = &policy.protect;
    assert_eq!((protect.overrides, protect.quorum, protect.disruption_budget), (true, Some(Quorum::Majority), true));
    assert_eq!((protect.min_replicas, protect.deletion), (Some(2), Deletion::Deny));
    assert_eq!(protect.spread, ["kubernetes.io/hostname", "topology.kubernetes.io/zone"]);
    assert_eq!(policy.inject.init_order, InitOrder::After("prepare".into()));
    assert_eq!((policy.inject.own_pre_stop, policy.ready_after), (Some(OwnPreStop::Keep), Some(ReadyAfter::Join)));
    for (text, quorum) in [("2", Quorum::Number(2)), ("'2'", Quorum::Number(2)), ("50%", Quorum::Percent(50))] {
        assert_eq!(accepted(&format!("{HEAD}protect: {{quorum: {text}}}")).protect.quorum, Some(quorum));
    }
    assert_eq!(accepted(HEAD).protect, super::Protect::default());
}

#[test]
fn hooks_are_read_as_they_are_written() {
    let hooks = accepted(WHOLE).hooks;
    let rejoin = hooks.rejoin.unwrap();
    assert_eq!((rejoin.on_failure, rejoin.when, rejoin.target), (OnFailure::Recreate, When::Running, Some(Target::Itself)));
    assert_eq!(hooks.bootstrap.unwrap().target, Some(Target::Ordinal(0)));
    assert_eq!(hooks.switchover.unwrap().target, Some(Target::Role("primary".into())));
    assert_eq!(hooks.shutdown.unwrap().target, Some(Target::All));
    assert_eq!(hooks.position.unwrap().alive.unwrap().timeout, Duration::from_secs(1));
    let freeze = hooks.freeze.unwrap();
    assert_eq!((freeze.hold.unwrap().ready.as_deref(), freeze.max), (Some("frozen"), Duration::from_secs(90)));
    let idempotent = [hooks.join.unwrap(), rejoin_default(), hooks.restart.unwrap(), hooks.leave.unwrap(), hooks.fence.unwrap()];
    assert_eq!(idempotent.map(|hook| hook.idempotent), [true, true, false, false, true]);
}

fn rejoin_default() -> super::Hook {
    accepted(&format!("{HEAD}hooks: {{rejoin: {{script: rejoin.sh}}}}")).hooks.rejoin.unwrap()
}

#[test]
fn rules_are_read_as_they_are_written() {
    let rules = accepted(WHOLE).rules;
    let [memory, crowded, broken, busy, full, throttled, mute, errors, idle] = rules.as_slice() else { panic!("{rules:?}") };
    let secs = Duration::from_secs;
    let above = Threshold::Above(Amount::Percent(85.0));
    assert_eq!(memory.when, Condition::Usage { usage: Usage::Memory, threshold: above, during: secs(30) });
    assert_eq!(memory.until.as_ref().unwrap().threshold, Threshold::Below(Amount::Percent(75.0)));
    assert_eq!(
        (memory.actions.as_slice(), memory.undo.as_slice()),
        (&[Action::Shed, Action::Run("throttle".into())][..], &["unthrottle".to_owned()][..])
    );
    assert_eq!(memory.budget.as_ref().map(|b| (b.pods, b.every)), Some((1, secs(300))));
    let name = "redis_connected_clients".to_owned();
    assert_eq!(crowded.when, Condition::Metric { name, rate: None, threshold: Threshold::Above(1000.5), during: Duration::ZERO });
    let causes = vec![Start::Crash, Start::OOMKilled];
    assert_eq!(broken.when, Condition::Cause { causes, times: 3, within: secs(600) });
    let Condition::Usage { threshold, .. } = &busy.when else { panic!("{busy:?}") };
    assert_eq!(*threshold, Threshold::Above(Amount::Absolute(1.5)));
    let cpu = Growth { by: Stride::Absolute(500), max: 4000 };
    let memory = Growth { by: Stride::Percent(25), max: 3 << 29 };
    assert_eq!(busy.actions, [Action::Resize([(Resource::Cpu, cpu), (Resource::Memory, memory)].into())]);
    let above = Threshold::Above(Amount::Percent(90.0));
    assert_eq!(full.when, Condition::Usage { usage: Usage::Disk, threshold: above, during: secs(300) });
    let above = Threshold::Above(Amount::Percent(25.0));
    assert_eq!(throttled.when, Condition::Usage { usage: Usage::Throttling, threshold: above, during: secs(60) });
    assert_eq!(mute.when, Condition::Absent { name: "redis_connected_clients".into(), during: secs(120) });
    let (name, rate, threshold) = ("redis_errors_total".to_owned(), Some(secs(300)), Threshold::Above(0.5));
    assert_eq!(errors.when, Condition::Metric { name, rate, threshold, during: Duration::ZERO });
    let Condition::Usage { threshold, .. } = &idle.when else { panic!("{idle:?}") };
    assert_eq!(*threshold, Threshold::Below(Amount::Absolute(536_870_912.0)));
}

#[test]
fn tasks_traffic_and_updates_are_read_as_they_are_written() {
    let policy = accepted(WHOLE);
    let schedule = |cron: &str, zone: &str| Some(Schedule { cron: cron.into(), time_zone: zone.into() });
    assert_eq!(policy.tasks["nightly"].schedule, schedule("0 3 * * *", "Europe/Paris"));
    assert_eq!(policy.tasks["hourly"].schedule, schedule("0 * * * *", "UTC"));
    assert_eq!(policy.tasks["hourly"].hook.target, Some(Target::Any), "a time is about no pod");
    assert_eq!(policy.tasks["throttle"].hook.target, None, "a rule is about a pod");
    assert_eq!(policy.traffic.unwrap().services, ["redis-clients"]);
    let update = policy.update.unwrap();
    assert_eq!(update.last, Some(Target::Role("primary".into())));
    assert_eq!(update.window, Some(Window { days: vec![5, 6], start: 22 * 60, end: 5 * 60, time_zone: "UTC".into() }));
    for (text, days) in [("Fri-Mon ", vec![0, 4, 5, 6]), ("", vec![0, 1, 2, 3, 4, 5, 6]), ("Mon,Mon ", vec![0])] {
        let policy = accepted(&format!("{HEAD}update: {{strategy: guarded, window: \"{text}00:00-24:00 Europe/Paris\"}}"));
        assert_eq!(policy.update.unwrap().window.unwrap().days, days, "{text}");
    }
}

#[test]
fn what_is_not_acted_on_yet_is_named_and_nothing_else() {
    let expected = [
        "hooks.position",
        "hooks.restart",
        "hooks.leave",
        "hooks.beforeUpdate",
        "hooks.afterUpdate",
        "hooks.shutdown",
        "hooks.freeze",
        "hooks.thaw",
        "rules[1].do[1]",
        "tasks.hourly.schedule",
        "tasks.nightly.schedule",
        "update",
    ];
    let policy = accepted(WHOLE);
    assert_eq!(policy.not_yet_active, expected);
    let warnings: Vec<String> = policy.warnings().collect();
    assert_eq!(warnings[0], "NotYetActive: hooks.position is checked, and not acted on by this version");
    assert!(warnings.iter().all(|w| w.len() < 200), "the API server cuts longer ones");
    let waits = accepted(&format!("{HEAD}readyAfter: join\nhooks: {{rejoin: {{command: [a]}}}}"));
    let expected = "without hooks.join nothing runs at the first start of a pod, so there readyAfter waits its 60 s";
    assert_eq!(waits.warnings().collect::<Vec<_>>(), [expected]);

    let active = "protect: {priorityClassName: a, override: true, minReplicas: 1, deletion: deny, spread: [zone], disruptionBudget: true, quorum: majority}\n\
        inject: {initOrder: last, ownPreStop: replace}\nrules: []\nmetrics: [{name: a, type: gauge, command: [a]}]\ntasks: {now: {command: [a]}}\n\
        hooks: {init: {command: [a]}, rejoin: {command: [a], target: self, when: ready, onFailure: recreate}, bootstrap: {command: [a]}, join: {command: [a]}, postMortem: {command: [a]}, preStop: {command: [a]}}";
    assert_eq!(accepted(&format!("{HEAD}{active}")).not_yet_active, Vec::<String>::new());
}

#[test]
fn metrics_are_read_as_they_are_written() {
    let policy = accepted(WHOLE);
    let [metric, _] = policy.metrics.as_slice() else { panic!("{:?}", policy.metrics) };
    assert_eq!((metric.kind, metric.every, metric.probe.timeout), (MetricKind::Gauge, Duration::from_secs(30), DEFAULT_TIMEOUT));
    assert_eq!((metric.labels.as_slice(), metric.on.as_deref()), (&["db".to_owned()][..], Some("primary")));
    let plain = accepted(&format!("{HEAD}metrics: [{{name: a, type: counter, command: [a]}}]")).metrics.remove(0);
    assert_eq!((plain.every, plain.labels.len(), plain.on.as_deref()), (Duration::from_secs(15), 0, None));
}

#[test]
fn fifty_metrics_are_enough() {
    let metrics = |n: usize| (0..n).map(|n| format!("- {{name: m{n}, type: gauge, command: [a]}}\n")).collect::<String>();
    assert_eq!(accepted(&format!("{HEAD}metrics:\n{}", metrics(50))).metrics.len(), 50);
    let message = message(&format!("{HEAD}metrics:\n{}", metrics(51)));
    assert_eq!(message, "policy.yaml:54:3: metrics: 51 metrics are too many: at most 50 are allowed");
}

#[test]
fn two_hundred_rules_are_enough() {
    let rules =
        |n: usize| (0..n).map(|n| format!("- {{name: r{n}, when: {{cause: [Crash]}}, do: [recreate]}}\n")).collect::<String>();
    assert_eq!(accepted(&format!("{HEAD}rules:\n{}", rules(200))).rules.len(), 200);
    let message = message(&format!("{HEAD}rules:\n{}", rules(201)));
    assert_eq!(message, "policy.yaml:4:3: rules: 201 rules are too many: at most 200 are allowed");
}

#[test]
fn what_an_agent_cannot_ask_is_named_and_nothing_else() {
    let asked = "container: redis\nrole: {command: [a], container: redis}\nmetrics: [{name: keys, type: gauge, command: [a]}]\n";
    assert_eq!(accepted(&format!("{HEAD}collect: agent\n{asked}")).warnings().count(), 0);
    let elsewhere = "collect: agent\nmetrics: [{name: lag, type: gauge, command: [a], container: proxy}]\n\
        rules: [{name: full, when: {usage: memory, above: 85%}, do: [{run: now}]}]\ntasks: {now: {command: [a]}}\n";
    let expected = [
        "the metric lag has a container of its own, where it is asked by exec: collect: agent asks in `container`",
        "a sidecar does not see what the application uses: for rules on usage pods are asked by exec, also with collect: agent",
    ];
    assert_eq!(accepted(&format!("{HEAD}{elsewhere}")).warnings().collect::<Vec<_>>(), expected);
    assert_eq!(accepted(&format!("{HEAD}{elsewhere}").replace("collect: agent", "collect: exec")).warnings().count(), 0);
}
