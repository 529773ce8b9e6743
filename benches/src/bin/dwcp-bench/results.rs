//! What was measured, as it is stored.

use std::path::Path;

use anyhow::{Context as _, Result};
use dwcp_benches::report::{Machine, median, ratio};
use serde::{Deserialize, Serialize};

use crate::{
    compression,
    contender::{Group, Measured},
    control,
    lab::Lab,
};

/// One run of the whole bench.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Results {
    pub(crate) machine: Machine,
    pub(crate) rounds: usize,
    pub(crate) seconds: f64,
    pub(crate) rows: Vec<Row>,
    #[serde(default)]
    pub(crate) control: Vec<control::Cell>,
    pub(crate) compression: Vec<compression::Cell>,
    /// What `dwcp-lab compare --json` wrote: DWCP beside its peers, and DWCP alone for longer.
    pub(crate) lab: Option<Lab>,
    #[serde(default)]
    pub(crate) course: Option<Lab>,
    /// What `cargo bench --bench allocations --bench memory` printed.
    #[serde(default)]
    pub(crate) counted: Option<String>,
}

/// One contender in one table. One value per round.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Row {
    pub(crate) group: Group,
    pub(crate) name: String,
    /// Bits per second, messages per second, or the median round trip in microseconds.
    pub(crate) values: Vec<f64>,
    /// Rounds without a value.
    pub(crate) failures: u32,
    /// 99th percentiles of the round trip in microseconds.
    pub(crate) p99: Vec<f64>,
    /// Peak resident memory of server and client, KiB.
    pub(crate) server_rss_kib: Vec<f64>,
    pub(crate) client_rss_kib: Vec<f64>,
}

impl Row {
    pub(crate) fn new(group: Group, name: &str) -> Self {
        Self {
            group,
            name: name.to_owned(),
            values: Vec::new(),
            failures: 0,
            p99: Vec::new(),
            server_rss_kib: Vec::new(),
            client_rss_kib: Vec::new(),
        }
    }

    pub(crate) fn push(&mut self, measured: &Measured) {
        self.values.push(measured.value);
        self.p99.extend(measured.p99_us);
        self.server_rss_kib.extend(measured.server_rss_kib.map(|kib| kib as f64));
        self.client_rss_kib.extend(measured.client_rss_kib.map(|kib| kib as f64));
    }
}

impl Results {
    pub(crate) fn new(rounds: usize, seconds: f64) -> Self {
        let machine = Machine::current("dwcp-bench");
        let (rows, control, compression) = (Vec::new(), Vec::new(), Vec::new());
        Self { machine, rounds, seconds, rows, control, compression, lab: None, course: None, counted: None }
    }

    /// The rows of a table.
    pub(crate) fn group(&self, group: Group) -> impl Iterator<Item = &Row> {
        self.rows.iter().filter(move |row| row.group == group)
    }

    /// The median value of one row.
    pub(crate) fn value(&self, group: Group, name: &str) -> Option<f64> {
        median(&self.group(group).find(|row| row.name == name)?.values)
    }

    /// One row against another.
    pub(crate) fn ratio(&self, ours: (Group, &str), theirs: (Group, &str)) -> Option<f64> {
        let values =
            |(group, name): (Group, &str)| Some(&self.group(group).find(|row| row.name == name)?.values[..]);
        ratio(values(ours)?, values(theirs)?)
    }

    pub(crate) fn read(path: &Path) -> Result<Self> {
        let text = std::fs::read(path).with_context(|| format!("reading {}", path.display()))?;
        serde_json::from_slice(&text).with_context(|| path.display().to_string())
    }

    pub(crate) fn write(&self, path: &Path) -> Result<()> {
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder)?;
        }
        std::fs::write(path, serde_json::to_vec_pretty(self)?)
            .with_context(|| format!("writing {}", path.display()))
    }
}

#[cfg(test)]
mod tests {
    use super::Lab;

    #[test]
    fn a_lab_report_is_read() {
        // As dwcp-lab writes it, with fields that are not needed here.
        let json = r#"{"scenarios": [{
            "scenario": {"name": "rtt80-loss0.1", "rate_mbit": 400.0, "rtt_ms": 80.0},
            "machine": {"processor": "x", "processors": 2, "memory_bytes": 1, "kernel": "6.1", "commit": "abc"},
            "date": "2026-01-01 00:00 UTC", "time_s": 30, "runs": 5,
            "contenders": [{"name": "quinn", "skipped": null, "median_mbit": 1.5, "counted": 2, "runs": []}]
        }]}"#;
        let lab: Lab = serde_json::from_str(json).expect("a report");
        assert_eq!(lab.scenarios[0].contenders[0].counted, 2);
        let again: Lab = serde_json::from_str(&serde_json::to_string(&lab).expect("JSON")).expect("a report");
        assert_eq!(format!("{again:?}"), format!("{lab:?}"));
    }
}
