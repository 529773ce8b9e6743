//! Tables.

use std::fmt::Write as _;

use serde::{Deserialize, Serialize};

use crate::{
    cluster::{Contender, Usage},
    load::{Load, Measured},
};

/// All that was measured.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Results {
    rounds: usize,
    seconds: f64,
    contenders: Vec<String>,
    rows: Vec<Row>,
}

/// One contender under one load, one value per round.
#[derive(Debug, Serialize, Deserialize)]
struct Row {
    contender: String,
    load: Load,
    per_second: Vec<f64>,
    p50_us: Vec<f64>,
    p99_us: Vec<f64>,
    cpu_s_per_100k: Vec<f64>,
    written_bytes_per_operation: Vec<f64>,
    rss_mib: Vec<f64>,
    failures: u64,
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    match sorted.len() {
        0 => f64::NAN,
        len if len % 2 == 1 => sorted[len / 2],
        len => (sorted[len / 2 - 1] + sorted[len / 2]) / 2.0,
    }
}

impl Results {
    pub(crate) fn new(rounds: usize, seconds: f64, contenders: &[Contender]) -> Self {
        let contenders = contenders.iter().map(|contender| contender.name.clone()).collect();
        Self { rounds, seconds, contenders, rows: Vec::new() }
    }

    pub(crate) fn push(&mut self, contender: &Contender, load: &Load, measured: Measured, used: Usage) {
        let at = self.rows.iter().position(|row| row.contender == contender.name && row.load == *load);
        let at = at.unwrap_or_else(|| {
            self.rows.push(Row {
                contender: contender.name.clone(),
                load: *load,
                per_second: Vec::new(),
                p50_us: Vec::new(),
                p99_us: Vec::new(),
                cpu_s_per_100k: Vec::new(),
                written_bytes_per_operation: Vec::new(),
                rss_mib: Vec::new(),
                failures: 0,
            });
            self.rows.len() - 1
        });
        let row = &mut self.rows[at];
        row.per_second.push(measured.per_second);
        row.p50_us.push(measured.p50_us);
        row.p99_us.push(measured.p99_us);
        row.cpu_s_per_100k.push(used.cpu_s * 1e5 / measured.operations);
        row.written_bytes_per_operation.push(used.written_bytes / measured.operations);
        row.rss_mib.push(used.rss_kib_max / 1024.0);
        row.failures += measured.failures;
    }

    pub(crate) fn table(&self) -> String {
        let mut text = format!("{} rounds of {} s, medians\n\n", self.rounds, self.seconds);
        text.push_str("| load | contender | per second | p50 us | p99 us | CPU s per 100,000 | written bytes each | RSS MiB | failed | ratio |\n");
        text.push_str("|---|---|---:|---:|---:|---:|---:|---:|---:|---:|\n");
        for ours in self.rows.iter().filter(|row| Some(&row.contender) == self.contenders.first()) {
            let theirs =
                self.rows.iter().filter(|row| row.load == ours.load && row.contender != ours.contender);
            for row in std::iter::once(ours).chain(theirs) {
                let ratios: Vec<_> =
                    ours.per_second.iter().zip(&row.per_second).map(|(ours, theirs)| ours / theirs).collect();
                let _ = writeln!(
                    text,
                    "| {} | {} | {:.0} | {:.0} | {:.0} | {:.1} | {:.0} | {:.0} | {} | {:.2} |",
                    row.load,
                    row.contender,
                    median(&row.per_second),
                    median(&row.p50_us),
                    median(&row.p99_us),
                    median(&row.cpu_s_per_100k),
                    median(&row.written_bytes_per_operation),
                    median(&row.rss_mib),
                    row.failures,
                    median(&ratios),
                );
            }
        }
        text
    }
}
