//! Who leads: a Lease in the guardian's own namespace.
//!
//! The holder renews it; a candidate takes it over when it has seen no renewal for its whole duration, timed by its own monotonic clock, so
//! that clocks which disagree do not matter. A holder that cannot renew gives up before anybody can take over. Between that and the next
//! answer of the API server two may act: the ledger's compare-and-swap and the runner's claim are what make that safe.

use std::time::Duration;

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use kube::api::PostParams;
use kube::{Api, Client};
use tokio::time::{Instant, sleep, timeout};

use super::api::{ApiError, call};
use super::clock::Clock;

/// Name of the Lease.
pub const LEASE: &str = "guardian-controller";

/// A lease that is not renewed for this long can be taken over.
const DURATION: Duration = Duration::from_secs(15);
/// A holder renews this often: three times within its duration.
const RENEW: Duration = Duration::from_secs(5);
/// A holder that could not renew for this long gives up: 5 s before anybody can take over.
const GIVE_UP: Duration = Duration::from_secs(10);
/// Between two attempts to take or to renew it.
const RETRY: Duration = Duration::from_secs(2);
/// The longest duration of somebody else's lease that is waited for: one that asks for more is broken.
const MAX_DURATION: Duration = Duration::from_secs(60);

/// The lease, held.
pub(super) struct Leadership {
    candidate: Candidate,
    lease: Lease,
    renewed: Instant,
}

struct Candidate {
    api: Api<Lease>,
    identity: String,
    clock: Clock,
}

/// Waits until the lease is ours.
pub(super) async fn acquire(client: Client, namespace: &str, identity: &str, clock: Clock) -> Leadership {
    let api = Api::namespaced(client, namespace);
    let candidate = Candidate { api, identity: identity.to_owned(), clock };
    let mut seen = None;
    loop {
        let asked = Instant::now();
        match candidate.attempt(&mut seen).await {
            Ok(Some(lease)) => {
                tracing::info!(identity, "leading");
                return Leadership { candidate, lease, renewed: asked };
            }
            Ok(None) => {}
            Err(error) if error.is_conflict() => tracing::debug!("another candidate was first"),
            Err(error) => tracing::warn!(error = &error as &dyn std::error::Error, "cannot ask for the lease"),
        }
        sleep(RETRY).await;
    }
}

/// What a candidate saw of the holder, and since when it has not changed.
struct Seen {
    version: Option<String>,
    since: Instant,
}

impl Candidate {
    async fn attempt(&self, seen: &mut Option<Seen>) -> Result<Option<Lease>, ApiError> {
        let lease = match call("read the lease", self.api.get(LEASE)).await {
            Ok(lease) => lease,
            Err(error) if error.code() == Some(404) => {
                let first = self.renewed(Lease { metadata: named(), spec: None });
                return call("make the lease", self.api.create(&PostParams::default(), &first)).await.map(Some);
            }
            Err(error) => return Err(error),
        };
        if !self.may_take(&lease, seen) {
            return Ok(None);
        }
        call("take the lease", self.api.replace(LEASE, &PostParams::default(), &self.renewed(lease))).await.map(Some)
    }

    fn may_take(&self, lease: &Lease, seen: &mut Option<Seen>) -> bool {
        let spec = lease.spec.as_ref();
        let holder = spec.and_then(|s| s.holder_identity.as_deref()).unwrap_or_default();
        if holder.is_empty() || holder == self.identity {
            return true;
        }
        let version = lease.metadata.resource_version.clone();
        let since = match seen {
            Some(seen) if seen.version == version => seen.since,
            _ => seen.insert(Seen { version, since: Instant::now() }).since,
        };
        let seconds = spec.and_then(|s| s.lease_duration_seconds).and_then(|s| u64::try_from(s).ok());
        since.elapsed() >= seconds.map_or(DURATION, Duration::from_secs).min(MAX_DURATION)
    }

    /// The lease as this candidate holds it from now on. It keeps its version, so that of two candidates one is refused.
    fn renewed(&self, mut lease: Lease) -> Lease {
        let now = MicroTime(self.clock.now());
        let spec = lease.spec.get_or_insert_with(LeaseSpec::default);
        if spec.holder_identity.as_ref() != Some(&self.identity) {
            spec.holder_identity = Some(self.identity.clone());
            spec.lease_transitions = Some(spec.lease_transitions.map_or(0, |n| n.saturating_add(1)));
            spec.acquire_time = Some(now.clone());
        }
        spec.lease_duration_seconds = i32::try_from(DURATION.as_secs()).ok();
        spec.renew_time = Some(now);
        lease
    }
}

impl Leadership {
    /// Renews it; comes back when it is lost, with the reason.
    pub(super) async fn keep(&mut self) -> String {
        loop {
            sleep(RENEW.saturating_sub(self.renewed.elapsed())).await;
            while let Err(why) = self.renew().await {
                let left = GIVE_UP.saturating_sub(self.renewed.elapsed());
                match why {
                    NotRenewed::Taken(holder) => return format!("{holder} has taken the lease"),
                    NotRenewed::Failed(error) if left.is_zero() => {
                        return format!("the lease could not be renewed for {} s: {error}", GIVE_UP.as_secs());
                    }
                    NotRenewed::Failed(error) => {
                        tracing::warn!(error = &error as &dyn std::error::Error, "cannot renew the lease");
                        sleep(RETRY.min(left)).await;
                    }
                }
            }
        }
    }

    /// Lets it go, so that the next candidate need not wait.
    pub(super) async fn release(mut self) {
        if let Some(spec) = self.lease.spec.as_mut() {
            spec.holder_identity = None;
        }
        let released = call("release the lease", self.candidate.api.replace(LEASE, &PostParams::default(), &self.lease)).await;
        if let Err(error) = released {
            tracing::warn!(error = &error as &dyn std::error::Error, "the next controller has to wait for the lease to run out");
        }
    }

    async fn renew(&mut self) -> Result<(), NotRenewed> {
        let asked = Instant::now();
        let left = GIVE_UP.saturating_sub(self.renewed.elapsed());
        let api = &self.candidate.api;
        let next = self.candidate.renewed(self.lease.clone());
        let answer = timeout(left, call("renew the lease", api.replace(LEASE, &PostParams::default(), &next))).await;
        match answer.unwrap_or(Err(ApiError::Silent { what: "renew the lease" })) {
            Ok(lease) => {
                self.lease = lease;
                self.renewed = asked;
                Ok(())
            }
            // Perhaps our own renewal, whose answer did not arrive: then the lease is still ours, in another version.
            Err(error) if error.code() == Some(409) => {
                let there = timeout(left, call("read the lease", api.get(LEASE))).await;
                let there = there.unwrap_or(Err(error)).map_err(NotRenewed::Failed)?;
                let holder = there.spec.as_ref().and_then(|s| s.holder_identity.clone()).unwrap_or_default();
                if holder != self.candidate.identity {
                    return Err(NotRenewed::Taken(holder));
                }
                self.lease = there;
                Err(NotRenewed::Failed(ApiError::Silent { what: "an earlier renewal of the lease" }))
            }
            Err(error) => Err(NotRenewed::Failed(error)),
        }
    }
}

enum NotRenewed {
    Taken(String),
    Failed(ApiError),
}

fn named() -> ObjectMeta {
    ObjectMeta { name: Some(LEASE.to_owned()), ..ObjectMeta::default() }
}
