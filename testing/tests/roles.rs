//! Roles: what the pods print becomes their labels, whatever happens to the controller meanwhile.

use std::collections::BTreeSet;
use std::time::Duration;

use guardian_hook::protocol::RunResult;
use guardian_testing::{Answer, Fault, SILENCE, Stage, Wrong, each_call};
use tokio::time::sleep;

const POLICY: &str = "\
apiVersion: stateful-guardian.io/v1alpha1
kind: GuardianPolicy
selector: {matchLabels: {app: redis}}
role: {command: [role], every: 5s, timeout: 2s}
hooks:
  rejoin: {command: [rejoin], timeout: 30s, retries: 2, backoff: 5s}
";

/// A set of two whose pods print these, and have them as labels.
async fn labelled(stage: &Stage, first: &str, second: &str) {
    stage.runner.prints("redis-0", first);
    stage.runner.prints("redis-1", second);
    stage.usual(POLICY);
    let word = |text: &str| text.split_whitespace().next().unwrap_or_default().to_owned();
    let expected = [word(first), word(second)];
    stage.until("the labels are there", |s| s.roles() == expected).await;
    stage.until_settled().await;
}

/// The calls that change a pod.
fn patches(stage: &Stage) -> usize {
    stage.api.calls().iter().filter(|call| call.kind == "PATCH pods").count()
}

#[tokio::test(start_paused = true)]
async fn pods_are_labelled_with_what_they_print_and_then_left_alone() {
    let stage = Stage::new();
    let script = async {
        labelled(&stage, "primary 7\n", "replica\n").await;
        let before = stage.runner.asked().len();
        stage.assert_silence().await;
        let asked = stage.runner.asked().len() - before;
        assert!((718..=722).contains(&asked), "two pods every 5 s for half an hour: {asked}");
    };
    stage.play(1, script).await;
    assert_eq!(patches(&stage), 2);
    assert_eq!(stage.events(), [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn labels_follow_a_switchover_within_an_interval() {
    let stage = Stage::new();
    let script = async {
        labelled(&stage, "primary 7", "replica").await;
        // The old one has not noticed: it goes on claiming its old term.
        stage.runner.prints("redis-1", "primary 8");
        sleep(Duration::from_secs(6)).await;
        assert_eq!(stage.roles(), ["", "primary"]);
        stage.runner.prints("redis-0", "replica");
        sleep(Duration::from_secs(6)).await;
        assert_eq!(stage.roles(), ["replica", "primary"]);
        stage.assert_silence().await;
    };
    stage.play(1, script).await;
    assert_eq!(patches(&stage), 5);
}

#[tokio::test(start_paused = true)]
async fn two_claims_of_one_version_change_nothing_and_are_told_once() {
    let stage = Stage::new();
    let script = async {
        labelled(&stage, "primary 7", "replica").await;
        stage.runner.prints("redis-1", "primary 7");
        stage.until("it is told", |s| !s.events().is_empty()).await;
        stage.assert_silence().await;
        assert_eq!(stage.roles(), ["primary", "replica"]);
    };
    stage.play(1, script).await;
    let why = "redis-0 and redis-1 claim the role primary with version 7: their labels stay as they are";
    assert_eq!(stage.events(), [format!("Warning StatefulSet RoleContested: {why}")]);
}

#[tokio::test(start_paused = true)]
async fn a_silent_pod_keeps_its_role_for_a_while_and_then_loses_it_which_is_told() {
    let silences = [
        ("it printed 2 lines, where one is expected: `ROLE` or `ROLE VERSION`", None),
        ("its role probe ended with exit code 1", Some(Answer::exit(1))),
        (
            "its role probe was killed at its time out",
            Some(Answer { takes: Duration::from_secs(9), result: RunResult::Exited { code: 0 } }),
        ),
    ];
    for (why, answer) in silences {
        let stage = Stage::new();
        let script = async {
            labelled(&stage, "primary", "replica").await;
            match answer {
                Some(answer) => stage.runner.probe("redis-0", answer),
                None => stage.runner.prints("redis-0", "primary\nreplica\n"),
            }
            sleep(Duration::from_secs(9)).await;
            assert_eq!(stage.roles(), ["primary", "replica"], "{why}");
            sleep(Duration::from_secs(13)).await;
            assert_eq!(stage.roles(), ["", "replica"], "{why}");
            stage.assert_silence().await;
            stage.runner.prints("redis-0", "primary");
            stage.until("it speaks again", |s| s.roles() == ["primary", "replica"]).await;
        };
        stage.play(1, script).await;
        assert_eq!(stage.events(), [format!("Warning StatefulSet RoleUnknown: pod redis-0 does not tell its role: {why}")]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_crashed_keeps_its_role_until_the_bound_and_a_new_pod_has_none() {
    let stage = Stage::new();
    let script = async {
        labelled(&stage, "primary", "replica").await;
        stage.stop_container(0, "Error", 1);
        sleep(Duration::from_secs(9)).await;
        assert_eq!(stage.roles(), ["primary", "replica"]);
        sleep(Duration::from_secs(13)).await;
        assert_eq!(stage.roles(), ["", "replica"]);
        stage.runner.prints("redis-0", "replica");
        stage.start_container(0);
        stage.until("it is back", |s| s.roles() == ["replica", "replica"]).await;
        stage.vanish(1);
        stage.runner.prints("redis-1", "primary");
        stage.new_pod(1, "r1");
        assert_eq!(stage.roles(), ["replica", ""]);
        stage.until("it is told", |s| s.roles() == ["replica", "primary"]).await;
        stage.until_settled().await;
    };
    stage.play(1, script).await;
    assert!(stage.events().iter().all(|e| !e.contains("RoleUnknown")), "{:?}", stage.events());
}

#[tokio::test(start_paused = true)]
async fn a_label_that_somebody_else_takes_or_gives_is_put_right() {
    let stage = Stage::new();
    let script = async {
        labelled(&stage, "primary", "replica").await;
        stage.set_role(0, None);
        stage.set_role(1, Some("primary"));
        stage.until("it is put right", |s| s.roles() == ["primary", "replica"]).await;
        stage.assert_silence().await;
    };
    stage.play(1, script).await;
}

#[tokio::test(start_paused = true)]
async fn nobody_is_asked_on_hold_and_labels_stay() {
    let stage = Stage::new();
    let script = async {
        labelled(&stage, "primary", "replica").await;
        stage.annotate_set("stateful-guardian.io/hold", Some("on call"));
        stage.runner.prints("redis-1", "primary 9");
        sleep(Duration::from_secs(2)).await;
        let asked = stage.runner.asked().len();
        stage.assert_silence().await;
        assert_eq!(stage.runner.asked().len(), asked);
        assert_eq!(stage.roles(), ["primary", "replica"]);
        stage.annotate_set("stateful-guardian.io/hold", None);
        stage.until("the hold is over", |s| s.roles() == ["", "primary"]).await;
    };
    stage.play(1, script).await;
}

#[tokio::test(start_paused = true)]
async fn a_policy_that_asks_for_no_role_any_more_takes_the_labels_away() {
    let stage = Stage::new();
    let script = async {
        labelled(&stage, "primary", "replica").await;
        stage.apply_policy(&POLICY.replace("role: ", "# "));
        stage.until("they are gone", |s| s.roles() == ["", ""]).await;
        let asked = stage.runner.asked().len();
        stage.assert_silence().await;
        assert_eq!(stage.runner.asked().len(), asked);
    };
    stage.play(1, script).await;
}

/// Every pod keeps its label while nobody has heard of it for less than the bound, also when that is so since a moment ago.
#[tokio::test(start_paused = true)]
async fn a_controller_that_begins_takes_no_label_away_that_is_right() {
    let stage = Stage::new();
    labelled_by_another(&stage).await;
    let before = patches(&stage);
    stage.play(2, sleep(Duration::from_secs(120))).await;
    assert_eq!((stage.roles(), patches(&stage)), (vec!["primary".to_owned(), "replica".to_owned()], before));
}

async fn labelled_by_another(stage: &Stage) {
    stage.play(1, labelled(stage, "primary", "replica")).await;
}

#[tokio::test(start_paused = true)]
async fn a_namespace_that_gives_no_right_to_label_is_told_and_its_hooks_run_all_the_same() {
    let stage = Stage::new();
    let script = async {
        labelled(&stage, "primary", "replica").await;
        stage.runner.prints("redis-1", "standby");
        for _ in 0..3 {
            stage.api.fail_next("PATCH pods", Fault::Status(403));
        }
        stage.until("it is told", |s| s.events().iter().any(|e| e.contains("Forbidden"))).await;
        stage.restart_container(1, "Error", 1);
        stage.until("it is rejoined", |s| !s.told().is_empty()).await;
        stage.until("the right is there", |s| s.roles()[1] == "standby").await;
    };
    stage.play(1, script).await;
    assert_eq!(stage.told(), ["Crash Succeeded 1"]);
    assert_eq!(stage.events().iter().filter(|e| e.contains("Forbidden")).count(), 1, "{:?}", stage.events());
}

#[tokio::test(start_paused = true)]
async fn pods_with_a_runner_from_before_are_told_of_and_asked_seldom() {
    let stage = Stage::new();
    let script = async {
        stage.runner.prints("redis-1", "replica");
        for _ in 0..2 {
            stage.api.fail_next("COLLECT", Fault::Status(404));
        }
        stage.usual(POLICY);
        stage.until("it is told", |s| s.events().len() == 2).await;
        let before = stage.runner.asked().len();
        sleep(Duration::from_secs(500)).await;
        assert_eq!(stage.runner.asked().len(), before);
    };
    stage.play(1, script).await;
    let told: BTreeSet<bool> =
        stage.events().iter().map(|e| e.contains("the runner of this pod is from before probes")).collect();
    assert_eq!(told, [true].into());
}

#[tokio::test(start_paused = true)]
async fn hooks_are_told_their_role_and_who_is_the_primary() {
    let stage = Stage::new();
    let script = async {
        labelled(&stage, "primary", "replica").await;
        stage.restart_container(1, "Error", 1);
        stage.until("it is rejoined", |s| !s.told().is_empty()).await;
    };
    stage.play(1, script).await;
    let started = stage.runner.started();
    let env = &started.first().expect("one run").request.env;
    let told = |name: &str| env.get(name).cloned().unwrap_or_default();
    assert_eq!((told("GUARDIAN_ROLE").as_str(), told("GUARDIAN_PRIMARY").as_str()), ("replica", "redis-0.redis.shop.svc"));
}

/// A role moves from one pod to the other, and a controller is killed, or a call goes wrong, at any moment of it.
async fn moved(stage: &Stage) {
    labelled(stage, "primary 1", "replica").await;
    stage.runner.prints("redis-0", "replica");
    stage.runner.prints("redis-1", "primary 2");
    stage.until("it has moved", |s| s.roles() == ["replica", "primary"]).await;
}

#[tokio::test(start_paused = true)]
async fn whatever_call_goes_wrong_the_labels_are_right_in_the_end() {
    let ends = async |stage: &Stage, wrong: Wrong<'_>| {
        stage.until_settled().await;
        // A call whose answer was lost is made again.
        sleep(Duration::from_secs(10)).await;
        stage.assert_silence_for(SILENCE).await;
        let calls = stage.api.calls();
        assert!(calls.iter().any(|call| call.kind == "PATCH pods"), "{calls:?}");
        assert_eq!(stage.roles(), ["replica", "primary"], "{wrong}");
    };
    let faults = [Fault::CrashBefore, Fault::CrashAfter, Fault::Status(409), Fault::Status(500), Fault::Cut, Fault::AnswerLost];
    each_call(&faults, async |stage| moved(stage).await, ends).await;
}

#[tokio::test(start_paused = true)]
async fn two_controllers_agree() {
    let stage = Stage::new();
    let script = async {
        moved(&stage).await;
        stage.until_settled().await;
        // The other one hears of it by its own question.
        sleep(Duration::from_secs(10)).await;
        stage.assert_silence().await;
    };
    stage.play(2, script).await;
}
