//! `guardian lint` as a person or a pipeline meets it.

#![expect(clippy::expect_used, reason = "a test ends where it fails")]

mod command;

use std::fs;

use command::guardian;
use serde_json::Value;

const DEADLY: &str = "tests/testdata/lint/deadly.yaml";

#[test]
fn each_finding_is_told_by_file_and_line_with_what_to_do() {
    let output = guardian(&["lint", "-f", DEADLY], "");
    assert_eq!(output.code, Some(1), "{}", output.stderr);
    let told: Vec<&str> = output.stdout.lines().take_while(|line| !line.is_empty()).collect();
    let places: Vec<String> = told.iter().map(|line| line.splitn(4, ": ").take(2).collect::<Vec<_>>().join(": ")).collect();
    let at = |line: u32, level: &str, rule: &str| format!("{DEADLY}:{line}: {level} {rule}");
    assert_eq!(
        places,
        [
            at(10, "note", "service-not-given"),
            at(23, "error", "ordered-ready-probe"),
            at(31, "error", "budget-allows-nothing"),
            at(49, "error", "invalid-policy"),
            at(51, "error", "bare-policy"),
        ],
        "{}",
        output.stdout
    );
    for words in [
        "db-2",
        "policy.yaml:6:14: hooks.rejoin.timeout",
        "  do:  ",
        "docs/lint.md#ordered-ready-probe",
        "4 errors, 0 warnings, 1 note",
    ] {
        assert!(output.stdout.contains(words), "{words}: {}", output.stdout);
    }
    assert!(!output.stdout.contains('\u{1b}'), "no colours where there is no terminal");
}

#[test]
fn json_and_yaml_are_one_document_with_the_same_content() {
    let json = guardian(&["lint", "-f", DEADLY, "-o", "json"], "");
    let json: Value = serde_json::from_str(&json.stdout).expect("JSON");
    let yaml = guardian(&["lint", "-f", DEADLY, "-o", "yaml"], "");
    let yaml: Value = serde_saphyr::from_str(&yaml.stdout).expect("YAML");
    assert_eq!(yaml, json);
    assert_eq!((&json["errors"], &json["notes"]), (&Value::from(4), &Value::from(1)));
    let budget = &json["findings"][2];
    assert_eq!(budget["object"], "PodDisruptionBudget/db");
    assert_eq!((&budget["path"], &budget["line"]), (&Value::from("spec.maxUnavailable"), &Value::from(31)));
    let policy = &json["findings"][3];
    assert_eq!((&policy["path"], &policy["column"]), (&Value::from("policy.yaml: hooks.rejoin.timeout"), &Value::from(18)));
}

#[test]
fn the_examples_have_no_error_and_strict_counts_warnings() {
    for folder in ["examples/redis", "examples/redis-failover"] {
        let output = guardian(&["lint", "-f", folder], "");
        assert_eq!(output.code, Some(0), "{}{}", output.stdout, output.stderr);
        assert!(output.stdout.contains("0 errors"), "{}", output.stdout);
    }
    let warns = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: p}\ndata:\n  policy.yaml: |\n    apiVersion: stateful-guardian.io/v1alpha1\n    kind: GuardianPolicy\n";
    assert_eq!(guardian(&["lint", "-f", "-"], warns).code, Some(0));
    let strict = guardian(&["lint", "-f", "-", "--strict"], warns);
    assert_eq!(strict.code, Some(1));
    assert!(strict.stdout.contains("standard input:3: warning policy-without-label"), "{}", strict.stdout);
}

#[test]
fn directories_are_read_with_all_below_and_a_broken_file_hides_no_other() {
    let folder = tempfile::tempdir().expect("a folder");
    let below = folder.path().join("a/b");
    fs::create_dir_all(&below).expect("folders");
    fs::write(folder.path().join("broken.yaml"), "a: 1\n---\nb: [1,\n").expect("a file");
    fs::write(below.join("policy.yml"), "apiVersion: stateful-guardian.io/v1alpha1\nkind: GuardianPolicy\n").expect("a file");
    fs::write(below.join("list.json"), r#"{"kind": "List", "items": [{"kind": "GuardianPolicy"}]}"#).expect("a file");
    fs::write(below.join("readme.txt"), "kind: GuardianPolicy").expect("a file");
    let output = guardian(&["lint", "-f", &folder.path().display().to_string()], "");
    assert_eq!(output.code, Some(1));
    for words in
        ["b/policy.yml:1: error bare-policy", "b/list.json:1: error bare-policy", "broken.yaml:3: error not-readable", "3 errors"]
    {
        assert!(output.stdout.contains(words), "{words}: {}", output.stdout);
    }
}

#[test]
fn objects_of_different_namespaces_have_nothing_to_do_with_each_other() {
    let set = |namespace: &str| {
        format!("kind: StatefulSet\nmetadata: {{name: s, namespace: {namespace}, labels: {{app: s}}}}\nspec: {{}}\n---\n")
    };
    let policy = "kind: ConfigMap\nmetadata: {name: p, namespace: one, labels: {stateful-guardian.io/policy: 'true'}}\ndata:\n  policy.yaml: |\n    \
                  apiVersion: stateful-guardian.io/v1alpha1\n    kind: GuardianPolicy\n    container: missing\n";
    let one = guardian(&["lint", "-f", "-"], &format!("{}{policy}", set("one")));
    assert!(one.stdout.contains("missing-container"), "{}", one.stdout);
    let unnamed = guardian(&["lint", "-f", "-"], &format!("{}{policy}", set("''")));
    assert!(unnamed.stdout.contains("missing-container"), "it is where all others are: {}", unnamed.stdout);
    let two = guardian(&["lint", "-f", "-"], &format!("{}{policy}", set("two")));
    assert_eq!((two.code, two.stdout.as_str()), (Some(0), "0 errors, 0 warnings, 0 notes\n"), "{}", two.stdout);
}

#[test]
fn wrong_usage_is_2_and_a_file_that_is_not_there_is_1() {
    assert_eq!(guardian(&["lint"], "").code, Some(2));
    assert_eq!(guardian(&["lint", "-f", DEADLY, "-o", "xml"], "").code, Some(2));
    let missing = guardian(&["lint", "-f", "no-such-file.yaml"], "");
    assert_eq!(missing.code, Some(1));
    assert!(missing.stderr.contains("no-such-file.yaml: cannot be read"), "{}", missing.stderr);
}
