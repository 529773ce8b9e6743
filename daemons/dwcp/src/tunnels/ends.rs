//! This node's two ends: the interfaces, as far as the kernel and the settings let them be.

use std::{
    collections::BTreeMap,
    net::IpAddr,
    time::{Duration, SystemTime},
};

use dwcp_node::{
    mtu::{self, Underlay},
    vxlan,
    wireguard::{self, Config, Implementation, Interface, KeyStore, Peer},
};

use novacron_control::schema;

use crate::settings::{Tunnels, VxlanEnd};

/// Of an uplink that nobody knows.
const MTU_UNKNOWN: u32 = 1500;
/// A key is told this long before it counts, or a quarter of its life if that is shorter.
const ANNOUNCE_AHEAD: Duration = Duration::from_secs(600);

/// The MTU of what carries the tunnels. `held`: uplinks of which the paths have proved less than their MTU.
pub(super) fn underlay_mtu(wanted: &Tunnels, held: &BTreeMap<String, u32>) -> u32 {
    wanted.underlay_mtu.unwrap_or_else(|| match mtu::of_uplinks(held) {
        Ok(mtu) => mtu.unwrap_or(MTU_UNKNOWN),
        Err(error) => {
            tracing::warn!(%error, "the MTU of the uplinks is not known");
            MTU_UNKNOWN
        }
    })
}

/// The end of WireGuard.
pub(super) struct WireGuard {
    wanted: Tunnels,
    config: Config,
    keys: KeyStore,
    interface: Option<Interface>,
    error: Option<String>,
}

impl WireGuard {
    /// Reads the keys, or makes them. Without keys there is no WireGuard.
    pub(super) fn read(wanted: &Tunnels, address: (IpAddr, u8), underlay_mtu: u32) -> Option<Self> {
        let keys = KeyStore::open(&wanted.keys)
            .inspect_err(|error| tracing::error!(%error, "there is no WireGuard without keys"))
            .ok()?;
        // Peers may be reached by either; the longer header always fits.
        let mut config = Config::new(mtu::wireguard(underlay_mtu, Underlay::V6));
        config.interface.clone_from(&wanted.interface);
        config.port = wanted.port;
        config.addresses = vec![address];
        Some(Self { wanted: wanted.clone(), config, keys, interface: None, error: None })
    }

    pub(super) fn end(&self) -> schema::WireGuardEnd {
        schema::WireGuardEnd {
            public_keys: self.keys.public_keys().iter().map(ToString::to_string).collect(),
            address: self.config.addresses[0].0,
            port: self.config.port,
            endpoint: self.wanted.endpoint,
        }
    }

    /// Brings the interface up.
    pub(super) fn open(&mut self, peers: &[Peer]) {
        self.config.peers = peers.to_vec();
        match Interface::open(&self.config, self.keys.private_key()) {
            Ok(interface) => {
                let implementation = named(interface.implementation());
                tracing::info!(interface = self.config.interface, implementation, "WireGuard is up");
                self.interface = Some(interface);
            }
            Err(error) => {
                tracing::warn!(%error, "there is no WireGuard");
                self.error = Some(error.to_string());
            }
        }
    }

    pub(super) fn set_peers(&mut self, peers: &[Peer]) {
        let Some(interface) = &mut self.interface else { return };
        // Also what was set is set again after a failure.
        if self.config.peers == peers && self.error.is_none() {
            return;
        }
        self.error = interface.set_peers(peers).err().map(|error| error.to_string());
        match &self.error {
            None => self.config.peers = peers.to_vec(),
            Some(error) => tracing::warn!(error, "WireGuard has not the peers that it should"),
        }
    }

    /// What carries it has another MTU.
    pub(super) fn set_underlay_mtu(&mut self, underlay_mtu: u32) {
        let mtu = mtu::wireguard(underlay_mtu, Underlay::V6);
        if let Some(interface) = &mut self.interface
            && let Err(error) = interface.set_mtu(mtu)
        {
            tracing::warn!(%error, "WireGuard keeps its MTU");
            self.error = Some(error.to_string());
            return;
        }
        tracing::info!(interface = self.config.interface, mtu, "WireGuard goes by what carries it");
        self.config.mtu = mtu;
    }

    /// To be called often while a peer changes its key.
    pub(super) fn poll(&mut self) {
        let changing = self.config.peers.iter().any(|peer| peer.public_keys.len() > 1);
        if let Some(interface) = self.interface.as_mut().filter(|_| changing)
            && let Err(error) = interface.poll()
        {
            self.error = Some(error.to_string());
        }
    }

    /// Announces the next key, or changes to it, when it is time. Whether there is something to tell.
    pub(super) fn turn_keys(&mut self, now: SystemTime) -> bool {
        self.try_turn_keys(now).unwrap_or_else(|error| {
            tracing::error!(%error, "WireGuard keeps its key");
            false
        })
    }

    fn try_turn_keys(&mut self, now: SystemTime) -> Result<bool, wireguard::Error> {
        if self.keys.switch(now)? {
            if let Some(interface) = &mut self.interface {
                interface.set_key(self.keys.private_key())?;
            }
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
                self.error = Some(error.to_string());
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
            error: self.error.clone(),
            end: self.end(),
            next_key_in_seconds: self.keys.switch_at().map(until),
            peers: peers.collect(),
        }
    }

    pub(super) fn remove(&mut self) {
        let Some(interface) = self.interface.take() else { return };
        self.error = Some("removed on request".to_owned());
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

/// What VXLAN has below it, of this MTU of the uplinks.
fn below(end: VxlanEnd, underlay_mtu: u32) -> u32 {
    match end {
        VxlanEnd::At(_) => underlay_mtu,
        VxlanEnd::WireGuard => mtu::wireguard(underlay_mtu, Underlay::V6),
    }
}

/// The end of VXLAN.
pub(super) struct Vxlan {
    end: VxlanEnd,
    config: vxlan::Config,
    done: bool,
    error: Option<String>,
}

impl Vxlan {
    pub(super) fn of(wanted: &Tunnels, underlay_mtu: u32) -> Option<Self> {
        let end = wanted.vxlan?;
        let local = match end {
            VxlanEnd::At(address) => address,
            VxlanEnd::WireGuard => wanted.address?.0,
        };
        let mut config = vxlan::Config::new(local, below(end, underlay_mtu));
        config.interface.clone_from(&wanted.vxlan_interface);
        config.vni = wanted.vni;
        config.port = wanted.vxlan_port;
        Some(Self { end, config, done: false, error: None })
    }

    /// What carries it has another MTU, which the next list of peers brings with it.
    pub(super) fn set_underlay_mtu(&mut self, underlay_mtu: u32) {
        self.config.underlay_mtu = below(self.end, underlay_mtu);
        self.done = false;
    }

    pub(super) fn end(&self) -> schema::VxlanEnd {
        schema::VxlanEnd { vni: self.config.vni, port: self.config.port, address: self.config.local }
    }

    pub(super) fn set_peers(&mut self, peers: &[IpAddr]) {
        if self.done && self.config.peers == peers {
            return;
        }
        self.config.peers = peers.to_vec();
        let before = self.error.take();
        self.done = match vxlan::reconcile(&self.config) {
            Ok(changes) => {
                tracing::info!(interface = self.config.interface, ?changes, "VXLAN is as it should be");
                true
            }
            Err(error) => {
                let error = error.to_string();
                if before.as_ref() != Some(&error) {
                    tracing::warn!(error, "VXLAN is not as it should be");
                }
                self.error = Some(error);
                false
            }
        };
    }

    pub(super) fn view(&self, peers: &[IpAddr]) -> schema::Vxlan {
        schema::Vxlan {
            interface: self.config.interface.clone(),
            error: self.error.clone(),
            end: self.end(),
            mtu_bytes: mtu::vxlan(self.config.underlay_mtu, Underlay::of(self.config.local)),
            peers: peers.to_vec(),
        }
    }

    pub(super) fn remove(&mut self) {
        self.error = Some("removed on request".to_owned());
        match vxlan::remove(&self.config.interface) {
            Ok(_) => tracing::info!(interface = self.config.interface, "VXLAN is removed"),
            Err(error) => tracing::error!(%error, "removing VXLAN"),
        }
    }
}
