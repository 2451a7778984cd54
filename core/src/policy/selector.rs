//! A label selector, as Kubernetes defines it (`metav1.LabelSelector`).

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

/// Which objects are meant, by their labels. All requirements must hold; none at all means every object.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selector {
    /// Labels that must have exactly this value.
    pub labels: BTreeMap<String, String>,
    /// Requirements beyond equality.
    pub requirements: Vec<Requirement>,
}

/// One entry of `matchExpressions`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Requirement {
    /// The label is there and its value is one of these.
    In(String, BTreeSet<String>),
    /// The label is absent, or its value is none of these.
    NotIn(String, BTreeSet<String>),
    /// The label is there.
    Exists(String),
    /// The label is absent.
    DoesNotExist(String),
}

impl Selector {
    /// Reads one that stands in an object; `None` where it is no object. What the API server would not have let through says nothing here.
    #[must_use]
    pub fn read(selector: &Value) -> Option<Self> {
        let selector = selector.as_object()?;
        let labels = selector.get("matchLabels").and_then(Value::as_object).into_iter().flatten();
        let labels = labels.filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned()))).collect();
        let requirements = selector.get("matchExpressions").and_then(Value::as_array).into_iter().flatten();
        Some(Self { labels, requirements: requirements.filter_map(Requirement::read).collect() })
    }

    /// The same without what it says of these labels.
    #[must_use]
    pub fn without(mut self, keys: &[&str]) -> Self {
        self.labels.retain(|key, _| !keys.contains(&key.as_str()));
        self.requirements.retain(|requirement| !keys.contains(&requirement.key()));
        self
    }

    /// Does an object with these labels fulfil every requirement?
    #[must_use]
    pub fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        self.labels.iter().all(|(key, value)| labels.get(key) == Some(value)) && self.requirements.iter().all(|r| r.holds(labels))
    }
}

impl Requirement {
    fn read(entry: &Value) -> Option<Self> {
        let key = entry.get("key")?.as_str()?.to_owned();
        let values = entry.get("values").and_then(Value::as_array).into_iter().flatten();
        let values: BTreeSet<String> = values.filter_map(|value| Some(value.as_str()?.to_owned())).collect();
        match entry.get("operator")?.as_str()? {
            "In" => Some(Self::In(key, values)),
            "NotIn" => Some(Self::NotIn(key, values)),
            "Exists" => Some(Self::Exists(key)),
            "DoesNotExist" => Some(Self::DoesNotExist(key)),
            _ => None,
        }
    }

    fn key(&self) -> &str {
        match self {
            Self::In(key, _) | Self::NotIn(key, _) | Self::Exists(key) | Self::DoesNotExist(key) => key,
        }
    }

    fn holds(&self, labels: &BTreeMap<String, String>) -> bool {
        match self {
            Self::In(key, values) => labels.get(key).is_some_and(|v| values.contains(v)),
            Self::NotIn(key, values) => labels.get(key).is_none_or(|v| !values.contains(v)),
            Self::Exists(key) => labels.contains_key(key),
            Self::DoesNotExist(key) => !labels.contains_key(key),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(values: &[&str]) -> BTreeSet<String> {
        values.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn requirements_follow_the_rules_of_kubernetes() {
        let labels = BTreeMap::from([("app".to_owned(), "redis".to_owned())]);
        let app = || "app".to_owned();
        let tier = || "tier".to_owned();
        let cases = [
            (Requirement::In(app(), set(&["redis", "valkey"])), true),
            (Requirement::In(app(), set(&["valkey"])), false),
            (Requirement::In(tier(), set(&["db"])), false),
            (Requirement::NotIn(app(), set(&["redis"])), false),
            (Requirement::NotIn(tier(), set(&["db"])), true),
            (Requirement::Exists(app()), true),
            (Requirement::Exists(tier()), false),
            (Requirement::DoesNotExist(app()), false),
            (Requirement::DoesNotExist(tier()), true),
        ];
        for (requirement, expected) in cases {
            assert_eq!(requirement.holds(&labels), expected, "{requirement:?}");
        }
        assert!(Selector::default().matches(&labels), "no requirement selects everything");
    }
}
