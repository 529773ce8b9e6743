//! The tables, and the document that holds them between markers.

use std::{fmt::Write as _, path::Path};

use anyhow::{Context as _, Result};

use crate::{
    compression::{self, CODECS, DATA, LINKS},
    contender::Group,
    requirement::{Must, requirements, title},
    results::{Lab, LabContender, LabLink, LabScenario, Results, Row, median},
};

/// A part of the document, between `<!-- bench:NAME -->` and `<!-- /bench:NAME -->`.
pub(crate) struct Section {
    pub(crate) name: &'static str,
    /// Markdown.
    pub(crate) text: String,
}

/// Everything that was measured.
pub(crate) fn sections(results: &Results) -> Vec<Section> {
    let mut sections = vec![
        Section { name: "machine", text: machine(results) },
        Section { name: "requirements", text: requirement_table(results) },
    ];
    let groups = [
        ("plain", Group::Plain),
        ("encrypted", Group::Encrypted),
        ("round_trip", Group::RoundTrip),
        ("messages", Group::Messages),
    ];
    for (name, group) in groups {
        if results.group(group).next().is_some() {
            sections.push(Section { name, text: group_table(results, group) });
        }
    }
    if !results.compression.is_empty() {
        sections.push(Section { name: "compression", text: compression_table(results) });
    }
    if let Some(lab) = &results.lab {
        sections.push(Section { name: "lab", text: lab_table(lab) });
    }
    sections
}

/// Puts the sections into the document. One that has no markers for a section is an error.
pub(crate) fn update(path: &Path, results: &Results) -> Result<()> {
    let mut document =
        std::fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
    for section in sections(results) {
        document = replace(&document, &section)
            .with_context(|| format!("{} has no markers bench:{}", path.display(), section.name))?;
    }
    std::fs::write(path, document).with_context(|| format!("writing {}", path.display()))
}

fn replace(document: &str, section: &Section) -> Option<String> {
    let (before, rest) = document.split_once(&format!("<!-- bench:{} -->", section.name))?;
    let (_, after) = rest.split_once(&format!("<!-- /bench:{} -->", section.name))?;
    let (name, text) = (section.name, &section.text);
    Some(format!("{before}<!-- bench:{name} -->\n{text}\n<!-- /bench:{name} -->{after}"))
}

fn machine(results: &Results) -> String {
    let m = &results.machine;
    format!(
        "{} rounds of {} s, medians. {} cores of {}, Linux {}, default congestion control {}, commit {}, {}, `{}`.",
        results.rounds,
        results.seconds,
        m.processors,
        m.processor,
        m.kernel,
        m.congestion_control,
        m.commit,
        m.date,
        m.command
    )
}

fn requirement_table(results: &Results) -> String {
    let mut text = "| what | value | must | met |\n|---|---:|---:|---|\n".to_owned();
    for requirement in requirements(results) {
        let value = requirement.value.map_or("-".to_owned(), |value| format!("{value:.2}"));
        let must = match requirement.must {
            Must::AtLeast(bound) => format!("≥ {bound}"),
            Must::AtMost(bound) => format!("≤ {bound}"),
            Must::Reported => "-".to_owned(),
        };
        let _ = writeln!(text, "| {} | {value} | {must} | {} |", requirement.what, requirement.met());
    }
    text.trim_end().to_owned()
}

/// The unit of a table and what one of it is in the unit of the stored values.
pub(crate) fn unit(group: Group) -> (&'static str, f64) {
    match group {
        Group::Plain | Group::Encrypted | Group::Compression => ("Gbit/s", 1e9),
        Group::RoundTrip => ("µs", 1.0),
        Group::Messages => ("M/s", 1e6),
    }
}

fn group_table(results: &Results, group: Group) -> String {
    let (unit, scale) = unit(group);
    let p99 = group == Group::RoundTrip;
    let mut text = format!("| {} | {unit} | min .. max |", title(group));
    text.push_str(if p99 { " p99 |" } else { "" });
    text.push_str(" server MiB | client MiB |\n|---|---:|---:|---:|---:|");
    text.push_str(if p99 { "---:|\n" } else { "\n" });
    for row in results.group(group) {
        let (min, max) = min_max(row);
        let _ = write!(
            text,
            "| {}{} | {:.2} | {:.2} .. {:.2} |",
            row.name,
            failed(row.failures),
            median(&row.values).unwrap_or(f64::NAN) / scale,
            min / scale,
            max / scale
        );
        if p99 {
            let _ = write!(text, " {:.1} |", median(&row.p99).unwrap_or(f64::NAN));
        }
        let mib = |kib: &[f64]| median(kib).map_or("-".to_owned(), |kib| format!("{:.1}", kib / 1024.0));
        let _ = writeln!(text, " {} | {} |", mib(&row.server_rss_kib), mib(&row.client_rss_kib));
    }
    text.trim_end().to_owned()
}

/// Smallest and largest value of a row.
pub(crate) fn min_max(row: &Row) -> (f64, f64) {
    let min = row.values.iter().copied().fold(f64::INFINITY, f64::min);
    let max = row.values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    (min, max)
}

fn failed(rounds: u32) -> String {
    if rounds == 0 { String::new() } else { format!(", {rounds} failed") }
}

fn compression_table(results: &Results) -> String {
    let mut text = "| link | data |".to_owned();
    for (codec, ..) in CODECS {
        let _ = write!(text, " {codec} |");
    }
    text.push_str("\n|---|---|");
    text.push_str(&"---:|".repeat(CODECS.len()));
    text.push('\n');
    for link in LINKS {
        for data in DATA {
            let _ = write!(text, "| {link} | {data} |");
            for (codec, ..) in CODECS {
                let cell = compression::find(&results.compression, link, data, codec);
                let value = cell.and_then(|cell| median(&cell.values));
                let rate = value.map_or("-".to_owned(), |rate| format!("{:.0}", rate / 1e6));
                let ratio = cell.and_then(|cell| cell.ratio).map(|ratio| format!(" ({ratio:.2})"));
                let failed = failed(cell.map_or(0, |cell| cell.failures));
                let _ = write!(text, " {rate}{}{failed} |", ratio.unwrap_or_default());
            }
            text.push('\n');
        }
    }
    text.trim_end().to_owned()
}

fn lab_table(lab: &Lab) -> String {
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
    let mut text = format!("{}.\n\n| scenario | rate | commit | runs |", machines.join("; "));
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
    use super::{Section, lab_table, replace};
    use crate::results::{Lab, LabContender, LabLink, LabMachine, LabScenario};

    #[test]
    fn lab_scenarios_may_differ_in_commit_runs_and_contenders() {
        let contender =
            |name: &str, median_mbit, counted| LabContender { name: name.to_owned(), median_mbit, counted };
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
        let expected = "2 cores of X, Linux 6.1.\n\n\
            | scenario | rate | commit | runs | one | two | new |\n\
            |---|---:|---|---:|---:|---:|---:|\n\
            | a | 100 | abc, today | 5 x 30 s | 1.2 | 2.0 (3/5) | - |\n\
            | b | 100 | def, today | 3 x 30 s | - | 4.0 | - |";
        assert_eq!(lab_table(&lab), expected);
    }

    #[test]
    fn a_section_goes_between_its_markers_and_nowhere_else() {
        let document =
            "a\n<!-- bench:x -->\nold\n<!-- /bench:x -->\nb\n<!-- bench:y -->\n<!-- /bench:y -->\n";
        let section = Section { name: "x", text: "new".to_owned() };
        let updated = replace(document, &section);
        let expected = document.replace("old", "new");
        assert_eq!(updated.as_deref(), Some(&*expected));
        assert_eq!(replace(&expected, &section), Some(expected));
        assert_eq!(replace("no markers", &section), None);
    }
}
