//! The directory `/guardian` of a pod: what is where in it.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::Environment;
use super::files::{FileError, read_whole};
use crate::protocol::{InPodHook, Installed, MAX_SPEC, Program};

/// The most bytes of `pod.json`: six names of at most 253 bytes.
const MAX_POD: usize = 4096;

/// The directory.
pub(super) struct Home {
    path: String,
}

/// `pod.json`: who the pod is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Pod {
    pub(super) uid: String,
    pub(super) name: String,
    pub(super) namespace: String,
    pub(super) set: String,
    pub(super) ordinal: u32,
    pub(super) service: String,
}

/// Why an installation cannot be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum HomeError {
    #[error("{0}, which guardian-init writes")]
    Unreadable(FileError),
    #[error("{path} does not hold what guardian-init writes: {fault}")]
    Malformed { path: String, fault: String },
}

impl Home {
    /// `GUARDIAN_DIR`, or `/guardian`.
    pub(super) fn of(env: &Environment) -> Self {
        let set = env.get(&b"GUARDIAN_DIR"[..]).filter(|v| !v.is_empty());
        let path = set.map_or_else(|| "/guardian".into(), |v| String::from_utf8_lossy(v).into_owned());
        Self { path }
    }

    pub(super) fn directory(&self) -> &str {
        &self.path
    }

    pub(super) fn binary(&self) -> String {
        format!("{}/guardian-hook", self.path)
    }

    pub(super) fn pod_file(&self) -> String {
        format!("{}/pod.json", self.path)
    }

    pub(super) fn hooks_file(&self) -> String {
        format!("{}/hooks.json", self.path)
    }

    pub(super) fn stop_file(&self) -> String {
        format!("{}/stop.json", self.path)
    }

    pub(super) fn put_file(&self, name: &str) -> String {
        format!("{}/{name}", self.path)
    }

    pub(super) fn scripts(&self) -> String {
        format!("{}/scripts", self.path)
    }

    pub(super) fn script(&self, name: &str) -> String {
        format!("{}/scripts/{name}", self.path)
    }

    pub(super) fn runs(&self) -> String {
        format!("{}/run", self.path)
    }

    pub(super) fn claim(&self, run_id: &str) -> String {
        format!("{}/run/{run_id}.claim", self.path)
    }

    pub(super) fn run_script(&self, run_id: &str) -> String {
        format!("{}/run/{run_id}.script", self.path)
    }

    pub(super) fn outcome(&self, run_id: &str) -> String {
        format!("{}/run/{run_id}.json", self.path)
    }

    pub(super) fn pod(&self) -> Result<Pod, HomeError> {
        read_json(&self.pod_file(), MAX_POD)
    }

    pub(super) fn hooks(&self) -> Result<Installed, HomeError> {
        read_json(&self.hooks_file(), MAX_SPEC)
    }

    /// The argument vector of an installed hook.
    pub(super) fn argv(&self, hook: &InPodHook) -> Vec<Vec<u8>> {
        match &hook.program {
            Program::Command(argv) => argv.iter().map(|a| a.clone().into_bytes()).collect(),
            Program::Script { name, .. } => [self.script(name).into_bytes()].into(),
        }
    }
}

impl Pod {
    /// `own`, with what every hook of the pod is told, and the hook's own variables below that.
    pub(super) fn environment(&self, own: &Environment, hook: &str, of_hook: &InPodHook) -> Environment {
        let mut env = own.clone();
        for (name, value) in &of_hook.env {
            env.insert(name.clone().into_bytes(), value.clone().into_bytes());
        }
        let ordinal = self.ordinal.to_string();
        let told = [
            ("GUARDIAN_HOOK", hook),
            ("GUARDIAN_NAMESPACE", &self.namespace),
            ("GUARDIAN_SET", &self.set),
            ("GUARDIAN_POD", &self.name),
            ("GUARDIAN_ORDINAL", &ordinal),
            ("GUARDIAN_SERVICE", &self.service),
        ];
        env.extend(told.map(|(name, value)| (name.as_bytes().to_vec(), value.as_bytes().to_vec())));
        env
    }
}

fn read_json<T: DeserializeOwned>(path: &str, max: usize) -> Result<T, HomeError> {
    let bytes = read_whole(path, max).map_err(HomeError::Unreadable)?;
    serde_json::from_slice(&bytes).map_err(|e| HomeError::Malformed { path: path.into(), fault: e.to_string() })
}
