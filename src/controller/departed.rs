//! What was last seen of pods that went away, for those that come in their place. It outlives their set: one that is made again on its volumes learns that
//! its pods were deleted.

use std::collections::BTreeMap;

use guardian_core::lifecycle::Departed;

/// Most pods that are remembered, of about 200 bytes each: 2 MB. Beyond, the one that went first is forgotten, and the reason of a start may be `Unknown`.
const MOST: usize = 10_000;

/// Namespace and name of a pod.
type Name = (String, String);

/// The pods that went away.
#[derive(Default)]
pub(super) struct Memory {
    by_name: BTreeMap<Name, (u64, Departed)>,
    by_age: BTreeMap<u64, Name>,
    /// How many were ever seen.
    seen: u64,
}

impl Memory {
    /// What was last seen of the pod of this name.
    pub(super) fn of(&self, name: &Name) -> Option<&Departed> {
        self.by_name.get(name).map(|(_, departed)| departed)
    }

    /// A pod goes, or goes on going: what was seen of it before still holds.
    pub(super) fn see(&mut self, name: Name, mut now: Departed) {
        if let Some((place, before)) = self.by_name.remove(&name) {
            self.by_age.remove(&place);
            if before.uid == now.uid {
                now.disruption = now.disruption.or(before.disruption);
                now.reason = now.reason.or(before.reason);
                now.node_lost |= before.node_lost;
            }
        }
        self.seen += 1;
        self.by_age.insert(self.seen, name.clone());
        self.by_name.insert(name, (self.seen, now));
        if self.by_name.len() > MOST
            && let Some((_, oldest)) = self.by_age.pop_first()
        {
            self.by_name.remove(&oldest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn departed(uid: &str, disruption: Option<&str>) -> Departed {
        Departed { uid: uid.into(), disruption: disruption.map(Into::into), ..Departed::default() }
    }

    fn name(pod: &str) -> Name {
        ("shop".into(), pod.into())
    }

    #[test]
    fn what_was_seen_of_a_pod_on_its_way_out_still_holds_when_it_is_gone_and_not_of_the_next_one() {
        let mut memory = Memory::default();
        memory.see(name("redis-0"), Departed { node_lost: true, ..departed("a", Some("EvictionByEvictionAPI")) });
        memory.see(name("redis-0"), departed("a", None));
        let seen = memory.of(&name("redis-0")).unwrap();
        assert_eq!((seen.disruption.as_deref(), seen.node_lost), (Some("EvictionByEvictionAPI"), true));
        memory.see(name("redis-0"), departed("b", None));
        assert_eq!(memory.of(&name("redis-0")), Some(&departed("b", None)));
    }

    #[test]
    fn the_pod_that_went_first_is_forgotten_first_whatever_its_name() {
        let mut memory = Memory::default();
        let pods: Vec<Name> = (0..MOST).rev().map(|n| name(&format!("redis-{n:05}"))).collect();
        for pod in &pods {
            memory.see(pod.clone(), departed("a", None));
        }
        // Seen again, it is not the one that went first any more.
        memory.see(pods[0].clone(), departed("a", None));
        memory.see(name("aaa-0"), departed("a", None));
        assert!(memory.of(&name("aaa-0")).is_some(), "it has just gone");
        assert!(memory.of(&pods[0]).is_some() && memory.of(&pods[1]).is_none() && memory.of(&pods[2]).is_some());
        assert_eq!((memory.by_name.len(), memory.by_age.len()), (MOST, MOST));
    }
}
