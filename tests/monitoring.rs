//! Alerts, dashboard, runbook and code say the same.
#![expect(
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test ends where it fails, and a missing field reads as null"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use guardian_core::reason::Hold;
use serde_json::Value;

const ALERTS: &str = "manifests/monitoring/alerts.yaml";
const RULE: &str = "manifests/monitoring/prometheus-rule.yaml";
const TESTS: &str = "manifests/monitoring/alerts.test.yaml";
const DASHBOARD: &str = "manifests/monitoring/dashboard.json";
const RUNBOOK: &str = "docs/runbook.md";
const METRICS: &str = "docs/metrics.md";

/// What stands above the alerts where they are an object of the Prometheus operator.
const RULE_HEAD: &str = "\
# Made of alerts.yaml, for the Prometheus operator: UPDATE_GOLDENS=1 cargo test --test monitoring
apiVersion: monitoring.coreos.com/v1
kind: PrometheusRule
metadata:
  name: stateful-guardian
  namespace: stateful-guardian
  labels:
    app.kubernetes.io/part-of: stateful-guardian
spec:
";

fn path(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(file)
}

fn read(file: &str) -> String {
    std::fs::read_to_string(path(file)).expect("a file of the project")
}

fn yaml(file: &str) -> Value {
    serde_saphyr::from_str(&read(file)).expect("YAML")
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map(Vec::as_slice).unwrap_or_default()
}

fn text(value: &Value) -> &str {
    value.as_str().expect("a text")
}

/// All rules, in order.
fn rules() -> Vec<Value> {
    let file = yaml(ALERTS);
    list(&file["groups"]).iter().flat_map(|group| list(&group["rules"]).to_vec()).collect()
}

/// The sections of the runbook: name and text.
fn sections(page: &str) -> Vec<(&str, &str)> {
    page.split("\n## ").skip(1).filter_map(|section| section.split_once('\n')).collect()
}

/// What `expr` there is in panels, and where.
fn dashboard_expressions() -> Vec<(String, String)> {
    let dashboard: Value = serde_json::from_str(&read(DASHBOARD)).expect("JSON");
    let of = |panel: &Value| {
        let title = text(&panel["title"]).to_owned();
        list(&panel["targets"]).iter().map(move |target| (title.clone(), text(&target["expr"]).to_owned())).collect::<Vec<_>>()
    };
    list(&dashboard["panels"]).iter().flat_map(of).collect()
}

/// Whatever looks like the name of a metric of ours.
fn names(text: &str) -> BTreeSet<String> {
    let words = text.split(|c: char| !(c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_'));
    words.filter(|word| word.starts_with("guardian_") && !word.ends_with('_')).map(str::to_owned).collect()
}

/// Every file of Rust below a folder that is part of the product.
fn sources(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").path());
    let entries = entries.filter(|path| path.file_stem().is_some_and(|name| name != "tests"));
    entries
        .flat_map(|path| if path.is_dir() { sources(&path) } else { vec![path] })
        .filter(|p| p.extension().is_some_and(|e| e == "rs"))
        .collect()
}

/// The metrics that the product exports, as its code names them; of a histogram, its three series.
fn exported() -> BTreeSet<String> {
    // The dashboard of the command line reads metrics, and makes none.
    let files = ["src", "core/src", "hook/src"].into_iter().flat_map(|folder| sources(&path(folder)));
    let files = files.filter(|file| !file.starts_with(path("src/dashboard")));
    let mut all = BTreeSet::new();
    for file in files {
        let source = std::fs::read_to_string(file).expect("a source");
        let product: String = source.split("#[cfg(test)]").next().unwrap_or_default().split_whitespace().collect();
        let mut before = "";
        for part in product.split('"') {
            let is_histogram = ["HistogramOpts::new(", "HistogramOpts::from(opts("].iter().any(|make| before.ends_with(make));
            before = part;
            if names(part) != BTreeSet::from([part.to_owned()]) {
                continue;
            }
            let endings: &[&str] = if is_histogram { &["_bucket", "_sum", "_count"] } else { &[""] };
            all.extend(endings.iter().map(|ending| format!("{part}{ending}")));
        }
    }
    all
}

#[test]
fn the_rule_of_the_prometheus_operator_holds_the_alerts_of_the_file() {
    let alerts = read(ALERTS);
    let groups = alerts.find("groups:").and_then(|at| alerts.get(at..)).expect("groups");
    let made: String = std::iter::once(RULE_HEAD.to_owned()).chain(groups.lines().map(|line| format!("  {line}\n"))).collect();
    if std::env::var_os("UPDATE_GOLDENS").is_some() {
        std::fs::write(path(RULE), &made).expect("the rule is written");
    }
    assert_eq!(read(RULE), made, "UPDATE_GOLDENS=1 cargo test --test monitoring");
    assert_eq!(yaml(RULE)["spec"], yaml(ALERTS));
}

#[test]
fn every_alert_says_how_bad_it_is_what_it_is_and_where_to_read_on() {
    assert!(rules().len() >= 12);
    for rule in rules() {
        let name = text(&rule["alert"]);
        assert!(["critical", "warning"].contains(&text(&rule["labels"]["severity"])), "{name}");
        for annotation in ["summary", "description"] {
            assert!(text(&rule["annotations"][annotation]).ends_with('.'), "{name}: {annotation} is a sentence");
        }
        assert_eq!(text(&rule["annotations"]["runbook"]), format!("{RUNBOOK}#{}", name.to_lowercase()));
    }
}

#[test]
fn every_alert_has_its_section_in_the_runbook_and_every_section_its_alert() {
    let page = read(RUNBOOK);
    let mut alerts: Vec<String> = rules().iter().map(|rule| text(&rule["alert"]).to_owned()).collect();
    alerts.dedup();
    assert_eq!(sections(&page).iter().map(|(name, _)| *name).collect::<Vec<_>>(), alerts, "in the same order");
    for (name, section) in sections(&page) {
        let parts: Vec<usize> =
            ["**Means.**", "**At risk.**", "**Look.**", "**Do.**"].iter().filter_map(|part| section.find(part)).collect();
        assert!(parts.len() == 4 && parts.is_sorted(), "{name}: what it means, what is at risk, how to look, what to do");
        let commands = section.split("```console\n").nth(1).unwrap_or_default();
        assert!(commands.starts_with("$ guardian ") || commands.starts_with("$ kubectl "), "{name}: how to look");
    }
}

#[test]
fn every_command_of_ours_in_the_runbook_is_understood() {
    let page = read(RUNBOOK);
    let blocks = page.split("```console\n").skip(1).filter_map(|rest| rest.split("```").next());
    let commands = blocks.flat_map(str::lines).filter_map(|line| line.strip_prefix("$ guardian "));
    let inline = page.split('`').filter_map(|code| code.strip_prefix("guardian "));
    let mut seen = BTreeSet::new();
    for command in commands.chain(inline) {
        let command = command.split(['|', '#']).next().unwrap_or_default().trim();
        if !seen.insert(command.to_owned()) {
            continue;
        }
        // With `--help` nothing is run; what is not known before it is refused.
        let run = Command::new(env!("CARGO_BIN_EXE_guardian")).args(command.split_whitespace()).arg("--help").output();
        let run = run.expect("the binary runs");
        assert!(run.status.success(), "guardian {command}: {}", String::from_utf8_lossy(&run.stderr));
    }
    assert!(seen.len() >= 8, "{seen:?}");
}

#[test]
fn every_alert_is_seen_to_fire_and_not_to_fire() {
    let tests = yaml(TESTS);
    let mut seen = BTreeMap::<String, [bool; 2]>::new();
    for case in list(&tests["tests"]).iter().flat_map(|test| list(&test["promql_expr_test"])) {
        let name = text(&case["expr"]).split('"').nth(1).unwrap_or_default().to_owned();
        seen.entry(name).or_default()[usize::from(!list(&case["exp_samples"]).is_empty())] = true;
    }
    for rule in rules() {
        let name = text(&rule["alert"]);
        assert_eq!(seen.get(name), Some(&[true, true]), "{TESTS}: {name} neither fires nor does not");
    }
}

#[test]
fn alerts_dashboard_and_pages_name_no_metric_that_is_not_exported() {
    let exported = exported();
    assert!(exported.len() >= 40, "{exported:?}");
    let own = |file: &str| names(&read(file));
    let families: BTreeSet<String> =
        exported.iter().map(|name| name.strip_suffix("_bucket").unwrap_or(name).to_owned()).collect();
    for file in [ALERTS, RULE, TESTS, DASHBOARD, RUNBOOK, METRICS, "docs/operations.md"] {
        for name in own(file) {
            assert!(exported.contains(&name) || families.contains(&name), "{file}: nothing exports {name}");
        }
    }
    for (title, expression) in dashboard_expressions() {
        assert!(!names(&expression).is_empty() && names(&expression).is_subset(&exported), "{title}: {expression}");
    }
    for rule in rules() {
        let expression = text(&rule["expr"]);
        assert!(!names(expression).is_empty() && names(expression).is_subset(&exported), "{expression}");
    }
}

#[test]
fn every_metric_that_is_exported_is_documented() {
    let documented = names(&read(METRICS));
    let undocumented: Vec<String> = exported()
        .into_iter()
        .filter(|name| !name.ends_with("_sum") && !name.ends_with("_count"))
        .map(|name| name.strip_suffix("_bucket").unwrap_or(&name).to_owned())
        .filter(|name| !documented.contains(name))
        .collect();
    assert_eq!(undocumented, [""; 0]);
}

/// A new reason must not hold a set without anybody being told.
#[test]
fn every_reason_that_can_hold_a_set_has_an_alert() {
    let page = read(RUNBOOK);
    let mut covered = BTreeMap::<String, Vec<String>>::new();
    for rule in rules() {
        let expression = text(&rule["expr"]);
        let Some((_, matcher)) = expression.split_once("guardian_held{reason=") else { continue };
        for word in matcher.split('"').nth(1).expect("a matcher").split('|') {
            let held = Hold::ALL.iter().filter(|hold| match word.strip_suffix(".*") {
                Some(start) => hold.as_str().starts_with(start),
                None => hold.as_str() == word,
            });
            let held: Vec<&Hold> = held.collect();
            assert!(!held.is_empty(), "{word} is no reason");
            for hold in held {
                covered.entry(hold.to_string()).or_default().push(text(&rule["alert"]).to_owned());
            }
        }
    }
    for hold in Hold::ALL {
        let alerts = covered.get(hold.as_str()).map_or(0, Vec::len);
        // Of a policy that waits the number tells; the last two are words in a record, and hold nothing.
        let told = matches!(hold, Hold::PolicyNotApproved | Hold::NoPolicy | Hold::NoHook);
        assert_eq!(alerts, usize::from(!told), "{hold}: {covered:?}");
        assert!(told || *hold == Hold::OnHold || page.contains(&format!("`{hold}`")), "{hold} is not in the runbook");
    }
}

#[test]
fn the_dashboard_is_whole() {
    let dashboard: Value = serde_json::from_str(&read(DASHBOARD)).expect("JSON");
    let variables: BTreeSet<&str> = list(&dashboard["templating"]["list"]).iter().map(|v| text(&v["name"])).collect();
    assert_eq!(variables, BTreeSet::from(["datasource", "namespace", "set"]));
    let (mut ids, mut covered) = (BTreeSet::new(), BTreeSet::new());
    for panel in list(&dashboard["panels"]) {
        let title = text(&panel["title"]);
        assert!(ids.insert(panel["id"].to_string()), "{title}: its id is another's");
        let at = |key: &str| panel["gridPos"][key].as_u64().expect("a place");
        assert!(at("x") + at("w") <= 24, "{title} is wider than the page");
        for cell in (at("x")..at("x") + at("w")).flat_map(|x| (at("y")..at("y") + at("h")).map(move |y| (x, y))) {
            assert!(covered.insert(cell), "{title} lies on another");
        }
        assert!(panel["type"] == "row" || !list(&panel["targets"]).is_empty(), "{title} shows nothing");
        for target in list(&panel["targets"]) {
            assert_eq!(target["datasource"]["uid"], "${datasource}", "{title}");
            let used = text(&target["expr"]).split('$').skip(1).filter_map(|rest| rest.split(['"', ']']).next());
            for variable in used {
                assert!(variables.contains(variable) || variable == "__rate_interval", "{title}: ${variable}");
            }
        }
    }
}

#[test]
fn the_component_brings_the_rule_and_the_dashboard() {
    let component = yaml("manifests/monitoring/kustomization.yaml");
    assert_eq!(component["kind"], "Component");
    let files = list(&component["resources"]).iter().chain(list(&component["configMapGenerator"][0]["files"]));
    let files: Vec<&str> = files.map(text).collect();
    assert_eq!(files, ["prometheus-rule.yaml", "dashboard.json"]);
    assert_eq!(component["configMapGenerator"][0]["namespace"], yaml(RULE)["metadata"]["namespace"]);
}

#[test]
fn the_page_shows_the_scrape_configurations_of_the_manifests() {
    for file in ["manifests/monitoring/scrape.yaml", "manifests/monitoring/scrape-agents.yaml"] {
        let scrape = read(file);
        let configuration = scrape.split_once("scrape_configs:\n").expect("what is shown").1;
        assert!(read(METRICS).contains(configuration), "{METRICS} shows another one than {file}");
        let job = &yaml(file)["scrape_configs"][0];
        assert_eq!(job["honor_labels"], true, "`namespace` and `pod` are the application's");
    }
}
