//! Single values: times, names, amounts, and the small languages within a text.

use std::time::Duration;

use croner::parser::{CronParser, Seconds, Year};
use jiff::tz::TimeZone;
use serde_saphyr::Location;

use super::Check;
use crate::policy::problem::Problem;
use crate::policy::schema::{Scalar, Spanned, Time};
use crate::policy::{Amount, InitOrder, Quorum, Target, Usage, Window};
use crate::role::is_label_value;

impl Check<'_> {
    pub(super) fn duration(
        &mut self,
        path: String,
        text: Option<Spanned<Time>>,
        default: Duration,
        longest: Duration,
    ) -> Duration {
        let Some(text) = text else { return default };
        let problem = match duration(&text.value.0) {
            None => Problem::NotADuration(text.value.0),
            Some(d) if d.is_zero() => Problem::ZeroDuration(text.value.0),
            Some(d) if d > longest => Problem::TooLong(text.value.0, longest),
            Some(d) => return d,
        };
        self.error(path, text.referenced, problem);
        default
    }

    pub(super) fn label(&mut self, path: String, name: Spanned<String>) -> String {
        self.name(path, name, "", 63)
    }

    pub(super) fn subdomain(&mut self, path: String, name: Spanned<String>) -> String {
        self.name(path, name, " and `.`", 253)
    }

    /// RFC 1123 label or subdomain, as the API server checks names.
    fn name(&mut self, path: String, name: Spanned<String>, also: &'static str, longest: usize) -> String {
        let part = |p: &str| {
            let inner = p.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
            !p.is_empty() && inner && !p.starts_with('-') && !p.ends_with('-')
        };
        let right =
            name.value.len() <= longest && if also.is_empty() { part(&name.value) } else { name.value.split('.').all(part) };
        if !right {
            self.error(path, name.referenced, Problem::NotAName { name: name.value.clone(), also, longest });
        }
        name.value
    }

    pub(super) fn at_least_one(&mut self, path: String, number: &Spanned<u32>) -> u32 {
        if number.value == 0 {
            self.error(path, number.referenced, Problem::Zero);
        }
        number.value
    }

    pub(super) fn not_empty<T>(&mut self, path: &str, list: &Spanned<Vec<T>>) {
        if list.value.is_empty() {
            self.error(path, list.referenced, Problem::EmptyList);
        }
    }

    pub(super) fn quorum(&mut self, path: &str, text: &Spanned<Scalar>) -> Option<Quorum> {
        let quorum = match text.value.0.as_str() {
            "majority" => Some(Quorum::Majority),
            other => match other.strip_suffix('%') {
                Some(percent) => whole(percent).filter(|n| (1..=100).contains(n)).map(Quorum::Percent),
                None => whole(other).filter(|n| *n > 0).map(Quorum::Number),
            },
        };
        if quorum.is_none() {
            self.error(path, text.referenced, Problem::NotAQuorum(text.value.0.clone()));
        }
        quorum
    }

    pub(super) fn init_order(&mut self, path: &str, text: &Spanned<String>) -> InitOrder {
        let named = |name: &str| Spanned { value: name.to_owned(), referenced: text.referenced };
        match (text.value.as_str(), text.value.split_once(':')) {
            ("first", _) => InitOrder::First,
            ("last", _) => InitOrder::Last,
            (_, Some(("before", name))) => InitOrder::Before(self.label(path.to_owned(), named(name))),
            (_, Some(("after", name))) => InitOrder::After(self.label(path.to_owned(), named(name))),
            _ => {
                let expected = "first, last, before:NAME, after:NAME".to_owned();
                self.error(path, text.referenced, Problem::Variant { found: text.value.clone(), expected });
                InitOrder::First
            }
        }
    }

    /// `self`, `any`, `all`, `ordinal:N` or `role:NAME`.
    pub(super) fn target(&mut self, path: &str, text: &Spanned<String>) -> Option<Target> {
        let target = match (text.value.as_str(), text.value.split_once(':')) {
            ("self", _) => Some(Target::Itself),
            ("any", _) => Some(Target::Any),
            ("all", _) => Some(Target::All),
            (_, Some(("ordinal", n))) => whole(n).map(Target::Ordinal),
            (_, Some(("role", name))) if is_label_value(name) => Some(Target::Role(name.to_owned())),
            _ => None,
        };
        if let Some(Target::Role(_)) = target {
            let needed = "`role`: a command that prints the role of its pod";
            self.needs(path, text.referenced, self.declared.role, &text.value, needed);
        }
        if target.is_none() {
            let expected = "self, any, all, ordinal:N, role:NAME".to_owned();
            self.error(path, text.referenced, Problem::Variant { found: text.value.clone(), expected });
        }
        target
    }

    pub(super) fn cron(&mut self, path: String, at: Location, text: &str) {
        let parser = CronParser::builder().seconds(Seconds::Disallowed).year(Year::Disallowed).build();
        if let Err(error) = parser.parse(text) {
            self.error(path, at, Problem::NotASchedule(text.to_owned(), error.to_string()));
        }
    }

    pub(super) fn time_zone(&mut self, path: String, zone: &Spanned<String>) -> String {
        if TimeZone::get(&zone.value).is_err() {
            self.error(path, zone.referenced, Problem::NoSuchZone(zone.value.clone()));
        }
        zone.value.clone()
    }

    pub(super) fn window(&mut self, path: &str, text: &Spanned<String>) -> Option<Window> {
        let window = window(&text.value);
        match &window {
            None => self.error(path, text.referenced, Problem::NotAWindow(text.value.clone())),
            Some(w) if TimeZone::get(&w.time_zone).is_err() => {
                self.error(path, text.referenced, Problem::NoSuchZone(w.time_zone.clone()));
            }
            Some(_) => {}
        }
        window
    }
}

/// A duration as policies write it: `^([0-9]+(ms|s|m|h))+$`, without overflow.
#[must_use]
pub fn duration(text: &str) -> Option<Duration> {
    let mut rest = text;
    let mut total = Duration::ZERO;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).filter(|n| *n > 0)?;
        let (number, tail) = rest.split_at(digits);
        let number: u64 = number.parse().unwrap_or(u64::MAX); // too many digits for u64: longer than any bound
        let (unit, tail) = [("ms", 1), ("s", 1000), ("m", 60_000), ("h", 3_600_000)]
            .into_iter()
            .find_map(|(unit, millis)| tail.strip_prefix(unit).map(|tail| (millis, tail)))?;
        total = total.saturating_add(Duration::from_millis(number.saturating_mul(unit)));
        rest = tail;
    }
    (!text.is_empty()).then_some(total)
}

/// Digits only: no sign, no blank.
pub(super) fn whole(text: &str) -> Option<u32> {
    text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok())?
}

/// A decimal number as people write it: digits, perhaps with a sign and a fraction; no exponent, no infinity.
pub(super) fn number(text: &str) -> Option<f64> {
    let digits = text.strip_prefix('-').unwrap_or(text);
    let plain = digits.bytes().all(|b| b.is_ascii_digit() || b == b'.') && digits.starts_with(|c: char| c.is_ascii_digit());
    plain.then(|| text.parse().ok())?.filter(|n: &f64| n.is_finite())
}

/// A percentage of the limit, or a quantity as Kubernetes writes it (`resource.Quantity`), as far as people use it.
pub(super) fn amount(text: &str, of: Usage) -> Option<Amount> {
    if let Some(percent) = text.strip_suffix('%') {
        return number(percent).filter(|n| *n > 0.0 && *n <= 1000.0).map(Amount::Percent);
    }
    const BYTES: [(&str, f64); 10] = [
        ("Ki", 1024.0),
        ("Mi", 1_048_576.0),
        ("Gi", 1_073_741_824.0),
        ("Ti", 1_099_511_627_776.0),
        ("k", 1e3),
        ("M", 1e6),
        ("G", 1e9),
        ("T", 1e12),
        ("Pi", 1_125_899_906_842_624.0),
        ("P", 1e15),
    ];
    const CORES: [(&str, f64); 1] = [("m", 1e-3)];
    let units: &[(&str, f64)] = match of {
        Usage::Cpu => &CORES,
        Usage::Memory | Usage::Disk => &BYTES,
        Usage::Throttling => return None,
    };
    let (digits, factor) =
        units.iter().find_map(|(unit, factor)| Some((text.strip_suffix(unit)?, *factor))).unwrap_or((text, 1.0));
    number(digits).filter(|n| *n > 0.0).map(|n| Amount::Absolute(n * factor))
}

/// `[DAYS ]HH:MM-HH:MM ZONE`, the days as `Sat`, `Mon-Fri` or `Sat,Sun`; none: every day.
fn window(text: &str) -> Option<Window> {
    let parts: Vec<&str> = text.split_ascii_whitespace().collect();
    let (days, hours, zone) = match parts.as_slice() {
        [hours, zone] => ((0..7).collect(), hours, zone),
        [days, hours, zone] => (week_days(days)?, hours, zone),
        _ => return None,
    };
    let (start, end) = hours.split_once('-')?;
    let (start, end) = (minute(start)?, minute(end)?);
    (start != end && start < DAY).then(|| Window { days, start, end, time_zone: (*zone).to_owned() })
}

/// Minutes of a day.
const DAY: u16 = 24 * 60;

/// `HH:MM`, to `24:00`.
fn minute(text: &str) -> Option<u16> {
    let (hours, minutes) = text.split_once(':').filter(|(h, m)| h.len() == 2 && m.len() == 2)?;
    let (hours, minutes) = (u16::try_from(whole(hours)?).ok()?, u16::try_from(whole(minutes)?).ok()?);
    Some(hours * 60 + minutes).filter(|all| minutes < 60 && *all <= DAY)
}

fn week_days(text: &str) -> Option<Vec<u8>> {
    const DAYS: [&str; 7] = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"];
    let day = |name: &str| DAYS.iter().position(|d| *d == name).and_then(|n| u8::try_from(n).ok());
    let mut days = Vec::new();
    for part in text.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last) = (day(first)?, day(last)?);
        let length = (last + 7 - first) % 7;
        days.extend((0..=length).map(|n| (first + n) % 7));
    }
    days.sort_unstable();
    days.dedup();
    Some(days)
}

/// A label key: a name, perhaps with a DNS subdomain and `/` before it.
pub(super) fn is_qualified_name(text: &str) -> bool {
    let (prefix, name) = text.split_once('/').map_or((None, text), |(prefix, name)| (Some(prefix), name));
    let part = |p: &str| {
        let inner = p.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
        !p.is_empty() && inner && !p.starts_with('-') && !p.ends_with('-')
    };
    is_label_value(name) && prefix.is_none_or(|p| p.len() <= 253 && p.split('.').all(part))
}
