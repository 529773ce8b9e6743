//! What metrics have of the counts that the kernel keeps by source, and what is new in them. Pure.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
};

use dwcp_core::PeerInfo;
use dwcp_ebpf::Action;

/// Sources of which is remembered what the metrics have: twice as many as the kernel counts at a time.
const SOURCES_TOLD_MAX: usize = 8192;

/// `peer` and `region` of a metric.
pub(super) type Labels = [(&'static str, String); 2];
type Counts = [u64; Action::ALL.len()];

/// Who is where. An address of several peers (behind one translator, or on one machine) is nobody's: the kernel cannot tell
/// them apart.
pub(super) fn known(peers: Vec<(SocketAddr, PeerInfo)>) -> BTreeMap<IpAddr, Labels> {
    let mut known = BTreeMap::new();
    for (at, peer) in peers {
        let labels = peer.labels();
        known
            .entry(at.ip().to_canonical())
            .and_modify(|there: &mut Labels| {
                if *there != labels {
                    *there = [("peer", "other".to_owned()), ("region", String::new())];
                }
            })
            .or_insert(labels);
    }
    known
}

/// What the metrics have.
#[derive(Debug, Default)]
pub(super) struct Told(BTreeMap<IpAddr, Counts>);

impl Told {
    /// What is new in the counts of a source. Fewer than were told: the kernel had forgotten it, and all is new.
    pub(super) fn new_of(&mut self, source: IpAddr, now: Counts) -> Counts {
        let before = self.0.insert(source, now).unwrap_or_default();
        let has_begun_anew = now.iter().zip(before).any(|(now, before)| *now < before);
        std::array::from_fn(|at| if has_begun_anew { now[at] } else { now[at] - before[at] })
    }

    /// Forgets who is not known any more, if there are too many. Should one come back that the kernel still counts, it is
    /// told of once more from its beginning, as by an agent that has started anew.
    pub(super) fn forget_unless(&mut self, is_known: impl Fn(&IpAddr) -> bool) {
        if self.0.len() > SOURCES_TOLD_MAX {
            self.0.retain(|source, _| is_known(source));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(number: u32) -> IpAddr {
        IpAddr::from(number.to_be_bytes())
    }

    #[test]
    fn only_what_is_new_is_told_also_of_a_source_that_was_forgotten() {
        let mut told = Told::default();
        assert_eq!(told.new_of(address(1), [5, 0, 2, 0, 0, 0, 0]), [5, 0, 2, 0, 0, 0, 0]);
        assert_eq!(told.new_of(address(1), [5, 0, 2, 0, 0, 0, 0]), [0; 7]);
        assert_eq!(told.new_of(address(1), [6, 3, 2, 0, 0, 0, 0]), [1, 3, 0, 0, 0, 0, 0]);
        assert_eq!(told.new_of(address(2), [1; 7]), [1; 7]);
        // Its counts are those since it came back, of whatever action.
        assert_eq!(told.new_of(address(1), [7, 1, 0, 0, 0, 0, 0]), [7, 1, 0, 0, 0, 0, 0]);
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut told = Told::default();
        for source in 0..=SOURCES_TOLD_MAX as u32 {
            told.new_of(address(source), [1; 7]);
        }
        told.forget_unless(|source| *source == address(3));
        assert_eq!(told.0.len(), 1);
        told.forget_unless(|_| false);
        assert_eq!(told.0.len(), 1, "there is room");
    }
}
