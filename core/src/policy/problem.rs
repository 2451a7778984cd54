//! What can be wrong with a policy, in words for its author.

use std::fmt;
use std::time::Duration;

use super::{MAX_METRICS, MAX_POLICY_BYTES, MAX_RETRIES, MAX_RULES, MAX_SCRIPT_BYTES};
use crate::ledger::MAX_FAILURES;
use crate::names::POLICY_KEY;

/// Errors shown of one policy: what does not fit on a screen is not read, and the author fixes from the top.
const MAX_SHOWN: usize = 10;
/// Characters shown of a text that the author wrote: enough to find it by, and a message that stays readable whatever he wrote.
const MAX_QUOTED: usize = 60;

/// Why a ConfigMap is not a policy: at least one error, in the order of the text.
#[derive(Debug, thiserror::Error)]
pub struct Invalid(pub Vec<PolicyError>);

/// One thing that is wrong, where, and what to do about it.
#[derive(Debug, thiserror::Error)]
pub struct PolicyError {
    /// Line and column in the text of the key `policy.yaml`, from 1; `None` when the ConfigMap as a whole is meant.
    pub place: Option<(u64, u64)>,
    /// The value that is meant, as a path through the document: `hooks.rejoin.timeout`; empty for the document.
    pub path: String,
    /// What is wrong.
    #[source]
    pub problem: Problem,
}

/// What can be wrong with a policy. The messages say it all.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the message above each variant is its documentation")]
pub enum Problem {
    #[error("the ConfigMap has no key `{POLICY_KEY}`: put the policy there, and each script into a key of its own")]
    NoPolicyKey,
    #[error("the ConfigMap holds {size} bytes, at most {MAX_POLICY_BYTES} are allowed: move large scripts into the image")]
    TooLarge { size: usize },
    #[error("the policy is empty: begin with `apiVersion` and `kind`")]
    Empty,
    #[error("the text is not YAML: a tab cannot indent a line, use spaces")]
    Tab,
    #[error("the text is not YAML: {0}")]
    Syntax(String),
    #[error("expected {expected}{}", found.as_ref().map(|f| format!(", found {f}")).unwrap_or_default())]
    Type { expected: String, found: Option<String> },
    #[error("the required key `{0}` is missing")]
    Missing(&'static str),
    #[error("{} is not one of the values that are possible here: {expected}", quote(found))]
    Variant { found: String, expected: String },
    #[error("the key {} appears twice: remove one", quote(.0))]
    DuplicateKey(String),
    #[error("more than one YAML document: put each policy into a ConfigMap of its own, and remove the line `---`")]
    Documents,
    #[error("nested too deep, or too long with its aliases expanded: write the values out")]
    TooComplex,
    #[error("there is no anchor of this name: a text that begins with `*` needs quotes")]
    UnknownAnchor,
    #[error("unknown key {}{}", quote(key), nearest.as_ref().map_or_else(|| format!(": possible here are {possible}"), |n| format!(": did you mean `{n}`?")))]
    UnknownKey { key: String, nearest: Option<String>, possible: String },
    #[error("`{what}` needs {needed}")]
    Needs { what: String, needed: &'static str },
    #[error("there is no {} in `{list}`{}", quote(name), meant(nearest.as_deref()))]
    NoSuch { list: &'static str, name: String, nearest: Option<String> },
    #[error("the {what} {} is there already: remove one, or give it another name", quote(name))]
    Twice { what: &'static str, name: String },
    #[error("the list is empty: add an item, or remove the key")]
    EmptyList,
    #[error("0 says nothing here: the least is 1")]
    Zero,
    #[error("{0} rules are too many: at most {MAX_RULES} are allowed")]
    TooManyRules(usize),
    #[error("{0} times are too many: at most {MAX_FAILURES} failures of a pod are counted")]
    TooOften(u32),
    #[error("{0} metrics are too many: at most {MAX_METRICS} are allowed")]
    TooManyMetrics(usize),
    #[error("{} is not a quorum: write majority, a number of pods such as 2, or a percentage from 1% to 100%", quote(.0))]
    NotAQuorum(String),
    #[error("{} is not a key for labels: letters, digits, `-`, `_` and `.`, perhaps after a domain and `/`, such as kubernetes.io/hostname", quote(.0))]
    NotALabelKey(String),
    #[error("{} is not an amount: write {}", quote(.0), .1)]
    NotAnAmount(String, &'static str),
    #[error("write exactly one of `usage`, `metric` and `cause`")]
    OneCondition,
    #[error("write either `above` or `below`")]
    OneThreshold,
    #[error("nothing is to be raised: write `memory`, `cpu` or both, each with its `max`")]
    NoResource,
    #[error("this is on the same side as `when`, so it would end what it has just begun: write `{0}`")]
    OtherSide(&'static str),
    #[error("`{0}` must be {1} the bound of `when`, or the rule would end while it begins")]
    Overlap(&'static str, &'static str),
    #[error("{} is not a schedule: write minute, hour, day of month, month and day of week, such as `0 3 * * *` ({})", quote(.0), .1)]
    NotASchedule(String, String),
    #[error("{} is not a time zone: write one as the IANA database has it, such as Europe/Paris or UTC", quote(.0))]
    NoSuchZone(String),
    #[error("{} is not a time of the week: write days, times and a time zone, such as `Sat 02:00-05:00 UTC` or `Mon-Fri 22:00-04:00 Europe/Paris`", quote(.0))]
    NotAWindow(String),
    #[error("{} is not a name for a metric: letters, digits, `_` and `:`, not beginning with a digit", quote(.0))]
    NotAMetric(String),
    #[error("{} begins with `guardian_`, which is reserved for the guardian's own metrics: choose another name", quote(.0))]
    ReservedMetric(String),
    #[error("{} is not a name for a label of a metric: letters, digits and `_`, not beginning with a digit or `__`", quote(.0))]
    NotAMetricLabel(String),
    #[error("{} is reserved: every metric has the labels `namespace`, `set` and `pod`, and Prometheus adds `job` and `instance`: choose another name", quote(.0))]
    ReservedMetricLabel(String),
    #[error("`{key}` has no meaning for `{hook}`: {why}")]
    NotHere { key: &'static str, hook: &'static str, why: &'static str },
    #[error("{} is not supported: write `{expected}`", quote(found))]
    Expected { found: String, expected: &'static str },
    #[error("the ConfigMap has no key {}{}", quote(script), meant(nearest.as_deref()))]
    NoSuchScript { script: String, nearest: Option<String> },
    #[error("the policy itself is no script: name another key of this ConfigMap")]
    PolicyAsScript,
    #[error("the script {} does not begin with `#!` and an interpreter, such as `#!/bin/sh`: there is no implicit shell", quote(.0))]
    NoShebang(String),
    #[error("the first line of the script {} ends in a carriage return, so its interpreter would not be found: save it with Unix line ends", quote(.0))]
    CarriageReturn(String),
    #[error("the script {} holds {size} bytes, at most {MAX_SCRIPT_BYTES} are allowed: move it into the image", quote(name))]
    ScriptTooLarge { name: String, size: usize },
    #[error("write either `script` (a key of this ConfigMap) or `command` (an argument list), not both")]
    TwoPrograms,
    #[error("nothing to run: write `script` (a key of this ConfigMap) or `command` (an argument list)")]
    NoProgram,
    #[error("the argument list is empty, or its first item is: that item is the program to run")]
    EmptyCommand,
    #[error("a zero byte cannot be passed to a program: remove it")]
    ZeroByte,
    #[error("{} is not a duration: write a number and a unit, such as 300ms, 30s, 5m or 1h30m", quote(.0))]
    NotADuration(String),
    #[error("{} is no time at all: the least is 1ms", quote(.0))]
    ZeroDuration(String),
    #[error("{} is too long: at most {}s are allowed here", quote(.0), .1.as_secs())]
    TooLong(String, Duration),
    #[error("{0} is too many: at most {MAX_RETRIES} are allowed")]
    TooManyRetries(u32),
    #[error(
        "{} is not a name that Kubernetes allows here: lower case letters, digits and, between them, `-`{also}; at most {longest} characters",
        quote(name)
    )]
    NotAName { name: String, also: &'static str, longest: usize },
    #[error("{} is not a name for an environment variable: letters, digits and `_`, not beginning with a digit", quote(.0))]
    NotAVariable(String),
    #[error("{} begins with `GUARDIAN_`, which is reserved for what the guardian tells the hook: choose another name", quote(.0))]
    ReservedVariable(String),
    #[error("the operator `{0}` {1}")]
    BadOperator(&'static str, &'static str),
    #[error(
        "init and preStop take {size} bytes as they are packed into the pod, at most {most} fit: move large scripts into the image"
    )]
    PodHooksTooLarge { size: usize, most: usize },
}

impl PolicyError {
    pub(super) fn of_map(problem: Problem) -> Self {
        Self { place: None, path: String::new(), problem }
    }
}

impl From<PolicyError> for Invalid {
    fn from(error: PolicyError) -> Self {
        Self(vec![error])
    }
}

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, error) in self.0.iter().take(MAX_SHOWN).enumerate() {
            if n > 0 {
                f.write_str("; ")?;
            }
            error.fmt(f)?;
        }
        match self.0.len().saturating_sub(MAX_SHOWN) {
            0 => Ok(()),
            more => write!(f, "; and {more} more"),
        }
    }
}

impl fmt::Display for PolicyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some((line, column)) = self.place {
            write!(f, "{POLICY_KEY}:{line}:{column}: ")?;
        }
        if !self.path.is_empty() {
            write!(f, "{}: ", self.path)?;
        }
        self.problem.fmt(f)
    }
}

/// A text of the author's, between back quotes, on one line and not too long.
pub(super) fn quote(text: &str) -> String {
    let shown: String = text.chars().take(MAX_QUOTED).flat_map(char::escape_debug).collect();
    let more = if text.chars().nth(MAX_QUOTED).is_some() { "…" } else { "" };
    format!("`{shown}{more}`")
}

fn meant(nearest: Option<&str>) -> String {
    nearest.map(|nearest| format!(": did you mean `{nearest}`?")).unwrap_or_default()
}
