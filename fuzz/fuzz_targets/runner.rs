//! Any bytes as what reaches the runner or comes back from it: a request, the reason of a stop, the hooks of a pod, an outcome.
#![no_main]

use guardian_hook::metric::{self, Expected, MAX_SERIES, MetricKind};
use guardian_hook::protocol::{self, Agenda, Collected, Installed, MAX_REQUEST, Outcome, Request, StopReason};
use libfuzzer_sys::fuzz_target;

const UID: &str = "0f1e2d3c";

fuzz_target!(|data: &[u8]| {
    let uid = || Ok(UID.to_owned());
    if let Ok(request) = protocol::read::<Request>(data, uid)
        && request.fault().is_none()
    {
        // What may be started has a name of a file, and a bound.
        assert!(protocol::valid_run_id(&request.run_id) && !request.run_id.contains(['/', '\0']));
        assert!((1..=protocol::MAX_TIMEOUT_MS).contains(&request.timeout_ms));
        assert_eq!(request.pod_uid, UID);
        if let Ok(frame) = protocol::frame(&request) {
            let (length, json) = frame.split_at(4);
            assert_eq!(u32::from_be_bytes(length.try_into().expect("four bytes")) as usize, json.len());
            assert!(json.len() <= MAX_REQUEST);
            assert_eq!(protocol::read::<Request>(json, uid).as_ref(), Ok(&request), "what is sent is what is read");
        }
    }
    let _ = protocol::read::<StopReason>(data, uid);
    if let Ok(installed) = Installed::decode(data)
        && let Ok(text) = installed.encode()
    {
        assert_eq!(Installed::decode(text.as_bytes()).ok(), Some(installed));
    }
    if let Ok(agenda) = serde_json::from_slice::<Agenda>(data)
        && agenda.fault().is_none()
    {
        assert!(agenda.questions.iter().all(|question| question.every_ms > 0 && question.probe.timeout_ms > 0));
    }
    let _ = serde_json::from_slice::<Collected>(data);
    let (text, labels) = (String::from_utf8_lossy(data), ["db".to_owned()]);
    for labels in [&labels[..], &[]] {
        let expected = Expected { name: "keys", kind: MetricKind::Gauge, labels };
        if let Ok(reading) = metric::parse(expected, &text) {
            assert!(reading.series.len() <= MAX_SERIES);
            assert!(reading.series.values().all(|value| value.parse::<f64>().is_ok_and(f64::is_finite)), "{text}");
        }
    }
    if let Ok(outcome) = serde_json::from_slice::<Outcome>(data) {
        let text = serde_json::to_vec(&outcome).expect("an outcome is JSON");
        assert!(serde_json::from_slice::<Outcome>(&text).is_ok());
    }
});
