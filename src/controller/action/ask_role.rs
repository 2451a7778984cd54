//! The role of a policy becomes questions to its pods.

use std::collections::BTreeMap;

use guardian_core::lifecycle::Observed;
use guardian_core::policy::Policy;
use guardian_hook::protocol::{Collect, MAX_ANSWER, PROTOCOL, Probe};

use super::run_hook::identity;
use crate::controller::exec::Questions;
use crate::controller::roles::Asking;

/// The name of the probe.
const ROLE: &str = "role";

/// What each pod is to be asked, by uid; nothing where the policy has no role or the set is on hold. A pod that is going is asked to its end.
pub(crate) fn questions(observed: &Observed, policy: Option<&Policy>) -> BTreeMap<String, Asking> {
    let policy = policy.filter(|_| observed.set.hold.is_none());
    let Some((policy, role)) = policy.and_then(|policy| Some((policy, policy.role.as_ref()?))) else { return BTreeMap::new() };
    let of_pod = |(ordinal, pod): (&u32, &guardian_core::lifecycle::Pod)| {
        let named = role.probe.container.as_ref().or(policy.container.as_ref());
        let container = named.unwrap_or(&pod.first_container);
        let runs = pod.containers.get(container).is_some_and(|status| status.running_since.is_some());
        let probe = Probe {
            name: ROLE.to_owned(),
            program: role.probe.program.clone(),
            env: identity(observed, ROLE, &pod.name, Some(*ordinal)),
            timeout_ms: u64::try_from(role.probe.timeout.as_millis()).unwrap_or(u64::MAX),
            max_output: MAX_ANSWER,
        };
        let questions = Questions {
            namespace: observed.namespace.clone(),
            pod: pod.name.clone(),
            container: container.clone(),
            request: Collect { version: PROTOCOL, pod_uid: pod.uid.clone(), probes: vec![probe], every_ms: 0 },
        };
        (pod.uid.clone(), Asking { questions: runs.then_some(questions), every: role.every })
    };
    observed.pods.iter().map(of_pod).collect()
}
