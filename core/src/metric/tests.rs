//! What is read of the output of commands.

mod measured;
mod served;

use std::time::Duration;

use guardian_hook::protocol::{Program, RunResult, Tail};

use super::*;
use crate::policy::{MetricKind, Probe};

fn metric(name: &str, labels: &[&str]) -> Metric {
    let probe = Probe { program: Program::Command(vec!["a".into()]), container: None, timeout: Duration::from_secs(30) };
    let labels = labels.iter().map(|&label| label.into()).collect();
    let (help, every) = (String::new(), Duration::from_secs(15));
    Metric { name: name.into(), kind: MetricKind::Gauge, help, probe, every, labels, on: None }
}

fn read(labels: &[&str], output: &str) -> Vec<(String, f64)> {
    let reading = parse(&metric("keys", labels), output).unwrap_or_else(|why| panic!("{output:?}: {why}"));
    reading.series.into_iter().map(|(labels, value)| (labels.join("|"), value)).collect()
}

fn refused(labels: &[&str], output: &str) -> String {
    parse(&metric("keys", labels), output).err().unwrap_or_else(|| panic!("accepted: {output:?}")).to_string()
}

#[test]
fn a_number_is_read_however_people_print_it() {
    let numbers = [
        ("12", 12.0),
        ("12\n", 12.0),
        ("  12 \r\n\n", 12.0),
        ("-0.5", -0.5),
        ("+7", 7.0),
        (".5", 0.5),
        ("5.", 5.0),
        ("1e3", 1000.0),
        ("1E-3", 0.001),
        ("0", 0.0),
        ("# a comment\n3", 3.0),
        ("1e-999", 0.0),
        ("0e999", 0.0),
        ("0.00012e311", 1.2e307),
        ("-9.99e307", -9.99e307),
        ("00000000000000000000000000000001", 1.0),
        ("keys 4", 4.0),
        ("keys{} 4", 4.0),
        ("# HELP keys of all\n# TYPE keys gauge\nkeys 4\n", 4.0),
    ];
    for (output, expected) in numbers {
        assert_eq!(read(&[], output), [(String::new(), expected)], "{output:?}");
    }
}

#[test]
fn lines_are_the_values_of_the_labels_and_a_number() {
    assert_eq!(read(&["db"], "db0 5\ndb1\t7\n"), [("db0".into(), 5.0), ("db1".into(), 7.0)]);
    assert_eq!(read(&["db", "type"], "db0 hash 5\ndb0 set 6"), [("db0|hash".into(), 5.0), ("db0|set".into(), 6.0)]);
    assert_eq!(read(&["db"], "a\"b\\c 5"), [("a\"b\\c".into(), 5.0)]);
    assert_eq!(read(&["db"], ""), [], "no line is no series, where there are labels");
}

#[test]
fn the_text_format_of_prometheus_is_read_with_the_labels_of_the_policy_in_any_order() {
    let output = "# TYPE keys gauge\nkeys{type=\"hash\", db=\"0\",} 5\nkeys { db = \"1\" , type=\"a, } \\\"b\\\\\\n\" } 6\n";
    assert_eq!(read(&["db", "type"], output), [("0|hash".into(), 5.0), ("1|a, } \"b\\\n".into(), 6.0)]);
}

#[test]
fn every_bad_output_is_refused_with_its_reason() {
    let long = "db 1\n".repeat(MAX_OUTPUT / 5 + 1);
    let flood: String = (0..100_000).map(|n| format!("label-{n} {n}\n")).collect();
    let number = |word: &str| format!("line 1: {word:?} is no number, such as 12, -0.5 or 1e9");
    let infinite = |word: &str| format!("line 1: {word:?} is no value: print a finite number, or nothing of this series");
    let words =
        |found, expected| format!("line 1 has {found} words, where {expected} expected: the value of each label, then a number");
    let syntax = |what: &str| format!("line 1 begins like the text format of Prometheus, and is not: {what}");
    let labels = |found: &str| format!("line 1 has the labels [{found}], where the policy has [db]");
    let other = |name: &str| format!("line 1 is of {name:?}, where this metric is keys: a command measures one metric");
    let rows: Vec<(&[&str], &str, String)> = vec![
        (&[], "", "it printed nothing, where a number is expected".into()),
        (&[], " \n\n# none\n", "it printed nothing, where a number is expected".into()),
        (&[], "NaN", infinite("NaN")),
        (&[], "nan", infinite("nan")),
        (&[], "+Inf", infinite("+Inf")),
        (&[], "-inf", infinite("-inf")),
        (&[], "infinity", infinite("infinity")),
        (&[], "1e999", infinite("1e999")),
        (&[], "2e308", infinite("2e308")),
        (&[], "0.1e99999999999999999999", infinite("0.1e99999999999999999999")),
        (&["db"], "db0 NaN", infinite("NaN")),
        (&[], "keys NaN", infinite("NaN")),
        (&[], "five", number("five")),
        (&[], "1,5", number("1,5")),
        (&[], "85%", number("85%")),
        (&[], "0x10", number("0x10")),
        (&[], "1_000", number("1_000")),
        (&[], "512Mi", number("512Mi")),
        (&[], "-", number("-")),
        (&[], "e", number("e")),
        (&[], ".", number(".")),
        (&[], "1e", number("1e")),
        (&[], "1e+", number("1e+")),
        (&[], "1.2.3", number("1.2.3")),
        (&[], "+-1", number("+-1")),
        (&["db"], "db0 db1", number("db1")),
        (&[], "1 2", words(2, "1 is")),
        (&[], "a b c", words(3, "1 is")),
        (&["db"], "5", words(1, "2 are")),
        (&["db"], "a b 5", words(3, "2 are")),
        (&["db", "type"], "a 5", words(2, "3 are")),
        (&[], "1\n1", "line 2 is of a series that was there before".into()),
        (&["db"], "a 1\n\na 2", "line 3 is of a series that was there before".into()),
        (&["db"], "keys{db=\"a\"} 1\na 2", "line 2 is of a series that was there before".into()),
        (&[], "connected_clients 5", other("connected_clients")),
        (&["db"], "other{db=\"a\"} 5", other("other")),
        (&[], "keys{db=\"a\"} 5", "line 1 has the labels [db], where the policy has []".into()),
        (&["db"], "keys{} 5", labels("")),
        (&["db"], "keys 5", labels("")),
        (&["db"], "keys{da=\"a\"} 5", labels("da")),
        (&["db"], "keys{db=\"a\",pod=\"b\"} 5", labels("db, pod")),
        (&["db"], "keys{db=\"a\"", syntax("after a label comes `,` or `}`")),
        (&["db"], "keys{db=\"a} 5", syntax("the value of a label has no end")),
        (&["db"], "keys{db=a} 5", syntax("the value of a label needs quotes")),
        (&["db"], "keys{db} 5", syntax("a label needs `=`")),
        (&["db"], "keys{db=\"a\\t\"} 5", syntax(r#"in a value only \\, \" and \n are escaped"#)),
        (&["db"], "keys{db=\"a\",db=\"b\"} 5", syntax("a label is there twice")),
        (&["db"], "keys{db=\"a\"}", syntax("there is no value")),
        (&["db"], "keys{db=\"a\"} 5 1700000000", syntax("print no time stamp, what counts is when it was asked")),
        (&["db"], "keys{db=\"a\"} 5 1 2", syntax("there is something after the value")),
        (&[], "\u{fffd}PNG", "line 1 is no text: bytes that are not UTF-8".into()),
        (&[], "1\n\0", "line 2 is no text: a control character".into()),
        (&["db"], "a\u{1b}[0m 5", "line 1 is no text: a control character".into()),
        (&["db"], &long, "it printed more than 4096 bytes".into()),
        (&["db"], &flood, "it printed more than 4096 bytes".into()),
    ];
    for (labels, output, expected) in rows {
        assert_eq!(refused(labels, output), expected, "{:?}", output.get(..60).unwrap_or(output));
    }
    let counter = Metric { kind: MetricKind::Counter, ..metric("keys", &[]) };
    assert_eq!(parse(&counter, "-1").unwrap_err().to_string(), "line 1: a counter is never negative, and this one is -1");
}

fn sample(text: &str, dropped: u64, result: RunResult) -> Sample {
    let stdout = Tail { text: text.into(), dropped };
    Sample {
        name: "a".into(),
        result,
        duration_ms: 1,
        stdout,
        stderr: Tail { text: "no such\x07 thing\n".into(), dropped: 0 },
        age_ms: None,
    }
}

#[test]
fn an_answer_that_failed_says_how() {
    let exited = |code| RunResult::Exited { code };
    let words = ", its last words: no such  thing";
    let rows = [
        (sample("5", 0, exited(3)), End::Exit, format!("ended with exit code 3{words}")),
        (sample("5", 0, RunResult::Signaled { signal: 9 }), End::Signal, format!("was ended by signal 9{words}")),
        (sample("5", 0, RunResult::TimedOut), End::TimedOut, format!("was killed at its time out{words}")),
        (
            sample("", 0, RunResult::NotFound { what: "x".into() }),
            End::NotStarted,
            format!("was not started: there is no x{words}"),
        ),
        (sample("5", 1, exited(0)), End::Malformed, "is refused: it printed more than 4096 bytes".into()),
        (sample("x", 0, exited(0)), End::Malformed, "is refused: line 1: \"x\" is no number, such as 12, -0.5 or 1e9".into()),
    ];
    for (answer, end, why) in rows {
        assert_eq!(judge(&metric("keys", &[]), &answer), Err(Failure { end, why }));
    }
    assert_eq!(judge(&metric("keys", &[]), &sample("5", 0, exited(0))).unwrap().series, [(vec![], 5.0)].into());
}
