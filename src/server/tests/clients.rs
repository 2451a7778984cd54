//! Only clients that we know are served, once a CA for them is given.
use std::sync::Arc;

use rcgen::{CertificateParams, DnType, ExtendedKeyUsagePurpose, KeyPair, date_time_ymd};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::{ClientConfig, RootCertStore};

use super::{Authority, Bounds, Client, Server, timely};
use crate::server::clients::Clients;
use crate::server::tls::Oldest;

const API_SERVER: &str = "kube-apiserver-admission";

/// A server that serves clients of `authority`, of these names if there are any.
struct Checked {
    server: Server,
    clients: Arc<Clients>,
    file: tempfile::NamedTempFile,
}

impl Checked {
    fn start(authority: &Authority, names: &[&str]) -> Self {
        Self::with(authority, names, Oldest::Tls13)
    }

    fn with(authority: &Authority, names: &[&str], oldest: Oldest) -> Self {
        let file = tempfile::NamedTempFile::new().expect("a file");
        let names: Vec<String> = names.iter().map(ToString::to_string).collect();
        let clients = Clients::new(file.path(), &names);
        let server = Server::checking(Bounds::default(), oldest, Some(Arc::clone(&clients)));
        let checked = Self { server, clients, file };
        checked.trust(authority).expect("a CA");
        checked
    }

    fn trust(&self, authority: &Authority) -> Result<bool, String> {
        self.write(&authority.0.pem())
    }

    fn write(&self, text: &str) -> Result<bool, String> {
        std::fs::write(self.file.path(), text).expect("written");
        self.clients.look().map_err(|error| error.to_string())
    }

    /// With TLS 1.3 a client learns that it is refused only when it reads.
    async fn is_served(&self, identity: Option<&Identity>) -> bool {
        let mut roots = RootCertStore::empty();
        roots.add(self.server.authority.0.der().clone()).expect("a root");
        let builder = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()));
        let builder = builder.with_safe_default_protocol_versions().expect("versions").with_root_certificates(roots);
        let config = match identity {
            Some(Identity { certificate, key }) => {
                builder.with_client_auth_cert(vec![certificate.clone()], key.clone_key()).expect("a pair")
            }
            None => builder.with_no_client_auth(),
        };
        let Ok(mut client) = self.server.connect_as(config).await else { return false };
        use tokio::io::AsyncWriteExt as _;
        let Client(stream) = &mut client;
        let sent = stream.write_all(super::post("{}").as_bytes()).await.is_ok() && stream.flush().await.is_ok();
        sent && client.answer().await.starts_with("HTTP/1.1 200")
    }

    async fn has_refused(&self, clients: u64) {
        let count = self.server.metrics.closed.with_label_values(&["client"]);
        timely(async {
            while count.get() < clients {
                tokio::task::yield_now().await;
            }
        })
        .await;
        assert_eq!(count.get(), clients);
    }
}

struct Identity {
    certificate: rustls::pki_types::CertificateDer<'static>,
    key: PrivateKeyDer<'static>,
}

/// A client's certificate of `authority`, valid until `until`.
fn identity(authority: &Authority, common: &str, dns: &[&str], until: i32, purpose: ExtendedKeyUsagePurpose) -> Identity {
    let dns: Vec<String> = dns.iter().map(ToString::to_string).collect();
    let mut params = CertificateParams::new(dns).expect("names");
    params.distinguished_name.push(DnType::CommonName, common);
    params.extended_key_usages = vec![purpose];
    (params.not_before, params.not_after) = (date_time_ymd(2020, 1, 1), date_time_ymd(until, 1, 1));
    let key = KeyPair::generate().expect("a key");
    let certificate = params.signed_by(&key, &authority.0).expect("a leaf").der().clone();
    Identity { certificate, key: PrivatePkcs8KeyDer::from(key.serialize_der()).into() }
}

fn client(authority: &Authority, common: &str, dns: &[&str]) -> Identity {
    identity(authority, common, dns, 2100, ExtendedKeyUsagePurpose::ClientAuth)
}

#[tokio::test]
async fn a_client_without_a_certificate_of_the_ca_is_not_served_and_is_counted() {
    let (ours, theirs) = (Authority::new(), Authority::new());
    for oldest in [Oldest::Tls13, Oldest::Tls12] {
        let checked = Checked::with(&ours, &[], oldest);
        assert!(checked.is_served(Some(&client(&ours, "anybody", &[]))).await);
        let refused = [
            None,
            Some(client(&theirs, API_SERVER, &[])),
            Some(identity(&ours, API_SERVER, &[], 2021, ExtendedKeyUsagePurpose::ClientAuth)),
            Some(identity(&ours, API_SERVER, &[], 2100, ExtendedKeyUsagePurpose::ServerAuth)),
        ];
        for (n, identity) in refused.iter().enumerate() {
            assert!(!checked.is_served(identity.as_ref()).await, "client {n}");
            checked.has_refused(n as u64 + 1).await;
        }
        assert!(checked.is_served(Some(&client(&ours, "anybody", &[]))).await, "others are served as before");
    }
}

#[tokio::test]
async fn of_the_cas_clients_only_those_with_an_allowed_name_are_served() {
    let ours = Authority::new();
    let checked = Checked::start(&ours, &[API_SERVER, "api.example"]);
    assert!(checked.is_served(Some(&client(&ours, API_SERVER, &[]))).await, "by its common name");
    assert!(checked.is_served(Some(&client(&ours, "other", &["x.example", "api.example"]))).await, "by a DNS name");
    for (common, dns) in [("other", &["x.example"][..]), ("", &[]), ("KUBE-APISERVER-ADMISSION", &[]), ("other", &["*.example"])]
    {
        assert!(!checked.is_served(Some(&client(&ours, common, dns))).await, "{common} {dns:?}");
    }
    checked.has_refused(4).await;
}

#[tokio::test]
async fn another_ca_is_taken_without_a_restart_and_one_that_cannot_be_used_is_not() {
    let (old, new) = (Authority::new(), Authority::new());
    let checked = Checked::start(&old, &[]);
    let (of_old, of_new) = (client(&old, API_SERVER, &[]), client(&new, API_SERVER, &[]));
    assert_eq!(checked.trust(&old), Ok(false), "nothing new");
    for (text, reason) in [
        ("", "holds no certificate of a CA"),
        ("-----BEGIN CERTIFICATE-----\nAAAA", "is not PEM"),
        ("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "holds a certificate that cannot be used"),
    ] {
        let error = checked.write(text).expect_err(reason);
        assert!(error.contains(reason), "{error}");
        assert!(checked.is_served(Some(&of_old)).await, "the one before stays in force");
    }
    assert_eq!(checked.write(&format!("{}{}", old.0.pem(), new.0.pem())), Ok(true));
    assert!(checked.is_served(Some(&of_old)).await && checked.is_served(Some(&of_new)).await, "a rotation needs both");
    assert_eq!(checked.trust(&new), Ok(true));
    assert!(!checked.is_served(Some(&of_old)).await && checked.is_served(Some(&of_new)).await);
}

#[tokio::test]
async fn until_there_is_a_ca_nobody_is_served_and_the_webhook_is_not_ready() {
    let directory = tempfile::tempdir().expect("a directory");
    let (ours, file) = (Authority::new(), directory.path().join("ca.crt"));
    let clients = Clients::new(&file, &[]);
    assert_eq!(clients.ready(), Err(format!("no CA of clients yet in {}", file.display())));
    assert!(clients.look().is_err_and(|error| error.to_string().starts_with("cannot read ")));
    let server = Server::checking(Bounds::default(), Oldest::Tls13, Some(Arc::clone(&clients)));
    let checked = Checked { server, clients, file: tempfile::NamedTempFile::new().expect("a file") };
    assert!(!checked.is_served(Some(&client(&ours, API_SERVER, &[]))).await);
    std::fs::write(&file, ours.0.pem()).expect("written");
    assert!(checked.clients.look().is_ok() && checked.clients.ready().is_ok());
    assert!(checked.is_served(Some(&client(&ours, API_SERVER, &[]))).await);
}
