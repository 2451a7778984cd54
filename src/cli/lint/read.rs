//! What there is to look at: documents, what namespace each is in, and which of them are policies.

use std::collections::BTreeMap;
use std::path::PathBuf;

use guardian_core::lint::{Rule, rule};
use guardian_core::names;
use guardian_core::policy::{self, Policy};
use serde_json::Value;

use super::super::manifests::{self, Document, ManifestError};
use super::report::Located;

/// Everything that was read.
pub(super) struct Manifests {
    pub(super) items: Vec<Item>,
    /// What was wrong with the documents themselves.
    pub(super) found: Vec<Located>,
    pub(super) files: usize,
}

/// One object.
pub(super) struct Item {
    pub(super) document: Document,
    /// Its namespace; empty where the document names none.
    pub(super) namespace: String,
    /// The policy that it is.
    pub(super) policy: Option<Policy>,
}

/// Reads everything. What cannot be read as YAML is a finding; a file that cannot be opened is an error.
pub(super) fn manifests(paths: &[PathBuf]) -> Result<Manifests, ManifestError> {
    let mut all = Manifests { items: Vec::new(), found: Vec::new(), files: 0 };
    for path in paths {
        for file in manifests::files(path)? {
            all.files += 1;
            match manifests::read_file(&file) {
                Ok(documents) => documents.into_iter().flat_map(unlisted).for_each(|document| all.add(document)),
                Err(ManifestError::Syntax { file, line, column, problem }) => {
                    let message = format!("{line}:{column}: {problem}");
                    all.found.push(Located { file, line, column: Some(column), message, ..Located::of(rule::NOT_READABLE) });
                }
                Err(error) => return Err(error),
            }
        }
    }
    Ok(all)
}

/// The items of a `List`, as `kubectl get -o yaml` prints them, are documents of their own, at the place of the list.
fn unlisted(document: Document) -> Vec<Document> {
    let items = document.value.get("items").and_then(Value::as_array);
    let is_list = document.value.get("kind").and_then(Value::as_str) == Some("List");
    match items.filter(|_| is_list) {
        Some(items) => items.iter().map(|item| document.with_value(item.clone())).collect(),
        None => vec![document],
    }
}

impl Manifests {
    /// Where the documents are that name no namespace: in the one that all others name, if there is just one, else in one of their own.
    pub(super) fn namespace_of_unnamed(&self) -> &str {
        let mut named = self.items.iter().map(|item| item.namespace.as_str()).filter(|namespace| !namespace.is_empty());
        match named.next() {
            Some(first) if named.all(|namespace| namespace == first) => first,
            _ => "",
        }
    }

    fn add(&mut self, document: Document) {
        let text = |pointer: &str| document.value.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
        let (name, namespace) = (text("/metadata/name").to_owned(), text("/metadata/namespace").to_owned());
        let mut item = Item { namespace, policy: None, document };
        let value = &item.document.value;
        if kind_is(value, policy::KIND) {
            self.found.push(item.locate(rule::BARE_POLICY, &[], format!("a document of kind {}", policy::KIND)));
        } else if kind_is(value, "ConfigMap") {
            let data = data(value);
            let label = value.pointer("/metadata/labels").and_then(|labels| labels.get(names::POLICY)).and_then(Value::as_str);
            let looks_like_one = data.get(names::POLICY_KEY).is_some_and(|text| text.contains(policy::API_VERSION));
            if label == Some("true") {
                match policy::parse(&name, &data) {
                    Ok(policy) => item.policy = Some(policy),
                    Err(invalid) => self.found.extend(invalid.0.iter().map(|error| item.locate_in_policy(&data, error))),
                }
            } else if looks_like_one {
                let message = format!("the ConfigMap {name} holds a policy, and has no label that says so");
                self.found.push(item.locate(rule::POLICY_WITHOUT_LABEL, &["metadata".to_owned()], message));
            }
        }
        self.items.push(item);
    }
}

impl Item {
    /// A finding at a place in the object.
    pub(super) fn locate(&self, rule: &'static Rule, path: &[String], message: String) -> Located {
        let (line, column) = self.document.place(path);
        let object = self.object();
        Located {
            file: self.document.file.clone(),
            line,
            column: Some(column),
            object,
            path: path.join("."),
            message,
            ..Located::of(rule)
        }
    }

    /// An error of the policy that it holds: where in the file, when that can be told, else where in the policy.
    fn locate_in_policy(&self, data: &BTreeMap<String, String>, error: &policy::PolicyError) -> Located {
        let key = ["data".to_owned(), names::POLICY_KEY.to_owned()];
        let found = self.locate(rule::INVALID_POLICY, &key, error.to_string());
        let path = format!("{}: {}", names::POLICY_KEY, error.path);
        let text = data.get(names::POLICY_KEY).map(String::as_str).unwrap_or_default();
        let place = error.place.and_then(|place| self.document.place_in_block(&key, text, place));
        match place {
            Some((line, column)) => Located { line, column: Some(column), path, ..found },
            None => Located { path, ..found },
        }
    }

    /// Kind and name, as `kubectl` writes them.
    fn object(&self) -> String {
        let text = |pointer: &str| self.document.value.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
        format!("{}/{}", text("/kind"), text("/metadata/name"))
    }
}

fn kind_is(value: &Value, kind: &str) -> bool {
    value.get("kind").and_then(Value::as_str) == Some(kind)
}

/// The texts of a ConfigMap; what is not text is not read, as the API server would refuse it.
fn data(value: &Value) -> BTreeMap<String, String> {
    let members = value.get("data").and_then(Value::as_object).into_iter().flatten();
    members.filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned()))).collect()
}
