//! The certificate directory: what is served, and what is not.

use std::sync::Arc;

use super::{Authority, Bounds, NAME, Server, now, timely};
use crate::server::tls::{Certificates, EXPIRY_MARGIN, Look};
use jiff::{SignedDuration, Timestamp};
use prometheus::Registry;

#[tokio::test]
async fn a_new_pair_is_served_to_new_connections_and_open_ones_notice_nothing() {
    let server = Server::start(Bounds::default());
    let mut open = server.connect().await;
    assert!(open.post("{}").await.starts_with("HTTP/1.1 200"));
    server.authority.leaf(&[NAME], 2050).write(server.directory.path(), &server.authority);
    let until: Timestamp = "2050-01-01T00:00:00Z".parse().expect("a time");
    assert_eq!(server.certificates.look(now()).expect("a pair"), Look::Taken(until));
    assert_eq!(server.certificates.look(now()).expect("a pair"), Look::Unchanged);
    assert!(open.post("{}").await.starts_with("HTTP/1.1 200"));
    let new = server.connect().await;
    assert_ne!(open.0.get_ref().1.peer_certificates(), new.0.get_ref().1.peer_certificates());
}

#[tokio::test]
async fn a_half_written_pair_keeps_the_one_before_until_it_is_whole() {
    let server = Server::start(Bounds::default());
    let before = server.certificates.not_after();
    let leaf = server.authority.leaf(&[NAME], 2050);
    std::fs::write(server.directory.path().join("tls.crt"), &leaf.crt).expect("written");
    let error = server.certificates.look(now()).expect_err("half").to_string();
    assert!(error.starts_with("tls.key does not belong to tls.crt"), "{error}");
    assert_eq!(server.certificates.not_after(), before);
    assert!(server.connect().await.post("{}").await.starts_with("HTTP/1.1 200"));
    std::fs::write(server.directory.path().join("tls.key"), &leaf.key).expect("written");
    assert!(matches!(server.certificates.look(now()), Ok(Look::Taken(_))));
}

#[test]
fn a_pair_that_clients_would_refuse_is_not_served_and_the_reason_is_told() {
    let (ours, theirs) = (Authority::new(), Authority::new());
    let good = ours.leaf(&[NAME], 2100);
    let directory = tempfile::tempdir().expect("a directory");
    let registry = Registry::new();
    let certificates = Certificates::new(directory.path(), &[NAME.to_owned()], &registry).expect("certificates");
    let look = || certificates.look(now()).map_err(|error| error.to_string());
    let refused = |reason: &str| {
        let error = look().expect_err(reason);
        assert!(error.contains(reason), "{error}");
    };
    refused("tls.crt: No such file");
    good.write(directory.path(), &ours);
    assert!(matches!(look(), Ok(Look::Taken(_))));
    let kept = certificates.not_after();

    ours.leaf(&[NAME], 2025).write(directory.path(), &ours);
    refused("valid from 2020-01-01T00:00:00Z to 2025-01-01T00:00:00Z, and it is 2026-01-01T00:00:00Z");
    ours.leaf_from(&[NAME], 2027, 2100).write(directory.path(), &ours);
    refused("valid from 2027-01-01T00:00:00Z");
    ours.leaf(&["elsewhere.svc"], 2100).write(directory.path(), &ours);
    refused("does not hold for guardian.guardian-system.svc");
    theirs.leaf(&[NAME], 2100).write(directory.path(), &ours);
    refused("is not one of ca.crt");
    for (file, text, reason) in [
        ("tls.crt", "", "tls.crt holds no certificate"),
        ("tls.crt", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "the first certificate of tls.crt"),
        ("tls.crt", "-----BEGIN CERTIFICATE-----\nAAAA", "tls.crt is not PEM"),
        ("tls.key", "", "tls.key is not PEM"),
        ("ca.crt", "", "ca.crt holds no certificate"),
    ] {
        ours.leaf(&[NAME], 2100).write(directory.path(), &ours);
        std::fs::write(directory.path().join(file), text).expect("written");
        refused(reason);
        assert_eq!(certificates.not_after(), kept, "{reason}");
    }
    let metrics = prometheus::TextEncoder::new().encode_to_string(&registry.gather()).expect("text");
    assert!(metrics.contains("\nguardian_certificate_refused 1\n"), "{metrics}");
    assert!(metrics.contains("\nguardian_certificate_expiry_timestamp_seconds 4102444800\n"), "{metrics}");
    std::fs::remove_file(directory.path().join("ca.crt")).expect("removed");
    theirs.leaf(&[NAME], 2100).write(directory.path(), &ours);
    std::fs::remove_file(directory.path().join("ca.crt")).expect("removed");
    assert!(matches!(look(), Ok(Look::Taken(_))), "without a ca.crt there is nothing to check the signature by");
}

#[tokio::test]
async fn a_server_without_a_certificate_is_not_ready_and_takes_the_first_that_comes() {
    let authority = Authority::new();
    let directory = tempfile::tempdir().expect("a directory");
    let certificates = Certificates::new(directory.path(), &[NAME.to_owned()], &Registry::new()).expect("certificates");
    assert_eq!(certificates.ready(now()), Err(format!("no certificate yet in {}", directory.path().display())));
    let stop = tokio_util::sync::CancellationToken::new();
    let mut tasks = tokio::task::JoinSet::new();
    let watched = Arc::clone(&certificates);
    let (every, token) = (std::time::Duration::from_millis(5), stop.clone());
    tasks.spawn(async move { watched.watch(every, now, token).await });
    authority.leaf(&[NAME], 2100).write(directory.path(), &authority);
    timely(async {
        while certificates.ready(now()).is_err() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    stop.cancel();
    timely(tasks.join_next()).await.expect("one task").expect("no panic");
}

#[test]
fn readiness_ends_before_the_certificate_does() {
    let authority = Authority::new();
    let directory = tempfile::tempdir().expect("a directory");
    authority.leaf(&[NAME], 2030).write(directory.path(), &authority);
    let certificates = Certificates::new(directory.path(), &[NAME.to_owned()], &Registry::new()).expect("certificates");
    certificates.look(now()).expect("a pair");
    let ends = certificates.not_after().expect("served");
    let second = SignedDuration::from_secs(1);
    assert_eq!(certificates.ready(ends - EXPIRY_MARGIN - second), Ok(()));
    let error = certificates.ready(ends - EXPIRY_MARGIN).expect_err("too late");
    assert_eq!(error, "the certificate expires at 2030-01-01T00:00:00Z, and no newer one has come");
}

/// A life that is shorter than the margin must not keep the webhook out of service for all of it.
#[test]
fn a_short_lived_certificate_is_ready_for_all_but_the_last_twelfth_of_its_life() {
    let authority = Authority::new();
    let directory = tempfile::tempdir().expect("a directory");
    authority.leaf(&[NAME], 2030).write(directory.path(), &authority);
    let certificates = Certificates::new(directory.path(), &[NAME.to_owned()], &Registry::new()).expect("certificates");
    let ends: Timestamp = "2030-01-01T00:00:00Z".parse().expect("a time");
    let second = SignedDuration::from_secs(1);
    certificates.look(ends - second * 60).expect("a pair");
    assert_eq!(certificates.ready(ends - second * 6), Ok(()));
    certificates.ready(ends - second * 5).expect_err("too late");
}
