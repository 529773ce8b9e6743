//! What was there before uplinks were raised, on disk.

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::{
    netlink::route::Key,
    state::{self, StateError},
};

/// An uplink that is raised, or about to be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Raised {
    pub(super) interface: String,
    /// Its MTU before, and ours.
    pub(super) was: u32,
    pub(super) to: u32,
    /// What IPv6 sent at most before; none: there is no IPv6.
    pub(super) ipv6_was: Option<u32>,
    /// What packets may be restricted to by our hand: one size, or two while one replaces another.
    pub(super) traffic: Vec<u32>,
    pub(super) routes: Vec<Held>,
}

/// A route that restricts packets by our hand.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Held {
    pub(super) route: Key,
    /// The MTU that it gave before.
    pub(super) was: Option<u32>,
}

/// All uplinks that are not put back yet.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Record {
    /// The kernel's name for this start of the machine: MTUs do not outlive it.
    boot: String,
    pub(super) raised: Vec<Raised>,
}

impl Record {
    /// The record, or an empty one if there is none since the machine was started.
    pub(super) fn load(path: &Path) -> Result<Self, StateError> {
        let empty = Self { boot: state::boot(), raised: Vec::new() };
        let Some(content) = state::read(path)? else { return Ok(empty) };
        let record: Self = serde_json::from_slice(&content)
            .map_err(|e| StateError::Damaged { path: path.to_owned(), detail: e.to_string() })?;
        Ok(if record.boot == empty.boot { record } else { empty })
    }

    /// Replaces the file, or removes it if there is nothing to put back.
    pub(super) fn store(&self, path: &Path) -> Result<(), StateError> {
        if self.raised.is_empty() {
            return state::remove(path);
        }
        state::write(path, &serde_json::to_vec(self).expect("strings, numbers and lists"))
    }
}
