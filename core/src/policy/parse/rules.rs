//! Rules: what sets them off, what they do, what ends them.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde_saphyr::Location;

use super::{Check, scalars};
use crate::ledger::MAX_FAILURES;
use crate::policy::problem::Problem;
use crate::policy::schema::{self, Scalar, Spanned};
use crate::policy::{
    Action, Amount, Budget, Condition, Growth, MAX_RULES, MAX_TIMEOUT, MetricKind, Resource, Rule, Stride, Threshold, Until,
    Usage, yaml,
};
use crate::{quantity, reason};

/// Of what an amount is.
#[derive(Clone, Copy)]
enum Measure {
    Usage(Usage),
    Metric,
}

/// Windows of a rate: below it is one or two answers, above it a rule that is undone when nothing was measured for five minutes would be so by a controller that
/// has begun anew and knows no rate yet (a quarter of the window).
const RATES: (Duration, Duration) = (Duration::from_secs(30), Duration::from_secs(15 * 60));

/// How long a failure counts where the policy does not say.
const WITHIN: Duration = Duration::from_secs(600);

/// How much a limit is raised at a time where the policy does not say.
const STRIDE: Stride = Stride::Percent(25);

/// Reasons of what is run although nothing has failed or started.
const ASKED_FOR: [reason::Start; 2] = [reason::Start::Requested, reason::Start::Rule];

impl Check<'_> {
    pub(super) fn rules(&mut self, rules: Option<Spanned<Vec<Spanned<schema::Rule>>>>) -> Vec<Rule> {
        let Some(rules) = rules else { return Vec::new() };
        if rules.value.len() > MAX_RULES {
            self.error("rules", rules.referenced, Problem::TooManyRules(rules.value.len()));
        }
        let mut names = BTreeSet::new();
        let rules = rules.value.into_iter().enumerate();
        rules.filter_map(|(n, rule)| self.rule(&format!("rules[{n}]"), rule.value, &mut names)).collect()
    }

    fn rule(&mut self, path: &str, rule: schema::Rule, names: &mut BTreeSet<String>) -> Option<Rule> {
        let at = rule.name.referenced;
        let name = self.label(format!("{path}.name"), rule.name);
        if !names.insert(name.clone()) {
            self.error(format!("{path}.name"), at, Problem::Twice { what: "rule", name: name.clone() });
        }
        let when = self.condition(&format!("{path}.when"), rule.when);
        let until = rule.until.and_then(|until| self.until(&format!("{path}.until"), until, when.as_ref()));
        self.not_empty(&format!("{path}.do"), &rule.actions);
        let resizes = rule.actions.value.iter().any(|action| matches!(action.value, schema::Action::Resize));
        let growths = rule.resize.map(|resize| self.growths(&format!("{path}.resize"), resize, resizes));
        let actions = rule.actions.value.into_iter().enumerate();
        let actions = actions.map(|(n, a)| self.action(&format!("{path}.do[{n}]"), a, growths.as_ref())).collect();
        let undo = rule.undo.unwrap_or_default().into_iter().enumerate();
        let undo = undo.map(|(n, undo)| self.task_name(format!("{path}.undo[{n}].run"), undo.run)).collect();
        let budget = rule.budget.map(|budget| Budget {
            pods: self.at_least_one(format!("{path}.budget.pods"), &budget.pods),
            every: self.duration(format!("{path}.budget.every"), Some(budget.every), Duration::ZERO, MAX_TIMEOUT),
        });
        Some(Rule { name, when: when?, until, actions, undo, budget })
    }

    fn condition(&mut self, path: &str, condition: Spanned<schema::Condition>) -> Option<Condition> {
        let Spanned { value: c, referenced: at } = condition;
        match (&c.usage, &c.metric, &c.cause) {
            (Some(_), None, None) | (None, Some(_), None) => self.value(path, at, c),
            (None, None, Some(_)) => self.cause(path, c),
            _ => {
                self.error(path, at, Problem::OneCondition);
                None
            }
        }
    }

    /// A usage or a metric.
    fn value(&mut self, path: &str, at: Location, c: schema::Condition) -> Option<Condition> {
        let keys = [("times", c.times.as_ref().map(|t| t.referenced)), ("within", c.within.as_ref().map(|w| w.referenced))];
        self.not_here(path, "a usage or a metric", "it counts failures, of which a `cause` speaks", &keys);
        let during = self.lasting(path, c.during);
        if let Some(usage) = c.usage {
            let keys = [("rate", c.rate.as_ref().map(|r| r.referenced)), ("absent", c.absent.as_ref().map(|a| a.referenced))];
            self.not_here(path, "a usage", "it is about a `metric`", &keys);
            let usage = match usage.value {
                schema::Usage::Cpu => Usage::Cpu,
                schema::Usage::Memory => Usage::Memory,
                schema::Usage::Throttling => Usage::Throttling,
                schema::Usage::Disk => Usage::Disk,
            };
            let threshold = self.threshold(path, at, (c.above, c.below), Measure::Usage(usage))?;
            return Some(Condition::Usage { usage, threshold, during });
        }
        let metric = c.metric?;
        let name = metric.value;
        if !self.declared.metrics.contains(&name) {
            let nearest = yaml::nearest(&name, self.declared.metrics.iter().map(String::as_str));
            let problem = Problem::NoSuch { list: "metrics", name: name.clone(), nearest };
            self.error(format!("{path}.metric"), metric.referenced, problem);
        }
        if let Some(absent) = c.absent {
            if !absent.value {
                self.error(
                    format!("{path}.absent"),
                    absent.referenced,
                    Problem::Expected { found: "false".to_owned(), expected: "true" },
                );
            }
            let keys = [
                ("above", c.above.as_ref().map(|v| v.referenced)),
                ("below", c.below.as_ref().map(|v| v.referenced)),
                ("rate", c.rate.as_ref().map(|v| v.referenced)),
            ];
            self.not_here(path, "an absent metric", "it has no value", &keys);
            return Some(Condition::Absent { name, during });
        }
        let rate = c.rate.map(|rate| self.rate(&format!("{path}.rate"), rate, &name));
        let number = |amount| match amount {
            Amount::Absolute(n) | Amount::Percent(n) => n,
        };
        let threshold = match self.threshold(path, at, (c.above, c.below), Measure::Metric)? {
            Threshold::Above(amount) => Threshold::Above(number(amount)),
            Threshold::Below(amount) => Threshold::Below(number(amount)),
        };
        Some(Condition::Metric { name, rate, threshold, during })
    }

    fn rate(&mut self, path: &str, rate: Spanned<schema::Time>, metric: &str) -> Duration {
        let at = rate.referenced;
        let (shortest, longest) = RATES;
        let window = self.duration(path.to_owned(), Some(rate), longest, longest);
        if let Some(metric) = self.metrics.iter().find(|known| known.name == metric).cloned() {
            self.needs(path, at, metric.kind == MetricKind::Counter, "rate", "a metric of `type: counter`");
            let is_long_enough = window >= shortest.max(2 * metric.every);
            self.needs(path, at, is_long_enough, "rate", "30s at least, and two intervals (`every`) of its metric");
        }
        window
    }

    fn cause(&mut self, path: &str, c: schema::Condition) -> Option<Condition> {
        let keys = [
            ("above", c.above.as_ref().map(|v| v.referenced)),
            ("below", c.below.as_ref().map(|v| v.referenced)),
            ("for", c.during.as_ref().map(|v| v.referenced)),
            ("rate", c.rate.as_ref().map(|v| v.referenced)),
            ("absent", c.absent.as_ref().map(|v| v.referenced)),
        ];
        self.not_here(path, "a cause", "a failure has no value; write `times` and `within`", &keys);
        let causes = c.cause?;
        self.not_empty(&format!("{path}.cause"), &causes);
        let mut known = Vec::new();
        for (n, cause) in causes.value.into_iter().enumerate() {
            match cause.value.parse::<reason::Start>() {
                Ok(reason) if !ASKED_FOR.contains(&reason) => known.push(reason),
                _ => {
                    let causes = reason::Start::ALL.iter().filter(|r| !ASKED_FOR.contains(r));
                    let expected = causes.map(|r| r.as_str()).collect::<Vec<_>>().join(", ");
                    let problem = Problem::Variant { found: cause.value, expected };
                    self.error(format!("{path}.cause[{n}]"), cause.referenced, problem);
                }
            }
        }
        let times = c.times.as_ref().map_or(1, |t| self.at_least_one(format!("{path}.times"), t));
        if let Some(at) = c.times.as_ref().filter(|t| t.value > 1).map(|t| t.referenced) {
            self.needs(format!("{path}.times"), at, c.within.is_some(), "times", "`within`: a time, such as 10m");
        }
        if let Some(times) = c.times.filter(|times| usize::try_from(times.value).is_ok_and(|times| times > MAX_FAILURES)) {
            self.error(format!("{path}.times"), times.referenced, Problem::TooOften(times.value));
        }
        let within = self.duration(format!("{path}.within"), c.within, WITHIN, MAX_TIMEOUT);
        Some(Condition::Cause { causes: known, times, within })
    }

    fn until(&mut self, path: &str, until: Spanned<schema::Until>, when: Option<&Condition>) -> Option<Until> {
        let Spanned { value: u, referenced: at } = until;
        let during = self.lasting(path, u.during);
        let (start, measure) = match when? {
            Condition::Usage { usage, threshold, .. } => (*threshold, Measure::Usage(*usage)),
            Condition::Metric { threshold: Threshold::Above(n), .. } => (Threshold::Above(Amount::Absolute(*n)), Measure::Metric),
            Condition::Metric { threshold: Threshold::Below(n), .. } => (Threshold::Below(Amount::Absolute(*n)), Measure::Metric),
            Condition::Cause { .. } => {
                let why = "a failure has no value that could come back";
                self.error(path, at, Problem::NotHere { key: "until", hook: "a cause", why });
                return None;
            }
            Condition::Absent { .. } => {
                let why = "it is over when the metric has a value";
                self.error(path, at, Problem::NotHere { key: "until", hook: "an absent metric", why });
                return None;
            }
        };
        let threshold = self.threshold(path, at, (u.above, u.below), measure)?;
        let problem = match (start, threshold) {
            (Threshold::Above(a), Threshold::Below(b)) => exceeds(b, a).then_some(Problem::Overlap("below", "at most")),
            (Threshold::Below(a), Threshold::Above(b)) => exceeds(a, b).then_some(Problem::Overlap("above", "at least")),
            (Threshold::Above(_), Threshold::Above(_)) => Some(Problem::OtherSide("below")),
            (Threshold::Below(_), Threshold::Below(_)) => Some(Problem::OtherSide("above")),
        };
        problem.into_iter().for_each(|problem| self.error(path, at, problem));
        Some(Until { threshold, during })
    }

    fn threshold(
        &mut self,
        path: &str,
        at: Location,
        (above, below): (Option<Spanned<Scalar>>, Option<Spanned<Scalar>>),
        measure: Measure,
    ) -> Option<Threshold<Amount>> {
        match (above, below) {
            (Some(above), None) => self.amount(format!("{path}.above"), above, measure).map(Threshold::Above),
            (None, Some(below)) => self.amount(format!("{path}.below"), below, measure).map(Threshold::Below),
            _ => {
                self.error(path, at, Problem::OneThreshold);
                None
            }
        }
    }

    fn amount(&mut self, path: String, text: Spanned<Scalar>, measure: Measure) -> Option<Amount> {
        let found = match measure {
            Measure::Usage(usage) => scalars::amount(&text.value.0, usage),
            Measure::Metric => scalars::number(&text.value.0).map(Amount::Absolute),
        };
        if found.is_none() {
            let example = match measure {
                Measure::Usage(Usage::Cpu) => "a percentage of the limit or a number of cores, such as 85%, 500m or 1.5",
                Measure::Usage(Usage::Memory) => "a percentage of the limit or a number of bytes, such as 85% or 512Mi",
                Measure::Usage(Usage::Throttling) => "a percentage of the time, such as 25%",
                Measure::Usage(Usage::Disk) => "a percentage of the volume or a number of bytes, such as 85% or 10Gi",
                Measure::Metric => "a number, such as 100 or 0.5",
            };
            self.error(path, text.referenced, Problem::NotAnAmount(text.value.0, example));
        }
        found
    }

    /// How far `resize` goes. `used`: the rule has it in `do`.
    fn growths(&mut self, path: &str, resize: Spanned<schema::Resize>, used: bool) -> BTreeMap<Resource, Growth> {
        let Spanned { value: schema::Resize { cpu, memory }, referenced: at } = resize;
        self.needs(path, at, used, "resize", "`resize` in `do`: the action that it bounds");
        if cpu.is_none() && memory.is_none() {
            self.error(path, at, Problem::NoResource);
        }
        let given = [(Resource::Cpu, cpu), (Resource::Memory, memory)];
        let given = given.into_iter().filter_map(|(resource, growth)| Some((resource, growth?)));
        given.filter_map(|(of, growth)| Some((of, self.growth(&format!("{path}.{}", of.as_str()), growth.value, of)?))).collect()
    }

    fn growth(&mut self, path: &str, growth: schema::Growth, of: Resource) -> Option<Growth> {
        let quantity = |text: &str| quantity::parse(text, of).filter(|amount| *amount > 0);
        let max = quantity(&growth.max.value.0);
        if max.is_none() {
            let example = match of {
                Resource::Cpu => "a number of cores, such as 500m or 4",
                Resource::Memory => "a number of bytes, such as 512Mi or 2Gi",
            };
            self.error(format!("{path}.max"), growth.max.referenced, Problem::NotAnAmount(growth.max.value.0, example));
        }
        let Some(by) = growth.by else { return max.map(|max| Growth { by: STRIDE, max }) };
        let stride = match by.value.0.strip_suffix('%') {
            Some(percent) => scalars::whole(percent).filter(|n| (1..=1000).contains(n)).map(Stride::Percent),
            None => quantity(&by.value.0).map(Stride::Absolute),
        };
        if stride.is_none() {
            let example = match of {
                Resource::Cpu => "a whole percentage of the limit or a number of cores, such as 25% or 500m",
                Resource::Memory => "a whole percentage of the limit or a number of bytes, such as 25% or 256Mi",
            };
            self.error(format!("{path}.by"), by.referenced, Problem::NotAnAmount(by.value.0, example));
        }
        Some(Growth { by: stride?, max: max? })
    }

    fn action(&mut self, path: &str, action: Spanned<schema::Action>, growths: Option<&BTreeMap<Resource, Growth>>) -> Action {
        let at = action.referenced;
        let hooks = &self.declared.hooks;
        let (there, what, needed) = match &action.value {
            schema::Action::Shed => (self.declared.traffic, "shed", "`traffic.services`: which Services stop sending"),
            schema::Action::Rejoin => (hooks.contains("rejoin"), "rejoin", "`hooks.rejoin`"),
            schema::Action::Switchover => (hooks.contains("switchover"), "switchover", "`hooks.switchover`"),
            schema::Action::Freeze => (hooks.contains("freeze"), "freeze", "`hooks.freeze`"),
            schema::Action::Resize => (
                growths.is_some(),
                "resize",
                "`resize` in the rule: of what more is given, and its `max`, such as {memory: {by: 25%, max: 2Gi}}",
            ),
            schema::Action::Recreate | schema::Action::Run(_) => (true, "", ""),
        };
        self.needs(path, at, there, what, needed);
        if matches!(action.value, schema::Action::Freeze) {
            self.later(path);
        }
        match action.value {
            schema::Action::Shed => Action::Shed,
            schema::Action::Rejoin => Action::Rejoin,
            schema::Action::Recreate => Action::Recreate,
            schema::Action::Resize => Action::Resize(growths.cloned().unwrap_or_default()),
            schema::Action::Switchover => Action::Switchover,
            schema::Action::Freeze => Action::Freeze,
            schema::Action::Run(task) => Action::Run(self.task_name(format!("{path}.run"), task)),
        }
    }

    fn task_name(&mut self, path: String, task: Spanned<String>) -> String {
        if !self.declared.tasks.contains(&task.value) {
            let nearest = yaml::nearest(&task.value, self.declared.tasks.iter().map(String::as_str));
            let problem = Problem::NoSuch { list: "tasks", name: task.value.clone(), nearest };
            self.error(path, task.referenced, problem);
        }
        task.value
    }

    /// The time `for`; none: at once.
    fn lasting(&mut self, path: &str, during: Option<Spanned<schema::Time>>) -> Duration {
        self.duration(format!("{path}.for"), during, Duration::ZERO, MAX_TIMEOUT)
    }

    fn not_here(&mut self, path: &str, hook: &'static str, why: &'static str, keys: &[(&'static str, Option<Location>)]) {
        for (key, location) in keys {
            let Some(location) = location else { continue };
            self.error(format!("{path}.{key}"), *location, Problem::NotHere { key, hook, why });
        }
    }
}

/// Is `a` more than `b`, where the two can be compared?
fn exceeds(a: Amount, b: Amount) -> bool {
    match (a, b) {
        (Amount::Percent(a), Amount::Percent(b)) | (Amount::Absolute(a), Amount::Absolute(b)) => a > b,
        _ => false,
    }
}
