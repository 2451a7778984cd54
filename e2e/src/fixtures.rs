//! What the tests apply: the example that the product is shown with, and an application as small as one can be.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use guardian_core::names;
use serde_json::{Value, json};

use crate::{Failure, Outcome};

/// A file of `examples/redis`.
#[must_use]
pub fn example(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/redis").join(file)
}

/// Its text.
///
/// # Errors
/// When it cannot be read.
pub fn manifest(file: &str) -> Outcome<String> {
    let path = example(file);
    fs::read_to_string(&path).map_err(|e| Failure::Run(format!("reading {}", path.display()), e))
}

/// A policy with this text and these scripts.
#[must_use]
pub fn policy(name: &str, text: &str, scripts: &[(&str, &str)]) -> Value {
    let mut data: BTreeMap<&str, &str> = scripts.iter().copied().collect();
    data.insert(names::POLICY_KEY, text);
    json!({
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": name, "labels": {names::POLICY: "true"}},
        "data": data,
    })
}

/// A StatefulSet that does nothing, with a volume at `/data`; it stops when it is told to. It runs as nobody, as the `restricted` Pod
/// Security Standard asks for.
#[must_use]
pub fn application(name: &str, replicas: u32) -> Value {
    json!({
        "apiVersion": "apps/v1",
        "kind": "StatefulSet",
        "metadata": {"name": name, "labels": {"app": name}},
        "spec": {
            "serviceName": name,
            "replicas": replicas,
            "podManagementPolicy": "Parallel",
            "selector": {"matchLabels": {"app": name}},
            "template": {
                "metadata": {"labels": {"app": name}},
                "spec": {
                    "securityContext": {
                        "runAsUser": 65534, "runAsGroup": 65534, "fsGroup": 65534, "runAsNonRoot": true,
                        "seccompProfile": {"type": "RuntimeDefault"},
                    },
                    "containers": [{
                        "name": "app",
                        "image": "busybox:1.35",
                        "command": ["sh", "-c", "trap 'exit 0' TERM; sleep 86400 & wait"],
                        "resources": {
                            "requests": {"cpu": "5m", "memory": "16Mi"},
                            "limits": {"cpu": "500m", "memory": "32Mi"},
                        },
                        "securityContext": {"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}},
                        "volumeMounts": [{"name": "data", "mountPath": "/data"}],
                    }],
                },
            },
            "volumeClaimTemplates": [{
                "metadata": {"name": "data"},
                "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "10Mi"}}},
            }],
        },
    })
}
