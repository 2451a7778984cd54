//! A story is played again and again, and each time another of its calls goes wrong.

use std::fmt;
use std::time::Duration;

use crate::api::Call;
use crate::fault::Fault;
use crate::stage::Stage;

/// How long there must be silence after each of the hundreds of plays of a sweep: longer than any pause after the failure of one call.
pub const SILENCE: Duration = Duration::from_secs(120);

/// What went wrong in one play.
#[derive(Clone, Copy, Debug)]
pub struct Wrong<'a> {
    /// The fault.
    pub fault: Fault,
    /// Which call of the story, from 0.
    pub number: usize,
    /// What the call was in the straight play.
    pub call: &'a Call,
}

/// Plays a story once straight, and then once for each of its calls and faults. Whatever happens, each attempt is started once, the same is
/// told, once, and then there is silence.
pub async fn sweep(faults: &[Fault], story: impl AsyncFn(&Stage), told: &[&str]) {
    let ends = async |stage: &Stage, wrong: Wrong<'_>| {
        stage.assert_silence_for(SILENCE).await;
        let context = || format!("{wrong}: {:#?} {:#?}", stage.history(), stage.api.calls());
        assert_eq!(stage.attempts().len(), told.len(), "{}", context());
        assert_eq!(stage.told().len(), told.len(), "{}", context());
        for (is, expected) in stage.told().iter().zip(told) {
            let (reasons, rest) = expected.split_once(' ').expect("reason and rest");
            assert!(reasons.split('|').any(|reason| *is == format!("{reason} {rest}")), "{is}: {}", context());
        }
        let on_pod = stage.events().iter().filter(|e| e.contains(" Pod ")).count();
        assert!(on_pod == told.len() || wrong.call.kind.ends_with(" events"), "an Event for each: {}", context());
    };
    each_call(faults, story, ends).await;
}

/// Plays a story once straight, and then once for each of its calls and faults. How each of these plays `ends` comes after the story.
///
/// What is only read leaves nothing behind: being killed, or cut off, after it is the same as before it. It is played once.
pub async fn each_call(faults: &[Fault], story: impl AsyncFn(&Stage), ends: impl AsyncFn(&Stage, Wrong<'_>)) {
    let straight = Stage::new();
    straight.play(1, story(&straight)).await;
    let calls = straight.api.calls();
    assert!(calls.len() > 15, "a story has calls: {calls:?}");
    for fault in faults.iter().copied() {
        let is_the_same = |call: &Call| call.only_reads() && fault.not_carried_out().is_some_and(|other| faults.contains(&other));
        for (number, call) in calls.iter().enumerate().filter(|(_, call)| !is_the_same(call)) {
            let stage = Stage::new();
            let script = async {
                story(&stage).await;
                ends(&stage, Wrong { fault, number, call }).await;
            };
            stage.play_crashed(number, fault, script).await;
        }
    }
}

impl fmt::Display for Wrong<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} at call {}, {:?}", self.fault, self.number, self.call)
    }
}
