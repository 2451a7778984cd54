//! What is served of what was read.

use std::collections::BTreeSet;
use std::slice::from_ref;
use std::sync::Arc;

use guardian_hook::protocol::Usage;
use jiff::Timestamp;
use proptest::prelude::*;

use super::*;

/// What is served, of a set in `shop` unless it says otherwise, and the time of its story in seconds.
#[derive(Default)]
struct Shop {
    served: Served,
    second: i64,
}

fn wanted(policy: &str, metrics: &[Metric], pods: &[&str]) -> Wanted {
    let names = metrics.iter().map(|m| m.name.clone());
    let pod = |name: &str| WantedPod { name: name.into(), metrics: names.clone().collect(), containers: ["redis".into()].into() };
    Wanted {
        policy: policy.into(),
        metrics: metrics.iter().map(|m| (m.name.clone(), Arc::new(m.clone()))).collect(),
        windows: BTreeMap::new(),
        pods: pods.iter().map(|&name| (format!("uid-{name}"), pod(name))).collect(),
    }
}

impl Shop {
    fn now(&self) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + self.second).unwrap()
    }

    fn keep(&mut self, set: &str, wanted: Wanted) {
        self.served.keep("shop", set, wanted);
    }

    fn prints(&mut self, set: &str, pod: &str, metric: &Metric, output: &str) -> bool {
        let answer = judge(metric, &sample(output, 0, RunResult::Exited { code: 0 }));
        self.answers(set, pod, &metric.name, answer)
    }

    fn answers(&mut self, set: &str, pod: &str, metric: &str, answer: Result<Reading, Failure>) -> bool {
        let (pod_uid, now) = (format!("uid-{pod}"), self.now());
        let place = Place { namespace: "shop", set, pod_uid: &pod_uid };
        self.served.take(place, metric, answer, Duration::from_millis(250), now)
    }

    fn text(&self) -> String {
        let text = self.served.text(self.now());
        check(&text);
        text
    }

    /// The lines of one family.
    fn lines(&self, family: &str) -> Vec<String> {
        let text = self.text();
        let of = |line: &&str| line.strip_prefix(family).is_some_and(|rest| rest.starts_with('{'));
        text.lines().filter(of).map(|line| line.strip_prefix(family).unwrap().to_owned()).collect()
    }
}

/// It is the text format as Prometheus reads it: HELP and TYPE once for each family, before its lines and all of these together; no series twice.
fn check(text: &str) {
    let mut families = BTreeSet::new();
    let mut all = BTreeSet::new();
    let mut family = String::new();
    assert!(text.is_empty() || text.ends_with('\n'));
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let name = rest.split(' ').next().unwrap();
            assert!(families.insert(name.to_owned()), "{name} twice");
            let kind = lines.next().and_then(|line| line.strip_prefix(&format!("# TYPE {name} "))).unwrap_or_default();
            assert!(["gauge", "counter"].contains(&kind), "{line}");
            family = name.to_owned();
            continue;
        }
        // Our own reader knows the format; the names of the labels are taken from the line itself.
        let rest = line.strip_prefix(&family).unwrap_or_else(|| panic!("{line:?} stands under {family}"));
        let mut names: Vec<String> = Vec::new();
        let (mut quoted, mut escaped, mut name) = (false, false, String::new());
        for c in rest.chars() {
            match (quoted, c) {
                (true, '\\') if !escaped => escaped = true,
                (true, '"') if !escaped => quoted = false,
                (true, _) => escaped = false,
                (false, '"') => quoted = true,
                (false, '=') => names.push(std::mem::take(&mut name)),
                (false, '{' | ',') => name.clear(),
                (false, _) => name.push(c),
            }
        }
        let own = metric(&family, &names.iter().map(String::as_str).collect::<Vec<_>>());
        let series = parse(&own, line).unwrap_or_else(|why| panic!("{line:?}: {why}")).series;
        let (values, _) = series.first_key_value().unwrap();
        let mut labels: Vec<_> = names.into_iter().zip(values.clone()).collect();
        labels.sort();
        assert!(all.insert((family.clone(), labels)), "{line:?} twice");
    }
}

#[test]
fn values_are_served_with_help_and_type_and_what_is_known_of_their_commands() {
    let mut shop = Shop::default();
    let keys = Metric { help: "Keys,\nby \\ db".into(), ..metric("redis_keys", &["db"]) };
    let runs = Metric { kind: MetricKind::Counter, ..metric("redis_commands_total", &[]) };
    shop.keep("redis", wanted("redis-policy", &[keys.clone(), runs.clone()], &["redis-0", "redis-1"]));
    assert_eq!(shop.text().lines().filter(|line| !line.starts_with("guardian_metric_series_dropped{")).count(), 2, "nothing yet");
    assert!(!shop.prints("redis", "redis-1", &keys, "db0 5\na\"b\\ 1e21\n"));
    assert!(!shop.prints("redis", "redis-0", &runs, "17"));
    assert!(shop.prints("redis", "redis-0", &keys, "db0 x"));
    let expected = r#"# HELP guardian_metric_duration_seconds How long the last run of the command of a metric took in a pod
# TYPE guardian_metric_duration_seconds gauge
guardian_metric_duration_seconds{namespace="shop",set="redis",pod="redis-0",metric="redis_commands_total"} 0.25
guardian_metric_duration_seconds{namespace="shop",set="redis",pod="redis-0",metric="redis_keys"} 0.25
guardian_metric_duration_seconds{namespace="shop",set="redis",pod="redis-1",metric="redis_keys"} 0.25
# HELP guardian_metric_runs_total Runs of the command of a metric, by how they ended
# TYPE guardian_metric_runs_total counter
guardian_metric_runs_total{namespace="shop",set="redis",metric="redis_commands_total",result="succeeded"} 1
guardian_metric_runs_total{namespace="shop",set="redis",metric="redis_keys",result="succeeded"} 1
guardian_metric_runs_total{namespace="shop",set="redis",metric="redis_keys",result="malformed"} 1
# HELP guardian_metric_series_dropped Series that are measured and not served, because they are over a bound, or in conflict with the type that another policy gives the metric
# TYPE guardian_metric_series_dropped gauge
guardian_metric_series_dropped{namespace="shop",set="redis",reason="bound"} 0
guardian_metric_series_dropped{namespace="shop",set="redis",reason="conflict"} 0
# HELP guardian_metric_up 1 while the last run of the command of a metric in a pod was in order, is not stale, and is served
# TYPE guardian_metric_up gauge
guardian_metric_up{namespace="shop",set="redis",pod="redis-0",metric="redis_commands_total"} 1
guardian_metric_up{namespace="shop",set="redis",pod="redis-0",metric="redis_keys"} 0
guardian_metric_up{namespace="shop",set="redis",pod="redis-1",metric="redis_keys"} 1
# HELP redis_commands_total Measured by a command of a policy
# TYPE redis_commands_total counter
redis_commands_total{namespace="shop",set="redis",pod="redis-0"} 17
# HELP redis_keys Keys,\nby \\ db
# TYPE redis_keys gauge
redis_keys{namespace="shop",set="redis",pod="redis-1",db="a\"b\\"} 1e21
redis_keys{namespace="shop",set="redis",pod="redis-1",db="db0"} 5
"#;
    assert_eq!(shop.text(), expected);
    assert_eq!(shop.text(), expected, "the same again");
}

#[test]
fn a_value_is_served_for_three_intervals_and_at_least_fifteen_seconds() {
    let often = Metric { every: Duration::from_secs(1), ..metric("often", &[]) };
    let seldom = Metric { every: Duration::from_secs(60), ..metric("seldom", &[]) };
    let mut shop = Shop::default();
    shop.keep("redis", wanted("p", &[often.clone(), seldom.clone()], &["redis-0"]));
    shop.prints("redis", "redis-0", &often, "1");
    shop.prints("redis", "redis-0", &seldom, "2");
    for (second, served) in [(15, (1, 1)), (16, (0, 1)), (180, (0, 1)), (181, (0, 0))] {
        shop.second = second;
        let up = shop.lines("guardian_metric_up").iter().filter(|line| line.ends_with(" 1")).count();
        assert_eq!((shop.lines("often").len(), shop.lines("seldom").len()), served, "{second}");
        assert_eq!(up, served.0 + served.1, "{second}");
    }
    // A bad answer takes no value away that is not stale, and does not make it fresh.
    shop.prints("redis", "redis-0", &often, "3");
    shop.second += 10;
    assert!(shop.prints("redis", "redis-0", &often, "NaN"));
    assert!(!shop.prints("redis", "redis-0", &often, "NaN"), "the same is no news");
    assert_eq!(shop.lines("often"), ["{namespace=\"shop\",set=\"redis\",pod=\"redis-0\"} 3"]);
    assert!(shop.lines("guardian_metric_up").iter().all(|line| line.ends_with(" 0")));
    shop.second += 6;
    assert_eq!(shop.lines("often"), Vec::<String>::new());
    assert!(shop.prints("redis", "redis-0", &often, "4"), "that it is over is news");
    assert_eq!(shop.lines("often").len(), 1);
}

#[test]
fn what_goes_away_is_served_no_more_at_once() {
    let (a, b) = (metric("a", &[]), metric("b", &[]));
    let mut shop = Shop::default();
    let measured = |shop: &mut Shop| {
        shop.keep("redis", wanted("p", &[a.clone(), b.clone()], &["redis-0", "redis-1"]));
        for (pod, metric) in [("redis-0", &a), ("redis-0", &b), ("redis-1", &a), ("redis-1", &b)] {
            shop.prints("redis", pod, metric, "1");
        }
        assert_eq!((shop.lines("a").len(), shop.lines("b").len(), shop.lines("guardian_metric_up").len()), (2, 2, 4));
    };
    measured(&mut shop);
    shop.keep("redis", wanted("p", &[a.clone(), b.clone()], &["redis-0"]));
    assert_eq!((shop.lines("a").len(), shop.lines("b").len(), shop.lines("guardian_metric_up").len()), (1, 1, 2), "a pod");
    measured(&mut shop);
    shop.keep("redis", wanted("p", from_ref(&a), &["redis-0", "redis-1"]));
    assert_eq!((shop.lines("a").len(), shop.lines("b").len(), shop.lines("guardian_metric_up").len()), (2, 0, 2), "a metric");
    assert_eq!(shop.lines("guardian_metric_runs_total").len(), 1);
    measured(&mut shop);
    let changed = Metric { labels: vec!["db".into()], ..a.clone() };
    shop.keep("redis", wanted("p", &[changed, b.clone()], &["redis-0", "redis-1"]));
    assert_eq!((shop.lines("a").len(), shop.lines("b").len()), (0, 2), "one that has other labels now");
    shop.keep("redis", Wanted::default());
    assert_eq!(shop.text(), "", "the set");
    assert!(!shop.prints("redis", "redis-0", &a, "1"), "an answer that comes late");
    assert_eq!(shop.text(), "");
}

#[test]
fn what_is_over_a_bound_is_dropped_and_counted_and_the_rest_is_served() {
    let keys = metric("keys", &["db"]);
    let lines = |n: usize| (0..n).map(|n| format!("{n:03} 1\n")).collect::<String>();
    let mut shop = Shop::default();
    let names: Vec<String> = (0..12).map(|n| format!("redis-{n:02}")).collect();
    let pods: Vec<&str> = names.iter().map(String::as_str).collect();
    shop.keep("redis", wanted("p", from_ref(&keys), &pods));
    shop.prints("redis", pods[0], &keys, &lines(130));
    assert_eq!(shop.lines("keys").len(), MAX_SERIES);
    let dropped = |shop: &Shop| shop.lines("guardian_metric_series_dropped").remove(0);
    assert!(dropped(&shop).ends_with("reason=\"bound\"} 30"), "{}", dropped(&shop));
    for pod in &pods {
        shop.prints("redis", pod, &keys, &lines(90));
    }
    assert_eq!(shop.lines("keys").len(), MAX_SERIES_OF_SET);
    assert!(dropped(&shop).ends_with("} 80"), "12 times 90 are 1080: {}", dropped(&shop));
    assert!(shop.lines("guardian_metric_up").iter().all(|line| line.ends_with(" 1")), "they are in order");
    // There is no more room for a set that has it all already, and there is for one that answers with less.
    shop.prints("redis", pods[0], &keys, &lines(10));
    for pod in &pods {
        shop.prints("redis", pod, &keys, &lines(80));
    }
    assert_eq!((shop.lines("keys").len(), dropped(&shop).ends_with("} 0")), (960, true));
}

#[test]
fn one_namespace_takes_a_quarter_of_all_room_and_never_more() {
    let keys = metric("keys", &["db"]);
    let text = (0..100).map(|n| format!("{n} 1\n")).collect::<String>();
    let mut served = Served::default();
    let now = Timestamp::from_second(0).unwrap();
    let answer = judge(&keys, &sample(&text, 0, RunResult::Exited { code: 0 })).unwrap();
    for namespace in 0..6 {
        for set in 0..6 {
            let (namespace, set) = (format!("n{namespace}"), format!("s{set}"));
            let names: Vec<String> = (0..10).map(|n| format!("{set}-{n}")).collect();
            served.keep(&namespace, &set, wanted("p", from_ref(&keys), &names.iter().map(String::as_str).collect::<Vec<_>>()));
            for name in &names {
                let uid = format!("uid-{name}");
                let place = Place { namespace: &namespace, set: &set, pod_uid: &uid };
                served.take(place, "keys", Ok(answer.clone()), Duration::ZERO, now);
            }
        }
    }
    let text = served.text(now);
    check(&text);
    let of = |namespace: &str| text.lines().filter(|line| line.starts_with(&format!("keys{{namespace=\"{namespace}"))).count();
    assert_eq!((of("n0"), of("n"), of("n5")), (MAX_SERIES_OF_NAMESPACE, MAX_SERIES_IN_ALL, 0));
    assert!(text.len() < MAX_SERIES_IN_ALL * 200, "{} bytes", text.len());
}

#[test]
fn of_policies_that_disagree_the_first_by_name_says_type_and_help() {
    let gauge = Metric { help: "of a".into(), ..metric("keys", &[]) };
    let counter = Metric { kind: MetricKind::Counter, help: "of b".into(), ..metric("keys", &[]) };
    let other_help = Metric { help: "of c".into(), ..metric("keys", &[]) };
    let mut shop = Shop::default();
    // The order of the names of the sets is another.
    for (set, policy, metric) in [("x", "b", &counter), ("y", "c", &other_help), ("z", "a", &gauge)] {
        shop.keep(set, wanted(policy, from_ref(metric), &["pod-0"]));
        shop.prints(set, "pod-0", metric, "1");
    }
    let text = shop.text();
    assert!(text.contains("# HELP keys of a\n# TYPE keys gauge\n"), "{text}");
    assert_eq!(shop.lines("keys").len(), 2, "that of another help is served");
    let up = shop.lines("guardian_metric_up");
    assert_eq!(up.iter().map(|line| line.ends_with(" 1")).collect::<Vec<_>>(), [false, true, true]);
    let dropped = shop.lines("guardian_metric_series_dropped");
    assert!(dropped[1].contains("set=\"x\",reason=\"conflict\"} 1"), "{dropped:?}");
    shop.keep("z", Wanted::default());
    assert!(shop.text().contains("# HELP keys of b\n# TYPE keys counter\nkeys{namespace=\"shop\",set=\"x\""), "{}", shop.text());
}

#[test]
fn what_containers_use_is_served_as_far_as_it_is_told() {
    let mut shop = Shop::default();
    shop.keep("redis", wanted("", &[], &["redis-0"]));
    let usage = Usage {
        memory_bytes: Some(300),
        reclaimable_bytes: Some(100),
        memory_limit_bytes: Some(1000),
        cpu_usage_us: Some(1_500_000),
        cpu_limit_millis: None,
        throttled_us: Some(20),
        disk_bytes: Some(5000),
        disk_limit_bytes: Some(9000),
    };
    let place = Place { namespace: "shop", set: "redis", pod_uid: "uid-redis-0" };
    shop.served.takes_usage(place, "redis", usage, Duration::from_secs(15), shop.now());
    let text = shop.text();
    let lines: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
    let labels = "{namespace=\"shop\",set=\"redis\",pod=\"redis-0\",container=\"redis\"}";
    let expected = [
        "cpu_seconds_total 1.5",
        "cpu_throttled_seconds_total 0.00002",
        "disk_bytes 5000",
        "disk_limit_bytes 9000",
        "memory_bytes 200",
        "memory_limit_bytes 1000",
        "memory_reclaimable_bytes 100",
    ];
    let expected = expected.map(|line| format!("guardian_container_{}", line.replace(' ', &format!("{labels} "))));
    assert_eq!(lines, expected);
    shop.second = 46;
    assert_eq!(shop.text(), "", "stale");
}

proptest! {
    /// Whatever commands print, what is served is valid, and nobody panics.
    #[test]
    fn whatever_is_printed_the_text_is_valid(
        outputs in prop::collection::vec(("[a-z]{1,3}", prop_oneof![
            any::<String>(),
            "([a-z\"\\\\{}=, ]{0,12} -?[0-9.eE+]{1,6}\n){0,4}",
            "(keys\\{db=\"([^\"\\\\\n]|\\\\[\\\\n\"]){0,6}\"\\} [0-9]{1,3}\n){0,4}",
        ]), 0..8),
        help in any::<String>(),
        labelled in any::<bool>(),
    ) {
        let keys = Metric { help, ..metric("keys", if labelled { &["db"] } else { &[] }) };
        let mut shop = Shop::default();
        let pods: Vec<&str> = outputs.iter().map(|(pod, _)| pod.as_str()).collect();
        shop.keep("redis", wanted("p", from_ref(&keys), &pods));
        for (pod, output) in &outputs {
            shop.prints("redis", pod, &keys, output);
        }
        shop.text();
    }
}
