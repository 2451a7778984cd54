use std::collections::VecDeque;

use futures::FutureExt as _;
use futures::StreamExt as _;
use futures::future::BoxFuture;
use guardian_hook::protocol::{Collect, Outcome, PROTOCOL, RunResult, Sample, Tail};

use super::*;
use crate::controller::{Notice, Order};

/// A pod that answers: after how long, and what.
type Word = (Duration, Result<&'static str, fn() -> ExecError>);

/// The runners: the words of each pod, one after the other, the last again and again; and who was asked when.
#[derive(Default)]
struct Pods {
    words: Mutex<BTreeMap<String, VecDeque<Word>>>,
    asked: Mutex<Vec<(Instant, String)>>,
    at_once: Mutex<BTreeMap<String, (usize, usize)>>,
}

impl Exec for Pods {
    fn run<'a>(&'a self, _: &'a Order) -> BoxFuture<'a, Result<Outcome, ExecError>> {
        unreachable!("roles start no hook")
    }

    fn collect<'a>(&'a self, questions: &'a Questions) -> BoxFuture<'a, Result<Vec<Collected>, ExecError>> {
        let (pod, namespace) = (questions.pod.clone(), questions.namespace.clone());
        self.asked.lock().unwrap().push((Instant::now(), pod.clone()));
        let (takes, word) = {
            let mut all = self.words.lock().unwrap();
            let words = all.entry(pod).or_insert_with(|| [(Duration::from_millis(55), Ok("replica"))].into());
            if words.len() > 1 { words.pop_front().unwrap() } else { *words.front().unwrap() }
        };
        async move {
            let count = |by: isize| {
                let mut all = self.at_once.lock().unwrap();
                let (now, most) = all.entry(namespace.clone()).or_default();
                *now = now.checked_add_signed(by).unwrap();
                *most = (*most).max(*now);
            };
            count(1);
            tokio::time::sleep(takes).await;
            count(-1);
            let text = word.map_err(|error| error())?;
            let (stdout, result) = (Tail { text: text.to_owned(), dropped: 0 }, RunResult::Exited { code: 0 });
            let sample = Sample { name: "role".to_owned(), result, duration_ms: 1, stdout, stderr: Tail::default() };
            Ok(vec![Collected::Probe(sample)])
        }
        .boxed()
    }

    fn tell<'a>(&'a self, _: &'a Notice) -> BoxFuture<'a, Result<(), ExecError>> {
        Box::pin(async { Ok(()) })
    }
}

struct Stage {
    pods: Arc<Pods>,
    roles: Roles,
}

fn set(namespace: &str) -> SetKey {
    SetKey { namespace: namespace.to_owned(), name: "redis".to_owned() }
}

fn asking(namespace: &str, pod: &str) -> Asking {
    let request = Collect { version: PROTOCOL, pod_uid: pod.to_owned(), probes: Vec::new(), every_ms: 0 };
    let (namespace, container) = (namespace.to_owned(), "redis".to_owned());
    let questions = Questions { namespace, pod: pod.to_owned(), container, request };
    Asking { questions: Some(questions), every: Duration::from_secs(5) }
}

impl Stage {
    fn new() -> Self {
        let pods: Arc<Pods> = Arc::default();
        let clock = Clock::simulated(jiff::Timestamp::UNIX_EPOCH);
        let metrics = Metrics::new(&Registry::new()).unwrap();
        Self { roles: Roles::new(Arc::clone(&pods) as Arc<dyn Exec>, clock, metrics), pods }
    }

    fn says(&self, pod: &str, words: impl IntoIterator<Item = Word>) {
        self.pods.words.lock().unwrap().insert(pod.to_owned(), words.into_iter().collect());
    }

    fn keep(&self, namespace: &str, pods: &[&str]) {
        let pods = pods.iter().map(|pod| ((*pod).to_owned(), asking(namespace, pod))).collect();
        self.roles.keep(&set(namespace), pods);
    }

    /// Lets it go on for so long; says how often each set had news.
    async fn go_on(&self, time: Duration) -> BTreeMap<String, usize> {
        let (heard, news) = mpsc::channel(1024);
        tokio::select! {
            () = self.roles.drive(heard) => {}
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
        Some(self.roles.inner().pods.get(&(set("shop"), pod.to_owned()))?.witness.clone())
    }

    /// The seconds at which a pod was asked.
    fn asked(&self, since: Instant, pod: &str) -> Vec<u64> {
        let asked = self.pods.asked.lock().unwrap();
        asked.iter().filter(|(_, who)| who == pod).map(|(at, _)| at.duration_since(since).as_secs()).collect()
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
    assert_eq!(stage.roles.metrics.skipped.get(), 2);
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
    assert!(stage.roles.metrics.skipped.get() > 2000, "{}", stage.roles.metrics.skipped.get());
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
    let stopped = Asking { questions: None, ..asking("shop", "a") };
    stage.roles.keep(&set("shop"), [("a".to_owned(), stopped)].into());
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
    stage.roles.hurry(&set("shop"));
    let halfway = async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        stage.roles.hurry(&set("shop"));
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
    let inner = stage.roles.inner();
    assert!(inner.pods.is_empty());
    assert!(inner.lanes.values().all(|lane| lane.waiting.is_empty()));
}
