//! Values as text: sizes (`KiB MiB GiB`), durations as Go writes them (`ms s m h`), and the words that stand for "none".

use std::{fmt::Display, str::FromStr, time::Duration};

const SIZE_UNITS: [(&str, u64); 4] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("", 1)];
/// In nanoseconds. Go has two letters for the micro sign.
const DURATION_UNITS: [(&str, u64); 8] = [
    ("h", 3_600_000_000_000),
    ("m", 60_000_000_000),
    ("s", 1_000_000_000),
    ("ms", 1_000_000),
    ("us", 1000),
    ("ns", 1),
    ("\u{b5}s", 1000),
    ("\u{3bc}s", 1000),
];
/// As Go has it: 292 years.
const NANOSECONDS_MAX: u64 = i64::MAX as u64;

/// What [`size`] reads.
pub const SIZE: &str = "bytes, or a number with KiB, MiB or GiB";
/// What [`duration`] reads.
pub const DURATION: &str = "numbers with ms, s, m or h, as in 100ms or 1h30m, more than 0";

/// Bytes: a number, with `KiB`, `MiB` or `GiB` if need be.
pub fn size(text: &str) -> Option<u64> {
    with_unit(text, &SIZE_UNITS)
}

/// The largest unit that divides it.
pub fn print_size(bytes: u64) -> String {
    print_with_unit(bytes, &SIZE_UNITS)
}

/// A duration longer than nothing, as Go's `time.ParseDuration` reads it, which etcd uses: numbers that may have a fraction, each
/// with its unit. A space before a unit is allowed as well.
pub fn duration(text: &str) -> Option<Duration> {
    let (mut rest, mut sum) = (text.strip_prefix('+').unwrap_or(text), 0_u64);
    while !rest.is_empty() {
        let number = rest.split(|c: char| !c.is_ascii_digit() && c != '.').next().unwrap_or_default();
        let unit = rest[number.len()..].trim_start();
        let letters = unit.split(|c: char| !c.is_alphabetic()).next().unwrap_or_default();
        let (_, factor) = DURATION_UNITS.iter().find(|(name, _)| *name == letters)?;
        sum = sum.checked_add(nanoseconds(number, *factor)?)?;
        rest = &unit[letters.len()..];
    }
    (1..=NANOSECONDS_MAX).contains(&sum).then(|| Duration::from_nanos(sum))
}

/// A number of a unit; what is less than a nanosecond is dropped.
fn nanoseconds(number: &str, unit: u64) -> Option<u64> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() && fraction.is_empty() || fraction.contains('.') {
        return None;
    }
    let whole = if whole.is_empty() { 0 } else { whole.parse::<u64>().ok()? };
    // Of an hour, the thirteenth digit is less than a nanosecond.
    let digits = &fraction[..fraction.len().min(18)];
    let part = if digits.is_empty() { 0 } else { digits.parse::<u128>().ok()? };
    let part = part * u128::from(unit) / 10_u128.pow(digits.len() as u32);
    whole.checked_mul(unit)?.checked_add(u64::try_from(part).ok()?)
}

/// The items of a list.
pub fn items(text: &str) -> impl Iterator<Item = &str> {
    text.split(',').map(str::trim).filter(|item| !item.is_empty())
}

/// The largest unit that divides it.
pub fn print_duration(duration: Duration) -> String {
    print_with_unit(duration.as_nanos().try_into().unwrap_or(NANOSECONDS_MAX), &DURATION_UNITS[..6])
}

/// `word` for `None`, anything else as `parse` reads it.
pub fn unless<T>(text: &str, word: &str, parse: impl Fn(&str) -> Option<T>) -> Option<Option<T>> {
    if text == word { Some(None) } else { parse(text).map(Some) }
}

/// The reverse of [`unless`].
pub fn print_unless<T>(value: Option<T>, word: &str, print: impl Fn(T) -> String) -> String {
    value.map_or_else(|| word.to_owned(), print)
}

/// Anything that Rust reads by itself.
pub fn parsed<T: FromStr>(text: &str) -> Option<T> {
    text.parse().ok()
}

/// Anything as Rust prints it.
pub fn printed(value: impl Display) -> String {
    value.to_string()
}

fn with_unit(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, unit) = text.split_at(digits);
    let (_, factor) = units.iter().find(|(name, _)| *name == unit.trim_start())?;
    number.parse::<u64>().ok()?.checked_mul(*factor)
}

fn print_with_unit(value: u64, units: &[(&str, u64)]) -> String {
    let divides = |factor: u64| value >= factor && value.is_multiple_of(factor);
    let (name, factor) = units.iter().find(|(_, factor)| divides(*factor)).unwrap_or(&units[units.len() - 1]);
    let space = if name.ends_with("iB") { " " } else { "" };
    format!("{}{space}{name}", value / factor)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn sizes() {
        for (text, expected) in [
            ("0", Some(0)),
            ("1000", Some(1000)),
            ("4KiB", Some(4096)),
            ("4 MiB", Some(4 << 20)),
            ("2 GiB", Some(2 << 30)),
            ("17179869184 GiB", None),
            ("18446744073709551616", None),
            ("4 kib", None),
            ("4 KB", None),
            ("4.5 KiB", None),
            ("-1", None),
            ("KiB", None),
            ("", None),
        ] {
            assert_eq!(size(text), expected, "{text:?}");
        }
    }

    #[test]
    fn durations() {
        for (text, expected) in [
            ("100ms", Some(100)),
            ("5s", Some(5000)),
            ("15m", Some(900_000)),
            ("2h", Some(7_200_000)),
            ("5 s", Some(5000)),
            ("1h30m", Some(5_400_000)),
            ("1h15m30.918s", Some(4_530_918)),
            ("1.5s", Some(1500)),
            (".5s", Some(500)),
            ("1.s", Some(1000)),
            ("+5s", Some(5000)),
            ("1m1m", Some(120_000)),
            ("2562047h47m16s", Some(9_223_372_036_000)),
            ("2562047h47m17s", None),
            ("0s", None),
            ("0", None),
            ("5", None),
            ("5 d", None),
            ("-5s", None),
            ("1h 30m", None),
            ("1h30", None),
            ("1..5s", None),
            ("1.5.5s", None),
            (".s", None),
            ("s", None),
            ("+", None),
            ("", None),
        ] {
            assert_eq!(duration(text), expected.map(Duration::from_millis), "{text:?}");
        }
        assert_eq!(duration("0.1\u{b5}s1\u{3bc}s2us3ns"), Some(Duration::from_nanos(3103)));
        assert_eq!(print_duration(Duration::from_secs(5400)), "90m");
        assert_eq!(print_duration(Duration::from_micros(1500)), "1500us");
    }

    proptest! {
        #[test]
        fn what_is_printed_is_read_again(bytes: u64, nanoseconds in 1..=NANOSECONDS_MAX, ms in 1_u64..=1 << 40) {
            prop_assert_eq!(size(&print_size(bytes)), Some(bytes));
            let time = Duration::from_nanos(nanoseconds);
            prop_assert_eq!(duration(&print_duration(time)), Some(time));
            let time = Duration::from_millis(ms);
            prop_assert_eq!(duration(&print_duration(time)), Some(time));
        }
    }
}
