//! What the pages say of the code is true.
#![expect(clippy::expect_used, reason = "a test helper fails the test that calls it")]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use guardian_core::lint::RULES;

fn read(path: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).expect("a file of the project")
}

#[test]
fn every_reason_of_the_audit_trail_is_documented() {
    let source = read("core/src/admission/verdict.rs");
    let body = source.split("pub enum Reason {").nth(1).and_then(|rest| rest.split('}').next()).expect("the enum");
    let reasons: BTreeSet<&str> = body.lines().filter_map(|line| line.trim().strip_suffix(',')).collect();
    let page = read("docs/operations.md");
    let row = page.lines().find(|line| line.starts_with("| `reason` |")).expect("the row of the reasons");
    let documented: BTreeSet<&str> = row.split('`').skip(3).step_by(2).collect();
    assert_eq!(documented, reasons);
}

#[test]
fn every_link_of_a_page_leads_to_a_file() {
    for page in [
        "README.md",
        "docs/policy.md",
        "docs/metrics.md",
        "docs/operations.md",
        "docs/runbook.md",
        "docs/dashboard.md",
        "docs/lint.md",
        "docs/rehearse.md",
        "docs/faults.md",
        "e2e/cluster/README.md",
    ] {
        let text = read(page);
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(page);
        let folder = folder.parent().expect("a folder");
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let file = link.split('#').next().unwrap_or_default();
            assert!(file.is_empty() || folder.join(file).exists(), "{page} links to {link}, which is not there");
        }
    }
}

/// Every file of Rust below a folder.
fn sources(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").path());
    entries
        .flat_map(|path| if path.is_dir() { sources(&path) } else { vec![path] })
        .filter(|p| p.extension().is_some_and(|e| e == "rs"))
        .collect()
}

#[test]
fn every_test_that_the_page_of_faults_names_is_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let folders = ["core/src", "hook/src", "hook/tests", "src", "testing/tests", "tests", "webhook-certs", "e2e/tests"];
    let texts: Vec<String> = folders
        .iter()
        .flat_map(|folder| sources(&root.join(folder)))
        .map(|file| std::fs::read_to_string(file).expect("a source"))
        .collect();
    let tests: BTreeSet<&str> = texts
        .iter()
        .flat_map(|text| text.split("fn ").skip(1))
        .filter_map(|rest| rest.split_once('(').map(|(name, _)| name))
        .collect();
    let page = read("docs/faults.md");
    let rows: Vec<&str> = page.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| what comes |")).collect();
    assert!(rows.len() >= 30, "{} faults", rows.len());
    for row in rows {
        let named = row.rsplit('|').nth(1).unwrap_or_default().split('`').skip(1).step_by(2);
        let named: Vec<&str> = named.collect();
        assert!(!named.is_empty(), "no test shows: {row}");
        for name in named {
            assert!(tests.contains(name), "there is no test {name}");
        }
    }
}

#[test]
fn every_rule_of_lint_has_its_section_with_what_it_says() {
    let page = read("docs/lint.md");
    let sections: Vec<(&str, &str)> = page.split("\n## ").skip(1).filter_map(|section| section.split_once('\n')).collect();
    let names: Vec<&str> = sections.iter().map(|(name, _)| *name).collect();
    assert_eq!(names, RULES.iter().map(|rule| rule.name).collect::<Vec<_>>());
    for (rule, (_, text)) in RULES.iter().zip(&sections) {
        let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
        let level = format!("**{}", rule.level.as_str());
        assert!(text.to_lowercase().starts_with(&level), "{}: {}", rule.name, rule.level.as_str());
        assert!(text.contains(rule.reason) && text.contains(rule.remedy), "the section of {} says something else", rule.name);
    }
}
