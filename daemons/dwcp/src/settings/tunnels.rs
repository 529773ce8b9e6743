//! What can be set about tunnels.

use std::{
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use dwcp_node::{
    mtu::{self, MTU_MIN, Underlay},
    vxlan, wireguard,
};
use novacron_settings::{
    Key, SettingsError, Sources, set,
    value::{duration, parsed, print_duration, print_unless, printed, unless},
};

use super::{Settings, path};

/// Between keys of WireGuard at least: the handshakes of a change take some seconds.
const ROTATION_MIN: Duration = Duration::from_secs(10);

/// Tunnels to other nodes.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Tunnels {
    /// Also to nodes in the own region.
    pub within_region: bool,
    /// The MTU of what carries the tunnels, in bytes; `None`: that of the uplinks.
    pub underlay_mtu: Option<u32>,
    /// Where is kept which tunnels there were, for the next start.
    pub state: PathBuf,
    /// This node's address inside WireGuard and the length of the network's prefix; `None`: no WireGuard.
    pub address: Option<(IpAddr, u8)>,
    /// WireGuard's interface.
    pub interface: String,
    /// Its UDP port.
    pub port: u16,
    /// Where peers send to, if not to that port of the address at which they find this node.
    pub endpoint: Option<SocketAddr>,
    /// The file with its keys.
    pub keys: PathBuf,
    /// How often its key changes; `None`: never.
    pub rotation: Option<Duration>,
    /// This node's end of VXLAN; `None`: no VXLAN.
    pub vxlan: Option<VxlanEnd>,
    /// VXLAN's interface.
    pub vxlan_interface: String,
    /// The network's number.
    pub vni: u32,
    /// Its UDP port.
    pub vxlan_port: u16,
}

/// What carries VXLAN.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VxlanEnd {
    /// WireGuard.
    WireGuard,
    /// The network that this address is of.
    At(IpAddr),
}

impl Default for Tunnels {
    fn default() -> Self {
        Self {
            within_region: false,
            underlay_mtu: None,
            state: PathBuf::from("/var/lib/dwcp/tunnels.json"),
            address: None,
            interface: wireguard::INTERFACE.to_owned(),
            port: wireguard::PORT,
            endpoint: None,
            keys: PathBuf::from("/var/lib/dwcp/wireguard.json"),
            rotation: Some(Duration::from_secs(7 * 24 * 3600)),
            vxlan: None,
            vxlan_interface: vxlan::INTERFACE.to_owned(),
            vni: vxlan::VNI,
            vxlan_port: vxlan::PORT,
        }
    }
}

pub(super) const KEYS: &[Key<Settings>] = &[
    Key::one(
        "tunnels.between",
        "regions or nodes",
        set!(tunnels.within_region, |t| match t {
            "regions" => Some(false),
            "nodes" => Some(true),
            _ => None,
        }),
        |s| if s.tunnels.within_region { "nodes" } else { "regions" }.to_owned(),
    ),
    Key::one(
        "tunnels.underlay_mtu",
        "auto, or 1280..=65535",
        set!(tunnels.underlay_mtu, |t| unless(t, "auto", |t| {
            parsed(t).filter(|mtu| (MTU_MIN..=u32::from(u16::MAX)).contains(mtu))
        })),
        |s| print_unless(s.tunnels.underlay_mtu, "auto", printed),
    ),
    Key::one("tunnels.state", "a path", set!(tunnels.state, path), |s| s.tunnels.state.display().to_string()),
    Key::one(
        "wireguard.address",
        "off, or ADDRESS/PREFIX inside of a node, such as 10.99.0.1/16",
        set!(tunnels.address, |t| unless(t, "off", inside)),
        |s| print_unless(s.tunnels.address, "off", |(address, prefix)| format!("{address}/{prefix}")),
    ),
    Key::one("wireguard.interface", NAME, set!(tunnels.interface, name), |s| s.tunnels.interface.clone()),
    Key::one("wireguard.port", PORT, set!(tunnels.port, port), |s| printed(s.tunnels.port)),
    Key::one(
        "wireguard.endpoint",
        "ADDRESS:PORT that peers can send to, or empty",
        set!(tunnels.endpoint, |t| unless(t, "", |t| {
            parsed(t).filter(|at: &SocketAddr| at.port() > 0 && !at.ip().is_unspecified())
        })),
        |s| print_unless(s.tunnels.endpoint, "", printed),
    ),
    Key::one("wireguard.keys", "a path", set!(tunnels.keys, path), |s| s.tunnels.keys.display().to_string()),
    Key::one(
        "wireguard.rotation",
        "off, or 10s or more",
        set!(tunnels.rotation, |t| unless(t, "off", |t| duration(t).filter(|every| *every >= ROTATION_MIN))),
        |s| print_unless(s.tunnels.rotation, "off", print_duration),
    ),
    Key::one(
        "vxlan.local",
        "off, wireguard, or an address of this node",
        set!(tunnels.vxlan, |t| unless(t, "off", |t| match t {
            "wireguard" => Some(VxlanEnd::WireGuard),
            address => address.parse().ok().map(VxlanEnd::At),
        })),
        |s| {
            print_unless(s.tunnels.vxlan, "off", |end| match end {
                VxlanEnd::WireGuard => "wireguard".to_owned(),
                VxlanEnd::At(address) => address.to_string(),
            })
        },
    ),
    Key::one("vxlan.interface", NAME, set!(tunnels.vxlan_interface, name), |s| {
        s.tunnels.vxlan_interface.clone()
    }),
    Key::one(
        "vxlan.vni",
        "1..=16777215",
        set!(tunnels.vni, |t| t.parse().ok().filter(|vni| (1..1 << 24).contains(vni))),
        |s| printed(s.tunnels.vni),
    ),
    Key::one("vxlan.port", PORT, set!(tunnels.vxlan_port, port), |s| printed(s.tunnels.vxlan_port)),
];

const NAME: &str = "a name of 1 to 15 bytes, without / : %";
const PORT: &str = "1..=65535";

/// Checks what depends on more than one setting.
pub(super) fn finish(sources: &mut Sources<Settings>) -> Result<(), SettingsError> {
    let tunnels = &sources.values.tunnels;
    if tunnels.vxlan == Some(VxlanEnd::WireGuard) && tunnels.address.is_none() {
        let expected = "off or an address, since wireguard.address is off";
        return Err(sources.invalid("vxlan.local", "wireguard".to_owned(), expected));
    }
    if tunnels.address.is_some() && tunnels.vxlan.is_some() && tunnels.interface == tunnels.vxlan_interface {
        let expected = "another name than vxlan.interface";
        return Err(sources.invalid("wireguard.interface", tunnels.interface.clone(), expected));
    }
    let Settings { tune_state, mtu_state, .. } = &sources.values;
    if tunnels.address.is_some()
        && [&tunnels.state, tune_state, mtu_state]
            .iter()
            .any(|state| state.components().eq(tunnels.keys.components()))
    {
        let expected =
            "a file of its own: tunnels.state, node.tune_state or node.mtu_state would overwrite it";
        return Err(sources.invalid("wireguard.keys", tunnels.keys.display().to_string(), expected));
    }
    if let Some(underlay_mtu) = tunnels.underlay_mtu
        && inside_mtu(tunnels, underlay_mtu) < MTU_MIN
    {
        let expected =
            "enough to leave 1280 bytes inside: WireGuard takes 80, VXLAN 50 over IPv4 and 70 over IPv6";
        return Err(sources.invalid("tunnels.underlay_mtu", underlay_mtu.to_string(), expected));
    }
    Ok(())
}

/// What is left in the tunnel that has least, in bytes.
fn inside_mtu(tunnels: &Tunnels, underlay_mtu: u32) -> u32 {
    // Peers may be reached by either IP.
    let wireguard = tunnels.address.map(|(inside, _)| (mtu::wireguard(underlay_mtu, Underlay::V6), inside));
    let vxlan = match (tunnels.vxlan, wireguard) {
        (Some(VxlanEnd::At(local)), _) => mtu::vxlan(underlay_mtu, Underlay::of(local)),
        (Some(VxlanEnd::WireGuard), Some((below, inside))) => mtu::vxlan(below, Underlay::of(inside)),
        _ => underlay_mtu,
    };
    vxlan.min(wireguard.map_or(underlay_mtu, |(mtu, _)| mtu))
}

fn inside(text: &str) -> Option<(IpAddr, u8)> {
    let (address, prefix) = text.split_once('/')?;
    let (address, prefix) = (address.parse().ok()?, prefix.parse().ok()?);
    wireguard::Network::new(address, prefix)?;
    is_of_a_node(address, prefix).then_some((address, prefix))
}

/// Not the network's own address, which its first or last one is where it has more than two.
fn is_of_a_node(address: IpAddr, prefix: u8) -> bool {
    let (bits, width) = match address {
        IpAddr::V4(address) => (u128::from(u32::from(address)), 32),
        IpAddr::V6(address) => (u128::from(address), 128),
    };
    let host_bits = width - u32::from(prefix);
    let host_max = u128::MAX.checked_shr(128 - host_bits).unwrap_or(0);
    let host = bits & host_max;
    let is_network = host_bits > 1 && (host == 0 || (address.is_ipv4() && host == host_max));
    !is_network && !address.is_unspecified() && !address.is_multicast()
}

fn name(text: &str) -> Option<String> {
    let fits = (1..=15).contains(&text.len())
        && !text.contains(['/', ':', '%'])
        && !text.contains(char::is_whitespace);
    fits.then(|| text.to_owned())
}

fn port(text: &str) -> Option<u16> {
    text.parse().ok().filter(|port| *port > 0)
}
