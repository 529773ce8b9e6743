//! WireGuard in the kernel, by generic netlink (family `wireguard`, linux/wireguard.h).
//!
//! Owns: the interface, and asking and telling the kernel. What to tell it of peers is `entries`' subject; how that looks
//! as a message, `message`'s.

mod entries;
mod message;

use std::time::{Instant, SystemTime};

use netlink_packet_generic::GenlMessage;
use netlink_packet_route::link::InfoKind;
use netlink_packet_wireguard::{WireguardAttribute, WireguardCmd, WireguardMessage, WireguardPeer};
use rustix::io::Errno;

use super::{ALIAS, Config, Error, Peer, PeerStatus, PrivateKey, PublicKey};
use crate::netlink::{Netlink, link::Link};
use entries::{Entry, Memory};

/// Peers of one message. A netlink attribute has 64 KiB at most, and a peer with all its networks about 10.
const PEERS_PER_MESSAGE: usize = 4;

/// An interface of the kernel.
#[derive(Debug)]
pub(super) struct Kernel {
    link: Link,
    made: bool,
    memory: Memory,
}

/// The device as the kernel tells of it.
#[derive(Debug, Default)]
struct Device {
    public_key: Option<PublicKey>,
    port: u16,
    entries: Vec<Entry>,
}

impl Kernel {
    /// Makes the interface, or takes over our own of an earlier start: with its sessions, if the key is the same.
    pub(super) fn open(netlink: &mut Netlink, config: &Config, key: &PrivateKey) -> Result<Self, Error> {
        family()?;
        let (link, made) = interface(netlink, &config.interface)?;
        let mut kernel = Self { link, made, memory: Memory::default() };
        if kernel.device()?.port != config.port {
            kernel.tell("set the port", vec![WireguardAttribute::ListenPort(config.port)])?;
        }
        kernel.set_key(key, &config.peers)?;
        kernel.set_peers(&config.peers)?;
        Ok(kernel)
    }

    /// Whether the interface was not there before.
    pub(super) fn made(&self) -> bool {
        self.made
    }

    pub(super) fn set_peers(&mut self, peers: &[Peer]) -> Result<(), Error> {
        let present = self.device()?.entries;
        let plan = entries::plan(peers, &present, &mut self.memory, Instant::now(), SystemTime::now());
        self.tell_peers("set peers", plan)
    }

    pub(super) fn set_key(&mut self, key: &PrivateKey, peers: &[Peer]) -> Result<(), Error> {
        let device = self.device()?;
        if device.public_key == Some(key.public_key()) {
            return Ok(());
        }
        // Sessions still receive, and do not send any more.
        self.tell("set the key", vec![WireguardAttribute::PrivateKey(key.0)])?;
        // Keepalives that are turned on are sent at once, and begin a handshake. Which of its keys a peer has now is not
        // known, if it is changing its own.
        let keepalives =
            |seconds| device.entries.iter().map(|entry| message::keepalive(entry.key, seconds)).collect();
        self.tell_peers("stop keepalives", keepalives(0))?;
        self.tell_peers("begin handshakes", keepalives(1))?;
        self.set_peers(peers)
    }

    pub(super) fn status(&mut self, peers: &[Peer]) -> Result<Vec<PeerStatus>, Error> {
        let entries = self.device()?.entries;
        let now = SystemTime::now();
        let mut all: Vec<_> = peers.iter().map(|peer| status(peer, &entries, now)).collect();
        all.sort_by(|one, other| one.name.cmp(&other.name));
        Ok(all)
    }

    fn device(&self) -> Result<Device, Error> {
        let question = vec![WireguardAttribute::IfIndex(self.link.index)];
        let question = WireguardMessage { cmd: WireguardCmd::GetDevice, attributes: question };
        let (mut netlink, family) = family()?;
        let mut question = GenlMessage::from_payload(question);
        question.set_resolved_family_id(family);
        let answers = netlink.list(&format!("tell of {}", self.link.name), question)?;
        let mut device = Device::default();
        for attribute in answers.into_iter().flat_map(|answer| answer.payload.attributes) {
            match attribute {
                WireguardAttribute::PublicKey(key) => device.public_key = Some(PublicKey(key)),
                WireguardAttribute::ListenPort(port) => device.port = port,
                WireguardAttribute::Peers(peers) => {
                    peers.into_iter().for_each(|peer| message::add_entry(&mut device.entries, peer));
                }
                _ => {}
            }
        }
        Ok(device)
    }

    fn tell(&self, what: &str, attributes: Vec<WireguardAttribute>) -> Result<(), Error> {
        let (mut netlink, family) = family()?;
        let mut all = vec![WireguardAttribute::IfIndex(self.link.index)];
        all.extend(attributes);
        let message = WireguardMessage { cmd: WireguardCmd::SetDevice, attributes: all };
        let mut message = GenlMessage::from_payload(message);
        message.set_resolved_family_id(family);
        netlink.ask(&format!("{what} of {}", self.link.name), 0, message)?;
        Ok(())
    }

    fn tell_peers(&self, what: &str, mut peers: Vec<WireguardPeer>) -> Result<(), Error> {
        while !peers.is_empty() {
            let rest = peers.split_off(peers.len().min(PEERS_PER_MESSAGE));
            self.tell(what, vec![WireguardAttribute::Peers(std::mem::replace(&mut peers, rest))])?;
        }
        Ok(())
    }
}

/// A socket, and the family's number. A socket for each question: none can be lost in between.
fn family() -> Result<(Netlink, u16), Error> {
    let mut netlink = Netlink::generic()?;
    let family = netlink.family("wireguard")?.ok_or(Error::KernelWithout)?;
    Ok((netlink, family))
}

/// The interface of this name, made if it is not there, and whether it was.
fn interface(netlink: &mut Netlink, name: &str) -> Result<(Link, bool), Error> {
    let foreign = || Error::Foreign { interface: name.to_owned() };
    let made = netlink.link(name)?.is_none();
    if made {
        match netlink.make_link(name, None, InfoKind::Wireguard, None) {
            Err(error) if error.errno() == Some(Errno::OPNOTSUPP) => return Err(Error::KernelWithout),
            result => result?,
        }
    }
    let link = netlink.link(name)?.ok_or_else(foreign)?;
    let marked = link.alias.as_deref() == Some(ALIAS);
    // Unmarked and down: its making was interrupted before the mark. Nobody else would leave one of this name so.
    let unfinished = link.alias.is_none() && !link.up;
    if link.kind != Some(InfoKind::Wireguard) || !(marked || unfinished) {
        return Err(foreign());
    }
    if !marked {
        netlink.set_alias(&link, ALIAS)?;
    }
    Ok((link, made))
}

fn status(peer: &Peer, entries: &[Entry], now: SystemTime) -> PeerStatus {
    let of_peer =
        || entries.iter().filter(|entry| peer.public_keys.contains(&entry.key) || entry.is_of(peer));
    let in_use = of_peer().find(|entry| entry.is_of(peer)).or_else(|| of_peer().next());
    PeerStatus {
        name: peer.name.clone(),
        public_key: in_use.map_or(peer.public_keys[0], |entry| entry.key),
        endpoint: in_use.and_then(|entry| entry.endpoint),
        handshake_age: of_peer()
            .filter_map(|entry| entry.handshake)
            .max()
            .map(|at| now.duration_since(at).unwrap_or_default()),
        rx_bytes: of_peer().map(|entry| entry.rx_bytes).sum(),
        tx_bytes: of_peer().map(|entry| entry.tx_bytes).sum(),
    }
}
