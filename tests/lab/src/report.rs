//! What a comparison found: the JSON document and the table.
//!
//! Owns: the document's shape, medians and layout. Runs nothing.

use crate::machine::Machine;
use crate::scenario::Scenario;
use crate::stats::LinkSummary;
use serde::{Deserialize, Serialize};
use std::fmt::Write as _;

/// Comparisons, which may have been made at different times.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Report {
    /// One entry per scenario: the standing ones in their order, then others.
    pub scenarios: Vec<ScenarioReport>,
}

/// One scenario's contenders.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ScenarioReport {
    /// The link.
    pub scenario: Scenario,
    /// Where it ran, and what.
    pub machine: Machine,
    /// When it began.
    pub date: String,
    /// Length of each run in seconds.
    pub time_s: u64,
    /// Rounds: runs of each contender, but for those that take part in the first ones only.
    pub runs: u32,
    /// Who took part.
    pub contenders: Vec<ContenderReport>,
}

/// One contender's runs in one scenario.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ContenderReport {
    /// Its name.
    pub name: String,
    /// Why it did not take part, if so.
    pub skipped: Option<String>,
    /// Median goodput of the runs that count; `None` when none does.
    pub median_mbit: Option<f64>,
    /// How many runs count.
    pub counted: u32,
    /// Every run in order, void and failed ones too.
    pub runs: Vec<Run>,
}

/// One run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Run {
    /// Seed of the link, the same for every contender in the same place.
    pub seed: u64,
    /// Application bytes at the receiver over the whole time, in Mbit/s; `None` when the run failed.
    pub goodput_mbit: Option<f64>,
    /// How it went from second to second, where the contender tells.
    #[serde(default)]
    pub course: Vec<Moment>,
    /// Why it failed.
    pub error: Option<String>,
    /// What the link did, and whether it was late.
    pub link: LinkSummary,
    /// Share of all processors that was idle during the run: near 0, the machine was the limit.
    pub idle: f64,
}

/// What went on up to a moment of a run, since the moment before.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Moment {
    /// Seconds since the beginning.
    pub end_s: f64,
    /// What the sender handed to its transport, in Mbit/s.
    pub mbit: f64,
    /// Links of the connection.
    pub links: u32,
    /// That of the first link.
    #[serde(default)]
    pub congestion_control: Option<String>,
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
        let counted: Vec<f64> = runs.iter().filter_map(Run::valid_goodput_mbit).collect();
        Self { name, skipped, counted: counted.len() as u32, median_mbit: median(counted), runs }
    }

    /// The median, and of how many of the rounds it is unless it is of all.
    fn cell(&self, rounds: u32) -> String {
        let few = if self.counted < rounds { format!(" ({}/{rounds})", self.counted) } else { String::new() };
        match (&self.skipped, self.median_mbit) {
            (Some(_), _) => "-".into(),
            (None, None) if self.runs.is_empty() => "-".into(),
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
    /// Puts a scenario in its place, instead of an older one of the same name.
    pub fn put(&mut self, new: ScenarioReport) {
        self.scenarios.retain(|old| old.scenario.name != new.scenario.name);
        self.scenarios.push(new);
        self.scenarios.sort_by_key(|report| Scenario::standing_place(&report.scenario.name));
    }

    /// Medians in Mbit/s, one row per scenario, then everything that limits their meaning.
    pub fn table(&self) -> String {
        let mut text = "median goodput at the receiver in Mbit/s\n\n".to_owned();
        // Scenarios of one report need not have the same contenders.
        let mut names: Vec<&str> = vec![];
        for contender in self.scenarios.iter().flat_map(|report| &report.contenders) {
            if !names.contains(&contender.name.as_str()) {
                names.push(&contender.name);
            }
        }
        let head = ["scenario", "rate", "runs"].into_iter().chain(names.iter().copied());
        let mut rows = vec![head.map(str::to_owned).collect()];
        rows.extend(self.scenarios.iter().map(|report| report.row(&names)));
        push_aligned(&mut text, &rows);
        text.push('\n');
        for report in &self.scenarios {
            let _ = writeln!(text, "{}: {}", report.scenario.name, report.origin());
        }
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

impl ScenarioReport {
    fn row(&self, names: &[&str]) -> Vec<String> {
        let scenario = &self.scenario;
        let runs = format!("{}x{}s", self.runs, self.time_s);
        let mut row = vec![scenario.name.clone(), scenario.rate_mbit.to_string(), runs];
        row.extend(names.iter().map(|name| {
            let contender = self.contenders.iter().find(|contender| contender.name == *name);
            contender.map_or("-".into(), |contender| contender.cell(self.runs))
        }));
        row
    }

    fn origin(&self) -> String {
        let m = &self.machine;
        let gib = m.memory_bytes as f64 / f64::from(1 << 30);
        format!(
            "{} x{}, {gib:.0} GiB, Linux {}, commit {}, {}",
            m.processor, m.processors, m.kernel, m.commit, self.date
        )
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
pub(crate) mod tests {
    use super::*;
    use crate::machine;
    use crate::stats::LinkStats;

    /// A report of runs with figures that are not exact in decimal.
    pub(crate) fn scenario(name: &str, runs: u32) -> ScenarioReport {
        let one = |n: u32| run((n > 0).then(|| 100.0 / 3.0 + f64::from(n) * 0.1), n == 1);
        report(
            Scenario::clean(name, 100.0, 20.0),
            runs,
            vec![
                ContenderReport::new("one".into(), None, (0..runs).map(one).collect()),
                ContenderReport::new("two".into(), Some("not here".into()), vec![]),
            ],
        )
    }

    fn report(scenario: Scenario, runs: u32, contenders: Vec<ContenderReport>) -> ScenarioReport {
        let (machine, date) = (Machine::current(), machine::date());
        ScenarioReport { scenario, machine, date, time_s: 30, runs, contenders }
    }

    #[test]
    fn what_is_written_is_read_back() {
        let report = Report { scenarios: vec![scenario("rtt80-loss0.1", 3), scenario("another", 2)] };
        let json = serde_json::to_string_pretty(&report).unwrap();
        assert_eq!(serde_json::from_str::<Report>(&json).unwrap(), report);
    }

    fn run(goodput_mbit: Option<f64>, void: bool) -> Run {
        let error = goodput_mbit.is_none().then(|| "broke".to_owned());
        let link = LinkSummary { void, ..LinkStats::default().summary() };
        Run { seed: 7, goodput_mbit, course: vec![], error, link, idle: 0.5 }
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
            // Takes part in the first round only; in none.
            ContenderReport::new("five".into(), None, vec![run(Some(8.0), false)]),
            ContenderReport::new("six".into(), None, vec![]),
        ];
        assert_eq!(contenders[0].median_mbit, Some(150.0));
        let cells: Vec<String> = contenders.iter().map(|contender| contender.cell(3)).collect();
        assert_eq!(cells, ["150.0 (2/3)", "void (0/3)", "failed (0/3)", "-", "8.0 (1/3)", "-"]);
        let mut all = Report::default();
        all.put(scenario("another", 1));
        all.put(report(Scenario::clean("plain", 100.0, 20.0), 3, contenders));
        let table = all.table();
        for part in [
            "plain",
            "3x30s",
            "150.0 (2/3)",
            "four: skipped: not here",
            "three seed 7: broke",
            "2 of 7 runs void",
        ] {
            assert!(table.contains(part), "{part} in\n{table}");
        }
    }
}
