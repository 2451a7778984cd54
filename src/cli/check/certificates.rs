//! The webhook configurations, and the authorities that they trust.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::ByteString;
use k8s_openapi::api::admissionregistration::v1::{MutatingWebhookConfiguration, ValidatingWebhookConfiguration};
use kube::{Api, ResourceExt as _};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use x509_parser::parse_x509_certificate;

use super::super::cluster::{Cluster, ClusterError, call};
use super::Check;

/// An authority that has not been replaced this long before its end, or a twelfth of its life if that is shorter, will not be.
const LATE: SignedDuration = SignedDuration::from_hours(24);
/// What the API server asks us about.
const MUTATING: [&str; 2] = ["statefulsets.stateful-guardian.io", "services.stateful-guardian.io"];
const VALIDATING: [&str; 4] = [
    "policies.stateful-guardian.io",
    "guards.stateful-guardian.io",
    "evictions.stateful-guardian.io",
    "namespaces.stateful-guardian.io",
];
/// Where this annotation is, cert-manager's injector writes the caBundle.
const INJECTED: &str = "cert-manager.io/inject-ca-from";

/// A webhook of a configuration.
struct Webhook {
    name: String,
    bundle: Option<ByteString>,
}

/// Does cert-manager write the caBundle? `None`: that cannot be read.
pub(super) async fn injected(cluster: &Cluster, name: &str) -> Option<bool> {
    let api: Api<ValidatingWebhookConfiguration> = Api::all(cluster.client.clone());
    let found = call(format!("read the ValidatingWebhookConfiguration {name}"), api.get_metadata_opt(name)).await.ok()?;
    Some(found.is_some_and(|configuration| configuration.annotations().contains_key(INJECTED)))
}

pub(super) async fn check(cluster: &Cluster, name: &str, now: Timestamp) -> Vec<Check> {
    let mutating: Api<MutatingWebhookConfiguration> = Api::all(cluster.client.clone());
    let mutating = call(format!("read the MutatingWebhookConfiguration {name}"), mutating.get_opt(name)).await;
    let mutating = mutating.map(|found| {
        let webhooks = found?.webhooks.unwrap_or_default().into_iter();
        Some(webhooks.map(|w| Webhook { name: w.name, bundle: w.client_config.ca_bundle }).collect())
    });
    let validating: Api<ValidatingWebhookConfiguration> = Api::all(cluster.client.clone());
    let validating = call(format!("read the ValidatingWebhookConfiguration {name}"), validating.get_opt(name)).await;
    let validating = validating.map(|found| {
        let webhooks = found?.webhooks.unwrap_or_default().into_iter();
        Some(webhooks.map(|w| Webhook { name: w.name, bundle: w.client_config.ca_bundle }).collect())
    });
    vec![
        configuration(&format!("MutatingWebhookConfiguration/{name}"), mutating, &MUTATING, now),
        configuration(&format!("ValidatingWebhookConfiguration/{name}"), validating, &VALIDATING, now),
    ]
}

fn configuration(subject: &str, found: Result<Option<Vec<Webhook>>, ClusterError>, wanted: &[&str], now: Timestamp) -> Check {
    let install = "install it again: kubectl apply -k manifests/base, or your overlay";
    let webhooks = match found {
        Err(error) => return Check::unread("webhooks", subject, &error),
        Ok(None) => return Check::failed("webhooks", subject, "there is none, so the API server asks nobody", install),
        Ok(Some(webhooks)) => webhooks,
    };
    if let Some(missing) = wanted.iter().find(|wanted| !webhooks.iter().any(|webhook| webhook.name == **wanted)) {
        return Check::failed("webhooks", subject, format!("it lacks {missing}"), install);
    }
    let mut first: Option<Authority> = None;
    for Webhook { name, bundle } in &webhooks {
        let bundle = bundle.as_ref().map(|bundle| bundle.0.as_slice()).filter(|bundle| !bundle.is_empty());
        let Some(bundle) = bundle else {
            let remedy = "guardian-certs writes it (or cert-manager, where that is used): see why it does not, in its log";
            return Check::failed(
                "webhooks",
                subject,
                format!("{name} has no caBundle, so the API server trusts nobody"),
                remedy,
            );
        };
        let Some(authority) = last_authority(bundle, now) else {
            let remedy = "see the log of guardian-certs; `guardian certs --once` makes a new authority";
            return Check::failed("webhooks", subject, format!("no certificate of the caBundle of {name} is valid now"), remedy);
        };
        first = first.map_or(Some(authority), |first| Some(first.min(authority)));
    }
    let Some(Authority { end, renewed_by }) = first else {
        return Check::failed("webhooks", subject, "it has no webhook", install);
    };
    if now > renewed_by {
        return Check::failed(
            "webhooks",
            subject,
            format!("its authority ends {end}"),
            "see why guardian-certs does not renew it, in its log",
        );
    }
    Check::ok("webhooks", subject, format!("trusts an authority until {end}"))
}

/// When an authority ends, and by when another should have taken its place.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Authority {
    end: Timestamp,
    renewed_by: Timestamp,
}

/// The longest-lived authority of a bundle that is valid now; `None` where there is none.
fn last_authority(bundle: &[u8], now: Timestamp) -> Option<Authority> {
    let certificates = CertificateDer::pem_slice_iter(bundle).filter_map(Result::ok);
    let valid = certificates.filter_map(|certificate| {
        let (_, parsed) = parse_x509_certificate(&certificate).ok()?;
        let at = |time: x509_parser::time::ASN1Time| Timestamp::from_second(time.timestamp()).ok();
        let (begin, end) = (at(parsed.validity().not_before)?, at(parsed.validity().not_after)?);
        let renewed_by = end.checked_sub(LATE.min(end.duration_since(begin) / 12)).ok()?;
        (begin <= now && now < end).then_some(Authority { end, renewed_by })
    });
    valid.max()
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair};

    use super::super::State;
    use super::*;

    fn bundle(year: i32) -> ByteString {
        let mut parameters = CertificateParams::new(vec!["ca".to_owned()]).unwrap();
        parameters.not_before = rcgen::date_time_ymd(2020, 1, 1);
        parameters.not_after = rcgen::date_time_ymd(year, 1, 1);
        ByteString(parameters.self_signed(&KeyPair::generate().unwrap()).unwrap().pem().into_bytes())
    }

    /// The first two have these, the others one that is in order.
    fn looked_at(bundles: [Option<ByteString>; 2]) -> Check {
        let now = "2027-01-01T00:00:00Z".parse().unwrap();
        let bundles = bundles.into_iter().chain(std::iter::repeat(Some(bundle(2030))));
        let webhooks = VALIDATING.iter().zip(bundles).map(|(name, bundle)| Webhook { name: (*name).to_owned(), bundle });
        configuration("V/x", Ok(Some(webhooks.collect())), &VALIDATING, now)
    }

    #[test]
    fn each_webhook_must_trust_an_authority_that_is_valid_for_a_while() {
        let both = ByteString([bundle(2021).0, bundle(2030).0].concat());
        let cases = [
            ([Some(bundle(2030)), Some(both)], State::Ok, "trusts an authority until 2030-01-01T00:00:00Z"),
            ([Some(bundle(2030)), None], State::Failed, "guards.stateful-guardian.io has no caBundle"),
            ([Some(bundle(2030)), Some(ByteString(Vec::new()))], State::Failed, "guards.stateful-guardian.io has no caBundle"),
            ([Some(bundle(2021)), Some(bundle(2030))], State::Failed, "no certificate of the caBundle of policies."),
            ([Some(ByteString(b"rubbish".to_vec())), Some(bundle(2030))], State::Failed, "no certificate"),
        ];
        for (bundles, state, words) in cases {
            let check = looked_at(bundles);
            assert!(check.state == state && check.message.contains(words), "{words}: {check:?}");
            assert_eq!(check.remedy.is_empty(), state == State::Ok, "each failure says what to do");
        }
        let now = "2029-12-31T12:00:00Z".parse().unwrap();
        let webhooks = MUTATING.iter().map(|name| Webhook { name: (*name).to_owned(), bundle: Some(bundle(2030)) });
        let late = configuration("M/x", Ok(Some(webhooks.collect())), &MUTATING, now);
        assert!(late.state == State::Failed && late.message.contains("ends 2030"), "{late:?}");
        let none = configuration("M/x", Ok(None), &MUTATING, now);
        assert!(none.state == State::Failed && none.message.contains("asks nobody"), "{none:?}");
        for absent in VALIDATING {
            let others = VALIDATING.iter().filter(|name| **name != absent);
            let webhooks = others.map(|name| Webhook { name: (*name).to_owned(), bundle: Some(bundle(2040)) });
            let lacks = configuration("V/x", Ok(Some(webhooks.collect())), &VALIDATING, now);
            assert!(lacks.state == State::Failed && lacks.message.contains(absent), "{lacks:?}");
        }
        let lacks = configuration("M/x", Ok(Some(Vec::new())), &MUTATING, now);
        assert!(lacks.state == State::Failed && lacks.message.contains("lacks statefulsets."), "{lacks:?}");
    }
}
