//! What a command printed: a number; or lines of label values and a number; or the text format of Prometheus, of this metric alone.

use alloc::borrow::ToOwned;
use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use super::{Expected, MAX_OUTPUT, MAX_SERIES, MetricKind, Reading};

/// Why the output of a command is refused. Lines are counted from 1.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// More than is read of an answer.
    #[error("it printed more than {MAX_OUTPUT} bytes")]
    TooLong,
    /// No line with a value, where the metric has no labels.
    #[error("it printed nothing, where a number is expected")]
    Nothing,
    /// No text.
    #[error("line {line} is no text: {what}")]
    Binary {
        /// Where.
        line: usize,
        /// What is there.
        what: &'static str,
    },
    /// Too many words, or too few.
    #[error("line {line} has {found} words, where {expected} expected: the value of each label, then a number")]
    Words {
        /// Where.
        line: usize,
        /// So many.
        found: usize,
        /// In place of so many.
        expected: String,
    },
    /// The value is none.
    #[error("line {line}: {word:?} is no number, such as 12, -0.5 or 1e9")]
    NotANumber {
        /// Where.
        line: usize,
        /// What stands there.
        word: String,
    },
    /// The value says nothing.
    #[error("line {line}: {word:?} is no value: print a finite number, or nothing of this series")]
    NotFinite {
        /// Where.
        line: usize,
        /// What stands there.
        word: String,
    },
    /// A counter is less than nothing.
    #[error("line {line}: a counter is never negative, and this one is {word}")]
    Negative {
        /// Where.
        line: usize,
        /// What stands there.
        word: String,
    },
    /// Another metric.
    #[error("line {line} is of {name:?}, where this metric is {own}: a command measures one metric")]
    OtherName {
        /// Where.
        line: usize,
        /// Whose it is.
        name: String,
        /// Whose it should be.
        own: String,
    },
    /// Labels that the policy does not name, or not all of them.
    #[error("line {line} has the labels [{found}], where the policy has [{declared}]")]
    Labels {
        /// Where.
        line: usize,
        /// These are there.
        found: String,
        /// These are named.
        declared: String,
    },
    /// Not the text format.
    #[error("line {line} begins like the text format of Prometheus, and is not: {what}")]
    Syntax {
        /// Where.
        line: usize,
        /// What is wrong.
        what: &'static str,
    },
    /// Two values of one series.
    #[error("line {line} is of a series that was there before")]
    Twice {
        /// Where.
        line: usize,
    },
}

/// Reads the standard output of the command of a metric. Blank lines and those that begin with `#` say nothing.
///
/// # Errors
/// At the first line that is refused: nothing of the answer counts then.
pub fn parse<'t>(metric: Expected<'_>, output: &'t str) -> Result<Reading<'t>, Malformed> {
    if output.len() > MAX_OUTPUT {
        return Err(Malformed::TooLong);
    }
    let mut reading = Reading::default();
    for (n, text) in output.lines().enumerate() {
        let line = Line { number: n + 1, metric };
        line.is_text(text)?;
        let text = text.trim();
        if text.is_empty() || text.starts_with('#') {
            continue;
        }
        let (labels, value) = line.series(text)?;
        if reading.series.contains_key(&labels) {
            return Err(Malformed::Twice { line: line.number });
        }
        if reading.series.len() < MAX_SERIES {
            reading.series.insert(labels, value);
        } else {
            reading.dropped += 1;
        }
    }
    if reading.series.is_empty() && metric.labels.is_empty() {
        return Err(Malformed::Nothing);
    }
    Ok(reading)
}

/// A line, to be read.
struct Line<'m> {
    number: usize,
    metric: Expected<'m>,
}

impl Line<'_> {
    fn is_text(&self, text: &str) -> Result<(), Malformed> {
        let binary = |what| Err(Malformed::Binary { line: self.number, what });
        if text.contains('\u{fffd}') {
            return binary("bytes that are not UTF-8");
        }
        if text.trim_end_matches('\r').contains(|c: char| c.is_control() && c != '\t') {
            return binary("a control character");
        }
        Ok(())
    }

    fn series<'t>(&self, text: &'t str) -> Result<(Vec<String>, &'t str), Malformed> {
        let own = self.metric.name;
        let name_end = text.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == ':')).unwrap_or(text.len());
        let (name, rest) = text.split_at(name_end);
        let is_name = !name.is_empty() && !name.starts_with(|c: char| c.is_ascii_digit());
        let words: Vec<&str> = text.split_whitespace().collect();
        let of_prometheus =
            is_name && (rest.trim_start().starts_with('{') || (name == own && words.len() == 2 && rest.starts_with([' ', '\t'])));
        let named_other = is_name && self.metric.labels.is_empty() && words.len() == 2;
        if of_prometheus || named_other {
            if name != own {
                let (line, own) = (self.number, own.to_owned());
                return Err(Malformed::OtherName { line, name: cut(name), own });
            }
            return self.of_prometheus(rest);
        }
        let Some((value, labels)) = words.split_last().filter(|(_, labels)| labels.len() == self.metric.labels.len()) else {
            let expected = match self.metric.labels.len() + 1 {
                1 => "1 is".to_owned(),
                more => format!("{more} are"),
            };
            return Err(Malformed::Words { line: self.number, found: words.len(), expected });
        };
        Ok((labels.iter().map(|&label| label.to_owned()).collect(), self.value(value)?))
    }

    /// What follows the name: `{label="value",...} number`.
    fn of_prometheus<'t>(&self, rest: &'t str) -> Result<(Vec<String>, &'t str), Malformed> {
        let mut found = BTreeMap::new();
        let rest = match rest.trim_start().strip_prefix('{') {
            Some(labels) => self.labels(labels, &mut found)?,
            None => rest,
        };
        let declared = self.metric.labels;
        let values: Option<Vec<String>> = declared.iter().map(|label| found.get(label.as_str()).cloned()).collect();
        let Some(values) = values.filter(|values| values.len() == found.len()) else {
            let found = cut(&found.into_keys().collect::<Vec<_>>().join(", "));
            return Err(Malformed::Labels { line: self.number, found, declared: declared.join(", ") });
        };
        match rest.split_whitespace().collect::<Vec<_>>()[..] {
            [value] => Ok((values, self.value(value)?)),
            [] => Err(self.syntax("there is no value")),
            [_, _] => Err(self.syntax("print no time stamp, what counts is when it was asked")),
            _ => Err(self.syntax("there is something after the value")),
        }
    }

    /// The labels up to the closing brace; gives what comes after it.
    fn labels<'t>(&self, mut rest: &'t str, found: &mut BTreeMap<&'t str, String>) -> Result<&'t str, Malformed> {
        loop {
            rest = rest.trim_start();
            if let Some(after) = rest.strip_prefix('}') {
                return Ok(after);
            }
            let (name, after) = rest.split_once('=').ok_or_else(|| self.syntax("a label needs `=`"))?;
            let quoted = after.trim_start().strip_prefix('"').ok_or_else(|| self.syntax("the value of a label needs quotes"))?;
            let (value, after) = self.unquoted(quoted)?;
            if found.insert(name.trim(), value).is_some() {
                return Err(self.syntax("a label is there twice"));
            }
            let after = after.trim_start();
            rest = match after.strip_prefix(',') {
                Some(more) => more,
                None if after.starts_with('}') => after,
                None => return Err(self.syntax("after a label comes `,` or `}`")),
            };
        }
    }

    /// A value up to its closing quote; and what comes after that.
    fn unquoted<'t>(&self, text: &'t str) -> Result<(String, &'t str), Malformed> {
        let mut value = String::new();
        let mut chars = text.char_indices();
        while let Some((at, c)) = chars.next() {
            match c {
                '"' => return Ok((value, text.get(at + 1..).unwrap_or_default())),
                '\\' => value.push(match chars.next() {
                    Some((_, 'n')) => '\n',
                    Some((_, c @ ('\\' | '"'))) => c,
                    _ => return Err(self.syntax(r#"in a value only \\, \" and \n are escaped"#)),
                }),
                c => value.push(c),
            }
        }
        Err(self.syntax("the value of a label has no end"))
    }

    /// A finite decimal number.
    fn value<'t>(&self, word: &'t str) -> Result<&'t str, Malformed> {
        let line = self.number;
        let unsigned = word.strip_prefix(['+', '-']).unwrap_or(word);
        if ["nan", "inf", "infinity"].iter().any(|none| unsigned.eq_ignore_ascii_case(none)) {
            return Err(Malformed::NotFinite { line, word: cut(word) });
        }
        let Some(Decimal { is_zero, magnitude }) = Decimal::read(unsigned) else {
            return Err(Malformed::NotANumber { line, word: cut(word) });
        };
        if !is_zero && magnitude > MAX_MAGNITUDE {
            return Err(Malformed::NotFinite { line, word: cut(word) });
        }
        if !is_zero && word.starts_with('-') && self.metric.kind == MetricKind::Counter {
            return Err(Malformed::Negative { line, word: cut(word) });
        }
        Ok(word)
    }

    const fn syntax(&self, what: &'static str) -> Malformed {
        Malformed::Syntax { line: self.number, what }
    }
}

/// The largest double is 1.8e308, and what is larger would be read as infinite.
const MAX_MAGNITUDE: i32 = 308;

/// What is to be known of a number without its sign.
struct Decimal {
    is_zero: bool,
    /// It is less than ten to this.
    magnitude: i32,
}

impl Decimal {
    /// `12`, `12.`, `.5`, `1.5e-9`.
    fn read(text: &str) -> Option<Self> {
        let (mantissa, exponent) = match text.split_once(['e', 'E']) {
            Some((mantissa, exponent)) => (mantissa, Some(exponent)),
            None => (text, None),
        };
        let (whole, part) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        let are_digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
        if !are_digits(whole) || !are_digits(part) || whole.len() + part.len() == 0 {
            return None;
        }
        let exponent = match exponent {
            None => 0,
            Some(exponent) => {
                let digits = exponent.strip_prefix(['+', '-']).unwrap_or(exponent);
                if digits.is_empty() || !are_digits(digits) {
                    return None;
                }
                // Of more digits than fit, it is as large as can be, or as small.
                let large = digits.parse::<i32>().unwrap_or(i32::MAX);
                if exponent.starts_with('-') { -large } else { large }
            }
        };
        let is_zero = mantissa.bytes().all(|b| matches!(b, b'0' | b'.'));
        // Without a whole part the zeros behind the point count against it.
        let digits = match whole.trim_start_matches('0').len() {
            0 => -i32::try_from(part.len() - part.trim_start_matches('0').len()).ok()?,
            digits => i32::try_from(digits).ok()?,
        };
        Some(Self { is_zero, magnitude: digits.saturating_add(exponent) })
    }
}

/// So much of a word as fits into a sentence.
fn cut(word: &str) -> String {
    word.chars().take(64).collect()
}
