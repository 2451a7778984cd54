//! Making a CA and a leaf: ECDSA P-256, which every TLS client of an API server verifies fast.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, date_time_ymd,
};

/// A certificate is valid from this long before it was made: the clocks of the nodes differ.
pub(crate) const SKEW: SignedDuration = SignedDuration::from_hours(1);

/// The DNS names by which clients call a Service. The API server uses the first (`clientConfig.service` of a webhook);
/// the second is for people and probes in a cluster with the default domain.
#[must_use]
pub fn names(service: &str, namespace: &str) -> Vec<String> {
    let name = format!("{service}.{namespace}.svc");
    let full = format!("{name}.cluster.local");
    vec![name, full]
}

/// A certificate and its key, both PEM.
pub(crate) struct Pair {
    pub(crate) crt: String,
    pub(crate) key: String,
}

/// A CA of its own name: two of them in one bundle are told apart by it.
pub(crate) fn authority(now: Timestamp, life: SignedDuration) -> Result<Pair, MakeError> {
    let mut params = params(&format!("stateful-guardian webhook CA {}", now.as_millisecond()), now, now + life)?;
    // It signs leaves, and no further CA.
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let key = KeyPair::generate()?;
    Ok(Pair { crt: params.self_signed(&key)?.pem(), key: key.serialize_pem() })
}

/// A leaf for `names`, signed by `ca`, until `until`.
pub(crate) fn leaf(ca: &Pair, names: &[String], now: Timestamp, until: Timestamp) -> Result<Pair, MakeError> {
    let mut params = params("stateful-guardian webhook", now, until)?;
    params.subject_alt_names = CertificateParams::new(names)?.subject_alt_names;
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.use_authority_key_identifier_extension = true;
    let issuer = Issuer::from_ca_cert_pem(&ca.crt, KeyPair::from_pem(&ca.key)?)?;
    let key = KeyPair::generate()?;
    Ok(Pair { crt: params.signed_by(&key, &issuer)?.pem(), key: key.serialize_pem() })
}

fn params(common_name: &str, now: Timestamp, until: Timestamp) -> Result<CertificateParams, MakeError> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, common_name);
    let time = |at: Timestamp| {
        let seconds = u64::try_from(at.as_second()).map_err(|_before_1970| MakeError::Time(at))?;
        Ok::<_, MakeError>(date_time_ymd(1970, 1, 1) + Duration::from_secs(seconds))
    };
    (params.not_before, params.not_after) = (time(now - SKEW)?, time(until)?);
    Ok(params)
}

/// A certificate could not be made.
#[derive(Debug, thiserror::Error)]
pub enum MakeError {
    /// A name is no DNS name, or the CA is none.
    #[error("cannot make a certificate: {0}")]
    Make(#[from] rcgen::Error),
    /// A time before 1970.
    #[error("cannot make a certificate at {0}: the clock is wrong")]
    Time(Timestamp),
}
