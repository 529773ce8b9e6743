//! What the simulation breaks on purpose, to see that it is found. Not part of the API: no promise is made about it.

use crate::{
    clock::{Clock, Stamp},
    replica::Replica,
    vector::VersionVector,
};

/// A clock that has not seen what it should have.
pub fn set_clock(replica: &mut Replica, latest: Stamp) {
    replica.clock = Clock::at(latest);
}

/// A region that does not know any more what it has collected.
pub fn forget_horizon(replica: &mut Replica) {
    replica.horizon = VersionVector::default();
}

/// A region that does not know any more how many changes it has made.
pub fn forget_changes(replica: &mut Replica, count: u64) {
    let counter = replica.version.get(replica.region).saturating_sub(count);
    let own = replica.region;
    let others = replica.version.iter().filter(|(region, _)| *region != own);
    replica.version = others.chain([(own, counter)]).collect();
}
