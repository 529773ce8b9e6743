//! How a bench tells what it found: where it ran, medians, what they must be, charts, and the document that holds it.
//!
//! Not here: what is measured, and how it is laid out in tables.

mod chart;
mod document;
mod machine;
mod median;
mod requirement;

pub use chart::{Bar, Chart, draw};
pub use document::{Section, update};
pub use machine::Machine;
pub use median::{median, min_max, ratio};
pub use requirement::{Must, NOT_MET, Requirement, short, table};
