use std::collections::BTreeMap;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::{EventKind, Key, Resource, World};

fn pods() -> Resource {
    Resource::new("v1", "pods")
}

fn key() -> Key {
    pods().named("shop", "redis-0")
}

fn made(labels: &Value) -> World {
    let mut world = World::default();
    world.create(&key(), json!({"metadata": {"labels": labels}}), Timestamp::UNIX_EPOCH).unwrap();
    world
}

#[test]
fn an_object_is_made_once_and_gets_an_identity() {
    let mut world = made(&json!({}));
    let object = world.get(&key()).unwrap().clone();
    assert_eq!(object["metadata"]["resourceVersion"], "1");
    assert_eq!(object["metadata"]["creationTimestamp"], "1970-01-01T00:00:00Z");
    let again = world.create(&key(), json!({}), Timestamp::UNIX_EPOCH).unwrap_err();
    assert_eq!((again.code, again.reason), (409, "AlreadyExists"));
    world.delete(&key()).unwrap();
    let next = world.create(&key(), json!({}), Timestamp::UNIX_EPOCH).unwrap();
    assert_ne!(next["metadata"]["uid"], object["metadata"]["uid"]);
}

#[test]
fn an_update_with_an_old_version_or_another_uid_is_refused_and_one_without_is_not() {
    let mut world = made(&json!({}));
    let first = world.get(&key()).unwrap().clone();
    world.update(&key(), first.clone()).unwrap();
    let stale = world.update(&key(), first.clone()).unwrap_err();
    assert_eq!((stale.code, stale.reason), (409, "Conflict"));
    let foreign = world.update(&key(), json!({"metadata": {"uid": "another"}})).unwrap_err();
    assert_eq!(foreign.code, 409);
    let blind = world.update(&key(), json!({"data": {}})).unwrap();
    assert_eq!(blind["metadata"]["uid"], first["metadata"]["uid"]);
    assert_eq!(world.update(&pods().named("shop", "none"), json!({})).unwrap_err().code, 404);
}

#[test]
fn a_watch_by_label_sees_an_object_come_change_and_go() {
    let mut world = made(&json!({"guarded": "true"}));
    world.edit(&key(), |pod| pod["status"] = json!({"phase": "Running"}));
    world.edit(&key(), |pod| pod["metadata"]["labels"] = json!({}));
    world.edit(&key(), |pod| pod["metadata"]["labels"] = json!({"guarded": "true"}));
    world.delete(&key()).unwrap();
    let labels = BTreeMap::from([("guarded".to_owned(), "true".to_owned())]);
    let seen = |resource: &Resource, namespace: &str, labels: &BTreeMap<String, String>| -> Vec<EventKind> {
        let changes = world.changes_since(0).unwrap();
        changes.iter().filter_map(|c| c.event(resource, namespace, labels)).map(|e| e.kind).collect()
    };
    use EventKind::{Added, Deleted, Modified};
    assert_eq!(seen(&pods(), "", &labels), [Added, Modified, Deleted, Added, Deleted]);
    assert_eq!(seen(&pods(), "shop", &BTreeMap::new()), [Added, Modified, Modified, Modified, Deleted]);
    assert_eq!(seen(&pods(), "other", &BTreeMap::new()), []);
    assert_eq!(seen(&Resource::new("v1", "nodes"), "", &BTreeMap::new()), []);
}

#[test]
fn changes_that_are_forgotten_have_to_be_listed() {
    let mut world = made(&json!({}));
    world.compact();
    assert_eq!(world.changes_since(0).unwrap_err().code, 410);
    assert_eq!(world.changes_since(1).unwrap(), []);
    assert_eq!(world.list(&pods(), "").count(), 1);
    assert_eq!(world.list(&pods(), "other").count(), 0);
}
