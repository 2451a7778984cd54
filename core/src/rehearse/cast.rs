//! Who takes part: the pods to which it happens, and who has which role.

use std::collections::BTreeMap;

use super::subject::{Subject, few};
use super::{Asked, Scenario, Unfit};
use crate::policy::{Condition, Policy, Rule, Target, nearest};
use crate::role::Claim;

/// Who takes part.
#[derive(Clone, Debug, Default)]
pub(super) struct Cast {
    /// Ordinals of the pods to which it happens.
    pub(super) pods: Vec<u32>,
    /// What each ordinal says of its role.
    pub(super) claims: BTreeMap<u32, Claim>,
    /// The role of which nobody said who has it, and that has to be somewhere.
    pub(super) believed: Option<String>,
    /// Replicas after the set is scaled.
    pub(super) to: u32,
    /// The rule that is rehearsed.
    pub(super) rule: Option<Rule>,
}

impl Cast {
    pub(super) fn new(asked: &Asked, subject: &Subject, policy: &Policy) -> Result<Self, Unfit> {
        let scenario = &asked.scenario;
        if !asked.pods.is_empty() && !scenario.is_about_pods() {
            return Err(Unfit::NoPods { scenario: scenario.clone() });
        }
        if asked.to.is_some() && !scenario.scales() {
            return Err(Unfit::NotScaled { scenario: scenario.clone() });
        }
        if asked.lasts.is_some() && !matches!(scenario, Scenario::Rule(_)) {
            return Err(Unfit::NotLasting { scenario: scenario.clone() });
        }
        if (asked.times.is_some() || asked.every.is_some()) && !scenario.repeats() {
            return Err(Unfit::NotRepeated { scenario: scenario.clone() });
        }
        let (claims, believed) = claims(asked, subject, policy)?;
        let mut cast = Self { claims, believed, rule: rule(scenario, policy)?, ..Self::default() };
        cast.to = to(asked, subject)?;
        if scenario.is_about_pods() {
            cast.pods = pods(asked, subject, policy, &cast.claims)?;
        }
        Ok(cast)
    }

    pub(super) fn each(&self, happens: impl FnMut(u32)) {
        self.pods.iter().copied().for_each(happens);
    }
}

/// The role that `switchover` moves.
fn moved(policy: &Policy) -> Option<&str> {
    match policy.hooks.switchover.as_ref()?.target.as_ref()? {
        Target::Role(role) => Some(role),
        _ => None,
    }
}

/// A role that one pod alone holds has a version, as a primary has its term.
fn claims(asked: &Asked, subject: &Subject, policy: &Policy) -> Result<(BTreeMap<u32, Claim>, Option<String>), Unfit> {
    if policy.role.is_none() {
        let no_role = || Unfit::NoRole { policy: policy.name.clone() };
        return if asked.roles.is_empty() { Ok((BTreeMap::new(), None)) } else { Err(no_role()) };
    }
    let mut claims = BTreeMap::new();
    for (role, ordinals) in &asked.roles {
        let version = (ordinals.len() == 1).then_some(1);
        for ordinal in ordinals {
            there(subject, *ordinal, &ordinal.to_string())?;
            claims.insert(*ordinal, Claim { role: role.clone(), version });
        }
    }
    let first = subject.set.ordinals.clone().next();
    let believed = moved(policy).filter(|role| asked.roles.iter().all(|(said, _)| said != role)).zip(first);
    let Some((role, first)) = believed else { return Ok((claims, None)) };
    claims.entry(first).or_insert_with(|| Claim { role: role.to_owned(), version: Some(1) });
    Ok((claims, Some(role.to_owned())))
}

fn rule(scenario: &Scenario, policy: &Policy) -> Result<Option<Rule>, Unfit> {
    let Scenario::Rule(name) = scenario else { return Ok(None) };
    let known: Vec<String> = policy.rules.iter().map(|rule| rule.name.clone()).collect();
    let Some(rule) = policy.rules.iter().find(|rule| rule.name == *name) else {
        let nearest = nearest(name, known.iter().map(String::as_str));
        return Err(Unfit::NoRule { policy: policy.name.clone(), rule: name.clone(), nearest, known });
    };
    if let Condition::Cause { causes, .. } = &rule.when {
        let causes: Vec<&str> = causes.iter().map(|cause| cause.as_str()).collect();
        return Err(Unfit::RuleByCause { rule: name.clone(), causes: causes.join(" or ") });
    }
    Ok(Some(rule.clone()))
}

fn to(asked: &Asked, subject: &Subject) -> Result<u32, Unfit> {
    let replicas = u32::try_from(subject.replicas()).unwrap_or(u32::MAX);
    let more = asked.scenario == Scenario::ScaleOut;
    let default = if more { replicas.saturating_add(1) } else { replicas.saturating_sub(1) };
    let to = few(asked.to.unwrap_or(default))?;
    let is_that_way = if more { to > replicas } else { to < replicas };
    if asked.scenario.scales() && !is_that_way {
        return Err(Unfit::NotThatWay { to, replicas: subject.replicas(), more });
    }
    Ok(to)
}

/// Those that are named; else of a zone the upper half, of a drain the one with the role that `switchover` moves, else the last.
fn pods(asked: &Asked, subject: &Subject, policy: &Policy, claims: &BTreeMap<u32, Claim>) -> Result<Vec<u32>, Unfit> {
    let mut pods: Vec<u32> = asked.pods.iter().map(|named| ordinal(subject, named)).collect::<Result<_, _>>()?;
    let ordinals = subject.set.ordinals.clone();
    if ordinals.is_empty() {
        return Err(Unfit::Empty { set: subject.set.name.clone() });
    }
    if pods.is_empty() {
        let holder = moved(policy).and_then(|role| claims.iter().find(|(_, claim)| claim.role == role)).map(|(n, _)| *n);
        let last = ordinals.clone().next_back();
        pods = match asked.scenario {
            Scenario::ZoneOutage => ordinals.skip(subject.replicas() / 2).collect(),
            Scenario::Drain => holder.or(last).into_iter().collect(),
            _ => last.into_iter().collect(),
        };
    }
    pods.sort_unstable();
    pods.dedup();
    Ok(pods)
}

/// `1`, or `redis-1`.
fn ordinal(subject: &Subject, named: &str) -> Result<u32, Unfit> {
    let number = named.strip_prefix(&format!("{}-", subject.set.name)).unwrap_or(named);
    there(subject, number.parse().unwrap_or(u32::MAX), named)
}

fn there(subject: &Subject, ordinal: u32, named: &str) -> Result<u32, Unfit> {
    let ordinals = &subject.set.ordinals;
    if ordinals.contains(&ordinal) {
        return Ok(ordinal);
    }
    let set = subject.set.name.clone();
    let Some(last) = ordinals.clone().next_back() else { return Err(Unfit::Empty { set }) };
    Err(Unfit::NoPod { set, pod: named.to_owned(), first: ordinals.start, last })
}
