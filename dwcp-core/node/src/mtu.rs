//! Which MTU is safe.
//!
//! Owns: the arithmetic of tunnels; deciding whether an uplink is raised and what may be sent through it (pure, [`plan`] and
//! [`Pace`]); and raising it, with what was there before on disk, as [`tune`] has it. Does not know how a path is measured:
//! the transport proves packet sizes, and tells them here. No interface is ever lowered below what it was.
//!
//! [`tune`]: crate::tune

mod decide;
mod interface;
mod record;

pub use decide::{
    PUT_BACK_AFTER, Pace, Peer, Plan, RAISE_TIME_MAX, REST_MAX, REST_MIN, Reason, Uplink, plan,
};
pub use interface::{Interface, MtuError, ROUTES_MAX, allow, interfaces_to, raise, restore};

use std::collections::BTreeMap;

use crate::netlink::NetlinkError;

/// Where the daemon keeps the MTUs it changed, unless told otherwise.
pub const STATE_PATH: &str = "/run/dwcp/mtu.json";
/// Every link has to carry this (RFC 8200, section 5); one that does not is left alone.
pub const MTU_MIN: u32 = 1280;

/// Which IP carries a tunnel's packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Underlay {
    /// IPv4, with a header of 20 bytes.
    V4,
    /// IPv6, with a header of 40 bytes.
    V6,
}

impl Underlay {
    /// Of an address.
    pub fn of(address: std::net::IpAddr) -> Self {
        if address.is_ipv4() { Self::V4 } else { Self::V6 }
    }

    /// The IP header without options, in bytes.
    const fn header(self) -> u32 {
        match self {
            Self::V4 => 20,
            Self::V6 => 40,
        }
    }
}

const UDP: u32 = 8;

/// Bytes that VXLAN adds to a packet inside it: IP, UDP, its own header of 8, and the Ethernet header of 14 (RFC 7348).
pub const fn vxlan_overhead(underlay: Underlay) -> u32 {
    underlay.header() + UDP + 8 + 14
}

/// Bytes that WireGuard adds: IP, UDP, and a header of 16 and a tag of 16 of its own (the paper, section 5.4.6).
pub const fn wireguard_overhead(underlay: Underlay) -> u32 {
    underlay.header() + UDP + 16 + 16
}

/// The smallest MTU of the interfaces that lead to the world, which is what tunnels can count on. None if there is no
/// default route. What is sent through an interface of `held` is held to less, by its name.
///
/// # Errors
///
/// If the kernel does not say.
pub fn of_uplinks(held: &BTreeMap<String, u32>) -> Result<Option<u32>, NetlinkError> {
    let interfaces = crate::probe::interfaces()?;
    let uplinks = interfaces.iter().filter(|interface| interface.uplink);
    Ok(uplinks.map(|uplink| held.get(&uplink.name).map_or(uplink.mtu, |held| uplink.mtu.min(*held))).min())
}

/// The MTU of a VXLAN interface over an interface of this MTU. Over WireGuard, that is WireGuard's.
pub fn vxlan(below: u32, underlay: Underlay) -> u32 {
    below.saturating_sub(vxlan_overhead(underlay))
}

/// The MTU of a WireGuard interface over an uplink of this MTU.
///
/// WireGuard pads what it encrypts to 16 bytes, but never beyond this MTU, so nothing has to be rounded.
pub fn wireguard(below: u32, underlay: Underlay) -> u32 {
    below.saturating_sub(wireguard_overhead(underlay))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn overheads_are_those_of_the_protocols() {
        let overheads = [Underlay::V4, Underlay::V6].map(|ip| (vxlan_overhead(ip), wireguard_overhead(ip)));
        assert_eq!(overheads, [(50, 60), (70, 80)]);
        assert_eq!(vxlan(wireguard(9000, Underlay::V6), Underlay::V4), 8870, "VXLAN over WireGuard");
        assert_eq!(vxlan(20, Underlay::V4), 0, "nothing fits");
    }
}
