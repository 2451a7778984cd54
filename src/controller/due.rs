//! What is to be looked at, in which order: round robin over the namespaces that have something due, and first come, first served within one.
//!
//! A set is there once, however often something names it: until it is looked at, that it is to be is all there is to say. So where `n` other
//! namespaces have something due, the first set of a namespace is begun after at most `n` others; with `MAX_PASSES` places and passes
//! of a time `t` it waits for `t` until a place is free, and for `t * n / MAX_PASSES` more. The `k`th of its namespace waits `k` times as long.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use tokio::time::Instant;

use super::SetKey;

/// The sets that are to be looked at, now or later, and those that are being looked at.
#[derive(Default)]
pub(super) struct Due {
    sets: BTreeMap<SetKey, Stage>,
    /// The namespaces in which something is due, in the order of their turns.
    turns: VecDeque<String>,
    /// What is due in each of them, in the order in which it came to be.
    waiting: BTreeMap<String, VecDeque<SetKey>>,
    later: BTreeSet<(Instant, SetKey)>,
}

#[derive(Clone, Copy)]
enum Stage {
    Waits,
    /// `named`: something has named it since its pass began.
    UnderWay {
        named: bool,
    },
    Later(Instant),
}

impl Due {
    /// A set is to be looked at.
    pub(super) fn name(&mut self, set: SetKey) {
        match self.sets.get_mut(&set) {
            Some(Stage::Waits) => {}
            Some(Stage::UnderWay { named }) => *named = true,
            Some(Stage::Later(at)) => {
                let at = *at;
                self.later.remove(&(at, set.clone()));
                self.wait(set);
            }
            None => self.wait(set),
        }
    }

    /// When the next of those that are to be looked at later is due.
    pub(super) fn first(&self) -> Option<Instant> {
        self.later.first().map(|(at, _)| *at)
    }

    /// The set to look at next; its pass is under way from now on.
    pub(super) fn next(&mut self, now: Instant) -> Option<SetKey> {
        while let Some((at, set)) = self.later.first().cloned().filter(|(at, _)| *at <= now) {
            self.later.remove(&(at, set.clone()));
            self.wait(set);
        }
        let namespace = self.turns.pop_front()?;
        let waiting = self.waiting.get_mut(&namespace)?;
        let set = waiting.pop_front()?;
        if waiting.is_empty() {
            self.waiting.remove(&namespace);
        } else {
            self.turns.push_back(namespace);
        }
        self.sets.insert(set.clone(), Stage::UnderWay { named: false });
        Some(set)
    }

    /// The pass over a set has ended; it is to be looked at again then, or before, where something has named it meanwhile or does so yet.
    pub(super) fn ended(&mut self, set: SetKey, again: Option<Instant>) {
        match (self.sets.remove(&set), again) {
            (Some(Stage::UnderWay { named: true }), _) => self.wait(set),
            (_, Some(at)) => {
                self.sets.insert(set.clone(), Stage::Later(at));
                self.later.insert((at, set));
            }
            (_, None) => {}
        }
    }

    fn wait(&mut self, set: SetKey) {
        self.sets.insert(set.clone(), Stage::Waits);
        let waiting = self.waiting.entry(set.namespace.clone()).or_default();
        if waiting.is_empty() {
            self.turns.push_back(set.namespace.clone());
        }
        waiting.push_back(set);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn set(namespace: &str, n: usize) -> SetKey {
        SetKey { namespace: namespace.to_owned(), name: format!("set-{n}") }
    }

    /// All that is due, in its order; no pass ends meanwhile.
    fn drain(due: &mut Due, now: Instant) -> Vec<String> {
        std::iter::from_fn(|| due.next(now)).map(|set| format!("{}/{}", set.namespace, set.name)).collect()
    }

    #[test]
    fn a_set_of_another_namespace_has_its_turn_before_hundreds_that_were_due_before() {
        let (mut due, now) = (Due::default(), Instant::now());
        (0..500).for_each(|n| due.name(set("storm", n)));
        due.name(set("aside", 0));
        due.name(set("third", 0));
        due.name(set("aside", 1));
        let order = drain(&mut due, now);
        let places = ["storm/set-0", "aside/set-0", "third/set-0", "storm/set-1", "aside/set-1", "storm/set-2", "storm/set-3"];
        assert_eq!(order[..7], places);
        assert_eq!(order.len(), 503, "each once");
    }

    #[test]
    fn a_namespace_that_keeps_naming_its_sets_gets_no_second_turn_before_the_others() {
        let (mut due, now) = (Due::default(), Instant::now());
        (0..3).for_each(|n| due.name(set("a", n)));
        (0..2).for_each(|n| due.name(set("b", n)));
        let mut order = Vec::new();
        for _ in 0..6 {
            let next = due.next(now).unwrap();
            order.push(next.namespace.clone());
            // It is due again as soon as it is done.
            if next.namespace == "a" {
                due.name(next.clone());
            }
            due.ended(next, None);
        }
        assert_eq!(order, ["a", "b", "a", "b", "a", "a"]);
    }

    #[test]
    fn a_set_that_is_named_while_it_waits_is_looked_at_once() {
        let (mut due, now) = (Due::default(), Instant::now());
        for n in [0, 1, 0, 0, 1] {
            due.name(set("a", n));
        }
        assert_eq!(drain(&mut due, now), ["a/set-0", "a/set-1"]);
    }

    #[test]
    fn a_set_that_is_named_during_its_pass_is_looked_at_once_more_and_only_when_that_has_ended() {
        let (mut due, now) = (Due::default(), Instant::now());
        due.name(set("a", 0));
        let first = due.next(now).unwrap();
        due.name(first.clone());
        due.name(first.clone());
        assert_eq!(due.next(now), None, "never two passes over one set");
        due.ended(first.clone(), Some(now + Duration::from_secs(60)));
        assert_eq!(due.next(now), Some(first.clone()));
        assert_eq!(due.first(), None, "the pass that was asked for by time is made by this one");
        due.ended(first, None);
        assert_eq!((due.next(now), due.sets.len()), (None, 0), "and nothing is kept of it");
    }

    #[test]
    fn what_is_to_be_looked_at_later_is_at_its_time_or_as_soon_as_something_names_it_and_then_not_again() {
        let (mut due, now) = (Due::default(), Instant::now());
        let at = |seconds| now + Duration::from_secs(seconds);
        for (n, seconds) in [(0, 30), (1, 10), (2, 20)] {
            due.name(set("a", n));
            let named = due.next(now).unwrap();
            due.ended(named, Some(at(seconds)));
        }
        assert_eq!((due.first(), due.next(at(9))), (Some(at(10)), None));
        due.name(set("a", 2));
        assert_eq!(drain(&mut due, at(9)), ["a/set-2"]);
        assert_eq!(drain(&mut due, at(60)), ["a/set-1", "a/set-0"]);
        assert_eq!(due.first(), None);
    }
}
