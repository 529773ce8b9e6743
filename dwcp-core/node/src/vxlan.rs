//! A VXLAN interface between the nodes of regions (RFC 7348), kept as it is wanted.
//!
//! Owns: making the interface, its peers in the forwarding table, its MTU. [`reconcile`] may be called as often as one
//! likes: what is right stays, peers come and go without the interface being made anew, and it is made anew only where
//! the kernel cannot change what differs. An interface of this name that is not ours, by its alias, is never touched.
//!
//! There is no learning. The hardware address of the interface is made of the address of its end ([`station`]), so each
//! node knows its peers' and sends them what is theirs alone; what goes to all, or to a station behind a peer that
//! nobody has told of, goes to each peer.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr},
};

use netlink_packet_route::link::{InfoData, InfoKind, InfoVxlan};

use crate::{
    mtu::{self, Underlay},
    netlink::{
        Netlink, NetlinkError,
        link::{Link, valid_name},
        neighbour::{Entry, Mac},
    },
};

/// The name of the interface, unless told otherwise.
pub const INTERFACE: &str = "dwcp-vx100";
/// The network's number.
pub const VNI: u32 = 100;
/// The port that IANA gave VXLAN.
pub const PORT: u16 = 4789;
/// Peers of one interface. What goes to all is sent to each.
pub const PEERS_MAX: usize = 1024;

/// What marks an interface as ours.
const ALIAS: &str = "novacron-dwcp vxlan";
/// A network's number has 24 bits.
const VNI_MAX: u32 = (1 << 24) - 1;

/// How the interface should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Its name, of 15 bytes at most.
    pub interface: String,
    /// The network's number, of 24 bits.
    pub vni: u32,
    /// The UDP port, here and at the peers.
    pub port: u16,
    /// The address of this end. It has to be one of this node's.
    pub local: IpAddr,
    /// The addresses of the peers' ends, of the same family. This node's own is passed over, so that all nodes may have
    /// the same list.
    pub peers: Vec<IpAddr>,
    /// The MTU of what carries the packets, in bytes: the uplink, or WireGuard's interface.
    pub underlay_mtu: u32,
    /// The number of the one interface that packets may leave through; the kernel takes VXLAN away with it. None: they go as
    /// routes say.
    pub through: Option<u32>,
}

impl Config {
    /// With the names and numbers of the contract, no peers yet, and packets that go as routes say.
    pub fn new(local: IpAddr, underlay_mtu: u32) -> Self {
        Self {
            interface: INTERFACE.to_owned(),
            vni: VNI,
            port: PORT,
            local,
            peers: Vec::new(),
            underlay_mtu,
            through: None,
        }
    }
}

/// Why the interface is not as wanted.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The configuration makes no sense.
    #[error("VXLAN {setting}: {detail}")]
    Config {
        /// Which setting.
        setting: &'static str,
        /// What is wrong, and what would be right.
        detail: String,
    },
    /// There is an interface of this name that is not ours.
    #[error(
        "{interface} is there already and is not ours ({detail}): name another, or remove it (`ip link del {interface}`)"
    )]
    Foreign {
        /// Its name.
        interface: String,
        /// What it is.
        detail: String,
    },
    /// The kernel has no VXLAN.
    #[error("this kernel has no VXLAN (CONFIG_VXLAN, module vxlan): {source}")]
    Unsupported {
        /// What the kernel said.
        source: NetlinkError,
    },
    /// Another interface has this network and port.
    #[error(
        "another VXLAN interface has the network {vni} on port {port} already: remove it, or take another number"
    )]
    Taken {
        /// The network's number.
        vni: u32,
        /// The port.
        port: u16,
    },
    /// The interface that it is to go through is not there any more.
    #[error("what is to carry it, the interface with the number {through}, is gone")]
    NothingBelow {
        /// The interface's number.
        through: u32,
    },
    /// The kernel does not do what was asked.
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
}

/// What [`reconcile`] did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// The interface was made, or made anew.
    pub made: bool,
    /// Peers that came.
    pub added: Vec<IpAddr>,
    /// Peers that went.
    pub removed: Vec<IpAddr>,
    /// The MTU it has now, in bytes.
    pub mtu: u32,
}

/// The hardware address of the interface at this end: locally administered, and the same on every node that computes it.
pub fn station(end: IpAddr) -> [u8; 6] {
    match end {
        IpAddr::V4(address) => {
            let [a, b, c, d] = address.octets();
            [0x02, 0x64, a, b, c, d]
        }
        IpAddr::V6(address) => {
            // All bytes count: prefixes differ between regions, suffixes between nodes.
            let mut station = [0x06, 0, 0, 0, 0, 0];
            for (at, byte) in address.octets().into_iter().enumerate() {
                station[1 + at % 5] ^= byte.rotate_left(at as u32 / 5);
            }
            station
        }
    }
}

/// Makes the interface as it should be.
///
/// # Errors
///
/// See [`Error`]. What was done until then stays, and the next call goes on from there. Where the underlay leaves less than
/// [`mtu::MTU_MIN`], an interface is not made, and one that is there gets that: with less the kernel takes IPv6 off it, and
/// its addresses do not come back. What is longer than the underlay takes is lost then, unless the network fragments it.
pub fn reconcile(config: &Config) -> Result<Changes, Error> {
    let peers = check(config)?;
    let mtu = mtu::vxlan(config.underlay_mtu, Underlay::of(config.local));
    let mut netlink = Netlink::route()?;
    if mtu < mtu::MTU_MIN {
        if let Some(link) = ours(&mut netlink, config)?.filter(|link| link.mtu > mtu::MTU_MIN) {
            // The kernel refuses this over an interface that takes less already: what is too long is lost either way.
            let _ = netlink.set_mtu(&link, mtu::MTU_MIN);
        }
        let detail = format!("{} leaves {mtu} bytes, and {} are needed", config.underlay_mtu, mtu::MTU_MIN);
        return Err(Error::Config { setting: "underlay_mtu", detail });
    }
    let mut changes = Changes { mtu, ..Changes::default() };
    let link = match ours(&mut netlink, config)? {
        Some(link) if matches(&link, config) => link,
        other => {
            if let Some(link) = other {
                netlink.remove_link(&link)?;
            }
            changes.made = true;
            make(&mut netlink, config)?
        }
    };
    if link.alias.is_none() {
        netlink.set_alias(&link, ALIAS)?;
    }
    if link.mtu != mtu {
        netlink.set_mtu(&link, mtu)?;
    }
    // Before the interface carries anything, so that its first packets have somewhere to go.
    set_peers(&mut netlink, &link, config.through, &peers, &mut changes)?;
    if !link.up {
        netlink.set_up(&link)?;
    }
    Ok(changes)
}

/// Removes the interface, if it is there and ours.
///
/// # Errors
///
/// If it is not ours, or the kernel refuses.
pub fn remove(interface: &str) -> Result<bool, Error> {
    let mut netlink = Netlink::route()?;
    match netlink.link(interface)? {
        None => Ok(false),
        Some(link) if link.alias.as_deref() == Some(ALIAS) => {
            netlink.remove_link(&link)?;
            Ok(true)
        }
        Some(link) => Err(foreign(&link)),
    }
}

/// The peers, in order and without this node.
fn check(config: &Config) -> Result<Vec<IpAddr>, Error> {
    let wrong = |setting, detail: String| Err(Error::Config { setting, detail });
    if !valid_name(&config.interface) {
        return wrong(
            "interface",
            format!("{:?} is no name: 1 to 15 bytes, without / : %", config.interface),
        );
    }
    if config.vni == 0 || config.vni > VNI_MAX {
        return wrong("VNI", format!("{} is not between 1 and {VNI_MAX}", config.vni));
    }
    if config.port == 0 {
        return wrong("port", "0 is no port".to_owned());
    }
    if config.local.is_unspecified() || config.local.is_multicast() {
        return wrong("local", format!("{} is not an address of a node", config.local));
    }
    let mut peers = BTreeSet::new();
    for peer in config.peers.iter().copied().filter(|peer| *peer != config.local) {
        if peer.is_ipv4() != config.local.is_ipv4() || peer.is_unspecified() || peer.is_multicast() {
            return wrong(
                "peer",
                format!("{peer} is not an address of a node, of the family of {}", config.local),
            );
        }
        peers.insert(peer);
    }
    if peers.len() > PEERS_MAX {
        return wrong("peers", format!("{} are more than {PEERS_MAX}", peers.len()));
    }
    let mut stations: Vec<_> = peers.iter().chain([&config.local]).map(|end| (station(*end), *end)).collect();
    stations.sort();
    if let Some(pair) = stations.windows(2).find(|pair| pair[0].0 == pair[1].0) {
        return wrong("peers", format!("{} and {} lead to the same hardware address", pair[0].1, pair[1].1));
    }
    Ok(peers.into_iter().collect())
}

/// The interface of this name, if it is there and ours.
fn ours(netlink: &mut Netlink, config: &Config) -> Result<Option<Link>, Error> {
    match netlink.link(&config.interface)? {
        Some(link) if link.alias.as_deref() == Some(ALIAS) => Ok(Some(link)),
        // Its making was interrupted before the mark: nobody else's is down, unmarked and in all points like ours.
        Some(link) if link.alias.is_none() && !link.up && matches(&link, config) => Ok(Some(link)),
        Some(link) => Err(foreign(&link)),
        None => Ok(None),
    }
}

fn foreign(link: &Link) -> Error {
    let kind = link.kind.as_ref().map_or("no virtual interface".to_owned(), |kind| format!("kind {kind}"));
    let alias = link.alias.as_ref().map_or("no alias".to_owned(), |alias| format!("alias {alias:?}"));
    Error::Foreign { interface: link.name.clone(), detail: format!("{kind}, {alias}") }
}

/// Whether an interface has the attributes that the kernel does not change later.
fn matches(link: &Link, config: &Config) -> bool {
    let Some(InfoData::Vxlan(has)) = &link.data else { return false };
    let through = has.iter().find_map(|attribute| match attribute {
        InfoVxlan::Link(index) => Some(*index),
        _ => None,
    });
    attributes(config).iter().all(|wanted| has.contains(wanted))
        && through == config.through
        && link.address == station(config.local)
}

fn attributes(config: &Config) -> Vec<InfoVxlan> {
    let local = match config.local {
        IpAddr::V4(address) => InfoVxlan::Local(address),
        IpAddr::V6(address) => InfoVxlan::Local6(address),
    };
    let mut attributes =
        vec![InfoVxlan::Id(config.vni), InfoVxlan::Port(config.port), local, InfoVxlan::Learning(false)];
    attributes.extend(config.through.map(InfoVxlan::Link));
    attributes
}

fn make(netlink: &mut Netlink, config: &Config) -> Result<Link, Error> {
    use rustix::io::Errno;

    let data = InfoData::Vxlan(attributes(config));
    let made = netlink.make_link(&config.interface, Some(station(config.local)), InfoKind::Vxlan, Some(data));
    made.map_err(|source| match source.errno() {
        Some(Errno::OPNOTSUPP) => Error::Unsupported { source },
        Some(Errno::EXIST) => Error::Taken { vni: config.vni, port: config.port },
        Some(Errno::NODEV) if config.through.is_some() => {
            Error::NothingBelow { through: config.through.unwrap_or_default() }
        }
        _ => source.into(),
    })?;
    let link = netlink.link(&config.interface)?;
    link.ok_or_else(|| Error::Config {
        setting: "interface",
        detail: "it went as soon as it was made".to_owned(),
    })
}

/// What the forwarding table should have for these peers.
fn entries(peers: &[IpAddr]) -> BTreeSet<Entry> {
    const ALL: Mac = [0; 6];
    peers.iter().flat_map(|&end| [ALL, station(end)].map(|station| Entry { station, end })).collect()
}

fn set_peers(
    netlink: &mut Netlink,
    link: &Link,
    through: Option<u32>,
    peers: &[IpAddr],
    changes: &mut Changes,
) -> Result<(), NetlinkError> {
    let has: BTreeSet<_> = netlink.entries(link)?.into_iter().collect();
    let wanted = entries(peers);
    // First what goes: a station has one end only.
    for entry in has.difference(&wanted).filter(|entry| entry.end != IpAddr::V4(Ipv4Addr::UNSPECIFIED)) {
        netlink.remove_entry(link, *entry)?;
        if entry.station == [0; 6] {
            changes.removed.push(entry.end);
        }
    }
    for entry in wanted.difference(&has) {
        netlink.add_entry(link, *entry, through)?;
        if entry.station == [0; 6] {
            changes.added.push(entry.end);
        }
    }
    Ok(())
}
