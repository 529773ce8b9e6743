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
    /// None: they could not be read yet, or made.
    keys: Option<KeyStore>,
    interface: Option<Interface>,
    /// What it should have.
    mtu: u32,
    /// The interface has not the key yet that is in the file.
    key_due: bool,
    /// Attempts to bring it up, and before that to read its keys.
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
    /// Without its keys yet. `mtu`: of the interface.
    pub(super) fn new(wanted: &Tunnels, address: (IpAddr, u8), mtu: u32) -> Self {
        let mut config = Config::new(mtu);
        config.interface.clone_from(&wanted.interface);
        config.port = wanted.port;
        config.addresses = vec![address];
        Self {
            wanted: wanted.clone(),
            config,
            keys: None,
            interface: None,
            mtu,
            key_due: false,
            again: Again::default(),
            errors: Errors::default(),
        }
    }

    /// Reads the keys, or makes them, if that is due. Whether there are some now that there were not before.
    pub(super) fn read_keys(&mut self, now: Instant) -> bool {
        if self.keys.is_some() || !self.again.is_due(now) {
            return false;
        }
        let read = KeyStore::open(&self.wanted.keys).map(|keys| self.keys = Some(keys));
        let is_read = self.errors.note("read its keys", read);
        match is_read {
            true => self.again.reset(),
            false => self.again.failed(now),
        }
        is_read
    }

    /// What peers are told; nothing while there are no keys.
    pub(super) fn end(&self) -> Option<schema::WireGuardEnd> {
        self.keys.is_some().then(|| self.own_end())
    }

    fn own_end(&self) -> schema::WireGuardEnd {
        let keys = self.keys.iter().flat_map(KeyStore::public_keys);
        schema::WireGuardEnd {
            public_keys: keys.map(|key| key.to_string()).collect(),
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
        let Some(keys) = &self.keys else { return };
        self.config.peers = peers.to_vec();
        self.config.mtu = self.mtu;
        let opened = Interface::open(&self.config, keys.private_key()).map(|interface| {
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
        let Some(keys) = &mut self.keys else { return Ok(false) };
        // In the file first: what the interface misses after a crash, the next start gives it.
        self.key_due |= keys.switch(now)?;
        if self.key_due {
            // One that is not up yet begins with it.
            if let Some(interface) = &mut self.interface {
                interface.set_key(keys.private_key())?;
            }
            self.key_due = false;
            tracing::info!(public_key = %keys.private_key().public_key(), "WireGuard has its next key");
            return Ok(true);
        }
        let (Some(rotation), None) = (self.wanted.rotation, keys.switch_at()) else { return Ok(false) };
        // Each change of the keys writes their file.
        let written = std::fs::metadata(&self.wanted.keys).and_then(|file| file.modified());
        let switch_at = written.unwrap_or(now) + rotation;
        let ahead = ANNOUNCE_AHEAD.min(rotation / 4);
        if now + ahead < switch_at {
            return Ok(false);
        }
        // Never at once, however late it is: peers have to be told first.
        keys.announce(switch_at.max(now + ahead))?;
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
            end: self.own_end(),
            next_key_in_seconds: self.keys.as_ref().and_then(KeyStore::switch_at).map(until),
            peers: peers.collect(),
        }
    }

    /// It is not to be there, for this reason.
    pub(super) fn withhold(&mut self, why: String) {
        self.errors.0 = BTreeMap::from([(OPEN, why)]);
    }

    pub(super) fn remove(&mut self) {
        self.withhold("removed on request".to_owned());
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
mod tests;
