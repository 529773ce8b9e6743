//! How to reach those whom this side has wanted to reach: learned from the frames that they send.
//!
//! Only who was sent to is remembered, so that strangers cannot fill the table; and what was learned is forgotten when
//! nothing comes any more, as the path may have changed.

use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

use super::super::packet::LinkPath;

/// Peers of one socket.
pub(super) const NEIGHBORS_MAX: usize = 4096;
/// As long as Linux takes a neighbor for reachable.
const AGE_MAX: Duration = Duration::from_secs(30);

/// The way to a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Route {
    pub(super) path: LinkPath,
    /// The address of this side that the peer knows.
    pub(super) from: SocketAddr,
}

/// Who was sent to; when, and what was learned of the way since.
#[derive(Debug)]
pub(super) struct Neighbors {
    known: HashMap<IpAddr, (Instant, Option<Route>)>,
    swept: Instant,
}

impl Neighbors {
    pub(super) fn new(now: Instant) -> Self {
        Self { known: HashMap::new(), swept: now }
    }

    /// The way to a peer. If there is none, its next frame will tell.
    pub(super) fn route(&mut self, peer: IpAddr, now: Instant) -> Option<Route> {
        match self.known.get_mut(&peer) {
            Some((heard, Some(route))) if now.duration_since(*heard) <= AGE_MAX => Some(*route),
            Some(entry) => {
                *entry = (now, None);
                None
            }
            None => {
                self.want(peer, now);
                None
            }
        }
    }

    fn want(&mut self, peer: IpAddr, now: Instant) {
        // Looking through all of them is worth it once in a while.
        if self.known.len() >= NEIGHBORS_MAX && now.duration_since(self.swept) > AGE_MAX {
            self.known.retain(|_, (at, _)| now.duration_since(*at) <= AGE_MAX);
            self.swept = now;
        }
        if self.known.len() < NEIGHBORS_MAX {
            self.known.insert(peer, (now, None));
        }
    }

    /// Notes the way that a frame of a peer shows.
    pub(super) fn learn(&mut self, peer: IpAddr, route: Route, now: Instant) {
        if let Some(entry) = self.known.get_mut(&peer) {
            *entry = (now, Some(route));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route(last: u8) -> Route {
        let path = LinkPath::new([2; 6], [last; 6], &[]).unwrap();
        Route { path, from: "192.0.2.2:8889".parse().unwrap() }
    }

    fn peer(number: u32) -> IpAddr {
        IpAddr::from((0xc000_0200 + number).to_be_bytes())
    }

    #[test]
    fn only_who_was_sent_to_is_learned_and_the_latest_frame_counts() {
        let now = Instant::now();
        let mut neighbors = Neighbors::new(now);
        neighbors.learn(peer(1), route(1), now);
        assert_eq!(neighbors.route(peer(1), now), None);
        neighbors.learn(peer(1), route(1), now);
        neighbors.learn(peer(1), route(2), now);
        assert_eq!(neighbors.route(peer(1), now), Some(route(2)));
        assert_eq!(neighbors.route(peer(2), now), None);
    }

    #[test]
    fn a_silent_peer_is_forgotten_and_learned_again() {
        let begin = Instant::now();
        let mut neighbors = Neighbors::new(begin);
        neighbors.route(peer(1), begin);
        neighbors.learn(peer(1), route(1), begin);
        assert_eq!(neighbors.route(peer(1), begin + AGE_MAX), Some(route(1)));
        let later = begin + AGE_MAX + Duration::from_nanos(1);
        assert_eq!(neighbors.route(peer(1), later), None);
        neighbors.learn(peer(1), route(3), later);
        assert_eq!(neighbors.route(peer(1), later), Some(route(3)));
    }

    #[test]
    fn the_table_is_bounded_and_makes_way_for_others() {
        let begin = Instant::now();
        let mut neighbors = Neighbors::new(begin);
        for number in 0..NEIGHBORS_MAX as u32 + 1 {
            assert_eq!(neighbors.route(peer(number), begin), None);
            neighbors.learn(peer(number), route(1), begin);
        }
        assert_eq!(neighbors.known.len(), NEIGHBORS_MAX);
        assert_eq!(neighbors.route(peer(NEIGHBORS_MAX as u32), begin), None, "the last found no place");
        let later = begin + AGE_MAX * 2;
        neighbors.learn(peer(0), route(1), later);
        neighbors.route(peer(NEIGHBORS_MAX as u32), later);
        assert_eq!(neighbors.known.len(), 2, "who was heard, and who wants to be");
        assert_eq!(neighbors.route(peer(0), later), Some(route(1)));
    }
}
