//! What is told of a load, and the columns that it has in tables.

use dwcp_benches::report::{median, min_max};
use serde::{Deserialize, Serialize};

/// One of them. The order is that of the columns.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) enum Figure {
    PerSecond,
    SwapsPerSecond,
    P50Us,
    P99Us,
    EventsPerSecond,
    LastWatcherP50Ms,
    LastWatcherP99Ms,
    /// Of all members, for 100,000 operations or events.
    CpuSeconds,
    /// Of all members, for each operation.
    WrittenBytes,
    /// Of the largest member.
    RssMib,
    /// Without an accepted write; one for each time that a leader ended.
    GapMs,
    /// The longest of a usual second.
    UsualGapMs,
    JoinS,
    JoinMibPerSecond,
    DiskMibPerSecond,
    /// The quotient of the two.
    OfDisk,
    P99BeforeUs,
    P99DuringUs,
    /// The quotient of the two.
    P99Ratio,
    Failed,
}

/// A column: its heading, what it shows of the values, and how many decimals.
pub(crate) type Column = (&'static str, fn(&[f64]) -> Option<f64>, usize);

impl Figure {
    pub(crate) fn columns(self) -> &'static [Column] {
        match self {
            Self::PerSecond => &[("per second", median, 0)],
            Self::SwapsPerSecond => &[("swaps per second", median, 0)],
            Self::P50Us => &[("p50 µs", median, 0)],
            Self::P99Us => &[("p99 µs", median, 0)],
            Self::CpuSeconds => &[("CPU s per 100,000", median, 1)],
            Self::WrittenBytes => &[("disk bytes each", median, 0)],
            Self::RssMib => &[("RSS MiB", median, 0)],
            Self::EventsPerSecond => &[("events per second", median, 0)],
            Self::LastWatcherP50Ms => &[("put to last watcher, p50 ms", median, 1)],
            Self::LastWatcherP99Ms => &[("p99 ms", median, 1)],
            Self::GapMs => {
                &[("median ms", median, 1), ("p99 ms", p99, 1), ("worst ms", worst, 1), ("times", count, 0)]
            }
            Self::UsualGapMs => &[("in a usual second, ms", median, 1)],
            Self::JoinS => &[("seconds", median, 1)],
            Self::JoinMibPerSecond => &[("MiB/s", median, 0)],
            Self::DiskMibPerSecond => &[("disk MiB/s", median, 0)],
            Self::OfDisk => &[("of the disk's rate", median, 2)],
            Self::P99BeforeUs => &[("put p99 before, µs", median, 0)],
            Self::P99DuringUs => &[("put p99 during, µs", median, 0)],
            Self::P99Ratio => &[("during / before", median, 2)],
            Self::Failed => &[("failed", total, 0)],
        }
    }
}

fn count(values: &[f64]) -> Option<f64> {
    Some(values.len() as f64)
}

pub(crate) fn total(values: &[f64]) -> Option<f64> {
    Some(values.iter().sum())
}

pub(crate) fn worst(values: &[f64]) -> Option<f64> {
    (!values.is_empty()).then(|| min_max(values).1)
}

/// The smallest value that 99 of 100 do not exceed.
pub(crate) fn p99(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let rank = (0.99 * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.checked_sub(1)?).copied()
}

#[cfg(test)]
mod tests {
    use super::{p99, total, worst};

    #[test]
    fn many_values_become_one() {
        let values: Vec<f64> = (1..=200).rev().map(f64::from).collect();
        assert_eq!(p99(&values), Some(198.0));
        assert_eq!(worst(&values), Some(200.0));
        assert_eq!(p99(&[7.0, 5.0]), Some(7.0));
        assert_eq!((p99(&[]), worst(&[])), (None, None));
        assert_eq!(total(&[1.0, 0.0, 2.0]), Some(3.0));
    }
}
