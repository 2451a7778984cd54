//! Which pods do not know the members of their set, and why.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use guardian_core::probe::{End, Failure, output};
use guardian_hook::protocol::{MEMBERS, PUT_TAKES, RunResult, Sample};

use super::{Asking, Container, Subject};
use crate::controller::SetKey;

/// What went wrong.
#[derive(Default)]
pub(super) struct Told(Mutex<Untold>);

/// By set and uid of the pod: its name, and a sentence.
type Untold = BTreeMap<SetKey, BTreeMap<String, (String, String)>>;

impl Told {
    /// These are told from now on; the others are forgotten, and a container that does not run has nobody to know it.
    pub(super) fn keep(&self, set: &SetKey, asked: &BTreeMap<Container, Asking>) {
        let is_told = |uid: &str| {
            asked.iter().any(|(container, asking)| {
                container.pod_uid == uid && asking.runs && asking.subjects.iter().any(Subject::is_members)
            })
        };
        let mut all = self.failed();
        if let Some(failed) = all.get_mut(set) {
            failed.retain(|uid, _| is_told(uid));
            if failed.is_empty() {
                all.remove(set);
            }
        }
    }

    /// Keeps how it went; says whether that is news.
    pub(super) fn hear(&self, set: &SetKey, (pod_uid, pod): (&str, &str), answer: Result<&Sample, Failure>) -> bool {
        let failure = answer.and_then(written).err();
        let mut all = self.failed();
        let Some(Failure { why, .. }) = failure else {
            let was = all.get_mut(set).and_then(|failed| failed.remove(pod_uid));
            if was.is_some() {
                tracing::info!(namespace = set.namespace, set = set.name, pod, "it knows the members of its set again");
            }
            return was.is_some();
        };
        let failed = all.entry(set.clone()).or_default();
        if failed.contains_key(pod_uid) {
            return false;
        }
        tracing::warn!(namespace = set.namespace, set = set.name, pod, why, "it is not told the members of its set");
        failed.insert(pod_uid.to_owned(), (pod.to_owned(), why));
        true
    }

    /// Of the first pod by name that was not told: what came first is what is said, or every change of its words would be news.
    pub(super) fn why_not(&self, set: &SetKey) -> Option<String> {
        let all = self.failed();
        let (pod, why) = all.get(set)?.values().min()?;
        Some(format!("{MEMBERS} of pod {pod} is not current: {why}"))
    }

    fn failed(&self) -> MutexGuard<'_, Untold> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A runner from before there was such a command ends with 2, as for all that it does not know.
fn written(answer: &Sample) -> Result<(), Failure> {
    if answer.result == (RunResult::Exited { code: 2 }) && !answer.stderr.text.contains(PUT_TAKES) {
        let why = "its runner is from before there was one: the next template change brings a newer runner".to_owned();
        return Err(Failure { end: End::Unable, why });
    }
    output(answer).map(drop).map_err(|failure| Failure { why: format!("writing it {}", failure.why), ..failure })
}
