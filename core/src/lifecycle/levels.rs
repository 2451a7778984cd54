//! What is kept as it should be, whatever goes on.

use super::decide::{Levels, View};

pub(super) fn of(view: &View<'_>) -> Levels {
    let hooks = view.policy.map(|policy| &policy.hooks);
    let lives = hooks.is_some_and(|hooks| hooks.bootstrap.is_some() || hooks.join.is_some());
    let is_in =
        |ordinal: &u32, uid: &str| view.ledger.answered.get(ordinal).is_some_and(|start| start.volume.as_deref() == Some(uid));
    let members = view.observed.volumes.iter().filter(|(ordinal, volume)| is_in(ordinal, &volume.uid));
    let unmarked = members.map(|(_, volume)| volume).filter(|volume| lives && !volume.is_member);
    Levels { marks: unmarked.cloned().collect(), ..Levels::default() }
}
