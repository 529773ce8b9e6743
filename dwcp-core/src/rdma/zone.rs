//! Whose wire is trusted: prefixes of addresses.

use std::{fmt, net::IpAddr, str::FromStr};

/// Addresses whose network is trusted with what is not encrypted, e.g. `10.1.0.0/16` or `fd00:1::/32`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TrustZone {
    addr: IpAddr,
    prefix_len: u8,
}

/// Text that is not a zone.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
#[error(
    "{text}: expected an address and the length of its prefix, such as 10.1.0.0/16, without bits behind it"
)]
pub struct TrustZoneError {
    /// The text.
    pub text: String,
}

impl TrustZone {
    /// Whether an address is in it.
    pub fn contains(&self, addr: IpAddr) -> bool {
        fn equal(a: &[u8], b: &[u8], bits: u8) -> bool {
            let (bytes, rest) = (usize::from(bits / 8), bits % 8);
            a[..bytes] == b[..bytes] && (rest == 0 || (a[bytes] ^ b[bytes]) >> (8 - rest) == 0)
        }
        match (self.addr, addr.to_canonical()) {
            (IpAddr::V4(zone), IpAddr::V4(addr)) => equal(&zone.octets(), &addr.octets(), self.prefix_len),
            (IpAddr::V6(zone), IpAddr::V6(addr)) => equal(&zone.octets(), &addr.octets(), self.prefix_len),
            _ => false,
        }
    }
}

impl FromStr for TrustZone {
    type Err = TrustZoneError;

    fn from_str(text: &str) -> Result<Self, TrustZoneError> {
        let parsed = text.split_once('/').and_then(|(addr, prefix_len)| {
            let (addr, prefix_len) = (addr.parse::<IpAddr>().ok()?, prefix_len.parse().ok()?);
            let bits = if addr.is_ipv4() { 32 } else { 128 };
            // Bits behind the prefix: one of the two is a slip, and it is trust that hangs on it.
            let network = match addr {
                IpAddr::V4(addr) => u128::from(u32::from(addr)) << 96,
                IpAddr::V6(addr) => u128::from(addr),
            };
            let behind = network.checked_shl(u32::from(prefix_len)).unwrap_or(0);
            (prefix_len <= bits && behind == 0).then_some(Self { addr, prefix_len })
        });
        parsed.ok_or_else(|| TrustZoneError { text: text.to_owned() })
    }
}

impl fmt::Display for TrustZone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.addr, self.prefix_len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_zone_contains_its_prefix_and_nothing_else() {
        for (zone, addr, expected) in [
            ("10.1.0.0/16", "10.1.255.1", true),
            ("10.1.0.0/16", "10.2.0.1", false),
            ("10.1.0.0/16", "::ffff:10.1.0.1", true),
            ("10.0.0.0/12", "10.15.0.1", true),
            ("10.0.0.0/12", "10.16.0.1", false),
            ("10.1.2.3/32", "10.1.2.3", true),
            ("10.1.2.3/32", "10.1.2.2", false),
            ("0.0.0.0/0", "192.0.2.1", true),
            ("0.0.0.0/0", "fd00::1", false),
            ("fd00:1::/32", "fd00:1:2::3", true),
            ("fd00:1::/32", "fd00:2::", false),
            ("::/0", "10.0.0.1", false),
        ] {
            let zone: TrustZone = zone.parse().unwrap();
            assert_eq!(zone.contains(addr.parse().unwrap()), expected, "{zone} {addr}");
        }
    }

    #[test]
    fn what_is_no_prefix_is_refused() {
        for text in [
            "",
            "10.0.0.0",
            "10.0.0.0/33",
            "fd00::/129",
            "10.0.0/8",
            "10.0.0.0/-1",
            "/8",
            "a/8",
            "10.1.0.0/12",
            "fd00::1/64",
        ] {
            assert_eq!(text.parse::<TrustZone>(), Err(TrustZoneError { text: text.into() }));
        }
    }
}
