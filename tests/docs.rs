//! What the pages say of the code is true.
#![expect(clippy::expect_used, reason = "a test helper fails the test that calls it")]

use std::collections::BTreeSet;
use std::path::Path;

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
    for page in ["README.md", "docs/policy.md", "docs/operations.md", "docs/lint.md", "e2e/cluster/README.md"] {
        let text = read(page);
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(page);
        let folder = folder.parent().expect("a folder");
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let file = link.split('#').next().unwrap_or_default();
            assert!(file.is_empty() || folder.join(file).exists(), "{page} links to {link}, which is not there");
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
