//! Where audit lines come from: a replica's log, or a file.

use std::fs::File;
use std::io;
use std::path::Path;
use std::time::Duration;

use futures::AsyncBufReadExt as _;
use futures::io::{AllowStdIo, AsyncBufRead};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::LogParams;

use super::super::cluster::{self, Cluster, ClusterError};
use super::entry::{self, Entry, Filter, Read};

/// Bytes of one line: names of at most 253 bytes, a user of some hundred, and warnings of 200 bytes each, of which there are a dozen at most,
/// make less than 8 KiB; a longer line is no audit line of ours.
const MAX_LINE: usize = 64 * 1024;
/// A log that is not followed comes without a break: a server that is silent for this long is gone.
const SILENCE: Duration = Duration::from_secs(30);

/// Why a source gives no more lines.
#[derive(Debug, thiserror::Error)]
pub(in crate::cli) enum SourceError {
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    #[error("{0}: cannot be read: {1}")]
    Unreadable(String, #[source] io::Error),
    #[error("{0}: nothing came for {seconds} s", seconds = SILENCE.as_secs())]
    Silence(String),
}

/// Lines in the order in which they were written.
pub(super) struct Source {
    name: String,
    reader: Box<dyn AsyncBufRead + Unpin>,
    line: Vec<u8>,
    /// Waits for ever: it is followed, or it is standard input.
    patient: bool,
    /// Audit lines that could not be read.
    pub(super) malformed: u64,
}

/// What comes next from a reader.
enum Next {
    Line,
    TooLong,
    End,
}

impl Source {
    /// A file, or standard input for `-`.
    pub(super) fn file(path: &Path) -> Result<Self, SourceError> {
        if path == Path::new("-") {
            return Ok(Self::new("standard input", AllowStdIo::new(io::stdin().lock()), true));
        }
        let name = path.display().to_string();
        let file = File::open(path).map_err(|e| SourceError::Unreadable(name.clone(), e))?;
        Ok(Self::new(&name, AllowStdIo::new(io::BufReader::new(file)), true))
    }

    /// The log of a replica.
    pub(super) async fn log(
        cluster: &Cluster,
        namespace: &str,
        pod: &str,
        since: Option<Timestamp>,
        follow: bool,
    ) -> Result<Self, SourceError> {
        let parameters = LogParams { follow, since_time: since, ..LogParams::default() };
        let api: Api<Pod> = Api::namespaced(cluster.client.clone(), namespace);
        let reader = cluster::call(format!("read the log of the pod {pod}"), api.log_stream(pod, &parameters)).await?;
        Ok(Self::new(&format!("the log of the pod {pod}"), Box::pin(reader), follow))
    }

    /// The log of a replica's container before its last restart; `None` where it never restarted.
    pub(super) async fn previous(
        cluster: &Cluster,
        namespace: &str,
        pod: &str,
        since: Option<Timestamp>,
    ) -> Result<Option<Self>, SourceError> {
        let parameters = LogParams { previous: true, since_time: since, ..LogParams::default() };
        let api: Api<Pod> = Api::namespaced(cluster.client.clone(), namespace);
        match cluster::call(format!("read the earlier log of the pod {pod}"), api.log_stream(pod, &parameters)).await {
            Ok(reader) => Ok(Some(Self::new(&format!("the earlier log of the pod {pod}"), Box::pin(reader), false))),
            Err(error) if matches!(error.code(), Some(400 | 404)) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    fn new(name: &str, reader: impl AsyncBufRead + Unpin + 'static, patient: bool) -> Self {
        Self { name: name.to_owned(), reader: Box::new(reader), line: Vec::new(), patient, malformed: 0 }
    }

    /// The next decision that is asked for; `None` at the end.
    pub(super) async fn next(&mut self, filter: &Filter) -> Result<Option<Entry>, SourceError> {
        loop {
            let next = if self.patient {
                self.next_line().await
            } else {
                let next = tokio::time::timeout(SILENCE, self.next_line()).await;
                next.map_err(|_| SourceError::Silence(self.name.clone()))?
            };
            match next.map_err(|e| SourceError::Unreadable(self.name.clone(), e))? {
                Next::End => return Ok(None),
                Next::TooLong => self.malformed += 1,
                Next::Line => match entry::read(&self.line) {
                    Read::Entry(entry) if filter.takes(&entry) => return Ok(Some(*entry)),
                    Read::Entry(_) | Read::Other => {}
                    Read::Malformed => self.malformed += 1,
                },
            }
        }
    }

    /// Brings the next line into [`Self::line`], or passes over one that is longer than [`MAX_LINE`].
    async fn next_line(&mut self) -> io::Result<Next> {
        self.line.clear();
        let (mut any, mut too_long) = (false, false);
        loop {
            let available = self.reader.fill_buf().await?;
            let end = available.iter().position(|byte| *byte == b'\n');
            let part = available.get(..end.unwrap_or(available.len())).unwrap_or_default();
            any |= !available.is_empty();
            too_long |= self.line.len() + part.len() > MAX_LINE;
            if !too_long {
                self.line.extend_from_slice(part);
            }
            let (taken, over) = (part.len() + usize::from(end.is_some()), end.is_some() || available.is_empty());
            self.reader.consume_unpin(taken);
            if over {
                return Ok(if too_long {
                    Next::TooLong
                } else if any {
                    Next::Line
                } else {
                    Next::End
                });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn next(source: &mut Source) -> Option<Entry> {
        cluster::runtime().unwrap().block_on(source.next(&Filter::default())).unwrap()
    }

    fn source(text: impl Into<Vec<u8>>) -> Source {
        // A small buffer, so that lines come in several parts.
        let reader = io::BufReader::with_capacity(7, io::Cursor::new(text.into()));
        Source::new("test", AllowStdIo::new(reader), true)
    }

    fn line(second: u8, name: &str) -> String {
        format!(
            r#"{{"log":"audit","time":"2027-01-01T00:00:{second:02}Z","user":"u","operation":"CREATE","kind":"apps/v1/StatefulSet","namespace":"n","name":"{name}","decision":"allowed","reason":"NoPolicy"}}"#
        )
    }

    #[test]
    fn lines_of_any_length_and_kind_are_passed_over_and_only_broken_audit_lines_are_counted() {
        let long = "x".repeat(MAX_LINE + 1);
        let text = format!(
            "starting\n{long}\n{{\"level\":\"INFO\"}}\n{{\"log\":\"audit\",\n{{\"log\":\"audit\"}}\n\n[pod/a] {}\n\u{fffd}{}",
            line(1, "a"),
            line(2, "b")
        );
        let mut source = source(text);
        let mut times = Vec::new();
        while let Some(entry) = next(&mut source) {
            times.push(entry.time.as_second() % 60);
        }
        assert_eq!(times, [1, 2], "the last line needs no end");
        assert_eq!(source.malformed, 3, "one too long, one cut, one without its fields");
    }

    #[test]
    fn a_line_of_the_greatest_length_is_read() {
        let text = line(1, "a");
        let padded = format!("{text}{}", " ".repeat(MAX_LINE - text.len()));
        let mut source = source(padded);
        assert!(next(&mut source).is_some());
    }
}
