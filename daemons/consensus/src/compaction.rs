//! What etcd's two settings of automatic compaction mean together.

use std::time::Duration;

use consensus_etcd::AutoCompaction;
use novacron_settings::value::duration;

use crate::settings::CompactionMode;

const HOUR_S: u64 = 3600;
/// A shorter time would be compacted more often than it is looked at; a longer one than this is a mistake.
const TIME_MIN: Duration = Duration::from_millis(100);
const TIME_MAX: Duration = Duration::from_secs(8760 * HOUR_S);

/// `Some(None)`: nothing is compacted. `None`: it makes no sense.
pub(crate) fn keeps(mode: CompactionMode, retention: &str) -> Option<Option<AutoCompaction>> {
    let number = retention.parse::<u32>().ok();
    match (mode, number) {
        (_, Some(0)) => Some(None),
        (CompactionMode::Revision, number) => number.map(|n| Some(AutoCompaction::Revisions(n.into()))),
        (CompactionMode::Periodic, number) => {
            let hours = number.map(|n| Duration::from_secs(u64::from(n) * HOUR_S));
            let kept = hours.or_else(|| duration(retention))?;
            (TIME_MIN..=TIME_MAX).contains(&kept).then_some(Some(AutoCompaction::Periodic(kept)))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retentions_are_read_as_etcd_reads_them() {
        use CompactionMode::{Periodic, Revision};
        let time = |seconds| Some(Some(AutoCompaction::Periodic(Duration::from_secs(seconds))));
        for (mode, retention, expected) in [
            (Periodic, "0", Some(None)),
            (Periodic, "1", time(3600)),
            (Periodic, "72h", time(72 * 3600)),
            (Periodic, "5m", time(300)),
            (Periodic, "1h30m", time(5400)),
            (Periodic, "1.5h", time(5400)),
            (Periodic, "1ms", None),
            (Periodic, "9000", None),
            (Periodic, "-1", None),
            (Revision, "0", Some(None)),
            (Revision, "1000", Some(Some(AutoCompaction::Revisions(1000)))),
            (Revision, "1h", None),
        ] {
            assert_eq!(keeps(mode, retention), expected, "{mode:?} {retention}");
        }
    }
}
