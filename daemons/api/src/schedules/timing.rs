//! When a schedule is due: instants of a cron expression in a time zone, also where the zone's clocks are set. Pure: time is
//! an argument. Instants are milliseconds since 1970.
//!
//! An expression of one minute and one hour is of a fixed time. Clocks that are put forward over it: it is due at the first
//! moment after the gap; put back over it: the first time only. All others go by what clocks show: what falls into a gap is not
//! due, and what clocks show twice is due twice.

use croner::{
    Cron,
    parser::{CronParser, Seconds, Year},
};
use jiff::{Timestamp, Zoned, tz::TimeZone};

use crate::http::problem::FieldError;

/// Longest expression in bytes.
pub(crate) const CRON_BYTES_MAX: usize = 128;
/// Longest name of a time zone in bytes.
pub(crate) const ZONE_BYTES_MAX: usize = 64;
const FIELDS: usize = 5;
/// A day that is left out is passed in so many steps of half a day.
const GAP_STEPS_MAX: u64 = 2;
const GAP_STEP_MS: u64 = 12 * 60 * 60 * 1000;

/// When something is due.
#[derive(Clone, Debug)]
pub(crate) struct Timing {
    cron: Cron,
    zone: TimeZone,
}

impl Timing {
    /// Reads both, or says what is wrong with which.
    pub(crate) fn new(cron: &str, zone: &str) -> Result<Self, FieldError> {
        let wrong = |field: &str, detail: String| FieldError { field: field.to_owned(), detail };
        let fields = cron.split_ascii_whitespace().count();
        if cron.len() > CRON_BYTES_MAX || fields != FIELDS || cron.contains('@') || !cron.is_ascii() {
            let detail = "expected minute, hour, day of month, month and day of week, as in 30 2 * * mon-fri";
            return Err(wrong("cron", detail.to_owned()));
        }
        let parser = CronParser::builder().seconds(Seconds::Disallowed).year(Year::Disallowed).build();
        let cron = parser.parse(cron).map_err(|error| wrong("cron", error.to_string()))?;
        let found = (zone.len() <= ZONE_BYTES_MAX).then(|| TimeZone::get(zone).ok()).flatten();
        // As it is written: names that differ only in case are not the same everywhere.
        let found = found.filter(|found| found.iana_name() == Some(zone));
        let zone = found.ok_or_else(|| {
            wrong(
                "time_zone",
                "expected the name of a zone of the IANA database, as in Europe/Berlin".to_owned(),
            )
        })?;
        Ok(Self { cron, zone })
    }

    /// The first due instant after this one.
    pub(crate) fn next(&self, after_ms: u64) -> Option<u64> {
        // croner gives up where more than two hours are left out, as was a whole day in Samoa: it is asked again from behind that.
        (0..=GAP_STEPS_MAX).find_map(|step| self.found(after_ms.saturating_add(step * GAP_STEP_MS)))
    }

    fn found(&self, after_ms: u64) -> Option<u64> {
        self.cron.find_next_occurrence(&self.at(after_ms)?, false).ok().and_then(|next| ms(&next))
    }

    /// The last due instants after `after_ms` and until `until_ms`, as many as `max`, the oldest first.
    pub(crate) fn last(&self, after_ms: u64, until_ms: u64, max: usize) -> Vec<u64> {
        let mut found = Vec::new();
        let (mut from, mut may_be_it) = (until_ms, true);
        while found.len() < max {
            let Some(at) = self.at(from) else { break };
            let before =
                self.cron.find_previous_occurrence(&at, may_be_it).ok().and_then(|before| ms(&before));
            let Some(before) = before.filter(|before| *before > after_ms && (may_be_it || *before < from))
            else {
                break;
            };
            found.push(before);
            (from, may_be_it) = (before, false);
        }
        found.reverse();
        found
    }

    /// To the second: no instant is between.
    fn at(&self, ms: u64) -> Option<Zoned> {
        let seconds = i64::try_from(ms / 1000).ok()?;
        Some(Timestamp::from_second(seconds).ok()?.to_zoned(self.zone.clone()))
    }
}

fn ms(zoned: &Zoned) -> Option<u64> {
    zoned.timestamp().as_millisecond().try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY_MS: u64 = 24 * 60 * 60 * 1000;

    fn at(text: &str) -> u64 {
        text.parse::<Timestamp>().unwrap().as_millisecond() as u64
    }

    fn shown(ms: u64) -> String {
        Timestamp::from_millisecond(ms as i64).unwrap().to_string()
    }

    fn forward(timing: &Timing, after: u64, until: u64) -> Vec<u64> {
        let next = |at: &u64| timing.next(*at).filter(|next| *next <= until);
        std::iter::successors(next(&after), next).collect()
    }

    #[test]
    fn instants_where_clocks_are_set() {
        // Berlin: forward at 2026-03-29T01:00Z, from 2:00 to 3:00; back at 2026-10-25T01:00Z, from 3:00 to 2:00.
        // Lord Howe Island: by half an hour, forward at 2026-10-03T15:30Z, back at 2026-04-04T15:00Z.
        let (berlin, howe) = ("Europe/Berlin", "Australia/Lord_Howe");
        for (cron, zone, from, to, expected) in [
            (
                "0 0 * * *",
                "UTC",
                "2026-01-01T00:00:00Z",
                "2026-01-03T00:00:00Z",
                "01-02T00:00:00 01-03T00:00:00",
            ),
            // Fixed, in the gap: the moment after it. The days beside are as ever.
            (
                "30 2 * * *",
                berlin,
                "2026-03-28T00:00:00Z",
                "2026-03-30T12:00:00Z",
                "03-28T01:30:00 03-29T01:00:00 03-30T00:30:00",
            ),
            // By the clock, in the gap: not due.
            (
                "*/30 2 * * *",
                berlin,
                "2026-03-28T12:00:00Z",
                "2026-03-30T12:00:00Z",
                "03-30T00:00:00 03-30T00:30:00",
            ),
            (
                "15 * * * *",
                berlin,
                "2026-03-28T23:30:00Z",
                "2026-03-29T02:30:00Z",
                "03-29T00:15:00 03-29T01:15:00 03-29T02:15:00",
            ),
            // Fixed, and shown twice: the first time.
            (
                "30 2 * * *",
                berlin,
                "2026-10-24T12:00:00Z",
                "2026-10-26T12:00:00Z",
                "10-25T00:30:00 10-26T01:30:00",
            ),
            // By the clock, and shown twice: both.
            (
                "*/30 2 * * *",
                berlin,
                "2026-10-24T12:00:00Z",
                "2026-10-25T12:00:00Z",
                "10-25T00:00:00 10-25T00:30:00 10-25T01:00:00 10-25T01:30:00",
            ),
            ("15 2 * * *", howe, "2026-10-03T00:00:00Z", "2026-10-04T12:00:00Z", "10-03T15:30:00"),
            ("45 1 * * *", howe, "2026-04-04T00:00:00Z", "2026-04-05T12:00:00Z", "04-04T14:45:00"),
            // The day that Samoa left out is of 2011.
            (
                "0 12 * * *",
                "Pacific/Apia",
                "2011-12-29T12:00:00Z",
                "2011-12-31T12:00:00Z",
                "12-29T22:00:00 12-30T22:00:00",
            ),
            // Leap days, and one of two days: either will do.
            (
                "0 0 29 2 *",
                "UTC",
                "2026-01-01T00:00:00Z",
                "2033-01-01T00:00:00Z",
                "02-29T00:00:00 02-29T00:00:00",
            ),
            (
                "0 0 13 * fri",
                "UTC",
                "2026-01-10T00:00:00Z",
                "2026-01-17T00:00:00Z",
                "01-13T00:00:00 01-16T00:00:00",
            ),
        ] {
            let timing = Timing::new(cron, zone).unwrap();
            let instants = forward(&timing, at(from), at(to));
            let texts: Vec<_> = instants.iter().map(|ms| shown(*ms)[5..19].to_owned()).collect();
            assert_eq!(texts.join(" "), expected, "{cron} {zone}");
        }
    }

    #[test]
    fn backward_and_forward_are_the_same() {
        let crons = [
            "0 2 * * *",
            "30 2 * * *",
            "59 1 * * *",
            "*/20 1-3 * * *",
            "0 */2 * * *",
            "7 3 * * sun",
            "0 0 * * *",
            "15,45 2 * * *",
        ];
        let zones = [
            "UTC",
            "Europe/Berlin",
            "America/New_York",
            "Australia/Lord_Howe",
            "America/Sao_Paulo",
            "Africa/Casablanca",
            "Asia/Kathmandu",
        ];
        let (from, until) = (at("2025-12-01T00:00:01Z"), at("2026-12-01T00:00:00Z"));
        for (cron, zone) in crons.iter().flat_map(|cron| zones.map(|zone| (cron, zone))) {
            let timing = Timing::new(cron, zone).unwrap();
            let forward = forward(&timing, from, until);
            assert_eq!(timing.last(from, until, usize::MAX), forward, "{cron} {zone}");
            assert!(forward.is_sorted_by(|a, b| a < b), "{cron} {zone}");
            // From in between, it is what is left.
            for at in (from..until).step_by(7 * DAY_MS as usize) {
                let rest = forward.partition_point(|instant| *instant <= at);
                assert_eq!(
                    timing.next(at),
                    forward.get(rest).copied().or(timing.next(until)),
                    "{cron} {zone} {at}"
                );
            }
        }
    }

    #[test]
    fn the_last_ones_are_as_many_as_are_wanted() {
        let timing = Timing::new("* * * * *", "UTC").unwrap();
        let minute = |n: u64| n * 60_000;
        assert_eq!(timing.last(minute(2), minute(5), 10), [minute(3), minute(4), minute(5)]);
        assert_eq!(timing.last(minute(2), minute(5) + 59_999, 2), [minute(4), minute(5)]);
        assert_eq!(timing.last(0, minute(1_000_000), 3).len(), 3);
        assert!(timing.last(minute(5), minute(5), 10).is_empty());
        assert!(timing.last(minute(6), minute(5), 10).is_empty());
        assert_eq!(timing.next(minute(5)), Some(minute(6)));
        assert_eq!(timing.next(minute(6) - 1), Some(minute(6)));
        assert_eq!(timing.next(u64::MAX), None);
    }

    #[test]
    fn what_is_no_timing() {
        let long = format!("{} * * * *", vec!["1"; 100].join(","));
        for (cron, zone, field) in [
            ("* * * *", "UTC", "cron"),
            ("* * * * * *", "UTC", "cron"),
            ("@daily", "UTC", "cron"),
            ("@daily a b c d", "UTC", "cron"),
            ("60 * * * *", "UTC", "cron"),
            ("* 24 * * *", "UTC", "cron"),
            ("* * 0 * *", "UTC", "cron"),
            ("* * * 13 *", "UTC", "cron"),
            ("* * * * 8", "UTC", "cron"),
            ("*/0 * * * *", "UTC", "cron"),
            ("5-1 * * * *", "UTC", "cron"),
            ("a * * * *", "UTC", "cron"),
            ("\u{fc} * * * *", "UTC", "cron"),
            (&long, "UTC", "cron"),
            ("", "UTC", "cron"),
            ("* * * * *", "", "time_zone"),
            ("* * * * *", "europe/berlin", "time_zone"),
            ("* * * * *", "Europe/Nowhere", "time_zone"),
            ("* * * * *", "CET-1CEST", "time_zone"),
            ("* * * * *", "../../etc/passwd", "time_zone"),
        ] {
            assert_eq!(Timing::new(cron, zone).unwrap_err().field, field, "{cron:?} {zone:?}");
        }
        // Never due; it is found out in a bounded time.
        assert_eq!(Timing::new("0 0 30 2 *", "Europe/Berlin").unwrap().next(0), None);
    }
}
