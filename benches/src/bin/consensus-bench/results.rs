//! What was measured, as it is stored: loads can be measured one at a time, and each takes its place among the others.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use anyhow::{Context as _, Result};
use dwcp_benches::report::{Machine, ratio};
use serde::{Deserialize, Serialize};

use crate::{
    contender::{Contender, Kind},
    figure::Figure,
    load::{Case, Load},
};

/// All loads that were measured.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Results {
    pub(crate) loads: BTreeMap<Load, Measured>,
}

/// One load, in one run.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Measured {
    pub(crate) machine: Machine,
    pub(crate) rounds: usize,
    pub(crate) seconds: f64,
    pub(crate) names: BTreeMap<Kind, String>,
    /// In the order in which they were measured.
    pub(crate) rows: Vec<Row>,
    /// Rounds of which nothing came.
    pub(crate) failures: BTreeMap<Kind, u32>,
}

/// One contender in one case.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Row {
    pub(crate) kind: Kind,
    pub(crate) case: String,
    /// The values of all rounds.
    pub(crate) figures: BTreeMap<Figure, Vec<f64>>,
}

impl Measured {
    pub(crate) fn new(rounds: usize, seconds: f64) -> Self {
        Self {
            machine: Machine::current("consensus-bench"),
            rounds,
            seconds,
            names: BTreeMap::new(),
            rows: Vec::new(),
            failures: BTreeMap::new(),
        }
    }

    pub(crate) fn push(&mut self, contender: &Contender, measured: Result<Vec<Case>>) {
        let kind = contender.kind;
        self.names.insert(kind, contender.name.clone());
        let Ok(cases) = measured else {
            *self.failures.entry(kind).or_default() += 1;
            return;
        };
        for case in cases {
            let at = self.rows.iter().position(|row| row.kind == kind && row.case == case.name);
            let at = at.unwrap_or_else(|| {
                self.rows.push(Row { kind, case: case.name, figures: BTreeMap::new() });
                self.rows.len() - 1
            });
            for (figure, values) in case.figures {
                self.rows[at].figures.entry(figure).or_default().extend(values);
            }
        }
    }

    /// The cases, each with its rows side by side.
    pub(crate) fn cases(&self) -> Vec<(&str, Vec<&Row>)> {
        let mut seen = BTreeSet::new();
        let names = self.rows.iter().map(|row| &*row.case).filter(|name| seen.insert(*name));
        names.map(|name| (name, self.rows.iter().filter(|row| row.case == name).collect())).collect()
    }

    pub(crate) fn figures(&self) -> BTreeSet<Figure> {
        self.rows.iter().flat_map(|row| row.figures.keys().copied()).collect()
    }
}

impl Results {
    /// Nothing if there is no such file.
    pub(crate) fn read(path: &Path) -> Result<Self> {
        if !path.exists() {
            return Ok(Self::default());
        }
        let text = std::fs::read(path).with_context(|| format!("reading {}", path.display()))?;
        serde_json::from_slice(&text).with_context(|| path.display().to_string())
    }

    pub(crate) fn write(&self, path: &Path) -> Result<()> {
        std::fs::write(path, serde_json::to_vec_pretty(self)?)
            .with_context(|| format!("writing {}", path.display()))
    }

    /// The values of all rounds; none if it was not measured.
    pub(crate) fn values(&self, load: Load, case: &str, kind: Kind, figure: Figure) -> &[f64] {
        let rows = self.loads.get(&load).map(|measured| &measured.rows[..]).unwrap_or_default();
        let row = rows.iter().find(|row| row.kind == kind && row.case == case);
        row.and_then(|row| row.figures.get(&figure)).map(|values| &values[..]).unwrap_or_default()
    }

    /// One of ours to etcd.
    pub(crate) fn ratio(&self, load: Load, case: &str, ours: Kind, figure: Figure) -> Option<f64> {
        let values = |kind| self.values(load, case, kind, figure);
        ratio(values(ours), values(Kind::Etcd))
    }
}
