//! One connection, one request, one answer: as much of HTTP/1.1 (RFC 9112) as whoever reads needs.

use alloc::format;
use alloc::vec::Vec;

use rustix::event::{PollFd, PollFlags};
use rustix::fd::OwnedFd;
use rustix::io::{Errno, read};
use rustix::net::{SendFlags, Shutdown, send, shutdown};

use super::agenda::Work;
use super::page::{Page, Piece};
use crate::runner::home::Pod;

/// How long a connection may take from its beginning to its end, in milliseconds. What is served is a few kilobytes.
pub(super) const WITHIN_MS: u64 = 5_000;

/// Most bytes of a request: its line and all fields.
const MAX_HEAD: usize = 4 * 1024;

/// What comes from a caller that has its answer is read and dropped, so much at a time, or closing would take the answer away from it.
const DROPPED: usize = 4 * 1024;

/// A connection.
pub(super) struct Connection {
    socket: OwnedFd,
    ends: u64,
    /// The request, until it is whole.
    head: Vec<u8>,
    stage: Stage,
    /// What is to be written now.
    out: Vec<u8>,
    written: usize,
}

enum Stage {
    /// It has not said yet what it wants.
    Reads,
    /// It is answered; of a page there may be more to come, in chunks or not.
    Writes(Option<(Page, bool)>),
    /// All is written; the caller has to go.
    Lingers,
}

impl Connection {
    pub(super) fn new(socket: OwnedFd, now: u64) -> Self {
        Self { socket, ends: now + WITHIN_MS, head: Vec::new(), stage: Stage::Reads, out: Vec::new(), written: 0 }
    }

    /// When it is over at the latest.
    pub(super) const fn ends(&self) -> u64 {
        self.ends
    }

    /// Nothing is being told to it: it has not asked yet, or has its answer.
    pub(super) const fn gives_way(&self) -> bool {
        matches!(self.stage, Stage::Reads | Stage::Lingers)
    }

    /// What it waits for.
    pub(super) fn poll(&self) -> PollFd<'_> {
        let what = if matches!(self.stage, Stage::Writes(_)) { PollFlags::OUT } else { PollFlags::IN };
        PollFd::new(&self.socket, what)
    }

    /// Does all that can be done without waiting; says whether it is still there.
    pub(super) fn go_on(&mut self, work: &Work, pod: Option<&Pod>, now: u64) -> bool {
        now < self.ends && self.read(work).and_then(|()| self.write(work, pod, now)).and_then(|()| self.linger()).is_ok()
    }

    /// Reads the request, and knows the answer once it is whole.
    fn read(&mut self, work: &Work) -> Result<(), Over> {
        let mut piece = [0; 1024];
        while matches!(self.stage, Stage::Reads) {
            match read(&self.socket, &mut piece) {
                Ok(0) => return Err(Over),
                Ok(n) => self.head.extend_from_slice(piece.get(..n).unwrap_or_default()),
                Err(Errno::INTR) => continue,
                Err(Errno::AGAIN) => return Ok(()),
                Err(_) => return Err(Over),
            }
            if is_whole(&self.head) {
                let head = core::mem::take(&mut self.head);
                self.answer(&head, work);
            } else if self.head.len() > MAX_HEAD {
                self.refuse("431 Request Header Fields Too Large", "");
            }
        }
        Ok(())
    }

    fn answer(&mut self, head: &[u8], work: &Work) {
        let Some((method, path, is_newer)) = request_line(head) else { return self.refuse("400 Bad Request", "") };
        if method != "GET" {
            return self.refuse("405 Method Not Allowed", "Allow: GET\r\n");
        }
        let Some(page) = Page::at(path, work) else { return self.refuse("404 Not Found", "") };
        // A caller of HTTP/1.0 knows no chunks.
        let chunks = if is_newer { "Transfer-Encoding: chunked\r\n" } else { "" };
        let kind = page.content_type();
        self.out = format!("HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\n{chunks}Connection: close\r\n\r\n").into_bytes();
        self.stage = Stage::Writes(Some((page, is_newer)));
    }

    fn refuse(&mut self, status: &str, field: &str) {
        self.head = Vec::new();
        self.out = format!("HTTP/1.1 {status}\r\n{field}Content-Length: 0\r\nConnection: close\r\n\r\n").into_bytes();
        self.stage = Stage::Writes(None);
    }

    /// Writes what there is, and what comes next.
    fn write(&mut self, work: &Work, pod: Option<&Pod>, now: u64) -> Result<(), Over> {
        while let Stage::Writes(page) = &mut self.stage {
            let rest = self.out.get(self.written..).unwrap_or_default();
            if rest.is_empty() {
                self.written = 0;
                match page.as_mut().map(|(page, chunked)| (page.next(work, pod, now), *chunked)) {
                    Some((Piece::Bytes(bytes), chunked)) => self.out = if chunked { chunk(&bytes) } else { bytes },
                    Some((Piece::End, true)) => {
                        self.out = b"0\r\n\r\n".to_vec();
                        *page = None;
                    }
                    Some((Piece::Gone, _)) => return Err(Over),
                    Some((Piece::End, false)) | None => {
                        self.out = Vec::new();
                        self.stage = Stage::Lingers;
                        let _ = shutdown(&self.socket, Shutdown::Write);
                    }
                }
                continue;
            }
            match send(&self.socket, rest, SendFlags::NOSIGNAL) {
                Ok(n) => self.written += n,
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return Ok(()),
                Err(_) => return Err(Over),
            }
        }
        Ok(())
    }

    /// Until the caller has closed its side.
    fn linger(&mut self) -> Result<(), Over> {
        if !matches!(self.stage, Stage::Lingers) {
            return Ok(());
        }
        match read(&self.socket, &mut [0; DROPPED]) {
            Ok(1..) | Err(Errno::INTR | Errno::AGAIN) => Ok(()),
            Ok(_) | Err(_) => Err(Over),
        }
    }
}

/// The connection has come to its end.
struct Over;

fn chunk(bytes: &[u8]) -> Vec<u8> {
    let mut chunk = format!("{:x}\r\n", bytes.len()).into_bytes();
    chunk.extend_from_slice(bytes);
    chunk.extend_from_slice(b"\r\n");
    chunk
}

/// Is the blank line there that ends a head?
fn is_whole(head: &[u8]) -> bool {
    head.windows(4).any(|end| end == b"\r\n\r\n") || head.windows(2).any(|end| end == b"\n\n")
}

/// Method, path without query, and whether it is HTTP/1.1.
fn request_line(head: &[u8]) -> Option<(&str, &str, bool)> {
    let line = head.split(|b| *b == b'\n').next()?;
    let line = core::str::from_utf8(line).ok()?.trim_end_matches('\r');
    let mut words = line.split(' ');
    let (method, target, version) = (words.next()?, words.next()?, words.next()?);
    let is_token = !method.is_empty() && method.bytes().all(|b| b.is_ascii_alphabetic());
    let is_newer = match version {
        "HTTP/1.1" => true,
        "HTTP/1.0" => false,
        _ => return None,
    };
    let path = target.split('?').next()?;
    (is_token && words.next().is_none() && path.starts_with('/')).then_some((method, path, is_newer))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_line_is_a_method_a_path_and_a_version_and_nothing_else() {
        type Read = Option<(&'static str, &'static str, bool)>;
        let table: [(&[u8], Read); 9] = [
            (b"GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n", Some(("GET", "/metrics", true))),
            (b"GET /collect?x=1 HTTP/1.0\n\n", Some(("GET", "/collect", false))),
            (b"POST / HTTP/1.1\r\n\r\n", Some(("POST", "/", true))),
            (b"GET  /metrics HTTP/1.1\r\n\r\n", None),
            (b"GET /metrics HTTP/1.1 x\r\n\r\n", None),
            (b"GET metrics HTTP/1.1\r\n\r\n", None),
            (b"GET /metrics HTTP/2.0\r\n\r\n", None),
            (b"\x16\x03\x01\r\n\r\n", None),
            (b"\r\n\r\n", None),
        ];
        for (head, expected) in table {
            assert_eq!(request_line(head), expected, "{head:?}");
        }
    }
}
