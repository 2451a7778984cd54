//! The PodDisruptionBudget of a set follows its policy, its replicas, and the budgets of others.

use std::time::Duration;

use guardian_testing::{Fault, Stage};
use serde_json::json;
use tokio::time::sleep;

const POLICY: &str = "\
apiVersion: stateful-guardian.io/v1alpha1
kind: GuardianPolicy
selector: {matchLabels: {app: redis}}
protect: {quorum: 2, disruptionBudget: true}
hooks: {rejoin: {command: [rejoin]}}
";
const WITHOUT: &str = "\
apiVersion: stateful-guardian.io/v1alpha1
kind: GuardianPolicy
selector: {matchLabels: {app: redis}}
hooks: {rejoin: {command: [rejoin]}}
";

/// A set of three, with its budget.
async fn guarded(stage: &Stage) {
    stage.enable();
    stage.apply_policy(POLICY);
    stage.apply_set(3);
    stage.until("there is a budget", |s| s.budgets() == ["guardian-redis 1"]).await;
}

#[tokio::test(start_paused = true)]
async fn a_set_gets_a_budget_that_follows_its_replicas_and_goes_with_its_policy() {
    let stage = Stage::new();
    let script = async {
        guarded(&stage).await;
        stage.until_settled().await;
        stage.assert_silence().await;
        stage.change_set(5, "r1");
        stage.until("it lets more pods go", |s| s.budgets() == ["guardian-redis 3"]).await;
        stage.apply_policy(WITHOUT);
        stage.until("it is gone", |s| s.budgets().is_empty()).await;
        stage.assert_silence().await;
    };
    stage.play(1, script).await;
}

#[tokio::test(start_paused = true)]
async fn a_budget_of_somebody_else_takes_its_place_for_as_long_as_it_is_there() {
    let stage = Stage::new();
    let script = async {
        guarded(&stage).await;
        stage.apply_budget("elsewhere", &json!({"maxUnavailable": 1, "selector": {"matchLabels": {"app": "other"}}}));
        stage.apply_budget("nothing", &json!({"maxUnavailable": 1}));
        stage.assert_silence().await;
        stage.apply_budget(
            "own",
            &json!({"minAvailable": 1, "selector": {"matchLabels": {"stateful-guardian.io/role": "primary"}}}),
        );
        stage.until("ours goes", |s| s.budgets() == ["elsewhere 1", "nothing 1", "own null"]).await;
        stage.until("that is said", |s| s.events().iter().any(|event| event.contains("OtherBudget"))).await;
        stage.assert_silence().await;
        stage.delete_budget("own");
        stage.until("ours is back", |s| s.budgets() == ["elsewhere 1", "guardian-redis 1", "nothing 1"]).await;
    };
    stage.play(1, script).await;
}

/// Whatever goes wrong, and however many are at it: in the end there is one, as it should be.
#[tokio::test(start_paused = true)]
async fn several_controllers_and_refusals_end_with_one_budget() {
    for (leaders, fault) in
        [(3, None), (1, Some(Fault::Status(409))), (1, Some(Fault::Status(500))), (1, Some(Fault::AnswerLost))]
    {
        let stage = Stage::new();
        if let Some(fault) = fault {
            stage.api.fail_next("POST poddisruptionbudgets", fault);
        }
        let script = async {
            guarded(&stage).await;
            stage.until_settled().await;
            // What went wrong is told, and tried again.
            sleep(Duration::from_secs(10)).await;
            stage.assert_silence().await;
            assert_eq!(stage.budgets(), ["guardian-redis 1"]);
        };
        stage.play(leaders, script).await;
    }
}
