//! Approvals: contents of policies that somebody has stood up for who may run commands in the namespace's pods himself.
//!
//! They are kept in the ConfigMap [`names::APPROVALS`](crate::names::APPROVALS) of the guardian's own namespace, a key each:
//! `NAMESPACE.DIGEST`. What a key's value says, who and when, is for people and for keeping the ConfigMap small; the key alone counts.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

/// Approvals that are kept of one policy beyond those in use: an edit that another webhook refuses after it was approved here, and a few
/// more of them, must not push out what is in force.
const KEPT: usize = 4;
/// Room for all approvals. A ConfigMap may hold 1 MiB, and each key stands in it twice: in `data`, and again in `managedFields`. An
/// approval takes 150 bytes of key twice and 130 of value at most usually, so there is room for over 2,000 of them; with names of usual
/// length, for 3,000.
const MAX_BYTES: usize = 900 * 1024;
/// What `managedFields` adds to a key: `"f:":{},`.
const FIELD: usize = 8;
/// An approval that is not in use is kept so long when room is short: longer than the policy it is for takes to be stored and seen.
const GRACE: SignedDuration = SignedDuration::from_hours(1);
/// Bytes of a user's name that are kept. Some clusters have names of many hundred bytes.
const MAX_USER: usize = 128;

/// The approval of one content of a policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Approval {
    /// Namespace of the policy.
    pub namespace: String,
    /// Name of the policy.
    pub policy: String,
    /// What is approved: [`Policy::digest`](super::Policy::digest).
    pub digest: String,
    /// Who asked for it and may.
    pub user: String,
}

/// All contents that are approved.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Approvals(BTreeSet<String>);

/// There is no room for one more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the approvals in use take {size} bytes, {MAX_BYTES} are possible: delete policies that are not needed")]
pub struct Full {
    size: usize,
}

/// The value of a key.
#[derive(Serialize, Deserialize)]
struct Entry {
    policy: String,
    user: String,
    time: Timestamp,
}

impl Approvals {
    /// Reads the `data` of the ConfigMap.
    #[must_use]
    pub fn read(data: &BTreeMap<String, String>) -> Self {
        Self(data.keys().cloned().collect())
    }

    /// Is this content of a policy approved in this namespace?
    #[must_use]
    pub fn contains(&self, namespace: &str, digest: &str) -> bool {
        self.0.contains(&key(namespace, digest))
    }
}

impl Approval {
    /// Writes itself into the `data` of the ConfigMap, and takes out what is not needed any more. `in_use` tells of a namespace and a
    /// digest whether a policy of that content is stored or in force there; such an approval is never taken out.
    ///
    /// # Errors
    /// When there is no room; `data` is of no use then.
    pub fn write(
        &self,
        data: &mut BTreeMap<String, String>,
        now: Timestamp,
        in_use: impl Fn(&str, &str) -> bool,
    ) -> Result<(), Full> {
        let own = key(&self.namespace, &self.digest);
        let user = self.user.get(..self.user.floor_char_boundary(MAX_USER)).unwrap_or_default().to_owned();
        let entry = Entry { policy: self.policy.clone(), user, time: now };
        let value = serde_json::to_string(&entry).unwrap_or_default(); // strings and a time: serialising them cannot fail
        data.insert(own.clone(), value);

        let is_free = |(namespace, digest): (&str, &str)| !in_use(namespace, digest);
        let spare = data.iter().filter(|(key, _)| **key != own && key.split_once('.').is_some_and(is_free));
        let mut spare: Vec<(Timestamp, String, String)> = spare.map(|(key, value)| oldest_first(key, value)).collect();
        spare.sort();
        let of_policy = |key: &str, policy: &str| {
            *policy == self.policy && key.split_once('.').is_some_and(|(namespace, _)| namespace == self.namespace)
        };
        let superseded = spare.iter().rev().filter(|(_, key, policy)| of_policy(key, policy)).skip(KEPT);
        superseded.for_each(|(_, key, _)| drop(data.remove(key)));

        let mut size: usize = data.iter().map(|(key, value)| size(key, value)).sum();
        for (_, key, _) in spare.iter().take_while(|(time, ..)| *time < now - GRACE) {
            if size > MAX_BYTES
                && let Some(value) = data.remove(key)
            {
                size -= self::size(key, &value);
            }
        }
        if size > MAX_BYTES { Err(Full { size }) } else { Ok(()) }
    }
}

/// Time, key and policy of an approval. A value that somebody wrote by hand is as good as one of long ago.
fn oldest_first(key: &str, value: &str) -> (Timestamp, String, String) {
    let entry: Option<Entry> = serde_json::from_str(value).ok();
    let (time, policy) = entry.map_or((Timestamp::UNIX_EPOCH, String::new()), |entry| (entry.time, entry.policy));
    (time, key.to_owned(), policy)
}

fn key(namespace: &str, digest: &str) -> String {
    format!("{namespace}.{digest}")
}

/// What a key takes of the object.
fn size(key: &str, value: &str) -> usize {
    2 * key.len() + FIELD + value.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn approval(namespace: &str, policy: &str, digest: &str) -> Approval {
        let [namespace, policy, digest] = [namespace, policy, digest].map(str::to_owned);
        Approval { namespace, policy, digest, user: "ann".to_owned() }
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + second).unwrap()
    }

    fn nothing(_: &str, _: &str) -> bool {
        false
    }

    #[test]
    fn an_approval_is_one_of_its_namespace_and_content_alone() {
        let mut data = BTreeMap::new();
        approval("shop", "redis", "d1").write(&mut data, at(0), nothing).unwrap();
        assert_eq!(data["shop.d1"], r#"{"policy":"redis","user":"ann","time":"2027-01-15T08:00:00Z"}"#);
        let approvals = Approvals::read(&data);
        for (namespace, digest, approved) in
            [("shop", "d1", true), ("shop", "d2", false), ("shops", "d1", false), ("sho", "p.d1", false), ("", "shop.d1", false)]
        {
            assert_eq!(approvals.contains(namespace, digest), approved, "{namespace} {digest}");
        }
    }

    #[test]
    fn of_one_policy_the_newest_are_kept_and_whatever_is_in_use() {
        let mut data = BTreeMap::from([("by-hand".to_owned(), "?".to_owned()), ("shop.by-hand".to_owned(), "?".to_owned())]);
        approval("shop", "other", "o1").write(&mut data, at(0), nothing).unwrap();
        approval("bank", "redis", "b1").write(&mut data, at(0), nothing).unwrap();
        for n in 1..=9 {
            let in_use = |namespace: &str, digest: &str| (namespace, digest) == ("shop", "d2");
            approval("shop", "redis", &format!("d{n}")).write(&mut data, at(n), in_use).unwrap();
        }
        let keys: Vec<&str> = data.keys().map(String::as_str).collect();
        let kept =
            ["bank.b1", "by-hand", "shop.by-hand", "shop.d2", "shop.d5", "shop.d6", "shop.d7", "shop.d8", "shop.d9", "shop.o1"];
        assert_eq!(keys, kept, "the one of now, four before it, and the one in use");
        approval("shop", "redis", "d5").write(&mut data, at(20), nothing).unwrap();
        assert!(data.contains_key("shop.d5") && !data.contains_key("shop.d2"), "what is approved again is new: {data:?}");
    }

    /// Digest as long as it is, names as long as they may be.
    fn long(namespace: &str) -> Approval {
        let mut one = approval(&format!("{namespace:0>63}"), &"p".repeat(253), &"d".repeat(64));
        one.user = "u".repeat(1000);
        one
    }

    fn full() -> BTreeMap<String, String> {
        let mut data = BTreeMap::new();
        for n in 0.. {
            if long(&n.to_string()).write(&mut data, at(n), |_, _| true).is_err() {
                data.pop_last();
                return data;
            }
        }
        data
    }

    #[test]
    fn the_config_map_stays_below_its_limit_whatever_is_approved() {
        let data = full();
        let stored: usize = data.iter().map(|(key, value)| 2 * key.len() + FIELD + value.len()).sum();
        assert!(stored <= MAX_BYTES && data.len() > 1000, "{stored} bytes, {}", data.len());
    }

    #[test]
    fn without_room_the_oldest_that_nobody_uses_makes_place_and_else_it_is_refused() {
        let full = full();
        let later = at(7200);
        let one = long("shop");
        let mut data = full.clone();
        let refused = one.write(&mut data, later, |_, _| true).unwrap_err().to_string();
        assert!(refused.contains("delete policies"), "{refused}");
        let mut data = full.clone();
        one.write(&mut data, later, nothing).unwrap();
        assert_eq!(full.len() - data.len(), 0, "one for one");
        assert!(
            data.contains_key(&key(&one.namespace, &one.digest)) && !data.contains_key(full.keys().next().unwrap()),
            "the oldest"
        );
        let mut data = full;
        assert!(one.write(&mut data, at(60), nothing).is_err(), "what was just approved may not have been stored yet");
    }
}
