//! Which tunnels there should be, given what peers say of their ends. Decides; changes nothing.
//!
//! Names are trusted among those who may connect, addresses are not: of two peers with one address inside, or one key, the
//! first of the list has it, and nobody is sent what is meant for another who was there before. Where WireGuard is to send
//! to, a peer may say (it may be behind a translator): whoever is there cannot read it. VXLAN goes to where the peer is.

use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
};

use dwcp_node::wireguard::{Network, PEERS_MAX, Peer, PublicKey};
use serde::{Deserialize, Serialize};

use novacron_control::schema::{TunnelEnds, VxlanEnd, WireGuardEnd};

/// So that firewalls in between remember a tunnel, in seconds; as in WireGuard's manual.
const KEEPALIVE_S: u16 = 25;

/// A peer as tunnels see it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Neighbour {
    pub(crate) node_id: String,
    pub(crate) region: Option<String>,
    /// Of the connection to it.
    pub(crate) address: IpAddr,
    pub(crate) ends: TunnelEnds,
}

/// This node's own side.
#[derive(Clone, Debug)]
pub(crate) struct Own {
    pub(crate) region: Option<String>,
    /// Also to peers in the own region.
    pub(crate) within_region: bool,
    pub(crate) ends: TunnelEnds,
    /// The network that the nodes' addresses inside WireGuard are of.
    pub(crate) network: Option<Network>,
    /// VXLAN goes through WireGuard.
    pub(crate) over_wireguard: bool,
}

/// What there should be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Plan {
    pub(crate) wireguard: Vec<Peer>,
    pub(crate) vxlan: Vec<IpAddr>,
    /// Whose tunnels go over the network that is there, and to where.
    pub(crate) outside: Vec<(String, IpAddr)>,
    /// Peers that are passed over, and why.
    pub(crate) refused: Vec<(String, String)>,
}

/// Decides. `neighbours` are in the order in which they came to their addresses.
pub(crate) fn plan(own: &Own, neighbours: &[Neighbour]) -> Plan {
    let mut plan = Plan::default();
    let mut taken = Taken::new(&own.ends);
    for neighbour in neighbours.iter().filter(|neighbour| own.within_region || neighbour.region != own.region)
    {
        let mut tunnel = None;
        if let (Some(_), Some(end)) = (&own.ends.wireguard, &neighbour.ends.wireguard) {
            match taken.wireguard(own, neighbour, end) {
                Ok(peer) => {
                    tunnel = Some(end.address);
                    let to = peer.endpoint.map_or(neighbour.address, |endpoint| endpoint.ip());
                    plan.outside.push((neighbour.node_id.clone(), to));
                    plan.wireguard.push(peer);
                }
                Err(why) => plan.refused.push((neighbour.node_id.clone(), format!("WireGuard: {why}"))),
            }
        }
        if let (Some(ours), Some(end)) = (&own.ends.vxlan, &neighbour.ends.vxlan) {
            let below = if own.over_wireguard { tunnel } else { Some(neighbour.address) };
            match taken.vxlan(ours, end, below) {
                Ok(()) => {
                    plan.vxlan.push(end.address);
                    if !own.over_wireguard {
                        plan.outside.push((neighbour.node_id.clone(), end.address));
                    }
                }
                Err(why) => plan.refused.push((neighbour.node_id.clone(), format!("VXLAN: {why}"))),
            }
        }
    }
    plan
}

/// What cannot be had twice.
struct Taken {
    keys: BTreeSet<PublicKey>,
    inside: BTreeSet<IpAddr>,
    outside: BTreeSet<IpAddr>,
    tunnels: usize,
}

impl Taken {
    fn new(own: &TunnelEnds) -> Self {
        let keys = own.wireguard.iter().flat_map(|end| &end.public_keys).filter_map(|key| key.parse().ok());
        Self {
            keys: keys.collect(),
            inside: own.wireguard.iter().map(|end| end.address).collect(),
            outside: own.vxlan.iter().map(|end| end.address).collect(),
            tunnels: 0,
        }
    }

    fn wireguard(&mut self, own: &Own, neighbour: &Neighbour, end: &WireGuardEnd) -> Result<Peer, String> {
        let network = own.network.ok_or("there is no network")?;
        let keys: Vec<PublicKey> = end.public_keys.iter().map_while(|key| key.parse().ok()).collect();
        if keys.len() != end.public_keys.len()
            || !(1..=2).contains(&keys.len())
            || keys.first() == keys.get(1)
        {
            return Err(
                "it has no key, or more than the current one and the next, or one that is none".to_owned()
            );
        }
        if keys.iter().any(|key| self.keys.contains(key)) {
            return Err("another node has its key".to_owned());
        }
        if Network::new(end.address, network.prefix()) != Some(network) {
            return Err(format!("its address {} is not of {network}", end.address));
        }
        if end.port == 0 || end.endpoint.is_some_and(|at| at.port() == 0 || at.ip().is_unspecified()) {
            return Err("it says nowhere to send to".to_owned());
        }
        if self.tunnels == PEERS_MAX {
            return Err(format!("there are {PEERS_MAX} tunnels, which is as many as there can be"));
        }
        if !self.inside.insert(end.address) {
            return Err(format!("another node has its address {}", end.address));
        }
        self.keys.extend(&keys);
        self.tunnels += 1;
        let host = if end.address.is_ipv4() { 32 } else { 128 };
        Ok(Peer {
            name: neighbour.node_id.clone(),
            public_keys: keys,
            preshared_key: None,
            endpoint: Some(end.endpoint.unwrap_or(SocketAddr::new(neighbour.address, end.port))),
            allowed_ips: Network::new(end.address, host).into_iter().collect(),
            keepalive_s: Some(KEEPALIVE_S),
        })
    }

    /// `below`: where the peer is known to be.
    fn vxlan(&mut self, ours: &VxlanEnd, end: &VxlanEnd, below: Option<IpAddr>) -> Result<(), String> {
        let Some(below) = below else { return Err("there is no WireGuard to it".to_owned()) };
        if (end.vni, end.port) != (ours.vni, ours.port) {
            return Err(format!(
                "its network is {} on port {}, not {} on {}",
                end.vni, end.port, ours.vni, ours.port
            ));
        }
        if end.address != below {
            return Err(format!("it says to be at {}, and is at {below}", end.address));
        }
        if end.address.is_ipv4() != ours.address.is_ipv4() {
            return Err(format!("{} and {} are of two families", end.address, ours.address));
        }
        if !self.outside.insert(end.address) {
            return Err(format!("another node has its address {}", end.address));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use dwcp_node::wireguard::PrivateKey;

    use super::*;

    fn key() -> String {
        PrivateKey::generate().expect("randomness").public_key().to_string()
    }

    fn ends(inside: &str, outside: &str) -> TunnelEnds {
        TunnelEnds {
            wireguard: Some(WireGuardEnd {
                public_keys: vec![key()],
                address: inside.parse().expect("an address"),
                port: 51820,
                endpoint: None,
            }),
            vxlan: Some(VxlanEnd { vni: 100, port: 4789, address: outside.parse().expect("an address") }),
        }
    }

    fn own() -> Own {
        Own {
            region: Some("eu".to_owned()),
            within_region: false,
            ends: ends("10.99.0.1", "10.99.0.1"),
            network: "10.99.0.0/16".parse().ok(),
            over_wireguard: true,
        }
    }

    fn neighbour(name: &str, inside: &str) -> Neighbour {
        Neighbour {
            node_id: name.to_owned(),
            region: Some("us".to_owned()),
            address: "192.0.2.7".parse().expect("an address"),
            ends: ends(inside, inside),
        }
    }

    #[test]
    fn a_node_of_another_region_has_both_tunnels() {
        let b = neighbour("b", "10.99.0.2");
        let plan = plan(&own(), std::slice::from_ref(&b));
        assert_eq!(plan.refused, []);
        let [peer] = &plan.wireguard[..] else { panic!("{plan:?}") };
        assert_eq!(peer.endpoint, "192.0.2.7:51820".parse().ok());
        assert_eq!(peer.allowed_ips, ["10.99.0.2/32".parse().expect("a network")]);
        assert_eq!(plan.vxlan, [IpAddr::from([10, 99, 0, 2])]);
        assert_eq!(plan.outside, [("b".to_owned(), IpAddr::from([192, 0, 2, 7]))], "the network carries one");
    }

    #[test]
    fn without_wireguard_vxlan_goes_to_where_the_peer_is() {
        let mut own = own();
        own.over_wireguard = false;
        own.ends = TunnelEnds { wireguard: None, ..ends("10.99.0.1", "192.0.2.1") };
        let mut b = neighbour("b", "10.99.0.2");
        b.ends.vxlan = ends("10.99.0.2", "192.0.2.7").vxlan;
        assert_eq!(plan(&own, &[b]).vxlan, [IpAddr::from([192, 0, 2, 7])]);
    }

    #[test]
    fn the_own_region_has_none_unless_told() {
        let mut b = neighbour("b", "10.99.0.2");
        b.region = Some("eu".to_owned());
        assert_eq!(plan(&own(), std::slice::from_ref(&b)), Plan::default());
        let all = Own { within_region: true, ..own() };
        assert_eq!(plan(&all, &[b]).wireguard.len(), 1);
    }

    #[test]
    fn what_would_lead_elsewhere_is_refused() {
        let wireguard = |neighbour: &mut Neighbour, change: fn(&mut WireGuardEnd)| {
            change(neighbour.ends.wireguard.as_mut().expect("it has one"));
        };
        let cases: [(&dyn Fn(&mut Neighbour), &str); 8] = [
            (&|b| wireguard(b, |end| end.address = "10.98.0.2".parse().expect("an address")), "is not of"),
            (
                &|b| wireguard(b, |end| end.address = "10.99.0.1".parse().expect("an address")),
                "another node has",
            ),
            (&|b| wireguard(b, |end| end.public_keys.clear()), "no key"),
            (&|b| wireguard(b, |end| end.public_keys = vec![key(), key(), key()]), "no key"),
            (&|b| wireguard(b, |end| end.public_keys.push("x".to_owned())), "no key"),
            (&|b| wireguard(b, |end| end.port = 0), "nowhere"),
            (&|b| b.ends.vxlan.as_mut().expect("it has one").vni = 7, "its network is 7"),
            (
                &|b| {
                    b.ends.vxlan.as_mut().expect("it has one").address =
                        "192.0.2.99".parse().expect("an address")
                },
                "says to be at",
            ),
        ];
        for (change, why) in cases {
            let mut b = neighbour("b", "10.99.0.2");
            change(&mut b);
            let plan = plan(&own(), &[b]);
            assert!(plan.vxlan.is_empty(), "{why}");
            assert!(plan.refused.iter().any(|(_, said)| said.contains(why)), "{why}: {:?}", plan.refused);
        }
    }

    #[test]
    fn of_two_with_one_address_or_key_the_first_has_it() {
        let (b, mut c) = (neighbour("b", "10.99.0.2"), neighbour("c", "10.99.0.2"));
        let plan_of_two = plan(&own(), &[b.clone(), c.clone()]);
        assert_eq!(plan_of_two.wireguard.iter().map(|peer| &*peer.name).collect::<Vec<_>>(), ["b"]);
        assert_eq!(
            plan_of_two.refused.len(),
            2,
            "nor VXLAN, which needs WireGuard: {:?}",
            plan_of_two.refused
        );
        c = neighbour("c", "10.99.0.3");
        c.ends.wireguard.as_mut().expect("it has one").public_keys =
            b.ends.wireguard.clone().expect("it has one").public_keys;
        assert_eq!(plan(&own(), &[b, c]).wireguard.len(), 1);
    }
}
