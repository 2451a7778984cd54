//! The controller, top to bottom: a change of the cluster names a set; the set is observed; the core decides; what it decides is written
//! into the ledger in one compare-and-swap; then it is carried out, and its end brings the set here again.
//!
//! | module | what |
//! |---|---|
//! | `queue`, `due` | whose turn it is |
//! | `watch`, `observed`, `policies` | what is known of the cluster, and which set a change is about |
//! | `toggles` | how often pods became ready, and not |
//! | `departed` | what was last seen of pods that went, for those that come |
//! | `evidence` | what Events tell of a restart, and nothing else does |
//! | `ledger` | the ledgers, in ConfigMaps |
//! | `prune` | ledgers of sets that are gone with their volumes |
//! | `action` | a decision becomes a request |
//! | `runs`, `brake`, [`exec`](Exec) | requests carried out in pods, bounded; said where they wait for long |
//! | `collect` | the pods are asked for their roles and metrics, bounded |
//! | `roles`, [`samples`](Samples) | what they say |
//! | `stops` | pods that stop are told why |
//! | `sight` | the same view of one set, for the command line |
//! | `record`, `events`, `metrics` | what the world is told |
//! | `lease` | who leads |

mod action;
mod api;
mod brake;
mod clock;
mod collect;
mod departed;
mod due;
mod events;
mod evidence;
mod exec;
mod hand_over;
mod lease;
mod ledger;
mod metrics;
mod observed;
mod policies;
mod prune;
mod queue;
mod record;
mod roles;
mod runs;
mod samples;
mod sight;
mod stops;
mod toggles;
mod watch;

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use futures::channel::mpsc;
use guardian_core::ledger::State;
use guardian_core::lifecycle::{Decision, Held, Observed, Step, decide};
use guardian_core::policy::Policy;
use guardian_core::reason;
use jiff::Timestamp;
use kube::Client;
use kube::api::ObjectMeta;
use kube::runtime::reflector::ObjectRef;
use prometheus::Registry;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

pub use api::ApiError;
pub use clock::Clock;
pub use collect::Agent;
pub(crate) use events::REPORTER;
pub use exec::{Exec, ExecError, Heard, Notice, Order, PodExec, Questions};
pub use lease::LEASE;
pub use ledger::{LEDGER, StoreError};
pub use runs::Bounds;
pub use samples::Samples;

pub(crate) use action::prepared;
pub(crate) use ledger::metadata as ledger_metadata;
pub(crate) use policies::Guard;
pub(crate) use sight::Sight;

use crate::policies::Watched;
use action::Hands;
use collect::Collector;
use events::Events;
use evidence::Evidence;
use ledger::{Ledgers, Stored};
use metrics::Metrics;
use observed::StatefulSet;
use record::Recorder;
use runs::{Runs, Wait};
use watch::Cluster;

/// Finished runs that wait to be looked at: as many as are under way at most, with room for those of a storm.
const FINISHED: usize = 1024;

/// What the controller is told.
#[derive(Clone)]
pub struct Config {
    /// Names this process in the Lease and in Events: the name of its pod.
    pub identity: String,
    /// Namespace of the Lease and of the approvals: the guardian's own.
    pub namespace: String,
    /// How much goes on at once.
    pub bounds: Bounds,
    /// What time it is.
    pub clock: Clock,
    /// What the pods say of their metrics, for whoever serves it.
    pub samples: Samples,
    /// How hooks are run; `None`: by `pods/exec`.
    pub exec: Option<Arc<dyn Exec>>,
}

/// Why the controller ended.
#[derive(Debug, thiserror::Error)]
pub enum ControllerError {
    /// Another process leads, or may soon. This one must end.
    #[error("leadership lost: {0}")]
    LeadershipLost(String),
    /// The registry has metrics of these names already.
    #[error("cannot register the controller's metrics")]
    Metrics(#[from] prometheus::Error),
    /// The stream of changes ended, which it never does.
    #[error("the watches ended")]
    WatchesEnded,
}

/// One StatefulSet, by namespace and name: the key of the queue.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct SetKey {
    namespace: String,
    name: String,
}

impl SetKey {
    fn of(metadata: &ObjectMeta) -> Option<Self> {
        Some(Self { namespace: metadata.namespace.clone()?, name: metadata.name.clone()? })
    }

    fn object(&self) -> ObjectRef<StatefulSet> {
        ObjectRef::new(&self.name).within(&self.namespace)
    }
}

/// Runs until `shutdown`, or until it must not go on. First it waits until it leads.
///
/// # Errors
/// When leadership is lost: the process has to end, since what it knows may be out of date.
pub async fn run(client: Client, config: Config, metrics: &Registry, shutdown: CancellationToken) -> Result<(), ControllerError> {
    let policies = Watched::new(metrics)?;
    let asking = collect::Metrics::new(metrics)?;
    let stops = stops::Metrics::new(metrics)?;
    let brakes = brake::Metrics::new(metrics)?;
    let client = api::bounded(client);
    let events = Events::new(client.clone(), config.clock.clone(), config.identity.clone(), metrics)?;
    let recorder = Recorder::new(config.clock.clone(), events, Metrics::new(metrics)?);
    let acquiring = lease::acquire(client.clone(), &config.namespace, &config.identity, config.clock.clone());
    let mut leadership = tokio::select! {
        leadership = acquiring => leadership,
        () = shutdown.cancelled() => return Ok(()),
    };
    recorder.metrics.leader.set(1);
    let ended = tokio::select! {
        biased;
        () = shutdown.cancelled() => Ok(()),
        why = leadership.keep() => Err(ControllerError::LeadershipLost(why)),
        () = lead(client, config, policies, recorder, (asking, stops, brakes)) => Err(ControllerError::WatchesEnded),
    };
    if ended.is_ok() {
        leadership.release().await;
    }
    ended
}

/// Watches, decides and acts.
async fn lead(
    client: Client,
    config: Config,
    policies: Watched,
    recorder: Recorder,
    (asking, stops, brakes): (collect::Metrics, stops::Metrics, brake::Metrics),
) {
    let exec = config.exec.unwrap_or_else(|| Arc::new(PodExec::new(client.clone())));
    let (cluster, writers, stopping) = Cluster::new(policies, config.clock.clone());
    let context = Arc::new(Context {
        cluster: Arc::new(cluster),
        collector: Collector::new(Arc::clone(&exec), config.clock.clone(), config.samples, asking),
        runs: Runs::new(Arc::clone(&exec), config.clock.clone(), config.bounds, brakes),
        ledgers: Ledgers::new(client.clone()),
        evidence: Evidence::new(client.clone()),
        hands: Hands::new(client.clone(), config.namespace.clone()),
        recorder,
        clock: config.clock,
        failures: queue::Failures::default(),
    });
    let (finished, finishes) = mpsc::channel(FINISHED);
    let (begun, begins) = mpsc::channel(FINISHED);
    let (heard, news) = mpsc::channel(FINISHED);
    let hurried = Arc::clone(&context);
    let finishes = finishes.inspect(move |set| hurried.collector.hurry(set));
    let changes = Arc::clone(&context.cluster).watch(&client, &config.namespace, writers);
    let written = Ledgers::written_by_others(Arc::clone(&context), &client);
    let changes = futures::stream::select_all([changes.boxed(), finishes.boxed(), begins.boxed(), news.boxed(), written.boxed()]);
    let look = |set: &SetKey| context.cluster.surroundings(set, &context.runs);
    let stopping = stops::drive(client.clone(), exec, stops, stopping, look);
    let work = queue::work(changes, Arc::clone(&context));
    let (said, sayings) = mpsc::unbounded();
    let braking = sayings.for_each(async |said| context.braked(&said));
    let pruning = prune::drive(&context, &client);
    tokio::join!(context.runs.drive(finished, begun, said), context.collector.drive(heard), stopping, braking, pruning, work);
}

/// What a pass works with.
struct Context {
    cluster: Arc<Cluster>,
    collector: Collector,
    runs: Runs,
    ledgers: Ledgers,
    evidence: Evidence,
    hands: Hands,
    recorder: Recorder,
    clock: Clock,
    failures: queue::Failures,
}

impl Context {
    /// A namespace is braked, or is so no longer.
    fn braked(&self, said: &brake::Said) {
        let set = self.cluster.set(&said.set);
        let uid = set.as_ref().and_then(|set| set.metadata.uid.as_deref());
        self.recorder.braked(said, uid, self.runs.bounds());
    }
}

/// One pass over one set, which is repeated after a pause where it fails, and after which pause it wants another, if nothing happens before. The queue never lets two of one set overlap; nothing
/// here waits for a hook.
async fn reconcile(key: &SetKey, set: &StatefulSet, context: &Context) -> Result<Option<Duration>, StoreError> {
    let Some(mut observed) = context.cluster.observe(set, &context.runs) else {
        context.recorder.forget(key);
        context.collector.forget(key);
        context.hands.keep_only(key, |_| false);
        context.recorder.guards(key, &set.metadata, context.cluster.is_guarded(set));
        return Ok(None);
    };
    context.recorder.guards(key, &set.metadata, context.cluster.is_guarded(set));
    let held = |reason, why| Held { scenario: "", reason, why };
    let guard = context.cluster.guard(set);
    context.collector.keep(key, guard.policy(), action::questions(&observed, guard.policy()));
    observed.roles = context.collector.roles().of(key, &observed.pods);
    observed.refused = context.hands.refused(key);
    observed.gauges = context.collector.samples().gauges(key, &observed.pods, guard.policy());
    let (policy, edited) = match guard {
        Guard::Policy(policy, edited) => (Some(policy), edited),
        Guard::Nobody => (None, None),
        Guard::Waits(why) => {
            context.recorder.held(key, &observed, &[held(reason::Hold::PolicyNotApproved, why)]);
            return Ok(None);
        }
        Guard::Invalid(why) => {
            context.recorder.held(key, &observed, &[held(reason::Hold::PolicyInvalid, why)]);
            return Ok(None);
        }
    };
    context.evidence.complete(&mut observed, context.ledgers.remembered(key).as_deref()).await;
    let edited = edited.map(|(reason, why)| held(reason, why));
    let pass = Pass { context, key, observed: &observed, policy: policy.as_deref(), edited };
    let done = pass.run().await;
    if let Err(error) = &done {
        pass.explain(error);
    }
    context.recorder.metrics.open_runs.set(i64::try_from(context.runs.open()).unwrap_or(i64::MAX));
    done
}

struct Pass<'a> {
    context: &'a Context,
    key: &'a SetKey,
    observed: &'a Observed,
    policy: Option<&'a Policy>,
    /// A later edit of the policy, which is not acted on.
    edited: Option<Held>,
}

impl Pass<'_> {
    async fn run(&self) -> Result<Option<Duration>, StoreError> {
        let now = self.context.clock.now();
        if let Some(remembered) = self.context.ledgers.remembered(self.key) {
            let decision = decide(self.observed, self.policy, &remembered, now);
            if decision.steps.is_empty() && !decision.asks_person() {
                self.context.recorder.metrics.open(self.key, &remembered);
                return Ok(self.rest(&decision, now).await);
            }
        }
        let stored = self.context.ledgers.load(self.key, &self.observed.set.uid).await?;
        let decision = decide(self.observed, self.policy, &stored.ledger.state, now);
        let state = if decision.is_written() { self.write(stored, &decision).await? } else { stored.ledger.state };
        self.context.recorder.metrics.open(self.key, &state);
        self.context.runs.keep_only(self.key, |id| state.runs.contains_key(id));
        self.context.hands.keep_only(self.key, |id| state.episodes.contains_key(id));
        for run_id in decision.steps.iter().filter_map(Step::starts) {
            let order = action::order(self.observed, self.policy, &state, run_id);
            order.into_iter().for_each(|order| self.context.runs.hand_over(self.key, order));
        }
        let refused = self.context.hands.carry_out(self.key, self.observed, &decision).await;
        let decision = Decision { holds: [&decision.holds[..], &refused].concat(), ..decision };
        let rest = self.rest(&decision, now).await;
        Ok(if decision.steps.is_empty() { rest } else { Some(Duration::ZERO) })
    }

    /// All steps of the pass, in one compare-and-swap. What it tells comes first: it is told again if this is not written.
    async fn write(&self, mut stored: Stored, decision: &Decision) -> Result<State, StoreError> {
        decision.write(self.observed, &mut stored.ledger);
        self.context.recorder.announce(self.observed, decision.steps.iter().filter_map(Step::record)).await;
        let state = self.context.ledgers.save(self.key, stored).await?;
        for record in decision.steps.iter().filter_map(Step::record) {
            self.context.recorder.written(self.key, self.observed, record);
        }
        Ok(state)
    }

    /// Nothing (more) to write: what is to be kept as it should be is, and when to look again.
    async fn rest(&self, decision: &Decision, now: Timestamp) -> Option<Duration> {
        self.context.failures.forget(self.key);
        let refused = self.context.hands.keep(self.observed, &decision.levels).await;
        let again = refused.again.and_then(|pause| now.checked_add(pause).ok());
        let (late, waits) = self.waits(now);
        let again = again.into_iter().chain(late).min();
        let untold = self.context.collector.untold(self.key);
        let untold = untold.map(|why| Held { scenario: "", reason: reason::Hold::MembersNotCurrent, why });
        let here = self.edited.iter().chain(&refused.holds).chain(&waits).chain(&untold);
        let holds: Vec<Held> = decision.holds.iter().chain(here).cloned().collect();
        self.keep_holds(&holds, now).await;
        self.context.recorder.held(self.key, self.observed, &holds);
        let wake = decision.wake.into_iter().chain(again).min();
        wake.map(|at| Duration::try_from(at.duration_since(now)).unwrap_or_default())
    }

    /// What waits for a place, once it has for long; else when that will be so.
    fn waits(&self, now: Timestamp) -> (Option<Timestamp>, Option<Held>) {
        match self.context.runs.wait_of(self.key) {
            None => (None, None),
            Some(Wait::Short(late)) => (now.checked_add(late.duration_since(Instant::now())).ok(), None),
            Some(Wait::Long(why)) => (None, Some(Held { scenario: "", reason: reason::Hold::Braked, why })),
        }
    }

    /// What is due and not done stands in the ledger too, where `guardian status` finds it. Where it cannot be written now, it is with the next pass.
    async fn keep_holds(&self, holds: &[Held], now: Timestamp) {
        let ledgers = &self.context.ledgers;
        let is_kept = |state: Arc<State>| !State::clone(&state).keep_holds(holds, now);
        if ledgers.remembered(self.key).is_none_or(is_kept) {
            return;
        }
        let written = async {
            let mut stored = ledgers.load(self.key, &self.observed.set.uid).await?;
            if stored.ledger.state.keep_holds(holds, now) {
                ledgers.save(self.key, stored).await?;
            }
            Ok::<_, StoreError>(())
        };
        if let Err(error) = written.await {
            tracing::warn!(
                namespace = self.key.namespace,
                set = self.key.name,
                error = queue::chain(&error),
                "its holds are not in the ledger"
            );
        }
    }

    /// A failure that lasts until a person acts is told as a hold.
    fn explain(&self, error: &StoreError) {
        use guardian_core::ledger::LedgerError;
        let reason = match error {
            StoreError::Ledger(LedgerError::TooNew { .. }) => reason::Hold::LedgerTooNew,
            StoreError::Ledger(LedgerError::Full { .. }) => reason::Hold::LedgerFull,
            StoreError::Ledger(_) => reason::Hold::LedgerUnreadable,
            StoreError::Api(error) if error.is_denied() => reason::Hold::Forbidden,
            StoreError::Api(_) => return,
        };
        let held = Held { scenario: "", reason, why: queue::chain(error) };
        self.context.recorder.held(self.key, self.observed, &[held]);
    }
}
