//! What a replicator is told, and what it tells.

use std::collections::BTreeMap;

use crate::{
    clock::TooFarAhead,
    command::Command,
    message::Message,
    topology::{Link, Preference, Topology},
    vector::RegionId,
};

/// Settings of a region's leader.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Between deltas of changes that are not urgent, in milliseconds.
    pub interval_ms: u64,
    /// Between comparisons with another region, in milliseconds.
    pub anti_entropy_interval_ms: u64,
    /// Regions that changes are sent to in an interval. In a tree all neighbours are.
    pub fanout: usize,
    /// By how much clocks of different regions can differ, in milliseconds.
    pub skew_max_ms: u64,
    /// Who speaks with whom.
    pub topology: Topology,
    /// What ways are chosen by.
    pub preference: Preference,
    /// What is known of the ways to other regions. Round trips are measured.
    pub links: BTreeMap<RegionId, Link>,
    /// Whom a region asks that does not know the members yet.
    pub seeds: Vec<RegionId>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            interval_ms: 5_000,
            anti_entropy_interval_ms: 30_000,
            fanout: 3,
            skew_max_ms: 5_000,
            topology: Topology::default(),
            preference: Preference::default(),
            links: BTreeMap::new(),
            seeds: Vec::new(),
        }
    }
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq)]
pub enum Output {
    /// Send this; it may be lost.
    Send(Message),
    /// Propose this to the region's log. What became of [`Command::Merge`] is told by
    /// [`handle_merged`](crate::Replicator::handle_merged), of [`Command::Take`] by
    /// [`handle_taken`](crate::Replicator::handle_taken).
    Propose(Command),
    /// Tell an operator.
    Alarm(Alarm),
}

/// What should not be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Alarm {
    /// A region's clock is too far ahead: it is not listened to until time has caught up.
    ClockAhead {
        /// Which.
        region: RegionId,
        /// By how much.
        error: TooFarAhead,
    },
    /// Another region knows more changes of this one than it has made: this one's data is of a backup. It must not write, and has
    /// to come back under a new number.
    Forgotten {
        /// Who knows.
        region: RegionId,
        /// How many it knows.
        theirs: u64,
        /// How many there are here.
        ours: u64,
    },
    /// Another region has collected tombstones that this one has never seen: this one's data is of a backup, or it was removed and
    /// has not heard of it. It has to come back under a new number.
    Behind {
        /// Who has collected.
        region: RegionId,
    },
    /// A comparison has found items that differ although both sides know the same of them. They are merged.
    Differs {
        /// With whom.
        region: RegionId,
        /// How many.
        items: usize,
    },
    /// A region sends faster than this one can merge. What is dropped is sent again.
    Busy {
        /// Which.
        region: RegionId,
    },
}
