//! A client for one request at a time, over a plain socket: what is asked, and under which name, is the test's own.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

/// Nothing that is waited for takes so long.
const PATIENCE: Duration = Duration::from_secs(30);

/// An answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// Names in small letters.
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: String,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.iter().find(|(own, _)| own == name).map(|(_, value)| value.as_str()).unwrap_or_default()
    }
}

/// `http://HOST:PORT/PATH` in its parts.
pub(crate) fn parts(address: &str) -> (&str, &str) {
    let rest = address.strip_prefix("http://").expect("an address");
    rest.split_at(rest.find('/').expect("a path"))
}

/// Asks, and reads the answer to its end.
pub(crate) fn send(method: &str, address: &str, host: Option<&str>, body: &str) -> Answer {
    let mut open = Open::start(method, address, host, body);
    let length = open.headers.iter().find(|(name, _)| name == "content-length").and_then(|(_, n)| n.parse::<u64>().ok());
    let mut text = Vec::new();
    match length {
        Some(length) => open.reader.take(length).read_to_end(&mut text),
        None => open.reader.read_to_end(&mut text),
    }
    .expect("a body");
    Answer { status: open.status, headers: open.headers, body: String::from_utf8(text).expect("UTF-8") }
}

/// Asks for a page.
pub(crate) fn get(address: &str) -> Answer {
    send("GET", address, None, "")
}

/// An answer whose body goes on.
pub(crate) struct Open {
    pub(crate) status: u16,
    headers: Vec<(String, String)>,
    reader: BufReader<TcpStream>,
}

impl Open {
    /// Asks, and reads the head of the answer.
    pub(crate) fn start(method: &str, address: &str, host: Option<&str>, body: &str) -> Self {
        let (own, path) = parts(address);
        let mut stream = TcpStream::connect(own).expect("a server");
        stream.set_read_timeout(Some(PATIENCE)).expect("a time");
        let host = host.unwrap_or(own);
        let length = body.len();
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
        );
        stream.write_all(head.as_bytes()).expect("a request");
        let mut reader = BufReader::new(stream);
        let mut line = || {
            let mut line = String::new();
            reader.read_line(&mut line).expect("a head");
            line.trim_end().to_owned()
        };
        let status = line().split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
        let mut headers = Vec::new();
        while let Some((name, value)) = line().split_once(':') {
            headers.push((name.to_ascii_lowercase(), value.trim_start().to_owned()));
        }
        Self { status, headers, reader }
    }

    /// Reads until a line has these words. The lengths of chunks are lines of their own, and hold no words.
    pub(crate) fn until(&mut self, words: &str) -> String {
        loop {
            let mut line = String::new();
            assert!(self.reader.read_line(&mut line).expect("a line in time") > 0, "it ended before {words:?}");
            if line.contains(words) {
                return line;
            }
        }
    }
}
