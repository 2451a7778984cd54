//! What a rehearsal takes for granted, in figures. All of it is said with every rehearsal.

use std::time::Duration;

use jiff::SignedDuration;

/// What a hook takes of which nothing is said.
pub(super) const HOOK: Duration = Duration::from_millis(500);
/// From the end of a container to its next start. The kubelet makes the first restart at once, and its runtime takes about a second.
pub(super) const RESTART: SignedDuration = SignedDuration::from_secs(1);
/// From the creation of a pod to the start of its containers, or of its init hook: scheduled, its volume there, its image too.
pub(super) const START: SignedDuration = SignedDuration::from_secs(2);
/// From the start of its containers until a pod is ready.
pub(super) const READY: SignedDuration = SignedDuration::from_secs(1);
/// From the end of a pod's preStop until it is gone.
pub(super) const STOP: SignedDuration = SignedDuration::from_secs(1);
/// The first pause of a kubelet before it runs an init container again that failed; it doubles up to [`MAX_INIT_AGAIN`].
pub(super) const INIT_AGAIN: SignedDuration = SignedDuration::from_secs(10);
/// The longest.
pub(super) const MAX_INIT_AGAIN: SignedDuration = SignedDuration::from_mins(5);
/// After how long a drain asks again that was told to wait for a hand-over: the answer's own `Retry-After`.
pub(super) const ASK_AGAIN: SignedDuration = SignedDuration::from_secs(1);
/// The same where a budget refuses, as `kubectl drain` does.
pub(super) const ASK_BUDGET_AGAIN: SignedDuration = SignedDuration::from_secs(5);
/// After how long without an answer a node's pods are not ready any more (`node-monitor-grace-period`).
pub(super) const NOT_READY: SignedDuration = SignedDuration::from_secs(50);
/// How long after that they are evicted (`tolerationSeconds` of the default tolerations).
pub(super) const TOLERATED: SignedDuration = SignedDuration::from_secs(300);
/// When the object of a lost node is deleted, and its pods with it.
pub(super) const NODE_DELETED: SignedDuration = SignedDuration::from_secs(600);
/// How long the nodes of a zone are without power: shorter than it takes until their pods are evicted.
pub(super) const OUTAGE: SignedDuration = SignedDuration::from_secs(120);
/// Between two measurements of what a rule looks at.
pub(super) const MEASURED: SignedDuration = SignedDuration::from_secs(5);
/// Limit of memory of a container in the rehearsal of a rule: 1 GiB. Of processor time it is one core.
pub(super) const MEMORY: f64 = 1024.0 * 1024.0 * 1024.0;
/// Size of its data volume: 10 GiB.
pub(super) const DISK: f64 = 10.0 * MEMORY;

/// Most simulated time of a rehearsal: four times the longest pause between two attempts of a hook (15 minutes), and six times
/// [`NODE_DELETED`].
pub(super) const MAX_TIME: SignedDuration = SignedDuration::from_hours(1);
/// The same for the start of the set before the scenario. With `readyAfter` a pod may take 60 s to be ready, one after the other: so 1,440
/// pods.
pub(super) const MAX_START: SignedDuration = SignedDuration::from_hours(24);
/// Most passes of a rehearsal. A rule has the set looked at every 5 s, 720 times in [`MAX_TIME`]; a drain asks at most 720 times; each hook
/// is three passes.
pub(super) const MAX_PASSES: u32 = 10_000;
/// Most replicas: each pass looks at every pod, so a rehearsal looks at a million pods at most, which takes seconds.
pub(super) const MAX_REPLICAS: u32 = 100;
/// With nothing open, so long without a change is the end: longer than a silent pod keeps its role unless it is asked less often than every
/// 100 s, and as long as what a rule looks at is believed without a measurement.
pub(super) const CALM: SignedDuration = SignedDuration::from_mins(5);
