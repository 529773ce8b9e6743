//! Peers, their sessions, and which packet belongs to whom. No sockets: packets in, packets out.
//!
//! A peer has a tunnel for each pair of a key of its and a key of ours that is in use: one, and up to four while keys are
//! rotated. Packets are taken from any of them, and sent through the one whose handshake is the latest that the peer has
//! confirmed, so that a change of keys, here or there, loses nothing. The noise protocol itself, its timers and its clock
//! are `boringtun`'s.

use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

use boringtun::noise::{Packet, Tunn, TunnResult, handshake::parse_handshake_anon};
use ip_network::IpNetwork;
use ip_network_table::IpNetworkTable;

use super::super::{OVERLAP_MAX, Peer, PeerStatus, PrivateKey, PublicKey};
use super::member::{Identity, Member, Tunnel, send};

/// The longest datagram, and what a packet grows by when it is sealed: 16 bytes of header, 16 of tag.
const SCRATCH_BYTES: usize = 65_535 + 32;
/// Packets sealed under a former key are on their way no longer.
const IN_FLIGHT_MAX: Duration = Duration::from_secs(5);
/// Tunnels are numbered in 24 bits, since 8 bits of a session's number count sessions.
const INDEX_MASK: u32 = 0x00ff_ffff;

/// Where packets go.
pub(super) trait Sink {
    /// To a peer's endpoint.
    fn to_network(&mut self, endpoint: SocketAddr, datagram: &[u8]);
    /// To this machine.
    fn to_machine(&mut self, packet: &[u8]);
}

/// What a datagram is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Initiation,
    Response,
    Cookie,
    Data,
}

/// All peers of an interface.
pub(super) struct Tunnels {
    identity: Identity,
    members: HashMap<u32, Member>,
    /// The members' numbers, by the index of a tunnel, by a key of the peer, and by an address behind it.
    by_index: HashMap<u32, u32>,
    by_key: HashMap<PublicKey, u32>,
    by_address: IpNetworkTable<u32>,
    next_number: u32,
    next_index: u32,
    handshakes: u64,
    scratch: Vec<u8>,
}

impl Tunnels {
    pub(super) fn new(key: &PrivateKey) -> Self {
        Self {
            identity: Identity::new(key),
            members: HashMap::new(),
            by_index: HashMap::new(),
            by_key: HashMap::new(),
            by_address: IpNetworkTable::new(),
            next_number: 0,
            next_index: 0,
            handshakes: 0,
            scratch: vec![0; SCRATCH_BYTES],
        }
    }

    /// Takes another list of peers. A peer of the same name keeps its sessions.
    pub(super) fn set_peers(&mut self, peers: &[Peer], now: Instant, sink: &mut impl Sink) {
        let former =
            self.members.drain().map(|(number, member)| (member.peer.name.clone(), (number, member)));
        let mut former: HashMap<_, _> = former.collect();
        for peer in peers {
            let (number, mut member) = former.remove(&peer.name).unwrap_or_else(|| {
                self.next_number = self.next_number.wrapping_add(1);
                (self.next_number, Member::new(peer.clone()))
            });
            // What is configured counts when it changes: from then on the peer is where it sends from.
            if member.peer.endpoint != peer.endpoint {
                member.endpoint = peer.endpoint;
            }
            let other_secret = member.peer.preshared_key != peer.preshared_key;
            member.retire(now, |tunnel| other_secret || !peer.public_keys.contains(&tunnel.remote));
            member.peer = peer.clone();
            self.members.insert(number, member);
        }
        self.complete(sink);
    }

    /// Takes another key of ours, and begins to agree on sessions under it.
    pub(super) fn set_key(&mut self, key: &PrivateKey, now: Instant, sink: &mut impl Sink) {
        if self.identity.private == *key {
            return;
        }
        self.identity = Identity::new(key);
        for member in self.members.values_mut() {
            member.retire(now, |_| true);
        }
        self.complete(sink);
    }

    /// Gives every pair of keys its tunnel, and writes the tables anew.
    fn complete(&mut self, sink: &mut impl Sink) {
        for member in self.members.values_mut() {
            let before = member.tunnels.len();
            for remote in member.peer.public_keys.clone() {
                if member.tunnels.iter().any(|tunnel| tunnel.remote == remote && tunnel.retired.is_none()) {
                    continue;
                }
                // Other peers' tunnels are in the table, this one's new ones right before.
                while {
                    self.next_index = (self.next_index + 1) & INDEX_MASK;
                    self.by_index.contains_key(&self.next_index)
                } {}
                member.tunnels.push(Tunnel::new(&self.identity, &member.peer, remote, self.next_index));
            }
            match member.active().map(|active| active.retired.is_some()) {
                Some(false) => {}
                // It goes on with the old session until there is a new one, which should be soon.
                Some(true) => {
                    let new: Vec<_> = member.tunnels[before..].iter().map(|tunnel| tunnel.index).collect();
                    member.greet(|tunnel| new.contains(&tunnel.index), &mut self.scratch, sink);
                }
                None => {
                    let current = member.tunnels.iter().find(|tunnel| tunnel.retired.is_none());
                    member.active = current.expect("a peer has a key at least").index;
                }
            }
        }
        self.write_tables();
    }

    fn write_tables(&mut self) {
        self.by_index.clear();
        self.by_key.clear();
        self.by_address = IpNetworkTable::new();
        for (&number, member) in &self.members {
            self.by_index.extend(member.tunnels.iter().map(|tunnel| (tunnel.index, number)));
            self.by_key.extend(member.tunnels.iter().map(|tunnel| (tunnel.remote, number)));
            for network in &member.peer.allowed_ips {
                let network = IpNetwork::new(network.address(), network.prefix()).expect("it is masked");
                self.by_address.insert(network, number);
            }
        }
    }

    /// A packet of this machine.
    pub(super) fn handle_packet(&mut self, packet: &[u8], now: Instant, sink: &mut impl Sink) {
        let Some(to) = Tunn::dst_address(packet) else { return };
        let Some((_, number)) = self.by_address.longest_match(to) else { return };
        let member = self.members.get_mut(number).expect("the tables name members");
        member.tx_bytes += packet.len() as u64;
        member.encapsulate(packet, now, &mut self.scratch, sink);
    }

    /// A datagram from the network.
    pub(super) fn handle_datagram(
        &mut self,
        from: SocketAddr,
        datagram: &[u8],
        now: Instant,
        sink: &mut impl Sink,
    ) {
        let gate = &self.identity.gate;
        let (index, kind) = match gate.verify_packet(Some(from.ip()), datagram, &mut self.scratch) {
            Ok(Packet::HandshakeInit(initiation)) => {
                let Identity { secret, public, .. } = &self.identity;
                let Ok(half) = parse_handshake_anon(secret, public, &initiation) else { return };
                let remote = PublicKey(half.peer_static_public);
                let Some(member) = self.by_key.get(&remote).and_then(|number| self.members.get(number))
                else {
                    return;
                };
                // One under a key that the list has lost is good until the peer's new one was seen.
                let tunnels = member.tunnels.iter().filter(|tunnel| tunnel.remote == remote);
                let Some(tunnel) = tunnels.min_by_key(|tunnel| tunnel.retired.is_some()) else { return };
                (tunnel.index, Kind::Initiation)
            }
            Ok(Packet::HandshakeResponse(response)) => (response.receiver_idx >> 8, Kind::Response),
            Ok(Packet::PacketCookieReply(reply)) => (reply.receiver_idx >> 8, Kind::Cookie),
            Ok(Packet::PacketData(data)) => (data.receiver_idx >> 8, Kind::Data),
            Err(TunnResult::WriteToNetwork(cookie)) => return sink.to_network(from, cookie),
            Err(_) => return,
        };
        if let Some(&number) = self.by_index.get(&index) {
            self.receive(number, index, kind, (from, datagram), now, sink);
        }
    }

    fn receive(
        &mut self,
        number: u32,
        index: u32,
        kind: Kind,
        (from, datagram): (SocketAddr, &[u8]),
        now: Instant,
        sink: &mut impl Sink,
    ) {
        let member = self.members.get_mut(&number).expect("the tables name members");
        let at = member.tunnels.iter().position(|tunnel| tunnel.index == index).expect("and tunnels");
        let tunnel = &mut member.tunnels[at];
        let packet = match tunnel.noise.decapsulate(Some(from.ip()), datagram, &mut self.scratch) {
            TunnResult::Err(_) => return,
            TunnResult::Done => None,
            TunnResult::WriteToNetwork(answer) => {
                sink.to_network(from, answer);
                None
            }
            TunnResult::WriteToTunnelV4(packet, source) => Some((packet, IpAddr::V4(source))),
            TunnResult::WriteToTunnelV6(packet, source) => Some((packet, IpAddr::V6(source))),
        };
        if matches!(kind, Kind::Initiation | Kind::Response) {
            self.handshakes += 1;
            tunnel.handshake = self.handshakes;
            member.handshake_at = Some(now);
        }
        if kind == Kind::Cookie {
            return;
        }
        // It is authentic, so the peer is where this came from.
        member.endpoint = Some(from);
        member.heard_at = Some(now);
        if let Some((packet, source)) = packet
            // This is all that WireGuard has of access control.
            && self.by_address.longest_match(source).is_some_and(|(_, owner)| *owner == number)
        {
            member.rx_bytes += packet.len() as u64;
            sink.to_machine(packet);
        }
        // Who answers a handshake waits for a packet that shows that the answer has arrived.
        if kind != Kind::Initiation {
            member.take_over(at, now);
        }
        // What has waited for a session.
        if kind == Kind::Response {
            let noise = &mut member.tunnels[at].noise;
            while let TunnResult::WriteToNetwork(waiting) = noise.decapsulate(None, &[], &mut self.scratch) {
                sink.to_network(from, waiting);
            }
        }
    }

    /// Does what is due: handshakes, keepalives, the end of what is retired. To be called some times a second.
    pub(super) fn tick(&mut self, now: Instant, sink: &mut impl Sink) {
        self.identity.gate.reset_count();
        let mut forgotten = false;
        for member in self.members.values_mut() {
            let before = member.tunnels.len();
            let active = member.active;
            member.tunnels.retain(|tunnel| {
                let most = if tunnel.index == active { OVERLAP_MAX } else { IN_FLIGHT_MAX };
                tunnel.retired.is_none_or(|since| now.duration_since(since) < most)
            });
            forgotten |= member.tunnels.len() < before;
            for tunnel in member.tunnels.iter_mut().filter(|tunnel| tunnel.retired.is_none()) {
                send(tunnel.noise.update_timers(&mut self.scratch), member.endpoint, sink);
            }
            let keepalive = member.peer.keepalive_s.filter(|seconds| *seconds > 0);
            let keepalive = keepalive.map(|seconds| Duration::from_secs(seconds.into()));
            if keepalive.is_some_and(|every| member.sent_at.is_none_or(|at| now.duration_since(at) >= every))
            {
                member.encapsulate(&[], now, &mut self.scratch, sink);
            }
        }
        if forgotten {
            self.complete(sink);
        }
    }

    /// How it stands with each peer, by name.
    pub(super) fn status(&mut self, now: Instant) -> Vec<PeerStatus> {
        let status = |member: &mut Member| PeerStatus {
            public_key: member.active().expect("a peer has a tunnel").remote,
            name: member.peer.name.clone(),
            endpoint: member.endpoint,
            handshake_age: member.handshake_at.map(|at| now.duration_since(at)),
            rx_bytes: member.rx_bytes,
            tx_bytes: member.tx_bytes,
        };
        let mut all: Vec<_> = self.members.values_mut().map(status).collect();
        all.sort_by(|one, other| one.name.cmp(&other.name));
        all
    }
}
