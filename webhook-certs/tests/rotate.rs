//! The rules of renewal over a simulated clock.
#![expect(clippy::expect_used, reason = "a test ends where it fails")]

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use rustls::RootCertStore;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use webhook_certs::{Content, Lives, Next, names, next};

const DAY: SignedDuration = SignedDuration::from_hours(24);
const SECOND: SignedDuration = SignedDuration::from_secs(1);

fn start() -> Timestamp {
    "2026-01-01T00:00:00Z".parse().expect("a time")
}

fn service() -> Vec<String> {
    names("guardian", "guardian-system")
}

fn step(content: &Content, published: Option<Timestamp>, now: Timestamp) -> Next {
    next(content, &service(), &Lives::default(), published, now).expect("certificates")
}

/// Made at the start of 2026: the CA until 2027, the leaf for 90 days.
fn first() -> Content {
    let made = step(&Content::default(), None, start());
    assert_eq!(made.reasons, ["there was no CA that can sign", "there was no leaf that clients would accept"]);
    assert_eq!(made.not_after, start() + 90 * DAY);
    made.content
}

/// What an API server does with a bundle and the leaf that a server presents.
fn accepts(bundle: &str, leaf: &str, name: &str, now: Timestamp) -> bool {
    let mut roots = RootCertStore::empty();
    for ca in CertificateDer::pem_slice_iter(bundle.as_bytes()) {
        roots.add(ca.expect("PEM")).expect("a CA");
    }
    let provider = rustls::crypto::ring::default_provider().into();
    let verifier = WebPkiServerVerifier::builder_with_provider(roots.into(), provider).build().expect("a CA at least");
    let leaf = CertificateDer::from_pem_slice(leaf.as_bytes()).expect("a certificate");
    let name = ServerName::try_from(name.to_owned()).expect("a name");
    let at = UnixTime::since_unix_epoch(Duration::from_secs(u64::try_from(now.as_second()).expect("after 1970")));
    verifier.verify_server_cert(&leaf, &[], &name, &[], at).is_ok()
}

fn authorities(content: &Content) -> usize {
    content.ca_crt.matches("BEGIN CERTIFICATE").count()
}

#[test]
fn the_first_pair_is_accepted_under_both_names_and_by_clocks_that_are_an_hour_late() {
    let content = first();
    for name in service() {
        assert!(accepts(&content.ca_crt, &content.tls_crt, &name, start()));
        assert!(accepts(&content.ca_crt, &content.tls_crt, &name, start() - SignedDuration::from_mins(59)));
    }
    assert!(!accepts(&content.ca_crt, &content.tls_crt, "other.guardian-system.svc", start()));
    assert!(!accepts(&content.ca_crt, &content.tls_crt, "guardian.guardian-system.svc", start() + 90 * DAY + SECOND));
    assert!(!format!("{content:?}").contains("PRIVATE"), "keys are not for logs");
}

#[test]
fn nothing_changes_until_something_is_due() {
    let content = first();
    for days in [0, 1, 30, 59] {
        let same = step(&content, Some(start()), start() + days * DAY);
        assert_eq!((same.reasons.as_slice(), &same.content), (&[][..], &content), "day {days}");
    }
}

/// Three years, a look a day; at each, every API server that has seen the bundle no longer than `settle` ago accepts the
/// leaf that is in the Secret, and every one that is up to date accepts any leaf that a server may still have.
#[test]
fn no_client_ever_meets_a_leaf_that_it_does_not_accept_through_three_years_of_rotation() {
    let (mut content, mut published) = (first(), (String::new(), start()));
    let mut leaves = vec![content.tls_crt.clone()];
    let (mut late, mut every) = (content.ca_crt.clone(), content.ca_crt.clone());
    let (mut most, mut cas, mut reasons) = (0, 0, 0);
    for day in 0..3 * 365 {
        let now = start() + day * DAY;
        let since = (published.0 == content.ca_crt).then_some(published.1);
        let after = step(&content, since, now);
        reasons += after.reasons.len();
        cas += usize::from(after.reasons.contains(&"the CA is at two thirds of its life"));
        if after.content.tls_crt != content.tls_crt {
            leaves.push(after.content.tls_crt.clone());
        }
        // The bundle that a late API server still has is the one before this look.
        content = after.content;
        if late != content.ca_crt {
            every += &content.ca_crt;
        }
        assert!(accepts(&late, &content.tls_crt, &service()[0], now), "day {day}: a late API server");
        // A server may be as late as it likes: of all CAs that ever were, none that left would have been accepted.
        // Of the leaves, three may not have expired yet.
        for leaf in leaves.iter().rev().take(3).filter(|leaf| accepts(&every, leaf, &service()[0], now)) {
            assert!(accepts(&content.ca_crt, leaf, &service()[0], now), "day {day}: a late server");
        }
        if published.0 != content.ca_crt {
            published = (content.ca_crt.clone(), now);
        }
        late.clone_from(&content.ca_crt);
        most = most.max(authorities(&content));
    }
    assert_eq!(most, 2, "never more than the old and the new one");
    // Every 243.3 days a CA, every 60 days a leaf or at the switch to a CA, every CA leaves once.
    assert_eq!(cas, 4);
    assert!((18..=23).contains(&leaves.len()), "{}", leaves.len());
    assert!(reasons < 32, "{reasons}");
}

#[test]
fn a_new_ca_signs_only_once_it_has_been_published_for_long_enough() {
    let (content, day) = (first(), start() + 200 * DAY);
    let content = step(&content, None, day).content; // a leaf of day 200
    let due = start() + 244 * DAY;
    let overlap = step(&content, Some(start()), due);
    assert_eq!(overlap.reasons, ["the CA is at two thirds of its life"]);
    assert_eq!((authorities(&overlap.content), &overlap.content.tls_crt), (2, &content.tls_crt));
    assert!(overlap.content.ca_crt.ends_with(&content.ca_crt), "the old one is still trusted");
    let settle = Lives::default().settle;
    for (published, now) in [(None, due + 5 * DAY), (Some(due), due + settle - SECOND)] {
        assert_eq!(step(&overlap.content, published, now).reasons, [""; 0], "{published:?}");
    }
    let switched = step(&overlap.content, Some(due), due + settle);
    assert_eq!(switched.reasons, ["the new CA is published"]);
    assert_eq!(authorities(&switched.content), 2);
    let before = step(&switched.content, Some(due), start() + 290 * DAY).content;
    assert_eq!(authorities(&step(&before, Some(due), start() + 365 * DAY).content), 2);
    let after = step(&before, Some(due), start() + 365 * DAY + SECOND);
    assert_eq!(authorities(&after.content), 1, "the old one has expired");
    assert!(after.reasons.contains(&"what expired or is no CA left the bundle"));
}

/// Publishing fails for months: the old leaf is kept as long as it works, and no longer.
#[test]
fn an_unpublished_ca_signs_when_there_is_nothing_left_to_lose() {
    let content = step(&first(), None, start() + 200 * DAY).content;
    let overlap = step(&content, None, start() + 244 * DAY).content;
    assert_eq!(step(&overlap, None, start() + 290 * DAY).reasons, [""; 0]);
    let expired = step(&overlap, None, start() + 290 * DAY + SECOND);
    assert_eq!(expired.reasons, ["there was no leaf that clients would accept"]);
}

#[test]
fn what_is_damaged_is_made_anew_and_what_works_is_kept() {
    let (good, other) = (first(), first());
    let no_ca = "there was no CA that can sign";
    let no_leaf = "there was no leaf that clients would accept";
    let left = "what expired or is no CA left the bundle";
    // What is damaged and how, what is told, whether the CA and the leaf are still the good ones, CAs in the bundle.
    type Case<'a> = (&'a str, &'a dyn Fn(&mut Content), &'a [&'a str], bool, bool, usize);
    let cases: [Case<'_>; 9] = [
        ("no leaf", &|c| c.tls_crt.clear(), &[no_leaf], true, false, 1),
        ("half a leaf", &|c| c.tls_crt.truncate(200), &[no_leaf], true, false, 1),
        ("another leaf's key", &|c| c.tls_key.clone_from(&other.tls_key), &[no_leaf], true, false, 1),
        (
            "a leaf of an unknown CA",
            &|c| (c.tls_crt, c.tls_key) = (other.tls_crt.clone(), other.tls_key.clone()),
            &[no_leaf],
            true,
            false,
            1,
        ),
        ("no CA key", &|c| c.ca_key.clear(), &[no_ca], false, true, 2),
        ("another CA's key", &|c| c.ca_key.clone_from(&other.ca_key), &[no_ca], false, true, 2),
        ("no CA", &|c| c.ca_crt.clear(), &[no_ca, no_leaf], false, false, 1),
        ("a leaf for a CA", &|c| c.ca_crt.clone_from(&c.tls_crt.clone()), &[no_ca, no_leaf], false, false, 1),
        ("rubbish in the bundle", &|c| c.ca_crt.push_str("rubbish"), &[left], true, true, 1),
    ];
    for (what, damage, reasons, ca, leaf, bundle) in cases {
        let mut content = good.clone();
        damage(&mut content);
        let mended = step(&content, Some(start()), start() + DAY);
        assert_eq!(mended.reasons, reasons, "{what}");
        assert_eq!(mended.content.ca_key == good.ca_key, ca, "{what}");
        assert_eq!(mended.content.tls_crt == good.tls_crt, leaf, "{what}");
        assert_eq!(authorities(&mended.content), bundle, "{what}");
        assert!(accepts(&mended.content.ca_crt, &mended.content.tls_crt, &service()[0], start() + DAY), "{what}");
        assert_eq!(step(&mended.content, None, start() + DAY).reasons, [""; 0], "{what}: once");
    }
}

#[test]
fn a_service_of_another_name_gets_another_leaf_of_the_same_ca() {
    let content = first();
    let moved = next(&content, &names("guardian", "elsewhere"), &Lives::default(), None, start()).expect("certificates");
    assert_eq!(moved.reasons, ["there was no leaf that clients would accept"]);
    assert_eq!(moved.content.ca_crt, content.ca_crt);
    assert!(accepts(&content.ca_crt, &moved.content.tls_crt, "guardian.elsewhere.svc", start()));
}

#[test]
fn bundles_do_not_grow_without_end_and_a_clock_before_1970_is_an_error() {
    let mut content = first();
    for _ in 0..6 {
        content.ca_key.clear();
        content = step(&content, None, start()).content;
    }
    assert_eq!(authorities(&content), 4);
    let error = next(&Content::default(), &service(), &Lives::default(), None, Timestamp::MIN + 2 * DAY).expect_err("no time");
    assert!(error.to_string().contains("the clock is wrong"), "{error}");
}

#[test]
fn lives_that_do_not_fit_together_are_named() {
    let days = |ca: i32, leaf: i32, settle: i32| Lives { ca: DAY * ca, leaf: DAY * leaf, settle: DAY * settle };
    assert!(Lives::default().check().is_ok());
    for (lives, sentence) in [
        (days(365, 0, 0), "a leaf that lives 0s is too short; at least 10s"),
        (days(100, 90, 0), "a CA must live at least three times as long as a leaf; 2400h is too short for 2160h"),
        (days(365, 90, 200), "settling for 4800h does not fit into the last third of a CA's life, 2920h"),
        (days(365, 90, -1), "settling for 24h ago does not fit into the last third of a CA's life, 2920h"),
    ] {
        assert_eq!(lives.check().expect_err(sentence).to_string(), sentence);
    }
}
