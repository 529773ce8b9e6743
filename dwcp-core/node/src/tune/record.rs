//! What was changed, on disk.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::{Item, same};
use crate::state::{self, StateError};

/// A change of one item.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Change {
    pub(crate) item: Item,
    /// The value that somebody else has set.
    pub(crate) was: String,
    /// The values that may be there by our hand: one, or two while one of ours replaces another.
    pub(crate) ours: Vec<String>,
}

/// All changes that are not put back yet.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Record {
    /// The kernel's name for this start of the machine: settings do not outlive it.
    boot: String,
    pub(crate) changes: Vec<Change>,
}

impl Record {
    /// The record, or an empty one if there is none since the machine was started.
    pub(crate) fn load(path: &Path) -> Result<Self, StateError> {
        let empty = Self { boot: state::boot(), changes: Vec::new() };
        let Some(content) = state::read(path)? else { return Ok(empty) };
        let record: Self = serde_json::from_slice(&content)
            .map_err(|e| StateError::Damaged { path: path.to_owned(), detail: e.to_string() })?;
        Ok(if record.boot == empty.boot { record } else { empty })
    }

    /// Replaces the file, or removes it if there is nothing to put back.
    pub(crate) fn store(&self, path: &Path) -> Result<(), StateError> {
        if self.changes.is_empty() {
            return state::remove(path);
        }
        state::write(path, &serde_json::to_vec_pretty(self).expect("strings and lists"))
    }

    /// Adds a change that is about to be made.
    pub(super) fn add(&mut self, item: &Item, from: &str, to: &str) {
        let earlier = self.changes.iter().position(|change| change.item == *item);
        let earlier = earlier.map(|at| self.changes.remove(at));
        let mut change = Change { item: item.clone(), was: from.to_owned(), ours: vec![to.to_owned()] };
        // What we have set is not what was there before us.
        if let Some(earlier) = earlier.filter(|earlier| earlier.ours.iter().any(|ours| same(ours, from))) {
            change.was = earlier.was;
            change.ours.push(from.to_owned());
        }
        self.changes.push(change);
    }

    /// Adds a switch that the kernel is about to overwrite beside an item that was added before: it is put back after that,
    /// and whatever is there then is the kernel's.
    pub(super) fn add_overwritten(&mut self, item: Item, was: String) {
        let earlier = self.changes.iter().position(|change| change.item == item);
        let was = earlier.map_or(was, |at| self.changes.remove(at).was);
        self.changes.push(Change { item, was, ours: vec!["0".to_owned(), "1".to_owned()] });
    }
}
