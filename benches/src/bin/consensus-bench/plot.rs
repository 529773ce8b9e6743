//! Which figures are drawn.

use std::path::Path;

use anyhow::Result;
use dwcp_benches::report::{Bar, Chart, draw as draw_charts};

use crate::{contender::Kind, figure::Figure, load::Load, results::Results};

/// One of each load: what its title says, in this unit.
const DRAWN: [(Load, Figure); 9] = [
    (Load::Put, Figure::PerSecond),
    (Load::Put, Figure::P99Us),
    (Load::Read, Figure::PerSecond),
    (Load::Mixed, Figure::PerSecond),
    (Load::Txn, Figure::SwapsPerSecond),
    (Load::Watch, Figure::EventsPerSecond),
    (Load::Crash, Figure::GapMs),
    (Load::Planned, Figure::GapMs),
    (Load::Join, Figure::JoinMibPerSecond),
];

/// Draws what was measured of them.
pub(crate) fn draw(path: &Path, results: &Results) -> Result<()> {
    let charts = DRAWN.map(|(load, figure)| chart(results, load, figure));
    let charts: Vec<_> = charts.into_iter().filter(|chart| !chart.bars.is_empty()).collect();
    draw_charts(path, &charts)
}

fn chart(results: &Results, load: Load, figure: Figure) -> Chart {
    let mut bars = Vec::new();
    if let Some(measured) = results.loads.get(&load) {
        for row in measured.cases().into_iter().flat_map(|(_, rows)| rows) {
            let values = row.figures.get(&figure).cloned().unwrap_or_default();
            if !values.is_empty() {
                let name = format!("{}: {}", row.case, measured.names[&row.kind]);
                bars.push(Bar {
                    name,
                    ours: matches!(row.kind, Kind::Novacron | Kind::NovacronLease),
                    values,
                });
            }
        }
    }
    Chart { title: format!("{}: {}", load.title(), figure.columns()[0].0), bars }
}
