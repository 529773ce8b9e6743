//! How a WireGuard interface should be, and whether that makes sense.

use std::{
    collections::{HashMap, HashSet},
    fmt,
    net::{IpAddr, SocketAddr},
    str::FromStr,
};

use super::{Error, PresharedKey, PublicKey};
use crate::{mtu::MTU_MIN, netlink::link::valid_name};

/// The name of the interface, unless told otherwise.
pub const INTERFACE: &str = "dwcp-wg0";
/// The UDP port that everybody takes.
pub const PORT: u16 = 51820;
/// Peers of one interface.
pub const PEERS_MAX: usize = 1024;
/// Keys of one peer: the current one and the next.
pub const KEYS_MAX: usize = 2;
/// Networks behind one peer.
const NETWORKS_MAX: usize = 256;
/// An IP packet's length has 16 bits.
const MTU_MAX: u32 = 65_535;

/// A network: an address and how many of its first bits count.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Network {
    address: IpAddr,
    prefix: u8,
}

impl Network {
    /// The network that this address is in. None if there are not so many bits.
    pub fn new(address: IpAddr, prefix: u8) -> Option<Self> {
        let address = match address {
            IpAddr::V4(v4) if prefix <= 32 => {
                let mask = u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0);
                IpAddr::V4((u32::from(v4) & mask).into())
            }
            IpAddr::V6(v6) if prefix <= 128 => {
                let mask = u128::MAX.checked_shl(128 - u32::from(prefix)).unwrap_or(0);
                IpAddr::V6((u128::from(v6) & mask).into())
            }
            _ => return None,
        };
        Some(Self { address, prefix })
    }

    /// Its first address.
    pub fn address(&self) -> IpAddr {
        self.address
    }

    /// How many bits count.
    pub fn prefix(&self) -> u8 {
        self.prefix
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

impl fmt::Debug for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A text that is not what it should be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not {expected}")]
pub struct ParseError {
    /// What it should be.
    pub expected: &'static str,
}

impl FromStr for Network {
    type Err = ParseError;

    /// `10.0.0.0/8`, or one address alone.
    fn from_str(text: &str) -> Result<Self, ParseError> {
        const WRONG: ParseError = ParseError { expected: "a network such as 10.0.0.0/8 or fd00::/8" };
        let (address, prefix) = text.split_once('/').map_or((text, None), |(a, p)| (a, Some(p)));
        let address: IpAddr = address.parse().map_err(|_| WRONG)?;
        let all = if address.is_ipv4() { 32 } else { 128 };
        let prefix = prefix.map_or(Ok(all), str::parse).map_err(|_| WRONG)?;
        Self::new(address, prefix).ok_or(WRONG)
    }
}

/// The other end of a tunnel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// What it is called here: the node's name. A peer that changes its keys keeps its name.
    pub name: String,
    /// Its current key, and the next one if it has announced one.
    pub public_keys: Vec<PublicKey>,
    /// A secret that both ends know beside their keys.
    pub preshared_key: Option<PresharedKey>,
    /// Where it is. Without one it has to speak first; where its packets come from counts from then on.
    pub endpoint: Option<SocketAddr>,
    /// The networks behind it: packets to them are sent to it, and only packets from them are taken from it. A network that
    /// is not within one of [`Config::addresses`] needs a route through the interface, which is the caller's.
    pub allowed_ips: Vec<Network>,
    /// Seconds after which something is sent in any case, so that firewalls in between remember.
    pub keepalive_s: Option<u16>,
}

/// How the interface should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Its name, of 15 bytes at most.
    pub interface: String,
    /// The UDP port to receive on, on all addresses.
    pub port: u16,
    /// The addresses of this node inside, each with the network that is reached through the interface: 10.99.0.1, 16.
    pub addresses: Vec<(IpAddr, u8)>,
    /// In bytes; [`crate::mtu::wireguard`] says how many there may be.
    pub mtu: u32,
    /// The other ends.
    pub peers: Vec<Peer>,
}

impl Config {
    /// With the names and numbers of the contract, and no addresses and peers yet.
    pub fn new(mtu: u32) -> Self {
        Self { interface: INTERFACE.to_owned(), port: PORT, addresses: Vec::new(), mtu, peers: Vec::new() }
    }

    pub(super) fn check(&self, own: PublicKey) -> Result<(), Error> {
        let wrong = |setting, detail: String| Err(Error::Config { setting, detail });
        if !valid_name(&self.interface) {
            return wrong(
                "interface",
                format!("{:?} is no name: 1 to 15 bytes, without / : %", self.interface),
            );
        }
        if self.port == 0 {
            return wrong("port", "0 is no port".to_owned());
        }
        if !(MTU_MIN..=MTU_MAX).contains(&self.mtu) {
            return wrong("mtu", format!("{} is not between {MTU_MIN} and {MTU_MAX}", self.mtu));
        }
        if let Some((address, prefix)) = self.addresses.iter().find(|(a, p)| Network::new(*a, *p).is_none()) {
            return wrong("addresses", format!("{address} has fewer bits than {prefix}"));
        }
        if self.peers.len() > PEERS_MAX {
            return wrong("peers", format!("{} are more than {PEERS_MAX}", self.peers.len()));
        }
        let (mut names, mut keys, mut networks) = (HashSet::new(), HashMap::new(), HashMap::new());
        for peer in &self.peers {
            let name = &peer.name;
            if !names.insert(name) {
                return wrong("peers", format!("two have the name {name}"));
            }
            if peer.public_keys.is_empty() || peer.public_keys.len() > KEYS_MAX {
                return wrong("public_keys", format!("{name} has {}, not 1 or 2", peer.public_keys.len()));
            }
            if peer.allowed_ips.len() > NETWORKS_MAX {
                return wrong("allowed_ips", format!("{name} has more than {NETWORKS_MAX}"));
            }
            for public_key in &peer.public_keys {
                if *public_key == own {
                    return wrong("public_keys", format!("{name} has this node's own key"));
                }
                if let Some(other) = keys.insert(*public_key, name) {
                    return wrong(
                        "public_keys",
                        format!("{public_key} is in the list twice, of {other} and {name}"),
                    );
                }
            }
            for network in &peer.allowed_ips {
                if let Some(other) = networks.insert(*network, name) {
                    return wrong("allowed_ips", format!("{network} is behind {other} and {name}"));
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::{super::PrivateKey, *};

    #[test]
    fn networks_are_read_masked_and_written() {
        for (text, written) in [
            ("10.1.2.3/8", "10.0.0.0/8"),
            ("10.1.2.3", "10.1.2.3/32"),
            ("1.2.3.4/0", "0.0.0.0/0"),
            ("fd00::1/16", "fd00::/16"),
            ("::1/0", "::/0"),
            ("fd00::1", "fd00::1/128"),
        ] {
            assert_eq!(text.parse::<Network>().expect(text).to_string(), written);
        }
        for text in ["", "10.0.0.0/33", "fd00::/129", "10.0.0/8", "10.0.0.0/x", "10.0.0.0/-1", "/"] {
            assert!(text.parse::<Network>().is_err(), "{text}");
        }
    }

    #[test]
    fn what_makes_no_sense_is_refused_with_a_reason() {
        let key = PrivateKey::generate().expect("randomness");
        let peer = |name: &str, network: &str| Peer {
            name: name.to_owned(),
            public_keys: vec![PrivateKey::generate().expect("randomness").public_key()],
            preshared_key: None,
            endpoint: None,
            allowed_ips: vec![network.parse().expect("a network")],
            keepalive_s: None,
        };
        let good =
            Config { peers: vec![peer("a", "10.1.0.0/16"), peer("b", "10.2.0.0/16")], ..Config::new(1420) };
        good.check(key.public_key()).expect("it is good");
        let with = |change: &dyn Fn(&mut Config)| {
            let mut config = good.clone();
            change(&mut config);
            match config.check(key.public_key()) {
                Err(Error::Config { setting, .. }) => setting,
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(with(&|c| c.interface = "a b".into()), "interface");
        assert_eq!(with(&|c| c.port = 0), "port");
        assert_eq!(with(&|c| c.mtu = 1200), "mtu");
        assert_eq!(with(&|c| c.addresses = vec![("10.0.0.1".parse().expect("an address"), 33)]), "addresses");
        assert_eq!(with(&|c| c.peers[1].name = "a".into()), "peers");
        assert_eq!(with(&|c| c.peers[1].public_keys.clear()), "public_keys");
        assert_eq!(with(&|c| c.peers[1].public_keys = vec![key.public_key()]), "public_keys");
        assert_eq!(with(&|c| c.peers[1].public_keys = c.peers[0].public_keys.clone()), "public_keys");
        assert_eq!(
            with(&|c| c.peers[1].allowed_ips = vec!["10.1.2.3/16".parse().expect("a network")]),
            "allowed_ips"
        );
    }
}
