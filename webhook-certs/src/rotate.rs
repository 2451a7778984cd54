//! When what is renewed: a pure function from what the Secret holds to what it should hold.
//!
//! A CA is replaced in three steps, each of which leaves every client and every server with something that works:
//!
//! 1. At two thirds of its life a new CA goes to the head of `ca.crt`. The leaf stays; its issuer is still trusted.
//! 2. Once the API server has had both for [`Lives::settle`], the leaf is made anew by the new CA. A server that still
//!    presents the old leaf is trusted all the same.
//! 3. The old CA leaves `ca.crt` when it expires. A leaf never outlives its issuer, so at that moment no server can hold
//!    a leaf of it that would be accepted: none need be asked which one it presents.

use std::fmt;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use rcgen::{KeyPair, PublicKeyData};
use rustls::RootCertStore;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use x509_parser::parse_x509_certificate;

use crate::make::{self, MakeError, Pair, SKEW};

/// The most CAs in a bundle. A rotation needs two; more come only from repairs.
const MAX_AUTHORITIES: usize = 4;

/// How long the certificates live. All of them are renewed at two thirds of it.
#[derive(Debug, Clone)]
pub struct Lives {
    /// Of the CA. 365 days: it is replaced without anybody noticing, so there is no reason for ten years.
    pub ca: SignedDuration,
    /// Of the leaf. 90 days: renewed every 60, which leaves a month to read an alert.
    pub leaf: SignedDuration,
    /// From a new CA in the `caBundle` to its first leaf: how long any API server may take to see the change. 10 min,
    /// where a watch takes a second.
    pub settle: SignedDuration,
}

impl Default for Lives {
    fn default() -> Self {
        Self {
            ca: SignedDuration::from_hours(365 * 24),
            leaf: SignedDuration::from_hours(90 * 24),
            settle: SignedDuration::from_mins(10),
        }
    }
}

impl Lives {
    /// The shortest leaf: looked at every second, and renewed some seconds before its end. Where servers read it from the
    /// volume of a Secret, which may lag by a minute, a third of the life must be longer than that.
    const SHORTEST: SignedDuration = SignedDuration::from_secs(10);

    /// A CA signs in the first two thirds of its life, and each leaf must have its whole life in what is left; so must the
    /// wait for the next CA.
    pub fn check(&self) -> Result<(), LivesError> {
        let third = self.ca / 3;
        if self.leaf < Self::SHORTEST {
            return Err(LivesError::Leaf { leaf: self.leaf });
        }
        if self.leaf > third {
            return Err(LivesError::Ca { ca: self.ca, leaf: self.leaf });
        }
        if self.settle.is_negative() || self.settle >= third {
            return Err(LivesError::Settle { settle: self.settle, third });
        }
        Ok(())
    }
}

/// Why lives do not fit together.
#[derive(Debug, thiserror::Error)]
pub enum LivesError {
    /// The leaf is too short-lived.
    #[error("a leaf that lives {leaf:#} is too short; at least {:#}", Lives::SHORTEST)]
    Leaf {
        /// Its life.
        leaf: SignedDuration,
    },
    /// The CA is too short-lived.
    #[error("a CA must live at least three times as long as a leaf; {ca:#} is too short for {leaf:#}")]
    Ca {
        /// Its life.
        ca: SignedDuration,
        /// The leaf's.
        leaf: SignedDuration,
    },
    /// The wait for a new CA is negative, or as long as the old one lives.
    #[error("settling for {settle:#} does not fit into the last third of a CA's life, {third:#}")]
    Settle {
        /// The wait.
        settle: SignedDuration,
        /// The third.
        third: SignedDuration,
    },
}

/// What the Secret holds, all PEM; empty where it has no such key.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Content {
    /// The leaf.
    pub tls_crt: String,
    /// Its key.
    pub tls_key: String,
    /// The bundle: the CA that signs, then those that are still trusted.
    pub ca_crt: String,
    /// The key of the CA that signs.
    pub ca_key: String,
}

/// Without the keys.
impl fmt::Debug for Content {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Content").field("tls_crt", &self.tls_crt).field("ca_crt", &self.ca_crt).finish_non_exhaustive()
    }
}

/// What the Secret should hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Next {
    /// All of it.
    pub content: Content,
    /// What changed, in words; empty when nothing did.
    pub reasons: Vec<&'static str>,
    /// When the leaf expires.
    pub not_after: Timestamp,
}

/// The content that should follow `content` at `now`. `published` is since when the API server has had `content.ca_crt`.
/// What is damaged is made anew, and nothing that still works is dropped for it.
pub fn next(
    content: &Content,
    names: &[String],
    lives: &Lives,
    published: Option<Timestamp>,
    now: Timestamp,
) -> Result<Next, MakeError> {
    let mut reasons = Vec::new();
    let known = authorities(&content.ca_crt);
    let mut trusted: Vec<_> = known.iter().filter(|ca| now <= ca.not_after).cloned().collect();
    if trusted.len() < known.len() || bundle(&known) != content.ca_crt && !known.is_empty() {
        reasons.push("what expired or is no CA left the bundle");
    }
    let signer = trusted.first().filter(|ca| ca.not_before <= now && ca.belongs(&content.ca_key));
    let (key, fresh) = match signer {
        Some(ca) if now < ca.renew_at() => (content.ca_key.clone(), false),
        due => {
            reasons.push(if due.is_some() { "the CA is at two thirds of its life" } else { "there was no CA that can sign" });
            let made = make::authority(now, lives.ca)?;
            trusted.splice(0..0, authorities(&made.crt));
            trusted.truncate(MAX_AUTHORITIES);
            (made.key, true)
        }
    };
    let Some(signer) = trusted.first() else { return Err(rcgen::Error::CouldNotParseCertificate.into()) };
    let settled = !fresh && published.is_some_and(|since| now >= since + lives.settle);
    let reason = match Leaf::judge(content, names, &trusted, now) {
        Leaf::Unusable => Some("there was no leaf that clients would accept"),
        Leaf::OfAnother if settled => Some("the new CA is published"),
        Leaf::OfSigner { renew_at } if now >= renew_at => Some("the leaf is at two thirds of its life"),
        Leaf::OfAnother | Leaf::OfSigner { .. } => None,
    };
    let mut leaf = Pair { crt: content.tls_crt.clone(), key: content.tls_key.clone() };
    if let Some(reason) = reason {
        reasons.push(reason);
        let ca = Pair { crt: signer.pem.clone(), key: key.clone() };
        leaf = make::leaf(&ca, names, now, (now + lives.leaf).min(signer.not_after))?;
    }
    let not_after = Certificate::parse(&leaf.crt).ok_or(rcgen::Error::CouldNotParseCertificate)?.not_after;
    let content = Content { tls_crt: leaf.crt, tls_key: leaf.key, ca_crt: bundle(&trusted), ca_key: key };
    Ok(Next { content, reasons, not_after })
}

/// What the leaf is good for.
enum Leaf {
    /// Nothing: damaged, expired, for other names, of no CA in the bundle.
    Unusable,
    /// It works, and another CA than the one that signs now has made it.
    OfAnother,
    /// It works.
    OfSigner { renew_at: Timestamp },
}

impl Leaf {
    fn judge(content: &Content, names: &[String], trusted: &[Certificate], now: Timestamp) -> Self {
        let Some(leaf) = Certificate::parse(&content.tls_crt) else { return Self::Unusable };
        if !leaf.belongs(&content.tls_key) {
            return Self::Unusable;
        }
        match trusted.iter().position(|ca| leaf.accepted(ca, names, now)) {
            None => Self::Unusable,
            Some(0) => Self::OfSigner { renew_at: leaf.renew_at() },
            Some(_) => Self::OfAnother,
        }
    }
}

#[derive(Clone)]
struct Certificate {
    pem: String,
    der: CertificateDer<'static>,
    public_key: Vec<u8>,
    not_before: Timestamp,
    not_after: Timestamp,
    is_ca: bool,
}

impl Certificate {
    /// The first certificate of a PEM text.
    fn parse(pem: &str) -> Option<Self> {
        let der = CertificateDer::from_pem_slice(pem.as_bytes()).ok()?;
        let (_, parsed) = parse_x509_certificate(&der).ok()?;
        let time = |at: x509_parser::time::ASN1Time| Timestamp::from_second(at.timestamp()).ok();
        let (not_before, not_after) = (time(parsed.validity().not_before)?, time(parsed.validity().not_after)?);
        let public_key = parsed.public_key().subject_public_key.data.to_vec();
        let is_ca = parsed.is_ca();
        Some(Self { pem: format!("{}\n", pem.trim()), der, public_key, not_before, not_after, is_ca })
    }

    fn belongs(&self, key: &str) -> bool {
        KeyPair::from_pem(key).is_ok_and(|key| key.der_bytes() == self.public_key)
    }

    /// Two thirds of its life; what lies before it was made does not count.
    fn renew_at(&self) -> Timestamp {
        let made = self.not_before + SKEW;
        made + made.duration_until(self.not_after) * 2 / 3
    }

    /// A client that trusts `ca` alone, and calls by any of `names`, accepts this leaf now.
    fn accepted(&self, ca: &Self, names: &[String], now: Timestamp) -> bool {
        let mut roots = RootCertStore::empty();
        let provider = rustls::crypto::ring::default_provider().into();
        let added = roots.add(ca.der.clone());
        let verifier = WebPkiServerVerifier::builder_with_provider(roots.into(), provider).build();
        let (Ok(()), Ok(verifier), Ok(seconds)) = (added, verifier, u64::try_from(now.as_second())) else { return false };
        let at = UnixTime::since_unix_epoch(Duration::from_secs(seconds));
        names.iter().all(|name| {
            ServerName::try_from(name.as_str())
                .is_ok_and(|name| verifier.verify_server_cert(&self.der, &[], &name, &[], at).is_ok())
        })
    }
}

/// A bundle, and behind its own CAs those of another that still hold at `now`: servers may present leaves of them yet.
pub(crate) fn beside(own: &str, other: &str, now: Timestamp) -> String {
    let mut all = authorities(own);
    for ca in authorities(other).into_iter().filter(|ca| ca.not_before <= now && now <= ca.not_after) {
        if all.len() < MAX_AUTHORITIES && all.iter().all(|known| known.der != ca.der) {
            all.push(ca);
        }
    }
    bundle(&all)
}

/// The CAs of a bundle, in their order; what is none is left out.
fn authorities(bundle: &str) -> Vec<Certificate> {
    let blocks = bundle.split_inclusive("-----END CERTIFICATE-----\n");
    blocks.filter_map(Certificate::parse).filter(|certificate| certificate.is_ca).collect()
}

fn bundle(authorities: &[Certificate]) -> String {
    authorities.iter().map(|ca| ca.pem.as_str()).collect()
}
