//! Quantities of a resource as Kubernetes writes them (`resource.Quantity`), in whole numbers: memory in bytes, CPU in thousandths of a core, which is as
//! fine as the kubelet gives either.

use crate::policy::Resource;

/// Suffixes, and what they stand for: a numerator and a denominator.
const UNITS: [(&str, u128, u128); 15] = [
    ("Ki", 1 << 10, 1),
    ("Mi", 1 << 20, 1),
    ("Gi", 1 << 30, 1),
    ("Ti", 1 << 40, 1),
    ("Pi", 1 << 50, 1),
    ("Ei", 1 << 60, 1),
    ("n", 1, 1_000_000_000),
    ("u", 1, 1_000_000),
    ("m", 1, 1_000),
    ("k", 1_000, 1),
    ("M", 1_000_000, 1),
    ("G", 1_000_000_000, 1),
    ("T", 1_000_000_000_000, 1),
    ("P", 1_000_000_000_000_000, 1),
    ("E", 1_000_000_000_000_000_000, 1),
];
/// Most digits of a number: none that a person writes is longer, and with its unit it fits into 128 bits.
const MAX_DIGITS: usize = 18;

/// Reads one, rounded up as Kubernetes does; `None` of what is none, is negative, or is beyond 64 bits.
#[must_use]
pub fn parse(text: &str, of: Resource) -> Option<u64> {
    let unit = UNITS.iter().find_map(|(suffix, up, down)| Some((text.strip_suffix(suffix)?, *up, *down)));
    let (number, up, down) = unit.or_else(|| scientific(text)).unwrap_or((text, 1, 1));
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let digits = format!("{whole}{fraction}");
    if whole.is_empty() || digits.len() > MAX_DIGITS || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let scale = 10_u128.checked_pow(u32::try_from(fraction.len()).ok()?)?;
    let parts = if matches!(of, Resource::Cpu) { 1_000 } else { 1 };
    let value = digits.parse::<u128>().ok()?.checked_mul(up)?.checked_mul(parts)?;
    u64::try_from(value.div_ceil(scale.checked_mul(down)?)).ok()
}

/// `1e3`, `5E-1`.
fn scientific(text: &str) -> Option<(&str, u128, u128)> {
    let (number, exponent) = text.split_once(['e', 'E'])?;
    let exponent: i32 = exponent.parse().ok()?;
    let power = 10_u128.checked_pow(exponent.unsigned_abs()).filter(|_| exponent.unsigned_abs() <= 18)?;
    Some(if exponent < 0 { (number, 1, power) } else { (number, power, 1) })
}

/// Writes one, with the largest unit of which it is a multiple.
#[must_use]
pub fn text(amount: u64, of: Resource) -> String {
    let units: &[(&str, u64)] = match of {
        Resource::Cpu => &[("", 1_000)],
        Resource::Memory => &[("Gi", 1 << 30), ("Mi", 1 << 20), ("Ki", 1 << 10)],
    };
    let least = if matches!(of, Resource::Cpu) { "m" } else { "" };
    let unit = units.iter().find(|(_, size)| amount >= *size && amount.is_multiple_of(*size));
    unit.map_or_else(|| format!("{amount}{least}"), |(unit, size)| format!("{}{unit}", amount / size))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_are_read_as_kubernetes_writes_them() {
        let cases = [
            ("64Mi", Resource::Memory, Some(64 << 20)),
            ("1.5Gi", Resource::Memory, Some(3 << 29)),
            ("128974848", Resource::Memory, Some(128_974_848)),
            ("129e6", Resource::Memory, Some(129_000_000)),
            ("129M", Resource::Memory, Some(129_000_000)),
            ("128974848000m", Resource::Memory, Some(128_974_848)),
            ("7E", Resource::Memory, Some(7_000_000_000_000_000_000)),
            ("100m", Resource::Cpu, Some(100)),
            ("0.1", Resource::Cpu, Some(100)),
            ("2", Resource::Cpu, Some(2_000)),
            ("5e-1", Resource::Cpu, Some(500)),
            ("1n", Resource::Cpu, Some(1)),
            ("0", Resource::Cpu, Some(0)),
            ("", Resource::Memory, None),
            ("Mi", Resource::Memory, None),
            ("-1", Resource::Cpu, None),
            ("85%", Resource::Memory, None),
            ("1e99", Resource::Memory, None),
            ("100Ei", Resource::Memory, None),
            ("1 Gi", Resource::Memory, None),
        ];
        for (text, of, amount) in cases {
            assert_eq!(parse(text, of), amount, "{text}");
        }
    }

    #[test]
    fn what_is_written_is_short_and_reads_back() {
        let cases = [
            (80 << 20, Resource::Memory, "80Mi"),
            (2 << 30, Resource::Memory, "2Gi"),
            (6_553_600, Resource::Memory, "6400Ki"),
            (1_000, Resource::Memory, "1000"),
            (1_250, Resource::Cpu, "1250m"),
            (2_000, Resource::Cpu, "2"),
            (0, Resource::Cpu, "0m"),
        ];
        for (amount, of, written) in cases {
            assert_eq!(text(amount, of), written);
            assert_eq!(parse(written, of), Some(amount));
        }
    }
}
