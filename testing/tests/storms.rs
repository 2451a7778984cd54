//! Many failures at once: who waits for whom, and what is said of it.

use guardian_testing::{POLICY, Stage};

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
