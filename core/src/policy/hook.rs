//! What runs, where, and on which terms.

use std::collections::BTreeMap;
use std::time::Duration;

use guardian_hook::protocol::{self, InPodHook, Program};

/// What the controller tells a pod that stops. See `docs/policy.md`, "What a hook is told".
const ASKED: [&str; 4] = ["GUARDIAN_REASON", "GUARDIAN_REPLICAS", "GUARDIAN_PEERS", "GUARDIAN_READY_PEERS"];

/// The hooks of a policy.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hooks {
    /// In an init container, before every start of the pod.
    pub init: Option<Hook>,
    /// In that init container, when the set may have lost all its members.
    pub position: Option<Position>,
    /// In the init container of the member with the highest position, before it starts.
    pub restart: Option<Hook>,
    /// In one pod, once in the life of the volumes.
    pub bootstrap: Option<Hook>,
    /// In a new pod, at the first start of an ordinal on a new volume.
    pub join: Option<Hook>,
    /// In the pod that came back after a failure.
    pub rejoin: Option<Hook>,
    /// In the pod, before every stop.
    pub pre_stop: Option<Hook>,
    /// In the pod that leaves at a scale-in, afterwards on a peer if it did not run there.
    pub leave: Option<Hook>,
    /// In the pod that holds the role which its `target` names, before that pod is evicted, updated or left.
    pub switchover: Option<Hook>,
    /// In each pod, before its update.
    pub before_update: Option<Hook>,
    /// In each pod, after its update.
    pub after_update: Option<Hook>,
    /// When the whole set goes down on purpose.
    pub shutdown: Option<Hook>,
    /// After a crash, on a ready peer or in the pod once it is back.
    pub post_mortem: Option<Hook>,
    /// Before a snapshot of the volumes.
    pub freeze: Option<Freeze>,
    /// After it.
    pub thaw: Option<Hook>,
    /// On a ready peer, when a node is lost: success is proof that the old pod cannot write.
    pub fence: Option<Hook>,
}

/// One command of the team, with the terms on which it runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hook {
    /// What is run: an argument vector, or a script with its text.
    pub program: Program,
    /// In which pod or pods; `None`: in the one that the occasion is about.
    pub target: Option<Target>,
    /// Container in which it runs; `None`: the policy's.
    pub container: Option<String>,
    /// What must hold of the pod before it runs.
    pub when: When,
    /// After this long it is killed, with all that it started.
    pub timeout: Duration,
    /// Attempts beyond the first.
    pub retries: u32,
    /// Pause before the second attempt; doubles with each further one.
    pub backoff: Duration,
    /// May an attempt whose outcome is unknown be made again?
    pub idempotent: bool,
    /// What a failure means for the pod.
    pub on_failure: OnFailure,
    /// Added to the environment of the command.
    pub env: BTreeMap<String, String>,
}

/// `position`: prints `<lineage> <integer>`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Position {
    /// What prints it.
    pub hook: Hook,
    /// Run while the pod waits: exit 0 says that the cluster is up.
    pub alive: Option<Probe>,
}

/// `freeze`: keeps the data of a pod as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Freeze {
    /// What freezes.
    pub hook: Hook,
    /// `Some`: the process itself holds the freeze and thaws by ending; `None`: the hook `thaw` ends it.
    pub hold: Option<Held>,
    /// Longest freeze; a timer in the pod thaws then.
    pub max: Duration,
}

/// A freeze that lasts as long as its process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    /// The line of its standard output that says that the freeze is in force; `None`: as soon as the process runs.
    pub ready: Option<String>,
}

/// A command that is asked again and again and changes nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Probe {
    /// What is run.
    pub program: Program,
    /// Container in which it runs; `None`: the policy's.
    pub container: Option<String>,
    /// After this long it is killed.
    pub timeout: Duration,
}

/// A command that runs on demand, by a rule or by the clock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Task {
    /// What is run.
    pub hook: Hook,
    /// When it runs by itself.
    pub schedule: Option<Schedule>,
}

/// Times of a task. Both texts have been checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Schedule {
    /// Five fields of cron: minute, hour, day of month, month, day of week.
    pub cron: String,
    /// IANA time zone.
    pub time_zone: String,
}

/// In which pods something runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// The pod that the occasion is about.
    Itself,
    /// One pod, whichever.
    Any,
    /// Each pod.
    All,
    /// The pod of this ordinal.
    Ordinal(u32),
    /// The pods of this role, as the policy's `role` prints it.
    Role(String),
}

/// What must hold of a pod before a hook runs in it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum When {
    /// Its container runs.
    #[default]
    Running,
    /// It is ready.
    Ready,
}

/// What a failure of a hook means.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnFailure {
    /// It is recorded, and life goes on.
    #[default]
    Continue,
    /// An `init` hook keeps the pod from starting.
    Block,
    /// The pod is made anew.
    Recreate,
}

impl Hooks {
    /// A hook that the controller starts in a pod, by the name that it has in the policy.
    #[must_use]
    pub fn started_by_controller(&self, name: &str) -> Option<&Hook> {
        match name {
            "bootstrap" => self.bootstrap.as_ref(),
            "join" => self.join.as_ref(),
            "rejoin" => self.rejoin.as_ref(),
            "postMortem" => self.post_mortem.as_ref(),
            "switchover" => self.switchover.as_ref(),
            "fence" => self.fence.as_ref(),
            _ => None,
        }
    }
}

impl Hooks {
    /// Those that there are, by the names that they have in the policy.
    #[must_use]
    pub fn all(&self) -> BTreeMap<&'static str, &Hook> {
        let all = [
            ("init", self.init.as_ref()),
            ("position", self.position.as_ref().map(|position| &position.hook)),
            ("restart", self.restart.as_ref()),
            ("bootstrap", self.bootstrap.as_ref()),
            ("join", self.join.as_ref()),
            ("rejoin", self.rejoin.as_ref()),
            ("preStop", self.pre_stop.as_ref()),
            ("leave", self.leave.as_ref()),
            ("switchover", self.switchover.as_ref()),
            ("beforeUpdate", self.before_update.as_ref()),
            ("afterUpdate", self.after_update.as_ref()),
            ("shutdown", self.shutdown.as_ref()),
            ("postMortem", self.post_mortem.as_ref()),
            ("freeze", self.freeze.as_ref().map(|freeze| &freeze.hook)),
            ("thaw", self.thaw.as_ref()),
            ("fence", self.fence.as_ref()),
        ];
        all.into_iter().filter_map(|(name, hook)| Some((name, hook?))).collect()
    }
}

impl Hook {
    /// Does it ask for what only the controller can tell a pod that stops: why, or who else is there? Read from its text, since a script that names
    /// none of these variables has no use for them.
    #[must_use]
    pub fn asks_controller(&self) -> bool {
        let asks = |text: &str| ASKED.iter().any(|name| text.contains(name));
        match &self.program {
            Program::Command(argv) => argv.iter().any(|argument| asks(argument)),
            Program::Script { text, .. } => asks(text),
        }
    }

    /// As the runner keeps it in the pod.
    pub(crate) fn in_pod(&self) -> InPodHook {
        InPodHook {
            program: self.program.clone(),
            timeout_ms: u64::try_from(self.timeout.as_millis()).unwrap_or(u64::MAX),
            env: self.env.clone(),
            on_failure: match self.on_failure {
                OnFailure::Block => protocol::OnFailure::Block,
                OnFailure::Continue | OnFailure::Recreate => protocol::OnFailure::Continue,
            },
        }
    }
}
