//! This node's end of WireGuard: the interface, as far as the kernel and the settings let it be, and its keys.
//!
//! What fails is told, and tried again by the looks that follow; nothing counts as done before it is.

use std::{
    collections::BTreeMap,
    net::IpAddr,
    time::{Duration, Instant, SystemTime},
};

use dwcp_node::{
    mtu::MTU_MIN,
    wireguard::{self, Config, Implementation, Interface, KeyStore, Peer},
};
use novacron_control::schema;

use crate::{again::Again, settings::Tunnels};

/// A key is told this long before it counts, or a quarter of its life if that is shorter.
const ANNOUNCE_AHEAD: Duration = Duration::from_secs(600);

// What is tried more than in one place, in words.
const OPEN: &str = "bring it up";
const SET_PEERS: &str = "set its peers";
const REPAIR: &str = "ask for its state";

/// The end of WireGuard.
pub(super) struct WireGuard {
    wanted: Tunnels,
    /// What the interface has, as far as is known.
    config: Config,
    keys: KeyStore,
    interface: Option<Interface>,
    /// What it should have.
    mtu: u32,
    /// The interface has not the key yet that is in the file.
    key_due: bool,
    /// Attempts to bring it up.
    again: Again,
    errors: Errors,
}

/// What failed at last, by what was tried.
#[derive(Default)]
struct Errors(BTreeMap<&'static str, String>);

impl Errors {
    /// What came of it; whether it was done.
    fn note(&mut self, tried: &'static str, done: Result<(), wireguard::Error>) -> bool {
        let Err(error) = done else {
            self.0.remove(tried);
            return true;
        };
        let error = error.to_string();
        if self.0.get(tried) != Some(&error) {
            tracing::warn!(error, "WireGuard: cannot {tried}");
            self.0.insert(tried, error);
        }
        false
    }

    fn first(&self) -> Option<String> {
        self.0.values().next().cloned()
    }
}

/// Whether what carries it leaves what every link has to carry. If not, what is longer is lost, unless the network fragments
/// it.
fn enough(mtu: u32) -> Result<(), wireguard::Error> {
    if mtu >= MTU_MIN {
        return Ok(());
    }
    let detail = format!("what carries it leaves {mtu} bytes, and {MTU_MIN} are needed");
    Err(wireguard::Error::Config { setting: "mtu", detail })
}

impl WireGuard {
    /// Reads the keys, or makes them. Without keys there is no WireGuard. `mtu`: of the interface.
    pub(super) fn read(wanted: &Tunnels, address: (IpAddr, u8), mtu: u32) -> Option<Self> {
        let keys = KeyStore::open(&wanted.keys)
            .inspect_err(|error| tracing::error!(%error, "there is no WireGuard without keys"))
            .ok()?;
        let mut config = Config::new(mtu);
        config.interface.clone_from(&wanted.interface);
        config.port = wanted.port;
        config.addresses = vec![address];
        Some(Self {
            wanted: wanted.clone(),
            config,
            keys,
            interface: None,
            mtu,
            key_due: false,
            again: Again::default(),
            errors: Errors::default(),
        })
    }

    pub(super) fn end(&self) -> schema::WireGuardEnd {
        schema::WireGuardEnd {
            public_keys: self.keys.public_keys().iter().map(ToString::to_string).collect(),
            address: self.config.addresses[0].0,
            port: self.config.port,
            endpoint: self.wanted.endpoint,
        }
    }

    /// Peers that have a tunnel.
    pub(super) fn count(&self) -> usize {
        if self.interface.is_some() { self.config.peers.len() } else { 0 }
    }

    /// The number of the interface, while it is up as far as is known.
    pub(super) fn interface_index(&self) -> Option<u32> {
        self.interface.as_ref().map(Interface::index)
    }

    /// The interface should have this MTU, which the next look sets.
    pub(super) fn set_mtu(&mut self, mtu: u32) {
        self.mtu = mtu;
    }

    /// Makes the interface what it should be, if it is due.
    pub(super) fn look(&mut self, peers: &[Peer], now: Instant) {
        match self.interface {
            Some(_) => self.update(peers),
            None if self.again.is_due(now) => self.open(peers, now),
            None => {}
        }
    }

    fn open(&mut self, peers: &[Peer], now: Instant) {
        self.config.peers = peers.to_vec();
        self.config.mtu = self.mtu;
        let opened = Interface::open(&self.config, self.keys.private_key()).map(|interface| {
            let implementation = named(interface.implementation());
            tracing::info!(interface = self.config.interface, implementation, "WireGuard is up");
            self.interface = Some(interface);
        });
        // What failed of an interface before this one fails no more.
        self.errors.0.retain(|tried, _| *tried == OPEN);
        if self.errors.note(OPEN, opened) {
            self.again.reset();
        } else {
            self.again.failed(now);
        }
    }

    fn update(&mut self, peers: &[Peer]) {
        let Some(interface) = &mut self.interface else { return };
        // Also what was set is set again after a failure.
        if (self.config.peers != peers || self.errors.0.contains_key(SET_PEERS))
            && self.errors.note(SET_PEERS, interface.set_peers(peers))
        {
            self.config.peers = peers.to_vec();
        }
        // With less the kernel takes IPv6 off it, and its addresses do not come back.
        let mtu = self.mtu.max(MTU_MIN);
        if self.config.mtu != mtu && self.errors.note("set its MTU", interface.set_mtu(mtu)) {
            tracing::info!(interface = self.config.interface, mtu, "WireGuard goes by what carries it");
            self.config.mtu = mtu;
        }
        self.errors.note("make it small enough", enough(self.mtu));
    }

    /// Asks the kernel whether the interface is there still. If not, the next look makes it.
    pub(super) fn check(&mut self) {
        let Some(interface) = &mut self.interface else { return };
        let gone = match interface.repair() {
            Ok(false) => "somebody has removed it".to_owned(),
            Err(error @ wireguard::Error::UserSpace { .. }) => error.to_string(),
            other => {
                self.errors.note(REPAIR, other.map(|_| ()));
                return;
            }
        };
        tracing::warn!(interface = self.config.interface, gone, "WireGuard is made anew");
        self.interface = None;
        self.again.reset();
    }

    /// To be called often while a peer changes its key.
    pub(super) fn poll(&mut self) {
        let changing = self.config.peers.iter().any(|peer| peer.public_keys.len() > 1);
        if let Some(interface) = self.interface.as_mut().filter(|_| changing)
            // An interface that is gone is made anew by the next check.
            && let Err(error) = interface.poll()
        {
            self.errors.note(REPAIR, Err(error));
        }
    }

    /// Announces the next key, or changes to it, when it is time. Whether there is something to tell: until the interface
    /// has its next key, peers are to take both.
    pub(super) fn turn_keys(&mut self, now: SystemTime) -> bool {
        let turned = self.try_turn_keys(now);
        let to_tell = matches!(turned, Ok(true));
        self.errors.note("change its key", turned.map(|_| ()));
        to_tell
    }

    fn try_turn_keys(&mut self, now: SystemTime) -> Result<bool, wireguard::Error> {
        // In the file first: what the interface misses after a crash, the next start gives it.
        self.key_due |= self.keys.switch(now)?;
        if self.key_due {
            // One that is not up yet begins with it.
            if let Some(interface) = &mut self.interface {
                interface.set_key(self.keys.private_key())?;
            }
            self.key_due = false;
            tracing::info!(public_key = %self.keys.private_key().public_key(), "WireGuard has its next key");
            return Ok(true);
        }
        let (Some(rotation), None) = (self.wanted.rotation, self.keys.switch_at()) else { return Ok(false) };
        // Each change of the keys writes their file.
        let written = std::fs::metadata(&self.wanted.keys).and_then(|file| file.modified());
        let switch_at = written.unwrap_or(now) + rotation;
        let ahead = ANNOUNCE_AHEAD.min(rotation / 4);
        if now + ahead < switch_at {
            return Ok(false);
        }
        // Never at once, however late it is: peers have to be told first.
        self.keys.announce(switch_at.max(now + ahead))?;
        Ok(true)
    }

    pub(super) fn view(&mut self) -> schema::WireGuard {
        let peers = self.interface.as_mut().map(Interface::peers);
        let peers = match peers {
            Some(Ok(peers)) => peers,
            Some(Err(error)) => {
                self.errors.note(REPAIR, Err(error));
                Vec::new()
            }
            None => Vec::new(),
        };
        let peers = peers.into_iter().map(|peer| schema::WireGuardPeer {
            name: peer.name,
            public_key: peer.public_key.to_string(),
            endpoint: peer.endpoint,
            handshake_age_seconds: peer.handshake_age.map(|age| age.as_secs_f64()),
            rx_bytes: peer.rx_bytes,
            tx_bytes: peer.tx_bytes,
        });
        let until = |at: SystemTime| at.duration_since(SystemTime::now()).unwrap_or_default().as_secs_f64();
        schema::WireGuard {
            interface: self.config.interface.clone(),
            implementation: self.interface.as_ref().map(|one| named(one.implementation()).to_owned()),
            error: self.errors.first(),
            end: self.end(),
            next_key_in_seconds: self.keys.switch_at().map(until),
            peers: peers.collect(),
        }
    }

    pub(super) fn remove(&mut self) {
        self.errors.0 = BTreeMap::from([(OPEN, "removed on request".to_owned())]);
        let Some(interface) = self.interface.take() else { return };
        match interface.remove() {
            Ok(()) => tracing::info!(interface = self.config.interface, "WireGuard is removed"),
            Err(error) => tracing::error!(%error, "removing WireGuard"),
        }
    }
}

fn named(implementation: Implementation) -> &'static str {
    match implementation {
        Implementation::Kernel => "kernel",
        Implementation::UserSpace => "user space",
    }
}

#[cfg(test)]
mod tests {
    use dwcp_lab::namespace::Namespace;

    use super::*;

    const ROTATION: Duration = Duration::from_secs(60);

    fn end(folder: &std::path::Path) -> WireGuard {
        let wanted =
            Tunnels { keys: folder.join("keys.json"), rotation: Some(ROTATION), ..Tunnels::default() };
        WireGuard::read(&wanted, ([10, 99, 0, 1].into(), 24), 1420).expect("keys")
    }

    fn peer_with(key: &str) -> Peer {
        Peer {
            name: "b".to_owned(),
            public_keys: vec![key.parse().expect("a key")],
            preshared_key: None,
            endpoint: None,
            allowed_ips: vec!["10.99.0.2/32".parse().expect("a network")],
            keepalive_s: None,
        }
    }

    /// In a namespace, up; not where that is impossible.
    fn with_interface(test: impl FnOnce(&mut WireGuard, &Namespace) + Send) {
        if !nix::unistd::geteuid().is_root() {
            println!("SKIP: needs root");
            return;
        }
        let folder = tempfile::tempdir().expect("a folder");
        let place = Namespace::create().expect("a namespace");
        place.enter(|| {
            let mut end = end(folder.path());
            end.look(&[], Instant::now());
            match end.errors.first() {
                Some(error) if error.contains("open /dev/net/tun") => println!("SKIP: {error}"),
                error => {
                    assert_eq!(error, None);
                    test(&mut end, &place);
                }
            }
        });
    }

    #[test]
    fn a_key_that_the_interface_did_not_take_is_set_by_a_later_look_and_told_only_then() {
        with_interface(|end, _| {
            let begin = SystemTime::now();
            assert!(end.turn_keys(begin + ROTATION), "the next is announced");
            let keys = end.end().public_keys;
            let [first, next] = &keys[..] else { panic!("{keys:?}") };
            // The interface refuses a key that a peer has.
            end.look(&[peer_with(next)], Instant::now());
            let later = begin + 2 * ROTATION;
            assert!(!end.turn_keys(later), "it has not changed");
            assert!(end.errors.first().is_some(), "and that is told");
            assert!(!end.turn_keys(later + 2 * ROTATION), "no other is announced meanwhile");
            assert_eq!(end.keys.public_keys().len(), 1);
            end.look(&[], Instant::now());
            assert!(end.turn_keys(later), "{:?}", end.errors.first());
            assert_eq!(end.errors.first(), None);
            assert!(end.end().public_keys.contains(next) && !end.end().public_keys.contains(first));
        });
    }

    #[test]
    fn an_mtu_that_was_refused_is_tried_again_and_told_of_until_it_is_set() {
        with_interface(|end, _| {
            end.set_mtu(70_000);
            end.look(&[], Instant::now());
            assert!(end.errors.first().is_some());
            end.look(&[peer_with(&other_key())], Instant::now());
            assert!(end.errors.first().is_some(), "peers that are set are another matter");
            assert_eq!((end.config.mtu, end.count()), (1420, 1));
            end.set_mtu(1400);
            end.look(&[peer_with(&other_key())], Instant::now());
            assert_eq!((end.config.mtu, end.errors.first()), (1400, None));
        });
    }

    #[test]
    fn what_leaves_too_little_makes_it_as_small_as_it_may_be_and_is_told() {
        with_interface(|end, _| {
            end.set_mtu(1100);
            end.look(&[], Instant::now());
            assert_eq!(end.config.mtu, MTU_MIN);
            let error = end.errors.first().expect("it is told");
            assert!(error.contains("1100") && error.contains("1280"), "{error}");
            end.set_mtu(1400);
            end.look(&[], Instant::now());
            assert_eq!((end.config.mtu, end.errors.first()), (1400, None));
        });
    }

    #[test]
    fn an_interface_that_somebody_removed_is_made_anew() {
        with_interface(|end, place| {
            end.check();
            assert!(end.interface.is_some(), "it is there");
            end.look(&[peer_with(&other_key())], Instant::now());
            place.ip(&["link del dwcp-wg0"]).expect("removed");
            end.check();
            assert_eq!(end.count(), 0, "there is no tunnel");
            // A process that another test forks holds the port until it is another program.
            for attempt in 0..10 {
                end.look(&[peer_with(&other_key())], Instant::now() + attempt * Duration::from_secs(60));
                if end.count() == 1 {
                    break;
                }
                std::thread::sleep(Duration::from_millis(100));
            }
            assert_eq!((end.count(), end.errors.first()), (1, None));
            place.ip(&["link show dev dwcp-wg0"]).expect("it is there again");
        });
    }

    fn other_key() -> String {
        "3p7bfXt9wbTTW2HC7OQ1Nz+DQ8hbeGdNrfx+FG+IK08=".to_owned()
    }
}
