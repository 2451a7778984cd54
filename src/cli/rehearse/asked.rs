//! What the options of a rehearsal say.

use std::ffi::OsStr;
use std::time::Duration;

use clap::builder::{PossibleValue, TypedValueParser};
use clap::error::{ContextKind, ContextValue, ErrorKind};
use guardian_core::policy;
use guardian_core::rehearse::{Fails, Scenario};

/// Reads a scenario: those with a name of their own are listed, and completed by shells.
#[derive(Clone)]
pub(super) struct Scenarios;

impl TypedValueParser for Scenarios {
    type Value = Scenario;

    fn parse_ref(&self, command: &clap::Command, arg: Option<&clap::Arg>, value: &OsStr) -> Result<Scenario, clap::Error> {
        value.to_string_lossy().parse().map_err(|error: guardian_core::rehearse::NoScenario| {
            let mut wrong = clap::Error::new(ErrorKind::ValueValidation).with_cmd(command);
            let name = arg.map(ToString::to_string).unwrap_or_default();
            wrong.insert(ContextKind::InvalidArg, ContextValue::String(name));
            wrong.insert(ContextKind::InvalidValue, ContextValue::String(value.to_string_lossy().into_owned()));
            wrong.insert(ContextKind::Suggested, ContextValue::StyledStrs(vec![error.to_string().into()]));
            wrong
        })
    }

    fn possible_values(&self) -> Option<Box<dyn Iterator<Item = PossibleValue> + '_>> {
        let named = Scenario::NAMED.iter().map(|(name, _, help)| PossibleValue::new(*name).help(*help));
        Some(Box::new(named))
    }
}

/// `primary=0`, `replica=1,2`.
pub(super) fn role(text: &str) -> Result<(String, Vec<u32>), String> {
    let wrong = || "write the role and the ordinals of its pods, such as primary=0 or replica=1,2".to_owned();
    let (role, ordinals) = text.split_once('=').ok_or_else(wrong)?;
    if !guardian_core::role::is_label_value(role) {
        return Err(wrong());
    }
    let ordinals: Result<Vec<u32>, _> = ordinals.split(',').map(str::parse).collect();
    Ok((role.to_owned(), ordinals.map_err(|_| wrong())?))
}

/// `rejoin`, `rejoin=2`.
pub(super) fn fails(text: &str) -> Result<(String, Fails), String> {
    let wrong = || "write a hook, and perhaps how often it fails, such as rejoin or rejoin=2".to_owned();
    let (hook, fails) = match text.split_once('=') {
        None => (text, Fails::Always),
        Some((hook, times)) => (hook, Fails::Times(times.parse().map_err(|_| wrong())?)),
    };
    if hook.is_empty() { Err(wrong()) } else { Ok((hook.to_owned(), fails)) }
}

/// `rejoin=10s`.
pub(super) fn time(text: &str) -> Result<(String, Duration), String> {
    let wrong = || "write a hook and how long it takes, such as rejoin=10s".to_owned();
    let (hook, time) = text.split_once('=').filter(|(hook, _)| !hook.is_empty()).ok_or_else(wrong)?;
    Ok((hook.to_owned(), policy::duration(time).ok_or_else(wrong)?))
}

pub(super) fn lasts(text: &str) -> Result<Duration, String> {
    let time = policy::duration(text).filter(|time| !time.is_zero());
    time.ok_or_else(|| "write a number and a unit, such as 30s, 5m or 1h30m".to_owned())
}
