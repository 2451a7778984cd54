//! The server's certificate, read again from its directory whenever that changes, without a restart.
//!
//! The directory is a mounted Secret: `tls.crt` (the leaf first), `tls.key` and, if it is there, `ca.crt`. Such a volume
//! swaps a symbolic link and may lag behind the Secret by a minute, and a reader may see the two files from both sides of
//! the swap. So the bytes are compared, and a pair is served only once it is proven to be one that clients will accept;
//! until then the one before stays. Connections that are open keep the certificate that they were opened with.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use jiff::{SignedDuration, Timestamp};
use prometheus::{IntGauge, Registry};
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::{ClientHello, NoServerSessionStorage, ParsedCertificate, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::version::{TLS12, TLS13};
use rustls::{RootCertStore, ServerConfig};
use tokio_util::sync::CancellationToken;
use x509_parser::parse_x509_certificate;

use super::clients::Clients;

/// How often the directory is looked at: three files in memory, read in microseconds.
pub const POLL: Duration = Duration::from_secs(1);

/// Readiness ends this long before the certificate does, at most: long enough for an alert to be read, and by then every
/// renewal (at two thirds of its life) has failed for weeks. See [`SHARE`] for short lives.
pub const EXPIRY_MARGIN: SignedDuration = SignedDuration::from_hours(1);

/// And no longer than this part of what was left of its life when it was taken: a renewal leaves a third.
const SHARE: i32 = 12;

/// The oldest version of TLS that is spoken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Oldest {
    /// TLS 1.2, for a client that is not an API server of this decade.
    Tls12,
    /// TLS 1.3, which every supported API server speaks.
    #[default]
    Tls13,
}

/// The TLS side of [`super::serve`]: HTTP/1.1 only, no resumption (the API server keeps its connections, and asks for none). Where
/// `clients` are given, nobody else is served.
pub fn config(
    certificates: Arc<Certificates>,
    oldest: Oldest,
    clients: Option<Arc<Clients>>,
) -> Result<Arc<ServerConfig>, rustls::Error> {
    let versions: &[_] = match oldest {
        Oldest::Tls12 => &[&TLS13, &TLS12],
        Oldest::Tls13 => &[&TLS13],
    };
    let builder = ServerConfig::builder_with_provider(Arc::clone(&certificates.provider));
    let builder = builder.with_protocol_versions(versions)?;
    let builder = match clients {
        Some(clients) => builder.with_client_cert_verifier(clients),
        None => builder.with_no_client_auth(),
    };
    let mut config = builder.with_cert_resolver(certificates);
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(Arc::new(config))
}

/// The pair that is served now, and where the next one will come from.
pub struct Certificates {
    directory: PathBuf,
    names: Vec<ServerName<'static>>,
    provider: Arc<CryptoProvider>,
    served: ArcSwapOption<Served>,
    expiry: IntGauge,
    refused: IntGauge,
}

impl Certificates {
    /// Certificates from `directory` that must hold for all of `names`: the DNS names by which clients call us. Nothing
    /// is read yet.
    pub fn new(directory: impl Into<PathBuf>, names: &[String], registry: &Registry) -> Result<Arc<Self>, TlsError> {
        let parse =
            |name: &String| ServerName::try_from(name.clone()).map_err(|_invalid| TlsError::InvalidName { name: name.clone() });
        let expiry = IntGauge::new(
            "guardian_certificate_expiry_timestamp_seconds",
            "When the certificate that is served expires; 0 while there is none.",
        )?;
        let refused = IntGauge::new(
            "guardian_certificate_refused",
            "1 while the files in the certificate directory cannot be used; the log says why.",
        )?;
        registry.register(Box::new(expiry.clone()))?;
        registry.register(Box::new(refused.clone()))?;
        Ok(Arc::new(Self {
            directory: directory.into(),
            names: names.iter().map(parse).collect::<Result<_, _>>()?,
            provider: Arc::new(rustls::crypto::ring::default_provider()),
            served: ArcSwapOption::empty(),
            expiry,
            refused,
        }))
    }

    /// Looks at the directory every `every` until `shutdown`, at once for the first time, and tells what changes.
    pub async fn watch(&self, every: Duration, clock: impl Fn() -> Timestamp, shutdown: CancellationToken) {
        let mut told = String::new();
        loop {
            match self.look(clock()) {
                Ok(Look::Unchanged) => told.clear(),
                Ok(Look::Taken(not_after)) => {
                    told.clear();
                    tracing::info!(%not_after, directory = %self.directory.display(), "serving a new certificate");
                }
                Err(error) => {
                    let error = error.to_string();
                    if error != told {
                        let kept = self.not_after();
                        tracing::warn!(%error, kept_until = ?kept, "the certificate files cannot be used; waiting for better ones");
                        told = error;
                    }
                }
            }
            tokio::select! {
                () = tokio::time::sleep(every) => {}
                () = shutdown.cancelled() => return,
            }
        }
    }

    /// Looks at the directory once. An error leaves what is served as it was.
    pub fn look(&self, now: Timestamp) -> Result<Look, TlsError> {
        let looked = self.take(now);
        self.refused.set(i64::from(looked.is_err()));
        self.expiry.set(self.not_after().map_or(0, Timestamp::as_second));
        looked
    }

    /// When the certificate that is served expires; `None` while there is none.
    pub fn not_after(&self) -> Option<Timestamp> {
        self.served.load().as_ref().map(|served| served.not_after)
    }

    /// The check of readiness: there is a certificate, and it does not expire soon.
    pub fn ready(&self, now: Timestamp) -> Result<(), String> {
        match self.served.load().as_deref() {
            None => Err(format!("no certificate yet in {}", self.directory.display())),
            Some(served) if now >= served.ready_until => {
                Err(format!("the certificate expires at {}, and no newer one has come", served.not_after))
            }
            Some(_) => Ok(()),
        }
    }

    fn take(&self, now: Timestamp) -> Result<Look, TlsError> {
        let files = Files::read(&self.directory)?;
        if self.served.load().as_ref().is_some_and(|served| served.files == files) {
            return Ok(Look::Unchanged);
        }
        let served = self.verify(files, now)?;
        let not_after = served.not_after;
        self.served.store(Some(Arc::new(served)));
        Ok(Look::Taken(not_after))
    }

    /// A pair is served only if the key is the certificate's, it is valid now, holds for every name, and, where there is
    /// a `ca.crt`, is signed by it.
    fn verify(&self, files: Files, now: Timestamp) -> Result<Served, TlsError> {
        let chain = certificates(TLS_CRT, &files.crt)?;
        let leaf = chain.first().ok_or(TlsError::Empty { file: TLS_CRT })?;
        let key = PrivateKeyDer::from_pem_slice(&files.key).map_err(|source| TlsError::Pem { file: TLS_KEY, source })?;
        let (not_before, not_after) = validity(leaf)?;
        if now < not_before || now >= not_after {
            return Err(TlsError::NotValidNow { now, not_before, not_after });
        }
        let parsed = ParsedCertificate::try_from(leaf).map_err(TlsError::Leaf)?;
        for name in &self.names {
            rustls::client::verify_server_name(&parsed, name)
                .map_err(|source| TlsError::Name { name: name.to_str().into_owned(), source })?;
        }
        if let Some(ca) = &files.ca {
            self.verify_chain(&chain, ca, now)?;
        }
        let key = CertifiedKey::from_der(chain, key, &self.provider).map_err(TlsError::Pair)?;
        let margin = EXPIRY_MARGIN.min(now.duration_until(not_after) / SHARE);
        Ok(Served { key: Arc::new(key), not_after, ready_until: not_after - margin, files })
    }

    fn verify_chain(&self, chain: &[CertificateDer<'static>], ca: &[u8], now: Timestamp) -> Result<(), TlsError> {
        let mut roots = RootCertStore::empty();
        for root in certificates(CA_CRT, ca)? {
            roots.add(root).map_err(TlsError::Chain)?;
        }
        let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&self.provider)).build();
        let verifier = verifier.map_err(|_no_roots| TlsError::Empty { file: CA_CRT })?;
        let now = UnixTime::since_unix_epoch(Duration::from_secs(u64::try_from(now.as_second()).unwrap_or_default()));
        let (Some((leaf, intermediates)), Some(name)) = (chain.split_first(), self.names.first()) else { return Ok(()) };
        verifier.verify_server_cert(leaf, intermediates, name, &[], now).map_err(TlsError::Chain)?;
        Ok(())
    }
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.served.load().as_ref().map(|served| Arc::clone(&served.key))
    }
}

/// Without the key.
impl fmt::Debug for Certificates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Certificates").field("directory", &self.directory).finish_non_exhaustive()
    }
}

/// What a look at the directory found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Look {
    /// The files that are served.
    Unchanged,
    /// A new pair, served from now on, until this time.
    Taken(Timestamp),
}

struct Served {
    key: Arc<CertifiedKey>,
    not_after: Timestamp,
    ready_until: Timestamp,
    files: Files,
}

const TLS_CRT: &str = "tls.crt";
const TLS_KEY: &str = "tls.key";
const CA_CRT: &str = "ca.crt";

#[derive(PartialEq, Eq)]
struct Files {
    crt: Vec<u8>,
    key: Vec<u8>,
    ca: Option<Vec<u8>>,
}

impl Files {
    /// Blocking reads: the directory is in memory.
    fn read(directory: &Path) -> Result<Self, TlsError> {
        let read = |file: &str| {
            let path = directory.join(file);
            std::fs::read(&path).map_err(|source| TlsError::Read { path, source })
        };
        let ca = match read(CA_CRT) {
            Err(TlsError::Read { source, .. }) if source.kind() == io::ErrorKind::NotFound => None,
            ca => Some(ca?),
        };
        Ok(Self { crt: read(TLS_CRT)?, key: read(TLS_KEY)?, ca })
    }
}

fn certificates(file: &'static str, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    CertificateDer::pem_slice_iter(pem).collect::<Result<_, _>>().map_err(|source| TlsError::Pem { file, source })
}

fn validity(leaf: &CertificateDer<'_>) -> Result<(Timestamp, Timestamp), TlsError> {
    let (_, parsed) = parse_x509_certificate(leaf).map_err(|error| TlsError::X509(error.to_string()))?;
    let at = |time: x509_parser::time::ASN1Time| {
        Timestamp::from_second(time.timestamp()).map_err(|error| TlsError::X509(error.to_string()))
    };
    Ok((at(parsed.validity().not_before)?, at(parsed.validity().not_after)?))
}

/// Why the files cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file is not there or cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A file is not PEM.
    #[error("{file} is not PEM: {source}")]
    Pem {
        /// Its name.
        file: &'static str,
        /// Where it broke.
        source: pem::Error,
    },
    /// No certificate in a file.
    #[error("{file} holds no certificate")]
    Empty {
        /// Its name.
        file: &'static str,
    },
    /// The leaf cannot be parsed.
    #[error("the first certificate of tls.crt cannot be parsed: {0}")]
    X509(String),
    /// The leaf cannot be used by rustls.
    #[error("the first certificate of tls.crt cannot be used: {0}")]
    Leaf(#[source] rustls::Error),
    /// The key is another certificate's, or of a kind that is not known.
    #[error("tls.key does not belong to tls.crt: {0}")]
    Pair(#[source] rustls::Error),
    /// Expired, or not valid yet.
    #[error("the certificate is valid from {not_before} to {not_after}, and it is {now}")]
    NotValidNow {
        /// The time by our clock.
        now: Timestamp,
        /// The start of its life.
        not_before: Timestamp,
        /// The end of its life.
        not_after: Timestamp,
    },
    /// A client that calls us by this name would refuse it.
    #[error("the certificate does not hold for {name}: {source}")]
    Name {
        /// The DNS name.
        name: String,
        /// What rustls said.
        source: rustls::Error,
    },
    /// Not signed by a CA of `ca.crt`.
    #[error("the certificate is not one of ca.crt: {0}")]
    Chain(#[source] rustls::Error),
    /// The configured name is no DNS name.
    #[error("`{name}` is not a DNS name")]
    InvalidName {
        /// As configured.
        name: String,
    },
    /// The registry has these metrics already.
    #[error(transparent)]
    Metrics(#[from] prometheus::Error),
}
