//! The one list of reasons: for hooks (`GUARDIAN_REASON`), Events, metrics, log lines and the ledger, always in this spelling.
//!
//! They are part of the product's contract: scripts and alerts match on them, so a word is never changed, only added.

use std::fmt;
use std::str::FromStr;

/// A word that is no reason of the asked kind: written by a newer guardian, or by hand.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{word:?} is no {kind} reason that this version knows")]
pub struct UnknownReason {
    kind: &'static str,
    word: String,
}

/// Declares a kind of reason whose words are the names of its variants, each written once.
macro_rules! reasons {
    ($(#[$kind_doc:meta])* $kind:ident { $($(#[$doc:meta])* $word:ident,)+ }) => {
        $(#[$kind_doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
        pub enum $kind { $($(#[$doc])* $word,)+ }

        impl $kind {
            /// All words of this kind.
            pub const ALL: &'static [Self] = &[$(Self::$word),+];

            /// The word.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$word => stringify!($word),)+ }
            }
        }

        impl fmt::Display for $kind {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(self.as_str())
            }
        }

        impl FromStr for $kind {
            type Err = UnknownReason;

            fn from_str(word: &str) -> Result<Self, UnknownReason> {
                Self::ALL.iter().copied().find(|r| r.as_str() == word).ok_or_else(|| UnknownReason {
                    kind: stringify!($kind),
                    word: word.to_owned(),
                })
            }
        }
    };
}

reasons! {
    /// Why a container runs that did not run before.
    Start {
        /// The first start of an ordinal that the guardian has seen.
        FirstStart,
        /// The set was given more replicas.
        ScaleOut,
        /// The application ended with an error, or by a signal that the kernel's memory limit did not send.
        Crash,
        /// The kernel killed it at its memory limit.
        OOMKilled,
        /// The application ended by itself, without an error.
        Completed,
        /// The kubelet killed it because its liveness probe failed.
        LivenessFailed,
        /// The kubelet, a taint or a full node removed the pod.
        Evicted,
        /// The scheduler removed the pod for one of higher priority.
        Preempted,
        /// The pod was removed through the eviction API, as `kubectl drain` and the autoscalers do.
        Drained,
        /// Somebody deleted the pod.
        Deleted,
        /// The pod was replaced by one of another revision.
        Updated,
        /// The pod's node is gone.
        NodeLost,
        /// The pod's node was restarted.
        NodeRebooted,
        /// The whole set was down.
        ClusterRestart,
        /// Nothing has started: a person asked for it (`guardian run`, `guardian shed`).
        Requested,
        /// A rule of the policy asked for it.
        Rule,
        /// Kubernetes kept nothing that tells.
        Unknown,
    }
}

impl Start {
    /// Did something fail? What a person, a rollout or a drain has stopped was meant to stop.
    #[must_use]
    pub const fn is_failure(self) -> bool {
        use Start::{Completed, Crash, Evicted, LivenessFailed, NodeLost, NodeRebooted, OOMKilled, Preempted, Unknown};
        matches!(self, Crash | OOMKilled | Completed | LivenessFailed | Evicted | Preempted | NodeLost | NodeRebooted | Unknown)
    }
}

reasons! {
    /// Why a pod is being stopped.
    Stop {
        /// The set was given fewer replicas.
        ScaleIn,
        /// The pod makes place for one of another revision.
        Update,
        /// The eviction API removes it.
        Drain,
        /// The scheduler removes it for a pod of higher priority.
        Preemption,
        /// The node is short of memory, disk or process ids.
        NodePressure,
        /// Its liveness probe failed.
        Liveness,
        /// Somebody deleted it.
        Delete,
        /// The whole set goes down on purpose.
        Shutdown,
        /// The node goes down on purpose.
        NodeShutdown,
        /// Nobody told the pod in time.
        Unknown,
    }
}

reasons! {
    /// Why something that was due is not done, yet or at all.
    Hold {
        /// The annotation `stateful-guardian.io/hold` of the set or the namespace.
        OnHold,
        /// Another episode is at work on the same pod, or on the whole set.
        HeldBy,
        /// The ledger was written by a newer guardian.
        LedgerTooNew,
        /// The ledger cannot be read.
        LedgerUnreadable,
        /// The ledger has no room left.
        LedgerFull,
        /// The API server does not let the guardian do it.
        Forbidden,
        /// The policy, or its last edit, cannot be read.
        PolicyInvalid,
        /// Nobody who may run commands in the namespace's pods has approved the policy, or its last edit.
        PolicyNotApproved,
        /// No policy guards the set.
        NoPolicy,
        /// The policy has no hook for the occasion.
        NoHook,
        /// The policy names a container that the pod does not have.
        NoSuchContainer,
        /// A pod does not tell its role, or not in words that can be one.
        RoleUnknown,
        /// Two pods claim a role with the same version.
        RoleContested,
        /// Nothing tells whether the data in a volume is that of a member of the cluster.
        UnknownHistory,
        /// The bootstrap hook failed, or nobody knows how far it came.
        BootstrapFailed,
        /// Too few other pods are ready.
        Quorum,
        /// As many hooks run as may at a time, in the namespace or in all.
        Braked,
        /// It was done again and again, and did not help.
        BreakerOpen,
        /// A pod becomes ready and not ready again and again, so nothing is done on the strength of it.
        Flapping,
        /// Nobody hears of the node of a pod, and nothing proves that the pod cannot write any more.
        NotFenced,
        /// A PodDisruptionBudget, or a guard of the eviction, does not allow it now.
        Budget,
        /// A rule is due, and its budget is used up.
        RuleBudget,
        /// A Service does not tell the pods that serve from those that do not, so none can be taken out of it.
        NotSelected,
        /// A PodDisruptionBudget of somebody else selects pods of the set, so there is none of ours.
        OtherBudget,
        /// The list of members in a pod is not the one that it should be.
        MembersNotCurrent,
        /// The API server did not answer, or not well.
        ApiUnavailable,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_reads_back_from_the_word_it_is_written_as() {
        for reason in Start::ALL {
            assert_eq!(reason.as_str().parse(), Ok(*reason));
            let json = serde_json::to_string(reason).unwrap();
            assert_eq!(json, format!("\"{reason}\""), "one spelling everywhere");
        }
        for reason in Stop::ALL {
            assert_eq!(reason.as_str().parse(), Ok(*reason));
        }
        for reason in Hold::ALL {
            assert_eq!(reason.as_str().parse(), Ok(*reason));
        }
    }

    #[test]
    fn the_spelling_of_the_contract_is_kept() {
        let start: Vec<&str> = Start::ALL.iter().map(|r| r.as_str()).collect();
        assert_eq!(
            start.join(" "),
            "FirstStart ScaleOut Crash OOMKilled Completed LivenessFailed Evicted Preempted Drained Deleted Updated NodeLost \
             NodeRebooted ClusterRestart Requested Rule Unknown"
        );
        let stop: Vec<&str> = Stop::ALL.iter().map(|r| r.as_str()).collect();
        assert_eq!(stop.join(" "), "ScaleIn Update Drain Preemption NodePressure Liveness Delete Shutdown NodeShutdown Unknown");
    }

    #[test]
    fn a_word_of_another_kind_is_refused_by_name() {
        let error = "ScaleIn".parse::<Start>().unwrap_err();
        assert_eq!(error.to_string(), "\"ScaleIn\" is no Start reason that this version knows");
    }
}
