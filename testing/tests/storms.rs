//! Many failures at once: who waits for whom, and what is said of it.

use std::time::Duration;

use guardian_testing::{Answer, Fault, POLICY, Stage};
use tokio::time::{Instant, sleep};

/// Sets of one namespace that fail together.
const MANY: usize = 300;
/// Passes at once.
const PLACES: usize = 16;

/// All first starts are noted.
async fn at_rest(stage: &Stage, crowds: &[(&str, usize)]) {
    crowds.iter().for_each(|(namespace, sets)| stage.crowd(namespace, POLICY, *sets));
    stage.until("all are noted", |s| crowds.iter().all(|(namespace, sets)| s.is_crowd_settled(namespace, *sets))).await;
}

#[tokio::test(start_paused = true)]
async fn a_set_of_another_namespace_has_its_pass_while_hundreds_wait_for_theirs() {
    let stage = Stage::new();
    let script = async {
        at_rest(&stage, &[("storm", MANY), ("aside", 1)]).await;
        // Hooks that are done in a moment: they are not what anybody waits for.
        stage.runner.answer((0..=MANY).map(|_| Answer { takes: Duration::from_millis(10), ..Answer::exit(0) }));
        let (version, calls) = (stage.api.world(|world| world.version()), stage.api.calls().len());
        (0..MANY).for_each(|n| stage.restart_in_crowd("storm", n));
        stage.restart_in_crowd("aside", 0);
        let claims = |s: &Stage| {
            let changes = s.api.world(|world| world.changes_since(version).expect("nobody forgets").to_vec());
            let ledgers = changes.into_iter().map(|change| change.key).filter(|key| key.resource.plural == "configmaps");
            ledgers.map(|key| key.namespace).collect::<Vec<_>>()
        };
        stage
            .until("the one of the other namespace is claimed", |s| claims(s).iter().any(|namespace| namespace == "aside"))
            .await;
        let before = claims(&stage).iter().filter(|namespace| *namespace == "storm").count();
        assert!(before <= 2 * PLACES, "those under way, and one more for each place: {before}");
        stage.until("all are answered", |s| s.is_crowd_settled("storm", MANY) && s.is_crowd_settled("aside", 1)).await;
        stage.assert_silence().await;
        // Nobody's ledger is read or written more often than that of the one which waited for nobody.
        let calls = stage.api.calls().split_off(calls);
        let of = |name: &str| calls.iter().filter(|call| call.name == name && call.kind.ends_with(" configmaps")).count();
        let alone = of("guardian-ledger-redis-0") / 2;
        assert!((1..MANY).all(|n| of(&format!("guardian-ledger-redis-{n}")) == alone), "{alone}: {calls:#?}");
    };
    stage.play(1, script).await;
    assert_eq!(stage.runner.started().len(), MANY + 1, "each once");
}

/// What is said in a namespace of its brake.
fn braked(stage: &Stage, namespace: &str) -> Vec<String> {
    stage.events_in(namespace).into_iter().filter(|event| event.contains(" Braked: ")).collect()
}

/// The reasons that hold sets of the crowd, as their ledgers have them.
fn held(stage: &Stage, namespace: &str, sets: usize) -> Vec<String> {
    (0..sets).flat_map(|n| stage.holds_in_crowd(namespace, n)).collect()
}

/// How many runs wait, and how many namespaces are braked, as it is counted.
fn counted(stage: &Stage) -> [String; 2] {
    ["guardian_waiting_runs", "guardian_braked_namespaces"].map(|metric| stage.counted(metric).concat().trim().to_owned())
}

/// Eight hooks of two seconds run at a time: the last of sixty begins after 14 s.
#[tokio::test(start_paused = true)]
async fn a_storm_is_said_once_when_it_begins_and_once_when_it_is_over_and_each_set_that_waits_says_what_for() {
    const SETS: usize = 60;
    let stage = Stage::new();
    let script = async {
        at_rest(&stage, &[("storm", SETS), ("aside", 1)]).await;
        (0..SETS).for_each(|n| stage.restart_in_crowd("storm", n));
        sleep(Duration::from_secs(9)).await;
        assert_eq!((braked(&stage, "storm").len(), held(&stage, "storm", SETS).len()), (0, 0), "they may be done in a moment");
        sleep(Duration::from_millis(2500)).await;
        let why = "more hooks are due in namespace storm than run at a time (8, and 32 in all), and wait for each other; others are served";
        assert_eq!(braked(&stage, "storm"), [format!("Warning StatefulSet Braked: {why}")]);
        let [waiting, namespaces] = counted(&stage);
        assert_eq!(namespaces, "1");
        let holds = held(&stage, "storm", SETS);
        assert!(holds.iter().all(|reason| reason == "Braked"), "{holds:?}");
        assert_eq!(holds.len().to_string(), waiting, "of each set that waits one");
        assert!(!holds.is_empty() && stage.counted("guardian_held").len() == holds.len());
        // Another namespace notices nothing.
        let started = stage.runner.started().len();
        stage.restart_in_crowd("aside", 0);
        sleep(Duration::from_millis(200)).await;
        assert!(stage.runner.started()[started..].iter().any(|order| order.namespace == "aside"));
        stage.until("all are answered", |s| s.is_crowd_settled("storm", SETS)).await;
        sleep(Duration::from_secs(1)).await;
        assert_eq!(
            (held(&stage, "storm", SETS).len(), counted(&stage)),
            (0, ["0".to_owned(), "1".to_owned()]),
            "it may come back"
        );
        sleep(Duration::from_secs(60)).await;
        let told = braked(&stage, "storm");
        assert_eq!(told.len(), 2, "{told:?}");
        assert!(
            told[0].starts_with("Normal StatefulSet Braked: hooks in namespace storm wait for each other no longer: "),
            "{told:?}"
        );
        assert_eq!((braked(&stage, "aside").len(), counted(&stage)), (0, ["0".to_owned(), "0".to_owned()]));
        stage.assert_silence().await;
    };
    stage.play(1, script).await;
    assert_eq!(stage.runner.started().len(), SETS + 1, "each once");
}

/// The last of forty begins after 8 s.
#[tokio::test(start_paused = true)]
async fn failures_that_are_dealt_with_in_a_moment_are_no_storm_and_nothing_is_said() {
    let stage = Stage::new();
    let script = async {
        at_rest(&stage, &[("storm", 40)]).await;
        (0..40).for_each(|n| stage.restart_in_crowd("storm", n));
        for _ in 0..40 {
            sleep(Duration::from_secs(1)).await;
            assert_eq!((braked(&stage, "storm").len(), held(&stage, "storm", 40).len()), (0, 0));
        }
        assert!(stage.is_crowd_settled("storm", 40));
        stage.assert_silence().await;
    };
    stage.play(1, script).await;
}

/// As where Events are limited, or their own etcd is down.
#[tokio::test(start_paused = true)]
async fn an_api_server_that_is_silent_about_events_keeps_no_hook_waiting() {
    let stage = Stage::new();
    let script = async {
        stage.usual(POLICY);
        stage.until_settled().await;
        for _ in 0..4 {
            stage.api.fail_next("POST events", Fault::Silence);
        }
        let since = Instant::now();
        stage.restart_container(0, "Error", 137);
        stage.restart_container(1, "Error", 137);
        stage.until("both have rejoined", |s| s.runner.started().len() == 2 && s.is_settled()).await;
        assert!(
            since.elapsed() < Duration::from_secs(8),
            "two hooks of 2 s, and a second of patience each: {:?}",
            since.elapsed()
        );
        sleep(Duration::from_secs(15)).await;
        assert_eq!(stage.events(), [""; 0]);
        assert_eq!(stage.counted("guardian_events_total"), ["{result=\"failed\"} 4"]);
    };
    stage.play(1, script).await;
}
