//! Every call of the API server goes through here: under one deadline, its failure sorted by what can be done about it.

use std::time::Duration;

use kube::Client;
use kube::core::Status;
use tokio::time::timeout;

/// How long one call may take in all. kube's client has no time out of its own; an API server that
/// takes longer than this for one object is not well, and the queue comes back to it.
pub(super) const DEADLINE: Duration = Duration::from_secs(10);

/// How long an answer to any request may take to begin: the first page of a list, the start of a watch. kube's own watchers wait for ever.
const ANSWER: Duration = Duration::from_secs(30);

/// The same client, except that no request waits longer than [`ANSWER`] for the beginning of its answer.
pub(super) fn bounded(client: Client) -> Client {
    let namespace = client.default_namespace().to_owned();
    let service = tower::service_fn(move |request| {
        let client = client.clone();
        async move {
            let answer = timeout(ANSWER, client.send(request)).await;
            answer
                .map_err(|_| tower::BoxError::from(format!("no answer within {} s", ANSWER.as_secs())))?
                .map_err(tower::BoxError::from)
        }
    });
    Client::new(service, namespace)
}

/// A call that did not succeed.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    /// No answer.
    #[error("no answer to {what} within {} s", DEADLINE.as_secs())]
    Silent {
        /// What was asked.
        what: &'static str,
    },
    /// Refused, or not delivered.
    #[error("cannot {what}")]
    Failed {
        /// What was asked.
        what: &'static str,
        /// Why not.
        #[source]
        source: kube::Error,
    },
}

/// One call. `what` completes "cannot ...".
pub(super) async fn call<T>(what: &'static str, future: impl Future<Output = kube::Result<T>>) -> Result<T, ApiError> {
    match timeout(DEADLINE, future).await {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(source)) => Err(ApiError::Failed { what, source }),
        Err(_) => Err(ApiError::Silent { what }),
    }
}

impl ApiError {
    /// The API server's answer, where there was one.
    pub(super) fn status(&self) -> Option<&Status> {
        match self {
            Self::Failed { source: kube::Error::Api(status), .. } => Some(status),
            _ => None,
        }
    }

    /// HTTP status of the API server's answer, where there was one.
    pub(super) fn code(&self) -> Option<u16> {
        Some(self.status()?.code)
    }

    /// A person has to act first.
    pub(super) fn is_denied(&self) -> bool {
        self.code() == Some(403)
    }

    /// Somebody else was first, or the object is gone: what is known is not what is there.
    pub(super) fn is_conflict(&self) -> bool {
        matches!(self.code(), Some(404 | 409))
    }

    /// How long the API server asks to be left alone.
    pub(super) fn retry_after(&self) -> Option<Duration> {
        let details = self.status()?.details.as_ref()?;
        Some(Duration::from_secs(details.retry_after_seconds.into())).filter(|pause| !pause.is_zero())
    }
}
