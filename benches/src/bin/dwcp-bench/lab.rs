//! What the WAN lab measured, as the document shows it.

use std::fmt::Write as _;

use serde::{Deserialize, Serialize};

/// The part of a lab report that the document shows.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Lab {
    /// The standing ones in their order, then others.
    pub(crate) scenarios: Vec<LabScenario>,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct LabMachine {
    pub(crate) processor: String,
    pub(crate) processors: usize,
    pub(crate) kernel: String,
    pub(crate) commit: String,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct LabScenario {
    pub(crate) scenario: LabLink,
    pub(crate) machine: LabMachine,
    pub(crate) date: String,
    pub(crate) time_s: u64,
    /// Rounds; some contenders take part in the first ones only.
    pub(crate) runs: u32,
    pub(crate) contenders: Vec<LabContender>,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct LabLink {
    pub(crate) name: String,
    pub(crate) rate_mbit: f64,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct LabContender {
    pub(crate) name: String,
    pub(crate) median_mbit: Option<f64>,
    /// Runs behind the median.
    pub(crate) counted: u32,
    pub(crate) runs: Vec<LabRun>,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct LabRun {
    pub(crate) link: LabLateness,
    /// Share of all processors, 0.0..=1.0.
    pub(crate) idle: f64,
    #[serde(default)]
    pub(crate) course: Vec<Moment>,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct LabLateness {
    pub(crate) late_p99_us: f64,
    pub(crate) void: bool,
}

/// An interval of a run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Moment {
    pub(crate) end_s: f64,
    pub(crate) mbit: f64,
    pub(crate) links: u32,
    #[serde(default)]
    pub(crate) congestion_control: Option<String>,
}

/// Contenders that the lab's requirement names.
const RIVALS: [&str; 5] = ["iperf3-bbr1", "iperf3-bbr2", "iperf3-bbr4", "iperf3-cubic16", "quinn"];

impl LabScenario {
    /// Mbit/s of a contender.
    pub(crate) fn median(&self, name: &str) -> Option<f64> {
        self.contenders.iter().find(|contender| contender.name == name)?.median_mbit
    }

    /// The best of those that DWCP is held against. Without one of them there is no saying which it is.
    pub(crate) fn best_rival(&self) -> Option<(&'static str, f64)> {
        let rivals: Option<Vec<_>> =
            RIVALS.into_iter().map(|name| Some((name, self.median(name)?))).collect();
        rivals?.into_iter().max_by(|a, b| a.1.total_cmp(&b.1))
    }
}

/// The number of links and the rate of long runs of DWCP: where it settles, and whether it does.
pub(crate) fn course_table(lab: &Lab) -> String {
    const SHARES: [f64; 6] = [0.05, 0.1, 0.25, 0.5, 0.75, 1.0];
    let seconds = lab.scenarios.first().map_or(0, |scenario| scenario.time_s);
    let at: Vec<String> = SHARES.iter().map(|share| format!("{:.0}", share * seconds as f64)).collect();
    let mut text = format!(
        "| scenario | links after {} s | changes, first half | second half | congestion control | Mbit/s, first quarter \
         | last quarter |\n|---|---|---:|---:|---|---:|---:|\n",
        at.join(", ")
    );
    for scenario in &lab.scenarios {
        let runs =
            scenario.contenders.iter().filter(|contender| contender.name == "novacron").flat_map(|c| &c.runs);
        let Some(course) = runs.map(|run| &run.course[..]).find(|course| !course.is_empty()) else {
            continue;
        };
        let within = |from: f64, to: f64| {
            let time = scenario.time_s as f64;
            course.iter().filter(move |moment| from * time < moment.end_s && moment.end_s <= to * time + 0.5)
        };
        let links: Vec<String> = SHARES
            .iter()
            .map(|share| {
                within(0.0, *share).next_back().map_or("-".to_owned(), |moment| moment.links.to_string())
            })
            .collect();
        let changes = |from, to| {
            let links: Vec<u32> = within(from, to).map(|moment| moment.links).collect();
            links.windows(2).filter(|pair| pair[0] != pair[1]).count()
        };
        let rate = |from, to| {
            let rates: Vec<f64> = within(from, to).map(|moment| moment.mbit).collect();
            rates.iter().sum::<f64>() / rates.len().max(1) as f64
        };
        let _ = writeln!(
            text,
            "| {} | {} | {} | {} | {} | {:.0} | {:.0} |",
            scenario.scenario.name,
            links.join(", "),
            changes(0.0, 0.5),
            changes(0.5, 1.0),
            congestion_controls(course),
            rate(0.0, 0.25),
            rate(0.75, 1.0)
        );
    }
    text.trim_end().to_owned()
}

/// In the order in which they were in force, with the second of each change.
fn congestion_controls(course: &[Moment]) -> String {
    let mut text = String::new();
    let mut last = None;
    for (name, end_s) in
        course.iter().filter_map(|moment| Some((moment.congestion_control.as_deref()?, moment.end_s)))
    {
        if last != Some(name) {
            let _ =
                if last.is_none() { write!(text, "{name}") } else { write!(text, ", {name} ({end_s:.0} s)") };
            last = Some(name);
        }
    }
    text
}

/// Medians of all contenders.
pub(crate) fn table(lab: &Lab) -> String {
    // The order of the contenders is that of their runs; scenarios need not have the same ones.
    let mut names: Vec<&str> = Vec::new();
    let mut machines: Vec<String> = Vec::new();
    for scenario in &lab.scenarios {
        let m = &scenario.machine;
        let machine = format!("{} cores of {}, Linux {}", m.processors, m.processor, m.kernel);
        if !machines.contains(&machine) {
            machines.push(machine);
        }
        for contender in &scenario.contenders {
            if !names.contains(&&*contender.name) {
                names.push(&contender.name);
            }
        }
    }
    let runs = || lab.scenarios.iter().flat_map(|scenario| &scenario.contenders).flat_map(|c| &c.runs);
    let idle = runs().map(|run| run.idle).reduce(f64::min).unwrap_or(f64::NAN) * 100.0;
    let late = runs().map(|run| run.link.late_p99_us).reduce(f64::max).unwrap_or(f64::NAN) / 1e3;
    let void = runs().filter(|run| run.link.void).count();
    let mut text = format!(
        "{}. At least {idle:.0} % of the machine was idle in every run, the emulator was at most {late:.1} ms late with 99 \
         of 100 packets, {void} of {} runs were void.\n\n| scenario | rate | commit | runs |",
        machines.join("; "),
        runs().count()
    );
    for name in &names {
        let _ = write!(text, " {name} |");
    }
    text.push_str("\n|---|---:|---|---:|");
    text.push_str(&"---:|".repeat(names.len()));
    text.push('\n');
    for scenario in &lab.scenarios {
        let LabScenario { scenario: LabLink { name, rate_mbit }, machine, date, time_s, runs, .. } = scenario;
        let commit = &machine.commit;
        let _ = write!(text, "| {name} | {rate_mbit} | {commit}, {date} | {runs} x {time_s} s |");
        for name in &names {
            let contender = scenario.contenders.iter().find(|contender| contender.name == *name);
            let _ = write!(text, " {} |", contender.map_or("-".to_owned(), |c| lab_cell(c, *runs)));
        }
        text.push('\n');
    }
    text.trim_end().to_owned()
}

/// The median, and of how many of the rounds it is unless it is of all.
fn lab_cell(contender: &LabContender, rounds: u32) -> String {
    match contender.median_mbit {
        None => "-".to_owned(),
        Some(median) if contender.counted == rounds => format!("{median:.1}"),
        Some(median) => format!("{median:.1} ({}/{rounds})", contender.counted),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(course: Vec<Moment>) -> LabRun {
        LabRun { link: LabLateness { late_p99_us: 300.0, void: false }, idle: 0.5, course }
    }

    #[test]
    fn lab_scenarios_may_differ_in_commit_runs_and_contenders() {
        let contender = |name: &str, median_mbit, counted| LabContender {
            name: name.to_owned(),
            median_mbit,
            counted,
            runs: vec![run(vec![])],
        };
        let scenario = |name: &str, commit: &str, runs, contenders| LabScenario {
            scenario: LabLink { name: name.to_owned(), rate_mbit: 100.0 },
            machine: LabMachine {
                processor: "X".to_owned(),
                processors: 2,
                kernel: "6.1".to_owned(),
                commit: commit.to_owned(),
            },
            date: "today".to_owned(),
            time_s: 30,
            runs,
            contenders,
        };
        let lab = Lab {
            scenarios: vec![
                scenario(
                    "a",
                    "abc",
                    5,
                    vec![contender("one", Some(1.25), 5), contender("two", Some(2.0), 3)],
                ),
                scenario("b", "def", 3, vec![contender("two", Some(4.0), 3), contender("new", None, 0)]),
            ],
        };
        let expected = "2 cores of X, Linux 6.1. At least 50 % of the machine was idle in every run, the emulator was at \
            most 0.3 ms late with 99 of 100 packets, 0 of 4 runs were void.\n\n\
            | scenario | rate | commit | runs | one | two | new |\n\
            |---|---:|---|---:|---:|---:|---:|\n\
            | a | 100 | abc, today | 5 x 30 s | 1.2 | 2.0 (3/5) | - |\n\
            | b | 100 | def, today | 3 x 30 s | - | 4.0 | - |";
        assert_eq!(table(&lab), expected);
    }

    #[test]
    fn a_course_says_where_links_and_rate_settle() {
        let course = (1..=20).map(|second| Moment {
            end_s: f64::from(second),
            mbit: if second <= 5 { 50.0 } else { 90.0 },
            links: match second {
                1 => 1,
                2..=9 => 4,
                10 => 5,
                _ => 4,
            },
            congestion_control: Some(if second < 7 { "bbr" } else { "cubic" }.to_owned()),
        });
        let scenario = LabScenario {
            scenario: LabLink { name: "a".to_owned(), rate_mbit: 100.0 },
            machine: LabMachine {
                processor: "X".to_owned(),
                processors: 2,
                kernel: "6.1".to_owned(),
                commit: "abc".to_owned(),
            },
            date: "today".to_owned(),
            time_s: 20,
            runs: 1,
            contenders: vec![LabContender {
                name: "novacron".to_owned(),
                median_mbit: Some(80.0),
                counted: 1,
                runs: vec![run(course.collect())],
            }],
        };
        let table = course_table(&Lab { scenarios: vec![scenario] });
        let row = table.lines().last().unwrap();
        assert_eq!(row, "| a | 1, 4, 4, 5, 4, 4 | 2 | 0 | bbr, cubic (7 s) | 50 | 90 |");
    }
}
