//! A story is played again and again, and each time another of its calls goes wrong.

use std::time::Duration;

use crate::fault::Fault;
use crate::stage::Stage;

/// How long there must be silence after each of the hundreds of plays of a sweep: longer than any pause after the failure of one call.
const SILENCE: Duration = Duration::from_secs(120);

/// Plays a story once straight, and then once for each of its calls, which goes wrong in this way. Whatever happens, each attempt is
/// started once, the same is told, once, and then there is silence.
pub async fn sweep(fault: Fault, story: impl AsyncFn(&Stage), told: &[&str]) {
    let straight = Stage::new();
    straight.play(1, story(&straight)).await;
    let calls = straight.api.calls();
    assert!(calls.len() > 15, "a story has calls: {calls:?}");
    for (number, call) in calls.iter().enumerate() {
        let stage = Stage::new();
        let script = async {
            story(&stage).await;
            stage.assert_silence_for(SILENCE).await;
        };
        stage.play_crashed(number, fault, script).await;
        let context = || format!("{fault:?} at call {number}, {call:?}: {:#?} {:#?}", stage.history(), stage.api.calls());
        assert_eq!(stage.attempts().len(), told.len(), "{}", context());
        assert_eq!(stage.told().len(), told.len(), "{}", context());
        for (is, expected) in stage.told().iter().zip(told) {
            let (reasons, rest) = expected.split_once(' ').expect("reason and rest");
            assert!(reasons.split('|').any(|reason| *is == format!("{reason} {rest}")), "{is}: {}", context());
        }
        let on_pod = stage.events().iter().filter(|e| e.contains(" Pod ")).count();
        assert!(on_pod == told.len() || call.kind.ends_with(" events"), "an Event for each: {}", context());
    }
}
