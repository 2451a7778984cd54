//! The certificate of an admission webhook, without another operator: a CA and a leaf are made, kept in one Secret,
//! published as the `caBundle` of two webhook configurations, and renewed before they expire, the CA with overlap.
//!
//! ```text
//! Secret -> rotate::next (pure) -> Secret, by compare-and-swap -> caBundle, where it differs
//! ```
//!
//! Any number of replicas may run at once: the Secret is written only on top of what was read, and whoever comes second
//! takes what the first has written.
//!
//! A Secret that was lost or damaged is made anew with a CA that no server has a leaf of yet. So whatever CA the API server trusts
//! at that moment stays behind the new one for [`Lives::settle`].
//!
//! # Rights
//!
//! | resource | verbs | narrowed to |
//! |---|---|---|
//! | `secrets`, in the own namespace | `get`, `update` | the one Secret, by `resourceNames` |
//! | `secrets`, in the own namespace | `create` | nothing: `resourceNames` cannot narrow `create`, since the name is not known to the authorizer. Not needed where the Secret is installed empty |
//! | `mutatingwebhookconfigurations`, `validatingwebhookconfigurations` | `get`, `patch` | the one of each, by `resourceNames` |
//!
//! No `list`, no `watch`: every name is configured.

mod api;
mod keep;
mod make;
mod publish;
mod rotate;

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::admissionregistration::v1::{MutatingWebhookConfiguration, ValidatingWebhookConfiguration};
use kube::Client;
use tokio_util::sync::CancellationToken;

pub use api::ApiError;
pub use keep::KeepError;
pub use make::{MakeError, names};
pub use publish::{PublishError, Published};
pub use rotate::{Content, Lives, LivesError, Next, next};

/// Between two passes when all is well: a `caBundle` that something else has overwritten is back within a minute, for
/// three small reads a minute.
const EVERY: Duration = Duration::from_secs(60);

/// Between two passes when something failed or a webhook configuration is not there yet.
const RETRY: Duration = Duration::from_secs(5);

/// The objects, by name, and how long the certificates live.
#[derive(Debug, Clone)]
pub struct Config {
    /// The namespace of the Secret and of the Service.
    pub namespace: String,
    /// The Secret that holds the pair; it must not be used for anything else.
    pub secret: String,
    /// The Service of the webhook: the certificate holds for its DNS names.
    pub service: String,
    /// The `MutatingWebhookConfiguration` whose every webhook gets the `caBundle`.
    pub mutating: String,
    /// The `ValidatingWebhookConfiguration` whose every webhook gets the `caBundle`.
    pub validating: String,
    /// How long the certificates live.
    pub lives: Lives,
}

/// Keeps the certificates until `shutdown`. A pass that fails is told and made again in 5 s; nothing that is in use is
/// lost by it.
pub async fn run(client: Client, config: Config, clock: impl Fn() -> Timestamp, shutdown: CancellationToken) {
    let mut certs = Certs::new(client, config);
    // Whoever was here before may have written the Secret just now.
    certs.others_until = Some(clock() + certs.config.lives.settle);
    let mut told = None;
    loop {
        let passed = certs.pass(clock()).await;
        let (wait, problem) = match &passed {
            Ok(pass) => (certs.wait(pass), certs.waits_for(pass)),
            Err(error) => (RETRY, Some(error.to_string())),
        };
        if let Some(problem) = problem.as_ref().filter(|problem| told.as_ref() != Some(*problem)) {
            tracing::warn!(problem, "the webhook certificates are not in place; trying again");
        }
        told = problem;
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = shutdown.cancelled() => return,
        }
    }
}

/// One pass: a pair is in the Secret, and its CA in both webhook configurations where they exist. The CA itself is
/// rotated only by [`run`], which knows for how long the new one has been published.
pub async fn ensure_once(client: Client, config: Config, now: Timestamp) -> Result<Pass, Error> {
    Certs::new(client, config).pass(now).await
}

/// What one pass has found and done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pass {
    /// Why the Secret was written; empty when it was not.
    pub renewed: Vec<&'static str>,
    /// When the leaf expires.
    pub not_after: Timestamp,
    /// What became of the `caBundle` of the mutating webhooks.
    pub mutating: Published,
    /// What became of the `caBundle` of the validating webhooks.
    pub validating: Published,
}

struct Certs {
    client: Client,
    config: Config,
    /// The bundle that the API server was seen to have, and since when. Not kept over a restart: then the CA waits for
    /// [`Lives::settle`] once more.
    published: Option<(String, Timestamp)>,
    /// Until then the API server goes on trusting what it trusts, beside the bundle of the Secret.
    others_until: Option<Timestamp>,
}

impl Certs {
    fn new(client: Client, config: Config) -> Self {
        Self { client, config, published: None, others_until: None }
    }

    async fn pass(&mut self, now: Timestamp) -> Result<Pass, Error> {
        let config = &self.config;
        config.lives.check()?;
        let names = names(&config.service, &config.namespace);
        let rule = |content: &Content| {
            let since = self.published.as_ref().filter(|(bundle, _)| *bundle == content.ca_crt).map(|(_, since)| *since);
            next(content, &names, &config.lives, since, now)
        };
        let next = keep::keep(&self.client, &config.namespace, &config.secret, rule).await?;
        for reason in &next.reasons {
            tracing::info!(secret = config.secret, not_after = %next.not_after, reason, "the Secret has new certificates");
        }
        let bundle = &next.content.ca_crt;
        let is_new = self.published.as_ref().is_some_and(|(published, _)| published != bundle);
        if is_new || !next.reasons.is_empty() {
            self.others_until = Some(now + config.lives.settle);
        }
        let keeps_others = self.others_until.is_some_and(|until| now < until);
        let wanted = |held: &str| if keeps_others { rotate::beside(bundle, held, now) } else { bundle.clone() };
        // Each has its turn, whatever became of the other.
        let mutating = publish::publish::<MutatingWebhookConfiguration>(&self.client, &config.mutating, wanted).await;
        let validating = publish::publish::<ValidatingWebhookConfiguration>(&self.client, &config.validating, wanted).await;
        let (mutating, validating) = (mutating?, validating?);
        if [mutating, validating].contains(&Published::Patched) {
            tracing::info!(config.mutating, config.validating, "the webhook configurations have the CA bundle of the Secret");
        }
        if self.published.as_ref().is_none_or(|(published, _)| published != bundle) {
            self.published = Some((bundle.clone(), now));
        }
        Ok(Pass { renewed: next.reasons, not_after: next.not_after, mutating, validating })
    }

    /// Until the next pass: never longer than a tenth of the shortest life, so that short lives work too.
    fn wait(&self, pass: &Pass) -> Duration {
        if self.waits_for(pass).is_some() {
            return RETRY;
        }
        EVERY.min(self.config.lives.leaf.unsigned_abs() / 10)
    }

    fn waits_for(&self, pass: &Pass) -> Option<String> {
        let config = &self.config;
        let mutating = (pass.mutating, "MutatingWebhookConfiguration", &config.mutating);
        let validating = (pass.validating, "ValidatingWebhookConfiguration", &config.validating);
        let missing = [mutating, validating].into_iter().find(|(published, ..)| *published == Published::Missing);
        missing.map(|(_, kind, name)| format!("there is no {kind} {name} yet"))
    }
}

/// Why a pass failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The lives do not fit together.
    #[error(transparent)]
    Lives(#[from] LivesError),
    /// The Secret could not be kept.
    #[error(transparent)]
    Keep(#[from] KeepError),
    /// A `caBundle` could not be published.
    #[error(transparent)]
    Publish(#[from] PublishError),
}
