//! The brake: a namespace in which more hooks are due than run at once is said to be braked, once when that begins and once when it is over. Which
//! namespace gets the next place is decided by [`Runs`](super::runs::Runs), braked or not.

use std::collections::BTreeMap;
use std::time::Duration;

use prometheus::{IntGauge, Registry};
use tokio::time::Instant;

use super::SetKey;

/// A run that waits for a place no longer than this says nothing: five hooks of 2 s, one after the other, before it in each place. So nine pods
/// that fail together wait in silence where eight run at once, and so do forty.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);

/// It is over when no run has waited for so long within this time: three times as long as what sets it in, so that it cannot come and go within a storm.
pub(super) const CALM: Duration = Duration::from_secs(30);

/// The namespaces that are braked.
#[derive(Default)]
pub(super) struct Brakes(BTreeMap<String, Brake>);

struct Brake {
    /// The set whose run was the first to wait for so long.
    set: SetKey,
    began: Instant,
    /// Since when no run has waited for so long.
    calm: Option<Instant>,
}

/// What is said of a namespace, on a set of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Said {
    /// The set whose run was the first to wait for so long.
    pub(super) set: SetKey,
    /// How long it was braked, to the moment from which nobody waited for so long; `None`: it is from now on.
    pub(super) lasted: Option<Duration>,
}

/// What is seen of the brakes.
pub(super) struct Metrics {
    waiting: IntGauge,
    braked: IntGauge,
}

impl Metrics {
    pub(super) fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let gauge = |name: &str, help: &str| {
            let gauge = IntGauge::new(name, help)?;
            registry.register(Box::new(gauge.clone()))?;
            Ok::<_, prometheus::Error>(gauge)
        };
        Ok(Self {
            waiting: gauge("guardian_waiting_runs", "Runs of hooks that wait for a place")?,
            braked: gauge("guardian_braked_namespaces", "Namespaces in which hooks have waited for a place for more than 10 s")?,
        })
    }

    /// So many runs wait, and these namespaces are braked.
    pub(super) fn show(&self, waiting: usize, brakes: &Brakes) {
        self.waiting.set(i64::try_from(waiting).unwrap_or(i64::MAX));
        self.braked.set(i64::try_from(brakes.0.len()).unwrap_or(i64::MAX));
    }
}

impl Brakes {
    /// Looks at the run of each namespace that waits longest, and since when. Yields what there is to say, and when to look again, if no run begins,
    /// ends or comes before.
    pub(super) fn look(&mut self, longest: &BTreeMap<String, (Instant, SetKey)>, now: Instant) -> (Vec<Said>, Option<Instant>) {
        let (mut said, mut again) = (Vec::new(), Vec::new());
        for (namespace, (since, set)) in longest {
            let late = *since + PATIENCE;
            if late > now {
                again.push(late);
            } else if let Some(brake) = self.0.get_mut(namespace) {
                brake.calm = None;
            } else {
                self.0.insert(namespace.clone(), Brake { set: set.clone(), began: now, calm: None });
                said.push(Said { set: set.clone(), lasted: None });
            }
        }
        self.0.retain(|namespace, brake| {
            if longest.get(namespace).is_some_and(|(since, _)| *since + PATIENCE <= now) {
                return true;
            }
            let calm = *brake.calm.get_or_insert(now);
            let over = now >= calm + CALM;
            if over {
                said.push(Said { set: brake.set.clone(), lasted: Some(calm.duration_since(brake.began)) });
            } else {
                again.push(calm + CALM);
            }
            !over
        });
        (said, again.into_iter().min())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is said, second by second, while the run that waits longest has done so for so many seconds.
    fn play(waits: impl IntoIterator<Item = Option<u64>>) -> Vec<(u64, Option<u64>)> {
        let (mut brakes, begin, mut all) = (Brakes::default(), Instant::now() + Duration::from_secs(1000), Vec::new());
        for (second, waits) in (0..).zip(waits) {
            let now = begin + Duration::from_secs(second);
            let set = SetKey { namespace: "storm".to_owned(), name: "redis".to_owned() };
            let longest = waits.map(|waits| ("storm".to_owned(), (now - Duration::from_secs(waits), set)));
            let (said, _) = brakes.look(&longest.into_iter().collect(), now);
            all.extend(said.into_iter().map(|said| (second, said.lasted.map(|lasted| lasted.as_secs()))));
        }
        all
    }

    #[test]
    fn what_waits_for_a_moment_says_nothing() {
        assert_eq!(play((0..100).map(|second| (second % 11 != 10).then_some(second % 11))), []);
    }

    #[test]
    fn a_storm_is_said_when_it_begins_and_when_it_is_over_however_its_waves_come() {
        let waves = (0..60).map(Some).chain([None; 25]).chain((0..40).map(Some)).chain([Some(9); 20]).chain([None; 20]);
        // 60 s to the first wave's end; 25 s and 10 s are more than what ends it.
        assert_eq!(play(waves), [(10, None), (90, Some(50)), (95, None), (155, Some(30))]);
        let waves = (0..60).map(Some).chain([None; 15]).chain((0..40).map(Some)).chain([None; 40]);
        assert_eq!(play(waves), [(10, None), (145, Some(105))], "one storm");
    }

    #[test]
    fn it_is_looked_at_again_when_a_wait_gets_long_and_when_calm_has_lasted() {
        let (mut brakes, begin) = (Brakes::default(), Instant::now());
        let set = SetKey { namespace: "storm".to_owned(), name: "redis".to_owned() };
        let longest = BTreeMap::from([("storm".to_owned(), (begin, set))]);
        assert_eq!(brakes.look(&longest, begin).1, Some(begin + PATIENCE));
        assert_eq!(brakes.look(&longest, begin + PATIENCE).1, None, "only a run that begins, ends or comes makes a difference");
        let calm = begin + PATIENCE * 2;
        assert_eq!(brakes.look(&BTreeMap::new(), calm).1, Some(calm + CALM));
        assert_eq!(brakes.look(&BTreeMap::new(), calm + CALM).1, None);
    }
}
