//! Tables in Markdown.

use std::fmt::Write as _;

use dwcp_benches::report::{Section, table};

use crate::{
    contender::Kind,
    load::Load,
    requirement::requirements,
    results::{Measured, Results, Row},
};

/// What goes into the document.
pub(crate) fn sections(results: &Results) -> [Section; 2] {
    let loads: Vec<_> = results.loads.iter().map(|(load, measured)| load_text(*load, measured)).collect();
    [
        Section { name: "store_requirements", text: table(&requirements(results)) },
        Section { name: "store_loads", text: loads.join("\n\n") },
    ]
}

fn load_text(load: Load, measured: &Measured) -> String {
    let m = &measured.machine;
    let mut text = format!("**{}**\n\n{}\n", capitalised(load.title()), load_table(measured));
    for (kind, rounds) in &measured.failures {
        let _ = writeln!(text, "Nothing came of {rounds} rounds of {}.\n", measured.names[kind]);
    }
    let _ = write!(
        text,
        "{} rounds of {} s. {} cores of {}, Linux {}, commit {}, {}, `{}`.",
        measured.rounds, measured.seconds, m.processors, m.processor, m.kernel, m.commit, m.date, m.command
    );
    text
}

fn capitalised(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}

fn load_table(measured: &Measured) -> String {
    let figures = measured.figures();
    let columns =
        || figures.iter().flat_map(|figure| figure.columns().iter().map(move |column| (figure, column)));
    let mut text = "| | |".to_owned();
    for (_, (heading, ..)) in columns() {
        let _ = write!(text, " {heading} |");
    }
    let _ = writeln!(text, "\n|---|---|{}", "---:|".repeat(columns().count()));
    for (case, rows) in measured.cases() {
        for Row { kind, figures, .. } in rows {
            let name = &measured.names[kind];
            let name = if *kind == Kind::Etcd { name.clone() } else { format!("**{name}**") };
            let _ = write!(text, "| {case} | {name} |");
            for (figure, (_, summary, digits)) in columns() {
                let value = figures.get(figure).and_then(|values| summary(values));
                let value = value.map_or("-".to_owned(), |value| format!("{value:.digits$}"));
                let _ = write!(text, " {value} |");
            }
            text.push('\n');
        }
    }
    text
}
