//! `guardian audit`: what the webhook decided, from its log.

mod entry;
mod source;

use std::io::{self, Write};
use std::path::PathBuf;

use futures::StreamExt as _;
use futures::stream::select_all;
use jiff::{SignedDuration, Timestamp};

use super::cluster::{self, Cluster, ClusterError};
use super::process;
use entry::{Entry, Filter};
use source::{Source, SourceError};

/// Show what the webhook decided, by the audit trail in its log
///
/// Reads the logs of all replicas that the API server still has, or a file, and merges them by time. In memory is one line of each replica,
/// 64 KiB at most, however long the logs are. What is not an audit line is skipped; audit lines that cannot be read are counted on standard
/// error.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  guardian audit --since 1h --decision denied
  guardian audit -n shop --set redis -o json
  guardian audit --follow
  kubectl -n stateful-guardian logs -l app.kubernetes.io/name=guardian-webhook --tail=-1 | guardian audit -f -")]
pub(super) struct Args {
    #[command(flatten)]
    filter: Filter,
    /// Only what was decided since then: a duration such as 90m, or a time such as 2027-01-31T12:00:00Z
    #[arg(long, value_name = "TIME", value_parser = since)]
    since: Option<Since>,
    /// File with log lines, `-` for standard input, instead of the webhook's logs; may be given several times
    #[arg(short = 'f', long = "filename", value_name = "PATH")]
    files: Vec<PathBuf>,
    /// Go on with what is decided from now on, until interrupted
    #[arg(long, conflicts_with = "files")]
    follow: bool,
    /// The logs of the containers before their last restart too
    #[arg(long, conflicts_with = "files")]
    previous: bool,
    /// How to print it
    #[arg(short = 'o', long, value_enum, default_value_t = Output::Table)]
    output: Output,
    /// Namespace that the guardian itself runs in
    #[arg(long, env = "GUARDIAN_INSTALLATION", default_value = "stateful-guardian", value_name = "NAMESPACE")]
    installation: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Output {
    /// Aligned columns, for people
    Table,
    /// One JSON document
    Json,
}

/// From when on.
#[derive(Clone, Copy, Debug)]
enum Since {
    Ago(SignedDuration),
    Time(Timestamp),
}

#[derive(Debug, thiserror::Error)]
pub(super) enum AuditError {
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    #[error(transparent)]
    Source(#[from] SourceError),
    #[error("no webhook runs in the namespace {0}: is that where the guardian is installed? (--installation)")]
    NoWebhook(String),
    #[error("--follow never ends, so there is no JSON document: leave out one of --follow and -o json")]
    Endless,
    #[error("cannot write: {0}")]
    Output(#[from] io::Error),
}

impl AuditError {
    /// Was it called wrongly?
    pub(super) fn is_usage(&self) -> bool {
        matches!(self, Self::Endless)
    }
}

pub(super) fn run(args: &Args) -> Result<(), AuditError> {
    if args.follow && args.output == Output::Json {
        return Err(AuditError::Endless);
    }
    let since = args.since.map(|since| match since {
        Since::Time(time) => time,
        Since::Ago(ago) => process::now().checked_sub(ago).unwrap_or(Timestamp::MIN),
    });
    let mut filter = args.filter.clone();
    filter.since = since;
    let mut out = Printer { out: anstream::AutoStream::auto(io::stdout().lock()), output: args.output, printed: 0 };
    let malformed = if args.files.is_empty() {
        cluster::run(async |cluster| {
            let sources = from_cluster(args, since, &cluster).await?;
            if args.follow { follow(sources, &filter, &mut out).await } else { merge(sources, &filter, &mut out).await }
        })?
    } else {
        let sources = args.files.iter().map(|path| Source::file(path)).collect::<Result<Vec<_>, _>>()?;
        cluster::runtime()?.block_on(merge(sources, &filter, &mut out))?
    };
    if malformed > 0 {
        anstream::eprintln!("guardian: {malformed} audit lines could not be read");
    }
    Ok(())
}

/// Every replica's log, and before it the one of its container's last life, if that is asked for and there is one.
async fn from_cluster(args: &Args, since: Option<Timestamp>, cluster: &Cluster) -> Result<Vec<Source>, AuditError> {
    let pods = cluster.webhook_pods(&args.installation).await?;
    if pods.is_empty() {
        return Err(AuditError::NoWebhook(args.installation.clone()));
    }
    let mut sources = Vec::new();
    for pod in &pods {
        if args.previous {
            sources.extend(Source::previous(cluster, &args.installation, pod, since).await?);
        }
        match Source::log(cluster, &args.installation, pod, since, args.follow).await {
            Ok(source) => sources.push(source),
            // One replica that has not started yet, or is gone, hides no other.
            Err(SourceError::Cluster(error)) if pods.len() > 1 && matches!(error.code(), Some(400 | 404)) => {
                anstream::eprintln!("guardian: {error}");
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(sources)
}

/// Prints what the sources hold in the order of time, and gives the number of audit lines that cannot be read.
async fn merge(mut sources: Vec<Source>, filter: &Filter, out: &mut Printer<impl Write>) -> Result<u64, AuditError> {
    let mut heads = Vec::new();
    for source in &mut sources {
        heads.push(source.next(filter).await?);
    }
    out.begin()?;
    // The earliest head; of equal ones the first source's.
    while let Some((at, _)) =
        heads.iter().enumerate().filter_map(|(at, head)| Some((at, head.as_ref()?.time))).min_by_key(|(_, t)| *t)
    {
        let (Some(head), Some(source)) = (heads.get_mut(at), sources.get_mut(at)) else { break };
        let next = source.next(filter).await?;
        if let Some(entry) = std::mem::replace(head, next) {
            out.print(&entry)?;
        }
    }
    let malformed = sources.iter().map(|source| source.malformed).sum();
    out.end(malformed)?;
    Ok(malformed)
}

/// Prints what the sources hold as it comes.
async fn follow(sources: Vec<Source>, filter: &Filter, out: &mut Printer<impl Write>) -> Result<u64, AuditError> {
    out.begin()?;
    let streams = sources.into_iter().map(|source| {
        let entries = futures::stream::unfold(source, |mut source| async move {
            match source.next(filter).await {
                Ok(entry) => entry.map(|entry| (Ok(entry), source)),
                Err(error) => Some((Err(error), source)),
            }
        });
        entries.boxed_local()
    });
    let mut entries = select_all(streams);
    while let Some(entry) = entries.next().await {
        out.print(&entry?)?;
    }
    Ok(0)
}

struct Printer<W> {
    out: W,
    output: Output,
    printed: usize,
}

impl<W: Write> Printer<W> {
    fn begin(&mut self) -> io::Result<()> {
        match self.output {
            Output::Table => writeln!(self.out, "{}", entry::HEADINGS),
            Output::Json => write!(self.out, "{{\"entries\": ["),
        }
    }

    fn print(&mut self, entry: &Entry) -> io::Result<()> {
        match self.output {
            Output::Table => writeln!(self.out, "{}", entry.row())?,
            Output::Json => write!(self.out, "{}\n  {}", if self.printed == 0 { "" } else { "," }, entry.line)?,
        }
        self.printed += 1;
        self.out.flush()
    }

    fn end(&mut self, malformed: u64) -> io::Result<()> {
        match self.output {
            Output::Table => Ok(()),
            Output::Json => writeln!(self.out, "\n], \"malformed\": {malformed}}}"),
        }
    }
}

fn since(text: &str) -> Result<Since, String> {
    if let Ok(time) = text.parse::<Timestamp>() {
        return Ok(Since::Time(time));
    }
    match text.parse::<SignedDuration>() {
        Ok(ago) if !ago.is_negative() => Ok(Since::Ago(ago)),
        _ => Err("neither a duration such as 90m nor a time such as 2027-01-31T12:00:00Z".to_owned()),
    }
}
