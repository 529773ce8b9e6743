//! What a region's leader counts.

use std::collections::BTreeMap;

use metrics::{counter, describe_counter, describe_gauge, gauge};

use super::alarm::KINDS;

/// Tells the recorder what the metrics mean.
pub fn describe() {
    describe_gauge!(
        "consensus_replication_lag_seconds",
        "For how long a region has not heard of the oldest change of this region that it is not known to know. 0 on who does not lead."
    );
    describe_gauge!(
        "consensus_replication_connected",
        "Whether there is a connection to the leader of a region."
    );
    describe_counter!(
        "consensus_replication_sent_bytes_total",
        "Bytes of messages to a region, before compression."
    );
    describe_gauge!(
        "consensus_replication_clock_correction_seconds",
        "What this member adds to its clock for changes that other regions are told of, because most members say so."
    );
    describe_counter!("consensus_replication_received_bytes_total", "Bytes of messages from a region.");
    describe_counter!("consensus_replication_merges_total", "Deltas of other regions that were merged.");
    describe_counter!("consensus_replication_alarms_total", "What should not be between regions, by kind.");
    describe_counter!(
        "consensus_replication_repaired_items_total",
        "Items that differed between regions that knew the same changes."
    );
}

/// Begins with zero what a region can count.
pub(super) fn begin() {
    for kind in KINDS {
        counter!("consensus_replication_alarms_total", "kind" => kind).increment(0);
    }
    counter!("consensus_replication_repaired_items_total").increment(0);
    counter!("consensus_replication_merges_total").increment(0);
}

/// Regions that have labels of their own.
#[derive(Debug, Default)]
pub(super) struct Gauges {
    /// By number; their names.
    labels: BTreeMap<u32, String>,
}

impl Gauges {
    /// What a region is called in labels: its name, or its number.
    pub(super) fn label(&mut self, region: u32, name: &str) -> String {
        let label = if name.is_empty() { region.to_string() } else { name.to_owned() };
        self.labels.insert(region, label.clone());
        label
    }

    pub(super) fn sent(&self, region: u32, bytes: usize) {
        if let Some(label) = self.labels.get(&region) {
            counter!("consensus_replication_sent_bytes_total", "region" => label.clone())
                .increment(bytes as u64);
        }
    }

    pub(super) fn received(&self, region: u32, bytes: usize) {
        if let Some(label) = self.labels.get(&region) {
            let counter = counter!("consensus_replication_received_bytes_total", "region" => label.clone());
            counter.increment(bytes as u64);
        }
    }

    pub(super) fn set(&self, label: &str, lag_ms: u64, connected: bool) {
        let label = label.to_owned();
        gauge!("consensus_replication_lag_seconds", "region" => label.clone()).set(lag_ms as f64 / 1000.0);
        gauge!("consensus_replication_connected", "region" => label).set(f64::from(u8::from(connected)));
    }
}

/// Who does not lead any more knows of no lag.
impl Drop for Gauges {
    fn drop(&mut self) {
        self.labels.values().for_each(|label| self.set(label, 0, false));
    }
}
