//! The golden cases as a whole: nothing of a case is missing, and nothing lies there that no test reads.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// The files of `testdata`, by case.
fn cases() -> BTreeMap<String, BTreeSet<String>> {
    let mut cases: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for entry in std::fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("src/admission/testdata")).unwrap() {
        let file = entry.unwrap().file_name().into_string().unwrap();
        let (case, kind) = file.split_once('.').unwrap_or((&file, ""));
        cases.entry(case.to_owned()).or_default().insert(kind.to_owned());
    }
    cases
}

#[test]
fn every_file_belongs_to_a_case_and_every_case_is_whole() {
    for (case, kinds) in cases() {
        let kinds: Vec<&str> = kinds.iter().map(String::as_str).collect();
        let whole = [&["expected.json", "policy.yaml", "review.json"][..], &["expected.json", "review.json"]];
        assert!(whole.contains(&kinds.as_slice()), "{case}: {kinds:?}");
    }
}

#[test]
fn the_shapes_of_well_known_charts_are_among_them() {
    let cases = cases();
    let charts = "cassandra elasticsearch etcd kafka-kraft mariadb-galera minio mongodb postgresql rabbitmq zookeeper";
    for chart in charts.split(' ') {
        assert!(cases.contains_key(&format!("create-chart-{chart}")), "{chart}");
    }
}
