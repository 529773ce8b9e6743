//! The interfaces of this network namespace, and which of them lead to the world.

use std::{collections::BTreeSet, fs, net::IpAddr, path::Path};

use crate::netlink::{Netlink, NetlinkError, link::Link};

/// An interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    /// Its name.
    pub name: String,
    /// A default route leads through it.
    pub uplink: bool,
    /// It is up.
    pub up: bool,
    /// In bytes.
    pub mtu: u32,
    /// The most that its device takes, in bytes. 0: it does not say.
    pub mtu_max: u32,
    /// The driver of a card, or the kind of a virtual interface.
    pub driver: Option<String>,
    /// Queues to receive from.
    pub rx_queues: u32,
    /// Queues to send by.
    pub tx_queues: u32,
}

/// The addresses of this network namespace.
///
/// # Errors
///
/// If the kernel does not say.
pub fn addresses() -> Result<BTreeSet<IpAddr>, NetlinkError> {
    Netlink::route()?.addresses()
}

/// All but the loopback.
///
/// # Errors
///
/// If the kernel does not say.
pub fn interfaces() -> Result<Vec<Interface>, NetlinkError> {
    let uplinks = uplinks();
    let links = Netlink::route()?.links()?;
    let interface = |link: Link| Interface {
        uplink: uplinks.contains(&link.name),
        up: link.up,
        mtu: link.mtu,
        mtu_max: link.mtu_max,
        driver: driver(&link),
        rx_queues: link.rx_queues,
        tx_queues: link.tx_queues,
        name: link.name,
    };
    Ok(links.into_iter().filter(|link| !link.loopback).map(interface).collect())
}

fn driver(link: &Link) -> Option<String> {
    if let Some(kind) = &link.kind {
        return Some(kind.to_string());
    }
    // `/sys` shows the network namespace in which it was mounted, which need not be ours.
    let folder = Path::new("/sys/class/net").join(&link.name);
    let index = fs::read_to_string(folder.join("ifindex")).ok()?;
    if index.trim() != link.index.to_string() {
        return None;
    }
    let driver = fs::read_link(folder.join("device/driver")).ok()?;
    Some(driver.file_name()?.to_string_lossy().into_owned())
}

/// The names of interfaces of default routes.
fn uplinks() -> Vec<String> {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let (v4, v6) = (read("/proc/thread-self/net/route"), read("/proc/thread-self/net/ipv6_route"));
    let mut names: Vec<_> = v4
        .lines()
        .filter_map(default_v4)
        .chain(v6.lines().filter_map(default_v6))
        .map(str::to_owned)
        .collect();
    names.sort();
    names.dedup();
    names
}

/// Of `Iface Destination Gateway Flags RefCnt Use Metric Mask ...`.
fn default_v4(line: &str) -> Option<&str> {
    let fields: Vec<_> = line.split_whitespace().collect();
    (*fields.get(1)? == "00000000" && *fields.get(7)? == "00000000").then_some(fields[0])
}

/// Of `destination prefix source prefix gateway metric references use flags interface`. The route by which the kernel
/// refuses looks like a default one, on the loopback.
fn default_v6(line: &str) -> Option<&str> {
    let fields: Vec<_> = line.split_whitespace().collect();
    let (prefix, name) = (*fields.get(1)?, *fields.get(9)?);
    (prefix == "00" && fields[0].bytes().all(|byte| byte == b'0') && name != "lo").then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn default_routes_name_uplinks() {
        let v4 = "eth0\t00000000\t0101A8C0\t0003\t0\t0\t100\t00000000\t0\t0\t0";
        assert_eq!(default_v4(v4), Some("eth0"));
        assert_eq!(default_v4("eth0\t0001A8C0\t00000000\t0001\t0\t0\t100\t00FFFFFF\t0\t0\t0"), None);
        assert_eq!(default_v4("Iface\tDestination"), None);
        let zero = "0".repeat(32);
        let v6 = |prefix, name| format!("{zero} {prefix} {zero} 00 {zero} 00000400 1 0 00000003 {name}");
        assert_eq!(default_v6(&v6("00", "eth1")), Some("eth1"));
        assert_eq!(default_v6(&v6("00", "lo")), None);
        assert_eq!(default_v6(&v6("40", "eth1")), None);
    }
}
