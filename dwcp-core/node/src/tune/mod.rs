//! Settings of the machine that bulk transport over long paths wants, set and put back.
//!
//! Owns: which sysctls and root qdiscs, deciding what has to change (pure, [`plan`] shows it), and changing it. What
//! was there before is on disk before anything changes, so that [`restore`], at exit or by the next start after a
//! crash, puts it back. Who calls either holds the file's [`Lock`](crate::state::Lock): what a process that runs has set is not
//! another's to put back. What somebody else has changed meanwhile is left, and said. Nothing that is better already is
//! lowered. Where something is not possible the report says why, and the rest is done.

mod decide;
pub(crate) mod kernel;
pub(crate) mod record;

use std::{fmt, path::Path};

use serde::{Deserialize, Serialize};

use crate::state::StateError;
use decide::{Want, wants};
use kernel::Kernel;
use record::Record;

/// Where the daemon keeps what it changed, unless told otherwise.
pub const STATE_PATH: &str = "/run/dwcp/tune.json";
/// What a TCP socket's buffers may grow to by default: the bandwidth-delay product of 5 Gbit/s over 100 ms.
pub const BUFFER_BYTES_MAX: u64 = 64 << 20;

const FORWARDING: &str = "net.ipv4.ip_forward";

/// What to set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Interfaces that get `fq` at their root. The uplinks.
    pub interfaces: Vec<String>,
    /// What buffers of sockets may grow to, in bytes, unless it is more already.
    pub buffer_bytes_max: u64,
    /// Forward IPv4 between interfaces. IPv6 is left: with forwarding on, a host no longer learns its routes from router
    /// advertisements, and may lose its only one.
    pub forwarding: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self { interfaces: Vec::new(), buffer_bytes_max: BUFFER_BYTES_MAX, forwarding: true }
    }
}

/// One thing that can be set.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Item {
    /// A sysctl, with dots: `net.ipv4.ip_forward`.
    Sysctl(String),
    /// The root qdisc of this interface.
    RootQdisc(String),
    /// The MTU of this interface.
    Mtu(String),
}

impl fmt::Display for Item {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sysctl(name) => write!(f, "{name}"),
            Self::RootQdisc(interface) => write!(f, "root qdisc of {interface}"),
            Self::Mtu(interface) => write!(f, "MTU of {interface}"),
        }
    }
}

/// What became of an item, or would.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Outcome {
    /// It would be changed.
    WouldSet {
        /// The value now.
        from: String,
        /// The value then.
        to: String,
    },
    /// It was changed.
    Set {
        /// The value before.
        from: String,
        /// The value now.
        to: String,
    },
    /// It is as wanted, or better.
    Already {
        /// The value.
        value: String,
    },
    /// It cannot be done.
    Cannot {
        /// Why, and what to do.
        reason: String,
    },
    /// It is again what it was before we changed it.
    Restored {
        /// The value.
        value: String,
    },
    /// It was not put back, because somebody else has changed it since.
    Left {
        /// The value now.
        value: String,
        /// What it was before we changed it.
        was: String,
    },
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::WouldSet { from, to } => write!(f, "would change from {from} to {to}"),
            Self::Set { from, to } => write!(f, "changed from {from} to {to}"),
            Self::Already { value } => write!(f, "is {value} already"),
            Self::Cannot { reason } => write!(f, "cannot: {reason}"),
            Self::Restored { value } => write!(f, "is {value} again"),
            Self::Left { value, was } => {
                write!(f, "left at {value}, which somebody else has set; before us it was {was}")
            }
        }
    }
}

/// An item and what became of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// What.
    pub item: Item,
    /// And how.
    pub outcome: Outcome,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.item, self.outcome)
    }
}

/// What [`apply`] would do, changing nothing.
pub fn plan(settings: &Settings) -> Vec<Report> {
    let mut kernel = Kernel::here();
    let decided = decide_all(&mut kernel, wants(settings));
    let report = |(item, decision)| {
        let outcome = match decision {
            Decision::Change { from, to } => Outcome::WouldSet { from, to },
            Decision::Stay(outcome) => outcome,
        };
        Report { item, outcome }
    };
    decided.into_iter().map(report).collect()
}

/// Sets what is not as wanted, and puts back what an earlier start has set and is not wanted any more.
///
/// # Errors
///
/// If the state file cannot be written or read: then nothing more is changed, since it could not be put back.
pub fn apply(settings: &Settings, state: &Path) -> Result<Vec<Report>, StateError> {
    apply_in(&mut Kernel::here(), wants(settings), state)
}

/// Puts back all that [`apply`] has set and nobody has changed since. Without a state file there is nothing to do.
///
/// # Errors
///
/// If the state file cannot be read or replaced.
pub fn restore(state: &Path) -> Result<Vec<Report>, StateError> {
    restore_in(&mut Kernel::here(), state, |_| true)
}

/// What has to happen to an item.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Decision {
    Change { from: String, to: String },
    Stay(Outcome),
}

fn decide_all(kernel: &mut Kernel, wants: Vec<(Item, Want)>) -> Vec<(Item, Decision)> {
    let decide = |(item, want): (Item, Want)| {
        let decision = match kernel.possible(&want).and_then(|()| kernel.read(&item)) {
            Ok(present) => decide::decide(&want, &present),
            Err(reason) => Decision::Stay(Outcome::Cannot { reason }),
        };
        (item, decision)
    };
    wants.into_iter().map(decide).collect()
}

fn apply_in(kernel: &mut Kernel, wants: Vec<(Item, Want)>, state: &Path) -> Result<Vec<Report>, StateError> {
    let is_wanted = |item: &Item| wants.iter().any(|(wanted, _)| wanted == item);
    let mut reports = restore_in(kernel, state, |item| match item {
        // Overwritten by it, and put back with it.
        Item::Sysctl(name) if name.starts_with(kernel::CONF) => {
            !is_wanted(&Item::Sysctl(FORWARDING.to_owned()))
        }
        item => !is_wanted(item),
    })?;
    let mut decided = decide_all(kernel, wants);
    record(kernel, &mut decided, state)?;
    for (item, decision) in decided {
        let outcome = match decision {
            Decision::Change { from, to } => change(kernel, &item, from, to),
            Decision::Stay(outcome) => outcome,
        };
        reports.push(Report { item, outcome });
    }
    Ok(reports)
}

/// Writes down what is about to change, beside what an earlier start wrote down. What could not be put back whole will not
/// change.
fn record(kernel: &mut Kernel, decided: &mut [(Item, Decision)], state: &Path) -> Result<(), StateError> {
    let mut record = Record::load(state)?;
    for (item, decision) in decided {
        let Decision::Change { from, to } = &decision else { continue };
        let overwritten = match item {
            Item::Sysctl(name) if name == FORWARDING => kernel.beside_forwarding(),
            _ => Ok(Vec::new()),
        };
        match overwritten {
            Ok(overwritten) => {
                record.add(item, from, to);
                overwritten.into_iter().for_each(|(item, was)| record.add_overwritten(item, was));
            }
            Err(reason) => *decision = Decision::Stay(Outcome::Cannot { reason }),
        }
    }
    record.store(state)
}

fn change(kernel: &mut Kernel, item: &Item, from: String, to: String) -> Outcome {
    match kernel.write(item, &to).and_then(|()| kernel.read(item)) {
        Ok(now) if same(&now, &to) => Outcome::Set { from, to },
        Ok(now) => {
            // What we do not know could not be told from what somebody else has set.
            let back = kernel.write(item, &from).err().map(|why| format!(", and stays so: {why}"));
            let back = back.unwrap_or_default();
            Outcome::Cannot { reason: format!("the kernel makes {now} of {to}{back}") }
        }
        Err(reason) => Outcome::Cannot { reason },
    }
}

/// Puts back those of the recorded items that `which` names.
fn restore_in(
    kernel: &mut Kernel,
    state: &Path,
    which: impl Fn(&Item) -> bool,
) -> Result<Vec<Report>, StateError> {
    let mut record = Record::load(state)?;
    let mut reports = Vec::new();
    // In the order in which they were set: a qdisc that the kernel is to choose again has to find its sysctl as it was.
    record.changes.retain(|change| {
        if !which(&change.item) {
            return true;
        }
        let (outcome, done) = put_back(kernel, change);
        reports.push(Report { item: change.item.clone(), outcome });
        !done
    });
    record.store(state)?;
    Ok(reports)
}

/// What became of it, and whether nothing is left to do.
pub(crate) fn put_back(kernel: &mut Kernel, change: &record::Change) -> (Outcome, bool) {
    match kernel.read(&change.item) {
        Err(reason) => (Outcome::Cannot { reason }, kernel.is_gone(&change.item)),
        Ok(value) if same(&value, &change.was) => (Outcome::Restored { value }, true),
        Ok(value) if change.ours.iter().any(|ours| same(ours, &value)) => {
            match kernel.write(&change.item, &change.was) {
                Ok(()) => (Outcome::Restored { value: change.was.clone() }, true),
                Err(reason) => (Outcome::Cannot { reason }, false),
            }
        }
        Ok(value) => (Outcome::Left { value, was: change.was.clone() }, true),
    }
}

/// Whether two texts are the same value: the kernel puts tabs between numbers.
fn same(one: &str, other: &str) -> bool {
    one.split_whitespace().eq(other.split_whitespace())
}

#[cfg(test)]
mod tests;
