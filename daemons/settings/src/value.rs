//! Values as text: sizes (`KiB MiB GiB`), durations (`ms s m h`), and the words that stand for "none".

use std::{fmt::Display, str::FromStr, time::Duration};

const SIZE_UNITS: [(&str, u64); 4] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("", 1)];
const DURATION_UNITS: [(&str, u64); 4] = [("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)];

/// What [`size`] reads.
pub const SIZE: &str = "bytes, or a number with KiB, MiB or GiB";
/// What [`duration`] reads.
pub const DURATION: &str = "a number with ms, s, m or h, more than 0";

/// Bytes: a number, with `KiB`, `MiB` or `GiB` if need be.
pub fn size(text: &str) -> Option<u64> {
    with_unit(text, &SIZE_UNITS)
}

/// The largest unit that divides it.
pub fn print_size(bytes: u64) -> String {
    print_with_unit(bytes, &SIZE_UNITS)
}

/// A duration longer than nothing.
pub fn duration(text: &str) -> Option<Duration> {
    with_unit(text, &DURATION_UNITS).filter(|ms| *ms > 0).map(Duration::from_millis)
}

/// The largest unit that divides it.
pub fn print_duration(duration: Duration) -> String {
    print_with_unit(duration.as_millis() as u64, &DURATION_UNITS)
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
            ("0s", None),
            ("5", None),
            ("5 d", None),
            ("1.5s", None),
            ("", None),
        ] {
            assert_eq!(duration(text), expected.map(Duration::from_millis), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn what_is_printed_is_read_again(bytes: u64, ms in 1_u64..=1 << 40) {
            prop_assert_eq!(size(&print_size(bytes)), Some(bytes));
            let time = Duration::from_millis(ms);
            prop_assert_eq!(duration(&print_duration(time)), Some(time));
        }
    }
}
