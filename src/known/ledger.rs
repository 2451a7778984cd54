//! What a ledger holds, read once.

use guardian_core::ledger::{Episode, Ledger, Record, State};
use guardian_core::reason;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::ResourceExt as _;

/// The state of a ledger and its records, oldest first.
#[derive(Clone, Debug)]
pub(crate) struct Kept {
    pub(crate) state: State,
    pub(crate) records: Vec<Record>,
}

impl Kept {
    /// From its ConfigMap, or why not.
    pub(crate) fn read(map: &ConfigMap) -> Result<Self, String> {
        let ledger = match &map.data {
            Some(data) => Ledger::read(data),
            None => Ledger::read(&std::collections::BTreeMap::new()),
        };
        let ledger = ledger.map_err(|error| format!("{}: {error}", map.name_any()))?;
        Ok(Self { records: ledger.records().collect(), state: ledger.state })
    }

    pub(super) fn last_failure(&self) -> Option<&Record> {
        self.records.iter().rfind(|record| record.reason.parse().is_ok_and(reason::Start::is_failure))
    }
}

/// What goes on, in a few words.
pub(super) fn words(episode: &Episode) -> String {
    let hook = format!("{} ({})", episode.hook, episode.reason);
    match episode.next {
        Some(next) => format!("{hook}: attempt {} at {}", episode.attempts + 1, time(next)),
        None => format!("{hook}: attempt {}", episode.attempts),
    }
}

fn time(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}
