//! Calls to the API server, each under a deadline.

use std::time::Duration;

/// One call. kube's client has no deadline of its own and retries a busy server many times; 10 s is what a small read or
/// write may take on a server that will answer at all.
const CALL: Duration = Duration::from_secs(10);

/// Awaits one call.
pub(crate) async fn call<T>(what: impl Future<Output = kube::Result<T>>) -> Result<T, ApiError> {
    match tokio::time::timeout(CALL, what).await {
        Ok(result) => result.map_err(|error| ApiError::Failed(Box::new(error))),
        Err(_elapsed) => Err(ApiError::TimedOut),
    }
}

/// A call that failed.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    /// The API server said no, or could not be reached.
    #[error("{}", sentence(.0))]
    Failed(#[source] Box<kube::Error>),
    /// No answer in time.
    #[error("the API server gave no answer within {CALL:?}")]
    TimedOut,
}

impl ApiError {
    /// The HTTP status, where there was one.
    pub(crate) fn code(&self) -> Option<u16> {
        match self {
            Self::Failed(error) => match &**error {
                kube::Error::Api(status) => Some(status.code),
                _ => None,
            },
            Self::TimedOut => None,
        }
    }
}

/// The API server's own sentence, without the dump of its status object.
fn sentence(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) => format!("{} ({})", status.message, status.code),
        other => other.to_string(),
    }
}
