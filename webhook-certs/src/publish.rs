//! The `caBundle` of every webhook in a webhook configuration.

use std::fmt::Debug;

use k8s_openapi::ByteString;
use k8s_openapi::api::admissionregistration::v1::{MutatingWebhookConfiguration, ValidatingWebhookConfiguration};
use kube::api::{Patch, PatchParams};
use kube::{Api, Client, Resource, ResourceExt};
use serde::de::DeserializeOwned;

use crate::api::{ApiError, call};

/// Reads and patches in a row that lose against another writer.
const ATTEMPTS: usize = 5;

/// What became of a `caBundle`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Published {
    /// It was right already: nothing was written.
    Unchanged,
    /// It was patched.
    Patched,
    /// There is no such webhook configuration (yet).
    Missing,
}

/// Writes what `wanted` makes of the bundle that is there into every webhook of the configuration `name` that has another one.
pub(crate) async fn publish<K: WebhookConfiguration>(
    client: &Client,
    name: &str,
    wanted: impl Fn(&str) -> String,
) -> Result<Published, PublishError> {
    let configurations: Api<K> = Api::all(client.clone());
    let whole = || format!("{} {name}", K::KIND);
    let failed = |verb: &'static str| move |source| PublishError::Api { verb, configuration: whole(), source };
    for _ in 0..ATTEMPTS {
        let Some(configuration) = call(configurations.get_opt(name)).await.map_err(failed("read"))? else {
            return Ok(Published::Missing);
        };
        let Some(patch) = patch(&configuration, &wanted) else { return Ok(Published::Unchanged) };
        let patch = Patch::Json::<()>(patch);
        match call(configurations.patch(name, &PatchParams::default(), &patch)).await {
            Ok(_) => return Ok(Published::Patched),
            // 422: the `test` failed, since somebody wrote in between. 404: it is gone.
            Err(error) if matches!(error.code(), Some(404 | 409 | 422)) => {}
            Err(error) => return Err(failed("patch")(error)),
        }
    }
    Err(PublishError::Contended { configuration: whole() })
}

/// The operations that are needed; none when there is nothing to do. `add` replaces a member that is there (RFC 6902, 4.1);
/// the position of a webhook is only safe in the version that was read.
fn patch<K: WebhookConfiguration>(configuration: &K, wanted: impl Fn(&str) -> String) -> Option<json_patch::Patch> {
    let held = |held: Option<&ByteString>| held.and_then(|held| String::from_utf8(held.0.clone()).ok()).unwrap_or_default();
    let bundles = configuration.bundles().into_iter().map(held).enumerate();
    let stale: Vec<_> = bundles.map(|(at, held)| (at, wanted(&held), held)).filter(|(_, wanted, held)| wanted != held).collect();
    if stale.is_empty() {
        return None;
    }
    let version = configuration.resource_version().unwrap_or_default();
    let mut operations = vec![serde_json::json!({"op": "test", "path": "/metadata/resourceVersion", "value": version})];
    operations.extend(stale.into_iter().map(|(at, wanted, _)| {
        let value = ByteString(wanted.into_bytes());
        serde_json::json!({"op": "add", "path": format!("/webhooks/{at}/clientConfig/caBundle"), "value": value})
    }));
    serde_json::from_value(operations.into()).ok()
}

/// The two kinds of webhook configuration.
pub(crate) trait WebhookConfiguration:
    Resource<DynamicType = (), Scope = kube::core::ClusterResourceScope> + Clone + Debug + DeserializeOwned
{
    /// Its kind.
    const KIND: &str;
    /// The `caBundle` of each webhook, in their order.
    fn bundles(&self) -> Vec<Option<&ByteString>>;
}

impl WebhookConfiguration for MutatingWebhookConfiguration {
    const KIND: &str = "MutatingWebhookConfiguration";
    fn bundles(&self) -> Vec<Option<&ByteString>> {
        self.webhooks.iter().flatten().map(|webhook| webhook.client_config.ca_bundle.as_ref()).collect()
    }
}

impl WebhookConfiguration for ValidatingWebhookConfiguration {
    const KIND: &str = "ValidatingWebhookConfiguration";
    fn bundles(&self) -> Vec<Option<&ByteString>> {
        self.webhooks.iter().flatten().map(|webhook| webhook.client_config.ca_bundle.as_ref()).collect()
    }
}

/// Why a `caBundle` could not be published.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    /// The API server said no, or nothing.
    #[error("cannot {verb} {configuration}: {source}")]
    Api {
        /// What was tried.
        verb: &'static str,
        /// Kind and name.
        configuration: String,
        /// Why not.
        source: ApiError,
    },
    /// Something else keeps writing it.
    #[error("{configuration} was changed by another writer {ATTEMPTS} times in a row")]
    Contended {
        /// Kind and name.
        configuration: String,
    },
}
