//! In which pods a hook runs.

use super::observed::{Observed, Pod};
use crate::policy::Target;

/// The pods that a target names, the most suitable first, for a hook that is about the pod of ordinal `about`.
///
/// `any` prefers a ready peer, which can act for the other; without one it is the pod itself.
pub(super) fn pods<'o>(observed: &'o Observed, target: Option<&Target>, about: u32) -> Box<dyn Iterator<Item = &'o Pod> + 'o> {
    match target {
        None | Some(Target::Itself) => Box::new(observed.pods.get(&about).into_iter()),
        Some(Target::Ordinal(ordinal)) => Box::new(observed.pods.get(ordinal).into_iter()),
        Some(Target::All) => Box::new(observed.pods.values()),
        Some(Target::Any) => {
            let peers = observed.pods.iter().filter(move |(ordinal, pod)| **ordinal != about && pod.serves());
            Box::new(peers.map(|(_, pod)| pod).chain(observed.pods.get(&about)))
        }
        Some(Target::Role(role)) => {
            let role = role.clone();
            Box::new(observed.pods.values().filter(move |pod| pod.role.as_deref() == Some(role.as_str())))
        }
    }
}
