//! Traffic: which pods the Services of `traffic` send to.
//!
//! The label `serving` comes with the template, so a pod serves from its first moment without anybody's doing. A Service selects by it only while
//! every pod of the set has it, and so does the template: then nothing is lost by it, whatever becomes of the guardian. A pod is shed for a time: its
//! label says `"false"`, and the ledger until when. The last pod that serves is never shed.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;

use super::attempt::{self, Progress, step};
use super::decide::{Decision, Next, Scenario, View};
use super::observed::Pod;
use super::step::{Settles, Step};
use crate::ledger::{Episode, Record, Scope, Shed, Verdict};
use crate::policy::Policy;
use crate::reason;

pub(super) const SCENARIO: Scenario = Scenario { name: NAME, next };

const NAME: &str = "shed";
const LAST: &str = "no other pod serves";
/// The hook that ends the connections which a shed pod still has.
pub(crate) const DRAIN: &str = "drain";

/// A Service that selects pods of the set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// `metadata.name`.
    pub name: String,
    /// `metadata.uid`.
    pub uid: String,
    /// `metadata.resourceVersion`.
    pub version: String,
    /// Its selector asks for the label `serving`.
    pub asks: bool,
    /// It gives pods their names, or sends to pods that are not ready: no pod may be missing from it.
    pub names_pods: bool,
}

/// A Service whose selector has to change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reselect {
    /// The Service.
    pub service: Service,
    /// Shall it ask for the label?
    pub asks: bool,
}

/// A pod whose label has to change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Serve {
    /// Name of the pod.
    pub pod: String,
    /// `metadata.uid` of the pod.
    pub pod_uid: String,
    /// Shall Services send to it?
    pub serving: bool,
}

/// What a person asks for, on the pod itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShedRequest {
    /// Until when.
    pub until: Timestamp,
    /// In his words; may be empty.
    pub why: String,
}

/// Which labels and selectors have to change.
pub(super) fn keep(view: &View<'_>, decision: &mut Decision) {
    let (observed, sheds) = (view.observed, &view.ledger.sheds);
    let relabel = |pod: &Pod| {
        let serving = !sheds.contains_key(&pod.uid);
        let differs = pod.serving.is_some_and(|now| now != serving) && !pod.terminating();
        differs.then(|| Serve { pod: pod.name.clone(), pod_uid: pod.uid.clone(), serving })
    };
    decision.levels.serving = observed.pods.values().filter_map(relabel).collect();

    let wanted: BTreeSet<&str> = named(view.policy).collect();
    let (mut labelled, mut serves) = (observed.set.serves, false);
    for pod in observed.pods.values().filter(|pod| !pod.terminating()) {
        labelled &= pod.serving.is_some();
        serves |= pod.ready && pod.serving == Some(true);
    }
    for service in &observed.services {
        let asks = wanted.contains(service.name.as_str()) && !service.names_pods && labelled;
        // One that nobody serves yet would be emptied.
        if asks != service.asks && (serves || !asks) {
            decision.levels.selectors.push(Reselect { service: service.clone(), asks });
        }
    }
    for name in wanted {
        let why = match observed.services.iter().find(|service| service.name == name) {
            None => format!("no Service {name} selects pods of the set"),
            Some(service) if service.names_pods => {
                format!(
                    "Service {name} is headless, gives the pods their names, or sends to pods that are not ready: it is left as it is"
                )
            }
            Some(_) if !labelled => format!(
                "Service {name} sends to every pod until all of them have the label {}, which comes with the next change of the template",
                crate::names::SERVING
            ),
            Some(_) => continue,
        };
        decision.hold(NAME, reason::Hold::NotSelected, why);
    }
}

fn named(policy: Option<&Policy>) -> impl Iterator<Item = &str> {
    policy.and_then(|policy| policy.traffic.as_ref()).into_iter().flat_map(|t| &t.services).map(String::as_str)
}

fn next(view: &View<'_>) -> Vec<Next> {
    let pods: BTreeMap<&str, &Pod> = view.observed.pods.values().map(|pod| (pod.uid.as_str(), pod)).collect();
    let mut serving = serving(view);
    let mut all: Vec<Next> = attempt::open(view, NAME).filter_map(|course| drained(&course)).collect();
    for (uid, shed) in &view.ledger.sheds {
        let pod = pods.get(uid.as_str()).copied();
        match over(view, shed, pod, serving.is_empty()) {
            Some(why) => {
                serving.extend(pod.filter(|pod| pod.serves()).map(|pod| pod.uid.as_str()));
                all.push(step(Step::Restore {
                    pod_uid: uid.clone(),
                    record: pod.map(|_| record(view, shed, uid, "serves again", &why)),
                }));
            }
            None => {
                all.extend(shed.until.map(|until| Next::Wait { until }));
                all.extend(pod.filter(|pod| pod.serving == Some(false)).and_then(|pod| drain(view, shed, pod)));
            }
        }
    }
    let asked = pods.values().filter_map(|pod| Some((*pod, pod.shed.as_ref()?)));
    for (pod, asked) in asked.filter(|(pod, asked)| asked.until > view.now && !view.ledger.sheds.contains_key(&pod.uid)) {
        all.push(begin(view, pod, asked, &mut serving));
    }
    all
}

/// What sheds a pod for a rule, as long as that has set in.
///
/// # Errors
/// Why it cannot be shed.
pub(super) fn shed_for(view: &View<'_>, pod: &Pod, rule: &str, why: &str) -> Result<Shed, String> {
    may_shed(view, pod, &serving(view)).map_err(|(_, why)| why)?;
    Ok(Shed { by: Some(rule.to_owned()), ..shed(view, pod, why) })
}

/// The pods that Services send to, by uid.
fn serving<'v>(view: &View<'v>) -> BTreeSet<&'v str> {
    let serving = view.observed.pods.values().filter(|pod| pod.serves() && !view.ledger.sheds.contains_key(&pod.uid));
    serving.map(|pod| pod.uid.as_str()).collect()
}

fn may_shed(view: &View<'_>, pod: &Pod, serving: &BTreeSet<&str>) -> Result<(), (reason::Hold, String)> {
    let name = &pod.name;
    if named(view.policy).next().is_none() || pod.serving.is_none() {
        let why = "its policy names no Service in `traffic`, or its template is older than that";
        return Err((reason::Hold::NotSelected, format!("pod {name} cannot be shed: {why}")));
    }
    // One that flaps would begin and end the shed of another each time.
    let stays = |other: &&Pod| other.uid != pod.uid && serving.contains(other.uid.as_str()) && view.is_steady(other);
    if !view.observed.pods.values().any(|other| stays(&other)) {
        return Err((reason::Hold::Quorum, format!("pod {name} is not shed: no other pod serves")));
    }
    Ok(())
}

fn shed(view: &View<'_>, pod: &Pod, why: &str) -> Shed {
    let (pod, why) = (pod.name.clone(), why.to_owned());
    Shed { pod, since: view.now, until: None, by: None, why, drained: false, rest: BTreeMap::new() }
}

/// A pod is asked to be shed.
fn begin<'v>(view: &View<'_>, pod: &'v Pod, asked: &ShedRequest, serving: &mut BTreeSet<&'v str>) -> Next {
    let shed = match may_shed(view, pod, serving) {
        Ok(()) => Shed { until: Some(asked.until), ..shed(view, pod, &asked.why) },
        Err((reason, why)) => return Next::Hold { until: Some(asked.until), reason, why },
    };
    serving.remove(pod.uid.as_str());
    let why = if asked.why.is_empty() { "somebody asks for it" } else { &asked.why };
    let record = record(view, &shed, &pod.uid, &format!("is sent nothing new until {}", asked.until), why);
    step(Step::Shed { pod_uid: pod.uid.clone(), shed: Box::new(shed), record })
}

/// Why a pod is not to be shed any longer.
fn over(view: &View<'_>, shed: &Shed, pod: Option<&Pod>, is_last: bool) -> Option<String> {
    let Some(pod) = pod else { return Some("the pod is gone".to_owned()) };
    if named(view.policy).next().is_none() {
        Some("its policy names no Service any more".to_owned())
    } else if shed.until.is_some_and(|until| view.now >= until) {
        Some("its time is over".to_owned())
    } else if let Some(key) = &shed.by {
        let lasts = view.ledger.rules.get(key).is_some_and(|fired| fired.over.is_none());
        (!lasts).then(|| "its rule is over".to_owned()).or_else(|| (is_last && pod.serves()).then(|| LAST.to_owned()))
    } else if pod.shed.is_none() {
        Some("nobody asks for it any more".to_owned())
    } else if is_last && pod.serves() {
        Some(LAST.to_owned())
    } else {
        None
    }
}

fn record(view: &View<'_>, shed: &Shed, pod_uid: &str, what: &str, why: &str) -> Record {
    Record {
        at: view.now,
        hook: NAME.to_owned(),
        reason: reason::Start::Requested.to_string(),
        verdict: Verdict::Succeeded,
        pod: shed.pod.clone(),
        pod_uid: pod_uid.to_owned(),
        // Of each shed of a pod one, and one of its end: what tells them apart in the names of their Events.
        run: Some(format!("{NAME}-{}-{what}", shed.since.as_millisecond())),
        attempt: None,
        message: format!("{what}: {why}"),
        rest: BTreeMap::new(),
    }
}

/// The hook that ends the connections of a shed pod, once.
fn drain(view: &View<'_>, shed: &Shed, pod: &Pod) -> Option<Next> {
    let hook = view.policy?.run_by_controller(DRAIN)?;
    let (ordinal, id) = (view.observed.ordinal_of(pod)?, format!("{NAME}-{}-{}", pod.uid, shed.since.as_millisecond()));
    if shed.drained || view.ledger.episodes.contains_key(&id) || !view.takes(hook, pod) {
        return None;
    }
    let episode = Episode {
        scenario: NAME.to_owned(),
        hook: DRAIN.to_owned(),
        then: None,
        scope: Scope::Pod(pod.uid.clone()),
        reason: reason::Start::Requested.to_string(),
        why: "the pod is shed".to_owned(),
        pod: pod.name.clone(),
        ordinal: Some(ordinal),
        old_ip: None,
        start: view.start(ordinal, pod),
        opened: view.now,
        attempts: 0,
        next: None,
        resize: None,
        rest: BTreeMap::new(),
    };
    Some(attempt::attempt(view, &id, &episode, hook, pod))
}

fn drained(course: &attempt::Course<'_>) -> Option<Next> {
    let over = match course.advance()? {
        Progress::On(next) => return Some(next),
        Progress::Over(over) => over,
    };
    let settles = Settles::Drained { pod_uid: course.start.pod_uid.clone() };
    Some(step(Step::Close { episode_id: course.id.to_owned(), record: over.record, settles }))
}

#[cfg(test)]
mod tests;
