//! What lies between regions.

use std::collections::BTreeSet;

use consensus_regions::RegionId;

use crate::random::Random;

/// Links that are cut now, each direction by itself.
#[derive(Debug, Default)]
pub(crate) struct Network {
    cut: BTreeSet<(RegionId, RegionId)>,
    pub(crate) bytes: u64,
    pub(crate) messages: u64,
}

impl Network {
    /// Cuts off a region, or a link, or one direction of one; or heals everything.
    pub(crate) fn shuffle(&mut self, regions: &[RegionId], random: &mut Random) {
        self.cut.clear();
        let one = random.pick(regions).expect("there are regions");
        let other = random.pick(regions).expect("there are regions");
        match random.below(5) {
            0 => self.cut.extend(regions.iter().flat_map(|region| [(one, *region), (*region, one)])),
            1 | 2 => self.cut.extend([(one, other), (other, one)]),
            3 => drop(self.cut.insert((one, other))),
            _ => {}
        }
    }

    pub(crate) fn heal(&mut self) {
        self.cut.clear();
    }

    /// After how many milliseconds a message arrives: never, once, or more often.
    pub(crate) fn send(
        &mut self,
        (from, to): (RegionId, RegionId),
        bytes: usize,
        delay_ms: u64,
        has_faults: bool,
        random: &mut Random,
    ) -> Vec<u64> {
        self.bytes += bytes as u64;
        self.messages += 1;
        if !has_faults {
            return vec![delay_ms + random.below(3)];
        }
        if self.cut.contains(&(from, to)) || random.per_mille(30) {
            return Vec::new();
        }
        let mut arrivals = vec![delay_ms + random.below(50)];
        if random.per_mille(50) {
            arrivals[0] += random.below(3_000);
        }
        if random.per_mille(40) {
            // Long after all has been forgotten, perhaps.
            arrivals.push(delay_ms + random.below(90_000));
        }
        arrivals
    }
}
