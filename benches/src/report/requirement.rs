//! What a figure must be, and whether it is.

use std::fmt::Write as _;

/// One line of the table.
pub struct Requirement {
    /// What the value is.
    pub what: String,
    /// `None`: not measured in this run.
    pub value: Option<f64>,
    /// What it must be.
    pub must: Must,
}

/// A bound.
#[derive(Clone, Copy)]
pub enum Must {
    /// This or more.
    AtLeast(f64),
    /// This or less.
    AtMost(f64),
    /// Reported only.
    Reported,
}

/// What [`Requirement::met`] says then.
pub const NOT_MET: &str = "**no**";

impl Requirement {
    /// `yes`, `no`, or why neither.
    pub fn met(&self) -> &'static str {
        match (self.value, self.must) {
            (None, _) => "not measured",
            (Some(_), Must::Reported) => "reported",
            (Some(value), Must::AtLeast(bound)) if value >= bound => "yes",
            (Some(value), Must::AtMost(bound)) if value <= bound => "yes",
            _ => NOT_MET,
        }
    }
}

/// All of them, in Markdown.
pub fn table(requirements: &[Requirement]) -> String {
    let mut text = "| what | value | must | met |\n|---|---:|---:|---|\n".to_owned();
    for requirement in requirements {
        let value = requirement.value.map_or("-".to_owned(), |value| format!("{value:.3}"));
        let must = match requirement.must {
            Must::AtLeast(bound) => format!("≥ {}", short(bound)),
            Must::AtMost(bound) => format!("≤ {}", short(bound)),
            Must::Reported => "-".to_owned(),
        };
        let _ = writeln!(text, "| {} | {value} | {must} | {} |", requirement.what, requirement.met());
    }
    text.trim_end().to_owned()
}

/// At most two decimals.
pub fn short(bound: f64) -> String {
    ((bound * 100.0).round() / 100.0).to_string()
}
