//! What the pods say of their roles, kept until the pods are gone.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use guardian_core::lifecycle;
use guardian_core::probe::Failure;
use guardian_core::role::{self, Claim, Silence, Witness};
use guardian_hook::protocol::Sample;
use prometheus::IntCounterVec;

use super::SetKey;
use super::clock::Clock;
use super::collect::{Asking, Container, Subject};

/// What was heard of all pods that are asked for their role.
pub(super) struct Roles {
    clock: Clock,
    answers: IntCounterVec,
    /// By set, then by uid.
    witnesses: Mutex<BTreeMap<SetKey, BTreeMap<String, Witness>>>,
}

impl Roles {
    pub(super) fn new(clock: Clock, answers: IntCounterVec) -> Self {
        Self { clock, answers, witnesses: Mutex::default() }
    }

    /// This is asked of the pods of the set from now on. A pod that is not asked for its role is forgotten; one whose container does not run is silent.
    pub(super) fn keep(&self, set: &SetKey, asked: &BTreeMap<Container, Asking>) {
        let now = self.clock.now();
        let of_role = asked.iter().filter(|(_, asking)| asking.subjects.iter().any(Subject::is_role));
        let pods: BTreeMap<&str, bool> = of_role.map(|(container, asking)| (container.pod_uid.as_str(), asking.runs)).collect();
        let mut all = self.witnesses();
        if pods.is_empty() {
            all.remove(set);
            return;
        }
        let witnesses = all.entry(set.clone()).or_default();
        witnesses.retain(|uid, _| pods.contains_key(uid.as_str()));
        for (uid, runs) in pods {
            let witness = witnesses.entry(uid.to_owned()).or_insert(Witness { since: now, claim: None, silence: None });
            if !runs {
                witness.silence.get_or_insert(Silence { since: now, why: None });
            }
        }
    }

    /// What was heard of these pods of a set, by ordinal.
    pub(super) fn of(&self, set: &SetKey, pods: &BTreeMap<u32, lifecycle::Pod>) -> BTreeMap<u32, Witness> {
        let all = self.witnesses();
        let Some(witnesses) = all.get(set) else { return BTreeMap::new() };
        pods.iter().filter_map(|(ordinal, pod)| Some((*ordinal, witnesses.get(&pod.uid)?.clone()))).collect()
    }

    /// Keeps what a pod has said; says whether that is news.
    pub(super) fn hear(&self, set: &SetKey, pod_uid: &str, answer: Result<&Sample, Failure>) -> bool {
        let age_ms = answer.as_ref().ok().and_then(|sample| sample.age_ms);
        let (word, told) = match answer.map(role::judge) {
            Ok(Ok(claim)) => ("claim", Ok(claim)),
            Ok(Err(why)) => ("refused", Err(why)),
            Err(Failure { end, why }) => (end.as_str(), Err(why)),
        };
        self.answers.with_label_values(&[word]).inc();
        let now = before(self.clock.now(), age_ms);
        let mut all = self.witnesses();
        all.get_mut(set).and_then(|witnesses| witnesses.get_mut(pod_uid)).is_some_and(|witness| hears(witness, told, now))
    }

    fn witnesses(&self) -> MutexGuard<'_, BTreeMap<SetKey, BTreeMap<String, Witness>>> {
        self.witnesses.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// When an answer came that is so old.
pub(super) fn before(now: jiff::Timestamp, age_ms: Option<u64>) -> jiff::Timestamp {
    let age = Duration::from_millis(age_ms.unwrap_or_default());
    now.checked_sub(age).unwrap_or(now)
}

/// Takes what a pod has said; says whether that changes anything but the time.
fn hears(witness: &mut Witness, told: Result<Claim, String>, now: jiff::Timestamp) -> bool {
    match told {
        Ok(claim) => {
            let same = witness.claim.as_ref().is_some_and(|(before, _)| *before == claim);
            witness.claim = Some((claim, now));
            witness.silence.take().is_some() || !same
        }
        // What came first is what is told, or every change of its words would be news.
        Err(why) => match &mut witness.silence {
            Some(Silence { why: Some(_), .. }) => false,
            silence => {
                let since = silence.as_ref().map_or(now, |silence| silence.since);
                *silence = Some(Silence { since, why: Some(why) });
                true
            }
        },
    }
}
