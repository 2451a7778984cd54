//! What is shipped about the language is made from its types: `docs/policy.schema.json` for editors, and the tables of `docs/policy.md`.
//!
//! `UPDATE_GOLDENS=1 cargo test -p guardian-core --lib policy::reference` writes both anew.

use serde_json::{Map, Value};

use super::json_schema;

const SCHEMA: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/policy.schema.json");
const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/policy.md");
const BEGIN: &str = "<!-- made from the schema: begin -->\n";
const END: &str = "<!-- made from the schema: end -->\n";

/// The tables: where the keys stand, the type that holds them, and the type whose keys were in an earlier table.
const TABLES: [(&str, &str, Option<&str>); 21] = [
    ("The document", "", None),
    ("`selector`", "LabelSelector", None),
    ("`selector.matchExpressions[]`", "Expression", None),
    ("`protect`", "Protect", None),
    ("`inject`", "Inject", None),
    ("`hooks`", "Hooks", None),
    ("Every hook, every task, and `traffic.drain`", "Hook", None),
    ("`hooks.position` has also", "Position", Some("Hook")),
    ("`hooks.position.alive`", "Probe", None),
    ("`hooks.freeze` has also", "Freeze", Some("Hook")),
    ("`tasks.NAME` has also", "Task", Some("Hook")),
    ("`role`", "Role", None),
    ("`metrics[]`", "Metric", None),
    ("`rules[]`", "Rule", None),
    ("`rules[].when`", "Condition", None),
    ("`rules[].until`", "Until", None),
    ("`rules[].resize`", "Resize", None),
    ("`rules[].resize.cpu` and `rules[].resize.memory`", "Growth", None),
    ("`rules[].budget`", "Budget", None),
    ("`traffic`", "Traffic", None),
    ("`update`", "Update", None),
];

fn check(path: &str, current: &str) {
    if std::env::var_os("UPDATE_GOLDENS").is_some() {
        std::fs::write(path, current).unwrap();
    }
    let stored = std::fs::read_to_string(path).unwrap_or_default();
    assert!(stored == current, "{path} is stale: UPDATE_GOLDENS=1 rewrites it");
}

fn properties<'s>(schema: &'s Value, name: &str) -> &'s Map<String, Value> {
    let object = if name.is_empty() { schema } else { &schema["$defs"][name] };
    object["properties"].as_object().unwrap_or_else(|| panic!("no type {name} in the schema"))
}

fn tables(schema: &Value) -> String {
    let mut text = String::new();
    for (title, name, but) in TABLES {
        text.push_str(&format!("{title}:\n\n| key | meaning |\n|---|---|\n"));
        let known = but.map(|but| properties(schema, but));
        let own = properties(schema, name).iter().filter(|(key, _)| known.is_none_or(|known| !known.contains_key(*key)));
        for (key, value) in own {
            let meaning = value["description"].as_str().unwrap_or_else(|| panic!("{name}.{key} is not described"));
            text.push_str(&format!("| `{key}` | {} |\n", meaning.replace('\n', " ").replace('|', "\\|")));
        }
        text.push('\n');
    }
    text
}

#[test]
fn the_shipped_schema_is_that_of_the_types() {
    check(SCHEMA, &format!("{}\n", serde_json::to_string_pretty(&json_schema()).unwrap()));
}

#[test]
fn every_key_is_in_the_reference() {
    let schema = json_schema();
    let objects = schema["$defs"].as_object().unwrap().iter().filter(|(_, s)| s.get("properties").is_some());
    let undocumented: Vec<_> = objects
        .map(|(name, _)| name)
        .filter(|name| *name != "Undo" && !TABLES.iter().any(|(_, table, _)| table == name))
        .collect();
    assert_eq!(undocumented, Vec::<&String>::new(), "add a table");
    let page = std::fs::read_to_string(PAGE).unwrap();
    let (before, rest) = page.split_once(BEGIN).expect("the mark where the tables begin");
    let (_, after) = rest.split_once(END).expect("the mark where they end");
    check(PAGE, &format!("{before}{BEGIN}\n{}{END}{after}", tables(&schema)));
}
