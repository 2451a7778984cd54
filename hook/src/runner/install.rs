//! `install`: puts the runner, the pod's identity and its own hooks into the emptyDir. Run again, it puts the same there again.

use alloc::format;
use alloc::string::{String, ToString};

use rustix::fd::AsFd;
use rustix::fs::{Mode, OFlags, chmod, mkdir, open};
use rustix::io::{Errno, read};

use super::files::{Draft, Durability, FileError, put};
use super::home::{Home, Pod};
use super::{Environment, FAULT, complain};
use crate::protocol::{Installed, Program, SPEC_VARIABLE, SpecError};

/// Why nothing could be installed.
#[derive(Debug, thiserror::Error)]
enum InstallError {
    #[error("{0} is not set: guardian-init gets it from the template that the webhook writes")]
    Unset(&'static str),
    #[error("the pod {0} has no ordinal at its end: is it a pod of a StatefulSet?")]
    NoOrdinal(String),
    #[error("{0:?} cannot name a script")]
    ScriptName(String),
    #[error(transparent)]
    Spec(#[from] SpecError),
    #[error("the pod's hooks cannot be written as JSON")]
    Json(#[from] serde_json::Error),
    #[error(transparent)]
    File(#[from] FileError),
}

pub(super) fn install(home: &Home, env: &Environment) -> u8 {
    match try_install(home, env) {
        Ok(()) => 0,
        Err(e) => {
            complain(&e.to_string());
            FAULT
        }
    }
}

fn try_install(home: &Home, env: &Environment) -> Result<(), InstallError> {
    let spec = env.get(SPEC_VARIABLE.as_bytes()).ok_or(InstallError::Unset(SPEC_VARIABLE))?;
    let installed = Installed::decode(spec)?;
    let pod = identity(env, &installed)?;

    // For any uid of any container; sticky, so that one cannot remove what another wrote. Not ours to change when the kubelet made it as root.
    let _ = chmod(home.directory(), Mode::from_raw_mode(0o1777));
    make_directory(&home.runs(), Mode::from_raw_mode(0o1777))?;
    make_directory(&home.scripts(), Mode::from_raw_mode(0o755))?;
    for hook in installed.hooks.values() {
        if let Program::Script { name, text } = &hook.program {
            if !valid_script_name(name) {
                return Err(InstallError::ScriptName(name.clone()));
            }
            put(&home.script(name), text.as_bytes(), Mode::from_raw_mode(0o755), Durability::Cached)?;
        }
    }
    put(&home.hooks_file(), &serde_json::to_vec(&installed)?, Mode::from_raw_mode(0o644), Durability::Cached)?;
    put(&home.pod_file(), &serde_json::to_vec(&pod)?, Mode::from_raw_mode(0o644), Durability::Cached)?;
    copy_self(&home.binary())?;
    Ok(())
}

fn identity(env: &Environment, installed: &Installed) -> Result<Pod, InstallError> {
    let variable = |name: &'static str| match env.get(name.as_bytes()) {
        Some(value) if !value.is_empty() => Ok(String::from_utf8_lossy(value).into_owned()),
        _ => Err(InstallError::Unset(name)),
    };
    let name = variable("GUARDIAN_POD")?;
    let ordinal = name.rsplit_once('-').and_then(|(_, n)| n.parse().ok());
    Ok(Pod {
        uid: variable("GUARDIAN_POD_UID")?,
        namespace: variable("GUARDIAN_NAMESPACE")?,
        set: installed.set.clone(),
        ordinal: ordinal.ok_or_else(|| InstallError::NoOrdinal(name.clone()))?,
        service: installed.service.clone(),
        name,
    })
}

/// The rule of Kubernetes for keys of a ConfigMap, so that it is one step of a path.
fn valid_script_name(name: &str) -> bool {
    let word = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    (1..=253).contains(&name.len()) && name.bytes().all(word) && name != "." && !name.starts_with("..")
}

fn make_directory(path: &str, mode: Mode) -> Result<(), FileError> {
    match mkdir(path, mode) {
        Ok(()) => chmod(path, mode).map_err(FileError::at(path)), // The umask took bits away.
        Err(Errno::EXIST) => Ok(()),
        Err(e) => Err(FileError::at(path)(e)),
    }
}

fn copy_self(path: &str) -> Result<(), FileError> {
    let own = "/proc/self/exe";
    let source = open(own, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).map_err(FileError::at(own))?;
    let draft = Draft::new(path, Mode::from_raw_mode(0o755))?;
    let mut piece = alloc::vec![0; 64 * 1024];
    loop {
        match read(source.as_fd(), piece.as_mut_slice()) {
            Ok(0) => break,
            Ok(n) => draft.write(piece.get(..n).unwrap_or_default())?,
            Err(Errno::INTR) => {}
            Err(e) => return Err(FileError { what: format!("{own} to {path}"), errno: e }),
        }
    }
    draft.rename_to(path, Durability::Cached)
}
