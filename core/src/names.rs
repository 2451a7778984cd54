//! The names that the guardian claims in other people's objects. They are part of the product's contract: pods that run today were
//! written with them, so they are never changed, only added to.

/// Prefix of every label and annotation of ours.
pub const PREFIX: &str = "stateful-guardian.io/";

/// Namespace label: opts the namespace in. The webhooks' `namespaceSelector` reads it.
pub const ENABLED: &str = "stateful-guardian.io/enabled";
/// Annotation of a policy: whoever sets it is judged as if he had written the policy. Its value means nothing.
pub const APPROVE: &str = "stateful-guardian.io/approve";
/// ConfigMap in the guardian's own namespace: the contents of policies that are approved.
pub const APPROVALS: &str = "guardian-approvals";
/// ConfigMap label: this ConfigMap holds a policy.
pub const POLICY: &str = "stateful-guardian.io/policy";
/// Key of a policy ConfigMap that holds the policy itself; the other keys are scripts.
pub const POLICY_KEY: &str = "policy.yaml";
/// Pod label, written into the template: what the controller watches.
pub const GUARDED: &str = "stateful-guardian.io/guarded";
/// Pod label: the role that the policy's `role` has printed.
pub const ROLE: &str = "stateful-guardian.io/role";
/// Pod label, written into the template where the policy has `traffic`: `"true"` where its Services may send to the pod.
pub const SERVING: &str = "stateful-guardian.io/serving";
/// Labels that the pods of one set do not have in common.
pub const PER_POD: [&str; 5] =
    ["statefulset.kubernetes.io/pod-name", "apps.kubernetes.io/pod-index", "controller-revision-hash", ROLE, SERVING];
/// Pod annotation: until when no Service of `traffic` sends to the pod, and why: `2026-11-21T12:00:00Z too many connections`.
pub const SHED: &str = "stateful-guardian.io/shed";
/// Template annotation: the record of what was written and what stood there before.
pub const INJECTED: &str = "stateful-guardian.io/injected";
/// StatefulSet annotation: `"false"` takes the set out, at its next template change.
pub const INJECT: &str = "stateful-guardian.io/inject";
/// Annotation of a StatefulSet or a namespace, with a reason as its value: nothing is denied there.
pub const HOLD: &str = "stateful-guardian.io/hold";
/// Annotation of a volume claim, with the name of the set as its value: it holds the data of a member of that set's cluster.
pub const MEMBER: &str = "stateful-guardian.io/member";
/// StatefulSet annotation: `"true"` lets it be deleted although its policy says `deletion: deny`.
pub const ALLOW_DELETION: &str = "stateful-guardian.io/allow-deletion";

/// PodDisruptionBudget label: a guardian has made it, for the set that its name names after `guardian-`.
pub const BUDGET: &str = "stateful-guardian.io/budget";

/// Lease label, in the guardian's own namespace: a pod waits there for its eviction until its role has moved.
pub const HAND_OVER: &str = "stateful-guardian.io/hand-over";
/// Name of such a Lease: this, and the pod's uid.
pub const HAND_OVER_PREFIX: &str = "evict-";

/// Init container that brings the runner into the pod.
pub const INIT: &str = "guardian-init";
/// Init container that runs the policy's `init` hook, with the application's image.
pub const INIT_HOOK: &str = "guardian-init-hook";
/// Sidecar that asks the policy's role and metrics, with the application's image; also the name of its port.
pub const AGENT: &str = "guardian-agent";
/// The init containers that are the guardian's, in the order in which they stand: what runs the runner comes after what brings it.
pub const INIT_CONTAINERS: [&str; 3] = [INIT, INIT_HOOK, AGENT];
/// The emptyDir that holds the runner, and its mount's name.
pub const VOLUME: &str = "guardian";
/// Where the emptyDir is mounted.
pub const MOUNT_PATH: &str = "/guardian";
/// The runner, as a container sees it.
pub const RUNNER: &str = "/guardian/guardian-hook";
