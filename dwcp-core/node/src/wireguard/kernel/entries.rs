//! Which entries the kernel should have for peers, of which some are changing their keys. Pure.
//!
//! The kernel knows keys, not peers, and a network is behind one key. So a peer with two keys has two entries, and its
//! networks are with the one that had the latest handshake.

use std::{
    collections::{HashMap, HashSet},
    net::SocketAddr,
    time::{Duration, Instant, SystemTime},
};

use netlink_packet_wireguard::WireguardPeer;

use super::super::{Network, OVERLAP_MAX, Peer, PresharedKey, PublicKey};
use super::message;

/// A session lives no longer (the paper, section 6.1). A peer silent for so long may have changed to its other key.
const SESSION_MAX: Duration = Duration::from_secs(180);

/// What the kernel knows of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) key: PublicKey,
    pub(super) preshared_key: Option<PresharedKey>,
    pub(super) endpoint: Option<SocketAddr>,
    pub(super) networks: Vec<Network>,
    pub(super) keepalive_s: u16,
    pub(super) handshake: Option<SystemTime>,
    pub(super) rx_bytes: u64,
    pub(super) tx_bytes: u64,
}

impl Entry {
    pub(super) fn new(key: PublicKey) -> Self {
        Self {
            key,
            preshared_key: None,
            endpoint: None,
            networks: Vec::new(),
            keepalive_s: 0,
            handshake: None,
            rx_bytes: 0,
            tx_bytes: 0,
        }
    }

    /// Whether networks of this peer are with it.
    pub(super) fn is_of(&self, peer: &Peer) -> bool {
        self.networks.iter().any(|network| peer.allowed_ips.contains(network))
    }
}

/// What the kernel does not know.
#[derive(Debug, Default)]
pub(super) struct Memory {
    /// Since when a key is kept that the list has lost.
    kept_since: HashMap<PublicKey, Instant>,
    /// Where we have told that a key is. From then on it is where it sends from.
    told: HashMap<PublicKey, SocketAddr>,
}

/// What to tell the kernel, in this order, so that it has what these peers need.
pub(super) fn plan(
    peers: &[Peer],
    present: &[Entry],
    memory: &mut Memory,
    now: Instant,
    clock: SystemTime,
) -> Vec<WireguardPeer> {
    let listed: HashSet<_> = peers.iter().flat_map(|peer| &peer.public_keys).copied().collect();
    let find = |key: PublicKey| present.iter().find(|entry| entry.key == key);
    let mut stay = listed.clone();
    let (mut first, mut then) = (Vec::new(), Vec::new());
    for peer in peers {
        let former = present.iter().find(|entry| !listed.contains(&entry.key) && entry.is_of(peer));
        let kept = former.filter(|former| is_kept(former, peer, find, memory, now)).map(|entry| entry.key);
        stay.extend(kept);
        let keys: Vec<_> = kept.into_iter().chain(peer.public_keys.iter().copied()).collect();
        let handshake = |key: &PublicKey| find(*key).and_then(|entry| entry.handshake);
        // Of those without one, the first.
        let owner = *keys.iter().rev().max_by_key(|key| handshake(key)).expect("a peer has a key");
        let silent =
            handshake(&owner).is_none_or(|at| clock.duration_since(at).is_ok_and(|age| age > SESSION_MAX));
        for key in keys {
            let mut wanted = Entry::new(key);
            wanted.preshared_key = peer.preshared_key.clone();
            wanted.endpoint = peer.endpoint;
            // A key that its peer does not have yet would be called in vain all the time.
            if key == owner || silent {
                wanted.keepalive_s = peer.keepalive_s.unwrap_or(0);
            }
            if key == owner {
                wanted.networks = peer.allowed_ips.clone();
            }
            let difference =
                message::difference(&wanted, find(key), memory.told.get(&key) != peer.endpoint.as_ref());
            if let Some(endpoint) = peer.endpoint {
                memory.told.insert(key, endpoint);
            }
            // A network is taken from the entry that has it by giving it to another, so that it always is with one.
            if key == owner { &mut first } else { &mut then }.extend(difference);
        }
    }
    first.append(&mut then);
    first.extend(
        present.iter().filter(|entry| !stay.contains(&entry.key)).map(|entry| message::removal(entry.key)),
    );
    memory.kept_since.retain(|key, _| stay.contains(key));
    memory.told.retain(|key, _| stay.contains(key));
    first
}

/// Whether a key stays that the list has lost: until one of the peer's own had a later handshake, and not for ever.
fn is_kept<'a>(
    former: &Entry,
    peer: &Peer,
    find: impl Fn(PublicKey) -> Option<&'a Entry>,
    memory: &mut Memory,
    now: Instant,
) -> bool {
    let since = *memory.kept_since.entry(former.key).or_insert(now);
    let latest = peer.public_keys.iter().filter_map(|key| find(*key)?.handshake).max();
    former.handshake.is_some() && latest <= former.handshake && now.duration_since(since) < OVERLAP_MAX
}

#[cfg(test)]
mod tests {
    use super::*;

    const OLD: PublicKey = PublicKey([1; 32]);
    const NEW: PublicKey = PublicKey([2; 32]);

    fn peer(keys: &[PublicKey]) -> Peer {
        Peer {
            name: "a".into(),
            public_keys: keys.to_vec(),
            preshared_key: None,
            endpoint: Some("192.0.2.1:51820".parse().expect("an endpoint")),
            allowed_ips: vec!["10.1.0.0/16".parse().expect("a network")],
            keepalive_s: Some(25),
        }
    }

    /// A kernel that does what it is told.
    struct Model {
        entries: Vec<Entry>,
        memory: Memory,
        start: Instant,
        seconds: u64,
    }

    impl Model {
        fn new() -> Self {
            Self { entries: Vec::new(), memory: Memory::default(), start: Instant::now(), seconds: 1000 }
        }

        fn run(&mut self, peers: &[Peer]) -> usize {
            let now = self.start + Duration::from_secs(self.seconds);
            let clock = self.clock();
            let plan = plan(peers, &self.entries, &mut self.memory, now, clock);
            let told = plan.len();
            for peer in plan {
                message::obey(&mut self.entries, peer);
                let has = |entry: &&Entry| entry.is_of(&peers[0]);
                assert_eq!(self.entries.iter().filter(has).count(), 1, "at any time: {:?}", self.entries);
            }
            told
        }

        fn clock(&self) -> SystemTime {
            SystemTime::UNIX_EPOCH + Duration::from_secs(self.seconds)
        }

        fn handshake(&mut self, key: PublicKey) {
            let clock = self.clock();
            self.entries.iter_mut().find(|entry| entry.key == key).expect("it is there").handshake =
                Some(clock);
        }

        /// The keys, and which has the network.
        fn state(&self) -> (Vec<PublicKey>, PublicKey) {
            let mut keys: Vec<_> = self.entries.iter().map(|entry| entry.key).collect();
            keys.sort();
            (keys, self.entries.iter().find(|entry| !entry.networks.is_empty()).expect("it is with one").key)
        }
    }

    #[test]
    fn a_peer_moves_to_its_new_key_when_that_had_a_handshake() {
        let mut model = Model::new();
        assert_eq!(model.run(&[peer(&[OLD])]), 1);
        model.handshake(OLD);
        assert_eq!(model.run(&[peer(&[OLD])]), 0, "what is right is not told again");
        model.run(&[peer(&[OLD, NEW])]);
        assert_eq!(model.state(), (vec![OLD, NEW], OLD));
        assert_eq!(model.entries[1].keepalive_s, 0, "nobody has the new key yet");
        model.seconds += 60;
        model.handshake(NEW);
        model.run(&[peer(&[OLD, NEW])]);
        assert_eq!(model.state(), (vec![OLD, NEW], NEW));
        model.run(&[peer(&[NEW])]);
        assert_eq!(model.state(), (vec![NEW], NEW));
        let removals = plan(&[], &model.entries, &mut model.memory, model.start, SystemTime::UNIX_EPOCH);
        assert_eq!(removals, [message::removal(NEW)]);
    }

    #[test]
    fn a_key_that_the_list_has_lost_stays_until_the_new_one_had_a_handshake_or_its_time_is_over() {
        for handshake in [true, false] {
            let mut model = Model::new();
            model.run(&[peer(&[OLD])]);
            model.handshake(OLD);
            model.run(&[peer(&[NEW])]);
            assert_eq!(model.state(), (vec![OLD, NEW], OLD));
            model.seconds += if handshake { 1 } else { OVERLAP_MAX.as_secs() };
            if handshake {
                model.handshake(NEW);
            }
            model.run(&[peer(&[NEW])]);
            assert_eq!(model.state(), (vec![NEW], NEW));
        }
    }

    #[test]
    fn a_key_that_never_had_a_handshake_and_a_peer_that_is_removed_go_at_once() {
        let mut model = Model::new();
        model.run(&[peer(&[OLD])]);
        model.run(&[peer(&[NEW])]);
        assert_eq!(model.state(), (vec![NEW], NEW));
        model.handshake(NEW);
        let other = Peer { allowed_ips: vec!["10.2.0.0/16".parse().expect("a network")], ..peer(&[OLD]) };
        model.run(&[other]);
        assert_eq!(model.state(), (vec![OLD], OLD));
    }

    #[test]
    fn a_peer_that_is_silent_is_called_by_both_keys() {
        let mut model = Model::new();
        model.run(&[peer(&[OLD, NEW])]);
        model.handshake(OLD);
        model.run(&[peer(&[OLD, NEW])]);
        assert_eq!(model.entries.iter().map(|entry| entry.keepalive_s).collect::<Vec<_>>(), [25, 0]);
        model.seconds += SESSION_MAX.as_secs() + 1;
        model.run(&[peer(&[OLD, NEW])]);
        assert_eq!(model.entries.iter().map(|entry| entry.keepalive_s).collect::<Vec<_>>(), [25, 25]);
    }

    #[test]
    fn where_a_peer_has_moved_to_is_not_overwritten() {
        let mut model = Model::new();
        model.run(&[peer(&[OLD])]);
        model.entries[0].endpoint = Some("203.0.113.9:1".parse().expect("an endpoint"));
        assert_eq!(model.run(&[peer(&[OLD])]), 0);
        let moved = Peer { endpoint: Some("192.0.2.2:51820".parse().expect("an endpoint")), ..peer(&[OLD]) };
        model.run(std::slice::from_ref(&moved));
        assert_eq!(model.entries[0].endpoint, moved.endpoint);
    }
}
