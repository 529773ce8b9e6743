//! What a comparison found: the JSON document and the table.
//!
//! Owns: the document's shape, medians and layout. Runs nothing.

use crate::machine::Machine;
use crate::scenario::Scenario;
use crate::stats::LinkSummary;
use serde::Serialize;
use std::fmt::Write as _;

/// A whole comparison.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// Where it ran.
    pub machine: Machine,
    /// Length of each run in seconds.
    pub time_s: u64,
    /// Runs per contender and scenario.
    pub runs: u32,
    /// One entry per scenario.
    pub scenarios: Vec<ScenarioReport>,
}

/// One scenario's contenders.
#[derive(Debug, Clone, Serialize)]
#[allow(missing_docs, reason = "names say it")]
pub struct ScenarioReport {
    pub scenario: Scenario,
    pub contenders: Vec<ContenderReport>,
}

/// One contender's runs in one scenario.
#[derive(Debug, Clone, Serialize)]
pub struct ContenderReport {
    /// Its name.
    pub name: String,
    /// Why it did not take part, if so.
    pub skipped: Option<String>,
    /// Median goodput of the runs that count; `None` when none does.
    pub median_mbit: Option<f64>,
    /// Every run in order, void and failed ones too.
    pub runs: Vec<Run>,
}

/// One run.
#[derive(Debug, Clone, Serialize)]
pub struct Run {
    /// Seed of the link, the same for every contender in the same place.
    pub seed: u64,
    /// Application bytes at the receiver over the whole time, in Mbit/s; `None` when the run failed.
    pub goodput_mbit: Option<f64>,
    /// Why it failed.
    pub error: Option<String>,
    /// What the link did, and whether it was late.
    pub link: LinkSummary,
    /// Share of all processors that was idle during the run: near 0, the machine was the limit.
    pub idle: f64,
}

impl Run {
    /// The goodput if the run counts.
    pub fn valid_goodput_mbit(&self) -> Option<f64> {
        self.goodput_mbit.filter(|_| !self.link.void)
    }
}

impl ContenderReport {
    /// With the median of those runs that count.
    pub fn new(name: String, skipped: Option<String>, runs: Vec<Run>) -> Self {
        let median_mbit = median(runs.iter().filter_map(Run::valid_goodput_mbit).collect());
        Self { name, skipped, median_mbit, runs }
    }

    fn cell(&self) -> String {
        let valid = self.runs.iter().filter_map(Run::valid_goodput_mbit).count();
        let few =
            if valid < self.runs.len() { format!(" ({valid}/{})", self.runs.len()) } else { String::new() };
        match (&self.skipped, self.median_mbit) {
            (Some(_), _) => "-".into(),
            (None, Some(median)) => format!("{median:.1}{few}"),
            (None, None) if self.runs.iter().any(|run| run.goodput_mbit.is_some()) => format!("void{few}"),
            (None, None) => format!("failed{few}"),
        }
    }
}

/// The middle value, or the mean of the two middle ones.
pub fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let upper = *values.get(values.len() / 2)?;
    Some(if values.len() % 2 == 1 { upper } else { (upper + values[values.len() / 2 - 1]) / 2.0 })
}

impl Report {
    /// Medians in Mbit/s, one row per scenario, then everything that limits their meaning.
    pub fn table(&self) -> String {
        let m = &self.machine;
        let gib = m.memory_bytes as f64 / f64::from(1 << 30);
        let mut text = format!(
            "{} x{}, {gib:.0} GiB, Linux {}, commit {}\nmedian of {} runs of {} s, goodput at the receiver in Mbit/s\n\n",
            m.processor, m.processors, m.kernel, m.commit, self.runs, self.time_s
        );
        let mut rows = vec![vec!["scenario".to_owned(), "rate".to_owned()]];
        if let Some(first) = self.scenarios.first() {
            rows[0].extend(first.contenders.iter().map(|contender| contender.name.clone()));
        }
        for scenario in &self.scenarios {
            let mut row = vec![scenario.scenario.name.clone(), scenario.scenario.rate_mbit.to_string()];
            row.extend(scenario.contenders.iter().map(ContenderReport::cell));
            rows.push(row);
        }
        push_aligned(&mut text, &rows);
        text.push('\n');
        self.push_notes(&mut text);
        text
    }

    fn push_notes(&self, text: &mut String) {
        let mut skipped = vec![];
        let (mut late_max, mut late_p99, mut void, mut count) = (0f64, 0f64, 0, 0);
        for scenario in &self.scenarios {
            for contender in &scenario.contenders {
                if let Some(reason) = &contender.skipped {
                    skipped.push(format!("{}: skipped: {reason}", contender.name));
                }
                for run in &contender.runs {
                    late_max = late_max.max(run.link.late_max_us);
                    late_p99 = late_p99.max(run.link.late_p99_us);
                    void += u32::from(run.link.void);
                    count += 1;
                    if let Some(error) = &run.error {
                        let _ = writeln!(
                            text,
                            "{} {} seed {}: {error}",
                            scenario.scenario.name, contender.name, run.seed
                        );
                    }
                }
            }
        }
        skipped.dedup();
        skipped.sort();
        skipped.dedup();
        skipped.iter().for_each(|line| {
            let _ = writeln!(text, "{line}");
        });
        let _ = writeln!(
            text,
            "emulator lateness: worst p99 {late_p99:.0} us, worst {late_max:.0} us; {void} of {count} runs void"
        );
    }
}

/// Columns as wide as their widest cell; the first is flush left, the others right.
fn push_aligned(text: &mut String, rows: &[Vec<String>]) {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width =
        |column: usize| rows.iter().filter_map(|row| row.get(column)).map(String::len).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns).map(width).collect();
    for row in rows {
        for (column, cell) in row.iter().enumerate() {
            let width = widths[column];
            let _ =
                if column == 0 { write!(text, "{cell:<width$}") } else { write!(text, "  {cell:>width$}") };
        }
        text.push('\n');
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::LinkStats;

    fn run(goodput_mbit: Option<f64>, void: bool) -> Run {
        let error = goodput_mbit.is_none().then(|| "broke".to_owned());
        let link = LinkSummary { void, ..LinkStats::default().summary() };
        Run { seed: 7, goodput_mbit, error, link, idle: 0.5 }
    }

    #[test]
    fn medians() {
        assert_eq!(median(vec![]), None);
        assert_eq!(median(vec![3.0]), Some(3.0));
        assert_eq!(median(vec![9.0, 1.0, 5.0]), Some(5.0));
        assert_eq!(median(vec![9.0, 1.0, 5.0, 2.0]), Some(3.5));
    }

    #[test]
    fn void_and_failed_runs_do_not_count_but_show() {
        let contenders = vec![
            ContenderReport::new(
                "one".into(),
                None,
                vec![run(Some(100.0), false), run(Some(1.0), true), run(Some(200.0), false)],
            ),
            ContenderReport::new("two".into(), None, vec![run(Some(5.0), true)]),
            ContenderReport::new("three".into(), None, vec![run(None, false)]),
            ContenderReport::new("four".into(), Some("not here".into()), vec![]),
        ];
        assert_eq!(contenders[0].median_mbit, Some(150.0));
        let cells: Vec<String> = contenders.iter().map(ContenderReport::cell).collect();
        assert_eq!(cells, ["150.0 (2/3)", "void (0/1)", "failed (0/1)", "-"]);
        let scenario = Scenario::clean("plain", 100.0, 20.0);
        let report = Report {
            machine: Machine::current(),
            time_s: 30,
            runs: 3,
            scenarios: vec![ScenarioReport { scenario, contenders }],
        };
        let table = report.table();
        for part in
            ["plain", "150.0 (2/3)", "four: skipped: not here", "three seed 7: broke", "2 of 5 runs void"]
        {
            assert!(table.contains(part), "{part} in\n{table}");
        }
    }
}
