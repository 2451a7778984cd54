//! The text format of Prometheus, as far as it is needed: values with their labels, and what each family is.

use std::collections::BTreeMap;

/// What a family is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Family {
    /// `gauge`, `counter`, ...; empty where that is not said.
    pub(super) kind: String,
    pub(super) help: String,
}

/// One value.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Sample {
    pub(super) name: String,
    pub(super) labels: BTreeMap<String, String>,
    pub(super) value: f64,
}

/// Reads a page of metrics. A line that is not understood is left out: the rest is worth showing.
pub(super) fn read(page: &str) -> (BTreeMap<String, Family>, Vec<Sample>) {
    let mut families: BTreeMap<String, Family> = BTreeMap::new();
    let mut samples = Vec::new();
    for line in page.lines().map(str::trim) {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, help) = rest.split_once(' ').unwrap_or((rest, ""));
            families.entry(name.to_owned()).or_default().help = unescaped(help);
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').unwrap_or((rest, ""));
            kind.trim().clone_into(&mut families.entry(name.to_owned()).or_default().kind);
        } else if !line.starts_with('#') {
            samples.extend(sample(line));
        }
    }
    (families, samples)
}

/// `name{label="value",...} value [timestamp]`.
fn sample(line: &str) -> Option<Sample> {
    let end = line.find(|c: char| c == '{' || c.is_whitespace())?;
    let (name, rest) = line.split_at_checked(end)?;
    let (labels, rest) = match rest.strip_prefix('{') {
        Some(rest) => labels(rest)?,
        None => (BTreeMap::new(), rest),
    };
    let value = match rest.split_whitespace().next()? {
        "+Inf" => f64::INFINITY,
        "-Inf" => f64::NEG_INFINITY,
        number => number.parse().ok()?,
    };
    (!name.is_empty()).then(|| Sample { name: name.to_owned(), labels, value })
}

/// The labels up to the closing brace, and what follows it.
fn labels(mut rest: &str) -> Option<(BTreeMap<String, String>, &str)> {
    let mut labels = BTreeMap::new();
    loop {
        rest = rest.trim_start_matches([',', ' ']);
        if let Some(after) = rest.strip_prefix('}') {
            return Some((labels, after));
        }
        let (name, value) = rest.split_once("=\"")?;
        let mut escaped = false;
        let end = value.find(|c| {
            let ends = c == '"' && !escaped;
            escaped = c == '\\' && !escaped;
            ends
        })?;
        let (value, after) = value.split_at_checked(end)?;
        labels.insert(name.trim().to_owned(), unescaped(value));
        rest = after.strip_prefix('"')?;
    }
}

fn unescaped(text: &str) -> String {
    let mut result = String::with_capacity(text.len());
    let mut characters = text.chars();
    while let Some(c) = characters.next() {
        match c {
            '\\' => match characters.next() {
                Some('n') => result.push('\n'),
                Some(other) => result.push(other),
                None => result.push('\\'),
            },
            c => result.push(c),
        }
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_read_with_its_escapes_and_a_line_that_is_none_is_left_out() {
        let page = "# HELP db_lag Behind,\\nin seconds\n# TYPE db_lag gauge\n# EOF\n\
                    db_lag{set=\"db\",pod=\"db-0\",q=\"a\\\"b}\\\\\"} 1.5 1700000000000\n\
                    db_lag{set=\"db\"\nhalf a line\ndb_up 1\nodd{} NaN\nbig{le=\"+Inf\",} +Inf\nno_value{a=\"b\"}\n{} 1\n";
        let (families, samples) = read(page);
        assert_eq!(families["db_lag"], Family { kind: "gauge".to_owned(), help: "Behind,\nin seconds".to_owned() });
        let told: Vec<String> = samples.iter().map(|s| format!("{} {:?} {}", s.name, s.labels, s.value)).collect();
        let expected = [
            r#"db_lag {"pod": "db-0", "q": "a\"b}\\", "set": "db"} 1.5"#,
            "db_up {} 1",
            "odd {} NaN",
            r#"big {"le": "+Inf"} inf"#,
        ];
        assert_eq!(told, expected);
    }
}
