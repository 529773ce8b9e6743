//! What a guard is told: ports, prefixes, limits. Checked here, so that nothing is opened for a bad one.

use std::{
    fmt,
    net::{IpAddr, Ipv6Addr},
    path::PathBuf,
    str::FromStr,
};

use crate::error::Error;

/// UDP ports of one guard.
pub const PORTS_MAX: usize = 4;
/// Addresses of this node at which datagrams are guarded.
pub const ADDRESSES_MAX: usize = 1024;
/// Prefixes that are denied, and as many that are allowed.
pub const PREFIXES_MAX: usize = 4096;
/// Flows that are steered to AF_XDP sockets.
pub const FLOWS_MAX: usize = 65536;
/// Receive queues that may have an AF_XDP socket.
pub const QUEUES_MAX: u32 = 64;
/// A second, in which a source's bucket is full again at the latest.
const RATE_MAX: u32 = 1_000_000_000;

/// Where in the kernel the program runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Mode {
    /// In the driver, before the kernel has a socket buffer.
    Native,
    /// Behind the driver, on socket buffers: works everywhere and costs more. Datagrams that the kernel has joined by then
    /// count as one and go to its UDP, whatever their flow: that takes them apart.
    Generic,
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Native => "native",
            Self::Generic => "generic",
        })
    }
}

/// A token bucket for each source address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    /// Tokens that come in, 1 to 10^9.
    pub datagrams_per_second: u32,
    /// Tokens that the bucket holds, at least 1: datagrams that may come at once.
    pub burst: u32,
}

/// What happens to a datagram that no token could be asked for, because there is no memory for its source or other
/// processors were faster too often.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Failure {
    /// It passes.
    #[default]
    Open,
    /// It is dropped.
    Closed,
}

/// Settings of a guard.
#[derive(Clone, Debug)]
pub struct Config {
    /// UDP destination ports that are guarded, 1 to [`PORTS_MAX`]; the others pass untouched.
    pub ports: Vec<u16>,
    /// Destination addresses that are guarded, until [`Guard::set_addresses`](crate::Guard::set_addresses) names others; what goes
    /// to others passes untouched. At most [`ADDRESSES_MAX`].
    pub addresses: Vec<IpAddr>,
    /// `None`: native, and generic where the driver refuses, or has refused when the interface was first guarded.
    pub mode: Option<Mode>,
    /// Sources that are dropped, whatever `allow` says. At most [`PREFIXES_MAX`].
    pub deny: Vec<Prefix>,
    /// If there are any: the only sources that pass. At most [`PREFIXES_MAX`].
    pub allow: Vec<Prefix>,
    /// How much a source may send; `None`: no limit.
    pub limit: Option<Limit>,
    /// What happens where the limit cannot be told.
    pub failure: Failure,
    /// Of how many drops for one reason, on one processor, one makes an event; 0: none does.
    pub sample_every: u32,
    /// A folder in a BPF file system, where link and maps are pinned, in a folder of the interface's name.
    pub root: PathBuf,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            ports: vec![8889],
            addresses: Vec::new(),
            mode: None,
            deny: Vec::new(),
            allow: Vec::new(),
            limit: Some(Limit { datagrams_per_second: 100_000, burst: 10_000 }),
            failure: Failure::Open,
            sample_every: 1000,
            root: "/sys/fs/bpf/novacron-dwcp".into(),
        }
    }
}

impl Config {
    /// Whether the settings are in their ranges.
    ///
    /// # Errors
    /// [`Error::Setting`] names the first that is not.
    pub fn check(&self) -> Result<(), Error> {
        let bad = |setting, allowed| Err(Error::Setting { setting, allowed });
        if self.ports.is_empty() || self.ports.len() > PORTS_MAX || self.ports.contains(&0) {
            return bad("ports", "1 to 4 ports, none of them 0");
        }
        if self.addresses.len() > ADDRESSES_MAX {
            return bad("addresses", "at most 1024 addresses");
        }
        if self.deny.len() > PREFIXES_MAX {
            return bad("deny", "at most 4096 prefixes");
        }
        if self.allow.len() > PREFIXES_MAX {
            return bad("allow", "at most 4096 prefixes");
        }
        match self.limit {
            Some(limit) if limit.datagrams_per_second == 0 || limit.datagrams_per_second > RATE_MAX => {
                bad("limit.datagrams_per_second", "1 to 10^9")
            }
            Some(limit) if limit.burst == 0 => bad("limit.burst", "at least 1"),
            _ => Ok(()),
        }
    }
}

/// An IP prefix, such as `10.0.0.0/8` or `2001:db8::/32`. Bits behind the prefix are zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Prefix {
    address: IpAddr,
    bits: u8,
}

/// A text or a number of bits that is no prefix.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PrefixError {
    /// More bits than the address has.
    #[error("{bits} bits are more than {address} has")]
    Bits {
        /// The address.
        address: IpAddr,
        /// The bits asked for.
        bits: u8,
    },
    /// Bits are set behind the prefix, so that one of the two is a slip.
    #[error("{address}/{bits} has bits set behind its prefix")]
    HostBits {
        /// The address.
        address: IpAddr,
        /// The bits asked for.
        bits: u8,
    },
    /// Not an address, or not a number behind the slash.
    #[error("{text:?} is not ADDRESS or ADDRESS/BITS")]
    Text {
        /// What was given.
        text: String,
    },
}

impl Prefix {
    /// The addresses that have their first `bits` in common with `address`.
    ///
    /// # Errors
    /// [`PrefixError`] if there are more bits than the address has, or some set behind the prefix.
    pub fn new(address: IpAddr, bits: u8) -> Result<Self, PrefixError> {
        let (value, width) = match address {
            IpAddr::V4(v4) => (u128::from(u32::from(v4)), 32),
            IpAddr::V6(v6) => (u128::from(v6), 128),
        };
        if bits > width {
            return Err(PrefixError::Bits { address, bits });
        }
        if value & !u128::MAX.checked_shl(u32::from(width - bits)).unwrap_or(0) != 0 {
            return Err(PrefixError::HostBits { address, bits });
        }
        Ok(Self { address, bits })
    }

    /// The key of the program's maps: bits and an IPv6 address, with IPv4 mapped into it.
    #[cfg_attr(not(xdp), allow(dead_code, reason = "there is no program"))]
    pub(crate) fn mapped(self) -> (u32, Ipv6Addr) {
        match self.address {
            IpAddr::V4(address) => (96 + u32::from(self.bits), address.to_ipv6_mapped()),
            IpAddr::V6(address) => (u32::from(self.bits), address),
        }
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.bits)
    }
}

impl FromStr for Prefix {
    type Err = PrefixError;

    fn from_str(text: &str) -> Result<Self, PrefixError> {
        let bad = || PrefixError::Text { text: text.to_owned() };
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) => (address, Some(bits.parse().map_err(|_| bad())?)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| bad())?;
        Self::new(address, bits.unwrap_or(if address.is_ipv4() { 32 } else { 128 }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_are_read_and_written() {
        for text in ["10.0.0.0/8", "0.0.0.0/0", "192.0.2.1/32", "2001:db8::/32", "::/0", "::1/128"] {
            assert_eq!(text.parse::<Prefix>().expect(text).to_string(), text);
        }
        assert_eq!("192.0.2.1".parse::<Prefix>().expect("one address").to_string(), "192.0.2.1/32");
        assert_eq!(
            "10.0.0.0/8".parse::<Prefix>().expect("a prefix").mapped(),
            (104, "::ffff:10.0.0.0".parse().expect("an address"))
        );
        for text in
            ["", "/", "10.0.0.0/", "10.0.0.0/x", "10.0.0.0/33", "::/129", "10.0.0.1/8", "x/8", "10.0.0.0/8/8"]
        {
            assert!(text.parse::<Prefix>().is_err(), "{text}");
        }
    }

    #[test]
    fn settings_out_of_range_are_named() {
        let limit = |datagrams_per_second, burst| Some(Limit { datagrams_per_second, burst });
        let prefixes = vec!["10.0.0.0/8".parse().expect("a prefix"); PREFIXES_MAX + 1];
        let cases = [
            ("ports", Config { ports: vec![], ..Config::default() }),
            ("ports", Config { ports: vec![0], ..Config::default() }),
            ("ports", Config { ports: vec![1; PORTS_MAX + 1], ..Config::default() }),
            (
                "addresses",
                Config { addresses: vec![[192, 0, 2, 1].into(); ADDRESSES_MAX + 1], ..Config::default() },
            ),
            ("deny", Config { deny: prefixes.clone(), ..Config::default() }),
            ("allow", Config { allow: prefixes, ..Config::default() }),
            ("limit.datagrams_per_second", Config { limit: limit(0, 1), ..Config::default() }),
            ("limit.datagrams_per_second", Config { limit: limit(RATE_MAX + 1, 1), ..Config::default() }),
            ("limit.burst", Config { limit: limit(1, 0), ..Config::default() }),
        ];
        for (named, config) in cases {
            match config.check() {
                Err(Error::Setting { setting, .. }) => assert_eq!(setting, named),
                other => panic!("{named}: {other:?}"),
            }
        }
        Config::default().check().expect("the defaults are in range");
    }
}
