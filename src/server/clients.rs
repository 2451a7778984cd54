//! Which clients are served: those with a certificate of a CA that is read from a file, and perhaps only those of certain names.
//!
//! Without this anybody who reaches the port can ask the webhook questions. It decides nothing for them that it would not say to an API
//! server, but it asks the API server in turn, with its own rights.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{CertificateError, DigitallySignedStruct, DistinguishedName, Error, RootCertStore, SignatureScheme};
use tokio_util::sync::CancellationToken;
use x509_parser::extensions::GeneralName;
use x509_parser::parse_x509_certificate;

/// The check of client certificates. Its CA file is read again when it changes.
pub struct Clients {
    file: PathBuf,
    names: Vec<String>,
    provider: Arc<CryptoProvider>,
    trusted: ArcSwapOption<Trusted>,
    /// What was last logged: a client that comes again and again is told of once.
    told: Mutex<String>,
}

struct Trusted {
    pem: Vec<u8>,
    verifier: Arc<dyn ClientCertVerifier>,
}

/// Why a CA file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ClientsError {
    /// It is not there or cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It is not PEM.
    #[error("{} is not PEM: {source}", path.display())]
    Pem {
        /// The file.
        path: PathBuf,
        /// Where it broke.
        source: pem::Error,
    },
    /// It holds no certificate that can sign others.
    #[error("{} holds no certificate of a CA", path.display())]
    NoAuthority {
        /// The file.
        path: PathBuf,
    },
    /// It holds a certificate that rustls cannot use.
    #[error("{} holds a certificate that cannot be used: {source}", path.display())]
    Unusable {
        /// The file.
        path: PathBuf,
        /// What rustls said.
        source: Error,
    },
}

impl Clients {
    /// Clients with a certificate of a CA in `file`. Where `names` are given, one of them must be its common name or one of its DNS names.
    /// Nothing is read yet, and until it is, nobody is served.
    #[must_use]
    pub fn new(file: impl Into<PathBuf>, names: &[String]) -> Arc<Self> {
        Arc::new(Self {
            file: file.into(),
            names: names.to_vec(),
            provider: Arc::new(rustls::crypto::ring::default_provider()),
            trusted: ArcSwapOption::empty(),
            told: Mutex::default(),
        })
    }

    /// Looks at the file every `every` until `shutdown`, at once for the first time, and tells what changes.
    pub async fn watch(&self, every: Duration, shutdown: CancellationToken) {
        loop {
            match self.look() {
                Ok(false) => {}
                Ok(true) => tracing::info!(file = %self.file.display(), "client certificates are checked by this CA"),
                Err(error) => self.tell(format!("{error}; the CA of before stays in force")),
            }
            tokio::select! {
                () = tokio::time::sleep(every) => {}
                () = shutdown.cancelled() => return,
            }
        }
    }

    /// Looks at the file once, and says whether it is a new one. An error leaves in force what was.
    ///
    /// # Errors
    /// Why the file cannot be used.
    pub fn look(&self) -> Result<bool, ClientsError> {
        let path = || self.file.clone();
        let pem = std::fs::read(&self.file).map_err(|source| ClientsError::Read { path: path(), source })?;
        if self.trusted.load().as_ref().is_some_and(|trusted| trusted.pem == pem) {
            return Ok(false);
        }
        let mut roots = RootCertStore::empty();
        for root in CertificateDer::pem_slice_iter(&pem) {
            let root = root.map_err(|source| ClientsError::Pem { path: path(), source })?;
            roots.add(root).map_err(|source| ClientsError::Unusable { path: path(), source })?;
        }
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&self.provider)).build();
        let verifier = verifier.map_err(|_no_roots| ClientsError::NoAuthority { path: path() })?;
        self.trusted.store(Some(Arc::new(Trusted { pem, verifier })));
        Ok(true)
    }

    /// The check of readiness.
    ///
    /// # Errors
    /// While there is no CA, and so nobody is served.
    pub fn ready(&self) -> Result<(), String> {
        match self.trusted.load().as_ref() {
            Some(_) => Ok(()),
            None => Err(format!("no CA of clients yet in {}", self.file.display())),
        }
    }

    /// Is the holder of this certificate, which is one of our CA, somebody whom we serve?
    fn check_name(&self, leaf: &CertificateDer<'_>) -> Result<(), Error> {
        if self.names.is_empty() {
            return Ok(());
        }
        let held = names(leaf);
        if held.iter().any(|name| self.names.contains(name)) {
            return Ok(());
        }
        self.tell(format!("a client is refused: its certificate is for {held:?}, and --client-name allows {:?}", self.names));
        Err(Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure))
    }

    fn tell(&self, message: String) {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if *told != message {
            tracing::warn!("{message}");
            *told = message;
        }
    }
}

/// The common names and the DNS names of a certificate. One that cannot be parsed has none.
fn names(leaf: &CertificateDer<'_>) -> Vec<String> {
    let Ok((_, parsed)) = parse_x509_certificate(leaf) else { return Vec::new() };
    let common = parsed.subject().iter_common_name().filter_map(|name| name.as_str().ok());
    let alternative = parsed.subject_alternative_name().ok().flatten();
    let alternative = alternative.iter().flat_map(|names| &names.value.general_names).filter_map(|name| match name {
        GeneralName::DNSName(name) => Some(*name),
        _ => None,
    });
    common.chain(alternative).map(str::to_owned).collect()
}

impl ClientCertVerifier for Clients {
    /// None: the CA may change while a handshake goes on, and clients send the certificate that they have.
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let trusted = self.trusted.load_full().ok_or(Error::InvalidCertificate(CertificateError::UnknownIssuer))?;
        let verified = trusted.verifier.verify_client_cert(leaf, intermediates, now).inspect_err(|error| {
            self.tell(format!("a client is refused: its certificate is not one of {}: {error}", self.file.display()));
        })?;
        self.check_name(leaf)?;
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, leaf, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, leaf, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

impl fmt::Debug for Clients {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Clients").field("file", &self.file).field("names", &self.names).finish_non_exhaustive()
    }
}
