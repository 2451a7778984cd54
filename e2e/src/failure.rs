//! Why a test cannot go on.

use std::fmt;
use std::time::Duration;

/// What a step of a test gives.
pub type Outcome<T = ()> = Result<T, Failure>;

/// Why a test cannot go on.
#[derive(thiserror::Error)]
pub enum Failure {
    /// The API server refused, or did not answer.
    #[error("the API server: {0}")]
    Api(Box<kube::Error>),
    /// There is no cluster to test on.
    #[error("no cluster: set KUBECONFIG, or run `make cluster-up`: {0}")]
    NoCluster(Box<kube::Error>),
    /// What was awaited did not come.
    #[error("{what}: not within {} s; last seen: {last}", within.as_secs())]
    NotInTime {
        /// What was awaited.
        what: String,
        /// How long.
        within: Duration,
        /// What was there instead.
        last: String,
    },
    /// A program could not be run.
    #[error("cannot run {0}: {1}")]
    Run(String, std::io::Error),
    /// A program ended with an error.
    #[error("{command} ended with {status}: {stderr}")]
    Command {
        /// The command line.
        command: String,
        /// How it ended.
        status: String,
        /// What it said.
        stderr: String,
    },
    /// Something is not what it must be for the test to go on.
    #[error("{0}")]
    Unexpected(String),
    /// What must be JSON is not.
    #[error("not JSON: {0}")]
    Json(#[from] serde_json::Error),
}

/// A failed test prints its failure as `Debug`; a sentence reads better than fields.
impl fmt::Debug for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl From<kube::Error> for Failure {
    fn from(error: kube::Error) -> Self {
        Self::Api(Box::new(error))
    }
}
