//! The pod template, and what the policy means to do with it.

use std::time::Duration;

use serde_json::Value;

use super::rule::{
    DATA_ON_EMPTY_DIR, GRACE_UNDER_PRE_STOP, LIVENESS_UNDER_HOOK, MISSING_CONTAINER, NO_RESOURCES, OWN_PRE_STOP_STAYS,
    OWN_STARTUP_PROBE_STAYS, PRIORITY_CLASS_NOT_GIVEN, RESERVED_NAME, RESERVED_PRIORITY_CLASS, RESIZE_OF_NO_USE,
    SEVERAL_POLICIES,
};
use super::{Finding, Guarded, in_container, list, name_of};
use crate::admission::STOP_TIME;
use crate::lifecycle::{ContainerSpec, obstacles};
use crate::names;
use crate::policy::{Action, Hook, Hooks, OwnPreStop, Policy, READY_WITHIN};

const GRACE: &str = "terminationGracePeriodSeconds";
/// What the API server writes where the user writes nothing; so this value is taken for nobody's choice.
const DEFAULT_GRACE: u64 = 30;

/// `classes` are the names of the PriorityClasses that are given.
pub(super) fn check(set: &Guarded<'_>, classes: &[&str]) -> Vec<Finding> {
    let mut findings: Vec<Finding> = data_on_empty_dir(set).into_iter().collect();
    let Some(policy) = set.policy else { return findings };
    findings.extend(several_policies(set, policy));
    findings.extend(reserved_names(set));
    findings.extend(reserved_priority_class(set, policy));
    findings.extend(priority_class_not_given(set, policy, classes));
    let missing = missing_container(set, policy);
    // Nothing is written into such a set, so the rest does not matter.
    if missing.is_some() {
        findings.extend(missing);
        return findings;
    }
    findings.extend(no_resources(set));
    findings.extend(resize_of_no_use(set, policy));
    findings.extend(pre_stop(set, policy));
    findings.extend(own_startup_probe(set, policy));
    findings.extend(liveness(set, policy));
    findings
}

fn several_policies(set: &Guarded<'_>, policy: &Policy) -> Option<Finding> {
    (!set.others.is_empty()).then(|| {
        let message =
            format!("policy {} guards StatefulSet {}; it is also selected by {}", policy.name, set.name, set.others.join(", "));
        set.find(SEVERAL_POLICIES, &["metadata", "labels"], message)
    })
}

fn reserved_names(set: &Guarded<'_>) -> Option<Finding> {
    let path = ["spec", "template", "spec", "volumes"];
    // What is written by us is an emptyDir of this name, mounted there.
    let mut volumes = list(set.set, "/spec/template/spec/volumes").iter();
    if volumes.any(|volume| name_of(volume) == names::VOLUME && volume.get("emptyDir").is_none()) {
        return Some(set.find(RESERVED_NAME, &path, format!("StatefulSet {} has a volume named {}", set.name, names::VOLUME)));
    }
    set.containers().find_map(|(at, container)| {
        let is_taken = |mount: &Value| {
            let path = mount.get("mountPath").and_then(Value::as_str).unwrap_or_default();
            path.trim_end_matches('/') == names::MOUNT_PATH && name_of(mount) != names::VOLUME
        };
        list(container, "/volumeMounts").iter().any(is_taken).then(|| {
            let message = format!("the container {} mounts a volume of its own at {}", name_of(container), names::MOUNT_PATH);
            set.find(RESERVED_NAME, &in_container(&at, &["volumeMounts"]), message)
        })
    })
}

fn reserved_priority_class(set: &Guarded<'_>, policy: &Policy) -> Option<Finding> {
    let class = policy.protect.priority_class_name.as_ref().filter(|class| class.starts_with("system-"))?;
    Some(set.find(RESERVED_PRIORITY_CLASS, &[], format!("policy {} wants {class} for StatefulSet {}", policy.name, set.name)))
}

/// The class that the pods will name: the set's own stays unless the policy says override.
fn priority_class_not_given(set: &Guarded<'_>, policy: &Policy, classes: &[&str]) -> Option<Finding> {
    let wanted = policy.protect.priority_class_name.as_deref().filter(|class| !class.starts_with("system-"));
    let own = set.set.pointer("/spec/template/spec/priorityClassName").and_then(Value::as_str).filter(|class| !class.is_empty());
    let (class, whose) = match (wanted, own) {
        (Some(wanted), None) => (wanted, format!("policy {}", policy.name)),
        (Some(wanted), Some(_)) if policy.protect.overrides => (wanted, format!("policy {}", policy.name)),
        (_, Some(own)) => (own, format!("StatefulSet {}", set.name)),
        (None, None) => return None,
    };
    if class.starts_with("system-") || classes.contains(&class) {
        return None;
    }
    let path: &[&str] = if own == Some(class) { &["spec", "template", "spec", "priorityClassName"] } else { &[] };
    Some(set.find(
        PRIORITY_CLASS_NOT_GIVEN,
        path,
        format!("{whose} names the PriorityClass {class}, which is not among the documents"),
    ))
}

fn missing_container(set: &Guarded<'_>, policy: &Policy) -> Option<Finding> {
    let hooks = named(&policy.hooks).filter_map(|(_, hook)| hook.container.as_ref());
    let missing = policy.container.iter().chain(hooks).find(|wanted| !set.containers().any(|(_, c)| name_of(c) == *wanted))?;
    let there: Vec<&str> = set.containers().map(|(_, container)| name_of(container)).collect();
    let message =
        format!("policy {} names the container {missing}, StatefulSet {} has {}", policy.name, set.name, there.join(", "));
    Some(set.find(MISSING_CONTAINER, &["spec", "template", "spec", "containers"], message))
}

fn no_resources(set: &Guarded<'_>) -> Option<Finding> {
    let (at, container) = set.hook_container(None)?;
    let memory = |kind: &str| container.pointer(&format!("/resources/{kind}/memory")).is_some();
    (!memory("requests") && !memory("limits")).then(|| {
        let message = format!("the container {} of StatefulSet {} asks for no memory", name_of(container), set.name);
        set.find(NO_RESOURCES, &in_container(&at, &[]), message)
    })
}

fn resize_of_no_use(set: &Guarded<'_>, policy: &Policy) -> Vec<Finding> {
    let Some((at, container)) = set.hook_container(None) else { return Vec::new() };
    let Ok(spec) = serde_json::from_value::<ContainerSpec>(container.clone()) else { return Vec::new() };
    let resources = spec.resources(spec.resources.limits);
    let mut findings = Vec::new();
    for rule in &policy.rules {
        let growths = rule.actions.iter().filter_map(|action| match action {
            Action::Resize(growths) => Some(growths),
            _ => None,
        });
        // Every `resize` of a rule has the same bounds.
        for why in growths.take(1).flat_map(|growths| obstacles(&resources, growths)) {
            let message = format!("rule {} of policy {} resizes StatefulSet {}, and {why}", rule.name, policy.name, set.name);
            findings.push(set.find(RESIZE_OF_NO_USE, &in_container(&at, &[]), message));
        }
    }
    findings
}

/// Is data kept where it goes with the pod? Told by the path of the mount, where the set has no claims at all.
fn data_on_empty_dir(set: &Guarded<'_>) -> Option<Finding> {
    if !list(set.set, "/spec/volumeClaimTemplates").is_empty() {
        return None;
    }
    let volumes = list(set.set, "/spec/template/spec/volumes");
    let is_empty_dir = |name: &str| volumes.iter().any(|volume| name_of(volume) == name && volume.get("emptyDir").is_some());
    set.containers().find_map(|(at, container)| {
        list(container, "/volumeMounts").iter().enumerate().find_map(|(n, mount)| {
            let path = mount.get("mountPath").and_then(Value::as_str)?;
            (is_data(path) && is_empty_dir(name_of(mount))).then(|| {
                let message = format!(
                    "StatefulSet {} keeps {path} on the emptyDir {}, and has no volumeClaimTemplates",
                    set.name,
                    name_of(mount)
                );
                set.find(DATA_ON_EMPTY_DIR, &in_container(&at, &["volumeMounts", &n.to_string()]), message)
            })
        })
    })
}

/// Where applications keep what must not be lost.
fn is_data(path: &str) -> bool {
    path.starts_with("/var/lib/")
        || path.split('/').any(|step| step == "data" || step.ends_with("-data") || step.ends_with("_data"))
}

fn pre_stop(set: &Guarded<'_>, policy: &Policy) -> Option<Finding> {
    let hook = policy.hooks.pre_stop.as_ref()?;
    let (at, container) = set.hook_container(hook.container.as_ref())?;
    let default = if policy.protect.overrides { OwnPreStop::Replace } else { OwnPreStop::Chain };
    let own = policy.inject.own_pre_stop.unwrap_or(default);
    let handler = container.pointer("/lifecycle/preStop").and_then(Value::as_object).and_then(|handler| handler.iter().next());
    let chained = match handler {
        Some((kind, _)) if own == OwnPreStop::Keep || (own == OwnPreStop::Chain && kind != "exec" && kind != "sleep") => {
            let message = format!(
                "the container {} keeps its {kind} preStop, so the hook of policy {} does not run",
                name_of(container),
                policy.name
            );
            return Some(set.find(OWN_PRE_STOP_STAYS, &in_container(&at, &["lifecycle", "preStop"]), message));
        }
        Some((_, handler)) if own == OwnPreStop::Chain => handler.get("seconds").and_then(Value::as_u64).unwrap_or_default(),
        _ => 0,
    };
    let grace =
        set.set.pointer(&format!("/spec/template/spec/{GRACE}")).and_then(Value::as_u64).filter(|g| *g != DEFAULT_GRACE)?;
    let hook_seconds = hook.timeout.as_millis().div_ceil(1000);
    let needed = hook_seconds + u128::from(chained) + u128::from(STOP_TIME.as_secs());
    (needed > u128::from(grace) && !policy.protect.overrides).then(|| {
        let message = format!(
            "{GRACE} is {grace}, preStop may take {hook_seconds} s{} and the application needs {} s to stop: {needed} in all",
            if chained > 0 { format!(", your own {chained} s") } else { String::new() },
            STOP_TIME.as_secs()
        );
        set.find(GRACE_UNDER_PRE_STOP, &["spec", "template", "spec", GRACE], message)
    })
}

fn own_startup_probe(set: &Guarded<'_>, policy: &Policy) -> Option<Finding> {
    let hook = policy.hooks.rejoin.as_ref().or(policy.hooks.join.as_ref());
    let (at, container) = set.hook_container(hook.and_then(|hook| hook.container.as_ref()))?;
    let own = container.get("startupProbe").and_then(Value::as_object).is_some_and(|probe| !probe.is_empty());
    // One that is ours was written by this policy, or an earlier one.
    let ours = container.pointer("/startupProbe/exec/command/0").and_then(Value::as_str) == Some(names::RUNNER);
    (policy.ready_after.is_some() && own && !ours && !policy.protect.overrides).then(|| {
        let message =
            format!("the container {} has a startupProbe, and policy {} has readyAfter", name_of(container), policy.name);
        set.find(OWN_STARTUP_PROBE_STAYS, &in_container(&at, &["startupProbe"]), message)
    })
}

/// Would a pod that runs a hook be restarted by its liveness probe before the hook may end?
fn liveness(set: &Guarded<'_>, policy: &Policy) -> Option<Finding> {
    let joining = named(&policy.hooks).filter(|(name, _)| ["bootstrap", "join", "rejoin"].contains(name));
    joining.into_iter().find_map(|(name, hook)| {
        let (at, container) = set.hook_container(hook.container.as_ref())?;
        // `readyAfter` brings a startup probe that succeeds after this time at the latest.
        let ours = if policy.ready_after.is_some() { READY_WITHIN } else { Duration::ZERO };
        let startup = container.get("startupProbe").map_or(ours, patience);
        let allowed = patience(container.get("livenessProbe")?) + startup;
        (allowed < hook.timeout).then(|| {
            let message = format!(
                "the liveness probe of the container {} gives up after {} s, hooks.{name} of policy {} may take {} s",
                name_of(container),
                allowed.as_secs(),
                policy.name,
                hook.timeout.as_secs()
            );
            set.find(LIVENESS_UNDER_HOOK, &in_container(&at, &["livenessProbe"]), message)
        })
    })
}

/// How long a probe may fail from the start of its container, with what the API server writes where the user writes nothing.
fn patience(probe: &Value) -> Duration {
    let seconds = |field: &str, default| probe.get(field).and_then(Value::as_u64).unwrap_or(default);
    let all = seconds("periodSeconds", 10).saturating_mul(seconds("failureThreshold", 3));
    Duration::from_secs(seconds("initialDelaySeconds", 0).saturating_add(all))
}

/// The hooks that there are, each with its name.
fn named(hooks: &Hooks) -> impl Iterator<Item = (&'static str, &Hook)> {
    let all = [
        ("init", &hooks.init),
        ("restart", &hooks.restart),
        ("bootstrap", &hooks.bootstrap),
        ("join", &hooks.join),
        ("rejoin", &hooks.rejoin),
        ("preStop", &hooks.pre_stop),
        ("leave", &hooks.leave),
        ("switchover", &hooks.switchover),
        ("beforeUpdate", &hooks.before_update),
        ("afterUpdate", &hooks.after_update),
        ("shutdown", &hooks.shutdown),
        ("postMortem", &hooks.post_mortem),
        ("thaw", &hooks.thaw),
        ("fence", &hooks.fence),
    ];
    all.into_iter().filter_map(|(name, hook)| Some((name, hook.as_ref()?)))
}
