//! Who waits for whom: pods that are made one after the other, probes that ask for peers, hooks that wait for all pods.

use serde_json::Value;

use super::rule::{ORDERED_READY_BOOTSTRAP, ORDERED_READY_PROBE};
use super::{Finding, Guarded, in_container};

/// A pod is ready once these succeed.
const PROBES: [&str; 2] = ["readinessProbe", "startupProbe"];

pub(super) fn check(set: &Guarded<'_>) -> Vec<Finding> {
    let mut findings = Vec::new();
    if set.is_ordered() && set.replicas() > 1 {
        findings.extend(probes_of_peers(set));
    }
    let Some(policy) = set.policy.filter(|policy| policy.ready_after.is_some()) else { return findings };
    let name = set.name;
    if set.is_ordered() && set.replicas() > 1 && policy.hooks.bootstrap.is_some() {
        let message = format!(
            "StatefulSet {name} is OrderedReady with {} replicas, and policy {} has both bootstrap and readyAfter",
            set.replicas(),
            policy.name
        );
        findings.push(set.find(ORDERED_READY_BOOTSTRAP, &["spec"], message));
    }
    findings
}

/// Probes that name a pod which is made later. The first pod can ask for none but itself; a later one may ask for an earlier one.
fn probes_of_peers(set: &Guarded<'_>) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (at, container) in set.containers() {
        for probe in PROBES {
            let Some(text) = container.get(probe).map(spoken) else { continue };
            if let Some(peer) = later_pod(&text, set.name) {
                let message = format!("the {probe} of StatefulSet {}, which is OrderedReady, asks for {peer}", set.name);
                findings.push(set.find(ORDERED_READY_PROBE, &in_container(&at, &[probe]), message));
            }
        }
    }
    findings
}

/// What a probe says to others: the words of its command, the host that it calls.
fn spoken(probe: &Value) -> String {
    let words = super::list(probe, "/exec/command").iter();
    let hosts = ["/httpGet/host", "/tcpSocket/host"].into_iter().filter_map(|pointer| probe.pointer(pointer));
    words.chain(hosts).filter_map(Value::as_str).collect::<Vec<_>>().join(" ")
}

/// The first name of a pod of `set` in `text` whose ordinal is not 0.
fn later_pod(text: &str, set: &str) -> Option<String> {
    let prefix = format!("{set}-");
    text.match_indices(&prefix).find_map(|(at, _)| {
        let is_name = |c: char| c.is_ascii_alphanumeric() || c == '-';
        let begins = !text.get(..at)?.ends_with(is_name);
        let rest = text.get(at + prefix.len()..)?;
        let ordinal: String = rest.chars().take_while(char::is_ascii_digit).collect();
        let ends = !rest.get(ordinal.len()..)?.starts_with(is_name);
        (begins && ends && ordinal.parse::<u32>().is_ok_and(|n| n > 0)).then(|| format!("{prefix}{ordinal}"))
    })
}
