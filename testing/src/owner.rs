//! Somebody at a command line, who claims a command in the ledger, starts it in its pod, and may be gone before its end.

use guardian_core::ledger::{Episode, Ledger, Run, Scope, Start};
use guardian_core::lifecycle::command;
use guardian_hook::protocol::{PROTOCOL, Program, Request};
use jiff::Timestamp;
use serde_json::{Value, json};
use stateful_guardian::controller::Order;

use crate::stage::Stage;
use crate::workload::{NAMESPACE, SET, key, pod_key};

impl Stage {
    /// Somebody claims a task in a pod, as `guardian run` does, with a time out of a minute. What is to be started then.
    #[must_use]
    pub fn claim_command(&self, ordinal: u32) -> Order {
        let pod = self.get(&pod_key(ordinal));
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let now: Timestamp = self.now().parse().expect("a time");
        let start: Start = serde_json::from_value(json!({
            "podUid": pod["metadata"]["uid"], "containerId": pod["status"]["containerStatuses"][0]["containerID"], "container": SET,
            "restarts": pod["status"]["containerStatuses"][0]["restartCount"], "created": pod["metadata"]["creationTimestamp"],
            "started": pod["status"]["containerStatuses"][0]["state"]["running"]["startedAt"],
        }))
        .expect("a start");
        let (pod_name, pod_uid) = (text(&pod["metadata"]["name"]), text(&pod["metadata"]["uid"]));
        let short: String = pod_uid.chars().filter(char::is_ascii_alphanumeric).take(8).collect();
        let subject = format!("{short}-{:x}", now.as_millisecond());
        let (id, run_id) = (format!("{}-{subject}", command::NAME), format!("tasks.nightly-{subject}-1"));
        let episode: Episode = serde_json::from_value(json!({
            "scenario": command::NAME, "hook": "tasks.nightly", "scope": Scope::Pod(pod_uid.clone()), "reason": "Requested",
            "why": "asked for by alice", "pod": pod_name, "ordinal": ordinal, "start": start, "opened": now, "attempts": 1,
        }))
        .expect("an episode");
        let run: Run = serde_json::from_value(json!({
            "episode": id, "hook": "tasks.nightly", "pod": pod_name, "podUid": pod_uid, "container": SET, "attempt": 1, "claimed": now,
            "timeoutMs": 60_000,
        }))
        .expect("a run");
        self.edit_ledger(|ledger| {
            ledger.state.episodes.insert(id.clone(), episode);
            ledger.state.runs.insert(run_id.clone(), run);
        });
        let request = Request {
            version: PROTOCOL,
            pod_uid,
            run_id,
            hook: "tasks.nightly".to_owned(),
            program: Program::Command(vec!["backup".to_owned()]),
            env: [].into(),
            timeout_ms: 60_000,
            stream: true,
        };
        Order { namespace: NAMESPACE.to_owned(), pod: pod_name, container: SET.to_owned(), request }
    }

    /// He starts it, and is gone a moment later.
    pub async fn start_and_leave(&self, order: &Order) {
        tokio::select! {
            _ = self.runner.run(order) => panic!("it takes a while"),
            () = tokio::time::sleep(std::time::Duration::from_millis(10)) => {}
        }
    }

    /// He starts it, waits for its end, and writes it down: nobody is to do it again.
    pub async fn start_and_close(&self, order: &Order) {
        let ended = self.runner.run(order).await.expect("an outcome");
        assert_eq!(ended.run_id, order.request.run_id);
        self.edit_ledger(|ledger| {
            let run = ledger.state.runs.remove(&ended.run_id).expect("it is open");
            ledger.state.episodes.remove(&run.episode);
        });
    }

    fn edit_ledger(&self, change: impl FnOnce(&mut Ledger)) {
        self.edit(&key("v1", "configmaps", &format!("guardian-ledger-{SET}")), |map| {
            let mut data = serde_json::from_value(map["data"].clone()).expect("data");
            let mut ledger = Ledger::read(&data).expect("a ledger");
            change(&mut ledger);
            ledger.write(&mut data).expect("it fits");
            map["data"] = json!(data);
        });
    }
}
