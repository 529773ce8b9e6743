//! What should not be between regions, counted by kind and region since this leader began.

use std::collections::BTreeMap;

use consensus_proto::regions;
use consensus_regions::{Alarm, RegionId};

/// Kinds, as metrics and clients know them.
pub(super) const KINDS: [&str; 5] = ["clock_ahead", "forgotten", "behind", "differs", "busy"];

#[derive(Debug, Default)]
pub(super) struct Alarms {
    /// How often, and the last one in words.
    found: BTreeMap<(&'static str, RegionId), (u64, String)>,
}

impl Alarms {
    pub(super) fn raise(&mut self, alarm: Alarm) {
        let (kind, region) = name(alarm);
        let text = text(alarm);
        let (count, last) = self.found.entry((kind, region)).or_default();
        *count += 1;
        // One that goes on is said once, then each time that its number has doubled.
        if count.is_power_of_two() {
            tracing::error!(kind, %region, times = *count, "{text}");
        }
        *last = text;
        metrics::counter!("consensus_replication_alarms_total", "kind" => kind).increment(1);
        if let Alarm::Differs { items, .. } = alarm {
            metrics::counter!("consensus_replication_repaired_items_total").increment(items as u64);
        }
    }

    pub(super) fn list(&self) -> Vec<regions::Alarm> {
        let alarm = |((kind, region), (count, text)): (&(&str, RegionId), &(u64, String))| regions::Alarm {
            kind: (*kind).to_owned(),
            region: region.0,
            count: *count,
            text: text.clone(),
        };
        self.found.iter().map(alarm).collect()
    }
}

fn name(alarm: Alarm) -> (&'static str, RegionId) {
    match alarm {
        Alarm::ClockAhead { region, .. } => (KINDS[0], region),
        Alarm::Forgotten { region, .. } => (KINDS[1], region),
        Alarm::Behind { region } => (KINDS[2], region),
        Alarm::Differs { region, .. } => (KINDS[3], region),
        Alarm::Busy { region } => (KINDS[4], region),
    }
}

fn text(alarm: Alarm) -> String {
    match alarm {
        Alarm::ClockAhead { region, error } => {
            format!("the clock of region {region} gives {error}: it is not heard until time has caught up")
        }
        Alarm::Forgotten { region, theirs, ours } => format!(
            "region {region} knows {theirs} changes of this one, which has made {ours}: this one's data is of a backup. It has \
             to come back under a new number"
        ),
        Alarm::Behind { region } => format!(
            "region {region} has collected tombstones that this one has never seen: this one's data is of a backup, or it was \
             removed. It has to come back under a new number"
        ),
        Alarm::Differs { region, items } => {
            format!(
                "{items} items differed from those of region {region}, though both had all changes: repaired"
            )
        }
        Alarm::Busy { region } => format!("region {region} sends faster than this one can merge"),
    }
}
