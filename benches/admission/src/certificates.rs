//! One certificate for all servers, and a client that knows its CA.

use std::path::Path;
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::crypto::CryptoProvider;
use rustls::crypto::ring::{self, cipher_suite};
use rustls::pki_types::CertificateDer;
use rustls::version::TLS13;
use rustls::{ClientConfig, RootCertStore};

use crate::BenchError;

/// The name that the servers are called by.
pub(crate) const NAME: &str = "guardian-webhook.stateful-guardian.svc";

/// Writes `tls.crt`, `tls.key` and `ca.crt` (ECDSA P-256, as `guardian certs` makes them) into `directory`.
pub(crate) fn write(directory: &Path) -> Result<CertificateDer<'static>, BenchError> {
    let mut authority = CertificateParams::default();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate()?)?;
    let key = KeyPair::generate()?;
    let leaf = CertificateParams::new(vec![NAME.to_owned()])?.signed_by(&key, &authority)?;
    for (file, text) in [("tls.crt", leaf.pem()), ("tls.key", key.serialize_pem()), ("ca.crt", authority.pem())] {
        std::fs::write(directory.join(file), text)?;
    }
    Ok(authority.der().clone())
}

/// TLS 1.3 and HTTP/1.1, with the cipher that an API server, which is written in Go, offers first where the processor has AES.
pub(crate) fn client(root: CertificateDer<'static>) -> Result<Arc<ClientConfig>, BenchError> {
    let mut roots = RootCertStore::empty();
    roots.add(root)?;
    let suites = vec![cipher_suite::TLS13_AES_128_GCM_SHA256];
    let provider = CryptoProvider { cipher_suites: suites, ..ring::default_provider() };
    let builder = ClientConfig::builder_with_provider(Arc::new(provider)).with_protocol_versions(&[&TLS13])?;
    let mut config = builder.with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}
