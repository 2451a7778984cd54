//! The one Secret, written only on top of what was read.

use std::collections::BTreeMap;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::PostParams;
use kube::{Api, Client};

use crate::api::{ApiError, call};
use crate::make::MakeError;
use crate::rotate::{Content, Next};

/// The label by which we know our Secret; one that holds data and has it not is somebody else's.
const MANAGED_BY: (&str, &str) = ("app.kubernetes.io/managed-by", "stateful-guardian");

/// Reads and writes in a row that lose against another writer. Two replicas need two; whoever loses five times is up
/// against something that writes all the time.
const ATTEMPTS: usize = 5;

/// Makes the Secret hold what `rule` says should follow what it holds; returns what it holds then.
pub(crate) async fn keep(
    client: &Client,
    namespace: &str,
    name: &str,
    rule: impl Fn(&Content) -> Result<Next, MakeError>,
) -> Result<Next, KeepError> {
    let secrets: Api<Secret> = Api::namespaced(client.clone(), namespace);
    let whole = || format!("{namespace}/{name}");
    let failed = |verb: &'static str| move |source| KeepError::Api { verb, secret: whole(), source };
    for _ in 0..ATTEMPTS {
        let held = call(secrets.get_opt(name)).await.map_err(failed("read"))?;
        let content = held.as_ref().map(|secret| read(secret).ok_or_else(|| KeepError::Foreign { secret: whole() }));
        let next = rule(&content.transpose()?.unwrap_or_default())?;
        if next.reasons.is_empty() {
            return Ok(next);
        }
        let (verb, written) = match held {
            None => ("create", call(secrets.create(&PostParams::default(), &fresh(name, &next.content))).await),
            Some(mut secret) => {
                write(&mut secret, &next.content);
                ("update", call(secrets.replace(name, &PostParams::default(), &secret)).await)
            }
        };
        match written {
            Ok(_) => return Ok(next),
            // Another replica was first, or somebody has deleted it: what we made is dropped, theirs is read.
            Err(error) if matches!(error.code(), Some(404 | 409)) => {}
            Err(error) => return Err(failed(verb)(error)),
        }
    }
    Err(KeepError::Contended { secret: whole() })
}

/// What a Secret holds; none if it is somebody else's. One without data is anybody's: it was installed for us.
fn read(secret: &Secret) -> Option<Content> {
    let empty = BTreeMap::new();
    let data = secret.data.as_ref().unwrap_or(&empty);
    let (label, value) = MANAGED_BY;
    let ours = secret.metadata.labels.as_ref().and_then(|labels| labels.get(label)).is_some_and(|by| by == value);
    if !ours && data.values().any(|value| !value.0.is_empty()) {
        return None;
    }
    // What is no text is no PEM either, and is made anew.
    let text = |key: &str| data.get(key).and_then(|value| String::from_utf8(value.0.clone()).ok()).unwrap_or_default();
    Some(Content { tls_crt: text("tls.crt"), tls_key: text("tls.key"), ca_crt: text("ca.crt"), ca_key: text("ca.key") })
}

/// The four keys; whatever else is in the Secret stays.
fn write(secret: &mut Secret, content: &Content) {
    let (label, value) = MANAGED_BY;
    secret.metadata.labels.get_or_insert_default().insert(label.to_owned(), value.to_owned());
    let pairs =
        [("tls.crt", &content.tls_crt), ("tls.key", &content.tls_key), ("ca.crt", &content.ca_crt), ("ca.key", &content.ca_key)];
    let pairs = pairs.map(|(key, text)| (key.to_owned(), ByteString(text.clone().into_bytes())));
    secret.data.get_or_insert_default().extend(pairs);
}

fn fresh(name: &str, content: &Content) -> Secret {
    let metadata = ObjectMeta { name: Some(name.to_owned()), ..ObjectMeta::default() };
    let mut secret = Secret { metadata, type_: Some("kubernetes.io/tls".to_owned()), ..Secret::default() };
    write(&mut secret, content);
    secret
}

/// Why the Secret could not be kept.
#[derive(Debug, thiserror::Error)]
pub enum KeepError {
    /// The API server said no, or nothing.
    #[error("cannot {verb} Secret {secret}: {source}")]
    Api {
        /// What was tried.
        verb: &'static str,
        /// Namespace and name.
        secret: String,
        /// Why not.
        source: ApiError,
    },
    /// It holds data, and is not labelled as ours.
    #[error(
        "Secret {secret} holds data of somebody else: it has no label {}={}. Delete it, label it, or configure another name",
        MANAGED_BY.0,
        MANAGED_BY.1
    )]
    Foreign {
        /// Namespace and name.
        secret: String,
    },
    /// Something else keeps writing it.
    #[error("Secret {secret} was changed by another writer {ATTEMPTS} times in a row")]
    Contended {
        /// Namespace and name.
        secret: String,
    },
    /// No certificate could be made.
    #[error(transparent)]
    Make(#[from] MakeError),
}
