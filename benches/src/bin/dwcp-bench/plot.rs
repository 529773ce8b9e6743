//! One SVG: a bar chart per table, bars as long as the medians, a line from the smallest to the largest round.

use std::path::Path;

use anyhow::{Context as _, Result};
use plotters::{
    coord::Shift,
    prelude::{
        BLACK, ChartBuilder, Color as _, DrawingArea, IntoDrawingArea as _, IntoSegmentedCoord as _,
        PathElement, RGBColor, Rectangle, SVGBackend, SegmentValue, WHITE,
    },
};

use crate::{
    contender::Group,
    doc::{min_max, unit},
    requirement::title,
    results::{Results, Row, median},
};

const OURS: RGBColor = RGBColor(0x1f, 0x77, 0xb4);
const OTHERS: RGBColor = RGBColor(0xb0, 0xb0, 0xb0);
const CHART: (u32, u32) = (800, 240);

/// Draws every table that has values.
pub(crate) fn draw(path: &Path, results: &Results) -> Result<()> {
    let groups = [Group::Plain, Group::Encrypted, Group::RoundTrip, Group::Messages];
    let groups: Vec<_> =
        groups.into_iter().filter(|group| results.group(*group).any(|row| !row.values.is_empty())).collect();
    let size = (CHART.0, CHART.1 * groups.len() as u32);
    let area = SVGBackend::new(path, size).into_drawing_area();
    area.fill(&WHITE)?;
    for (area, group) in area.split_evenly((groups.len(), 1)).iter().zip(groups) {
        let rows: Vec<&Row> = results.group(group).filter(|row| !row.values.is_empty()).collect();
        draw_group(area, group, &rows)?;
    }
    area.present().with_context(|| format!("writing {}", path.display()))
}

fn draw_group(area: &DrawingArea<SVGBackend<'_>, Shift>, group: Group, rows: &[&Row]) -> Result<()> {
    let (unit, scale) = unit(group);
    let longest = rows.iter().map(|row| min_max(&row.values).1 / scale).fold(0.0, f64::max);
    let last = rows.len() as i32 - 1;
    let mut chart = ChartBuilder::on(area)
        .caption(format!("{}, {unit}", title(group)), ("sans-serif", 16))
        .margin(8)
        .margin_right(24)
        .x_label_area_size(24)
        .y_label_area_size(170)
        .build_cartesian_2d(0.0..longest * 1.05, (0..last).into_segmented())?;
    let name = |at: &SegmentValue<i32>| match at {
        SegmentValue::CenterOf(index) => {
            // Row 0 is drawn at the top.
            rows.get((last - index) as usize).map_or_else(String::new, |row| row.name.clone())
        }
        _ => String::new(),
    };
    chart
        .configure_mesh()
        .disable_y_mesh()
        .y_labels(rows.len())
        .y_label_formatter(&name)
        .label_style(("sans-serif", 12))
        .draw()?;
    for (index, row) in rows.iter().enumerate() {
        let at = last - index as i32;
        let color = if row.name.starts_with("DWCP") { OURS } else { OTHERS };
        let value = median(&row.values).unwrap_or(0.0) / scale;
        let bar = [(0.0, SegmentValue::Exact(at)), (value, SegmentValue::Exact(at + 1))];
        let mut bar = Rectangle::new(bar, color.filled());
        bar.set_margin(2, 2, 0, 0);
        let (min, max) = min_max(&row.values);
        let middle = SegmentValue::CenterOf(at);
        let spread = PathElement::new([(min / scale, middle.clone()), (max / scale, middle)], BLACK);
        chart.draw_series([bar])?;
        chart.draw_series([spread])?;
    }
    Ok(())
}
