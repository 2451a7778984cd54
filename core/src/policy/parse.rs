//! From the data of a ConfigMap to a [`Policy`], or to every reason why not.

mod hooks;
mod rules;
mod runtime;
mod scalars;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

pub use scalars::duration;
use serde_saphyr::Location;
use sha2::{Digest as _, Sha256};

use super::problem::{Invalid, PolicyError, Problem};
use super::schema::{self, Document, Operator, Spanned};
use super::selector::{Requirement, Selector};
use super::{
    API_VERSION, Collect, Deletion, Hook, Hooks, Inject, KIND, MAX_POLICY_BYTES, Metric, OwnPreStop, Policy, Protect, ReadyAfter,
    When, yaml,
};
use crate::names::POLICY_KEY;

/// Reads the `data` of the policy ConfigMap `name`.
///
/// # Errors
/// Every problem found, each with its place. A text that is not YAML, or not of the language's shape, gives exactly one.
pub fn parse(name: &str, data: &BTreeMap<String, String>) -> Result<Policy, Invalid> {
    let size: usize = data.iter().map(|(key, value)| key.len() + value.len()).sum();
    if size > MAX_POLICY_BYTES {
        return Err(PolicyError::of_map(Problem::TooLarge { size }).into());
    }
    let text = data.get(POLICY_KEY).ok_or_else(|| PolicyError::of_map(Problem::NoPolicyKey))?;
    let document = yaml::read(text)?;
    let mut check = Check { data, declared: Declared::of(&document), errors: Vec::new(), metrics: Vec::new(), later: Vec::new() };
    let policy = check.policy(name, document);
    check.errors.sort_by_key(|error| error.place);
    if check.errors.is_empty() { Ok(policy) } else { Err(Invalid(check.errors)) }
}

/// What the types cannot say is checked here; errors are collected, so that one round shows them all.
struct Check<'d> {
    data: &'d BTreeMap<String, String>,
    declared: Declared,
    errors: Vec<PolicyError>,
    /// Those of the document, once they are read.
    metrics: Vec<Arc<Metric>>,
    /// Paths of what this version does not act on.
    later: Vec<String>,
}

/// What one part of a document may name in another.
struct Declared {
    tasks: BTreeSet<String>,
    metrics: BTreeSet<String>,
    role: bool,
    ready_after: bool,
    traffic: bool,
    hooks: BTreeSet<&'static str>,
}

impl Declared {
    fn of(document: &Document) -> Self {
        let hooks = document.hooks.as_ref();
        let there = |name, there: Option<bool>| there.unwrap_or_default().then_some(name);
        let hooks = [
            there("rejoin", hooks.map(|h| h.rejoin.is_some())),
            there("position", hooks.map(|h| h.position.is_some())),
            there("switchover", hooks.map(|h| h.switchover.is_some())),
            there("freeze", hooks.map(|h| h.freeze.is_some())),
            there("thaw", hooks.map(|h| h.thaw.is_some())),
        ];
        Self {
            tasks: document.tasks.iter().flat_map(BTreeMap::keys).cloned().collect(),
            metrics: document.metrics.iter().flatten().map(|m| m.value.name.value.clone()).collect(),
            ready_after: document.ready_after.is_some(),
            role: document.role.is_some(),
            traffic: document.traffic.is_some(),
            hooks: hooks.into_iter().flatten().collect(),
        }
    }
}

impl Check<'_> {
    fn policy(&mut self, name: &str, document: Document) -> Policy {
        self.constant("apiVersion", &document.api_version, API_VERSION);
        self.constant("kind", &document.kind, KIND);
        let ready_after = document.ready_after.as_ref().map(|ready| ready.referenced);
        let digest = digest(self.data);
        self.metrics = self.metrics(document.metrics);
        let mut policy = Policy {
            name: name.to_owned(),
            revision: digest.chars().take(16).collect(),
            digest,
            selector: document.selector.map(|s| self.selector(s)).unwrap_or_default(),
            container: document.container.map(|c| self.label("container".to_owned(), c)),
            protect: self.protect(document.protect),
            inject: self.inject(document.inject),
            ready_after: document.ready_after.map(|ready| match ready.value {
                schema::ReadyAfter::Join => ReadyAfter::Join,
            }),
            hooks: self.hooks(document.hooks),
            role: document.role.map(|r| Arc::new(self.role(r))),
            metrics: self.metrics.clone(),
            collect: document.collect.map_or(Collect::Exec, |collect| match collect {
                schema::Collect::Exec => Collect::Exec,
                schema::Collect::Agent => Collect::Agent,
            }),
            rules: self.rules(document.rules),
            tasks: self.tasks(document.tasks),
            traffic: document.traffic.map(|t| self.traffic(t)),
            members: document.members.unwrap_or_default(),
            update: document.update.map(|u| self.update(u)),
            not_yet_active: Vec::new(),
        };
        self.pod_hooks(&policy.hooks);
        ready_after.into_iter().for_each(|at| self.ready_after(at, &policy.hooks));
        policy.not_yet_active = std::mem::take(&mut self.later);
        policy
    }

    fn later(&mut self, path: &str) {
        self.later.push(path.to_owned());
    }

    /// What is `there` says something only together with something else.
    fn needs(&mut self, path: impl Into<String>, at: Location, there: bool, what: &str, needed: &'static str) {
        if !there {
            self.error(path, at, Problem::Needs { what: what.to_owned(), needed });
        }
    }

    fn error(&mut self, path: impl Into<String>, location: Location, problem: Problem) {
        self.errors.push(PolicyError { place: yaml::place(location), path: path.into(), problem });
    }

    fn constant(&mut self, path: &str, value: &Spanned<String>, expected: &'static str) {
        if value.value != expected {
            self.error(path, value.referenced, Problem::Expected { found: value.value.clone(), expected });
        }
    }

    fn selector(&mut self, selector: schema::LabelSelector) -> Selector {
        let mut requirements = Vec::new();
        for (n, e) in selector.match_expressions.unwrap_or_default().into_iter().enumerate() {
            let values = e.values.unwrap_or_default().into_iter().collect::<BTreeSet<_>>();
            let mut wrong = |name, problem| {
                self.error(format!("selector.matchExpressions[{n}]"), e.operator.referenced, Problem::BadOperator(name, problem));
            };
            match (e.operator.value, values.is_empty()) {
                (Operator::In, false) => requirements.push(Requirement::In(e.key, values)),
                (Operator::NotIn, false) => requirements.push(Requirement::NotIn(e.key, values)),
                (Operator::Exists, true) => requirements.push(Requirement::Exists(e.key)),
                (Operator::DoesNotExist, true) => requirements.push(Requirement::DoesNotExist(e.key)),
                (Operator::In, true) => wrong("In", "needs `values`: a list of the label's possible values"),
                (Operator::NotIn, true) => wrong("NotIn", "needs `values`: a list of the values that the label must not have"),
                (Operator::Exists, false) => wrong("Exists", "takes no `values`: remove them"),
                (Operator::DoesNotExist, false) => wrong("DoesNotExist", "takes no `values`: remove them"),
            }
        }
        Selector { labels: selector.match_labels.unwrap_or_default(), requirements }
    }

    fn protect(&mut self, protect: Option<schema::Protect>) -> Protect {
        let Some(protect) = protect else { return Protect::default() };
        if let Some(budget) = protect.disruption_budget.as_ref().filter(|b| b.value) {
            let there = protect.quorum.is_some();
            self.needs("protect.disruptionBudget", budget.referenced, there, "disruptionBudget", "`protect.quorum`");
        }
        Protect {
            priority_class_name: protect.priority_class_name.map(|p| self.subdomain("protect.priorityClassName".to_owned(), p)),
            overrides: protect.overrides.unwrap_or_default(),
            quorum: protect.quorum.and_then(|q| self.quorum("protect.quorum", &q)),
            disruption_budget: protect.disruption_budget.is_some_and(|b| b.value),
            min_replicas: protect.min_replicas.map(|n| self.at_least_one("protect.minReplicas".to_owned(), &n)),
            deletion: protect.deletion.map_or(Deletion::Allow, |schema::Deletion::Deny| Deletion::Deny),
            spread: protect.spread.map(|s| self.spread(s)).unwrap_or_default(),
        }
    }

    fn spread(&mut self, keys: Spanned<Vec<Spanned<String>>>) -> Vec<String> {
        self.not_empty("protect.spread", &keys);
        let mut known = BTreeSet::new();
        for (n, key) in keys.value.iter().enumerate() {
            let path = format!("protect.spread[{n}]");
            if !scalars::is_qualified_name(&key.value) {
                self.error(path, key.referenced, Problem::NotALabelKey(key.value.clone()));
            } else if !known.insert(key.value.clone()) {
                self.error(path, key.referenced, Problem::Twice { what: "topology key", name: key.value.clone() });
            }
        }
        keys.value.into_iter().map(|key| key.value).collect()
    }

    fn inject(&mut self, inject: Option<schema::Inject>) -> Inject {
        let Some(inject) = inject else { return Inject::default() };
        Inject {
            init_order: inject.init_order.map(|o| self.init_order("inject.initOrder", &o)).unwrap_or_default(),
            own_pre_stop: inject.own_pre_stop.map(|own| match own {
                schema::OwnPreStop::Keep => OwnPreStop::Keep,
                schema::OwnPreStop::Chain => OwnPreStop::Chain,
                schema::OwnPreStop::Replace => OwnPreStop::Replace,
            }),
        }
    }

    /// The pod waits for its hook: so there must be one, in the container that waits, and the hook must not wait for the pod.
    fn ready_after(&mut self, at: Location, hooks: &Hooks) {
        let mut needs = |there, needed| self.needs("readyAfter", at, there, "readyAfter: join", needed);
        let both: Vec<&Hook> = [&hooks.join, &hooks.rejoin].into_iter().flatten().collect();
        needs(!both.is_empty(), "`hooks.join` or `hooks.rejoin`");
        needs(both.iter().all(|hook| hook.when == When::Running), "`when: running` in `hooks.join` and `hooks.rejoin`");
        let first = both.first().map(|hook| &hook.container);
        let same = both.iter().all(|hook| Some(&hook.container) == first);
        needs(same, "the same `container` in `hooks.join` and `hooks.rejoin`: it is the one that waits");
    }
}

/// Identity of the `data` of a policy ConfigMap, whether it can be read or not: 64 hexadecimal digits. Key and value are separated by bytes
/// that neither can hold, so that no two contents give the same digest.
#[must_use]
pub fn digest(data: &BTreeMap<String, String>) -> String {
    let mut digest = Sha256::new();
    for (key, value) in data {
        digest.update(key);
        digest.update([0xff]);
        digest.update(value);
        digest.update([0xfe]);
    }
    digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}
