//! A cluster is made, joined, made again: what the controller does once in the life of the volumes, whatever happens to it meanwhile.

use std::time::Duration;

use guardian_testing::{Answer, Fault, SILENCE, Stage, Wrong, each_call, sweep};

const POLICY: &str = "\
apiVersion: stateful-guardian.io/v1alpha1
kind: GuardianPolicy
selector: {matchLabels: {app: redis}}
hooks:
  bootstrap: {command: [bootstrap], timeout: 30s, retries: 1}
  join: {command: [join], timeout: 30s, retries: 2, backoff: 5s}
  rejoin: {command: [rejoin], timeout: 30s, onFailure: recreate}
  postMortem: {command: [post-mortem], target: any}
";

/// The set is applied on new volumes, and has become a cluster.
async fn made(stage: &Stage) {
    stage.enable();
    stage.apply_policy(POLICY);
    stage.apply_set_with_claims(2);
    stage.until_settled().await;
    stage.until("the volumes are marked", |s| s.marks().len() == 2).await;
}

async fn made_again_on_old_volumes(stage: &Stage) {
    made(stage).await;
    stage.delete_set();
    stage.apply_set_with_claims(2);
    stage.until("both rejoin", |s| s.hooks().len() == 4).await;
    stage.until_settled().await;
}

/// A rejoin fails, the pod is made anew, and the new one rejoins.
async fn recreated(stage: &Stage) {
    made(stage).await;
    stage.runner.answer([Answer::exit(0), Answer::exit(1)]);
    stage.restart_container(1, "Error", 1);
    stage.let_evicted_pod_go(1).await;
    stage.new_pod(1, "r1");
    stage.until_settled().await;
}

const MADE: [&str; 2] = ["bootstrap redis-0", "join redis-1"];

#[tokio::test(start_paused = true)]
async fn a_new_set_is_made_in_its_first_pod_and_the_other_joins_and_then_there_is_silence() {
    let stage = Stage::new();
    let script = async {
        made(&stage).await;
        stage.assert_silence().await;
    };
    stage.play(1, script).await;
    assert_eq!(stage.hooks(), MADE);
    assert_eq!(stage.told(), ["FirstStart Succeeded 1", "FirstStart Succeeded 1"]);
    assert_eq!(stage.marks(), ["data-redis-0 redis", "data-redis-1 redis"]);
}

#[tokio::test(start_paused = true)]
async fn the_ledger_of_a_set_goes_an_hour_after_the_set_and_the_last_of_its_volumes_and_not_before() {
    for (set_goes, claims_go, pruned) in [(true, true, true), (true, false, false), (false, true, false)] {
        let stage = Stage::new();
        let script = async {
            made(&stage).await;
            if set_goes {
                stage.delete_set();
            }
            if claims_go {
                stage.delete_claims();
            }
            tokio::time::sleep(Duration::from_secs(3500)).await;
            assert!(!stage.state().is_null(), "within the hour");
            tokio::time::sleep(Duration::from_secs(2 * 3600)).await;
            assert_eq!(stage.state().is_null(), pruned, "{set_goes} {claims_go}");
        };
        stage.play(1, script).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_ledger_that_is_written_meanwhile_or_of_whose_set_nothing_is_heard_is_left_for_the_next_round() {
    for fault in ["DELETE configmaps", "GET statefulsets"] {
        let stage = Stage::new();
        let script = async {
            made(&stage).await;
            stage.delete_set();
            stage.delete_claims();
            stage.api.fail_next(fault, Fault::Status(409));
            tokio::time::sleep(Duration::from_secs(3600 + 1800)).await;
            let tried = stage.api.calls().iter().filter(|call| call.kind == fault).count();
            assert!(tried > 0 && !stage.state().is_null(), "{fault}");
            tokio::time::sleep(Duration::from_secs(3600)).await;
            assert!(stage.state().is_null(), "and goes with the next round");
        };
        stage.play(1, script).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_set_made_again_on_its_old_volumes_rejoins_even_if_its_ledger_is_lost() {
    for ledger_is_lost in [false, true] {
        let stage = Stage::new();
        let script = async {
            made(&stage).await;
            stage.delete_set();
            if ledger_is_lost {
                stage.delete_ledger();
            }
            stage.apply_set_with_claims(2);
            stage.until("both rejoin", |s| s.hooks().len() == 4).await;
            stage.until_settled().await;
            stage.assert_silence().await;
        };
        stage.play(1, script).await;
        assert_eq!(stage.hooks()[2..], ["rejoin redis-0", "rejoin redis-1"]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_set_made_again_on_new_volumes_is_another_cluster() {
    let stage = Stage::new();
    let script = async {
        made(&stage).await;
        stage.delete_set();
        stage.delete_claims();
        stage.apply_set_with_claims(2);
        stage.until("it is made", |s| s.hooks().len() == 4).await;
        stage.until_settled().await;
        stage.until("the volumes are marked", |s| s.marks().len() == 2).await;
        stage.assert_silence().await;
    };
    stage.play(1, script).await;
    assert_eq!(stage.hooks()[2..], MADE);
}

#[tokio::test(start_paused = true)]
async fn a_lost_bootstrap_is_never_made_again_and_that_is_said_once() {
    let stage = Stage::new();
    let script = async {
        stage.enable();
        stage.apply_policy(POLICY);
        stage.runner.answer([Answer { takes: Duration::from_secs(20), ..Answer::exit(0) }]);
        stage.apply_set_with_claims(2);
        stage.until("it runs", |s| s.hooks().len() == 1).await;
        stage.vanish(0);
        stage.new_pod(0, "r1");
        stage.until("it is said", |s| s.events().iter().any(|event| event.contains("BootstrapFailed"))).await;
        stage.assert_silence().await;
    };
    stage.play(1, script).await;
    assert_eq!(stage.hooks(), ["bootstrap redis-0"]);
    let said: Vec<_> = stage.events().into_iter().filter(|event| event.contains("BootstrapFailed")).collect();
    assert_eq!(said.len(), 1, "{said:#?}");
    assert!(said[0].contains("`guardian adopt -n shop redis --bootstrapped`"), "{said:#?}");
}

#[tokio::test(start_paused = true)]
async fn a_pod_whose_rejoin_fails_is_made_anew_once_after_the_post_mortem_on_its_peer() {
    let stage = Stage::new();
    let script = async {
        recreated(&stage).await;
        stage.assert_silence().await;
    };
    stage.play(1, script).await;
    assert_eq!(stage.hooks()[2..], ["postMortem redis-0", "rejoin redis-1", "rejoin redis-1"]);
    let told = ["Crash Succeeded 1", "Crash Failed 1", "Crash Succeeded null", "Drained Succeeded 1"];
    assert_eq!(stage.told()[2..], told);
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_comes_back_by_itself_while_its_eviction_is_on_the_way_stays() {
    let stage = Stage::new();
    let script = async {
        made(&stage).await;
        stage.runner.answer([Answer::exit(0), Answer::exit(1)]);
        stage.restart_container(1, "Error", 1);
        let is_written = |s: &Stage| {
            let state = s.state();
            let mut episodes = state["episodes"].as_object().into_iter().flat_map(|all| all.values());
            episodes.any(|episode| episode["hook"] == "recreate" && episode["next"].is_string())
        };
        stage.until("its eviction is written", is_written).await;
        stage.restart_container(1, "Error", 1);
        stage.until_settled().await;
        stage.assert_silence().await;
    };
    stage.play(1, script).await;
    assert_eq!(stage.api.calls().iter().filter(|call| call.kind == "POST pods").count(), 1, "it was asked for, and refused");
    assert_eq!(stage.hooks()[2..], ["postMortem redis-0", "rejoin redis-1", "postMortem redis-0", "rejoin redis-1"]);
    let told = ["Crash Succeeded 1", "Crash Failed 1", "Crash Superseded null", "Crash Succeeded 1", "Crash Succeeded 1"];
    assert_eq!(stage.told()[2..], told);
}

#[tokio::test(start_paused = true)]
async fn two_controllers_at_once_make_the_cluster_once() {
    for leaders in [2, 3] {
        let stage = Stage::new();
        let script = async {
            made_again_on_old_volumes(&stage).await;
            stage.assert_silence().await;
        };
        stage.play(leaders, script).await;
        assert_eq!(stage.hooks(), [&MADE[..], &["rejoin redis-0", "rejoin redis-1"]].concat());
    }
}

#[tokio::test(start_paused = true)]
async fn a_controller_killed_before_or_after_any_call_makes_the_cluster_once() {
    let told = ["FirstStart Succeeded 1", "FirstStart Succeeded 1"];
    sweep(&[Fault::CrashBefore, Fault::CrashAfter], async |stage| made(stage).await, &told).await;
}

#[tokio::test(start_paused = true)]
async fn a_controller_killed_before_or_after_any_call_makes_a_pod_anew_once() {
    let ends = async |stage: &Stage, wrong: Wrong<'_>| {
        stage.assert_silence_for(SILENCE).await;
        let expected = ["postMortem redis-0", "rejoin redis-1", "rejoin redis-1"];
        assert_eq!(stage.hooks()[2..], expected, "{wrong}: {:#?}", stage.history());
    };
    each_call(&[Fault::CrashBefore, Fault::CrashAfter], async |stage| recreated(stage).await, ends).await;
}
