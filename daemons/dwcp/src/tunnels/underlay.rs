//! How long a packet may be that carries a tunnel: what this node's interfaces take, and what paths to peers have proved.
//!
//! Less counts at once, more only when it was seen some times in a row and no path is being searched: a tunnel that is too
//! small is a little slower, one that is too large carries nothing.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    net::{IpAddr, SocketAddr},
};

use dwcp_node::mtu::{self, Underlay as Ip};

use crate::{
    hub::Reached,
    settings::{Tunnels, VxlanEnd},
};

/// Of an uplink that nobody knows.
const MTU_UNKNOWN: u32 = 1500;
/// So many looks in a row have to see more before tunnels get larger.
const LOOKS_FOR_MORE: u32 = 3;

/// What tunnels have below them, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Below {
    /// The MTU of the network between nodes.
    pub(super) network: u32,
    /// The MTU of WireGuard's interface.
    pub(super) wireguard: u32,
}

/// One limit of what is below: an MTU, and which IP packets have there, if that is known.
type Limit = (u32, Option<Ip>);

impl Below {
    fn least(limits: &[Limit]) -> Self {
        let network = limits.iter().map(|(mtu, _)| *mtu).min().unwrap_or(MTU_UNKNOWN);
        // Where peers may be reached by either, the longer header always fits.
        let inside = limits.iter().map(|(mtu, ip)| mtu::wireguard(*mtu, ip.unwrap_or(Ip::V6)));
        Self { network, wireguard: inside.min().unwrap_or_else(|| mtu::wireguard(MTU_UNKNOWN, Ip::V6)) }
    }

    /// What VXLAN has below it.
    pub(super) fn of(self, end: VxlanEnd) -> u32 {
        match end {
            VxlanEnd::At(_) => self.network,
            VxlanEnd::WireGuard => self.wireguard,
        }
    }

    fn min(self, other: Self) -> Self {
        Self { network: self.network.min(other.network), wireguard: self.wireguard.min(other.wireguard) }
    }
}

/// What was seen, look by look.
pub(super) struct Underlay {
    wanted: Option<u32>,
    /// The tunnels themselves carry no tunnel.
    own: [String; 2],
    below: Below,
    /// Looks in a row that saw more.
    saw_more: u32,
    /// What the path to a peer that has a tunnel carried at last, as soon as that was known.
    proved: BTreeMap<String, u32>,
    /// The MTU of the interface that leads to it.
    first_hops: HashMap<String, u32>,
}

impl Underlay {
    /// As long as no peer is connected, the uplinks are all that there is to go by.
    pub(super) fn new(wanted: &Tunnels) -> Self {
        let limits = match (wanted.underlay_mtu, mtu::of_uplinks(&BTreeMap::new())) {
            (Some(mtu), _) => vec![(mtu, None)],
            (None, Ok(mtu)) => mtu.map(|mtu| (mtu, None)).into_iter().collect(),
            (None, Err(error)) => {
                tracing::warn!(%error, "the MTU of the uplinks is not known");
                Vec::new()
            }
        };
        Self {
            wanted: wanted.underlay_mtu,
            own: [wanted.interface.clone(), wanted.vxlan_interface.clone()],
            below: Below::least(&limits),
            saw_more: 0,
            proved: BTreeMap::new(),
            first_hops: HashMap::new(),
        }
    }

    pub(super) fn below(&self) -> Below {
        self.below
    }

    /// Looks. `outside`: to which peers tunnels lead, and where those are. `held`: what may be sent through an interface,
    /// where that is less than its MTU. `searches`: whether a path is to be measured anew when its first interface takes
    /// more.
    pub(super) fn look(
        &mut self,
        outside: &[(String, IpAddr)],
        reached: &[Reached],
        held: &BTreeMap<String, u32>,
        searches: bool,
    ) {
        if self.wanted.is_some() {
            return;
        }
        let is_settled = self.measure(outside, reached);
        match self.interfaces(outside, held) {
            Ok((mut limits, hops)) => {
                if searches {
                    self.search(reached, &hops);
                }
                self.first_hops = hops;
                limits.extend(self.paths(outside));
                self.follow(Below::least(&limits), is_settled);
            }
            Err(error) => tracing::warn!(%error, "what carries tunnels is not known"),
        }
    }

    /// Uplinks go back to this, by their names.
    pub(super) fn let_go(&mut self, former: &BTreeMap<String, u32>, outside: &[(String, IpAddr)]) {
        if self.wanted.is_none()
            && let Ok((limits, _)) = self.interfaces(outside, former)
        {
            self.below = self.below.min(Below::least(&limits));
        }
    }

    /// Remembers what paths have proved; whether that is all there is to know of them now.
    fn measure(&mut self, outside: &[(String, IpAddr)], reached: &[Reached]) -> bool {
        let tunnelled: HashSet<&str> = outside.iter().map(|(name, _)| &**name).collect();
        self.proved.retain(|name, _| tunnelled.contains(&**name));
        let mut is_settled = true;
        for peer in reached.iter().filter(|peer| tunnelled.contains(&*peer.greeting.node_id)) {
            match peer.connection.path() {
                Some(path) if path.is_searching => is_settled = false,
                Some(path) if path.rtt.is_some() => {
                    self.proved.insert(peer.greeting.node_id.clone(), path.mtu);
                }
                // It has no datagrams, or none was answered.
                _ => {}
            }
        }
        is_settled
    }

    fn paths(&self, outside: &[(String, IpAddr)]) -> Vec<Limit> {
        let limit = |(name, to): &(String, IpAddr)| Some((*self.proved.get(name)?, Some(Ip::of(*to))));
        outside.iter().filter_map(limit).collect()
    }

    /// What interfaces take, and what the one that leads to each peer takes.
    fn interfaces(
        &self,
        outside: &[(String, IpAddr)],
        held: &BTreeMap<String, u32>,
    ) -> Result<(Vec<Limit>, HashMap<String, u32>), mtu::MtuError> {
        let mut limits: Vec<Limit> = mtu::of_uplinks(held)?.map(|mtu| (mtu, None)).into_iter().collect();
        let places: Vec<_> = outside.iter().map(|(_, to)| SocketAddr::new(*to, 0)).collect();
        let (names, interfaces) = mtu::interfaces_to(&places)?;
        let mut hops = HashMap::new();
        for ((peer, _), name) in outside.iter().zip(names) {
            let Some(name) = name.filter(|name| !self.own.contains(name)) else { continue };
            let takes = interfaces[&name].mtu;
            limits.push((held.get(&name).map_or(takes, |held| takes.min(*held)), None));
            hops.insert(peer.clone(), takes);
        }
        Ok((limits, hops))
    }

    /// Paths are measured up to what their first interface took when the connection was made.
    fn search(&self, reached: &[Reached], hops: &HashMap<String, u32>) {
        for peer in reached {
            let name = &peer.greeting.node_id;
            if let (Some(before), Some(now)) = (self.first_hops.get(name), hops.get(name))
                && now > before
            {
                peer.connection.search_path_mtu(*now);
            }
        }
    }

    fn follow(&mut self, seen: Below, is_settled: bool) {
        let less = self.below.min(seen);
        if less == self.below && seen != self.below && is_settled {
            self.saw_more += 1;
            if self.saw_more >= LOOKS_FOR_MORE {
                (self.below, self.saw_more) = (seen, 0);
            }
            return;
        }
        (self.below, self.saw_more) = (less, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_limit_counts_with_the_header_that_it_has() {
        let uplink = (1500, None);
        assert_eq!(Below::least(&[]), Below { network: 1500, wireguard: 1420 });
        assert_eq!(Below::least(&[uplink]), Below { network: 1500, wireguard: 1420 });
        let v4 = Below::least(&[uplink, (1398, Some(Ip::V4))]);
        assert_eq!(v4, Below { network: 1398, wireguard: 1338 });
        assert_eq!(Below::least(&[uplink, (1398, Some(Ip::V6))]).wireguard, 1318);
        assert_eq!(Below::least(&[(9000, None), (8996, Some(Ip::V4))]).wireguard, 8920);
        assert_eq!(v4.of(VxlanEnd::WireGuard), 1338);
        assert_eq!(v4.of(VxlanEnd::At([192, 0, 2, 1].into())), 1398);
    }

    #[test]
    fn less_counts_at_once_and_more_when_it_was_seen_for_a_while() {
        let [less, more] = [1398, 1500].map(|mtu| Below::least(&[(mtu, None)]));
        let mut underlay = Underlay::new(&Tunnels { underlay_mtu: Some(1500), ..Tunnels::default() });
        underlay.follow(less, true);
        assert_eq!(underlay.below(), less);
        for (seen, is_settled) in
            [(more, true), (more, true), (less, true), (more, true), (more, true), (more, false)]
        {
            underlay.follow(seen, is_settled);
            assert_eq!(underlay.below(), less, "it was not seen {LOOKS_FOR_MORE} times in a row");
        }
        for _ in 0..LOOKS_FOR_MORE {
            assert_eq!(underlay.below(), less);
            underlay.follow(more, true);
        }
        assert_eq!(underlay.below(), more);
    }
}
