//! Any text as a policy, with a script beside it: read, or refused with errors that can be shown.
#![no_main]

use std::collections::BTreeMap;

use guardian_core::policy;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    // What follows a line of dashes is the script.
    let (text, script) = text.split_once("\n-----\n").unwrap_or((text, "#!/bin/sh\ntrue\n"));
    let map = BTreeMap::from([("policy.yaml".to_owned(), text.to_owned()), ("rejoin.sh".to_owned(), script.to_owned())]);
    match policy::parse("policy", &map) {
        Ok(policy) => {
            assert_eq!(policy::parse("policy", &map).ok().as_ref(), Some(&policy), "one text, one policy");
            assert!(policy.warnings().all(|warning| warning.len() <= 200));
        }
        Err(invalid) => assert!(!invalid.to_string().is_empty()),
    }
});
