//! Approvals: who is asked about, what is recorded before an answer is given, and what is done without one.

use guardian_core::policy::Approval;
use guardian_testing::Fault;

use super::*;

/// Another policy than [`POLICY`].
const EDIT: &str = "apiVersion: stateful-guardian.io/v1alpha1\nkind: GuardianPolicy\nhooks:\n  preStop: {command: [steal]}\n";

/// The keys and values of the ConfigMap of approvals.
fn recorded(api: &Api) -> Vec<(String, Value)> {
    let map = api.world(|world| world.get(&approvals_key()).cloned()).expect("it is there");
    let data = map["data"].as_object().cloned().unwrap_or_default();
    data.into_iter().map(|(key, value)| (key, serde_json::from_str(value.as_str().expect("text")).expect("JSON"))).collect()
}

/// A review of a new policy by a user of some groups.
fn written_by(user: &str, groups: &[&str], dry_run: bool) -> String {
    let mut review: Value = serde_json::from_str(&review("u", "CREATE", "ConfigMap", &policy(POLICY))).expect("JSON");
    review["request"]["userInfo"] = json!({"username": user, "groups": groups});
    review["request"]["dryRun"] = json!(dry_run);
    review.to_string()
}

async fn write_policy(served: &mut Served) -> Value {
    let (status, answer) = served.post("/validate", written_by("somebody", &[], false)).await;
    assert_eq!(status, 200, "a denial is an answer too");
    answer["response"].clone()
}

async fn create_set(served: &mut Served) -> Value {
    served.post("/mutate", review("u", "CREATE", "StatefulSet", &set())).await.1
}

#[tokio::test]
async fn only_whoever_may_exec_in_the_namespace_writes_its_policies() {
    let api = cluster();
    api.allow_exec("operators", "shop");
    api.allow_exec("elsewhere", "bank");
    let mut served = Served::ready(api.clone()).await;
    let cases: [(&str, &[&str], bool); 4] = [
        ("ann", &["developers"], false),
        ("elsewhere", &[], false),
        ("bob", &["developers", "operators"], true),
        ("somebody", &[], true),
    ];
    for (user, groups, allowed) in cases {
        for dry_run in [true, false] {
            let before = recorded(&api).len();
            let (_, answer) = served.post("/validate", written_by(user, groups, dry_run)).await;
            assert_eq!(answer["response"]["allowed"], allowed, "{user}: {answer}");
            if !allowed {
                assert_eq!(answer["response"]["status"]["code"], 403, "{answer}");
            }
            let expected = usize::from(allowed && !dry_run).max(before);
            assert_eq!(recorded(&api).len(), expected, "{user}, dry run: {dry_run}");
        }
    }
    let [(_, approval)] = recorded(&api).try_into().expect("one content, one approval");
    assert_eq!(approval, json!({"policy": "redis", "user": "somebody", "time": "1970-01-01T00:00:00Z"}), "the last who did");
}

#[tokio::test]
async fn what_was_approved_is_in_force_once_it_is_stored() {
    let api = cluster();
    let mut served = Served::ready(api.clone()).await;
    assert_eq!(write_policy(&mut served).await["allowed"], true);
    assert_eq!(patch(&create_set(&mut served).await), None, "an approval without a policy does nothing");
    sneak(&api, &policy_key(), POLICY);
    let answer = create_set(&mut served).await;
    assert!(patch(&answer).is_some(), "{answer}");
}

#[tokio::test]
async fn without_an_answer_about_its_author_a_policy_is_not_taken() {
    let api = cluster();
    let mut served = Served::ready(api.clone()).await;
    for fault in [Fault::Silence, Fault::Cut, Fault::Status(403), Fault::Status(500)] {
        api.fail_next("POST subjectaccessreviews", fault);
        let answer = write_policy(&mut served).await;
        assert_eq!(answer["status"]["code"], 503, "{fault:?}: {answer}");
        assert!(answer["status"]["message"].to_string().contains("try again"), "{answer}");
        assert!(recorded(&api).is_empty());
    }
    assert_eq!(write_policy(&mut served).await["allowed"], true);
}

#[tokio::test]
async fn what_cannot_be_recorded_is_not_taken() {
    let api = cluster();
    let mut served = Served::ready(api.clone()).await;
    for fault in [Fault::Silence, Fault::Cut, Fault::Status(403), Fault::Status(500)] {
        for call in ["GET configmaps", "PUT configmaps"] {
            api.fail_next(call, fault);
            let answer = write_policy(&mut served).await;
            assert_eq!(answer["status"]["code"], 503, "{call}, {fault:?}: {answer}");
            assert!(answer["status"]["message"].to_string().contains("could not be recorded"), "{answer}");
            assert!(recorded(&api).is_empty());
        }
    }
    api.world(|world| world.delete(&approvals_key())).expect("it was there");
    let answer = write_policy(&mut served).await;
    assert!(answer["status"]["message"].to_string().contains("apply the guardian's manifests"), "{answer}");
}

/// The replica dies, or does not hear, between the record and its answer: the user is told to try again, and that is all.
#[tokio::test]
async fn an_approval_whose_answer_was_lost_is_made_again_and_harms_nothing() {
    let api = cluster();
    let mut served = Served::ready(api.clone()).await;
    api.fail_next("PUT configmaps", Fault::AnswerLost);
    assert_eq!(write_policy(&mut served).await["status"]["code"], 503);
    assert_eq!(recorded(&api).len(), 1, "it was written all the same");
    assert_eq!(patch(&create_set(&mut served).await), None);
    assert_eq!(write_policy(&mut served).await["allowed"], true);
    assert_eq!(recorded(&api).len(), 1);
}

#[tokio::test]
async fn a_conflict_is_tried_again_but_not_for_ever() {
    let api = cluster();
    let mut served = Served::ready(api.clone()).await;
    for _ in 0..3 {
        api.fail_next("PUT configmaps", Fault::Status(409));
    }
    assert_eq!(write_policy(&mut served).await["allowed"], true);
    for _ in 0..100 {
        api.fail_next("PUT configmaps", Fault::Status(409));
    }
    assert_eq!(write_policy(&mut served).await["status"]["code"], 503);
}

#[tokio::test(start_paused = true)]
async fn replicas_that_record_at_once_lose_none_of_their_approvals() {
    let api = cluster();
    let replica = |name: &str| Store::new(api.process(name).client(), INSTALLATION, &Registry::new()).expect("a store");
    let replicas = ["a", "b", "c"].map(|name| (name, replica(name)));
    let all = replicas.iter().flat_map(|(name, store)| (0..5).map(move |n| (name, store, n)));
    let recording = all.map(|(name, store, n)| async move {
        let [namespace, user] = ["shop", "somebody"].map(str::to_owned);
        let approval = Approval { namespace, user, policy: format!("{name}{n}"), digest: format!("{name}{n}") };
        store.record(&approval, Timestamp::UNIX_EPOCH).await
    });
    for result in futures::future::join_all(recording).await {
        result.expect("recorded");
    }
    let keys: Vec<String> = recorded(&api).into_iter().map(|(key, _)| key).collect();
    let expected: Vec<String> = ["a", "b", "c"].iter().flat_map(|name| (0..5).map(move |n| format!("shop.{name}{n}"))).collect();
    assert_eq!(keys, expected);
}

#[tokio::test]
async fn a_policy_that_came_past_the_webhook_waits_until_somebody_who_may_asks_for_it() {
    let api = cluster();
    sneak(&api, &policy_key(), POLICY);
    let mut served = Served::ready(api.clone()).await;
    let answer = create_set(&mut served).await;
    assert_eq!(patch(&answer), None, "{answer}");
    assert!(answer["response"]["warnings"].to_string().contains("guardian approve -n shop redis"), "{answer}");

    // `guardian approve` sets the annotation; what it says does not matter, who sets it does.
    let mut annotated = policy(POLICY);
    annotated["metadata"]["annotations"] = json!({names::APPROVE: "please"});
    let mut review: Value = serde_json::from_str(&review("u", "UPDATE", "ConfigMap", &annotated)).expect("JSON");
    review["request"]["oldObject"] = policy(POLICY);
    let (_, answer) = served.post("/validate", review.to_string().replace("somebody", "nobody")).await;
    assert_eq!(answer["response"]["status"]["code"], 403, "{answer}");
    assert_eq!(patch(&create_set(&mut served).await), None);
    let (_, answer) = served.post("/validate", review.to_string()).await;
    assert_eq!(answer["response"]["allowed"], true, "{answer}");
    let answer = create_set(&mut served).await;
    assert!(patch(&answer).is_some(), "{answer}");
}

#[tokio::test]
async fn an_edit_past_the_webhook_leaves_what_was_approved_in_force() {
    let api = cluster();
    approve(&api, POLICY);
    sneak(&api, &policy_key(), POLICY);
    let mut served = Served::ready(api.clone()).await;
    let before = patch(&create_set(&mut served).await).expect("guarded");
    api.world(|world| world.edit(&policy_key(), |map| map["data"][names::POLICY_KEY] = json!(EDIT)));
    while served.store.snapshot().waiting.is_empty() {
        tokio::task::yield_now().await;
    }
    let answer = create_set(&mut served).await;
    assert_eq!(patch(&answer), Some(before), "as before");
    assert!(answer["response"]["warnings"].to_string().contains("the last edit of policy redis is not approved"), "{answer}");

    // Approved by another replica: the next review finds it out, whether or not the watch has told by then.
    approve(&api, EDIT);
    let answer = create_set(&mut served).await;
    assert!(patch(&answer).expect("guarded").to_string().contains("revision"), "{answer}");
    assert_eq!(answer["response"]["warnings"], Value::Null, "{answer}");
}
