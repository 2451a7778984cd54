//! The rules: what each is called, how grave it is, why it matters and what to do.

/// A thing that is known to end badly.
#[derive(Debug, PartialEq, Eq)]
pub struct Rule {
    /// Its name, which never changes. `docs/lint.md` has a section of this name.
    pub name: &'static str,
    /// How grave it is.
    pub level: Level,
    /// Why it matters.
    pub reason: &'static str,
    /// What to do about it.
    pub remedy: &'static str,
}

/// How grave a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Certain to be wrong.
    Error,
    /// Wrong, unless something that a manifest does not show makes it right.
    Warning,
    /// Nothing is wrong; something could not be looked at.
    Note,
}

impl Level {
    /// The word for it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warning => "warning",
            Self::Note => "note",
        }
    }
}

impl Rule {
    /// Where its section is.
    #[must_use]
    pub fn link(&self) -> String {
        format!("docs/lint.md#{}", self.name)
    }
}

/// Declares the rules, each as a constant, and all of them as [`RULES`].
macro_rules! rules {
    ($($constant:ident $name:literal $level:ident $reason:literal $remedy:literal)*) => {
        $(
            #[doc = $reason]
            pub const $constant: &Rule =
                &Rule { name: $name, level: Level::$level, reason: $reason, remedy: $remedy };
        )*
        /// Every rule, in the order of `docs/lint.md`.
        pub const RULES: &[&Rule] = &[$($constant),*];
    };
}

rules! {
    NOT_READABLE "not-readable" Error
        "A text that is not YAML is refused as a whole; nothing in it is looked at."
        "Mend the text at the place that is named."
    INVALID_POLICY "invalid-policy" Error
        "A policy with an error is refused when it is applied; one that got in before keeps its last good revision in force."
        "Mend the policy at the place that is named."
    NOT_YET_ACTIVE "not-yet-active" Warning
        "This part of the policy is checked, and not acted on by this version."
        "Do not count on it yet, or take it out."
    BARE_POLICY "bare-policy" Error
        "There is no kind GuardianPolicy in the cluster: a policy lives in a ConfigMap, and this document would be refused."
        "Put the document into the key policy.yaml of a ConfigMap with the label stateful-guardian.io/policy: \"true\"."
    POLICY_WITHOUT_LABEL "policy-without-label" Warning
        "A ConfigMap is a policy by its label alone: this one is never looked at."
        "Add the label stateful-guardian.io/policy: \"true\"."
    POLICY_SELECTS_NOTHING "policy-selects-nothing" Warning
        "A policy that selects no StatefulSet guards nothing, and nobody is told."
        "Compare the policy's selector with the labels of the StatefulSet itself (metadata.labels, not those of its pods)."
    SEVERAL_POLICIES "several-policies" Warning
        "One policy guards a set: of several that select it the first by name, which changes when another is added."
        "Make the selectors disjoint, or name one policy in the set's annotation stateful-guardian.io/policy."
    MISSING_CONTAINER "missing-container" Error
        "No hook can run in a container that the pod template lacks. Where `container`, `init`, `join`, `rejoin` or `preStop` names it, the \
         policy is not applied at all: the set goes through unguarded."
        "Name a container of the template, or leave `container` out: hooks run in the first one then."
    RESERVED_NAME "reserved-name" Error
        "The volume name guardian and the mount path /guardian are the runner's: the set goes through unguarded."
        "Rename your volume, or mount it elsewhere."
    ORDERED_READY_PROBE "ordered-ready-probe" Error
        "With podManagementPolicy: OrderedReady a pod is made only once the one before it is ready; a pod whose readiness asks for a \
         later one waits for ever."
        "Set podManagementPolicy: Parallel, or let the probe ask the pod about itself alone."
    ORDERED_READY_BOOTSTRAP "ordered-ready-bootstrap" Error
        "`bootstrap` waits for all pods, `readyAfter: join` keeps the first pod from being ready until its join, which comes after \
         bootstrap, and OrderedReady makes no second pod until the first is ready: each waits for the other, until the startup probe \
         gives up waiting, pod by pod."
        "Set podManagementPolicy: Parallel, or remove `readyAfter`."
    HEADLESS_SERVICE_HIDES_UNREADY "headless-service-hides-unready" Warning
        "The names of pods that are not ready do not resolve, so a hook that runs before its pod and its peers are ready finds nobody."
        "Set publishNotReadyAddresses: true on the headless Service; send clients to another Service."
    SERVICE_NOT_HEADLESS "service-not-headless" Error
        "Only a headless Service gives the pods of a StatefulSet their own DNS names."
        "Set clusterIP: None on the Service that serviceName names, and make another one for clients."
    SERVICE_NOT_GIVEN "service-not-given" Note
        "The Service that serviceName names is not among the given documents, so it was not looked at."
        "Give its file too; if there is none, the pods have no DNS names of their own."
    NO_RESOURCES "no-resources" Warning
        "Hooks run in the container and are charged to it. Without a memory request the pod is among the first to be evicted, and \
         percentages of usage mean nothing without a limit."
        "Set resources.requests, and limits.memory, on the container in which hooks run."
    RESIZE_OF_NO_USE "resize-of-no-use" Warning
        "`resize` raises a limit that is there, up to the rule's `max`, and never where that would restart the container: where it cannot, \
         the rule goes on with its next action."
        "Set resources.limits of the container below `max`, and no resizePolicy that says RestartContainer; or take the resource out of \
         the rule's `resize`."
    DATA_ON_EMPTY_DIR "data-on-empty-dir" Warning
        "An emptyDir goes with its pod: every replaced pod comes back without data."
        "Put the data on a volumeClaimTemplate, unless it can be made again from peers."
    GRACE_UNDER_PRE_STOP "grace-under-pre-stop" Error
        "The grace period includes preStop: the kubelet kills the container before hooks and application are done. A grace period of \
         your own is not raised."
        "Raise terminationGracePeriodSeconds, shorten the preStop timeout, or set protect.override: true."
    OWN_PRE_STOP_STAYS "own-pre-stop-stays" Warning
        "A container has one preStop handler. Yours cannot be chained, so it stays, and the policy's preStop hook never runs."
        "Make yours a command, or set inject.ownPreStop: replace."
    OWN_STARTUP_PROBE_STAYS "own-startup-probe-stays" Warning
        "A container has one startupProbe. Yours stays, so the pod may be ready before its hook has run, whatever `readyAfter` says."
        "Remove yours, or set protect.override: true."
    LIVENESS_UNDER_HOOK "liveness-under-hook" Warning
        "A pod that is still joining may not answer its liveness probe, and the kubelet restarts it in the middle of the hook, again \
         and again."
        "Add a startupProbe that allows for the hook's timeout, or raise the liveness probe's failureThreshold."
    RESERVED_PRIORITY_CLASS "reserved-priority-class" Warning
        "Priority classes that begin with system- are the cluster's own: the policy's is not written."
        "Create a PriorityClass of your own, and name that."
    PRIORITY_CLASS_NOT_GIVEN "priority-class-not-given" Note
        "The PriorityClass is not among the given documents. In a cluster without it the policy's is not written, and pods of a set that \
         names it itself are refused."
        "Give its file too, or make sure that the cluster has it."
    BUDGET_ALLOWS_NOTHING "budget-allows-nothing" Error
        "A PodDisruptionBudget that allows no pod to go blocks every drain of a node, until somebody deletes it or the pod in anger."
        "Allow one pod at least, such as maxUnavailable: 1."
    TWO_BUDGETS "two-budgets" Error
        "The API server refuses every eviction of a pod that two PodDisruptionBudgets select."
        "Keep one of them."
    QUORUM_IMPOSSIBLE "quorum-impossible" Error
        "More pods than there are can never be ready: nothing disruptive is ever done."
        "Lower protect.quorum, or raise replicas; majority follows the replicas by itself."
    QUORUM_WITHOUT_ROOM "quorum-without-room" Warning
        "With a quorum of all replicas no pod may ever be taken down."
        "Lower protect.quorum, or run more replicas."
    BELOW_MIN_REPLICAS "below-min-replicas" Warning
        "The set begins below the least that the policy wants to keep; only a request that lowers the replicas is denied."
        "Raise replicas, or lower protect.minReplicas."
    UPDATE_STRATEGY_SHADOWED "update-strategy-shadowed" Warning
        "The policy's guarded update drives the set's update strategy; what the set says itself is set aside."
        "Remove updateStrategy from the set, or `update` from the policy."
}
