//! What a rehearsal takes for granted, in sentences.

use std::time::Duration;

use jiff::SignedDuration;

use super::cast::Cast;
use super::figures::{HOOK, MEASURED, NODE_DELETED, NOT_READY, OUTAGE, READY, RESTART, START, STOP, TOLERATED};
use super::line::seconds;
use super::world::World;
use super::{Asked, BEGINS, LASTS, Scenario};
use crate::policy::{Action, READY_WITHIN, Rule};

/// Of this rehearsal alone, the most important first.
pub(super) fn assumed(world: &World<'_>, asked: &Asked, cast: &Cast) -> Vec<String> {
    let mut all = vec![format!(
        "no hook is executed: each ends well after {}, where --fail and --hook-time do not say otherwise",
        of(HOOK)
    )];
    all.extend(roles(cast, world));
    all.extend(
        world.subject.believed.iter().map(|service| {
            format!("there is a Service {service} that selects the pods of the set: it is not among the manifests")
        }),
    );
    all.push(format!(
        "a container starts {} after one that ended, and {} after its pod was made; it is ready {} later",
        seconds(RESTART),
        seconds(START),
        seconds(READY)
    ));
    all.extend(world.subject.waits_for_join.then(|| {
        format!("by readyAfter it is not ready before its join or rejoin has ended well, for {} at most", of(READY_WITHIN))
    }));
    all.push(format!("a pod is gone {} after its preStop, and its next is made at once", seconds(STOP)));
    let resizes = |rule: &Rule| rule.actions.iter().any(|action| matches!(action, Action::Resize(_)));
    all.extend(
        world
            .policy
            .rules
            .iter()
            .any(resizes)
            .then(|| "a node has room for whatever is resized, and gives it at once".to_owned()),
    );
    all.extend(of_scenario(asked));
    all.push(format!("the guardian sees everything at once, nobody else does anything, and the clock begins at {BEGINS}"));
    all
}

fn of(time: Duration) -> String {
    seconds(SignedDuration::try_from(time).unwrap_or(SignedDuration::MAX))
}

fn roles(cast: &Cast, world: &World<'_>) -> Vec<String> {
    if cast.claims.is_empty() {
        return Vec::new();
    }
    let mut all = Vec::new();
    if let Some(role) = &cast.believed {
        let first = world.name(world.subject.set.ordinals.start);
        all.push(format!("{first} has the role {role} at the beginning, where --role does not say otherwise"));
    }
    all.push("a role stays with its pod, and with the next one of that name, unless switchover moves it: the application does not fail over by itself".to_owned());
    all
}

fn of_scenario(asked: &Asked) -> Option<String> {
    match &asked.scenario {
        Scenario::NodeLost => Some(format!(
            "the pods of a node that does not answer are not ready after {}, evicted {} later, and gone with the node's object after {}",
            seconds(NOT_READY),
            seconds(TOLERATED),
            seconds(NODE_DELETED)
        )),
        Scenario::ZoneOutage => Some(format!(
            "the nodes are back after {}, before their pods are evicted; a pod is not ready when its node has not answered for {}",
            seconds(OUTAGE),
            seconds(NOT_READY)
        )),
        Scenario::Rule(_) => Some(format!(
            "what the rule looks at is measured every {}, is beyond its bound for {} whatever is done about it, and then back (--lasts)",
            seconds(MEASURED),
            of(asked.lasts.unwrap_or(LASTS))
        )),
        _ => None,
    }
}
