//! A WireGuard interface between the nodes of regions, kept as it is wanted.
//!
//! Owns: keys and their rotation ([`KeyStore`]), and an [`Interface`] by the kernel or, where it has no WireGuard, in
//! user space: same configuration, same protocol. Does not know where the list of peers comes from.
//!
//! **Rotation.** A WireGuard interface has one private key, so a peer cannot be given two of them. What overlaps is what
//! the *others* know: the next public key is announced ahead ([`KeyStore::announce`]), each peer takes messages from
//! either ([`Peer::public_keys`]), at the agreed time the key is changed ([`KeyStore::switch`], [`Interface::set_key`]),
//! and a peer sends to the new key as soon as a packet under it came, not before. Sessions outlive the change of keys
//! until the new ones are agreed on. In user space no packet is lost; a kernel has to be asked whether there was a
//! handshake, so [`Interface::poll`] is to be called every [`POLL_INTERVAL`], and what comes in between is dropped.

mod config;
mod kernel;
mod keys;
mod user;

use std::{net::SocketAddr, time::Duration};

pub use config::{Config, INTERFACE, KEYS_MAX, Network, PEERS_MAX, PORT, ParseError, Peer};
pub use keys::{KeyStore, PresharedKey, PrivateKey, PublicKey};

use crate::{
    netlink::{Netlink, NetlinkError},
    state::StateError,
};
use kernel::Kernel;
use user::User;

/// How often [`Interface::poll`] should be called while a peer has two keys: what a kernel drops of the peer's packets
/// when it changes keys is what comes in this time.
pub const POLL_INTERVAL: Duration = Duration::from_millis(100);
/// A key that a peer does not have any more is kept for so long, if the peer's new one had no handshake yet, and so are
/// sessions under a private key of ours that was replaced. With the 120 s after which a session is renewed, it is the
/// 180 s that a session may live.
pub const OVERLAP_MAX: Duration = Duration::from_secs(60);

/// What marks an interface as ours.
const ALIAS: &str = "novacron-dwcp wireguard";

/// Which WireGuard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Implementation {
    /// The kernel's.
    Kernel,
    /// This process's, on a TUN device. It ends with the [`Interface`].
    UserSpace,
}

/// Why there is no interface, or it is not as wanted.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The configuration makes no sense.
    #[error("WireGuard {setting}: {detail}")]
    Config {
        /// Which setting.
        setting: &'static str,
        /// What is wrong, and what would be right.
        detail: String,
    },
    /// There is an interface of this name that is not ours.
    #[error(
        "{interface} is there already and is not ours: name another, or remove it (`ip link del {interface}`)"
    )]
    Foreign {
        /// Its name.
        interface: String,
    },
    /// Neither the kernel nor this process can do it.
    #[error("no WireGuard is possible here. In the kernel: {kernel}. In user space: {user_space}")]
    Impossible {
        /// What is missing in the kernel.
        kernel: String,
        /// What is missing for user space.
        user_space: String,
    },
    /// The kernel has no WireGuard.
    #[error("this kernel has no WireGuard (CONFIG_WIREGUARD, module wireguard)")]
    KernelWithout,
    /// User space cannot do it.
    #[error("{call}: {source}{}", user::advice(call, source))]
    UserSpace {
        /// What was tried.
        call: &'static str,
        /// What the system said.
        source: std::io::Error,
    },
    /// The kernel does not do what was asked.
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
    /// The keys cannot be kept.
    #[error(transparent)]
    State(#[from] StateError),
}

/// Whether the kernel has WireGuard. Asking loads its module, where that may be done.
pub(crate) fn kernel_has_it() -> Result<bool, NetlinkError> {
    Ok(Netlink::generic()?.family("wireguard")?.is_some())
}

/// Removes an interface that is ours, whichever of the two it is; whether it was there.
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
        Some(_) => Err(Error::Foreign { interface: interface.to_owned() }),
    }
}

/// How it stands with a peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerStatus {
    /// Its name in the configuration.
    pub name: String,
    /// The key that packets to it are sent under.
    pub public_key: PublicKey,
    /// Where they are sent.
    pub endpoint: Option<SocketAddr>,
    /// Time since the last handshake.
    pub handshake_age: Option<Duration>,
    /// Bytes received, without what WireGuard adds in user space, and with it in the kernel.
    pub rx_bytes: u64,
    /// Bytes sent, counted alike.
    pub tx_bytes: u64,
}

/// A WireGuard interface that is up.
#[derive(Debug)]
pub struct Interface {
    backend: Backend,
    config: Config,
    public_key: PublicKey,
    /// Of this name there may come another.
    index: u32,
}

#[derive(Debug)]
enum Backend {
    Kernel(Box<Kernel>),
    User(User),
}

impl Interface {
    /// Brings the interface up, by the kernel if it can, or else in user space.
    ///
    /// # Errors
    ///
    /// [`Error::Impossible`] says what both miss; see [`Error`].
    pub fn open(config: &Config, key: &PrivateKey) -> Result<Self, Error> {
        match Self::open_with(Implementation::Kernel, config, key) {
            Err(Error::KernelWithout) => {}
            result => return result,
        }
        Self::open_with(Implementation::UserSpace, config, key).map_err(|error| match error {
            Error::UserSpace { .. } | Error::Netlink(_) => {
                Error::Impossible { kernel: Error::KernelWithout.to_string(), user_space: error.to_string() }
            }
            other => other,
        })
    }

    /// Brings the interface up by one of the two.
    ///
    /// # Errors
    ///
    /// [`Error::KernelWithout`], [`Error::UserSpace`]; see [`Error`].
    pub fn open_with(
        implementation: Implementation,
        config: &Config,
        key: &PrivateKey,
    ) -> Result<Self, Error> {
        config.check(key.public_key())?;
        let mut netlink = Netlink::route()?;
        let backend = match implementation {
            Implementation::Kernel => Backend::Kernel(Box::new(Kernel::open(&mut netlink, config, key)?)),
            Implementation::UserSpace => Backend::User(User::open(&mut netlink, config, key)?),
        };
        let mut interface = Self { backend, config: config.clone(), public_key: key.public_key(), index: 0 };
        if let Err(error) = interface.bring_up(&mut netlink) {
            // One that was there before goes on as it was.
            if !matches!(&interface.backend, Backend::Kernel(kernel) if !kernel.made()) {
                interface.remove()?;
            }
            return Err(error);
        }
        Ok(interface)
    }

    fn bring_up(&mut self, netlink: &mut Netlink) -> Result<(), Error> {
        let Some(link) = netlink.link(&self.config.interface)? else {
            let detail = "somebody has removed it as it was made".to_owned();
            return Err(Error::Config { setting: "interface", detail });
        };
        self.index = link.index;
        if link.mtu != self.config.mtu {
            netlink.set_mtu(&link, self.config.mtu)?;
        }
        netlink.set_addresses(&link, &self.config.addresses)?;
        if !link.up {
            netlink.set_up(&link)?;
        }
        Ok(())
    }

    /// The kernel's number of the interface.
    pub fn index(&self) -> u32 {
        self.index
    }

    /// Which of the two it is.
    pub fn implementation(&self) -> Implementation {
        match self.backend {
            Backend::Kernel(_) => Implementation::Kernel,
            Backend::User(_) => Implementation::UserSpace,
        }
    }

    /// Takes another list of peers. Who is in both lists keeps its session.
    ///
    /// # Errors
    ///
    /// See [`Error`]. A list that makes no sense changes nothing.
    pub fn set_peers(&mut self, peers: &[Peer]) -> Result<(), Error> {
        let config = Config { peers: peers.to_vec(), ..self.config.clone() };
        config.check(self.public_key)?;
        match &mut self.backend {
            Backend::Kernel(kernel) => kernel.set_peers(&config.peers)?,
            Backend::User(user) => user.set_peers(&config.peers),
        }
        self.config = config;
        Ok(())
    }

    /// Takes another MTU, in bytes. Sessions go on.
    ///
    /// # Errors
    ///
    /// [`Error::Config`] if it makes no sense, which changes nothing; or if the kernel refuses.
    pub fn set_mtu(&mut self, mtu: u32) -> Result<(), Error> {
        let config = Config { mtu, ..self.config.clone() };
        config.check(self.public_key)?;
        let mut netlink = Netlink::route()?;
        if let Some(link) = netlink.link(&config.interface)? {
            netlink.set_mtu(&link, mtu)?;
        }
        self.config = config;
        Ok(())
    }

    /// Takes another private key, and agrees on new sessions with all peers under it. The old ones go on until then.
    ///
    /// # Errors
    ///
    /// [`Error::Config`] if a peer has this key, which changes nothing; or if the kernel refuses.
    pub fn set_key(&mut self, key: &PrivateKey) -> Result<(), Error> {
        self.config.check(key.public_key())?;
        match &mut self.backend {
            Backend::Kernel(kernel) => kernel.set_key(key, &self.config.peers)?,
            Backend::User(user) => user.set_key(key),
        }
        self.public_key = key.public_key();
        Ok(())
    }

    /// Sends to a peer's next key, if there was a handshake under it, and forgets keys that nobody has any more. Nothing
    /// to do in user space, which sees handshakes by itself.
    ///
    /// # Errors
    ///
    /// If the kernel refuses.
    pub fn poll(&mut self) -> Result<(), Error> {
        match &mut self.backend {
            Backend::Kernel(kernel) => kernel.set_peers(&self.config.peers),
            Backend::User(user) => user.check(),
        }
    }

    /// Whether it is there still: somebody may have removed it, and made another of its name. If it is, its MTU, its
    /// addresses, that it is up, and the kernel's list of peers are what they should be again.
    ///
    /// # Errors
    ///
    /// If the kernel refuses or does not say; [`Error::UserSpace`] if the thread of user space has ended.
    pub fn repair(&mut self) -> Result<bool, Error> {
        let mut netlink = Netlink::route()?;
        let link = netlink.link(&self.config.interface)?;
        if !link.is_some_and(|link| link.index == self.index && link.alias.as_deref() == Some(ALIAS)) {
            return Ok(false);
        }
        self.bring_up(&mut netlink)?;
        self.poll()?;
        Ok(true)
    }

    /// How it stands with each peer.
    ///
    /// # Errors
    ///
    /// If the kernel does not say, or the thread of user space has ended.
    pub fn peers(&mut self) -> Result<Vec<PeerStatus>, Error> {
        match &mut self.backend {
            Backend::Kernel(kernel) => kernel.status(&self.config.peers),
            Backend::User(user) => {
                user.check()?;
                Ok(user.status())
            }
        }
    }

    /// Removes the interface. Dropped without this, the kernel's goes on, for the next start to take over.
    ///
    /// # Errors
    ///
    /// If the kernel refuses.
    pub fn remove(self) -> Result<(), Error> {
        let name = self.config.interface.clone();
        let kernel = self.implementation() == Implementation::Kernel;
        drop(self);
        let mut netlink = Netlink::route()?;
        match netlink.link(&name)? {
            Some(link) if kernel => Ok(netlink.remove_link(&link)?),
            _ => Ok(()),
        }
    }
}
