//! The server through its real socket.

mod bounds;
mod certificates;
mod clients;
mod lies;
mod probe;
mod requests;

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use hyper::body::Bytes;
use jiff::Timestamp;
use prometheus::Registry;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, date_time_ymd};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore, SupportedProtocolVersion};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_util::sync::CancellationToken;

use super::clients::Clients;
use super::tls::{Certificates, Oldest, config};
use super::{Answer, Bounds, Handler, Metrics, bind, serve};

const NAME: &str = "guardian.guardian-system.svc";

/// Longer than anything here takes on a busy machine: a test that waits so long has failed.
const FOREVER: Duration = Duration::from_secs(60);

/// A server with a certificate, and what a test needs to talk to it.
struct Server {
    address: SocketAddr,
    authority: Authority,
    certificates: Arc<Certificates>,
    directory: tempfile::TempDir,
    metrics: Metrics,
    handler: Arc<Scripted>,
    shutdown: CancellationToken,
    task: JoinSet<()>,
}

impl Server {
    fn start(bounds: Bounds) -> Self {
        Self::with(bounds, Oldest::Tls13)
    }

    fn with(bounds: Bounds, oldest: Oldest) -> Self {
        Self::checking(bounds, oldest, None)
    }

    fn checking(bounds: Bounds, oldest: Oldest, clients: Option<Arc<Clients>>) -> Self {
        let authority = Authority::new();
        let directory = tempfile::tempdir().expect("a directory");
        authority.leaf(&[NAME], 2100).write(directory.path(), &authority);
        let registry = Registry::new();
        let certificates = Certificates::new(directory.path(), &[NAME.to_owned()], &registry).expect("certificates");
        certificates.look(now()).expect("a pair");
        let listener = bind("127.0.0.1:0".parse().expect("an address")).expect("a port");
        let address = listener.local_addr().expect("bound");
        let tls = config(Arc::clone(&certificates), oldest, clients).expect("TLS");
        let metrics = Metrics::new(&registry, "webhook").expect("metrics");
        let handler = Arc::new(Scripted { wait: Semaphore::new(0), waiting: Semaphore::new(0) });
        let shutdown = CancellationToken::new();
        let mut task = JoinSet::new();
        task.spawn(serve(listener, tls, Arc::clone(&handler), bounds, metrics.clone(), shutdown.clone()));
        Self { address, authority, certificates, directory, metrics, handler, shutdown, task }
    }

    async fn connect(&self) -> Client {
        self.try_connect(&[&rustls::version::TLS13]).await.expect("a TLS connection")
    }

    async fn try_connect(&self, versions: &[&'static SupportedProtocolVersion]) -> std::io::Result<Client> {
        let mut roots = RootCertStore::empty();
        roots.add(self.authority.0.der().clone()).expect("a root");
        let builder = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()));
        let builder = builder.with_protocol_versions(versions).expect("versions");
        self.connect_as(builder.with_root_certificates(roots).with_no_client_auth()).await
    }

    async fn connect_as(&self, client: ClientConfig) -> std::io::Result<Client> {
        let tcp = TcpStream::connect(self.address).await?;
        let name = ServerName::try_from(NAME).expect("a name");
        Ok(Client(TlsConnector::from(Arc::new(client)).connect(name, tcp).await?))
    }

    /// The server has returned.
    async fn ended(mut self) {
        timely(self.task.join_next()).await.expect("one task").expect("no panic");
    }
}

/// What a request makes the handler do: `panic`, `wait` until it is released, `sleep` for ever, answer `large`; else it
/// tells the length of the body.
struct Scripted {
    wait: Semaphore,
    waiting: Semaphore,
}

impl Handler for Scripted {
    fn paths(&self) -> &'static [&'static str] {
        &["/mutate", "/validate"]
    }

    async fn handle(&self, path: &str, body: Bytes) -> Answer {
        let word = body.trim_ascii();
        assert_ne!(word, b"panic", "as the request said");
        if word == b"wait" {
            self.waiting.add_permits(1);
            self.wait.acquire().await.expect("open").forget();
        }
        if word == b"sleep" {
            std::future::pending::<()>().await;
        }
        if word == b"large" {
            return Answer::ok("x".repeat(32 << 20));
        }
        Answer::ok(format!(r#"{{"path":"{path}","bytes":{}}}"#, body.len()))
    }
}

impl Scripted {
    /// So many requests are in the handler.
    async fn holds(&self, requests: u32) {
        timely(self.waiting.acquire_many(requests)).await.expect("open").forget();
    }

    fn release(&self, requests: usize) {
        self.wait.add_permits(requests);
    }
}

struct Client(TlsStream<TcpStream>);

impl Client {
    async fn post(&mut self, body: &str) -> String {
        self.send(&post(body)).await;
        self.answer().await
    }

    async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.0.write_all(bytes.as_ref()).await.expect("sent");
        self.0.flush().await.expect("sent");
    }

    /// One answer, head and body, as text; empty when the server has closed.
    async fn answer(&mut self) -> String {
        let mut answer = Vec::new();
        loop {
            let text = String::from_utf8_lossy(&answer).into_owned();
            if let Some((head, body)) = text.split_once("\r\n\r\n") {
                let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
                if body.len() >= length.expect("a length").parse().expect("a number") {
                    return text;
                }
            }
            let mut piece = [0; 4096];
            // A close without close_notify, or with bytes of ours unread, is an error here.
            match timely(self.0.read(&mut piece)).await {
                Ok(0) | Err(_) => return text,
                Ok(read) => answer.extend_from_slice(&piece[..read]),
            }
        }
    }

    async fn closed(&mut self) {
        assert_eq!(self.answer().await, "", "closed, without another answer");
    }
}

fn post(body: &str) -> String {
    format!(
        "POST /mutate?timeout=2s HTTP/1.1\r\nHost: {NAME}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

async fn timely<T>(event: impl Future<Output = T>) -> T {
    tokio::time::timeout(FOREVER, event).await.expect("in time")
}

fn now() -> Timestamp {
    "2026-01-01T00:00:00Z".parse().expect("a time")
}

/// A CA that lives from 2020 to 2100.
struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        (params.not_before, params.not_after) = (date_time_ymd(2020, 1, 1), date_time_ymd(2100, 1, 1));
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a key")).expect("a CA"))
    }

    fn leaf(&self, names: &[&str], until: i32) -> Leaf {
        self.leaf_from(names, 2020, until)
    }

    fn leaf_from(&self, names: &[&str], from: i32, until: i32) -> Leaf {
        let names: Vec<_> = names.iter().map(ToString::to_string).collect();
        let mut params = CertificateParams::new(names).expect("names");
        (params.not_before, params.not_after) = (date_time_ymd(from, 1, 1), date_time_ymd(until, 1, 1));
        let key = KeyPair::generate().expect("a key");
        Leaf { crt: params.signed_by(&key, &self.0).expect("a leaf").pem(), key: key.serialize_pem() }
    }
}

struct Leaf {
    crt: String,
    key: String,
}

impl Leaf {
    fn write(&self, directory: &Path, authority: &Authority) {
        std::fs::write(directory.join("tls.crt"), &self.crt).expect("written");
        std::fs::write(directory.join("tls.key"), &self.key).expect("written");
        std::fs::write(directory.join("ca.crt"), authority.0.pem()).expect("written");
    }
}
