//! Which MTU is safe.
//!
//! Owns: the arithmetic of tunnels, and setting the MTU of an uplink with the former one recorded, as [`tune`] does. Does
//! not know how a path is measured: the transport proves packet sizes, and tells them here.
//!
//! [`tune`]: crate::tune

use std::path::Path;

use crate::{
    netlink::NetlinkError,
    state::StateError,
    tune::{self, Item, Report, Want, kernel::Kernel},
};

/// Where the daemon keeps the MTUs it changed, unless told otherwise.
pub const STATE_PATH: &str = "/run/dwcp/mtu.json";
/// Every link has to carry this (RFC 8200, section 5), and nothing here goes below.
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

/// What an interface may carry, and why not more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Decision {
    /// As it is: it carries what all paths do, or there is no proof that they carry more.
    Keep,
    /// More: every path has proved it.
    Raise(u32),
    /// Less: a path has proved that it does not carry what the interface promises.
    Lower(u32),
}

/// What is known of an uplink.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Uplink {
    /// Its MTU now, in bytes.
    pub mtu: u32,
    /// The most its device takes, in bytes. 0: it does not say.
    pub mtu_max: u32,
    /// What is wanted, in bytes: 9000.
    pub wanted: u32,
}

/// The packet size that a path has proved, in bytes with the IP header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Proof {
    /// Packets of this size arrive, and whether larger ones do is not known.
    Carries(u32),
    /// Packets of this size arrive, and larger ones do not.
    Exactly(u32),
    /// Nothing is known.
    Unknown,
}

/// What the MTU of an uplink may be, given what the path to every peer has proved.
///
/// It is raised only if every path carries more than it is now, and never above what is wanted or the device takes. It
/// is lowered only where a path is known not to carry it, to no less than [`MTU_MIN`].
pub fn uplink(uplink: Uplink, paths: &[Proof]) -> Decision {
    let least_limit = paths.iter().filter_map(|path| match path {
        Proof::Exactly(size) => Some(*size),
        _ => None,
    });
    if let Some(limit) = least_limit.min()
        && limit < uplink.mtu
    {
        let lowered = limit.max(MTU_MIN);
        return if lowered < uplink.mtu { Decision::Lower(lowered) } else { Decision::Keep };
    }
    let proved = paths.iter().map(|path| match path {
        Proof::Carries(size) | Proof::Exactly(size) => *size,
        Proof::Unknown => 0,
    });
    let device = if uplink.mtu_max == 0 { uplink.mtu } else { uplink.mtu_max };
    let allowed = proved.min().unwrap_or(0).min(uplink.wanted).min(device);
    if allowed > uplink.mtu { Decision::Raise(allowed) } else { Decision::Keep }
}

/// The smallest MTU of the interfaces that lead to the world, which is what tunnels can count on. None if there is no
/// default route.
///
/// # Errors
///
/// If the kernel does not say.
pub fn of_uplinks() -> Result<Option<u32>, NetlinkError> {
    let interfaces = crate::probe::interfaces()?;
    Ok(interfaces.iter().filter(|interface| interface.uplink).map(|interface| interface.mtu).min())
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

/// Sets MTUs of interfaces, in bytes, and puts back those that an earlier call has set and this does not name.
///
/// # Errors
///
/// If the state file cannot be written or read: then nothing more is changed, since it could not be put back.
pub fn apply(mtus: &[(String, u32)], state: &Path) -> Result<Vec<Report>, StateError> {
    let wants = mtus.iter().map(|(interface, mtu)| (Item::Mtu(interface.clone()), Want::Mtu(*mtu)));
    tune::apply_in(&mut Kernel::here(), wants.collect(), state)
}

/// Puts back all that [`apply`] has set and nobody has changed since.
///
/// # Errors
///
/// If the state file cannot be read or replaced.
pub fn restore(state: &Path) -> Result<Vec<Report>, StateError> {
    tune::restore(state)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{Decision::*, Proof::*, *};

    const UPLINK: Uplink = Uplink { mtu: 1500, mtu_max: 9216, wanted: 9000 };

    #[test]
    fn overheads_are_those_of_the_protocols() {
        let overheads = [Underlay::V4, Underlay::V6].map(|ip| (vxlan_overhead(ip), wireguard_overhead(ip)));
        assert_eq!(overheads, [(50, 60), (70, 80)]);
        assert_eq!(vxlan(wireguard(9000, Underlay::V6), Underlay::V4), 8870, "VXLAN over WireGuard");
        assert_eq!(vxlan(20, Underlay::V4), 0, "nothing fits");
    }

    #[test]
    fn an_uplink_carries_what_all_paths_have_proved() {
        for (paths, decision) in [
            (&[][..], Keep),
            (&[Carries(9000)], Raise(9000)),
            (&[Carries(9000), Carries(4000)], Raise(4000)),
            (&[Carries(9000), Unknown], Keep),
            (&[Carries(9000), Exactly(1500)], Keep),
            (&[Carries(9000), Exactly(1400)], Lower(1400)),
            (&[Exactly(600)], Lower(MTU_MIN)),
            (&[Carries(600)], Keep),
            (&[Carries(65535)], Raise(9000)),
        ] {
            assert_eq!(uplink(UPLINK, paths), decision, "{paths:?}");
        }
        assert_eq!(uplink(Uplink { mtu_max: 4000, ..UPLINK }, &[Carries(9000)]), Raise(4000));
        assert_eq!(
            uplink(Uplink { mtu_max: 0, ..UPLINK }, &[Carries(9000)]),
            Keep,
            "the device does not say"
        );
        assert_eq!(uplink(Uplink { mtu: 1280, ..UPLINK }, &[Exactly(600)]), Keep);
    }

    fn proof() -> impl Strategy<Value = Proof> {
        let size = 500..12000u32;
        prop_oneof![size.clone().prop_map(Carries), size.prop_map(Exactly), Just(Unknown)]
    }

    proptest! {
        #[test]
        fn nothing_is_raised_beyond_what_every_path_the_device_and_the_wish_allow(
            mtu in 1280..10000u32, mtu_max in 1280..10000u32, wanted in 1280..10000u32,
            paths in prop::collection::vec(proof(), 0..5),
        ) {
            match uplink(Uplink { mtu, mtu_max, wanted }, &paths) {
                Raise(new) => {
                    prop_assert!(new > mtu && new <= mtu_max && new <= wanted);
                    for path in paths {
                        prop_assert!(matches!(path, Carries(size) | Exactly(size) if size >= new));
                    }
                }
                Lower(new) => {
                    prop_assert!((MTU_MIN..mtu).contains(&new));
                    prop_assert!(paths.iter().any(|path| matches!(path, Exactly(size) if *size < mtu)));
                }
                Keep => {}
            }
        }
    }
}
