//! What is done when something is observed.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::reason;

/// When something holds, do this, until something else holds.
#[derive(Clone, Debug, PartialEq)]
pub struct Rule {
    /// Its name, once in a policy.
    pub name: String,
    /// What sets it off.
    pub when: Condition,
    /// What ends it; `None`: that `when` holds no more.
    pub until: Option<Until>,
    /// What is done, in order; never empty.
    pub actions: Vec<Action>,
    /// Tasks that are run once it has ended, in order.
    pub undo: Vec<String>,
    /// How many pods it may act on, and how often.
    pub budget: Option<Budget>,
}

/// What sets a rule off.
#[derive(Clone, Debug, PartialEq)]
pub enum Condition {
    /// A container uses this much of a resource.
    Usage {
        /// Of which.
        usage: Usage,
        /// How much.
        threshold: Threshold<Amount>,
        /// For how long without a break.
        during: Duration,
    },
    /// A metric of the policy has this value.
    Metric {
        /// Its name.
        name: String,
        /// Of a counter how much it grows in a second, on the average over this time; `None`: the value itself.
        rate: Option<Duration>,
        /// Which value.
        threshold: Threshold<f64>,
        /// For how long without a break.
        during: Duration,
    },
    /// The command of a metric of the policy runs and gives no value.
    Absent {
        /// The metric's name.
        name: String,
        /// For how long without a break.
        during: Duration,
    },
    /// A pod has failed in one of these ways.
    Cause {
        /// Which.
        causes: Vec<reason::Start>,
        /// How often.
        times: u32,
        /// Within this time.
        within: Duration,
    },
}

/// What ends a rule that a value has set off. The value is the one of [`Rule::when`].
#[derive(Clone, Debug, PartialEq)]
pub struct Until {
    /// The bound on the other side. An amount for a usage, else a number.
    pub threshold: Threshold<Amount>,
    /// For how long without a break.
    pub during: Duration,
}

/// A bound.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Threshold<T> {
    /// More than this.
    Above(T),
    /// Less than this.
    Below(T),
}

/// How much.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Amount {
    /// Percent of the container's limit.
    Percent(f64),
    /// In the resource's base unit: cores, or bytes; or a metric's own unit.
    Absolute(f64),
}

/// What a container uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Usage {
    /// In cores.
    Cpu,
    /// In bytes, without what the kernel can take back.
    Memory,
    /// Seconds in a second for which its processes were held back by its CPU limit. Several at once add up.
    Throttling,
    /// Bytes of the file system of its data volume, of those that it may use.
    Disk,
}

impl Usage {
    /// As policies name it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Cpu => "cpu",
            Self::Memory => "memory",
            Self::Throttling => "throttling",
            Self::Disk => "disk",
        }
    }
}

/// A resource that containers are given.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Resource {
    /// In thousandths of a core.
    Cpu,
    /// In bytes.
    Memory,
}

/// One step of a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// No new connections to the pod.
    Shed,
    /// Its `rejoin` hook.
    Rejoin,
    /// The pod is deleted, and its StatefulSet makes it anew.
    Recreate,
    /// More of these resources for the policy's container, in place; never empty.
    Resize(BTreeMap<Resource, Growth>),
    /// The `switchover` hook.
    Switchover,
    /// The `freeze` hook.
    Freeze,
    /// This task.
    Run(String),
}

/// How far the limit of a container is raised.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Growth {
    /// How much at a time.
    pub by: Stride,
    /// Never beyond this: bytes, or thousandths of a core.
    pub max: u64,
}

/// How much a limit is raised at a time; never nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stride {
    /// Percent of what it is.
    Percent(u32),
    /// Bytes, or thousandths of a core.
    Absolute(u64),
}

impl Resource {
    /// As Kubernetes names it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Cpu => "cpu",
            Self::Memory => "memory",
        }
    }
}

/// A limit on what a rule does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Budget {
    /// At most so many pods,
    pub pods: u32,
    /// in so much time.
    pub every: Duration,
}
