//! How often the readiness of pods has changed lately, counted as it is seen. Kept in memory alone: what a new process must not get wrong it learns from
//! `lastTransitionTime`, which Kubernetes keeps.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use guardian_core::lifecycle::Toggles;
use jiff::Timestamp;

use super::observed::Pod;

/// From so many pods on, those whose changes mean nothing any more are forgotten with each that comes: 100 bytes each, so 0.1 MB at rest.
const MANY: usize = 1000;

/// Of all pods whose readiness changed lately, by uid.
#[derive(Default)]
pub(super) struct Readiness(Mutex<BTreeMap<String, Toggles>>);

impl Readiness {
    /// A pod is seen, which was seen before like this, by whoever watches since `began`.
    pub(super) fn see(&self, before: Option<&Pod>, pod: &Pod, began: Timestamp, now: Timestamp) {
        let Some(uid) = pod.metadata.uid.as_ref() else { return };
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some((ready, since)) = pod.readiness() else { return };
        let toggles = match before.filter(|before| before.metadata.uid.as_ref() == Some(uid)) {
            None => {
                let was_there = pod.metadata.creation_timestamp.as_ref().is_none_or(|created| created.0 < began);
                since.filter(|_| was_there).map(|since| Toggles::unwatched(since.min(now)))
            }
            Some(before) => {
                let (was_ready, was_since) = before.readiness().unwrap_or_default();
                // Seen as it was, but since another time: it went and came back between two looks.
                let is_back = since.is_some() && was_since.is_some() && since != was_since;
                let changes = if was_ready != ready { 1 } else { 2 * u32::from(is_back) };
                (changes > 0).then(|| Toggles::changed(all.get(uid), changes, now))
            }
        };
        if let Some(toggles) = toggles.filter(|toggles| !toggles.is_over(now)) {
            if all.len() >= MANY {
                all.retain(|_, toggles| !toggles.is_over(now));
            }
            all.insert(uid.clone(), toggles);
        }
    }

    /// A pod is gone.
    pub(super) fn forget(&self, pod: &Pod) {
        let uid = pod.metadata.uid.as_deref().unwrap_or_default();
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(uid);
    }

    /// What is known of a pod.
    pub(super) fn of(&self, uid: &str) -> Option<Toggles> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(uid).cloned()
    }
}

#[cfg(test)]
mod tests {
    use jiff::SignedDuration;
    use serde_json::{Value, json};

    use super::*;

    const BEGAN: &str = "2027-01-15T08:00:00Z";

    fn pod(created: &str, ready: bool, since: &str) -> Pod {
        let condition = json!({"type": "Ready", "status": if ready { "True" } else { "False" }, "lastTransitionTime": since});
        let metadata: Value = json!({"name": "redis-0", "uid": "u", "creationTimestamp": created});
        serde_json::from_value(json!({"metadata": metadata, "status": {"conditions": [condition]}})).unwrap()
    }

    fn at(seconds: i64) -> Timestamp {
        BEGAN.parse::<Timestamp>().unwrap() + SignedDuration::from_secs(seconds)
    }

    #[test]
    fn a_pod_that_has_changed_shortly_before_anybody_watched_may_have_done_so_often() {
        type Case<'c> = (&'c str, &'c str, Option<bool>);
        let cases: [Case<'_>; 4] = [
            ("2027-01-15T07:00:00Z", "2027-01-15T07:59:30Z", Some(false)),
            ("2027-01-15T07:00:00Z", "2027-01-15T07:50:00Z", None),
            // A kubelet whose clock is ahead.
            ("2027-01-15T07:00:00Z", "2027-01-15T09:00:00Z", Some(false)),
            ("2027-01-15T08:00:00Z", "2027-01-15T08:00:00Z", None),
        ];
        for (created, since, whole) in cases {
            let readiness = Readiness::default();
            readiness.see(None, &pod(created, true, since), at(0), at(1));
            let known = readiness.of("u");
            assert_eq!(known.as_ref().map(|toggles| toggles.whole), whole, "{created} {since}");
            assert!(known.is_none_or(|toggles| toggles.last <= at(1)));
        }
    }

    #[test]
    fn changes_are_counted_as_they_are_seen_and_those_between_two_looks_as_two() {
        let readiness = Readiness::default();
        let created = "2027-01-15T08:00:00Z";
        let seen = [
            (pod(created, false, "2027-01-15T08:00:00Z"), 0),
            (pod(created, true, "2027-01-15T08:00:10Z"), 1),
            // Something else of it has changed.
            (pod(created, true, "2027-01-15T08:00:10Z"), 1),
            (pod(created, true, "2027-01-15T08:00:50Z"), 3),
            (pod(created, false, "2027-01-15T08:01:00Z"), 4),
        ];
        let mut before = None;
        for (n, (pod, changes)) in (1..).zip(&seen) {
            readiness.see(before, pod, at(0), at(n * 20));
            assert_eq!(readiness.of("u").map_or(0, |toggles| toggles.changes), *changes, "look {n}");
            before = Some(pod);
        }
        readiness.forget(&seen[4].0);
        assert_eq!(readiness.of("u"), None);
    }
}
