//! This node's end of VXLAN: the interface, as far as the kernel and the settings let it be.

use std::{net::IpAddr, time::Instant};

use dwcp_node::{
    mtu::{self, Underlay},
    vxlan::{self, Changes},
};
use novacron_control::schema;

use super::underlay::Below;
use crate::{
    again::Again,
    settings::{Tunnels, VxlanEnd},
};

/// Why there is no VXLAN where it was to go through WireGuard: by the network that is there, everybody could read it.
const NOT_WITHOUT_WIREGUARD: &str =
    "WireGuard is not up, and what is to go through it goes nowhere else: it is made when WireGuard is";

/// The end of VXLAN.
pub(super) struct Vxlan {
    end: VxlanEnd,
    config: vxlan::Config,
    /// The kernel has it as `config` says, as far as is known.
    done: bool,
    error: Option<String>,
    again: Again,
}

impl Vxlan {
    pub(super) fn of(wanted: &Tunnels, below: Below) -> Option<Self> {
        let end = wanted.vxlan?;
        let local = match end {
            VxlanEnd::At(address) => address,
            VxlanEnd::WireGuard => wanted.address?.0,
        };
        let mut config = vxlan::Config::new(local, below.of(end));
        config.interface.clone_from(&wanted.vxlan_interface);
        config.vni = wanted.vni;
        config.port = wanted.vxlan_port;
        Some(Self { end, config, done: false, error: None, again: Again::default() })
    }

    /// What carries it has this MTU now, by which the next look goes.
    pub(super) fn set_below(&mut self, below: Below) {
        let underlay_mtu = below.of(self.end);
        if self.config.underlay_mtu != underlay_mtu {
            self.config.underlay_mtu = underlay_mtu;
            self.doubt();
        }
    }

    /// The next look asks the kernel, whether there is something to change or not.
    pub(super) fn doubt(&mut self) {
        self.done = false;
        if self.error.is_none() {
            self.again.reset();
        }
    }

    pub(super) fn end(&self) -> schema::VxlanEnd {
        schema::VxlanEnd { vni: self.config.vni, port: self.config.port, address: self.config.local }
    }

    /// Peers that have a tunnel.
    pub(super) fn count(&self) -> usize {
        if self.error.is_none() { self.config.peers.len() } else { 0 }
    }

    /// Makes the interface what it should be, if it is due. `wireguard`: the number of its interface, while it is up.
    pub(super) fn look(&mut self, peers: &[IpAddr], wireguard: Option<u32>, now: Instant) {
        if self.end == VxlanEnd::WireGuard {
            if wireguard.is_none() {
                return self.without_wireguard();
            }
            if self.config.through != wireguard {
                self.config.through = wireguard;
                self.done = false;
                self.again.reset();
            }
        }
        if self.config.peers != peers {
            self.config.peers = peers.to_vec();
            self.done = false;
            self.again.reset();
        }
        if self.done || !self.again.is_due(now) {
            return;
        }
        match vxlan::reconcile(&self.config) {
            Ok(changes) => {
                if self.error.is_some() || changes != (Changes { mtu: changes.mtu, ..Changes::default() }) {
                    tracing::info!(interface = self.config.interface, ?changes, "VXLAN is as it should be");
                }
                self.done = true;
                self.error = None;
                self.again.reset();
            }
            Err(error) => {
                let error = error.to_string();
                if self.error.as_ref() != Some(&error) {
                    tracing::warn!(error, "VXLAN is not as it should be");
                }
                self.error = Some(error);
                self.again.failed(now);
            }
        }
    }

    /// Takes away what is there, unless the kernel did so already with WireGuard.
    fn without_wireguard(&mut self) {
        if self.config.through.take().is_some() || self.error.is_none() {
            tracing::warn!(interface = self.config.interface, "no VXLAN: {NOT_WITHOUT_WIREGUARD}");
            self.done = false;
        }
        if self.done {
            return;
        }
        self.error = Some(match vxlan::remove(&self.config.interface) {
            Ok(_) => NOT_WITHOUT_WIREGUARD.to_owned(),
            Err(error) => format!("{NOT_WITHOUT_WIREGUARD}; what is there cannot be removed: {error}"),
        });
        self.done = true;
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

    /// It is not to be there, for this reason.
    pub(super) fn withhold(&mut self, why: String) {
        self.error = Some(why);
    }

    pub(super) fn remove(&mut self) {
        self.withhold("removed on request".to_owned());
        match vxlan::remove(&self.config.interface) {
            Ok(_) => tracing::info!(interface = self.config.interface, "VXLAN is removed"),
            Err(error) => tracing::error!(%error, "removing VXLAN"),
        }
    }
}
