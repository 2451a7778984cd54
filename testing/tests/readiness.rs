//! Readiness that keeps changing: what is said of it, and what is not done on the strength of it.

use std::time::Duration;

use guardian_testing::{Answer, POLICY, Stage};
use tokio::time::sleep;

/// Its readiness changes so many times, 20 s apart; beginning with one that is ready.
async fn toggle(stage: &Stage, ordinal: u32, changes: u32) {
    for change in 0..changes {
        sleep(Duration::from_secs(20)).await;
        stage.set_ready(ordinal, change % 2 == 1);
    }
    sleep(Duration::from_secs(1)).await;
}

fn told(stage: &Stage) -> Vec<String> {
    stage.events().into_iter().filter(|event| event.contains(" Flapping: ")).collect()
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_flaps_is_told_once_counts_for_nothing_until_it_has_settled_and_a_new_controller_does_not_count_on_it_either()
{
    let stage = Stage::new();
    let policy = POLICY.replace("retries: 2, backoff: 5s", "retries: 0, onFailure: recreate");
    stage.runner.answer([Answer::exit(1)]);
    let script = async {
        stage.enable();
        stage.apply_policy(&policy);
        stage.apply_set(3);
        stage.until_settled().await;
        toggle(&stage, 0, 5).await;
        assert_eq!((told(&stage).len(), stage.held_by().len()), (0, 0), "that may be anything");
        toggle(&stage, 0, 0).await;
        stage.set_ready(0, true);
        stage.until("it is held", |s| s.held_by() == ["Flapping"]).await;

        // Another one is to be made anew, and is ready: with it, one that can be counted on would be left of the two that must be.
        stage.restart_container(1, "Error", 1);
        stage.until("its hook has failed, and it waits", |s| s.held_by() == ["Flapping", "Quorum"]).await;
        toggle(&stage, 0, 12).await;
        assert_eq!(stage.held_by(), ["Flapping", "Quorum"]);
        let events = told(&stage);
        assert!(
            events.len() == 1
                && events[0].starts_with("Warning StatefulSet Flapping: pod redis-0 has become ready and not ready"),
            "{events:?}"
        );

        // It is ready since a second, and the next controller has seen none of it.
        stage.kill("controller-0-0");
        sleep(Duration::from_secs(110)).await;
        assert_eq!((stage.is_evicted(1), stage.held_by()), (false, vec!["Quorum".to_owned()]));
        sleep(Duration::from_secs(12)).await;
        stage.let_evicted_pod_go(1).await;
        stage.new_pod(1, "r1");
        stage.until("it is back", |s| s.runner.started().len() == 2).await;
        stage.until_settled().await;
        stage.assert_silence().await;
        assert_eq!((told(&stage).len(), stage.held_by().len()), (1, 0));
    };
    stage.play(1, script).await;
}

#[tokio::test(start_paused = true)]
async fn it_is_over_by_itself_and_told_again_only_when_it_begins_again() {
    let stage = Stage::new();
    let script = async {
        stage.usual(POLICY);
        stage.until_settled().await;
        toggle(&stage, 0, 6).await;
        assert_eq!((told(&stage).len(), stage.held_by()), (1, vec!["Flapping".to_owned()]));
        sleep(Duration::from_secs(118)).await;
        assert_eq!(stage.held_by().len(), 1);
        sleep(Duration::from_secs(3)).await;
        assert_eq!((told(&stage).len(), stage.held_by().len()), (1, 0));
        stage.assert_silence().await;
        toggle(&stage, 0, 4).await;
        assert_eq!((told(&stage).len(), stage.held_by().len()), (1, 0), "what was before counts no more");
        toggle(&stage, 0, 4).await;
        assert_eq!((told(&stage).len(), stage.held_by().len()), (2, 1));
    };
    stage.play(1, script).await;
}
