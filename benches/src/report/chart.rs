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

use super::median::{median, min_max};

const OURS: RGBColor = RGBColor(0x1f, 0x77, 0xb4);
const OTHERS: RGBColor = RGBColor(0xb0, 0xb0, 0xb0);
const WIDTH: u32 = 800;
/// Of one chart, beside its bars; never less than [`HEIGHT_MIN`].
const FRAME: u32 = 70;
const BAR: u32 = 19;
const HEIGHT_MIN: u32 = 240;
/// For names, of which each letter takes so much; never less than the second.
const LETTER: u32 = 6;
const NAMES_MIN: u32 = 170;

/// Bars that share an axis.
pub struct Chart {
    /// With the unit.
    pub title: String,
    /// From top to bottom.
    pub bars: Vec<Bar>,
}

/// One of them.
pub struct Bar {
    /// Beside it.
    pub name: String,
    /// Has the colour of what is ours.
    pub ours: bool,
    /// One value per round; at least one.
    pub values: Vec<f64>,
}

/// Draws the charts one below the other.
///
/// # Errors
///
/// If the file cannot be written.
pub fn draw(path: &Path, charts: &[Chart]) -> Result<()> {
    let height = |chart: &Chart| (FRAME + BAR * chart.bars.len() as u32).max(HEIGHT_MIN);
    let area = SVGBackend::new(path, (WIDTH, charts.iter().map(height).sum())).into_drawing_area();
    area.fill(&WHITE)?;
    let mut rest = area.clone();
    for chart in charts {
        let (upper, lower) = rest.split_vertically(height(chart));
        draw_chart(&upper, chart)?;
        rest = lower;
    }
    area.present().with_context(|| format!("writing {}", path.display()))
}

fn draw_chart(area: &DrawingArea<SVGBackend<'_>, Shift>, chart: &Chart) -> Result<()> {
    let bars = &chart.bars;
    let longest = bars.iter().map(|bar| min_max(&bar.values).1).fold(0.0, f64::max);
    let last = bars.len() as i32 - 1;
    let letters = bars.iter().map(|bar| bar.name.chars().count()).max().unwrap_or(0) as u32;
    let mut axes = ChartBuilder::on(area)
        .caption(&chart.title, ("sans-serif", 16))
        .margin(8)
        .margin_right(24)
        .x_label_area_size(24)
        .y_label_area_size((LETTER * letters + 20).max(NAMES_MIN))
        .build_cartesian_2d(0.0..longest * 1.05, (0..last).into_segmented())?;
    let name = |at: &SegmentValue<i32>| match at {
        SegmentValue::CenterOf(index) => {
            // Row 0 is drawn at the top.
            bars.get((last - index) as usize).map_or_else(String::new, |bar| bar.name.clone())
        }
        _ => String::new(),
    };
    axes.configure_mesh()
        .disable_y_mesh()
        .y_labels(bars.len())
        .y_label_formatter(&name)
        .label_style(("sans-serif", 12))
        .draw()?;
    for (index, bar) in bars.iter().enumerate() {
        let at = last - index as i32;
        let color = if bar.ours { OURS } else { OTHERS };
        let value = median(&bar.values).unwrap_or(0.0);
        let extent = [(0.0, SegmentValue::Exact(at)), (value, SegmentValue::Exact(at + 1))];
        let mut rectangle = Rectangle::new(extent, color.filled());
        rectangle.set_margin(2, 2, 0, 0);
        let (min, max) = min_max(&bar.values);
        let middle = SegmentValue::CenterOf(at);
        let spread = PathElement::new([(min, middle.clone()), (max, middle)], BLACK);
        axes.draw_series([rectangle])?;
        axes.draw_series([spread])?;
    }
    Ok(())
}
