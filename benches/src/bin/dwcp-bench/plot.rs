//! Which tables are drawn.

use std::path::Path;

use anyhow::Result;
use dwcp_benches::report::{Bar, Chart, draw as draw_charts};

use crate::{
    contender::Group,
    doc::unit,
    requirement::title,
    results::{Results, Row},
};

/// Draws every table that has values.
pub(crate) fn draw(path: &Path, results: &Results) -> Result<()> {
    let groups = [Group::Plain, Group::Encrypted, Group::RoundTrip, Group::Messages];
    let charts = groups.map(|group| chart(results, group));
    let charts: Vec<_> = charts.into_iter().filter(|chart| !chart.bars.is_empty()).collect();
    draw_charts(path, &charts)
}

fn chart(results: &Results, group: Group) -> Chart {
    let (unit, scale) = unit(group);
    let bar = |row: &Row| Bar {
        name: row.name.clone(),
        ours: row.name.starts_with("DWCP"),
        values: row.values.iter().map(|value| value / scale).collect(),
    };
    let rows = results.group(group).filter(|row| !row.values.is_empty());
    Chart { title: format!("{}, {unit}", title(group)), bars: rows.map(bar).collect() }
}
