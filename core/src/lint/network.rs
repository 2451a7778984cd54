//! The Service that gives the pods their names.

use serde_json::Value;

use super::rule::{HEADLESS_SERVICE_HIDES_UNREADY, SERVICE_NOT_GIVEN, SERVICE_NOT_HEADLESS};
use super::{Finding, Guarded, Objects, Subject, name};

pub(super) fn check(set: &Guarded<'_>, objects: &Objects<'_>) -> Option<Finding> {
    let wanted = set.set.pointer("/spec/serviceName").and_then(Value::as_str).filter(|name| !name.is_empty())?;
    let Some((at, service)) = objects.services.iter().enumerate().find(|(_, service)| name(service) == wanted) else {
        let message = format!("the Service {wanted} of StatefulSet {} is not among the documents", set.name);
        return Some(set.find(SERVICE_NOT_GIVEN, &["spec", "serviceName"], message));
    };
    let find = |rule, path: &[&str], message| {
        let path = path.iter().map(ToString::to_string).collect();
        Some(Finding { rule, subject: Subject::Service(at), path, message })
    };
    if service.pointer("/spec/clusterIP").and_then(Value::as_str) != Some("None") {
        let message =
            format!("StatefulSet {} takes the names of its pods from the Service {wanted}, which is not headless", set.name);
        return find(SERVICE_NOT_HEADLESS, &["spec"], message);
    }
    let hook = hook_before_ready(set)?;
    if service.pointer("/spec/publishNotReadyAddresses") == Some(&Value::Bool(true)) {
        return None;
    }
    let message = format!("the Service {wanted} hides pods that are not ready, and StatefulSet {} has the hook {hook}", set.name);
    find(HEADLESS_SERVICE_HIDES_UNREADY, &["spec"], message)
}

/// A hook of the policy that runs while its pod, or its peers, may not be ready.
fn hook_before_ready(set: &Guarded<'_>) -> Option<&'static str> {
    let hooks = &set.policy?.hooks;
    let early = [
        ("init", hooks.init.is_some()),
        ("position", hooks.position.is_some()),
        ("restart", hooks.restart.is_some()),
        ("bootstrap", hooks.bootstrap.is_some()),
        ("join", hooks.join.is_some()),
        ("rejoin", hooks.rejoin.is_some()),
    ];
    // One pod has no peers.
    early.into_iter().find(|(_, there)| *there && set.replicas() > 1).map(|(name, _)| name)
}
