//! `guardian check`: is the installation in order, and if not, what is to be done?

mod certificates;
mod installation;
mod namespaces;
mod rights;

use std::io::{self, Write};

use anstyle::{AnsiColor, Style};
use serde::Serialize;
use serde_json::json;

use super::cluster::{self, Cluster, ClusterError};

/// Check the installation, rights, certificates and enabled namespaces, and say what to do about each failure
///
/// Everything is read with your own rights; what you may not see is skipped, and said so. One thing is tried: to apply a broken policy in a
/// dry run, which the webhook must refuse. Exit code 0: nothing failed; 1: something did.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  guardian check
  guardian check -n shop
  guardian check -o json | jq '.checks[] | select(.state == \"failed\")'")]
pub(super) struct Args {
    /// Look at this namespace alone; by default at every enabled one
    #[arg(short, long)]
    namespace: Option<String>,
    /// How to print it
    #[arg(short = 'o', long, value_enum, default_value_t = Output::Text)]
    output: Output,
    /// Namespace that the guardian itself runs in
    #[arg(long, env = "GUARDIAN_INSTALLATION", default_value = "stateful-guardian", value_name = "NAMESPACE")]
    installation: String,
    /// The webhook configurations, as installed
    #[arg(long, default_value = "stateful-guardian", value_name = "NAME")]
    webhooks: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Output {
    /// A line a check, for people
    Text,
    /// One JSON document
    Json,
}

#[derive(Debug, thiserror::Error)]
pub(super) enum CheckError {
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    #[error("cannot write: {0}")]
    Output(#[from] io::Error),
    /// What failed is printed already.
    #[error("{0} failed")]
    Failed(String),
}

/// What came of looking at one thing.
#[derive(Debug, Serialize)]
struct Check {
    /// What was looked at.
    name: &'static str,
    /// Of which object.
    subject: String,
    state: State,
    /// What was found.
    message: String,
    /// What to do about it; empty where it is in order.
    remedy: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum State {
    Ok,
    Failed,
    /// It could not be looked at.
    Skipped,
}

impl Check {
    fn ok(name: &'static str, subject: impl Into<String>, message: impl Into<String>) -> Self {
        Self { name, subject: subject.into(), state: State::Ok, message: message.into(), remedy: String::new() }
    }

    fn failed(name: &'static str, subject: impl Into<String>, message: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { name, subject: subject.into(), state: State::Failed, message: message.into(), remedy: remedy.into() }
    }

    fn skipped(name: &'static str, subject: impl Into<String>, message: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { state: State::Skipped, ..Self::failed(name, subject, message, remedy) }
    }

    /// What could not be read: a right that the caller lacks is no fault of the installation.
    fn unread(name: &'static str, subject: impl Into<String>, error: &ClusterError) -> Self {
        match error.code() {
            Some(401 | 403) => Self::skipped(name, subject, error.to_string(), "ask somebody who may read it"),
            _ => Self::failed(name, subject, error.to_string(), "see whether the API server answers: kubectl get --raw /readyz"),
        }
    }
}

pub(super) fn run(args: &Args) -> Result<(), CheckError> {
    let checks = cluster::run(async |cluster| Ok::<_, CheckError>(look(args, &cluster).await))?;
    let failed = checks.iter().filter(|check| check.state == State::Failed).count();
    let mut out = anstream::AutoStream::auto(io::stdout().lock());
    match args.output {
        Output::Text => checks.iter().try_for_each(|check| text(&mut out, check))?,
        Output::Json => writeln!(out, "{:#}", json!({"checks": checks, "failed": failed}))?,
    }
    if failed == 0 { Ok(()) } else { Err(CheckError::Failed(super::lint::counted(failed, "check"))) }
}

async fn look(args: &Args, cluster: &Cluster) -> Vec<Check> {
    let injected = certificates::injected(cluster, &args.webhooks).await;
    let mut checks = installation::check(cluster, &args.installation, injected).await;
    checks.extend(certificates::check(cluster, &args.webhooks, super::process::now()).await);
    let places = match &args.namespace {
        Some(namespace) => cluster.place(namespace).await.map(|place| vec![place]),
        None => cluster.enabled().await,
    };
    match places {
        Ok(places) => {
            checks.extend(rights::check(cluster, &args.installation, &places).await);
            checks.extend(namespaces::check(cluster, &args.installation, &places).await);
        }
        Err(error) => checks.push(Check::unread("namespaces", "", &error)),
    }
    checks
}

fn text(out: &mut impl Write, check: &Check) -> io::Result<()> {
    let (word, colour) = match check.state {
        State::Ok => ("ok     ", AnsiColor::Green),
        State::Failed => ("FAILED ", AnsiColor::Red),
        State::Skipped => ("skipped", AnsiColor::Yellow),
    };
    let style = Style::new().fg_color(Some(colour.into()));
    let subject = if check.subject.is_empty() { String::new() } else { format!(" {}", check.subject) };
    writeln!(out, "{style}{word}{style:#}  {}{subject}: {}", check.name, check.message)?;
    if check.remedy.is_empty() { Ok(()) } else { writeln!(out, "         {}", check.remedy) }
}
