use std::collections::VecDeque;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use guardian_core::policy::MetricKind;
use guardian_core::role::Witness;
use guardian_hook::protocol::{Outcome, Program, RunResult, Tail};

use super::queue::AT_ONCE_PER_NAMESPACE;
use super::*;
use crate::controller::exec::{Heard, Questions};
use crate::controller::{Notice, Order};

/// A pod that answers: after how long, and what.
type Word = (Duration, Result<&'static str, fn() -> ExecError>);

/// The runners: the words of each pod, one after the other, the last again and again; and who was asked when, and what.
#[derive(Default)]
struct Pods {
    words: Mutex<BTreeMap<String, VecDeque<Word>>>,
    /// How long the commands of metrics take, by name; 10 ms the others.
    takes: Mutex<BTreeMap<String, Duration>>,
    asked: Mutex<Vec<(Instant, String)>>,
    rounds: Mutex<Vec<(Instant, Vec<String>)>>,
    at_once: Mutex<BTreeMap<String, (usize, usize)>>,
}

impl Exec for Pods {
    fn run<'a>(&'a self, _: &'a Order) -> BoxFuture<'a, Result<Outcome, ExecError>> {
        unreachable!("roles start no hook")
    }

    fn collect<'a>(&'a self, questions: &'a Questions, heard: Heard<'a>) -> BoxFuture<'a, Result<(), ExecError>> {
        let names = questions.request.probes.iter().map(|probe| probe.name.clone()).collect();
        self.rounds.lock().unwrap().push((Instant::now(), names));
        async move {
            self.count(&questions.namespace, 1);
            let answered = self.answer(questions, heard).await;
            self.count(&questions.namespace, -1);
            answered
        }
        .boxed()
    }

    fn read<'a>(&'a self, _: SocketAddr, _: Heard<'a>) -> BoxFuture<'a, Result<(), ExecError>> {
        unreachable!("no pod has an agent")
    }

    fn tell<'a>(&'a self, _: &'a Notice) -> BoxFuture<'a, Result<(), ExecError>> {
        Box::pin(async { Ok(()) })
    }
}

impl Pods {
    async fn answer(&self, questions: &Questions, heard: Heard<'_>) -> Result<(), ExecError> {
        for probe in &questions.request.probes {
            let (takes, text) = if probe.name == "role" {
                let (takes, word) = self.word(&questions.pod);
                tokio::time::sleep(takes).await;
                (takes, word.map_err(|error| error())?)
            } else {
                let takes = self.takes.lock().unwrap().get(&probe.name).copied().unwrap_or(Duration::from_millis(10));
                tokio::time::sleep(takes).await;
                (takes, "1")
            };
            let (stdout, result) = (Tail { text: text.to_owned(), dropped: 0 }, RunResult::Exited { code: 0 });
            let duration_ms = u64::try_from(takes.as_millis()).unwrap();
            heard(Collected::Probe(Sample {
                name: probe.name.clone(),
                result,
                duration_ms,
                stdout,
                stderr: Tail::default(),
                age_ms: None,
            }));
        }
        Ok(())
    }

    /// The next word of a pod, which is asked for its role now.
    fn word(&self, pod: &str) -> Word {
        self.asked.lock().unwrap().push((Instant::now(), pod.to_owned()));
        let mut all = self.words.lock().unwrap();
        let words = all.entry(pod.to_owned()).or_insert_with(|| [(SOON, Ok("replica"))].into());
        if words.len() > 1 { words.pop_front().unwrap() } else { *words.front().unwrap() }
    }

    fn count(&self, namespace: &str, by: isize) {
        let mut all = self.at_once.lock().unwrap();
        let (now, most) = all.entry(namespace.to_owned()).or_default();
        *now = now.checked_add_signed(by).unwrap();
        *most = (*most).max(*now);
    }
}

struct Stage {
    pods: Arc<Pods>,
    collector: Collector,
}

fn set(namespace: &str) -> SetKey {
    SetKey { namespace: namespace.to_owned(), name: "redis".to_owned() }
}

fn probe() -> Probe {
    Probe { program: Program::Command(vec!["a".to_owned()]), container: None, timeout: Duration::from_secs(30) }
}

/// The role every 5 s, and these metrics every so many seconds.
fn asking(pod: &str, metrics: &[(&str, u64)]) -> Asking {
    let role = Subject::Role(Arc::new(Role { probe: probe(), every: Duration::from_secs(5) }));
    let metric = |(name, every): &(&str, u64)| {
        let (kind, every) = (MetricKind::Gauge, Duration::from_secs(*every));
        let (help, labels) = (String::new(), Vec::new());
        Subject::Metric(Arc::new(Metric { name: (*name).to_owned(), kind, help, probe: probe(), every, labels, on: None }))
    };
    let subjects = [role].into_iter().chain(metrics.iter().map(metric)).collect();
    Asking { pod: pod.to_owned(), runs: true, env: BTreeMap::new(), disk: None, subjects, agent: None }
}

fn container(pod: &str) -> Container {
    Container { pod_uid: pod.to_owned(), name: "redis".to_owned() }
}

impl Stage {
    fn new() -> Self {
        let pods: Arc<Pods> = Arc::default();
        let clock = Clock::simulated(jiff::Timestamp::UNIX_EPOCH);
        let metrics = Metrics::new(&Registry::new()).unwrap();
        let samples = Samples::new(clock.clone());
        Self { collector: Collector::new(Arc::clone(&pods) as Arc<dyn Exec>, clock, samples, metrics), pods }
    }

    fn says(&self, pod: &str, words: impl IntoIterator<Item = Word>) {
        self.pods.words.lock().unwrap().insert(pod.to_owned(), words.into_iter().collect());
    }

    fn keep(&self, namespace: &str, pods: &[&str]) {
        let pods = pods.iter().map(|pod| (container(pod), asking(pod, &[]))).collect();
        self.collector.keep(&set(namespace), None, pods);
    }

    /// Asks the pod `a` for its role, and for these metrics every so many seconds.
    fn measure(&self, metrics: &[(&str, u64)]) {
        self.collector.keep(&set("shop"), None, [(container("a"), asking("a", metrics))].into());
    }

    /// Lets it go on for so long; says how often each set had news.
    async fn go_on(&self, time: Duration) -> BTreeMap<String, usize> {
        let (heard, news) = mpsc::channel(1024);
        tokio::select! {
            () = self.collector.drive(heard) => {}
            () = tokio::time::sleep(time) => {}
        }
        let mut counts = BTreeMap::new();
        news.for_each(|set| {
            *counts.entry(set.namespace).or_default() += 1;
            futures::future::ready(())
        })
        .await;
        counts
    }

    fn witness(&self, pod: &str) -> Option<Witness> {
        let pods = [(0, pod_of(pod))].into();
        self.collector.roles().of(&set("shop"), &pods).remove(&0)
    }

    /// The seconds at which a pod was asked.
    fn asked(&self, since: Instant, pod: &str) -> Vec<u64> {
        let asked = self.pods.asked.lock().unwrap();
        asked.iter().filter(|(_, who)| who == pod).map(|(at, _)| at.duration_since(since).as_secs()).collect()
    }

    /// The seconds of each exec, and what was asked in it.
    fn rounds(&self, since: Instant) -> Vec<String> {
        let rounds = self.pods.rounds.lock().unwrap();
        let words = |(at, names): &(Instant, Vec<String>)| {
            format!("{} {}", at.duration_since(since).as_secs(), names.join(" ").replace("metrics.", ""))
        };
        rounds.iter().map(words).collect()
    }

    fn skipped(&self, kind: &str) -> u64 {
        self.collector.metrics.skipped.with_label_values(&[kind]).get()
    }
}

const SOON: Duration = Duration::from_millis(55);

#[tokio::test(start_paused = true)]
async fn a_pod_is_asked_at_each_interval_and_only_what_is_new_is_told() {
    let (stage, begun) = (Stage::new(), Instant::now());
    stage.says("a", [(SOON, Ok("replica")), (SOON, Ok("replica")), (SOON, Ok("primary 3")), (SOON, Ok(""))]);
    stage.keep("shop", &["a"]);
    assert_eq!(stage.go_on(Duration::from_secs(31)).await, [("shop".to_owned(), 3)].into(), "replica, primary, silence");
    assert_eq!(stage.asked(begun, "a"), [0, 5, 10, 15, 20, 25, 30]);
    let witness = stage.witness("a").unwrap();
    let (claim, heard) = witness.claim.unwrap();
    assert_eq!((claim.role.as_str(), claim.version, heard.as_second()), ("primary", Some(3), 10));
    let silence = witness.silence.unwrap();
    assert_eq!((silence.since.as_second(), silence.why.unwrap().contains("printed nothing")), (15, true));
}

#[tokio::test(start_paused = true)]
async fn intervals_that_pass_during_an_answer_are_skipped_and_counted() {
    let (stage, begun) = (Stage::new(), Instant::now());
    stage.says("a", [(Duration::from_secs(12), Ok("replica")), (SOON, Ok("replica"))]);
    stage.keep("shop", &["a"]);
    stage.go_on(Duration::from_secs(21)).await;
    assert_eq!(stage.asked(begun, "a"), [0, 15, 20]);
    assert_eq!(stage.skipped("role"), 2);
}

#[tokio::test(start_paused = true)]
async fn more_pods_than_can_be_asked_are_asked_less_often_and_never_faster_than_the_pace() {
    let stage = Stage::new();
    let names: Vec<String> = (0..500).map(|n| format!("pod-{n}")).collect();
    stage.keep("shop", &names.iter().map(String::as_str).collect::<Vec<_>>());
    stage.go_on(Duration::from_secs(60)).await;
    let asked = stage.pods.asked.lock().unwrap();
    assert!((2900..=3001).contains(&asked.len()), "50 a second: {}", asked.len());
    let closest = asked.windows(2).map(|two| two[1].0 - two[0].0).min().unwrap();
    assert!(closest >= PACE, "{closest:?}");
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    asked.iter().for_each(|(_, pod)| *counts.entry(pod).or_default() += 1);
    assert!(counts.len() == 500 && counts.values().all(|count| (5..=7).contains(count)), "all alike: {counts:?}");
    assert!(stage.skipped("role") > 2000, "{}", stage.skipped("role"));
}

#[tokio::test(start_paused = true)]
async fn pods_that_hang_in_one_namespace_keep_no_other_waiting() {
    let (stage, begun) = (Stage::new(), Instant::now());
    let names: Vec<String> = (0..200).map(|n| format!("hung-{n}")).collect();
    names.iter().for_each(|name| stage.says(name, [(Duration::from_secs(40), Err((|| ExecError::Cut) as fn() -> ExecError))]));
    stage.keep("hung", &names.iter().map(String::as_str).collect::<Vec<_>>());
    stage.keep("shop", &["a"]);
    stage.go_on(Duration::from_secs(61)).await;
    assert_eq!(stage.asked(begun, "a").len(), 13, "every 5 s");
    assert_eq!(stage.pods.at_once.lock().unwrap()["hung"].1, AT_ONCE_PER_NAMESPACE);
}

#[tokio::test(start_paused = true)]
async fn who_cannot_answer_is_asked_seldom() {
    let denied: fn() -> ExecError =
        || ExecError::Denied(kube::Error::Api(Box::new(kube::core::Status::failure("no", "Forbidden").with_code(403))));
    let (stage, begun) = (Stage::new(), Instant::now());
    stage.says("denied", [(SOON, Err(denied))]);
    let old: fn() -> ExecError = || ExecError::Unsupported;
    stage.says("old", [(SOON, Err(old))]);
    stage.keep("shop", &["denied", "old"]);
    stage.go_on(Duration::from_secs(1300)).await;
    assert_eq!(stage.asked(begun, "denied"), [0, 300, 600, 900, 1200]);
    assert_eq!(stage.asked(begun, "old"), [0, 600, 1200]);
    let silence = stage.witness("old").and_then(|witness| witness.silence).unwrap();
    assert_eq!(silence.why.unwrap(), "the runner of this pod is from before probes: its next template change brings a newer one");
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_does_not_run_is_not_asked_and_is_silent_from_then_on() {
    let (stage, begun) = (Stage::new(), Instant::now());
    stage.keep("shop", &["a"]);
    stage.go_on(Duration::from_secs(7)).await;
    let stopped = Asking { runs: false, ..asking("a", &[]) };
    stage.collector.keep(&set("shop"), None, [(container("a"), stopped)].into());
    stage.go_on(Duration::from_secs(20)).await;
    let witness = stage.witness("a").unwrap();
    let since = witness.silence.unwrap();
    assert_eq!((since.since.as_second(), since.why), (7, None));
    stage.keep("shop", &["a"]);
    stage.go_on(Duration::from_secs(1)).await;
    assert_eq!(stage.asked(begun, "a"), [0, 5, 27]);
    assert_eq!(stage.witness("a").unwrap().silence, None);
}

#[tokio::test(start_paused = true)]
async fn who_is_in_a_hurry_asks_at_once_and_never_twice_at_a_time() {
    let (stage, begun) = (Stage::new(), Instant::now());
    stage.says("a", [(Duration::from_secs(2), Ok("primary"))]);
    stage.keep("shop", &["a"]);
    stage.go_on(Duration::from_secs(3)).await;
    stage.collector.hurry(&set("shop"));
    let halfway = async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        stage.collector.hurry(&set("shop"));
        futures::future::pending::<()>().await;
    };
    tokio::select! {
        () = halfway => {}
        _ = stage.go_on(Duration::from_secs(5)) => {}
    }
    assert_eq!(stage.asked(begun, "a"), [0, 3, 5], "and once more when the answer is there");
    assert_eq!(stage.pods.at_once.lock().unwrap()["shop"].1, 1);
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_is_gone_is_forgotten() {
    let stage = Stage::new();
    stage.keep("shop", &["a", "b"]);
    stage.go_on(Duration::from_millis(10)).await;
    stage.keep("shop", &[]);
    assert!(stage.collector.queue().is_empty());
    stage.go_on(Duration::from_secs(30)).await;
    assert_eq!(stage.pods.asked.lock().unwrap().len(), 1, "one was under way");
}

#[tokio::test(start_paused = true)]
async fn what_is_due_together_goes_in_one_exec_and_what_has_one_interval_stays_together() {
    let (stage, begun) = (Stage::new(), Instant::now());
    stage.measure(&[("x", 10)]);
    stage.go_on(Duration::from_secs(7)).await;
    stage.measure(&[("x", 10), ("y", 10)]);
    stage.go_on(Duration::from_secs(14)).await;
    assert_eq!(stage.rounds(begun), ["0 role x", "5 role", "7 y", "10 role x y", "15 role", "20 role x y"]);
    assert_eq!((stage.skipped("role"), stage.skipped("metric")), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_command_that_hangs_keeps_neither_the_role_nor_the_others_waiting() {
    let (stage, begun) = (Stage::new(), Instant::now());
    stage.pods.takes.lock().unwrap().insert("metrics.hangs".to_owned(), Duration::from_secs(8));
    stage.measure(&[("after", 10), ("hangs", 10), ("late", 10)]);
    stage.go_on(Duration::from_secs(19)).await;
    // What came after it waits once; from then on it is asked alone.
    let expected = ["0 role after hangs late", "5 role", "10 role after late", "10 hangs", "15 role"];
    assert_eq!(stage.rounds(begun), expected);
    stage.pods.takes.lock().unwrap().clear();
    stage.go_on(Duration::from_secs(12)).await;
    let expected = ["20 role after late", "20 hangs", "25 role", "30 role after hangs late"];
    assert_eq!(stage.rounds(begun)[5..], expected, "it is quick again");
}

#[tokio::test(start_paused = true)]
async fn a_command_that_takes_long_is_measured_beside_one_that_hangs() {
    let (stage, begun) = (Stage::new(), Instant::now());
    for (name, takes) in [("metrics.a_hangs", 30), ("metrics.long", 2)] {
        stage.pods.takes.lock().unwrap().insert(name.to_owned(), Duration::from_secs(takes));
    }
    stage.measure(&[("a_hangs", 15), ("long", 15)]);
    stage.go_on(Duration::from_secs(121)).await;
    let long: Vec<String> = stage.rounds(begun).into_iter().filter(|round| round.ends_with("long")).collect();
    assert_eq!(long, ["0 role a_hangs long", "45 long", "60 long", "75 long", "90 long", "105 long", "120 long"]);
}

#[tokio::test(start_paused = true)]
async fn metrics_that_are_late_are_skipped_and_counted() {
    let (stage, begun) = (Stage::new(), Instant::now());
    stage.pods.takes.lock().unwrap().insert("metrics.slow".to_owned(), Duration::from_secs(12));
    stage.measure(&[("slow", 5)]);
    stage.go_on(Duration::from_secs(31)).await;
    let slow: Vec<String> = stage.rounds(begun).into_iter().filter(|round| round.ends_with("slow")).collect();
    assert_eq!(slow, ["0 role slow", "15 slow", "30 slow"]);
    assert_eq!((stage.skipped("role"), stage.skipped("metric")), (0, 4));
    assert_eq!(stage.asked(begun, "a"), [0, 5, 10, 15, 20, 25, 30]);
}

#[tokio::test(start_paused = true)]
async fn commands_that_hang_take_half_of_the_places_of_their_namespace_and_roles_the_others() {
    let (stage, begun) = (Stage::new(), Instant::now());
    stage.pods.takes.lock().unwrap().insert("metrics.hangs".to_owned(), Duration::from_secs(30));
    let names: Vec<String> = (0..40).map(|n| format!("pod-{n:02}")).collect();
    let asked = names.iter().map(|name| (container(name), asking(name, &[("hangs", 30)]))).collect();
    stage.collector.keep(&set("shop"), None, asked);
    stage.go_on(Duration::from_secs(180)).await;
    // The first time nobody knows that they hang: the last of them are found out by 90 s.
    let roles = names.iter().flat_map(|name| stage.asked(begun, name)).filter(|second| *second >= 120).count();
    assert!((470..=481).contains(&roles), "40 pods every 5 s for a minute, whatever hangs: {roles}");
    assert_eq!(stage.pods.at_once.lock().unwrap()["shop"].1, AT_ONCE_PER_NAMESPACE);
}

#[tokio::test(start_paused = true)]
async fn questions_that_do_not_fit_into_one_request_come_in_several() {
    let (stage, begun) = (Stage::new(), Instant::now());
    let script = |n: u8| {
        let text = format!("#!/bin/sh\n{}", "x".repeat(64_000));
        let program = Program::Script { name: "a".to_owned(), text };
        let (kind, every) = (MetricKind::Gauge, Duration::from_secs(15));
        let probe = Probe { program, ..probe() };
        let name = format!("m{n:02}");
        Subject::Metric(Arc::new(Metric { name, kind, help: String::new(), probe, every, labels: Vec::new(), on: None }))
    };
    let subjects = (0..20).map(script).collect();
    stage.collector.keep(&set("shop"), None, [(container("a"), Asking { subjects, ..asking("a", &[]) })].into());
    stage.go_on(Duration::from_secs(1)).await;
    let rounds: Vec<usize> = stage.rounds(begun).iter().map(|round| round.split(' ').count() - 1).collect();
    assert_eq!(rounds, [16, 4], "1 MiB holds 16 of 64 KB");
}

/// The pod as the core sees it; only its uid counts.
fn pod_of(uid: &str) -> guardian_core::lifecycle::Pod {
    guardian_core::lifecycle::Pod {
        name: uid.to_owned(),
        uid: uid.to_owned(),
        version: "1".into(),
        created: jiff::Timestamp::UNIX_EPOCH,
        revision: String::new(),
        ip: None,
        ready: true,
        deleted: None,
        node: None,
        role: None,
        serving: None,
        shed: None,
        toggles: None,
        first_container: "redis".to_owned(),
        containers: BTreeMap::new(),
        agent: None,
        resize: None,
    }
}
