//! What somebody asks of the API server: evictions, and other numbers of replicas. Our own webhook answers with the rules of the core.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::SignedDuration;
use serde_json::{Value, json};

use super::figures::{ASK_AGAIN, ASK_BUDGET_AGAIN};
use super::line::What;
use super::world::{Event, Id, World};
use crate::admission::{self, Decision, Known, Review, Snapshot, Verdict};
use crate::lifecycle::HandOver;
use crate::names;

/// Why a request was denied.
pub(super) struct Denied {
    /// A word that stays the same as long as the reason does.
    word: String,
    pub(super) message: String,
    again: SignedDuration,
}

impl World<'_> {
    /// Somebody who drains a node asks for the eviction, and again, until it is granted.
    pub(super) fn asks_eviction(&mut self, id: Id, told: &str) {
        if self.pod(&id).is_none_or(|pod| pod.terminating()) {
            return;
        }
        let name = self.name(id.ordinal);
        match self.evict(id.ordinal) {
            Ok(warnings) => {
                let warnings: String = warnings.iter().map(|warning| format!("; {warning}")).collect();
                self.tell(What::Cluster, Some(&name), format!("its eviction is granted{warnings}"));
                self.goes(id.ordinal, Some("EvictionByEvictionAPI"));
            }
            Err(Denied { word, message, again }) => {
                if word != told {
                    self.tell(What::Cluster, Some(&name), format!("its eviction is refused ({word}): {message}"));
                }
                self.after(again, Event::Evict { pod: id, told: word });
            }
        }
    }

    /// What the API server says to an eviction, with its warnings: first our webhook, then the budgets.
    pub(super) fn evict(&mut self, ordinal: u32) -> Result<Vec<String>, Denied> {
        let Some(pod) = self.observed.pods.get(&ordinal).cloned() else { return Ok(Vec::new()) };
        let role = pod.role.iter().map(|role| (names::ROLE.to_owned(), role.clone()));
        let known = admission::Pod {
            uid: pod.uid.clone(),
            labels: role.chain([(names::GUARDED.to_owned(), "true".to_owned())]).collect(),
            terminating: pod.terminating(),
            ready: pod.ready,
            set: Some(self.observed.set.name.clone()),
        };
        let began = self.observed.hand_overs.iter().find(|asked| asked.pod_uid == pod.uid).map(|asked| asked.began);
        let mut snapshot = self.snapshot();
        snapshot.pods = of(&self.observed.namespace, &pod.name, known);
        snapshot.hand_overs = BTreeMap::from([(pod.uid.clone(), began)]);
        let request = json!({
            "kind": {"group": "policy", "version": "v1", "kind": "Eviction"}, "subResource": "eviction", "operation": "CREATE",
            "resource": {"group": "", "version": "v1", "resource": "pods"}, "name": pod.name,
            "object": {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": pod.name}},
        });
        let verdict = self.ask(request, &snapshot);
        if let Some(hand_over) = verdict.as_ref().and_then(|verdict| verdict.hand_over.as_ref()) {
            let (lease, uid) = (format!("{}{}", names::HAND_OVER_PREFIX, hand_over.pod_uid), self.next_id());
            let (pod, pod_uid, version) = (pod.name.clone(), pod.uid.clone(), "1".to_owned());
            self.observed.hand_overs.push(HandOver { lease, uid, version, pod, pod_uid, began: self.now });
        }
        let warnings = granted(verdict, ASK_AGAIN)?;
        self.budgets_allow(pod.ready).map(|()| warnings)
    }

    /// A pod that two budgets select is never evicted; one that is not ready always, where the budget says so.
    fn budgets_allow(&self, is_ready: bool) -> Result<(), Denied> {
        let again = ASK_BUDGET_AGAIN;
        let budgets = &self.observed.budgets;
        if let [one, other, ..] = budgets.as_slice() {
            let message = format!("the PodDisruptionBudgets {} and {} both select it", one.name, other.name);
            return Err(Denied { word: "TwoBudgets".to_owned(), message, again });
        }
        let Some(budget) = budgets.first() else { return Ok(()) };
        let replicas = self.observed.set.ordinals.len();
        let other = self.subject.budgets.iter().find(|other| !budget.is_ours && other.name == budget.name);
        let most = budget.max_unavailable.and_then(|most| usize::try_from(most).ok()).unwrap_or_default();
        let needed = other.map_or(replicas.saturating_sub(most), |other| other.needs(replicas));
        let ready = self.observed.pods.values().filter(|pod| pod.serves()).count();
        let passes = !is_ready && (other.is_none_or(|other| other.lets_unready_go) || ready >= needed);
        if passes || ready > needed {
            return Ok(());
        }
        let message = format!("PodDisruptionBudget {} wants {needed} ready, and {ready} are", budget.name);
        Err(Denied { word: "DisruptionBudget".to_owned(), message, again })
    }

    /// Somebody wants so many replicas, and gets them unless our webhook denies it.
    pub(super) fn asks_scale(&mut self, to: u32) {
        let start = self.observed.set.ordinals.start;
        let scale = |replicas: usize| json!({"metadata": {"name": self.observed.set.name}, "spec": {"replicas": replicas}});
        let wanted = usize::try_from(to).unwrap_or(usize::MAX);
        let request = json!({
            "kind": {"group": "autoscaling", "version": "v1", "kind": "Scale"}, "subResource": "scale", "operation": "UPDATE",
            "resource": {"group": "apps", "version": "v1", "resource": "statefulsets"}, "name": self.observed.set.name,
            "object": scale(wanted), "oldObject": scale(self.observed.set.ordinals.len()),
        });
        let verdict = self.ask(request, &self.snapshot());
        if let Err(Denied { word, message, .. }) = granted(verdict, SignedDuration::ZERO) {
            return self.tell(What::Cluster, None, format!("{to} replicas are denied ({word}): {message}"));
        }
        self.observed.set.ordinals = start..start.saturating_add(to);
        self.observed.set.unchanged = false;
        self.tell(What::Cluster, None, format!("the set is to have {to} replicas"));
    }

    /// What our webhook says to a request; `None` of one that it cannot read, which goes through.
    fn ask(&self, mut request: Value, snapshot: &Snapshot) -> Option<Verdict> {
        if let Some(members) = request.as_object_mut() {
            members.insert("uid".to_owned(), json!("offline"));
            members.insert("namespace".to_owned(), json!(self.observed.namespace));
        }
        let body = json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": request}).to_string();
        Some(admission::validate(&Review::parse(&body).ok()?, snapshot, self.now))
    }

    /// What our webhook knows.
    fn snapshot(&self) -> Snapshot {
        let (namespace, set) = (&self.observed.namespace, &self.observed.set);
        let known = Known {
            labels: self.subject.labels.clone(),
            annotations: self.subject.annotations.clone(),
            terminating: false,
            replicas: i64::try_from(set.ordinals.len()).ok(),
        };
        Snapshot {
            policies: of(namespace, &self.policy.name, Arc::new(self.policy.clone())),
            sets: of(namespace, &set.name, known),
            namespaces: BTreeMap::from([(namespace.clone(), Known::default())]),
            ..Snapshot::default()
        }
    }
}

fn of<T>(namespace: &str, name: &str, known: T) -> BTreeMap<String, BTreeMap<String, T>> {
    BTreeMap::from([(namespace.to_owned(), BTreeMap::from([(name.to_owned(), known)]))])
}

/// The warnings of what is granted.
fn granted(verdict: Option<Verdict>, again: SignedDuration) -> Result<Vec<String>, Denied> {
    let Some(Verdict { decision, reason, warnings, .. }) = verdict else { return Ok(Vec::new()) };
    match decision {
        Decision::Denied { message, .. } => Err(Denied { word: format!("{reason:?}"), message, again }),
        Decision::Allowed | Decision::Patched => Ok(warnings),
    }
}
