//! How fast the webhook answers, beside the least that any webhook must do (a bare echo) and beside what most webhooks are (Go).
//!
//! All three serve the same reviews under the same load, one after the other, round by round: what else the machine does hits all of them,
//! and so the ratios hold where the figures themselves do not. Results go to standard output, progress to standard error.

mod certificates;
mod cluster;
mod create;
mod echo;
mod load;
mod report;
mod server;
mod stop;
mod verify;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::{ExitCode, ExitStatus};
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::Parser as _;
use guardian_bench_core::{Case, SetupError, case, names};
use hyper::body::Bytes;
use rustls::ClientConfig;
use rustls::pki_types::InvalidDnsNameError;

use cluster::Cluster;
use load::{Call, Connection};
use report::{Row, Sample};
use server::{Kind, Server, Setup};
use verify::Expected;

/// A server serves this long after its start, or it is broken.
const START: Duration = Duration::from_secs(20);
/// Between two looks whether it does.
const RETRY: Duration = Duration::from_millis(10);
/// Reviews of more bytes are judged one at a time by the guardian, and are more work than anything else for the others too.
const LARGE: usize = 64 << 10;
/// No answer takes longer when nothing has to wait for another, on any machine on which a measurement makes sense.
const ANSWER: Duration = Duration::from_secs(30);
/// And so much more for each large review that may come before. 1 MiB takes 25 to 60 ms of a processor, and 64 of them 4 s; 1 s is for a machine that does
/// much else.
const TURN: Duration = Duration::from_secs(1);
/// Bytes of requests that the guardian holds at once, by default. Beyond that it refuses.
const IN_FLIGHT: usize = 12 << 20;

/// Measure the webhook
#[derive(Debug, clap::Parser)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    Admission(Args),
    Create(create::Args),
    Stop(stop::Args),
    #[command(hide = true)]
    Echo(echo::Args),
}

/// The webhook beside an echo and a webhook in Go, on this machine alone
#[derive(Debug, clap::Args)]
struct Args {
    /// The guardian's binary, of a release build
    #[arg(long, value_name = "FILE")]
    guardian: PathBuf,
    /// The webhook in Go
    #[arg(long, value_name = "FILE")]
    peer: PathBuf,
    /// Rounds: each measures every case on every server
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Requests of a measurement, as a multiple of the usual
    #[arg(long, default_value_t = 1.0)]
    scale: f64,
    /// Only reviews in whose name this stands
    #[arg(long, default_value = "")]
    case: String,
    /// Connections at once
    #[arg(long, value_delimiter = ',', default_values_t = [1, 8, 64])]
    connections: Vec<usize>,
    /// Write the tables for a document there too
    #[arg(long, value_name = "FILE")]
    markdown: Option<PathBuf>,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let run = async {
        match &cli.command {
            Command::Admission(args) => admission(args).await,
            Command::Create(args) => create::run(args).await,
            Command::Stop(args) => stop::run(args).await,
            Command::Echo(args) => echo::run(args).await,
        }
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(BenchError::from);
    match runtime.and_then(|runtime| runtime.block_on(run)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            progress(&format!("bench: {error}"));
            ExitCode::FAILURE
        }
    }
}

async fn admission(args: &Args) -> Result<(), BenchError> {
    let directory = tempfile::tempdir()?;
    let tls = certificates::client(certificates::write(directory.path())?)?;
    let cluster = Cluster::start().await?;
    let answers = directory.path().join("answers");
    std::fs::create_dir(&answers)?;
    let setup = Setup {
        directory: directory.path().to_owned(),
        answers,
        kubeconfig: cluster.kubeconfig(directory.path())?,
        guardian: args.guardian.clone(),
        peer: args.peer.clone(),
    };
    let cases: Vec<Case> = names().filter(|name| name.contains(&args.case)).filter_map(case).collect();
    let mut bench = Bench { setup, tls, scale: args.scale, answers: BTreeMap::new() };
    bench.check(&cases).await?;

    let mut rows: Vec<Row> = Vec::new();
    for case in &cases {
        rows.extend(args.connections.iter().map(|n| Row { case: case.name, connections: *n, samples: BTreeMap::new() }));
    }
    let started = Instant::now();
    for round in 1..=args.rounds {
        for row in &mut rows {
            let Some(case) = cases.iter().find(|case| case.name == row.case) else { continue };
            for kind in [Kind::Echo, Kind::Ours, Kind::Go] {
                let sample = bench.measure(kind, case, row.connections).await?;
                row.samples.entry(kind).or_default().push(sample);
            }
            progress(&format!("{:4} s  round {round}/{}  {}", started.elapsed().as_secs(), args.rounds, row.line()));
        }
    }
    if let Some(path) = &args.markdown {
        std::fs::write(path, report::markdown(&rows))?;
    }
    rows.iter().for_each(|row| result(&row.line()));
    Ok(())
}

/// What all measurements share.
struct Bench {
    setup: Setup,
    tls: Arc<ClientConfig>,
    scale: f64,
    /// The guardian's answers by case.
    answers: BTreeMap<&'static str, Bytes>,
}

impl Bench {
    /// Asks the guardian and the peer each case once, looks at the answers closely, and keeps the guardian's for the echo.
    async fn check(&mut self, cases: &[Case]) -> Result<(), BenchError> {
        for kind in [Kind::Ours, Kind::Go] {
            let mut server = Server::start(kind, &self.setup)?;
            for case in cases {
                let (_, answer) = self.first(kind, &mut server, case).await?;
                verify::rewrite(&case.review, &answer)?;
                if kind == Kind::Ours {
                    std::fs::write(self.setup.answers.join(case.name), &answer)?;
                    self.answers.insert(case.name, answer);
                }
            }
        }
        progress(&format!("both webhooks rewrite all {} reviews in full", cases.len()));
        Ok(())
    }

    /// A server of its own for each measurement: its memory is that of this load.
    async fn measure(&self, kind: Kind, case: &Case, connections: usize) -> Result<Sample, BenchError> {
        let mut server = Server::start(kind, &self.setup)?;
        let (first, _) = self.first(kind, &mut server, case).await?;
        drop(first);
        let requests = ((usual(case) as f64 * self.scale) as usize).max(least(case, connections));
        let call = self.call(kind, &server, case, connections);
        let (warm, before) = call.warm(connections, requests / 10).await?;
        let cpu = server.cpu()?;
        let (_open, load) = load::drive(warm, requests).await?;
        let (cpu, memory) = (server.cpu()? - cpu, server.memory()?);
        server.alive()?;
        server.audited(1 + before.latencies.len() + load.latencies.len()).await?;
        if load.latencies.is_empty() || (load.refused > 0 && connections * case.review.len() <= IN_FLIGHT) {
            return Err(BenchError::Refused);
        }
        Ok(Sample::new(&load, cpu, memory))
    }

    /// The first answer, as soon as the server gives one.
    async fn first(&self, kind: Kind, server: &mut Server, case: &Case) -> Result<(Connection, Bytes), BenchError> {
        let call = self.call(kind, server, case, 1);
        let mut last = String::new();
        let tries = async {
            loop {
                server.alive()?;
                match call.connect().await {
                    Ok(mut connection) => match connection.once().await {
                        Ok(answer) => return Ok((connection, answer)),
                        Err(BenchError::Refused) => last = "it refuses".to_owned(),
                        Err(error) => return Err(error),
                    },
                    Err(error) => last = error.to_string(),
                }
                tokio::time::sleep(RETRY).await;
            }
        };
        let in_time = tokio::time::timeout(START, tries).await;
        in_time.unwrap_or_else(|_elapsed| Err(BenchError::NotReady { server: kind.name(), last }))
    }

    fn call(&self, kind: Kind, server: &Server, case: &Case, connections: usize) -> Call {
        let expected = match (kind, self.answers.get(case.name)) {
            (Kind::Go, Some(_)) => Expected::Patch,
            (_, Some(answer)) => Expected::Exactly(answer.clone()),
            (_, None) => Expected::Any,
        };
        Call {
            server: kind.name(),
            address: server.address,
            tls: Arc::clone(&self.tls),
            path: kind.path(case.name),
            body: Bytes::from(case.review.clone()),
            expected,
            deadline: deadline(case, connections),
        }
    }
}

/// Requests of one measurement: some seconds on the slowest of the three, and enough for a 99th percentile. Of large ones there are fewer: at
/// 60 ms each, one at a time, they take 4 s, and their 99th percentile is the slowest.
fn usual(case: &Case) -> usize {
    match case.review.len() {
        0..=5_000 => 8_000,
        5_001..=20_000 => 4_000,
        _ => 60,
    }
}

/// Fewer requests than this are not worth the connections. With 64 of them, large ones take 4 s to warm up and 4 s to measure.
fn least(case: &Case, connections: usize) -> usize {
    if case.review.len() > LARGE { connections } else { 2 * connections }
}

/// How long an answer may take when every connection has a request under way. At 64 with large ones: 30 s and 64 times 1 s, where 4 s are
/// needed; the guardian itself gives up on each after 10 s and refuses it.
fn deadline(case: &Case, connections: usize) -> Duration {
    let turns = if case.review.len() > LARGE { connections } else { 0 };
    ANSWER + TURN.saturating_mul(u32::try_from(turns).unwrap_or(u32::MAX))
}

/// A line of the result.
fn result(line: &str) {
    // A reader that is gone has seen enough.
    let _ = writeln!(std::io::stdout(), "{line}");
}

/// A line for whoever waits.
fn progress(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

/// Why there is nothing to tell.
#[derive(Debug, thiserror::Error)]
enum BenchError {
    #[error(transparent)]
    Setup(#[from] SetupError),
    #[error("{0}")]
    Io(#[from] std::io::Error),
    #[error("no certificate can be made: {0}")]
    Certificate(#[from] rcgen::Error),
    #[error("TLS: {0}")]
    Tls(#[from] rustls::Error),
    #[error("a certificate file: {0}")]
    Pem(#[from] rustls::pki_types::pem::Error),
    #[error("the name of the servers: {0}")]
    Name(#[from] InvalidDnsNameError),
    #[error("HTTP: {0}")]
    Http(#[from] hyper::Error),
    #[error("a request cannot be made: {0}")]
    Request(#[from] hyper::http::Error),
    #[error("JSON: {0}")]
    Json(#[from] serde_json::Error),
    #[error("a part of the load has panicked: {0}")]
    Join(#[from] tokio::task::JoinError),
    #[error("{} cannot be started: {source}", program.display())]
    Start { program: OsString, source: std::io::Error },
    #[error("a server has ended with {status}; its log:\n{log}")]
    Ended { status: ExitStatus, log: String },
    #[error("the {server} server does not answer within {START:?}: {last}")]
    NotReady { server: &'static str, last: String },
    #[error("the kernel does not tell what a process uses")]
    Proc,
    #[error("the {server} server has not answered a request within {deadline:?}")]
    NoAnswer { server: &'static str, deadline: Duration },
    #[error("a request was refused that fits the bounds")]
    Refused,
    #[error("status {0}: {1}")]
    Status(u16, String),
    #[error("a wrong answer: {0}")]
    Wrong(String),
    #[error("the audit trail has {lines} lines for {requests} requests")]
    Audit { requests: usize, lines: u64 },
    #[error("the cluster: {0}")]
    Cluster(#[from] kube::Error),
    #[error("{0}")]
    Unfit(String),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_reviews_one_after_the_other_stay_within_the_deadline() {
        // 1 MiB takes 60 ms at most; here others have seven eighths of the processor.
        let turn = 8 * Duration::from_millis(60);
        for case in names().filter_map(case) {
            for connections in [1, 8, 64] {
                let queue = if case.name.ends_with("-1m") { turn * u32::try_from(connections).unwrap() } else { Duration::ZERO };
                let deadline = deadline(&case, connections);
                assert!(deadline >= ANSWER + queue, "{}/{connections}: {deadline:?}", case.name);
                assert!(least(&case, connections) >= connections, "{}: a connection without a request", case.name);
            }
        }
    }
}
